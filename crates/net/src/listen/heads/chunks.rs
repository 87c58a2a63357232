//! Where a chunked body ends (RFC 9112 §7.1), read exactly as the HTTP library does: what it would refuse is an end
//! of everything.

/// A place in a chunked body.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    at: Part,
    /// The size so far, then what is left of the chunk.
    left: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Start,
    Size,
    Space,
    Extension,
    SizeEnd,
    Data,
    DataReturn,
    DataEnd,
    /// The first byte of a line after the last chunk.
    Line,
    Trailer,
    TrailerEnd,
    End,
}

impl Chunks {
    /// Goes on over `bytes`: `None` while the body goes on, else what comes after it. An error where no server can
    /// say where the body ends.
    pub(super) fn skip<'a>(&mut self, mut bytes: &'a [u8]) -> Result<Option<&'a [u8]>, ()> {
        loop {
            if self.at == Part::Data {
                let here = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.left = self.left.saturating_sub(here as u64);
                bytes = bytes.get(here..).unwrap_or_default();
                if self.left == 0 {
                    self.at = Part::DataReturn;
                }
            }
            let Some((&byte, rest)) = bytes.split_first() else { return Ok(None) };
            bytes = rest;
            if (self.at, byte) == (Part::End, b'\n') {
                return Ok(Some(bytes));
            }
            self.at = self.after(byte).ok_or(())?;
        }
    }

    fn after(&mut self, byte: u8) -> Option<Part> {
        Some(match (self.at, byte) {
            (Part::Start | Part::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16)?;
                self.left = self.left.checked_mul(16)?.checked_add(u64::from(digit))?;
                Part::Size
            }
            (Part::Size | Part::Space, b' ' | b'\t') => Part::Space,
            (Part::Size | Part::Space, b';') => Part::Extension,
            (Part::Size | Part::Space | Part::Extension, b'\r') => Part::SizeEnd,
            (Part::Extension, b'\n') => return None,
            (Part::Extension, _) => Part::Extension,
            (Part::SizeEnd, b'\n') if self.left == 0 => Part::Line,
            (Part::SizeEnd, b'\n') => Part::Data,
            (Part::DataReturn, b'\r') => Part::DataEnd,
            (Part::DataEnd, b'\n') => Part::Start,
            (Part::Line, b'\r') => Part::End,
            (Part::Trailer, b'\r') => Part::TrailerEnd,
            (Part::Line | Part::Trailer, _) => Part::Trailer,
            (Part::TrailerEnd, b'\n') => Part::Line,
            _ => return None,
        })
    }
}
