//! A segment: one file of lines, with its companion values, its heads and, once it is full, its seal.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::signature::Ed25519KeyPair;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    beside::{Beside, Heading, Job},
    canonical,
    chain::{self, Frontier, Hash, WrittenFrontier, sha256},
    config::FsyncObserver,
    files::{self, Identity},
    heads::{self, Head, VerifyingKey},
    journal::{Entry, Journal},
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
    list_with(dir, &[".jsonl", ".jsonl.gz"])
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

/// The segment that is being written.
pub(crate) struct OpenSegment {
    pub(crate) index: u64,
    pub(crate) paths: Paths,
    lines: Kept,
    values: Kept,
    /// Where the chain stood before its first line.
    pub(crate) start: Position,
    /// Where it stands after its last durable line.
    pub(crate) position: Position,
    pub(crate) extent: Extent,
    pub(crate) opened: Instant,
    /// How much of both files the disk was given to write.
    handed_on: u64,
}

/// How much is written to a segment's files before the disk is given it to write in the background: so that little is
/// left to wait for when they are synced.
const HAND_ON_BYTES: u64 = 256 * 1024;

/// Lines and rows that become durable together.
pub(crate) struct Batch {
    pub(crate) lines: Vec<u8>,
    pub(crate) values: Vec<u8>,
    pub(crate) position: Position,
    pub(crate) extent: Extent,
}

impl OpenSegment {
    /// A new segment after `start`.
    pub(crate) fn create(home: &Home, index: u64, start: Position, opened: Instant) -> io::Result<Self> {
        let paths = home.paths(index);
        let values = Kept::create(&paths.values)?;
        let lines = match Kept::create(&paths.lines).and_then(|lines| {
            files::sync_directory(&home.dir)?;
            Ok(lines)
        }) {
            Ok(lines) => lines,
            Err(error) => {
                remove_empty(&paths);
                return Err(error);
            }
        };
        let position = start.clone();
        Ok(Self { index, paths, lines, values, start, position, extent: Extent::default(), opened, handed_on: 0 })
    }

    pub(crate) fn batch(&self) -> Batch {
        Batch { lines: Vec::new(), values: Vec::new(), position: self.position.clone(), extent: self.extent.clone() }
    }

    /// Makes `batch` durable. Where a lap of the journal is handed over for that, and a head is `due` to be signed at
    /// home, it is signed over what the segment held before; whether it is.
    pub(crate) fn commit(
        &mut self,
        batch: Batch,
        journal: &mut Journal,
        beside: &mut Beside,
        due: Option<&Arc<Home>>,
        observer: Option<&FsyncObserver>,
    ) -> io::Result<bool> {
        // A write to a file that nobody can find any more succeeds, and records nothing.
        self.lines.identity.still_at(&self.paths.lines)?;
        self.values.identity.still_at(&self.paths.values)?;
        let mut signs = false;
        let mut entry = Entry {
            segment: self.index,
            lines_at: self.extent.line_bytes,
            lines: &batch.lines,
            values_at: self.extent.value_bytes,
            values: &batch.values,
        };
        if !Journal::takes(&entry) {
            // Rows first, so that no durable line lacks its values. The journal only says where the lines end now.
            beside.settle()?;
            self.sync(observer)?;
            journal.next_lap();
            self.values.write(entry.values)?;
            sync(&self.values.file, observer)?;
            self.lines.write(entry.lines)?;
            sync(&self.lines.file, observer)?;
            (entry.lines_at, entry.lines) = (batch.extent.line_bytes, &[]);
            (entry.values_at, entry.values) = (batch.extent.value_bytes, &[]);
        } else {
            if !journal.has_room(&entry) {
                // With the lap: on a slow disk one follows on the other, and a head that waited for a pause would never be.
                let head = due.filter(|_| self.extent.records > 0).map(|home| self.heading(home));
                signs = head.is_some();
                self.hand_over(journal, beside, head)?;
            }
            self.values.write(entry.values)?;
            self.lines.write(entry.lines)?;
        }
        journal.append(&entry, observer)?;
        self.position = batch.position;
        self.extent = batch.extent;
        self.hand_on();
        Ok(signs)
    }

    /// A head over everything in it so far.
    pub(crate) fn heading(&self, home: &Arc<Home>) -> Heading {
        Heading { home: Arc::clone(home), segment: self.index, position: self.position.clone() }
    }

    fn hand_on(&mut self) {
        let written = self.extent.line_bytes + self.extent.value_bytes;
        if written.saturating_sub(self.handed_on) >= HAND_ON_BYTES {
            self.handed_on = written;
            files::begin_writing(&self.values.file);
            files::begin_writing(&self.lines.file);
        }
    }

