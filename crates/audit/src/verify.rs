//! Checking a ledger from its files alone: chain, sequence, companion values, heads, seals. Nothing of the writer's
//! state is trusted; everything is computed again.

pub mod amended;
mod amends;
mod files;
mod heads;
mod segment;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

pub use self::{amended::Amended, files::Files};
use self::{
    amends::{Amends, Beginning},
    files::{Directory, Reader},
};
use crate::{
    LedgerError, VerifyingKey,
    heads::Head,
    opening::{ABOUT_FILE, About},
    segment::{HEAD_FILE, Position},
};

/// What the verifier is told from outside the ledger.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The key the ledger must be signed with. Without it the ledger's own word is taken for its key.
    pub key: Option<VerifyingKey>,
    /// Heads that were kept elsewhere: signed notes. What they cover cannot have been cut off.
    pub heads: Vec<String>,
    /// What may be missing at the word of whoever keeps the copy that is verified.
    pub amended: Amended,
}

/// What was found in a ledger that holds together.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Segments read.
    pub segments: u64,
    /// Records read.
    pub records: u64,
    /// Signed heads that verified.
    pub heads: u64,
    /// Companion values that match their commitments.
    pub values: u64,
    /// Commitments whose values were erased, by an erasure on record or at the word of whoever keeps the copy.
    pub erased: u64,
    /// Those of them that only the word of whoever keeps the copy accounts for.
    pub erased_by_keeper: u64,
    /// Erasures on record whose values are still there: one that was interrupted, or undone.
    pub unfinished_erasures: u64,
    /// How many segments at the beginning were retired, by records that are still there or at the word of whoever keeps
    /// the copy.
    pub retired_segments: u64,
    /// Whether only the word of whoever keeps the copy accounts for these.
    pub retired_by_keeper: bool,
    /// How many records those held.
    pub retired_records: u64,
    /// Calls that were permitted and have not ended.
    pub open_calls: u64,
    /// How many lines the last head in the ledger covers.
    pub last_head: u64,
    /// How many lines follow it: a change to these would not show.
    pub lines_after_last_head: u64,
    /// Bytes of an unfinished line at the end: a write in progress, or a crash.
    pub torn_bytes: u64,
    /// Whether the key was given from outside.
    pub key_pinned: bool,
    /// Whether a head was given from outside that covers what is still there. If not, lines at the end may be missing
    /// together with their heads.
    pub tail_checked: bool,
    /// Heads from outside that cover only what was retired since: nothing is left to compare them with.
    pub outside_heads_before_the_first_record: u64,
    /// How many lines follow the last head given from outside.
    pub lines_after_outside_head: Option<u64>,
    /// The key that signed.
    pub verifying_key: String,
}

/// Where a ledger does not hold together, and why: the first such place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize)]
pub struct Broken {
    /// The segment; absent where it is about the ledger as a whole.
    pub segment: Option<u64>,
    /// The file, by its name in the ledger's directory without `.gz`.
    pub file: Option<String>,
    /// The line in the segment, from 1.
    pub line: Option<u64>,
    /// The record's place in the ledger, from 0.
    pub seq: Option<u64>,
    /// What is wrong.
    pub why: String,
}

impl Broken {
    /// About the ledger as a whole.
    pub fn new(why: impl Into<String>) -> Self {
        Self { segment: None, file: None, line: None, seq: None, why: why.into() }
    }

    fn of(self, segment: u64, path: &Path) -> Self {
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned());
        Self { segment: Some(segment), file, ..self }
    }

    fn at(self, line: u64, seq: u64) -> Self {
        Self { line: Some(line), seq: Some(seq), ..self }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(segment) = self.segment {
            write!(f, "segment {segment}, ")?;
        }
        if let Some(file) = &self.file {
            write!(f, "{file}, ")?;
        }
        if let (Some(line), Some(seq)) = (self.line, self.seq) {
            write!(f, "line {line} (record {seq}): ")?;
        }
        f.write_str(&self.why)
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The ledger does not hold together.
    #[error("the ledger is broken: {0}")]
    Broken(#[from] Broken),
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] LedgerError),
}

/// How far a verification has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Bytes of lines checked.
    pub bytes: u64,
    /// Bytes of lines there are.
    pub of: u64,
    /// Records checked.
    pub records: u64,
}

