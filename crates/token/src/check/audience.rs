//! Audience: the token is for us and for nobody else (RFC 9068 §4, RFC 8725 §3.9).

use std::collections::BTreeSet;

use model::Code;

use crate::{
    Audience,
    refusal::{Checked, refuse},
};

/// The one audience, if it is one of `ours`. A token that several may take is one that each of them could replay
/// at the others.
pub(crate) fn exactly_one<'a>(audience: &'a Audience, ours: &BTreeSet<String>) -> Checked<&'a str> {
    match audience.only() {
        Some(name) if ours.contains(name) => Ok(name),
        _ => wrong(audience),
    }
}

/// Whether any audience is one of `ours`: for users' own tokens, which providers make out to several.
pub(crate) fn any(audience: &Audience, ours: &BTreeSet<String>) -> Checked<()> {
    if audience.names().iter().any(|name| ours.contains(name)) { Ok(()) } else { wrong(audience) }
}

pub(crate) fn wrong<T>(audience: &Audience) -> Checked<T> {
    let detail = "The token is not for this audience alone.";
    refuse(Code::WrongAudience, detail, format!("`aud` is {:?}", audience.names()))
}
