//! The journal: what the open segment holds since it was last synced, in one file that is written over and over, so that
//! a batch of records costs one fsync of a file that does not grow, and not two of files that do.
//!
//! A batch is durable once its entry is. The segment's own files are synced before a head is signed, before a seal, and
//! when a lap of the journal is full; after a crash [`restore`] gives them back what they lost.
//!
//! Laps alternate between the two halves of the file. While one is written, the files are synced as far as the one before
//! goes, beside the writer: so both may be needed after a crash, and a third is begun only once the first is not. The
//! first entry of a lap, half written, spoils only what is needed no longer.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use crate::{
    config::FsyncObserver,
    files::{self, Identity},
    segment::{Paths, sync},
};

pub(crate) const JOURNAL_FILE: &str = "journal";

const MAGIC: [u8; 8] = *b"cs-jrnl1";
/// Numbers in an entry's header: lap, place in it, segment, and for lines and rows where they lie and how many bytes.
const NUMBERS: usize = 7;
/// Magic, checksum, and the numbers, which the checksum covers with all that follows.
const HEADER: usize = 8 + 4 + NUMBERS * 8;
/// Room of one lap: about a thousand and five hundred calls, or a second of many.
const LAP_BYTES: u64 = 4 * 1024 * 1024;

/// The journal of the open segment, for its writer.
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
    identity: Identity,
    /// Counts up; its lowest bit says which half of the file it lies in.
    lap: u64,
    entries: u64,
    /// Where in its half the next entry goes.
    at: u64,
    buffer: Vec<u8>,
}

/// What becomes durable together, and where in the segment's files it lies.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) segment: u64,
    pub(crate) lines_at: u64,
    pub(crate) lines: &'a [u8],
    pub(crate) values_at: u64,
    pub(crate) values: &'a [u8],
}

impl Journal {
    /// Opens the journal in `dir`, made there first where there is none. What it held is gone: it has to be
    /// restored before.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(JOURNAL_FILE);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        files::sync_directory(dir)?;
        let identity = Identity::of(&file.metadata()?);
        let mut journal = Self { file, path, identity, lap: 0, entries: 0, at: 0, buffer: Vec::new() };
        journal.wipe()?;
        Ok(journal)
    }

    /// The next entry begins another lap, where the lap before this one lies: everything of that has to lie synced in the
    /// segment's own files. A lap that holds nothing goes on: one more would lie where the last that does is still needed.
    pub(crate) const fn next_lap(&mut self) {
        if self.holds_some() {
            self.begin(self.lap + 1);
        }
    }

    const fn begin(&mut self, lap: u64) {
        (self.lap, self.entries, self.at) = (lap, 0, 0);
    }

    /// Whether this lap holds anything: something that was written since the segment's own files were last synced whole.
    pub(crate) const fn holds_some(&self) -> bool {
        self.entries > 0
    }

    /// Whether `entry` finds room in this lap.
    pub(crate) fn has_room(&self, entry: &Entry<'_>) -> bool {
        self.at + entry.bytes() <= LAP_BYTES
    }

    /// Whether `entry` would find room in an empty lap.
    pub(crate) fn takes(entry: &Entry<'_>) -> bool {
        entry.bytes() <= LAP_BYTES
    }

    /// Makes `entry` durable; there has to be room.
    pub(crate) fn append(&mut self, entry: &Entry<'_>, observer: Option<&FsyncObserver>) -> io::Result<()> {
        self.identity.still_at(&self.path)?;
        entry.write(self.lap, self.entries, &mut self.buffer);
        self.file.write_all_at(&self.buffer, half(self.lap) + self.at)?;
        sync(&self.file, observer)?;
        self.entries += 1;
        self.at += self.buffer.len() as u64;
        Ok(())
    }

    /// Leaves nothing of what it held: it is personal, and may have to be forgotten.
    pub(crate) fn wipe(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.sync_data()?;
        // The first half again: nothing has to be kept of the other, and the file grows from its beginning.
        self.begin((self.lap | 1) + 1);
        Ok(())
    }
}

/// Where the half begins that a lap is written in.
const fn half(lap: u64) -> u64 {
    (lap & 1) * LAP_BYTES
}

impl<'a> Entry<'a> {
    const fn bytes(&self) -> u64 {
        (HEADER + self.lines.len() + self.values.len()) as u64
    }

    fn write(&self, lap: u64, number: u64, into: &mut Vec<u8>) {
        into.clear();
        into.extend_from_slice(&MAGIC);
        into.extend_from_slice(&[0; 4]);
        let (lines, values) = (self.lines.len() as u64, self.values.len() as u64);
        for number in [lap, number, self.segment, self.lines_at, lines, self.values_at, values] {
            into.extend_from_slice(&number.to_le_bytes());
        }
        into.extend_from_slice(self.lines);
        into.extend_from_slice(self.values);
        let checksum = crc32fast::hash(into.get(12..).unwrap_or_default());
        if let Some(place) = into.get_mut(8..12) {
            place.copy_from_slice(&checksum.to_le_bytes());
        }
    }

