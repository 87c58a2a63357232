//! A segment: one file of lines, with its companion values, its heads and, once it is full, its seal.

mod open;

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::signature::Ed25519KeyPair;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub(crate) use self::open::{Batch, OpenSegment, remove_empty, sync};
use crate::{
    canonical,
    chain::{self, Frontier, Hash, WrittenFrontier, sha256},
    files,
    heads::{self, Head, VerifyingKey},
    stored,
    values::VERSION,
};

/// The file that holds the newest head, whichever segment it is of.
pub(crate) const HEAD_FILE: &str = "head";

/// The files of one segment. Names sort in the order of writing.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    pub(crate) lines: PathBuf,
    pub(crate) values: PathBuf,
    pub(crate) heads: PathBuf,
    pub(crate) seal: PathBuf,
    /// Is there while the segment is being retired.
    pub(crate) retiring: PathBuf,
}

impl Paths {
    pub(crate) fn new(dir: &Path, index: u64) -> Self {
        let file = |kind: &str| dir.join(format!("{index:08}.{kind}"));
        Self {
            lines: file("jsonl"),
            values: file("values"),
            heads: file("heads"),
            seal: file("seal"),
            retiring: file("retiring"),
        }
    }
}

/// The indexes of the segments in `dir`, in order.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let listed = list_with(dir, &[".jsonl", ".jsonl.gz"])?;
    completed(listed, |index| stored::exists(&Paths::new(dir, index).lines))
}

/// `listed` with those that `exists` and that a listing passed over: a directory is read piece by piece, and a segment
/// that is begun or compressed meanwhile may be in none of them.
fn completed(listed: Vec<u64>, exists: impl Fn(u64) -> io::Result<bool>) -> io::Result<Vec<u64>> {
    let mut indexes: Vec<u64> = Vec::with_capacity(listed.len());
    for index in listed {
        // Backwards, until one is missing for good: nobody's file name has it looked for without end.
        let (after, mut passed_over) = (indexes.last().copied().unwrap_or(0), Vec::new());
        let mut before = index.saturating_sub(1);
        while before > after && exists(before)? {
            passed_over.push(before);
            before -= 1;
        }
        indexes.extend(passed_over.into_iter().rev());
        indexes.push(index);
    }
    Ok(indexes)
}

/// The indexes of which `dir` has a file with one of these endings, in order.
pub(crate) fn list_with(dir: &Path, endings: &[&str]) -> io::Result<Vec<u64>> {
    let mut indexes = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let index = |ending: &&str| {
            let digits = name.to_str()?.strip_suffix(*ending)?;
            // Written as we write it: another name is another's file, also where it is the same number.
            digits.parse::<u64>().ok().filter(|index| format!("{index:08}") == digits)
        };
        indexes.extend(endings.iter().find_map(index));
    }
    Ok(indexes.into_iter().collect())
}

/// Where the chain stands after some line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    /// The hash that the next line names.
    pub(crate) prev: Hash,
    /// The tree over all lines so far; its size is the next line's `seq`.
    pub(crate) frontier: Frontier,
}

impl Position {
    pub(crate) fn genesis(origin: &str) -> Self {
        Self { prev: chain::genesis(origin), frontier: Frontier::default() }
    }

    pub(crate) const fn seq(&self) -> u64 {
        self.frontier.size()
    }

    pub(crate) fn push(&mut self, line: &[u8]) {
        self.prev = sha256(line);
        self.frontier.push(line);
    }
}

/// How much a segment holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) records: u64,
    pub(crate) line_bytes: u64,
    pub(crate) value_bytes: u64,
    /// The earliest and latest `time`; not the first and last, because a clock may step back.
    pub(crate) times: Option<(Timestamp, Timestamp)>,
}

impl Extent {
    pub(crate) fn push(&mut self, line_bytes: usize, time: Timestamp) {
        self.records += 1;
        self.line_bytes += line_bytes as u64;
        let (earliest, latest) = self.times.unwrap_or((time, time));
        self.times = Some((earliest.min(time), latest.max(time)));
    }
}

/// A segment that was read to its end, as its seal has to describe it.
pub(crate) struct Complete<'a> {
    pub(crate) index: u64,
    pub(crate) extent: &'a Extent,
    /// Where the chain stands after it.
    pub(crate) position: &'a Position,
    /// The calls that are open after it.
    pub(crate) open: &'a BTreeSet<String>,
    /// How many heads it has, and the hash of their file.
    pub(crate) heads: (u64, Hash),
}

/// What is written beside a segment when it is closed for good.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Seal {
    pub(crate) v: u64,
    pub(crate) segment: u64,
    pub(crate) first_seq: u64,
    pub(crate) records: u64,
    pub(crate) line_bytes: u64,
    pub(crate) earliest: Option<Timestamp>,
    pub(crate) latest: Option<Timestamp>,
    /// The hash of the last line.
    pub(crate) last_hash: String,
    pub(crate) frontier: WrittenFrontier,
    /// Calls that were permitted and not settled when the segment was sealed.
    pub(crate) open: BTreeSet<String>,
    /// How many heads were signed in it, and the hash of their file.
    pub(crate) heads: u64,
    pub(crate) heads_digest: String,
    /// The head over everything up to the end of this segment.
    pub(crate) head: String,
}

