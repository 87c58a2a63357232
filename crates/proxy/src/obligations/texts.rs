//! JSON texts one after the other, a line each or each after a mark (RFC 7464). Where one ends is the same to every reader:
//! a text that goes over the end of a line, or a line end that only some take for one, ends the stream.

use bytes::{Bytes, BytesMut};

use super::{
    form::up_to_whole,
    redact::{Redactor, Unreadable},
};

/// What stands between two texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The end of a line, after each.
    LineEnd,
    /// The record separator, before each.
    Separator,
}

impl Mark {
    const fn byte(self) -> u8 {
        match self {
            Self::LineEnd => b'\n',
            Self::Separator => 0x1E,
        }
    }
}

/// Texts that are under way.
pub(crate) struct Texts {
    redactor: Redactor,
    mark: Mark,
    /// Whether a text may begin here: after the first mark, where that comes before the text.
    is_open: bool,
    /// Whether the byte before was a carriage return.
    returned: bool,
}

impl Texts {
    pub(crate) const fn new(redactor: Redactor, mark: Mark) -> Self {
        Self { redactor, mark, is_open: matches!(mark, Mark::LineEnd), returned: false }
    }

    /// Adds to `shown` what the agent may see of `chunk`.
    ///
    /// # Errors
    /// Where it does not go on as JSON. Of this chunk, texts that were whole before that are shown.
    pub(crate) fn take(&mut self, chunk: &Bytes, shown: &mut BytesMut) -> Result<(), Unreadable> {
        up_to_whole(shown, |shown, whole| self.take_all(chunk, shown, whole))
    }

    fn take_all(&mut self, chunk: &Bytes, shown: &mut BytesMut, whole: &mut usize) -> Result<(), Unreadable> {
        let mut at = 0;
        while let Some(rest) = chunk.get(at..).filter(|rest| !rest.is_empty()) {
            let mark = self.mark.byte();
            let end = rest.iter().position(|byte| *byte == mark).unwrap_or(rest.len());
            if end > 0 {
                self.text(chunk.slice(at..at + end), shown)?;
            }
            at += end;
            if end < rest.len() {
                self.redactor.finish()?;
                self.redactor.begin_again();
                (self.is_open, self.returned) = (true, false);
                shown.extend_from_slice(&[mark]);
                *whole = shown.len();
                at += 1;
            }
        }
        Ok(())
    }

    /// A piece of one text.
    fn text(&mut self, piece: Bytes, shown: &mut BytesMut) -> Result<(), Unreadable> {
        if !self.is_open {
            return Err(Unreadable::NotJson);
        }
        if self.mark == Mark::LineEnd {
            // Some readers take a carriage return for the end of a line, and some do not.
            let first = piece.iter().position(|byte| *byte == b'\r');
            if self.returned || first.is_some_and(|at| at + 1 < piece.len()) {
                return Err(Unreadable::NotJson);
            }
            self.returned = first.is_some();
        }
        shown.extend_from_slice(&self.redactor.take(piece)?);
        Ok(())
    }

    /// Whether the stream may end here: the last line needs no end.
    ///
    /// # Errors
    /// Where it ends in the middle of a value.
    pub(crate) fn finish(&self) -> Result<(), Unreadable> {
        self.redactor.finish()
    }

    pub(crate) const fn redactor(&self) -> &Redactor {
        &self.redactor
    }
}

#[cfg(test)]
mod tests;
