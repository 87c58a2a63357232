//! The lines of a ledger that is being written, from some place on, as they become safe to be told elsewhere: those that
//! a signed head covers. What follows the newest head may yet be cut off by a crash.

use std::path::{Path, PathBuf};

use crate::{
    LedgerError,
    read::Lines,
    segment::{self, Paths, Seal},
    stored,
};

/// Lines one after the other, through segments that are sealed, compressed and begun meanwhile.
pub(crate) struct Reading {
    dir: PathBuf,
    index: u64,
    lines: Lines,
    /// The number of the next line.
    seq: u64,
}

impl Reading {
    /// Begins with the line `seq`; `None` where that was retired.
    pub(crate) fn open(dir: &Path, seq: u64) -> Result<Option<Self>, LedgerError> {
        let Some((index, first)) = locate(dir, seq)? else { return Ok(None) };
        let lines = open(dir, index)?;
        let mut reading = Self { dir: dir.to_owned(), index, lines, seq: first };
        while reading.seq < seq && reading.next()?.is_some() {}
        Ok(Some(reading))
    }

    /// The number of the next line.
    pub(crate) const fn seq(&self) -> u64 {
        self.seq
    }

    /// The next line; `None` where there is none yet.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, LedgerError> {
        loop {
            // Looked for before the end is: once the next one exists, this one is complete.
            let next = Paths::new(&self.dir, self.index + 1).lines;
            let follows = stored::exists(&next).map_err(LedgerError::io(&next))?;
            let path = Paths::new(&self.dir, self.index).lines;
            if let Some(line) = self.lines.next().map_err(LedgerError::io(&path))? {
                self.seq += 1;
                return Ok(Some(line));
            }
            if !follows {
                return Ok(None);
            }
            self.index += 1;
            self.lines = open(&self.dir, self.index)?;
        }
    }
}

fn open(dir: &Path, index: u64) -> Result<Lines, LedgerError> {
    let path = Paths::new(dir, index).lines;
    Lines::open(&path).map_err(LedgerError::io(path))
}

/// The segment that holds the line `seq`, or will, and the number of its first line.
pub(crate) fn locate(dir: &Path, seq: u64) -> Result<Option<(u64, u64)>, LedgerError> {
    for index in segment::list(dir).map_err(LedgerError::io(dir))?.into_iter().rev() {
        let first = first_line(dir, index)?;
        if first <= seq {
            return Ok(Some((index, first)));
        }
    }
    Ok(None)
}

/// The number of the first line of the segment `index`.
fn first_line(dir: &Path, index: u64) -> Result<u64, LedgerError> {
    let seal = |index| {
        let path = Paths::new(dir, index).seal;
        Seal::read(&path).map_err(LedgerError::io(&path))
    };
    if let Some(seal) = seal(index)? {
        return Ok(seal.first_seq);
    }
    let Some(before) = index.checked_sub(1).filter(|before| *before > 0) else { return Ok(0) };
    let path = Paths::new(dir, before).seal;
    let position = seal(before)?.and_then(|seal| seal.position());
    position.map(|position| position.seq()).ok_or_else(|| LedgerError::damaged(path, "the segment before has no seal"))
}
