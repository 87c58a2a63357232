//! All copies of ledgers that an authority keeps: one folder each, one writer at a time, also where several replicas of
//! the authority share the folder. What goes from a copy at the authority's own word is kept in mind beside it.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use jiff::Timestamp;

use super::{
    anchor::ledger_id,
    chunk::{Chunk, Kept, Stand},
    chunks::RawRows,
    copy::{Copy, NotTaken},
};
use crate::{
    LedgerError, RetentionConfig, VerifyingKey,
    erasure::{self, Erasure, ErasureError, Found, Person},
    files,
    keeper::{
        compress::{discard, take_place},
        erase::{self, Rewritten},
        retire,
    },
    segment::{self, Paths, Seal},
    stored,
    verify::amended::{Amended, Amendment},
};

/// Left free on the disk, for the authority's own ledger and state.
const RESERVE_BYTES: u64 = 64 * 1024 * 1024;
/// So many copies are remembered between two chunks.
const REMEMBERED: usize = 4096;
const LOCK_FILE: &str = "lock";

/// The copies of ledgers in one folder. Everything here may wait for the disk.
#[derive(Clone)]
pub struct Shelf {
    dir: PathBuf,
    copies: Arc<Mutex<HashMap<String, Slot>>>,
}

type Slot = Arc<Mutex<Option<Copy>>>;

/// What the authority took away from a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The ledger's id.
    pub ledger: String,
    /// The segment.
    pub segment: u64,
    /// Records that lost their values, or all of the segment's.
    pub records: u64,
    /// The digest of the companion rows that are left.
    pub left: Option<String>,
}

impl Shelf {
    /// The copies in `dir`.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, copies: Arc::default() }
    }

    /// Where the copy of the ledger `id` lies, if there is one; it is read as any ledger is.
    pub fn directory(&self, id: &str) -> Option<PathBuf> {
        // An id is sixteen digits; nothing else leads out of the folder.
        let well_formed = id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let dir = self.dir.join(id);
        (well_formed && dir.is_dir()).then_some(dir)
    }

    /// The ids of the ledgers that there are copies of, in order.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn ids(&self) -> Result<Vec<String>, LedgerError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(LedgerError::io(&self.dir)(error)),
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let ids: BTreeSet<_> = names.filter(|name| self.directory(name).is_some()).collect();
        Ok(ids.into_iter().collect())
    }

    /// How far the copy of the ledger of `key` reaches.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn stand(&self, key: &VerifyingKey) -> Result<Stand, NotTaken> {
        self.with(key, |copy| Ok(copy.stand()))
    }

    /// Verifies `chunk` and makes it part of the copy, durably.
    ///
    /// # Errors
    /// When it is not taken; the copy is what it was.
    pub fn take(&self, key: &VerifyingKey, chunk: &Chunk) -> Result<Stand, NotTaken> {
        let free = files::disk_free(&self.dir).unwrap_or(u64::MAX);
        let size = [&chunk.lines, &chunk.values, &chunk.heads].into_iter().map(Bytes::len).sum::<usize>() as u64;
        if free < size.saturating_add(RESERVE_BYTES) {
            return Err(NotTaken::NoRoom { free });
        }
        self.with(key, |copy| copy.take(chunk))
    }

    /// Takes every companion row out of a segment of the copy that is not in `kept`, where the ledger itself says that
    /// values of the segment were erased.
    ///
    /// # Errors
    /// When no record says so, or it leaves other rows than the record says.
    pub fn erase_but(&self, key: &VerifyingKey, kept: &Kept) -> Result<(Stand, Option<Taken>), NotTaken> {
        self.with(key, |copy| {
            let segment = kept.segment;
            let Some(digest) = copy.wanted.get(&segment).cloned() else { return Ok((copy.stand(), None)) };
            let seqs = others(copy.dir(), kept)?;
            let rewritten = erase::rewrite(copy.dir(), segment, &seqs)?;
            let mut amended = Amended::read(copy.dir())?;
            if let Some(amendment) = amended.erased.get_mut(&segment) {
                // What the authority took out before is in no record of the ledger's.
                *amendment = amendment_of(&rewritten, u64::MAX);
                amended.write(copy.dir())?;
            } else if rewritten.kept.digest != digest {
                discard(&stored::in_making(&rewritten.path));
                return Err(NotTaken::Wrong(format!("the erasure on record leaves other rows of segment {segment}")));
            }
            let taken = replace(key, segment, &rewritten)?;
            copy.wanted.remove(&segment);
            copy.write_wanted()?;
            Ok((copy.stand(), Some(taken)))
        })
    }

    /// What the copy of the ledger of `key` has of the person.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn look(&self, key: &VerifyingKey, person: &Person) -> Result<Found, LedgerError> {
        match ledger_id(key).and_then(|id| self.directory(id)) {
            Some(dir) => erasure::look(&dir, person),
            None => Ok(Found::default()),
        }
    }

    /// Erases a person from the copy of the ledger of `key`, at the authority's own word: the ledger itself need not be
    /// there any more. What is erased is kept in mind, so that the copy still verifies here. `record` puts on record what
    /// becomes of each segment, before it does.
    ///
    /// # Errors
    /// When it is not clear whom it is about, or when the copy cannot be written, or the record. Done again, it goes on.
    pub fn erase(
        &self,
        key: &VerifyingKey,
        erasure: &Erasure,
        mut record: impl FnMut(&Taken) -> Result<(), LedgerError>,
    ) -> Result<Vec<Taken>, ErasureError> {
        erasure.check()?;
        if ledger_id(key).and_then(|id| self.directory(id)).is_none() {
            // Nothing of it was shipped, and a copy is not begun for this.
            return Ok(Vec::new());
        }
        let erased = self.with(key, |copy| {
            let found = erasure::look(copy.dir(), &erasure.person)?;
            if let Err(error) = found.principal() {
                return Ok(Err(error));
            }
            let mut amended = Amended::read(copy.dir())?;
            let mut all = Vec::new();
            for (segment, seqs) in found.rows.iter().rev() {
                let rewritten = erase::rewrite(copy.dir(), *segment, seqs)?;
                record(&taken_of(key, *segment, &rewritten))
                    .inspect_err(|_| discard(&stored::in_making(&rewritten.path)))?;
                // Of a segment that goes on, what comes later is not spoken of.
                let before = if found.unsealed.contains(segment) { copy.stand().next } else { u64::MAX };
                amended.erased.insert(*segment, amendment_of(&rewritten, before));
                amended.write(copy.dir())?;
                all.push(replace(key, *segment, &rewritten)?);
            }
            Ok(Ok(all))
        });
        match erased {
            Ok(outcome) => {
                self.forget(key);
                outcome
            }
            Err(NotTaken::Copy(error)) => Err(error.into()),
            Err(error) => Err(LedgerError::Unavailable(error.to_string()).into()),
        }
    }

    /// Takes away what `retention` no longer keeps, of each copy for itself; never its last segment.
    ///
    /// # Errors
    /// When a copy cannot be read or written. Those before it are done.
    pub fn retire(&self, retention: &RetentionConfig, now: Timestamp) -> Result<Vec<Taken>, LedgerError> {
        let mut taken = Vec::new();
        if *retention == RetentionConfig::default() {
            return Ok(taken);
        }
        for id in self.ids()? {
            let dir = self.dir.join(&id);
            let _lock = lock(&dir)?;
            let last = segment::list(&dir).map_err(LedgerError::io(&dir))?.last().copied();
            for index in retire::due_in(&dir, retention, now)?.into_iter().filter(|index| Some(*index) != last) {
                let path = Paths::new(&dir, index).seal;
                let seal = Seal::read(&path).map_err(LedgerError::io(&path))?;
                let mut amended = Amended::read(&dir)?;
                amended.retired = amended.retired.max(index);
                amended.write(&dir)?;
                retire::remove(&dir, index)?;
                let records = seal.map_or(0, |seal| seal.records);
                taken.push(Taken { ledger: id.clone(), segment: index, records, left: None });
            }
        }
        Ok(taken)
    }

    fn forget(&self, key: &VerifyingKey) {
        let id = ledger_id(key).unwrap_or_default();
        self.copies.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    fn with<T>(&self, key: &VerifyingKey, work: impl FnOnce(&mut Copy) -> Result<T, NotTaken>) -> Result<T, NotTaken> {
        let id = ledger_id(key).ok_or_else(|| NotTaken::Wrong("the key is no ledger's".to_owned()))?;
        let slot = {
            let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
            if copies.len() >= REMEMBERED {
                copies.clear();
            }
            Arc::clone(copies.entry(id.to_owned()).or_default())
        };
        let mut kept = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = self.dir.join(id);
        files::create_directory(&dir)?;
        let _lock = lock(&dir)?;
        let mut copy = match kept.take().filter(Copy::is_current) {
            Some(copy) => copy,
            None => Copy::open(&dir, id, key)?,
        };
        let outcome = work(&mut copy);
        // After a failure of the disk nobody knows what of it was written: it is looked at again.
        if !matches!(outcome, Err(NotTaken::Copy(_))) {
            *kept = Some(copy);
        }
        outcome
    }
}

