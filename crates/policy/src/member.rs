//! Members of the answer sets: `{code, message?, internal?, retry?}` and nothing else, so that a misspelt member
//! is an error and not a reason without its message.

use model::{Reason, Retry};
use regorus::Value;

use crate::{obligation, roots::Answer};

/// The longest text of a reason, in bytes.
const MAX_TEXT_BYTES: usize = 1_024;

/// The names a member may have, `code` first. An obligation has one more, its duty.
pub(crate) fn names(answer: Answer) -> &'static [&'static str] {
    match answer {
        // Who may approve and for how long is read by the approval itself, once there is one.
        Answer::Approval => &["code", "message", "internal", "retry", "approvers", "expires"],
        Answer::Delegate | Answer::Manage => &["code", "message", "internal"],
        Answer::Obligations => &obligation::WORDS,
        Answer::Allow | Answer::Deny => &["code", "message", "internal", "retry"],
    }
}

/// The reason that `member` of the set `answer` of the package `source` is, or what is wrong with it.
pub(crate) fn reason(member: &Value, answer: Answer, source: &str) -> Result<Reason, String> {
    let set = answer.name();
    let Ok(members) = member.as_object() else {
        return Err(format!("a member of `{set}` is not an object with a `code`"));
    };
    let mut reason =
        Reason { code: String::new(), message: None, internal: None, retry: None, source: source.to_owned() };
    for (name, value) in members.iter_sorted() {
        let name = name.as_string().map_err(|_| format!("a member of `{set}` has a name that is not text"))?;
        let text = || text(value).map_err(|error| format!("`{name}` of a member of `{set}` {error}"));
        match &**name {
            "code" => reason.code = text()?,
            "message" => reason.message = Some(text()?),
            "internal" => reason.internal = Some(text()?),
            "retry" => reason.retry = Some(retry(&text()?).ok_or_else(|| unknown_retry(set))?),
            "approvers" if answer == Answer::Approval => approvers(value)?,
            "expires" if answer == Answer::Approval => drop(text()?),
            other => return Err(format!("a member of `{set}` has the unknown member `{}`", shown(other))),
        }
    }
    if is_code(&reason.code) {
        Ok(reason)
    } else {
        Err(format!("the code `{}` of a member of `{set}` is not one: write `lower_case`", shown(&reason.code)))
    }
}

pub(crate) fn text(value: &Value) -> Result<String, &'static str> {
    let text = value.as_string().map_err(|_| "is not text")?;
    if text.len() > MAX_TEXT_BYTES {
        return Err("is too long");
    }
    if text.chars().any(char::is_control) {
        return Err("has a control character");
    }
    Ok(text.to_string())
}

fn approvers(value: &Value) -> Result<(), String> {
    let wrong = || "`approvers` of a member of `approval` is not an array of names".to_owned();
    let names = value.as_array().map_err(|_| wrong())?;
    if names.iter().all(|name| text(name).is_ok()) { Ok(()) } else { Err(wrong()) }
}

fn retry(text: &str) -> Option<Retry> {
    match text {
        "never" => Some(Retry::Never),
        "after" => Some(Retry::After),
        "after_change" => Some(Retry::AfterChange),
        "after_approval" => Some(Retry::AfterApproval),
        _ => None,
    }
}

fn unknown_retry(set: &str) -> String {
    format!("`retry` of a member of `{set}` is none of `never`, `after`, `after_change`, `after_approval`")
}

/// Codes are stable names that agents and alerts are written against.
pub(crate) fn is_code(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

pub(crate) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}
