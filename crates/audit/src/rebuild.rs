//! From records back to what was decided: the exact question and the exact decision, or which erased values stand
//! in the way. Never a guess.

mod issuing;

use std::sync::Arc;

pub use issuing::{Issued, is_about_issuing, issued, issuing};
use model::{Agent, Decision, Delegation, Obligation, Question, Reason};
use serde_json::Value;

use crate::{
    read::Entry,
    record::{self, Explanation, ObligationWords, WrittenObligation, WrittenObserved, WrittenReason, kind},
};

/// Why a decision cannot be put together again.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotReplayable {
    /// Values of these members were erased.
    #[error("not replayable, because these values were erased: {}", paths.join(", "))]
    Erased {
        /// JSON pointers, `token.seen` before those of the token.
        paths: Vec<String>,
    },
    /// The call was refused before policy was asked, or passed through without it; there is no question.
    #[error("the call came to an end at `{0}`, before there was a question for policy")]
    Unasked(String),
    /// The record is from before what was asked was recorded, and lacks these members.
    #[error("not replayable, because the record is from before these were recorded: {}", paths.join(", "))]
    Absent {
        /// JSON pointers.
        paths: Vec<String>,
    },
    /// The second record is not of the token that the first cites.
    #[error("the record of the token is not of the token that the decision cites")]
    OtherToken,
    /// The records are not what this version writes.
    #[error("the record cannot be read: {0}")]
    Unreadable(String),
}

/// What a `token.seen` record says of every call that cites it.
#[derive(Debug, Clone)]
pub struct Token {
    digest: Option<String>,
    erased: Vec<String>,
    held: Result<(Arc<Delegation>, Arc<Agent>), String>,
}

impl Token {
    /// What `token_seen` says.
    pub fn of(token_seen: &Entry) -> Self {
        let held = if token_seen.erased.is_empty() {
            record::delegation(&token_seen.fields)
                .and_then(|delegation| Ok((Arc::new(delegation), Arc::new(record::registration(&token_seen.fields)?))))
        } else {
            // What is left of it is never asked for.
            Err("values of it were erased".to_owned())
        };
        Self {
            digest: token_seen.text_at("/token/digest").map(str::to_owned),
            erased: token_seen.erased.iter().map(|path| format!("token.seen{path}")).collect(),
            held,
        }
    }
}

/// The question that `decided` answered, given the `token.seen` record that it cites.
///
/// # Errors
/// When it was refused before there was a question, or a value it rests on was erased.
pub fn question(decided: &Entry, token_seen: &Entry) -> Result<Question, NotReplayable> {
    question_under(decided, Some(&Token::of(token_seen)))
}

/// The same, given what that record says: for whoever asks for many calls under one token.
///
/// # Errors
/// As [`question`]; without the token's record too, but where no question was to be had anyway.
pub fn question_under(decided: &Entry, token: Option<&Token>) -> Result<Question, NotReplayable> {
    if decided.kind != kind::CALL_DECIDED {
        return Err(NotReplayable::Unreadable(format!("`{}` is not a decision", decided.kind)));
    }
    if decided.fields.contains_key("partial") {
        // What was passed through was refused nowhere, and asked of nobody.
        let stage = if is_passed_through(decided) { PASSED } else { decided.text("stage_reached").unwrap_or("?") };
        return Err(NotReplayable::Unasked(stage.to_owned()));
    }
    let token = token
        .filter(|token| token.digest.is_some() && token.digest.as_deref() == decided.text("token"))
        .ok_or(NotReplayable::OtherToken)?;
    // The digests and the words of a refusal are no part of the question; the user is in the token's record.
    let needed = |path: &&String| !matches!(path.as_str(), "/digests" | "/explanation" | "/user");
    let own = decided.erased.iter().filter(needed);
    let paths: Vec<String> = own.chain(&token.erased).cloned().collect();
    if !paths.is_empty() {
        return Err(NotReplayable::Erased { paths });
    }
    let (delegation, agent) = token.held.clone().map_err(NotReplayable::Unreadable)?;
    record::question(&decided.fields, delegation, agent).map_err(NotReplayable::Unreadable)
}

