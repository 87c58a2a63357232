//! What happens when a ledger is opened: the last segment gets back what the journal has of it, is read again, cut to
//! its last whole record, and sealed.
//!
//! Nothing that a signed head covers may be missing: a ledger that lost such lines is refused, because going on
//! would sign a second history.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom},
    path::Path,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    LedgerError, chain, files,
    heads::{self, Head},
    journal,
    read::{Lines, MAX_LINE_BYTES},
    record::kind,
    segment::{self, Extent, HEAD_FILE, Home, Paths, Position, Seal},
    stored,
};

/// How the previous run of the program left the ledger: part of the record of the next start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Previous {
    /// Whether it stopped cleanly.
    pub(crate) stop: Stop,
    /// How many lines its last head covers; absent for the first start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) head_size: Option<u64>,
    /// The root in that head, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) head_root: Option<String>,
    /// Bytes of an unfinished line that were set aside.
    pub(crate) torn_bytes: u64,
    /// Bytes of companion rows without a line that were set aside.
    pub(crate) torn_value_bytes: u64,
    /// Calls that were permitted and never settled.
    pub(crate) unsettled: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stop {
    /// There was none.
    None,
    /// With a record of the stop.
    Clean,
    /// Without.
    Crashed,
}

/// Where writing goes on.
pub(crate) struct Recovered {
    pub(crate) position: Position,
    pub(crate) next_index: u64,
    /// Calls that are to be closed as unknown.
    pub(crate) open: BTreeSet<String>,
    pub(crate) previous: Previous,
}

pub(crate) fn recover(home: &Home) -> Result<Recovered, LedgerError> {
    let mut indexes = segment::list(&home.dir).map_err(LedgerError::io(&home.dir))?;
    let mut previous = Previous {
        stop: Stop::None,
        head_size: None,
        head_root: None,
        torn_bytes: 0,
        torn_value_bytes: 0,
        unsettled: 0,
    };
    let mut open = BTreeSet::new();
    let mut unsealed = None;
    if let Some(&last) = indexes.last() {
        match read_seal(&home.paths(last).seal)? {
            Some(_) => {}
            None => {
                unsealed = Some(last);
                indexes.pop();
            }
        }
    }
    let mut position = Position::genesis(&home.origin);
    // Where there is no sealed segment before the last one, all were retired; of those, the last seal was kept.
    let retired = unsealed.and_then(|index| index.checked_sub(1)).filter(|before| *before > 0);
    if let Some(before) = indexes.last().copied().or(retired) {
        let path = home.paths(before).seal;
        let seal = read_seal(&path)?.ok_or_else(|| LedgerError::damaged(&path, "the segment before has no seal"))?;
        position = seal.position().ok_or_else(|| LedgerError::damaged(&path, "the seal contradicts itself"))?;
        if !indexes.is_empty() {
            previous.stop = if stopped_cleanly(&home.paths(before), &seal)? { Stop::Clean } else { Stop::Crashed };
        }
        open = seal.open;
    }
    let mut next_index = indexes.last().map_or(1, |last| last + 1);
    if let Some(index) = unsealed {
        let mended = mend(home, index, &position, &mut open, &mut previous)?;
        match &mended {
            Some(end) => {
                position = end.clone();
                previous.stop = Stop::Crashed;
            }
            None => segment::remove_empty(&home.paths(index)),
        }
        next_index = mended.map_or(index, |_| index + 1);
    }
    no_head_is_ahead(home, &position)?;
    if position.seq() > 0 {
        previous.head_size = Some(position.seq());
        previous.head_root = Some(root_text(home, &position));
    }
    previous.unsettled = open.len() as u64;
    Ok(Recovered { position, next_index, open, previous })
}

fn root_text(home: &Home, position: &Position) -> String {
    Head { origin: home.origin.clone(), size: position.seq(), root: position.frontier.root() }.root_text()
}

fn read_seal(path: &Path) -> Result<Option<Seal>, LedgerError> {
    Seal::read(path).map_err(|error| LedgerError::damaged(path, error.to_string()))
}

