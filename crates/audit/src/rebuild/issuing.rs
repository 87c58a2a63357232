//! From the record of a token back to what policy was asked of it, and what became of that.

use model::{Authority, Reason};
use serde_json::Value;

use super::NotReplayable;
use crate::{
    read::Entry,
    record::{Issuing, PolicyRuling, Words, WrittenIssuing, WrittenReason, kind},
};

/// The member that holds what policy was asked.
const ASKED: &str = "/asked";

/// Where a token is refused by anything but policy.
const EXCHANGE: &str = "exchange";

/// What became of a token that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// What it was issued with; nothing, where it was refused.
    pub authority: Authority,
    /// What policy said of it; `None` where there was none.
    pub policy: Option<PolicyRuling>,
}

/// Whether `entry` is about a token that an authority issued, or did not.
pub fn is_about_issuing(entry: &Entry) -> bool {
    matches!(entry.kind.as_str(), kind::TOKEN_ISSUED | kind::TOKEN_REFUSED)
}

/// What policy was asked before the token of `entry` was issued or refused.
///
/// # Errors
/// When it was refused before there was a question, or what was asked was erased or is from before it was recorded.
pub fn issuing(entry: &Entry) -> Result<Issuing, NotReplayable> {
    if !is_about_issuing(entry) {
        return Err(NotReplayable::Unreadable(format!("`{}` is not about the issuing of a token", entry.kind)));
    }
    if entry.erased.iter().any(|path| path == ASKED) {
        return Err(NotReplayable::Erased { paths: vec![ASKED.to_owned()] });
    }
    match entry.fields.get("asked") {
        Some(asked) => {
            let written: WrittenIssuing = read(asked)?;
            written.read().map_err(NotReplayable::Unreadable)
        }
        None if entry.kind == kind::TOKEN_REFUSED && !entry.fields.contains_key("policy") => {
            Err(NotReplayable::Unasked(EXCHANGE.to_owned()))
        }
        None => Err(NotReplayable::Absent { paths: vec![ASKED.to_owned()] }),
    }
}

/// What became of the token of `entry`, with the words of the reasons where they were not erased.
///
/// # Errors
/// When the record is not what this version writes, or what the token holds was erased.
pub fn issued(entry: &Entry) -> Result<Issued, NotReplayable> {
    let authority = match entry.fields.get("authority") {
        Some(authority) => read(authority)?,
        None if entry.kind == kind::TOKEN_REFUSED => Authority::default(),
        None => return Err(NotReplayable::Erased { paths: vec!["/authority".to_owned()] }),
    };
    let Some(revision) = entry.text("policy") else { return Ok(Issued { authority, policy: None }) };
    let policy = PolicyRuling {
        revision: revision.to_owned(),
        reasons: reasons(entry, "reasons", "explanation")?,
        withheld: reasons(entry, "withheld", "withheld_explanation")?,
    };
    Ok(Issued { authority, policy: Some(policy) })
}

fn reasons(entry: &Entry, name: &str, words: &str) -> Result<Vec<Reason>, NotReplayable> {
    let list = |name: &str| entry.fields.get(name).cloned().unwrap_or_else(|| Value::Array(Vec::new()));
    let written: Vec<WrittenReason> = read(&list(name))?;
    let words: Vec<Words> = read(&list(words))?;
    let mut words = words.into_iter();
    let reason = |written: WrittenReason| {
        let Words { message, internal } = words.next().unwrap_or_default();
        Reason { code: written.code, message, internal, retry: written.retry, source: written.source }
    };
    Ok(written.into_iter().map(reason).collect())
}

fn read<'a, Of: serde::Deserialize<'a>>(value: &'a Value) -> Result<Of, NotReplayable> {
    Of::deserialize(value).map_err(|error| NotReplayable::Unreadable(error.to_string()))
}
