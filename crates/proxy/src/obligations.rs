//! What a permit obliges to once the call goes: the tool's answer is redacted, or no larger than so much. Most permits
//! oblige to nothing, and then there is nothing of this. What cannot be redacted is kept back, never shown as it is.
//!
//! `redact` reads a document as it streams by, `events` and `texts` streams of them, by the `form` of the answer; `notice`
//! tells whoever has to be told.

pub(crate) mod events;
pub(crate) mod form;
pub(crate) mod notice;
mod reach;
pub(crate) mod redact;
pub(crate) mod texts;

use std::{collections::BTreeMap, sync::Arc};

use audit::record::Altered;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, response};
use model::{Code, Decision, Duty, Effect, Obligation, Reason, Refusal, Retry, Verdict, obligation::RequiredHeader};

pub use self::reach::Reach;
use self::{
    form::{Form, Reader},
    notice::Notices,
    redact::{Places, Unreadable},
};
use crate::config::AgentListenerConfig;

/// Tells the agent that what it sees may not be all that the tool said.
const OBLIGATIONS: HeaderName = HeaderName::from_static("countersign-obligations");

/// Fields of an answer that speak of its bytes as the tool sent them.
const OF_THE_BYTES: [HeaderName; 3] = [header::CONTENT_LENGTH, header::ETAG, header::ACCEPT_RANGES];

/// What is in the names of those that tell a digest of them, by whatever standard or store. A digest of what is hidden is
/// a way to guess it, and so is a signature over one.
const DIGESTS: [&str; 8] = ["digest", "checksum", "hash", "md5", "crc", "sha1", "sha256", "signature"];

/// What is obliged to of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Duties {
    places: Option<Arc<Places>>,
    /// The most bytes of its body.
    most: Option<u64>,
    /// Whose word that is.
    reasons: Vec<Reason>,
}

/// Why an answer is kept back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Withheld {
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    #[error("it is not of a type that can be redacted (JSON, lines of it, or events)")]
    Type,
    #[error("it is encoded, and was asked for as it is")]
    Encoding,
    #[error("it is a part of an answer")]
    Part,
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

impl Withheld {
    /// The word for it on record.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::TooLarge(_) => "too_large",
            Self::Type => "content_type",
            Self::Encoding => "content_encoding",
            Self::Part => "partial",
            Self::Unreadable(Unreadable::NotJson) => "not_json",
            Self::Unreadable(Unreadable::TooDeep) => "too_deep",
            Self::Unreadable(Unreadable::Unfinished) => "unfinished",
            Self::Unreadable(Unreadable::LongField) => "long_field",
        }
    }
}

impl Duties {
    /// Those of `decision`; none for most.
    pub(crate) fn of(decision: &Decision) -> Option<Box<Self>> {
        if decision.obligations.is_empty() || decision.verdict != Verdict::Permit {
            return None;
        }
        let pointers = decision.obligations.iter().filter_map(|one| match &one.duty {
            Duty::Redact(pointers) => Some(pointers),
            _ => None,
        });
        let most = decision.obligations.iter().filter_map(|one| match one.duty {
            Duty::MaxResponseBytes(bytes) => Some(bytes),
            _ => None,
        });
        let (pointers, most): (Vec<_>, _) = (pointers.flatten().collect(), most.min());
        if pointers.is_empty() && most.is_none() {
            return None;
        }
        let places = (!pointers.is_empty()).then(|| Arc::new(Places::new(pointers)));
        let of_answers = |one: &&Obligation| matches!(one.duty, Duty::Redact(_) | Duty::MaxResponseBytes(_));
        let reason = |one: &Obligation| Reason {
            code: one.code.clone(),
            message: one.message.clone(),
            internal: None,
            retry: None,
            source: one.source.clone(),
        };
        let reasons = decision.obligations.iter().filter(of_answers).map(reason).collect();
        Some(Box::new(Self { places, most, reasons }))
    }

    /// Whether a request's field would have the tool answer with what cannot be looked into. What makes a write
    /// conditional stays.
    pub(crate) fn is_kept_from_tool(&self, name: &HeaderName, method: &Method) -> bool {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        let of_parts = [header::RANGE, header::IF_RANGE].contains(name);
        // Whether a tag is the right one tells of the bytes that it is made of.
        let of_tags = reads && [header::IF_NONE_MATCH, header::IF_MATCH].contains(name);
        *name == header::ACCEPT_ENCODING || self.redacts() && (of_parts || of_tags)
    }

    /// Whether the answer with this head may not be shown at all. `is_empty` where it has no body.
    pub(crate) fn withholds(&self, head: &response::Parts, method: &Method, is_empty: bool) -> Option<Withheld> {
        if is_empty || *method == Method::HEAD || head.status == StatusCode::NOT_MODIFIED {
            return None;
        }
        let length = head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if let Some(most) = self.most.filter(|most| length.is_some_and(|length: u64| length > *most)) {
            return Some(Withheld::TooLarge(most));
        }
        // Also where it is only measured: what is small as it comes may be as large as it likes once it is decoded.
        let is_identity = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
        if !head.headers.get_all(header::CONTENT_ENCODING).iter().all(is_identity) {
            return Some(Withheld::Encoding);
        }
        self.places.as_ref()?;
        if head.status == StatusCode::PARTIAL_CONTENT || head.headers.contains_key(header::CONTENT_RANGE) {
            return Some(Withheld::Part);
        }
        Form::of(&head.headers).is_none().then_some(Withheld::Type)
    }