/// Other replicas wait. Ends with the file, however that ends.
fn lock(dir: &Path) -> Result<File, LedgerError> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = dir.join(LOCK_FILE);
    let file = File::options().create(true).append(true).mode(0o600).open(&path).map_err(LedgerError::io(&path))?;
    file.lock().map_err(LedgerError::io(&path))?;
    Ok(file)
}

/// The records of which the copy has rows, and `kept` has none.
fn others(dir: &Path, kept: &Kept) -> Result<BTreeSet<u64>, LedgerError> {
    let path = Paths::new(dir, kept.segment).values;
    let mut rows = RawRows::open(&path).map_err(LedgerError::io(&path))?;
    let (mut others, mut ranges) = (BTreeSet::new(), kept.rows.iter().peekable());
    while let Some((seq, _)) = rows.next().map_err(LedgerError::io(&path))? {
        while ranges.next_if(|(_, last)| *last < seq).is_some() {}
        if ranges.peek().is_none_or(|(first, _)| *first > seq) {
            others.insert(seq);
        }
    }
    Ok(others)
}

fn amendment_of(rewritten: &Rewritten, before: u64) -> Amendment {
    Amendment { rows: rewritten.kept.rows, digest: rewritten.kept.digest.clone(), before }
}

fn replace(key: &VerifyingKey, segment: u64, rewritten: &Rewritten) -> Result<Taken, LedgerError> {
    take_place(&rewritten.path).map_err(LedgerError::io(&rewritten.path))?;
    Ok(taken_of(key, segment, rewritten))
}

fn taken_of(key: &VerifyingKey, segment: u64, rewritten: &Rewritten) -> Taken {
    Taken {
        ledger: ledger_id(key).unwrap_or_default().to_owned(),
        segment,
        records: rewritten.records,
        left: Some(rewritten.kept.digest.clone()),
    }
}

impl Amended {
    fn write(&self, dir: &Path) -> Result<(), LedgerError> {
        let path = dir.join(crate::verify::amended::FILE);
        let text = serde_json::to_vec(self).map_err(|error| LedgerError::Unrecordable(error.to_string()))?;
        files::replace_whole(&path, &text).map_err(LedgerError::io(&path))
    }
}
