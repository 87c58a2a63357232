//! What commands print. A reader that went away (`countersign audit tail | head`) is no error.

use std::io::{self, ErrorKind, Write};

use serde::Serialize;

use crate::failure::{Exit, Failure};

/// Standard output of one command.
pub(crate) struct Output {
    stream: io::StdoutLock<'static>,
}

/// Whether somebody still reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Reader {
    /// Go on.
    Listens,
    /// Nothing that is written from now on will be read.
    Gone,
}

impl Output {
    /// Standard output, held until the value is dropped.
    pub(crate) fn new() -> Self {
        Self { stream: io::stdout().lock() }
    }

    /// Writes `text` and ends the line.
    pub(crate) fn line(&mut self, text: &str) -> Result<Reader, Failure> {
        self.write(&format!("{text}\n"))
    }

    /// Writes `value` as one line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<Reader, Failure> {
        let text =
            serde_json::to_string(value).map_err(|error| Failure::because(Exit::Failed, "cannot write JSON", error))?;
        self.line(&text)
    }

    /// Writes `text` as it is.
    pub(crate) fn write(&mut self, text: &str) -> Result<Reader, Failure> {
        match self.stream.write_all(text.as_bytes()).and_then(|()| self.stream.flush()) {
            Ok(()) => Ok(Reader::Listens),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
            Err(error) => Err(Failure::because(Exit::Failed, "cannot write to standard output", error)),
        }
    }
}