impl Seal {
    /// The seal in `path`, `None` where there is none.
    pub(crate) fn read(path: &Path) -> io::Result<Option<Self>> {
        match fs::read(path) {
            Ok(bytes) => Self::parse(&bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The seal that a file holds.
    pub(crate) fn parse(bytes: &[u8]) -> io::Result<Self> {
        serde_json::from_slice(bytes).map_err(io::Error::other)
    }

    /// What of it is not so of a segment; `head` is its own.
    pub(crate) fn contradicted(&self, head: &Head, by: &Complete<'_>) -> Option<&'static str> {
        let Complete { index, extent, position, open, heads: (heads, digest) } = by;
        let compared = [
            ("head", (head.size, head.root) == (position.seq(), position.frontier.root())),
            ("segment", (self.v, self.segment) == (VERSION, *index)),
            ("first record", self.first_seq.checked_add(extent.records) == Some(position.seq())),
            ("records", self.records == extent.records),
            ("bytes", self.line_bytes == extent.line_bytes),
            ("times", self.earliest.zip(self.latest) == extent.times),
            ("last line", self.last_hash == chain::encoded(&position.prev)),
            ("frontier", self.frontier == position.frontier.written()),
            ("open calls", self.open == **open),
            ("heads", self.heads == *heads && self.heads_digest == chain::encoded(digest)),
        ];
        compared.iter().find(|(_, same)| !same).map(|(what, _)| *what)
    }

    /// Where the chain stands after the segment.
    pub(crate) fn position(&self) -> Option<Position> {
        let frontier = self.frontier.read()?;
        let matches = frontier.size() == self.first_seq.checked_add(self.records)?;
        matches.then_some(Position { prev: chain::decoded(&self.last_hash)?, frontier })
    }
}

/// A ledger's directory with the key that signs for it.
pub(crate) struct Home {
    pub(crate) dir: PathBuf,
    pub(crate) origin: String,
    pub(crate) key: Ed25519KeyPair,
}

impl Home {
    pub(crate) fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey::of(&self.origin, &self.key)
    }

    pub(crate) fn paths(&self, index: u64) -> Paths {
        Paths::new(&self.dir, index)
    }

    /// Signs the head at `position`, which must be durable, and keeps it with the segment `index`.
    pub(crate) fn sign_head(&self, index: u64, position: &Position) -> io::Result<String> {
        let head = Head { origin: self.origin.clone(), size: position.frontier.size(), root: position.frontier.root() };
        let note = head.sign(&self.key);
        // In this order, so that whoever finds a head in a segment also finds the newest head.
        files::replace_whole(&self.dir.join(HEAD_FILE), note.as_bytes())?;
        let path = self.paths(index).heads;
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        file.write_all(format!("{note}\n").as_bytes())?;
        file.sync_data()?;
        Ok(note)
    }

    /// Signs a last head and writes the seal of the segment `index`, which ends at `position`.
    pub(crate) fn seal(
        &self,
        index: u64,
        extent: &Extent,
        position: &Position,
        open: &BTreeSet<String>,
    ) -> io::Result<()> {
        let paths = self.paths(index);
        let head = self.sign_head(index, position)?;
        let (heads, heads_digest) = heads::tally(&paths.heads)?;
        let seal = Seal {
            v: VERSION,
            segment: index,
            first_seq: position.seq().saturating_sub(extent.records),
            records: extent.records,
            line_bytes: extent.line_bytes,
            earliest: extent.times.map(|(earliest, _)| earliest),
            latest: extent.times.map(|(_, latest)| latest),
            last_hash: chain::encoded(&position.prev),
            frontier: position.frontier.written(),
            open: open.clone(),
            heads,
            heads_digest: chain::encoded(&heads_digest),
            head,
        };
        let text = canonical::text(&seal).map_err(io::Error::other)?;
        files::replace_whole(&paths.seal, format!("{text}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_that_a_listing_passed_over_is_found() {
        let there = |index: u64| Ok((3..=9).contains(&index));
        let found = |listed: &[u64]| completed(listed.to_vec(), there).unwrap();
        let all: Vec<u64> = (3..=9).collect();
        for listed in [&[3, 4, 5, 6, 7, 8, 9][..], &[3, 5, 6, 9], &[4, 9], &[9]] {
            assert_eq!(found(listed), all);
        }
        assert_eq!(found(&[1, 4]), [1, 3, 4], "one that is not there stays missing");
        assert_eq!(found(&[u64::MAX]), [u64::MAX], "and is not looked for without end");
        assert_eq!(found(&[]), [] as [u64; 0]);
    }

    #[test]
    fn a_segment_is_a_file_whose_name_is_written_as_ours() {
        let dir = tempfile::tempdir().unwrap();
        let ours = ["00000001.jsonl", "00000004.jsonl.gz", "100000000.jsonl"];
        let others = ["1.jsonl", "+0000002.jsonl", "000000003.jsonl", "00000005.jsonl.torn", "x.jsonl"];
        for name in ours.iter().chain(&others) {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(list(dir.path()).unwrap(), [1, 4, 100_000_000]);
    }
}