/// Whether the last line of a sealed segment is the record of a stop.
fn stopped_cleanly(paths: &Paths, seal: &Seal) -> Result<bool, LedgerError> {
    let (last, length) = if stored::is_packed(&paths.lines).map_err(LedgerError::io(&paths.lines))? {
        last_of_packed(paths).map_err(LedgerError::io(&paths.lines))?
    } else {
        last_of_plain(paths)?
    };
    if length != seal.line_bytes || chain::encoded(&chain::sha256(&last)) != seal.last_hash {
        return Err(LedgerError::damaged(&paths.lines, "its end is not the one that was sealed"));
    }
    Ok(peek(&last).is_ok_and(|peek| peek.kind.ends_with(".stopped")))
}

/// The last line of a compressed segment, which has to be read from its beginning, and the length of all.
fn last_of_packed(paths: &Paths) -> io::Result<(Vec<u8>, u64)> {
    let (mut lines, mut last, mut length) = (Lines::open(&paths.lines)?, Vec::new(), 0);
    while let Some(line) = lines.next()? {
        length += line.len() as u64 + 1;
        last = line;
    }
    Ok((last, length + lines.unfinished() as u64))
}

fn last_of_plain(paths: &Paths) -> Result<(Vec<u8>, u64), LedgerError> {
    let mut file = fs::File::open(&paths.lines).map_err(LedgerError::io(&paths.lines))?;
    let length = file.metadata().map_err(LedgerError::io(&paths.lines))?.len();
    let from = length.saturating_sub(MAX_LINE_BYTES as u64 + 2);
    let mut end = Vec::new();
    file.seek(SeekFrom::Start(from)).and_then(|_| file.read_to_end(&mut end)).map_err(LedgerError::io(&paths.lines))?;
    let last = end.strip_suffix(b"\n").and_then(|lines| lines.rsplit(|&byte| byte == b'\n').next());
    let last = last.ok_or_else(|| LedgerError::damaged(&paths.lines, "a sealed segment has no whole line"))?;
    Ok((last.to_vec(), length))
}

/// Cuts the unsealed segment to its whole records and seals it; `None` where none is left.
fn mend(
    home: &Home,
    index: u64,
    start: &Position,
    open: &mut BTreeSet<String>,
    previous: &mut Previous,
) -> Result<Option<Position>, LedgerError> {
    let paths = home.paths(index);
    let durable = journal::restore(&home.dir, index, &paths).map_err(LedgerError::io(&home.dir))?;
    let replay = replay(&paths, start, open, durable)?;
    let Replay { position, mut extent, .. } = replay;
    previous.torn_bytes = files::cut(&paths.lines, extent.line_bytes).map_err(LedgerError::io(&paths.lines))?;
    let kept = value_bytes_below(&paths.values, position.seq())?;
    previous.torn_value_bytes = files::cut(&paths.values, kept).map_err(LedgerError::io(&paths.values))?;
    extent.value_bytes = kept;
    trim_heads(&paths)?;
    if extent.records == 0 {
        return Ok(None);
    }
    heads_hold(home, &paths, start, &position)?;
    home.seal(index, &extent, &position, open).map_err(LedgerError::io(&paths.seal))?;
    Ok(Some(position))
}

/// What is read of a line to put the writer's state together again.
#[derive(Debug, Deserialize)]
pub(crate) struct Peek {
    pub(crate) seq: u64,
    pub(crate) prev: String,
    pub(crate) time: Timestamp,
    pub(crate) kind: String,
    #[serde(default)]
    decision_id: Option<String>,
    #[serde(default)]
    decision: Option<String>,
}

pub(crate) fn peek(line: &[u8]) -> Result<Peek, serde_json::Error> {
    serde_json::from_slice(line)
}

impl Peek {
    /// What the record means for the calls that are open.
    pub(crate) fn mark(&self, open: &mut BTreeSet<String>) {
        let Some(id) = &self.decision_id else { return };
        match (self.kind.as_str(), self.decision.as_deref()) {
            (kind::CALL_DECIDED, Some("permit")) => {
                open.insert(id.clone());
            }
            (kind::CALL_SETTLED, _) => {
                open.remove(id);
            }
            _ => {}
        }
    }
}

/// A segment read again.
pub(crate) struct Replay {
    pub(crate) position: Position,
    pub(crate) extent: Extent,
}