    /// What the agent is told instead.
    pub(crate) fn refusal(&self, withheld: Withheld, effect: Effect) -> Box<Refusal> {
        let took_effect = if effect == Effect::Read { "" } else { " The call may have taken effect." };
        let detail = format!("The tool's answer is kept back: {withheld}.{took_effect}");
        let mut refusal = Refusal::new(Code::ResponseWithheld, detail);
        refusal.retry = Retry::AfterChange;
        refusal.reasons.clone_from(&self.reasons);
        Box::new(refusal)
    }

    /// Takes away what is not so of the body that is shown, and says that there are obligations.
    pub(crate) fn mark(&self, fields: &mut HeaderMap) {
        let words = match (&self.places, self.most) {
            (Some(_), Some(_)) => "redact, max_response_bytes",
            (Some(_), None) => "redact",
            (None, _) => "max_response_bytes",
        };
        fields.insert(OBLIGATIONS, HeaderValue::from_static(words));
        if self.redacts() {
            let is_digest = |name: &HeaderName| DIGESTS.iter().any(|digest| name.as_str().contains(digest));
            let of_the_bytes = fields.keys().filter(|name| OF_THE_BYTES.contains(name) || is_digest(name));
            let of_the_bytes: Vec<HeaderName> = of_the_bytes.cloned().collect();
            of_the_bytes.iter().for_each(|name| drop(fields.remove(name)));
        }
    }

    /// Whether anything is hidden.
    pub(crate) const fn redacts(&self) -> bool {
        self.places.is_some()
    }

    /// What looks at the body under these fields.
    pub(crate) fn altering(&self, fields: &HeaderMap) -> Box<Altering> {
        let form = Form::of(fields).unwrap_or(Form::Document);
        let reader = self.places.as_ref().map(|places| Reader::new(form, places));
        Box::new(Altering { reader, most: self.most, seen: 0 })
    }
}

/// `decision`, or a denial where it obliges to what this sidecar cannot meet, whatever the call: a field that policy may
/// not see, a channel that nobody configured.
pub(crate) fn within_reach(decision: Decision, listener: &AgentListenerConfig, notices: &Notices) -> Decision {
    if decision.obligations.is_empty() {
        return decision;
    }
    let beyond = |one: &Obligation| match &one.duty {
        Duty::RequireHeader(RequiredHeader { name, .. })
            if !listener.input_headers.iter().any(|known| known.as_str().eq_ignore_ascii_case(name)) =>
        {
            Some(format!(
                "`{name}` is not among `listen.agent.input_headers`, so that nobody can say whether it is there"
            ))
        }
        _ => notices.unknown(one).map(|channel| format!("there is no channel `{channel}` (`alerts.channels`)")),
    };
    let reason = |one: &Obligation| {
        let internal = beyond(one)?;
        let (code, source) = (one.code.clone(), one.source.clone());
        Some(Reason { code, message: None, internal: Some(internal), retry: None, source })
    };
    let reasons: Vec<Reason> = decision.obligations.iter().filter_map(reason).collect();
    if reasons.is_empty() {
        return decision;
    }
    Decision { verdict: Verdict::Deny, code: Some(Code::ObligationUnknown), reasons, obligations: Vec::new() }
}

/// An answer that is looked at as it streams by.
pub(crate) struct Altering {
    reader: Option<Reader>,
    most: Option<u64>,
    seen: u64,
}

impl Altering {
    /// What of `data` is shown, and why nothing more of the answer may be, where that shows.
    pub(crate) fn take(&mut self, data: Bytes) -> (Bytes, Option<Withheld>) {
        self.seen = self.seen.saturating_add(data.len() as u64);
        match (self.most.filter(|most| self.seen > *most), &mut self.reader) {
            (Some(most), _) => (Bytes::new(), Some(Withheld::TooLarge(most))),
            (None, Some(reader)) => {
                let (shown, unreadable) = reader.take(data);
                (shown, unreadable.map(Withheld::from))
            }
            (None, None) => (data, None),
        }
    }

    /// Whether the answer may end here.
    pub(crate) fn finish(&self) -> Result<(), Withheld> {
        self.reader.as_ref().map_or(Ok(()), |reader| Ok(reader.finish()?))
    }

    /// What was changed, where anything was.
    pub(crate) fn altered(&self) -> Option<Box<Altered>> {
        let redactor = self.reader.as_ref().map(Reader::redactor).filter(|redactor| redactor.hidden() > 0)?;
        let places: BTreeMap<String, u64> =
            redactor.found().map(|(pointer, count)| (pointer.to_string(), count)).collect();
        Some(Box::new(Altered { values: redactor.hidden(), places }))
    }
}

#[cfg(test)]
mod tests;
