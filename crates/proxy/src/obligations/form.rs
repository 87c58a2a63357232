//! What a body is by its type, and who reads it: one document, a stream of events, or texts one after the other. What is
//! none of these cannot be redacted.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header};

use super::{
    events::Events,
    redact::{Places, Redactor, Unreadable},
    texts::{Mark, Texts},
};

/// What a body is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One document: `application/json` and whatever is written as that.
    Document,
    /// Server-sent events: `text/event-stream`.
    Events,
    /// A document a line.
    Lines,
    /// Documents that each begin with a mark: `application/json-seq` (RFC 7464).
    Sequence,
}

impl Form {
    /// By the one `Content-Type`; `None` where what it names, or the encoding of its characters, cannot be read here.
    pub(crate) fn of(fields: &HeaderMap) -> Option<Self> {
        let mut types = fields.get_all(header::CONTENT_TYPE).iter();
        let (Some(Ok(kind)), None) = (types.next().map(HeaderValue::to_str), types.next()) else { return None };
        let kind = kind.to_ascii_lowercase();
        let mut parts = kind.split(';').map(str::trim);
        let (main, subtype) = parts.next()?.split_once('/')?;
        // In another encoding the same bytes could be other names.
        let foreign = parts.any(|part| {
            part.strip_prefix("charset")
                .is_some_and(|set| !matches!(set.trim_matches([' ', '=', '"']), "utf-8" | "us-ascii"))
        });
        if foreign {
            return None;
        }
        match (main, subtype) {
            ("text", "event-stream") => Some(Self::Events),
            ("application", "x-ndjson" | "ndjson" | "jsonl" | "x-jsonl" | "jsonlines" | "x-jsonlines") => {
                Some(Self::Lines)
            }
            ("application", "json-seq") => Some(Self::Sequence),
            ("application", "json") => Some(Self::Document),
            _ if subtype.ends_with("+json-seq") => Some(Self::Sequence),
            _ if subtype.ends_with("+json") => Some(Self::Document),
            _ => None,
        }
    }
}

/// Reads a body as it streams by.
pub(crate) enum Reader {
    Document(Redactor),
    Events(Box<Events>),
    Texts(Texts),
}

impl Reader {
    pub(crate) fn new(form: Form, places: &Arc<Places>) -> Self {
        let redactor = Redactor::new(Arc::clone(places));
        match form {
            Form::Document => Self::Document(redactor),
            Form::Events => Self::Events(Box::new(Events::new(redactor))),
            Form::Lines => Self::Texts(Texts::new(redactor, Mark::LineEnd)),
            Form::Sequence => Self::Texts(Texts::new(redactor, Mark::Separator)),
        }
    }

    /// What of `chunk` the agent may see, and why nothing more of the body may be, where that shows. What is whole before
    /// that is shown.
    pub(crate) fn take(&mut self, chunk: Bytes) -> (Bytes, Option<Unreadable>) {
        let mut shown = BytesMut::with_capacity(match self {
            Self::Document(_) => 0,
            Self::Events(_) | Self::Texts(_) => chunk.len() + 16,
        });
        let read = match self {
            Self::Document(redactor) => match redactor.take(chunk) {
                Ok(shown) => return (shown, None),
                Err(unreadable) => Err(unreadable),
            },
            Self::Events(events) => events.take(&chunk, &mut shown),
            Self::Texts(texts) => texts.take(&chunk, &mut shown),
        };
        (shown.freeze(), read.err())
    }

    /// Whether the body may end here.
    ///
    /// # Errors
    /// Where it ends in the middle of a value.
    pub(crate) fn finish(&self) -> Result<(), Unreadable> {
        match self {
            Self::Document(redactor) => redactor.finish(),
            Self::Events(events) => events.finish(),
            Self::Texts(texts) => texts.finish(),
        }
    }

    /// What counts what was hidden.
    pub(crate) const fn redactor(&self) -> &Redactor {
        match self {
            Self::Document(redactor) => redactor,
            Self::Events(events) => events.redactor(),
            Self::Texts(texts) => texts.redactor(),
        }
    }
}

/// Has `read` add to `shown`, and note how much of that is whole; where it fails, no more than that is shown.
pub(super) fn up_to_whole(
    shown: &mut BytesMut,
    read: impl FnOnce(&mut BytesMut, &mut usize) -> Result<(), Unreadable>,
) -> Result<(), Unreadable> {
    let mut whole = shown.len();
    let taken = read(shown, &mut whole);
    if taken.is_err() {
        shown.truncate(whole);
    }
    taken
}

#[cfg(test)]
mod tests;
