//! The heads of one segment, one at a time beside its lines: a segment of a day has tens of thousands.

use std::{
    io::{self, ErrorKind},
    path::Path,
};

use super::files::Reader;
use crate::{
    VerifyingKey,
    chain::{Hash, Hashing},
    heads::{Head, NOTE_LINES},
    read::Lines,
};

/// The verified heads of one segment, in order.
pub(super) struct Heads<'a> {
    key: &'a VerifyingKey,
    lines: Option<Lines>,
    hashing: Hashing,
    read: u64,
    /// How many bytes are looked at; of a segment that is being written, those that were there at first.
    limit: Option<u64>,
    /// The lines of a note that is not whole yet.
    note: Vec<String>,
    next: Option<Head>,
    /// How many were read.
    pub(super) count: u64,
}

impl<'a> Heads<'a> {
    /// Opens the heads in `path`; none is an empty file. Those of a segment without a seal are `growing`.
    pub(super) fn open(from: &Reader<'_>, path: &Path, key: &'a VerifyingKey, growing: bool) -> io::Result<Self> {
        let limit = if growing { Some(from.length(path)?.unwrap_or_default()) } else { None };
        let lines = match from.open(path) {
            Ok(source) => Some(Lines::of(source)),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { key, lines, hashing: Hashing::new(), read: 0, limit, note: Vec::new(), next: None, count: 0 })
    }

    /// Whether there is a file of them.
    pub(super) const fn are_there(&self) -> bool {
        self.lines.is_some()
    }

    /// The segment was sealed meanwhile: there are no more than are there now.
    pub(super) fn sealed(&mut self, from: &Reader<'_>, path: &Path) -> io::Result<()> {
        self.limit = None;
        if self.lines.is_none() {
            self.lines = Some(Lines::of(from.open(path)?));
        }
        Ok(())
    }

    /// The next head, which stays the next until it is [taken](Self::take).
    pub(super) fn peek(&mut self) -> Result<Option<&Head>, String> {
        while self.next.is_none() && self.limit.is_none_or(|limit| self.read < limit) {
            let line = match self.lines.as_mut().map_or(Ok(None), Lines::next) {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(error) => return Err(error.to_string()),
            };
            self.hashing.update(&line);
            self.hashing.update(b"\n");
            self.read += line.len() as u64 + 1;
            self.note.push(String::from_utf8_lossy(&line).into_owned());
            if self.note.len() == NOTE_LINES {
                self.note.pop();
                let note: String = self.note.drain(..).map(|line| line + "\n").collect();
                self.next = Some(Head::verify(&note, self.key).map_err(|error| error.to_string())?);
                self.count += 1;
            }
        }
        Ok(self.next.as_ref())
    }

    pub(super) fn take(&mut self) {
        self.next = None;
    }

    /// Whether something stands after the last whole note.
    pub(super) fn unfinished(&self) -> bool {
        !self.note.is_empty() || self.lines.as_ref().is_some_and(|lines| lines.unfinished() > 0)
    }

    /// The hash of the whole file, once there are no more.
    pub(super) fn digest(&self) -> Hash {
        self.hashing.finish()
    }
}
