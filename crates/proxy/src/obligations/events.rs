//! Server-sent events as they stream by (WHATWG HTML, 9.2.6), with the data of each redacted as a document of its own. It is
//! written anew, in the one way in which all readers read it as the standard does: lines end with LF, the byte order mark and
//! what readers have to ignore is gone, and of a comment only that there is one is told. Nothing of an event is held but
//! its name and its id, so that each flows as it comes.

use bytes::{Buf as _, Bytes, BytesMut};

use super::{
    form::up_to_whole,
    redact::{Redactor, Unreadable},
};

/// The most bytes of an event's name or id.
pub(crate) const MAX_FIELD: usize = 4096;

/// What stands before the first line of some streams.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// How models' streams say that nothing follows: the one data that is not JSON and hides nothing.
const DONE: &[u8] = b"[DONE]";

/// Longer than the name of any field.
const LONG_NAME: usize = 6;

/// A stream of events that is under way.
pub(crate) struct Events {
    redactor: Redactor,
    line: Line,
    /// The name of the line's field so far, up to where it is none that is known.
    name: Vec<u8>,
    /// What the field says, where it is held.
    value: Vec<u8>,
    /// Whether the last line ended with a carriage return: a line feed after it is no other end.
    returned: bool,
    /// Whether the event has data.
    has_data: bool,
    /// How much of [`DONE`] the event's data is, while it is nothing else.
    done: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Before the first one: so many bytes of the mark.
    Mark(usize),
    /// In the name of a field.
    Name,
    /// After the colon, where one space is none of the value.
    Colon(Field),
    Value(Field),
    /// Nothing more of it is shown.
    Ignored,
    /// The same; its end is.
    Comment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Data,
    Event,
    Id,
    Retry,
}

impl Field {
    /// Names are compared exactly.
    fn named(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"data" => Self::Data,
            b"event" => Self::Event,
            b"id" => Self::Id,
            b"retry" => Self::Retry,
            _ => return None,
        })
    }

    const fn start(self) -> &'static [u8] {
        match self {
            Self::Data => b"data: ",
            Self::Event => b"event: ",
            Self::Id => b"id: ",
            Self::Retry => b"retry: ",
        }
    }

    /// Whether no reader takes `value` for one of this field.
    fn ignores(self, value: &[u8]) -> bool {
        match self {
            Self::Id => value.contains(&0),
            Self::Retry => value.is_empty() || !value.iter().all(u8::is_ascii_digit),
            Self::Data | Self::Event => false,
        }
    }
}

impl Events {
    pub(crate) fn new(redactor: Redactor) -> Self {
        Self {
            redactor,
            line: Line::Mark(0),
            name: Vec::with_capacity(LONG_NAME),
            value: Vec::new(),
            returned: false,
            has_data: false,
            done: Some(0),
        }
    }

    /// Adds to `shown` what the agent may see of `chunk`.
    ///
    /// # Errors
    /// Where an event's data is not JSON. Of this chunk, events that were whole before that are shown.
    pub(crate) fn take(&mut self, chunk: &Bytes, shown: &mut BytesMut) -> Result<(), Unreadable> {
        up_to_whole(shown, |shown, whole| self.take_all(chunk, shown, whole))
    }

    fn take_all(&mut self, chunk: &Bytes, shown: &mut BytesMut, whole: &mut usize) -> Result<(), Unreadable> {
        let mut at = 0;
        while let Some(byte) = chunk.get(at).copied() {
            if byte == b'\n' && self.returned {
                self.returned = false;
                at += 1;
            } else if matches!(byte, b'\r' | b'\n') {
                self.returned = byte == b'\r';
                if self.end_line(shown)? {
                    *whole = shown.len();
                }
                at += 1;
            } else {
                self.returned = false;
                at += self.within(chunk, at, byte, shown)?;
            }
        }
        Ok(())
    }

    /// What begins with `byte` at `at` and ends no line; how many bytes that was.
    fn within(&mut self, chunk: &Bytes, at: usize, byte: u8, shown: &mut BytesMut) -> Result<usize, Unreadable> {
        match self.line {
            Line::Mark(so_far) if BYTE_ORDER_MARK.get(so_far) == Some(&byte) => {
                let is_whole = so_far + 1 == BYTE_ORDER_MARK.len();
                self.line = if is_whole { Line::Name } else { Line::Mark(so_far + 1) };
            }
            // Half of a mark is the beginning of a name that nobody knows.
            Line::Mark(so_far) if so_far > 0 => self.line = Line::Ignored,
            Line::Mark(_) => {
                self.line = Line::Name;
                return Ok(0);
            }
            Line::Name if byte == b':' => self.begin_value(shown)?,
            Line::Name if self.name.len() < LONG_NAME => self.name.push(byte),
            Line::Name => self.line = Line::Ignored,
            Line::Colon(field) => {
                self.line = Line::Value(field);
                return Ok(usize::from(byte == b' '));
            }
            Line::Value(field) => {
                let run = run(chunk, at);
                let length = run.len();
                self.value(field, run, shown)?;
                return Ok(length);
            }
            Line::Ignored | Line::Comment => return Ok(run(chunk, at).len()),
        }
        Ok(1)
    }

