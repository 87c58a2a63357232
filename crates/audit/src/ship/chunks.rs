//! The sidecar's side of shipping: the next chunk after what the authority has, as far as a signed head covers it.

use std::{
    io,
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};
use serde::Deserialize;

use super::chunk::{Chunk, Kept, Stand, TARGET_BYTES};
use crate::{
    LedgerError, VerifyingKey,
    read::Lines,
    segment::{self, Paths, Seal},
    stored,
};

/// A ledger as far as it was sent.
pub(crate) struct Chunks {
    dir: PathBuf,
    segment: u64,
    seq: u64,
    lines: Lines,
    rows: RawRows,
    heads_at: u64,
    base: Option<String>,
}

impl Chunks {
    /// Goes on after `stand`; `None` where the ledger has not got so far.
    ///
    /// # Errors
    /// When what follows was retired, or cannot be read.
    pub(crate) fn open(dir: &Path, stand: &Stand) -> Result<Option<Self>, LedgerError> {
        let indexes = segment::list(dir).map_err(LedgerError::io(dir))?;
        let Some(first) = indexes.first().copied() else { return Ok(None) };
        let segment = match stand {
            Stand { segment: 0, .. } => first,
            Stand { segment, sealed: true, .. } => segment + 1,
            Stand { segment, .. } => *segment,
        };
        if segment < first {
            let why =
                format!("the authority has segment {} last, and {first} is the first that is left", stand.segment);
            return Err(LedgerError::damaged(dir, why));
        }
        if !indexes.contains(&segment) {
            return Ok(None);
        }
        let before = segment.checked_sub(1).filter(|before| *before > 0);
        let before = before.map(|before| read_seal(dir, before)).transpose()?.flatten();
        let start = before.as_ref().map_or(0, |(seal, _)| seal.first_seq + seal.records);
        let base = before.filter(|_| stand.segment == 0).map(|(_, text)| text);
        let paths = Paths::new(dir, segment);
        let lines = Lines::open(&paths.lines).map_err(LedgerError::io(&paths.lines))?;
        let rows = RawRows::open(&paths.values).map_err(LedgerError::io(&paths.values))?;
        let continues = stand.segment == segment;
        let heads_at = if continues { stand.heads } else { 0 };
        let mut chunks = Self { dir: dir.to_owned(), segment, seq: start, lines, rows, heads_at, base };
        while continues && chunks.seq < stand.next && chunks.line()?.is_some() {}
        Ok(Some(chunks))
    }

    fn line(&mut self) -> Result<Option<Vec<u8>>, LedgerError> {
        let path = Paths::new(&self.dir, self.segment).lines;
        let line = self.lines.next().map_err(LedgerError::io(path))?;
        self.seq += u64::from(line.is_some());
        Ok(line)
    }

    /// The next chunk, of lines below `signed`; `None` where there is nothing now. Whoever does not get it across opens
    /// them anew.
    pub(crate) fn next(
        &mut self,
        signed: u64,
        key: &VerifyingKey,
        proof: &str,
    ) -> Result<Option<Box<Chunk>>, LedgerError> {
        let (first, dir, segment) = (self.seq, self.dir.clone(), self.segment);
        // Before the lines are: where there is a seal, there are no more of them than it says.
        let seal = read_seal(&dir, segment)?;
        let end = seal.as_ref().map_or(u64::MAX, |(seal, _)| seal.first_seq + seal.records);
        let (mut lines, mut values) = (BytesMut::new(), BytesMut::new());
        let values_path = Paths::new(&dir, segment).values;
        while self.seq < signed.min(end) && lines.len() + values.len() < TARGET_BYTES {
            let seq = self.seq;
            let Some(line) = self.line()? else { break };
            lines.extend_from_slice(&line);
            lines.extend_from_slice(b"\n");
            if let Some(row) = self.rows.of(seq).map_err(LedgerError::io(&values_path))? {
                values.extend_from_slice(&row);
                values.extend_from_slice(b"\n");
            }
        }
        let mut chunk = Chunk {
            ledger: key.to_string(),
            proof: proof.to_owned(),
            segment,
            first,
            base: self.base.take(),
            lines: lines.freeze(),
            values: values.freeze(),
            heads_at: self.heads_at,
            heads: Bytes::new(),
            head: None,
            seal: None,
        };
        if let Some((_, text)) = seal.filter(|_| self.seq == end) {
            let path = Paths::new(&dir, segment).heads;
            let (heads, last) = read_from(&path, self.heads_at).map_err(LedgerError::io(path))?;
            self.heads_at += heads.len() as u64;
            chunk.heads = heads;
            chunk.seal = last.then_some(text);
        }
        Ok((!chunk.is_empty()).then(|| Box::new(chunk)))
    }
}

/// Which rows of the segment are left; `None` where the segment is not there any more.
pub(crate) fn kept(dir: &Path, segment: u64, key: &VerifyingKey, proof: &str) -> Result<Option<Kept>, LedgerError> {
    let paths = Paths::new(dir, segment);
    if !stored::exists(&paths.lines).map_err(LedgerError::io(dir))? {
        return Ok(None);
    }
    let mut rows = RawRows::open(&paths.values).map_err(LedgerError::io(&paths.values))?;
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    while let Some((seq, _)) = rows.next().map_err(LedgerError::io(&paths.values))? {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == seq => *last = seq,
            _ => ranges.push((seq, seq)),
        }
    }
    Ok(Some(Kept { ledger: key.to_string(), proof: proof.to_owned(), segment, rows: ranges }))
}

fn read_seal(dir: &Path, index: u64) -> Result<Option<(Seal, String)>, LedgerError> {
    let path = Paths::new(dir, index).seal;
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let seal = serde_json::from_str(&text).map_err(|error| LedgerError::damaged(&path, error.to_string()))?;
            Ok(Some((seal, text)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LedgerError::io(&path)(error)),
    }
}

/// At most so much of `path` after `from` bytes as fits a chunk, and whether that is its end.
fn read_from(path: &Path, from: u64) -> io::Result<(Bytes, bool)> {
    let mut source = stored::open(path)?;
    io::copy(&mut io::Read::take(&mut source, from), &mut io::sink())?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(&mut source, TARGET_BYTES as u64), &mut bytes)?;
    let last = io::Read::read(&mut source, &mut [0])? == 0;
    Ok((bytes.into(), last))
}

/// Companion rows byte for byte, each with the record it is of.
pub(crate) struct RawRows {
    lines: Option<Lines>,
    ahead: Option<(u64, Vec<u8>)>,
}

impl RawRows {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let lines = match Lines::open(path) {
            Ok(lines) => Some(lines),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { lines, ahead: None })
    }

    pub(crate) fn next(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        #[derive(Deserialize)]
        struct RowSeq {
            seq: u64,
        }
        if let Some(row) = self.ahead.take() {
            return Ok(Some(row));
        }
        let Some(line) = self.lines.as_mut().map_or(Ok(None), Lines::next)? else { return Ok(None) };
        let RowSeq { seq } = serde_json::from_slice(&line)?;
        Ok(Some((seq, line)))
    }

    /// The row of the record `seq`; rows of records before it are passed over.
    pub(crate) fn of(&mut self, seq: u64) -> io::Result<Option<Vec<u8>>> {
        while let Some((found, row)) = self.next()? {
            if found == seq {
                return Ok(Some(row));
            }
            if found > seq {
                self.ahead = Some((found, row));
                break;
            }
        }
        Ok(None)
    }
}