/// Checks the ledger in `dir`, telling `progress` now and then how far it is. A ledger may be verified while it is
/// written.
///
/// # Errors
/// At the first place that does not hold together.
pub fn verify(dir: &Path, options: &Options, progress: impl FnMut(Progress)) -> Result<Report, VerifyError> {
    if !dir.is_dir() {
        let path = dir.to_owned();
        return Err(LedgerError::Io { path, why: "there is no such directory".to_owned() }.into());
    }
    verify_files(&Directory(dir), options, progress)
}

/// The same of `files`, wherever they are. Nothing of them is kept.
///
/// # Errors
/// At the first place that does not hold together.
pub fn verify_files(
    files: &dyn Files,
    options: &Options,
    mut progress: impl FnMut(Progress),
) -> Result<Report, VerifyError> {
    let from = &Reader(files);
    let key = key(from, options)?;
    // Before the lines: a ledger that is being written only ever has more lines than a head that was read earlier.
    let newest = newest_head(from, &key)?;
    let indexes = from.segments().map_err(LedgerError::io(files.place()))?;
    if let Some((before, _)) = indexes.iter().zip(indexes.iter().skip(1)).find(|(one, next)| **one + 1 != **next) {
        // One before it may be listed that was retired since, as this one was.
        let (missing, error) = (before + 1, broken(format!("segment {} is missing", before + 1)));
        return unless_retired(from, missing, error.into());
    }
    let mut index = indexes.first().copied().unwrap_or(1);
    let beginning = Beginning::find(from, index, &key).or_else(|error| unless_retired(from, index, error))?;
    let mut state = State::new(&key, &indexes, from, beginning);
    state.amends.amended = options.amended.clone();
    let mut outside = Vec::new();
    for note in &options.heads {
        let head = Head::verify(note, &key).map_err(|error| broken(format!("a head from outside: {error}")))?;
        if state.expect(&head, "a head from outside")? {
            outside.push(head.size);
        }
    }
    if let Some(head) = &newest {
        state.expect(head, "the newest head")?;
    }
    // One after the other, not those that were there at first: an erasure that was carried out meanwhile is on record
    // in a segment that was begun since.
    while from.exists(&from.paths(index).lines).map_err(LedgerError::io(files.place()))? {
        segment::check(&mut state, from, index, &mut progress).or_else(|error| unless_retired(from, index, error))?;
        index += 1;
    }
    // Looked for again: the first head of all may have been signed meanwhile.
    if newest.is_none() && state.report.heads > 0 && newest_head(from, &key)?.is_none() {
        return Err(broken(format!("the file `{HEAD_FILE}`, which holds the newest head, is missing")).into());
    }
    // Retention may have overtaken the loop above: the next segment was taken away before it was looked for.
    state.finish(outside.into_iter().max(), options, from).or_else(|error| unless_retired(from, index, error))
}

/// `error`, where retention did not take the segment away while it was being verified.
fn unless_retired<T>(from: &Reader<'_>, index: u64, error: VerifyError) -> Result<T, VerifyError> {
    if amends::retired_meanwhile(from, index)? {
        let why = format!("segment {index} was retired while it was being verified: verify again");
        return Err(LedgerError::Io { path: from.0.place().to_owned(), why }.into());
    }
    Err(error)
}

fn broken(why: impl Into<String>) -> Broken {
    Broken::new(why)
}

/// The pinned key, or the one the ledger names.
fn key(from: &Reader<'_>, options: &Options) -> Result<VerifyingKey, VerifyError> {
    let path = from.path(ABOUT_FILE);
    let Some(bytes) = from.whole(&path).map_err(LedgerError::io(&path))? else {
        return Err(broken(format!("{ABOUT_FILE}, which says whose ledger it is, is missing")).into());
    };
    let about = About::parse(&bytes).map_err(|error| broken(format!("{ABOUT_FILE}: {error}")))?;
    let named: VerifyingKey = about.verifying_key.parse().map_err(|error| broken(format!("{ABOUT_FILE}: {error}")))?;
    if named.name() != about.origin {
        return Err(broken(format!("{ABOUT_FILE} names the key of another ledger")).into());
    }
    match &options.key {
        Some(pinned) if *pinned != named => {
            Err(broken(format!("the ledger names the key {named}, the pinned key is {pinned}")).into())
        }
        Some(_) | None => Ok(named),
    }
}