    /// Where its durable lines end, as an entry of its own.
    pub(crate) const fn end(&self) -> Entry<'static> {
        let Extent { line_bytes, value_bytes, .. } = self.extent;
        Entry { segment: self.index, lines_at: line_bytes, lines: &[], values_at: value_bytes, values: &[] }
    }

    /// Has the segment's own files made durable beside the writer, as far as they were written, and a head signed where
    /// one is to be; the journal goes on in another lap. Waits for what was handed over before: until that is done, that
    /// lap is where the files may have to be given back from.
    pub(crate) fn hand_over(
        &self,
        journal: &mut Journal,
        beside: &mut Beside,
        head: Option<Heading>,
    ) -> io::Result<()> {
        beside.settle()?;
        beside.begin(Job { values: Arc::clone(&self.values.file), lines: Arc::clone(&self.lines.file), head })?;
        journal.next_lap();
        Ok(())
    }

    /// Makes the segment's own files durable here and now, as far as they were written and that is not done yet.
    pub(crate) fn checkpoint(
        &self,
        journal: &mut Journal,
        beside: &mut Beside,
        observer: Option<&FsyncObserver>,
    ) -> io::Result<()> {
        beside.settle()?;
        if journal.holds_some() {
            self.sync(observer)?;
            journal.next_lap();
        }
        Ok(())
    }

    fn sync(&self, observer: Option<&FsyncObserver>) -> io::Result<()> {
        sync(&self.values.file, observer)?;
        sync(&self.lines.file, observer)
    }
}

/// A file that is written, and which one it was when it was made.
struct Kept {
    file: Arc<File>,
    identity: Identity,
}

impl Kept {
    fn create(path: &Path) -> io::Result<Self> {
        let file = files::create_new(path)?;
        let identity = Identity::of(&file.metadata()?);
        Ok(Self { file: Arc::new(file), identity })
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        (&*self.file).write_all(bytes)
    }
}

/// Removes the files of a segment without a line.
pub(crate) fn remove_empty(paths: &Paths) {
    for path in [&paths.values, &paths.lines, &paths.heads] {
        let empty = fs::metadata(path).is_ok_and(|metadata| metadata.len() == 0);
        if empty && let Err(error) = fs::remove_file(path) {
            tracing::warn!(path = %path.display(), %error, "an empty segment file could not be removed");
        }
    }
}

pub(crate) fn sync(file: &File, observer: Option<&FsyncObserver>) -> io::Result<()> {
    let before = net::clock::monotonic();
    let result = file.sync_data();
    if let Some(observer) = observer {
        observer(elapsed(before));
    }
    result
}

fn elapsed(since: Instant) -> Duration {
    net::clock::monotonic().saturating_duration_since(since)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::beside;

    /// What is left of a file when the power fails after the first half of a change.
    fn torn(before: &[u8], after: &[u8]) -> Vec<u8> {
        let differs = |at: &usize| before.get(*at) != after.get(*at);
        let changed: Vec<usize> = (0..after.len()).filter(differs).collect();
        let mut torn = after.to_vec();
        for at in &changed[changed.len() / 2..] {
            torn[*at] = before.get(*at).copied().unwrap_or_default();
        }
        torn
    }

    #[test]
    fn a_batch_that_no_lap_of_the_journal_has_room_for_is_as_durable() {
        let dir = tempfile::tempdir().unwrap();
        let key = crate::keys::load_or_create(&dir.path().join("key")).unwrap();
        let home = Home { dir: dir.path().to_owned(), origin: "test".to_owned(), key };
        let mut journal = Journal::open(dir.path()).unwrap();
        let (mut beside, _worker) = beside::pair(Arc::default(), None);
        let now = net::clock::monotonic();
        let mut segment = OpenSegment::create(&home, 1, Position::genesis("test"), now).unwrap();
        let file = dir.path().join(crate::journal::JOURNAL_FILE);
        for bytes in [10, 10, 8 * 1024 * 1024, 10] {
            // As before a head: what is said of the end so far lies in the lap before.
            segment.checkpoint(&mut journal, &mut beside, None).unwrap();
            let (before, end) = (fs::read(&file).unwrap(), segment.extent.line_bytes);
            let mut batch = segment.batch();
            batch.lines = vec![b'x'; bytes];
            batch.values = vec![b'y'; bytes];
            batch.extent.line_bytes += bytes as u64;
            batch.extent.value_bytes += bytes as u64;
            segment.commit(batch, &mut journal, &mut beside, None, None).unwrap();
            let durable = || crate::journal::restore(dir.path(), 1, &segment.paths).unwrap();
            assert_eq!(durable(), Some(segment.extent.line_bytes));
            if end > 0 {
                let after = fs::read(&file).unwrap();
                fs::write(&file, torn(&before, &after)).unwrap();
                assert_eq!(durable(), Some(end), "an entry that is not whole takes nothing that was durable before");
                fs::write(&file, after).unwrap();
            }
            assert_eq!(fs::metadata(&segment.paths.lines).unwrap().len(), segment.extent.line_bytes);
            assert_eq!(fs::metadata(&segment.paths.values).unwrap().len(), segment.extent.value_bytes);
        }
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
