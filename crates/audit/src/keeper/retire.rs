//! Retention: the oldest sealed segments go, each after a signed record that says so.
//!
//! A mark, the record, a head over the record, then the files, lines first; the mark goes last. The seal of the last
//! retired segment stays: the rest begins at it. Whatever step is the last before a crash, the next start finishes.

use std::{fs, path::Path, sync::PoisonError};

use jiff::Timestamp;

use super::Keeper;
use crate::{
    LedgerError, RetentionConfig, files,
    heads::Head,
    log::Pen,
    read::Lines,
    record::{self, RetiredSegment, WrittenHead, kind},
    segment::{self, Paths, Seal},
    stored,
};

/// A sealed segment, as far as retention asks.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sealed {
    index: u64,
    latest: Option<Timestamp>,
    bytes: u64,
    /// The number of the first line after it.
    end: u64,
}

pub(super) fn retire_due(keeper: &Keeper, now: Timestamp) -> Result<(), LedgerError> {
    if keeper.retention == RetentionConfig::default() {
        return Ok(());
    }
    let (sealed, unsealed_bytes) = sealed_segments(&keeper.dir)?;
    // Asked before each: whoever begins to need one meanwhile still gets it.
    let needed = || keeper.shared.needed.lock().unwrap_or_else(PoisonError::into_inner).values().min().copied();
    for (index, because) in due(&sealed, unsealed_bytes, &keeper.retention, now) {
        let end = sealed.iter().find(|segment| segment.index == index).map_or(u64::MAX, |segment| segment.end);
        if needed().is_some_and(|needed| needed < end) {
            // The next look finds it again: those after it are needed too.
            break;
        }
        retire(&keeper.dir, index, because, &keeper.pen)?;
    }
    Ok(())
}

/// Which segments of the ledger in `dir` go by `retention`, oldest first.
pub(crate) fn due_in(dir: &Path, retention: &RetentionConfig, now: Timestamp) -> Result<Vec<u64>, LedgerError> {
    let (sealed, unsealed_bytes) = sealed_segments(dir)?;
    Ok(due(&sealed, unsealed_bytes, retention, now).into_iter().map(|(index, _)| index).collect())
}

fn sealed_segments(dir: &Path) -> Result<(Vec<Sealed>, u64), LedgerError> {
    let (mut sealed, mut unsealed_bytes) = (Vec::new(), 0);
    for index in segment::list(dir).map_err(LedgerError::io(dir))? {
        let paths = Paths::new(dir, index);
        let bytes = [&paths.lines, &paths.values, &paths.heads, &paths.seal].map(|path| stored::bytes_on_disk(path));
        let bytes = bytes.iter().sum();
        match Seal::read(&paths.seal).map_err(LedgerError::io(&paths.seal))? {
            Some(seal) => {
                let end = seal.first_seq.saturating_add(seal.records);
                sealed.push(Sealed { index, latest: seal.latest, bytes, end });
            }
            None => unsealed_bytes += bytes,
        }
    }
    Ok((sealed, unsealed_bytes))
}

/// Which segments go now, oldest first, and by which setting.
fn due(
    sealed: &[Sealed],
    unsealed_bytes: u64,
    retention: &RetentionConfig,
    now: Timestamp,
) -> Vec<(u64, &'static str)> {
    let mut left = unsealed_bytes + sealed.iter().map(|segment| segment.bytes).sum::<u64>();
    // A clock that once ran ahead must not keep its segment for ever: what was written before a later segment is at
    // least as old as that.
    let mut newest: Vec<Option<Timestamp>> = sealed.iter().map(|segment| segment.latest).collect();
    let mut bound: Option<Timestamp> = None;
    for latest in newest.iter_mut().rev() {
        bound = [bound, *latest].into_iter().flatten().min();
        *latest = bound;
    }
    let old = |latest: Option<Timestamp>| {
        let oldest_kept = retention.max_age.and_then(|age| now.checked_sub(age.0).ok());
        latest.zip(oldest_kept).is_some_and(|(latest, oldest_kept)| latest < oldest_kept)
    };
    let mut due = Vec::new();
    for (segment, latest) in sealed.iter().zip(newest) {
        let because = if old(latest) {
            "max_age"
        } else if retention.max_bytes.is_some_and(|most| left > most) {
            "max_bytes"
        } else {
            break;
        };
        left = left.saturating_sub(segment.bytes);
        due.push((segment.index, because));
    }
    due
}

fn retire(dir: &Path, index: u64, because: &str, pen: &Pen) -> Result<(), LedgerError> {
    mark(dir, index)?;
    put_on_record(dir, index, because, pen)?;
    remove(dir, index)?;
    tracing::info!(segment = index, because, "a segment of the ledger was retired");
    Ok(())
}

/// So that the next start knows to look for the record.
pub(crate) fn mark(dir: &Path, index: u64) -> Result<(), LedgerError> {
    let path = Paths::new(dir, index).retiring;
    if path.exists() { Ok(()) } else { files::create_whole(&path, b"").map_err(LedgerError::io(&path)) }
}

