//! Reading segments: whole lines only, each merged with its companion values, in constant memory.

use std::{
    collections::BTreeSet,
    io::{self, BufRead, ErrorKind},
    path::Path,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    LedgerError,
    chain::{Hash, Hashing},
    segment::{self, Paths},
    ship::chunks::RawRows,
    stored::{self, Source},
    values::{self, Row},
};

/// The longest line that is read; a longer one is no record, and is not written.
pub(crate) const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;

/// The most that is held for a line before it is read.
const BUFFER: usize = 16 * 1024;

/// One record, its companion values put back in their places.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The segment it is in.
    pub segment: u64,
    /// Its place in the ledger, from 0.
    pub seq: u64,
    /// When it was written, by the writer's clock; `seq` gives the order, because a clock may step back.
    pub time: Timestamp,
    /// What it is.
    pub kind: String,
    /// Its members, without `v`, `seq`, `time`, `kind` and `prev`.
    pub fields: Map<String, Value>,
    /// The members whose values were erased, as JSON pointers.
    pub erased: Vec<String>,
}

impl Entry {
    /// The text of the member `name`.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.as_str()
    }

    /// The text at `pointer` (`/user/id`).
    pub fn text_at(&self, pointer: &str) -> Option<&str> {
        let (first, rest) = pointer.strip_prefix('/')?.split_once('/')?;
        self.fields.get(first)?.get(rest)?.as_str()
    }

    /// The whole record as one JSON object, erased values as `null`.
    pub fn to_json(&self) -> Value {
        let mut object = self.fields.clone();
        object.insert("seq".to_owned(), self.seq.into());
        object.insert("time".to_owned(), self.time.to_string().into());
        object.insert("kind".to_owned(), self.kind.clone().into());
        if !self.erased.is_empty() {
            object.insert("erased".to_owned(), self.erased.clone().into());
            for pointer in &self.erased {
                object.insert(pointer.trim_start_matches('/').to_owned(), Value::Null);
            }
        }
        Value::Object(object)
    }
}

/// Whole lines of a file that may still grow, or of a compressed one.
pub(crate) struct Lines {
    reader: Source,
    partial: Vec<u8>,
}

impl Lines {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::of(stored::open(path)?))
    }

    /// The lines of `reader`.
    pub(crate) const fn of(reader: Source) -> Self {
        Self { reader, partial: Vec::new() }
    }

    /// The next whole line without its newline; `None` at the end, where a later call may find more.
    pub(crate) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let limit = (MAX_LINE_BYTES + 1).saturating_sub(self.partial.len());
        io::Read::take(&mut self.reader, limit as u64).read_until(b'\n', &mut self.partial)?;
        if self.partial.last() == Some(&b'\n') {
            self.partial.pop();
            // The next one is about as long.
            let next = Vec::with_capacity(self.partial.len().min(BUFFER));
            return Ok(Some(std::mem::replace(&mut self.partial, next)));
        }
        if self.partial.len() > MAX_LINE_BYTES {
            return Err(io::Error::new(ErrorKind::InvalidData, "a line is longer than any record"));
        }
        Ok(None)
    }

    /// Bytes after the last whole line.
    pub(crate) fn unfinished(&self) -> usize {
        self.partial.len()
    }
}

/// Companion rows, followed alongside the lines.
pub(crate) struct Rows {
    lines: Option<Lines>,
    ahead: Option<Row>,
    hashing: Hashing,
    read: u64,
    /// After how many rows the digest is wanted, and what it was then.
    watched: Option<(u64, Option<Hash>)>,
}

impl Rows {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::following(stored::open(path))
    }

    /// The rows of what was opened; none where there was nothing.
    pub(crate) fn following(opened: io::Result<Source>) -> io::Result<Self> {
        let lines = match opened {
            Ok(source) => Some(Lines::of(source)),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { lines, ahead: None, hashing: Hashing::new(), read: 0, watched: None })
    }

    /// Notes the hash of the first `rows` rows, when they are read.
    pub(crate) fn watch(&mut self, rows: u64) {
        self.watched = Some((rows, (rows == 0).then(|| self.digest())));
    }

    /// That hash, where so many were read.
    pub(crate) fn watched(&self) -> Option<Hash> {
        self.watched?.1
    }

    /// The hash of all rows so far: of the whole file, once there are no more.
    pub(crate) fn digest(&self) -> Hash {
        self.hashing.finish()
    }

    /// Bytes after the last whole row.
    pub(crate) fn unfinished(&self) -> usize {
        self.lines.as_ref().map_or(0, Lines::unfinished)
    }

    /// The next row, whichever record it is of.
    pub(crate) fn next(&mut self) -> io::Result<Option<Row>> {
        if let Some(row) = self.ahead.take() {
            return Ok(Some(row));
        }
        match self.lines.as_mut().map_or(Ok(None), Lines::next)? {
            Some(line) => {
                self.hashing.update(&line);
                self.hashing.update(b"\n");
                self.read += 1;
                if let Some((rows, digest)) = &mut self.watched
                    && *rows == self.read
                {
                    *digest = Some(self.hashing.finish());
                }
                serde_json::from_slice(&line).map(Some).map_err(io::Error::other)
            }
            None => Ok(None),
        }
    }

    /// The row of the record `seq`, where it has one. A row of an earlier record is an error.
    pub(crate) fn of_exactly(&mut self, seq: u64) -> io::Result<Option<Row>> {
        match self.next()? {
            Some(row) if row.seq < seq => {
                Err(io::Error::other(format!("there is a row of record {} too many", row.seq)))
            }
            Some(row) if row.seq == seq => Ok(Some(row)),
            row => {
                self.ahead = row;
                Ok(None)
            }
        }
    }

    /// The row of the record `seq`, where it has one. Rows of earlier records are passed over.
    pub(crate) fn of(&mut self, seq: u64) -> io::Result<Option<Row>> {
        while let Some(row) = self.next()? {
            match row.seq.cmp(&seq) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Ok(Some(row)),
                std::cmp::Ordering::Greater => {
                    self.ahead = Some(row);
                    break;
                }
            }
        }
        Ok(None)
    }
}