fn newest_head(from: &Reader<'_>, key: &VerifyingKey) -> Result<Option<Head>, VerifyError> {
    let path = from.path(HEAD_FILE);
    let Some(note) = from.whole(&path).map_err(LedgerError::io(&path))? else { return Ok(None) };
    let head = Head::verify(&String::from_utf8_lossy(&note), key);
    head.map(Some).map_err(|error| broken(format!("the file `{HEAD_FILE}`: {error}")).into())
}

/// What is known as the lines go by.
struct State<'a> {
    key: &'a VerifyingKey,
    position: Position,
    /// Roots that heads beside the segments' own demand, by size.
    expected: BTreeMap<u64, Vec<([u8; 32], String)>>,
    open: BTreeSet<String>,
    amends: Amends,
    bytes: u64,
    total_bytes: u64,
    report: Report,
}

impl<'a> State<'a> {
    fn new(key: &'a VerifyingKey, indexes: &[u64], from: &Reader<'_>, beginning: Beginning) -> Self {
        Self {
            key,
            amends: Amends::after(&beginning),
            position: beginning.position,
            expected: BTreeMap::new(),
            open: beginning.open,
            bytes: 0,
            total_bytes: indexes.iter().map(|index| line_bytes(from, *index)).sum(),
            report: Report {
                segments: 0,
                records: 0,
                heads: 0,
                values: 0,
                erased: 0,
                erased_by_keeper: 0,
                unfinished_erasures: 0,
                retired_segments: 0,
                retired_by_keeper: false,
                retired_records: 0,
                open_calls: 0,
                last_head: 0,
                lines_after_last_head: 0,
                torn_bytes: 0,
                key_pinned: false,
                tail_checked: false,
                outside_heads_before_the_first_record: 0,
                lines_after_outside_head: None,
                verifying_key: key.to_string(),
            },
        }
    }

    /// Demands the root of `head` of the lines that it covers; false where they were retired.
    fn expect(&mut self, head: &Head, what: &str) -> Result<bool, Broken> {
        if head.size < self.position.seq() {
            self.report.outside_heads_before_the_first_record += 1;
            return Ok(false);
        }
        self.expected.entry(head.size).or_default().push((head.root, what.to_owned()));
        if head.size == self.position.seq() {
            self.compare_heads().map_err(broken)?;
        }
        Ok(true)
    }

    fn signed_up_to(&mut self, size: u64) {
        self.report.last_head = self.report.last_head.max(size);
    }

    /// The heads that cover exactly the lines so far must have their root.
    fn compare_heads(&mut self) -> Result<(), String> {
        let size = self.position.seq();
        let Some(heads) = self.expected.remove(&size) else { return Ok(()) };
        let root = self.position.frontier.root();
        if let Some((_, what)) = heads.iter().find(|(expected, _)| *expected != root) {
            return Err(format!("the lines up to here are not those that {what} over {size} lines was signed for"));
        }
        self.signed_up_to(size);
        Ok(())
    }

    fn finish(mut self, outside: Option<u64>, options: &Options, from: &Reader<'_>) -> Result<Report, VerifyError> {
        let lines = self.position.seq();
        if let Some((size, heads)) = self.expected.first_key_value() {
            let what = heads.first().map_or("a head", |(_, what)| what.as_str());
            let why = format!("{what} covers {size} lines, there are {lines}: lines at the end are missing");
            return Err(broken(why).into());
        }
        self.amends.account(self.report.last_head, &mut self.report, from)?;
        self.report.open_calls = self.open.len() as u64;
        self.report.lines_after_last_head = lines.saturating_sub(self.report.last_head);
        self.report.key_pinned = options.key.is_some();
        self.report.tail_checked = outside.is_some();
        self.report.lines_after_outside_head = outside.map(|size| lines.saturating_sub(size));
        Ok(self.report)
    }
}

/// The bytes of a segment's lines, compressed or not: what progress is measured by.
fn line_bytes(from: &Reader<'_>, index: u64) -> u64 {
    from.length(&from.paths(index).lines).ok().flatten().unwrap_or_default()
}