/// The record, durable and covered by a signed head.
pub(crate) fn put_on_record(dir: &Path, index: u64, because: &str, pen: &Pen) -> Result<(), LedgerError> {
    let path = Paths::new(dir, index).seal;
    let seal = Seal::read(&path).map_err(LedgerError::io(&path))?;
    let damaged = |why: &str| LedgerError::damaged(&path, why);
    let seal = seal.ok_or_else(|| damaged("the segment has no seal"))?;
    let head = Head::unverified(&seal.head).map_err(|error| damaged(&error.to_string()))?;
    let retired = RetiredSegment {
        segment: index,
        first_seq: seal.first_seq,
        records: seal.records,
        earliest: seal.earliest,
        latest: seal.latest,
        head: WrittenHead { size: head.size, root: head.root_text() },
        because: because.to_owned(),
    };
    pen.append(record::retired(&retired)?)?;
    pen.sign()
}

/// Takes the files away. Done again, it goes on where it was.
pub(crate) fn remove(dir: &Path, index: u64) -> Result<(), LedgerError> {
    let paths = Paths::new(dir, index);
    // Without its lines a segment is not there, whatever else is left of it.
    for path in [&paths.lines, &paths.heads, &paths.values] {
        stored::remove(path).map_err(LedgerError::io(path))?;
    }
    if let Some(before) = index.checked_sub(1) {
        let seal = Paths::new(dir, before).seal;
        stored::remove_if_there(&seal).map_err(LedgerError::io(&seal))?;
    }
    files::sync_directory(dir).map_err(LedgerError::io(dir))?;
    stored::remove_if_there(&paths.retiring).map_err(LedgerError::io(&paths.retiring))
}

/// Finishes what a crash interrupted: a segment whose retirement is on record goes, any other stays.
pub(crate) fn resume(dir: &Path) -> Result<(), LedgerError> {
    for index in segment::list_with(dir, &[".retiring"]).map_err(LedgerError::io(dir))? {
        if is_on_record(dir, index)? {
            remove(dir, index)?;
            tracing::info!(segment = index, "a segment of the ledger was retired");
        } else {
            let mark = Paths::new(dir, index).retiring;
            fs::remove_file(&mark).map_err(LedgerError::io(&mark))?;
        }
    }
    Ok(())
}

/// Whether a record says that the segment is retired: one of the last records before the crash.
fn is_on_record(dir: &Path, retired: u64) -> Result<bool, LedgerError> {
    for index in segment::list(dir).map_err(LedgerError::io(dir))?.into_iter().rev().filter(|index| *index > retired) {
        let path = Paths::new(dir, index).lines;
        let mut lines = Lines::open(&path).map_err(LedgerError::io(&path))?;
        while let Some(line) = lines.next().map_err(LedgerError::io(&path))? {
            if !holds(&line, kind::SEGMENT_RETIRED) {
                continue;
            }
            let record: serde_json::Value = serde_json::from_slice(&line).unwrap_or_default();
            let is_one = record.get("kind").and_then(|kind| kind.as_str()) == Some(kind::SEGMENT_RETIRED);
            if is_one && record.get("segment").and_then(serde_json::Value::as_u64) == Some(retired) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether `line` has the text `word` anywhere: most need not be parsed.
fn holds(line: &[u8], word: &str) -> bool {
    line.windows(word.len()).any(|window| window == word.as_bytes())
}

#[cfg(test)]
mod tests {
    use model::duration::ConfigDuration;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn segments(days: &[&str]) -> Vec<Sealed> {
        let sealed = |(place, day): (usize, &&str)| Sealed {
            index: place as u64 + 1,
            latest: Some(at(&format!("2026-03-{day}T12:00:00Z"))),
            bytes: 100,
            end: place as u64 + 1,
        };
        days.iter().enumerate().map(sealed).collect()
    }

    fn which(segments: &[Sealed], max_age: Option<&str>, max_bytes: Option<u64>) -> Vec<(u64, &'static str)> {
        let max_age = max_age.map(|age| age.parse::<ConfigDuration>().unwrap());
        due(segments, 50, &RetentionConfig { max_age, max_bytes }, at("2026-03-20T12:00:00Z"))
    }

    #[test]
    fn the_oldest_go_by_age_or_by_size_and_never_one_in_the_middle() {
        let all = segments(&["01", "10", "19"]);
        assert_eq!(which(&all, None, None), []);
        assert_eq!(which(&all, Some("30d"), Some(350)), []);
        assert_eq!(which(&all, Some("5d"), None), [(1, "max_age"), (2, "max_age")]);
        assert_eq!(which(&all, None, Some(349)), [(1, "max_bytes")]);
        assert_eq!(which(&all, Some("15d"), Some(160)), [(1, "max_age"), (2, "max_bytes")]);
        // Not even with no room at all does the segment go that is being written.
        assert_eq!(which(&all, None, Some(0)).len(), 3);
        assert_eq!(which(&segments(&["19", "01"]), Some("5d"), None), [(1, "max_age"), (2, "max_age")]);
    }

    #[test]
    fn a_clock_that_ran_ahead_once_does_not_keep_its_segment_for_ever() {
        let mut all = segments(&["01", "02", "19"]);
        all[0].latest = Some(at("2099-01-01T00:00:00Z"));
        assert_eq!(which(&all, Some("5d"), None), [(1, "max_age"), (2, "max_age")]);
    }
}
