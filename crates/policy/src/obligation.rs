//! Members of `obligations`: `{code?, message?, internal?}` and one duty. What is none is a denial that names its package
//! (`obligation_unknown`); what a call falls short of before it is sent is one too, made after the rules have spoken, so
//! that it is the same wherever the decision comes from.

use model::{
    Code, Decision, Duty, Limit, Obligation, Question, Reason, Verdict,
    obligation::{MAX_OBLIGATIONS, MAX_POINTERS, Unmet},
};
use regorus::Value;

use crate::member::{is_code, shown, text};

/// The code of the reason where an obligation is none, and its rule has no code.
const UNKNOWN: &str = "obligation_unknown";

/// The most bytes that the obligations of one decision take: all of it goes on record, and a limit to the agent.
const MAX_BYTES: usize = 256 * 1024;

/// The names that a member may have beside its duty's.
pub(crate) const WORDS: [&str; 3] = ["code", "message", "internal"];

/// What one package asks for.
#[derive(Debug, Default)]
pub(crate) struct Obliged {
    pub(crate) known: Vec<Obligation>,
    /// What nobody here can meet.
    pub(crate) unknown: Vec<Reason>,
}

impl Obliged {
    /// Takes `member` of the set of the package `source`.
    pub(crate) fn take(&mut self, member: &Value, source: &str) {
        match read(member, source) {
            Ok(obligation) => self.known.push(obligation),
            Err(unknown) => self.unknown.push(*unknown),
        }
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.known.extend(other.known);
        self.unknown.extend(other.unknown);
    }

    /// Those that were asked for, unless they are more than one call can be held to.
    pub(crate) fn bounded(mut self) -> Result<Vec<Obligation>, Vec<Reason>> {
        if !self.unknown.is_empty() {
            self.unknown.truncate(MAX_OBLIGATIONS);
            return Err(self.unknown);
        }
        let pointers = |obligation: &Obligation| match &obligation.duty {
            Duty::Redact(pointers) => pointers.len(),
            _ => 0,
        };
        let redacted: usize = self.known.iter().map(pointers).sum();
        let bytes: usize = self.known.iter().map(size).sum();
        if self.known.len() <= MAX_OBLIGATIONS && redacted <= MAX_POINTERS && bytes <= MAX_BYTES {
            return Ok(self.known);
        }
        let internal = format!(
            "{} obligations of {bytes} bytes that redact {redacted} places; at most {MAX_OBLIGATIONS} of {MAX_BYTES} \
             bytes with {MAX_POINTERS} places can be met",
            self.known.len()
        );
        // Whoever asks for the most is the one to ask.
        let source = self.known.last().map_or("countersign", |obligation| obligation.source.as_str());
        Err(vec![unknown(UNKNOWN, internal, source)])
    }
}

/// About how many bytes an obligation takes.
pub(crate) fn size(obligation: &Obligation) -> usize {
    let of = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let values = |limit: &Limit| match limit {
        Limit::OneOf(values) => values.iter().map(|value| value.len() + 32).sum(),
        Limit::Max(_) | Limit::Cumulative(_) => 0,
    };
    let duty: usize = match &obligation.duty {
        Duty::Redact(pointers) => pointers.iter().map(|pointer| 2 * pointer.as_str().len() + 64).sum(),
        Duty::MaxResponseBytes(_) => 0,
        Duty::RequireHeader(required) => required.name.len() + of(&required.pattern),
        Duty::Limit(limits) => limits.iter().map(|(name, limit)| name.len() + 128 + values(limit)).sum(),
        Duty::Notify(notification) => notification.channel.len() + notification.message.len(),
    };
    duty + of(&obligation.message) + of(&obligation.internal) + 128
}

fn unknown(code: &str, internal: String, source: &str) -> Reason {
    Reason { code: code.to_owned(), message: None, internal: Some(internal), retry: None, source: source.to_owned() }
}

fn read(member: &Value, source: &str) -> Result<Obligation, Box<Reason>> {
    let mut said = None;
    obligation(member, source, &mut said).map_err(|internal| {
        let code = said.as_deref().filter(|code| is_code(code)).unwrap_or(UNKNOWN);
        Box::new(unknown(code, internal, source))
    })
}

fn obligation(member: &Value, source: &str, code: &mut Option<String>) -> Result<Obligation, String> {
    let members = member.as_object().map_err(|_| "a member of `obligations` is not an object".to_owned())?;
    let (mut message, mut internal, mut duties) = (None, None, Vec::new());
    for (name, value) in members.iter_sorted() {
        let name = name.as_string().map_err(|_| "a member of `obligations` has a name that is not text".to_owned())?;
        let word = || text(value).map_err(|error| format!("`{name}` of a member of `obligations` {error}"));
        match &**name {
            "code" => *code = Some(word()?),
            "message" => message = Some(word()?),
            "internal" => internal = Some(word()?),
            _ => duties.push((name.to_string(), value)),
        }
    }
    let (name, value) = match duties.as_slice() {
        [(name, value)] => (name, *value),
        [] => return Err("it obliges to nothing".to_owned()),
        several => {
            let names: Vec<_> = several.iter().map(|(name, _)| format!("`{}`", shown(name))).collect();
            return Err(format!("one obligation with {}: write one for each", names.join(" and ")));
        }
    };
    let value = serde_json::to_value(value).map_err(|error| error.to_string())?;
    let duty = Duty::read(name, value)?;
    let code = match code {
        Some(code) if is_code(code) => code.clone(),
        Some(other) => return Err(format!("the code `{}` is not one: write `lower_case`", shown(other))),
        None => duty.name().to_owned(),
    };
    Ok(Obligation { code, message, internal, source: source.to_owned(), duty })
}

/// What `decision` comes to for `question`: a denial, where the call falls short of what it would be obliged to.
pub(crate) fn held_to(decision: Decision, question: &Question) -> Decision {
    // Most decisions oblige to nothing.
    if decision.obligations.is_empty() || decision.verdict == Verdict::Deny {
        return decision;
    }
    let mut code = None;
    let mut reasons = Vec::new();
    for obligation in &decision.obligations {
        let Some(unmet) = obligation.duty.unmet(question) else { continue };
        code = match unmet {
            Unmet::Limit(_) => code.or(Some(Code::LimitExceeded)),
            Unmet::Header => Some(Code::PolicyDenied),
        };
        reasons.push(Reason {
            code: obligation.code.clone(),
            message: Some(obligation.told(&unmet)),
            internal: obligation.internal.clone(),
            retry: None,
            source: obligation.source.clone(),
        });
    }
    match code {
        None => decision,
        code => Decision { verdict: Verdict::Deny, code, reasons, obligations: decision.obligations },
    }
}

#[cfg(test)]
mod tests;
