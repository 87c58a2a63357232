//! The newest records, and those that come after them, from a ledger that may be being written.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
};

use crate::{
    LedgerError,
    read::{Entry, SegmentReader},
    segment,
};

/// The last entries of a ledger, then whatever is appended. Ask again after a while when there is nothing new.
pub struct Tail {
    dir: PathBuf,
    waiting: VecDeque<Entry>,
    reader: Option<(u64, SegmentReader)>,
}

impl Tail {
    /// Begins with the last `count` entries of the ledger in `dir`.
    ///
    /// # Errors
    /// When the directory or a segment cannot be read.
    pub fn open(dir: &Path, count: usize) -> Result<Self, LedgerError> {
        let mut waiting: VecDeque<Entry> = VecDeque::new();
        let mut reader = None;
        for index in segment::list(dir).map_err(LedgerError::io(dir))?.into_iter().rev() {
            let Some(mut segment) = SegmentReader::open_unless_retired(dir, index)? else { break };
            let mut last = VecDeque::new();
            while let Some(entry) = segment.next()? {
                last.push_back(entry);
                if last.len() + waiting.len() > count {
                    last.pop_front();
                }
            }
            reader.get_or_insert((index, segment));
            last.append(&mut waiting);
            waiting = last;
            if waiting.len() >= count {
                break;
            }
        }
        Ok(Self { dir: dir.to_owned(), waiting, reader })
    }

    /// The next entry; `None` when there is none yet.
    ///
    /// # Errors
    /// When a segment cannot be read.
    #[expect(clippy::should_implement_trait, reason = "`None` is no end: asked again, there may be more")]
    pub fn next(&mut self) -> Result<Option<Entry>, LedgerError> {
        if let Some(entry) = self.waiting.pop_front() {
            return Ok(Some(entry));
        }
        loop {
            // Looked for before the end of the current segment is: once the next one exists, this one is complete.
            let current = self.reader.as_ref().map_or(0, |(index, _)| *index);
            let segments = segment::list(&self.dir).map_err(LedgerError::io(&self.dir))?;
            let following = segments.into_iter().find(|index| *index > current);
            if let Some(entry) = self.reader.as_mut().map_or(Ok(None), |(_, reader)| reader.next())? {
                return Ok(Some(entry));
            }
            let Some(index) = following else { return Ok(None) };
            let reader = SegmentReader::open_unless_retired(&self.dir, index)?;
            self.reader = reader.map(|reader| (index, reader)).or_else(|| self.reader.take());
        }
    }
}