    /// The entry that `bytes` begin with, with its lap and its number in it, where it is whole.
    fn read(bytes: &'a [u8]) -> Option<(u64, u64, Self)> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (checksum, checked) = rest.split_first_chunk::<4>()?;
        let (numbers, payload) = checked.split_at_checked(NUMBERS * 8)?;
        let mut numbers = numbers.chunks_exact(8).filter_map(|number| number.try_into().ok().map(u64::from_le_bytes));
        let mut number = || numbers.next();
        let (lap, place, segment) = (number()?, number()?, number()?);
        let (lines_at, lines, values_at, values) = (number()?, number()?, number()?, number()?);
        let (lines, rest) = payload.split_at_checked(usize::try_from(lines).ok()?)?;
        let values = rest.get(..usize::try_from(values).ok()?)?;
        let whole = checked.get(..NUMBERS * 8 + lines.len() + values.len())?;
        let intact = *magic == MAGIC && crc32fast::hash(whole) == u32::from_le_bytes(*checksum);
        intact.then_some((lap, place, Self { segment, lines_at, lines, values_at, values }))
    }
}

/// A lap of a journal.
struct Lap {
    number: u64,
    bytes: Vec<u8>,
}

impl Lap {
    /// The newest lap of the journal in `path`, after the one before it where that is still there; none where there is no
    /// journal, or nothing in it.
    fn both(path: &Path) -> io::Result<Vec<Self>> {
        let mut first = match std::fs::read(path) {
            Ok(whole) => whole,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let room = usize::try_from(LAP_BYTES).map_err(io::Error::other)?;
        let second = first.split_off(room.min(first.len()));
        let lap = |half: Vec<u8>| match Entry::read(&half) {
            Some((number, 0, _)) => Some(Self { number, bytes: half }),
            _ => None,
        };
        let mut laps: Vec<_> = [lap(first), lap(second)].into_iter().flatten().collect();
        laps.sort_unstable_by_key(|lap| lap.number);
        if let [older, newest] = laps.as_slice()
            && older.number.checked_add(1) != Some(newest.number)
        {
            laps.remove(0);
        }
        Ok(laps)
    }

    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let (mut rest, mut expected) = (self.bytes.as_slice(), 0);
        std::iter::from_fn(move || {
            let (_, _, entry) =
                Entry::read(rest).filter(|(lap, place, _)| (*lap, *place) == (self.number, expected))?;
            expected += 1;
            rest = rest.get(usize::try_from(entry.bytes()).ok()?..)?;
            Some(entry)
        })
    }
}

/// Gives the files of the segment `index` what the journal in `dir` holds of it and they lost, and syncs them. Where the
/// durable lines end; `None` where the journal says nothing of that segment.
pub(crate) fn restore(dir: &Path, index: u64, paths: &Paths) -> io::Result<Option<u64>> {
    let laps = Lap::both(&dir.join(JOURNAL_FILE))?;
    if laps.is_empty() {
        return Ok(None);
    }
    let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
    let (lines, values) = match (open(&paths.lines), open(&paths.values)) {
        (Ok(lines), Ok(values)) => (lines, values),
        // Whoever reads the segment says what is missing.
        (Err(error), _) | (_, Err(error)) if error.kind() == ErrorKind::NotFound => return Ok(None),
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    let (mut end, mut restored) = (None, 0);
    let (mut line_bytes, mut value_bytes) = (lines.metadata()?.len(), values.metadata()?.len());
    for entry in laps.iter().flat_map(Lap::entries).filter(|entry| entry.segment == index) {
        // What is before an entry was synced, or another entry gave it back: without that it follows nothing.
        if line_bytes < entry.lines_at || value_bytes < entry.values_at {
            break;
        }
        line_bytes = line_bytes.max(entry.lines_at + entry.lines.len() as u64);
        value_bytes = value_bytes.max(entry.values_at + entry.values.len() as u64);
        restored += u64::from(give_back(&values, entry.values_at, entry.values)?);
        restored += u64::from(give_back(&lines, entry.lines_at, entry.lines)?);
        end = Some(entry.lines_at + entry.lines.len() as u64);
    }
    if end.is_some() {
        values.sync_data()?;
        lines.sync_data()?;
    }
    if restored > 0 {
        tracing::warn!(
            segment = index,
            pieces = restored,
            "records that were not synced yet are back from the journal"
        );
    }
    Ok(end)
}

/// Whether `bytes` were not at that place, where they are now.
fn give_back(file: &File, at: u64, bytes: &[u8]) -> io::Result<bool> {
    let mut there = vec![0; bytes.len()];
    let lost = match file.read_exact_at(&mut there, at) {
        Ok(()) => there != bytes,
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => true,
        Err(error) => return Err(error),
    };
    // Also where it can be read: after a sync that failed, memory has it, and nobody writes it to the disk any more.
    file.write_all_at(bytes, at)?;
    Ok(lost)
}

#[cfg(test)]
mod tests;