/// The delegation that a `token.seen` record holds.
///
/// # Errors
/// When a value of it was erased.
pub fn delegation(token_seen: &Entry) -> Result<Delegation, NotReplayable> {
    if !token_seen.erased.is_empty() {
        return Err(NotReplayable::Erased { paths: token_seen.erased.clone() });
    }
    record::delegation(&token_seen.fields).map_err(NotReplayable::Unreadable)
}

/// The decision that `decided` records (of a call that was only observed, what policy said of it), with its reasons' words where they were not erased.
///
/// # Errors
/// When the record is not what this version writes.
pub fn decision(decided: &Entry) -> Result<Decision, NotReplayable> {
    let unreadable = |error: serde_json::Error| NotReplayable::Unreadable(error.to_string());
    let member = |name: &str| decided.fields.get(name).cloned().unwrap_or(Value::Null);
    let written: Option<Vec<WrittenReason>> = serde_json::from_value(member("reasons")).map_err(unreadable)?;
    let explanation: Option<Explanation> = serde_json::from_value(member("explanation")).map_err(unreadable)?;
    let explanation = explanation.unwrap_or_default();
    let obligations = obligations(decided, explanation.obligations)?;
    let mut words = explanation.reasons.into_iter();
    let reasons = written.unwrap_or_default().into_iter().map(|reason| {
        let words = words.next().unwrap_or_default();
        Reason {
            code: reason.code,
            message: words.message,
            internal: words.internal,
            retry: reason.retry,
            source: reason.source,
        }
    });
    let reasons = reasons.collect();
    // What was only observed went whatever policy said; what it said is beside that.
    let observed: Option<WrittenObserved> = serde_json::from_value(member("observed")).map_err(unreadable)?;
    if let Some(policy) = observed.and_then(|observed| observed.policy) {
        return Ok(Decision { reasons, verdict: policy.decision, code: policy.code, obligations });
    }
    Ok(Decision {
        reasons,
        verdict: serde_json::from_value(member("decision")).map_err(unreadable)?,
        code: serde_json::from_value(member("code")).map_err(unreadable)?,
        obligations,
    })
}

/// What `decided` obliges to. What they say is beside the line, and without it they are not known.
fn obligations(decided: &Entry, words: Vec<ObligationWords>) -> Result<Vec<Obligation>, NotReplayable> {
    let Some(written) = decided.fields.get("obligations") else { return Ok(Vec::new()) };
    let unreadable = |error: serde_json::Error| NotReplayable::Unreadable(error.to_string());
    let written: Vec<WrittenObligation> = serde_json::from_value(written.clone()).map_err(unreadable)?;
    if written.len() != words.len() {
        return Err(NotReplayable::Erased { paths: vec!["/explanation".to_owned()] });
    }
    Ok(written.into_iter().zip(words).map(|(written, words)| written.with(words)).collect())
}

/// In the place of a stage, for a call that was passed through.
const PASSED: &str = "passthrough";

/// Whether `decided` is of a call that was passed through: it went, and nothing was evaluated for it.
pub fn is_passed_through(decided: &Entry) -> bool {
    decided.fields.contains_key("passthrough")
}

/// What enforcing would have answered a call that was only observed: the code of the first refusal that was waived.
pub fn waived(decided: &Entry) -> Option<&str> {
    decided.fields.get("observed")?.pointer("/waived/0/code")?.as_str()
}

/// The digest of the exact policy input, as [`crate::record::Digest::text`] writes it; `None` where policy was not
/// asked or the value was erased.
pub fn input_digest(decided: &Entry) -> Option<&str> {
    decided.text_at("/digests/input")
}