/// The records of one segment, in order.
pub(crate) struct SegmentReader {
    index: u64,
    paths: Paths,
    lines: Lines,
    rows: RawRows,
    bytes: u64,
}

/// One record as it lies in its files: whoever needs it reads it, on whichever thread.
#[derive(Debug)]
pub(crate) struct Unread {
    pub(crate) seq: u64,
    pub(crate) kind: String,
    pub(crate) line: Vec<u8>,
    row: Option<Vec<u8>>,
}

impl Unread {
    /// What it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.line.len() + self.row.as_ref().map_or(0, Vec::len)
    }

    /// The entry that it is.
    pub(crate) fn read(&self, segment: u64, paths: &Paths) -> Result<Entry, LedgerError> {
        let mut entry = entry(segment, &self.line, paths)?;
        let row = self.row.as_deref().map(|row| read_row(row, paths)).transpose()?;
        merge(&mut entry, row);
        Ok(entry)
    }
}

impl SegmentReader {
    pub(crate) fn open(dir: &Path, index: u64) -> Result<Self, LedgerError> {
        let paths = Paths::new(dir, index);
        let lines = Lines::open(&paths.lines).map_err(LedgerError::io(&paths.lines))?;
        let rows = RawRows::open(&paths.values).map_err(LedgerError::io(&paths.values))?;
        Ok(Self { index, paths, lines, rows, bytes: 0 })
    }

    /// The same; `None` where retention took the segment away since it was listed.
    pub(crate) fn open_unless_retired(dir: &Path, index: u64) -> Result<Option<Self>, LedgerError> {
        let reader = Self::open(dir, index);
        // Looked for after its files were opened: with all of them open, whatever goes now is still read.
        let path = Paths::new(dir, index).lines;
        if stored::exists(&path).map_err(LedgerError::io(&path))? {
            return reader.map(Some);
        }
        let first = segment::list(dir).map_err(LedgerError::io(dir))?.first().copied();
        if first.is_some_and(|first| first > index) { Ok(None) } else { reader.map(Some) }
    }

    /// The next entry; `None` at the end, where a later call may find more.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, LedgerError> {
        let Some(line) = self.line(|_| true)? else { return Ok(None) };
        let mut entry = entry(self.index, &line, &self.paths)?;
        let row = self.row(entry.seq)?.map(|row| read_row(&row, &self.paths)).transpose()?;
        merge(&mut entry, row);
        Ok(Some(entry))
    }

    /// The next record whose line is `wanted`: the others are not looked into.
    pub(crate) fn next_unread(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Result<Option<Unread>, LedgerError> {
        #[derive(Deserialize)]
        struct Place {
            seq: u64,
            kind: String,
        }
        let Some(line) = self.line(wanted)? else { return Ok(None) };
        let Place { seq, kind } = serde_json::from_slice(&line)
            .map_err(|error| LedgerError::damaged(&self.paths.lines, error.to_string()))?;
        let row = self.row(seq)?;
        Ok(Some(Unread { seq, kind, line, row }))
    }

    fn line(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Result<Option<Vec<u8>>, LedgerError> {
        loop {
            let Some(line) = self.lines.next().map_err(LedgerError::io(&self.paths.lines))? else { return Ok(None) };
            self.bytes += line.len() as u64 + 1;
            if wanted(&line) {
                return Ok(Some(line));
            }
        }
    }

    fn row(&mut self, seq: u64) -> Result<Option<Vec<u8>>, LedgerError> {
        self.rows.of(seq).map_err(LedgerError::io(&self.paths.values))
    }

    /// Where its files are.
    pub(crate) const fn paths(&self) -> &Paths {
        &self.paths
    }

    /// How many bytes of lines were read.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn entry(segment: u64, line: &[u8], paths: &Paths) -> Result<Entry, LedgerError> {
    let damaged = |why: String| LedgerError::damaged(&paths.lines, why);
    let fields: Map<String, Value> = serde_json::from_slice(line).map_err(|error| damaged(error.to_string()))?;
    parse(segment, fields).ok_or_else(|| damaged("a line is no record".to_owned()))
}

fn read_row(row: &[u8], paths: &Paths) -> Result<Row, LedgerError> {
    serde_json::from_slice(row).map_err(|error| LedgerError::io(&paths.values)(error.into()))
}

fn parse(segment: u64, mut fields: Map<String, Value>) -> Option<Entry> {
    let seq = fields.remove("seq")?.as_u64()?;
    let time = fields.remove("time")?.as_str()?.parse().ok()?;
    let kind = fields.remove("kind")?.as_str()?.to_owned();
    fields.remove("v");
    fields.remove("prev");
    Some(Entry { segment, seq, time, kind, fields, erased: Vec::new() })
}

/// Puts companion values in the place of their commitments; what has none was erased.
fn merge(entry: &mut Entry, row: Option<Row>) {
    let committed: BTreeSet<String> = entry
        .fields
        .iter()
        .filter(|(_, value)| values::committed(value).is_some())
        .map(|(name, _)| name.clone())
        .collect();
    let mut values = row.map(|row| row.values).unwrap_or_default();
    for name in committed {
        match values.remove(&format!("/{name}")) {
            Some(salted) => entry.fields.insert(name, salted.value),
            None => {
                entry.fields.remove(&name);
                entry.erased.push(format!("/{name}"));
                continue;
            }
        };
    }
}
