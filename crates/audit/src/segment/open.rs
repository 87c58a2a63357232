//! The segment that is being written: a batch of lines and rows becomes durable by the journal, and in the segment's own
//! files beside the writer.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Extent, Home, Paths, Position};
use crate::{
    beside::{Beside, Heading, Job},
    config::FsyncObserver,
    files::{self, Identity},
    journal::{Entry, Journal},
};

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
}