/// Reads the whole lines of a segment (up to `limit` bytes of them), checks that each follows the one before, and
/// notes which permitted calls are open after it.
pub(crate) fn replay(
    paths: &Paths,
    start: &Position,
    open: &mut BTreeSet<String>,
    limit: Option<u64>,
) -> Result<Replay, LedgerError> {
    let file = fs::File::open(&paths.lines).map_err(LedgerError::io(&paths.lines))?;
    let mut reader = BufReader::new(file);
    let (mut position, mut extent, mut line) = (start.clone(), Extent::default(), Vec::new());
    while limit.is_none_or(|limit| extent.line_bytes < limit) {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).map_err(LedgerError::io(&paths.lines))?;
        let Some(text) = line.strip_suffix(b"\n") else { break };
        let number = extent.records + 1;
        let damaged = |why: &str| LedgerError::damaged(&paths.lines, format!("line {number}: {why}"));
        let found = peek(text).map_err(|error| damaged(&error.to_string()))?;
        if found.seq != position.seq() || chain::decoded(&found.prev) != Some(position.prev) {
            return Err(damaged("it does not follow the line before"));
        }
        position.push(text);
        extent.push(read, found.time);
        found.mark(open);
    }
    Ok(Replay { position, extent })
}

/// The length of the whole companion rows of records below `seq`.
pub(crate) fn value_bytes_below(path: &Path, seq: u64) -> Result<u64, LedgerError> {
    #[derive(Deserialize)]
    struct RowSeq {
        seq: u64,
    }
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(LedgerError::io(path)(error)),
    };
    let (mut reader, mut line, mut kept) = (BufReader::new(file), Vec::new(), 0);
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).map_err(LedgerError::io(path))?;
        let below = line
            .strip_suffix(b"\n")
            .and_then(|text| serde_json::from_slice::<RowSeq>(text).ok())
            .is_some_and(|row| row.seq < seq);
        if !below {
            return Ok(kept);
        }
        kept += read as u64;
    }
}

/// Cuts a half-written last head.
pub(crate) fn trim_heads(paths: &Paths) -> Result<(), LedgerError> {
    let text = read_heads(paths)?;
    let (_, whole) = heads::notes(&text);
    if whole < text.len() {
        files::cut(&paths.heads, whole as u64).map_err(LedgerError::io(&paths.heads))?;
    }
    Ok(())
}

fn read_heads(paths: &Paths) -> Result<String, LedgerError> {
    match fs::read(&paths.heads) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(LedgerError::io(&paths.heads)(error)),
    }
}

/// The last head of the segment must speak of lines that are still there.
fn heads_hold(home: &Home, paths: &Paths, start: &Position, end: &Position) -> Result<(), LedgerError> {
    let text = read_heads(paths)?;
    let (notes, _) = heads::notes(&text);
    let Some(note) = notes.last() else { return Ok(()) };
    let head = Head::verify(note, &home.verifying_key())
        .map_err(|error| LedgerError::damaged(&paths.heads, error.to_string()))?;
    let ahead = || {
        let why = format!("a signed head covers {} lines, {} are left", head.size, end.seq());
        LedgerError::damaged(&paths.lines, why)
    };
    let covered = head.size.checked_sub(start.seq()).filter(|_| head.size <= end.seq()).ok_or_else(ahead)?;
    let file = fs::File::open(&paths.lines).map_err(LedgerError::io(&paths.lines))?;
    let mut position = start.clone();
    for line in BufReader::new(file).split(b'\n').take(usize::try_from(covered).unwrap_or(usize::MAX)) {
        position.push(&line.map_err(LedgerError::io(&paths.lines))?);
    }
    if position.frontier.root() == head.root {
        Ok(())
    } else {
        Err(LedgerError::damaged(
            &paths.lines,
            format!("the lines are not those that the head at {} signed", head.size),
        ))
    }
}

/// The newest head, kept for the whole directory, shows whether a whole segment is gone.
fn no_head_is_ahead(home: &Home, position: &Position) -> Result<(), LedgerError> {
    let path = home.dir.join(HEAD_FILE);
    let note = match fs::read_to_string(&path) {
        Ok(note) => note,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(LedgerError::io(&path)(error)),
    };
    let head =
        Head::verify(&note, &home.verifying_key()).map_err(|error| LedgerError::damaged(&path, error.to_string()))?;
    if head.size <= position.seq() {
        Ok(())
    } else {
        let why = format!("it covers {} lines, the segments have {}", head.size, position.seq());
        Err(LedgerError::damaged(&path, why))
    }
}