    /// After the colon.
    fn begin_value(&mut self, shown: &mut BytesMut) -> Result<(), Unreadable> {
        self.line = match Field::named(&self.name) {
            Some(field) => {
                self.begin(field, shown)?;
                Line::Colon(field)
            }
            None if self.name.is_empty() => {
                shown.extend_from_slice(b":");
                Line::Comment
            }
            None => Line::Ignored,
        };
        Ok(())
    }

    fn begin(&mut self, field: Field, shown: &mut BytesMut) -> Result<(), Unreadable> {
        self.value.clear();
        if field == Field::Data {
            shown.extend_from_slice(field.start());
            if self.has_data {
                self.is_more(shown)?;
                // What joins two lines; it is shown as the two that they are.
                self.redactor.take(Bytes::from_static(b"\n"))?;
            }
            self.has_data = true;
        }
        Ok(())
    }

    fn value(&mut self, field: Field, mut run: Bytes, shown: &mut BytesMut) -> Result<(), Unreadable> {
        if field != Field::Data {
            if self.value.len() + run.len() > MAX_FIELD {
                return Err(Unreadable::LongField);
            }
            self.value.extend_from_slice(&run);
            return Ok(());
        }
        while let (Some(so_far), Some(byte)) = (self.done, run.first().copied()) {
            if DONE.get(so_far) != Some(&byte) {
                self.is_more(shown)?;
                break;
            }
            run.advance(1);
            self.done = Some(so_far + 1);
            if so_far + 1 == DONE.len() {
                shown.extend_from_slice(DONE);
            }
        }
        if !run.is_empty() {
            shown.extend_from_slice(&self.redactor.take(run)?);
        }
        Ok(())
    }

    /// The data is not, or not only, [`DONE`]: what of it was waited with is read as JSON.
    fn is_more(&mut self, shown: &mut BytesMut) -> Result<(), Unreadable> {
        match self.done.take() {
            None | Some(0) => Ok(()),
            Some(1) => {
                shown.extend_from_slice(&self.redactor.take(Bytes::from_static(b"["))?);
                Ok(())
            }
            Some(_) => Err(Unreadable::NotJson),
        }
    }

    /// Whether an event ended with it.
    fn end_line(&mut self, shown: &mut BytesMut) -> Result<bool, Unreadable> {
        let (line, mut ended) = (std::mem::replace(&mut self.line, Line::Name), false);
        match line {
            Line::Mark(0) => ended = self.end_event(shown)?,
            Line::Name if self.name.is_empty() => ended = self.end_event(shown)?,
            Line::Name => {
                if let Some(field) = Field::named(&self.name) {
                    self.begin(field, shown)?;
                    self.end_value(field, shown)?;
                }
            }
            Line::Colon(field) | Line::Value(field) => self.end_value(field, shown)?,
            Line::Comment => shown.extend_from_slice(b"\n"),
            Line::Mark(_) | Line::Ignored => {}
        }
        self.name.clear();
        Ok(ended)
    }

    fn end_value(&mut self, field: Field, shown: &mut BytesMut) -> Result<(), Unreadable> {
        if field == Field::Data {
            if self.done.is_some_and(|so_far| so_far > 0 && so_far < DONE.len()) {
                self.is_more(shown)?;
            }
        } else if field.ignores(&self.value) {
            return Ok(());
        } else {
            shown.extend_from_slice(field.start());
            // As readers decode it.
            shown.extend_from_slice(String::from_utf8_lossy(&self.value).as_bytes());
        }
        shown.extend_from_slice(b"\n");
        Ok(())
    }

    fn end_event(&mut self, shown: &mut BytesMut) -> Result<bool, Unreadable> {
        self.finish()?;
        if self.done.is_none() {
            self.redactor.begin_again();
        }
        (self.has_data, self.done) = (false, Some(0));
        shown.extend_from_slice(b"\n");
        Ok(true)
    }

    /// Whether the stream may end here. Readers drop an event that no empty line ends, whole or not.
    ///
    /// # Errors
    /// Where it ends in the middle of a value.
    pub(crate) fn finish(&self) -> Result<(), Unreadable> {
        match self.done {
            None => self.redactor.finish(),
            Some(so_far) if so_far == 0 || so_far == DONE.len() => Ok(()),
            Some(_) => Err(Unreadable::Unfinished),
        }
    }

    pub(crate) const fn redactor(&self) -> &Redactor {
        &self.redactor
    }
}

/// What of `chunk` from `at` on is before the end of a line.
fn run(chunk: &Bytes, at: usize) -> Bytes {
    let rest = chunk.get(at..).unwrap_or_default();
    let length = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(rest.len());
    chunk.slice(at..at + length)
}

#[cfg(test)]
mod tests;
