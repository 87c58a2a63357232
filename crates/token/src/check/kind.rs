//! Kind: the token says that it is an access token, and demands nothing of the reader that this one cannot do.

use model::Code;

use crate::{
    check::shape::Header,
    config::TokenType,
    refusal::{Checked, refuse},
};

use std::collections::BTreeSet;

pub(crate) fn check(header: &Header, accepted: &BTreeSet<TokenType>) -> Checked<()> {
    let kind = header.kind.as_deref().map(str::to_ascii_lowercase);
    let fits = match kind.as_deref() {
        Some("at+jwt" | "application/at+jwt") => accepted.contains(&TokenType::AccessToken),
        Some("jwt" | "application/jwt") | None => accepted.contains(&TokenType::Any),
        Some(_) => false,
    };
    if !fits {
        let internal = format!("`typ` is {:?}, not one of {accepted:?}", header.kind);
        return refuse(Code::InvalidToken, "The token's `typ` is not that of an access token (`at+jwt`).", internal);
    }
    critical(header)
}

/// That the token is of one kind, said in `typ`, and of no other (RFC 8725 §3.11).
pub(crate) fn is(header: &Header, expected: &str) -> Checked<()> {
    let kind = header.kind.as_deref().map(str::to_ascii_lowercase);
    if kind.as_deref().map(|kind| kind.strip_prefix("application/").unwrap_or(kind)) != Some(expected) {
        let internal = format!("`typ` is {:?}, not {expected}", header.kind);
        return refuse(Code::InvalidToken, "The token's `typ` is not that of what is expected here.", internal);
    }
    critical(header)
}

/// RFC 7515 §4.1.11: what is critical and not understood refuses the token. Nothing is understood.
pub(crate) fn critical(header: &Header) -> Checked<()> {
    if header.has_critical {
        return refuse(Code::InvalidToken, "The token has a `crit` header.", "`crit` names extensions, none is known");
    }
    Ok(())
}
