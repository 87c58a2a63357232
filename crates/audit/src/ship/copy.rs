//! The authority's side of shipping: a copy of one ledger, in files of the same form, so that whatever reads a ledger
//! reads the copy. Each chunk is verified before it is written, and durable before it is acknowledged.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::chunk::{Chunk, Stand};
use crate::{
    LedgerError, VerifyingKey, canonical, chain, files,
    heads::{self, Head},
    opening::{ABOUT_FILE, About},
    read::MAX_LINE_BYTES,
    record::{ErasedValues, kind},
    recovery,
    segment::{self, Complete, Extent, HEAD_FILE, Paths, Position, Seal},
    stored,
    values::{self, Row, VERSION},
};

/// The most bytes of heads that a segment may have.
const MAX_HEADS_BYTES: u64 = 256 * 1024 * 1024;
/// The file that says which segments have values that are to be erased.
const WANTED_FILE: &str = "erasures.json";

/// Why a chunk was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// It does not go on where the copy ends.
    #[error("the copy ends elsewhere")]
    Elsewhere(Stand),
    /// It is not what the ledger's key signed, or contradicts itself.
    #[error("the chunk is not taken: {0}")]
    Wrong(String),
    /// Its lines do not follow the ones that are in the copy: the ledger is another one than it was.
    #[error("the lines do not follow those that were shipped before: the ledger was rewritten")]
    Forked,
    /// There is no room on the disk.
    #[error("there is no room on the disk: {free} bytes are left")]
    NoRoom {
        /// What is left.
        free: u64,
    },
    /// The copy cannot be read or written.
    #[error(transparent)]
    Copy(#[from] LedgerError),
}

/// How far the copy of one ledger reaches, as it lies on disk.
pub(crate) struct Copy {
    dir: PathBuf,
    key: VerifyingKey,
    /// The last segment; 0 for none.
    index: u64,
    sealed: bool,
    position: Position,
    extent: Extent,
    open: BTreeSet<String>,
    heads_bytes: u64,
    /// By segment, the digest of the rows that an erasure on record leaves.
    pub(super) wanted: BTreeMap<u64, String>,
}

impl Copy {
    /// The copy in `dir`, begun there first where there is none. What a crash left half written is cut off: it was not
    /// acknowledged.
    pub(crate) fn open(dir: &Path, id: &str, key: &VerifyingKey) -> Result<Self, LedgerError> {
        files::create_directory(dir)?;
        if About::read(dir)?.is_none() {
            let about =
                About { v: VERSION, id: id.to_owned(), origin: key.name().to_owned(), verifying_key: key.to_string() };
            let text = canonical::text(&about)?;
            let path = dir.join(ABOUT_FILE);
            files::replace_whole(&path, format!("{text}\n").as_bytes()).map_err(LedgerError::io(&path))?;
        }
        let mut copy = Self {
            dir: dir.to_owned(),
            key: key.clone(),
            index: 0,
            sealed: false,
            position: Position::genesis(key.name()),
            extent: Extent::default(),
            open: BTreeSet::new(),
            heads_bytes: 0,
            wanted: read_wanted(dir)?,
        };
        let lines = segment::list(dir).map_err(LedgerError::io(dir))?.last().copied();
        let seals = segment::list_with(dir, &[".seal"]).map_err(LedgerError::io(dir))?.last().copied();
        if let Some(index) = seals.filter(|seal| lines.is_none_or(|lines| lines <= seal + 1)) {
            copy.go_on_after(index)?;
        }
        if let Some(index) = lines.filter(|index| *index > copy.index) {
            copy.go_on_in(index)?;
        }
        Ok(copy)
    }

    /// Stands at the end of the sealed segment `index`.
    fn go_on_after(&mut self, index: u64) -> Result<(), LedgerError> {
        let path = Paths::new(&self.dir, index).seal;
        let seal = Seal::read(&path).map_err(LedgerError::io(&path))?;
        let position = seal.as_ref().and_then(Seal::position);
        let (Some(seal), Some(position)) = (seal, position) else {
            return Err(LedgerError::damaged(path, "the seal contradicts itself"));
        };
        (self.index, self.sealed, self.position, self.open) = (index, true, position, seal.open);
        Ok(())
    }

    /// Stands at the last whole record of the segment `index`, which is not sealed.
    fn go_on_in(&mut self, index: u64) -> Result<(), LedgerError> {
        let paths = Paths::new(&self.dir, index);
        let replay = recovery::replay(&paths, &self.position, &mut self.open, None)?;
        let mut extent = replay.extent;
        files::cut(&paths.lines, extent.line_bytes).map_err(LedgerError::io(&paths.lines))?;
        extent.value_bytes = recovery::value_bytes_below(&paths.values, replay.position.seq())?;
        if paths.values.exists() {
            files::cut(&paths.values, extent.value_bytes).map_err(LedgerError::io(&paths.values))?;
        }
        self.heads_bytes = fs::metadata(&paths.heads).map_or(0, |metadata| metadata.len());
        (self.index, self.sealed, self.position, self.extent) = (index, false, replay.position, extent);
        Ok(())
    }

    /// Whether the files are as this says: another process may have written there.
    pub(crate) fn is_current(&self) -> bool {
        let paths = Paths::new(&self.dir, self.index);
        let next = Paths::new(&self.dir, self.index + 1);
        let length = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
        let unsealed = || {
            !paths.seal.exists()
                && length(&paths.lines) == self.extent.line_bytes
                && length(&paths.values) == self.extent.value_bytes
                && length(&paths.heads) == self.heads_bytes
        };
        let as_known = match (self.index, self.sealed) {
            (0, _) => segment::list(&self.dir).is_ok_and(|segments| segments.is_empty()),
            (_, true) => paths.seal.exists(),
            (_, false) => unsealed(),
        };
        as_known && !next.lines.exists() && !next.seal.exists()
    }

    pub(crate) fn stand(&self) -> Stand {
        Stand {
            segment: self.index,
            sealed: self.sealed,
            next: self.position.seq(),
            heads: if self.sealed { 0 } else { self.heads_bytes },
            erase: self.wanted.keys().copied().collect(),
        }
    }

    /// Verifies `chunk` and makes it part of the copy, durably.
    pub(crate) fn take(&mut self, chunk: &Chunk) -> Result<Stand, NotTaken> {
        let begins = self.place(chunk)?;
        let mut reading = Reading {
            position: begins.as_ref().map_or(&self.position, |begun| &begun.position).clone(),
            extent: if begins.is_some() { Extent::default() } else { self.extent.clone() },
            open: begins.as_ref().map_or(&self.open, |begun| &begun.open).clone(),
            erasures: BTreeMap::new(),
        };
        reading.lines(chunk)?;
        if let Some(note) = &chunk.head {
            let head = Head::verify(note, &self.key).map_err(|error| NotTaken::Wrong(error.to_string()))?;
            if head.size != reading.position.seq() {
                return Err(NotTaken::Wrong("its head is not over the lines up to its end".to_owned()));
            }
            if head.root != reading.position.frontier.root() {
                return Err(NotTaken::Forked);
            }
        }
        let heads_before = if begins.is_some() { 0 } else { self.heads_bytes };
        if chunk.heads_at != heads_before || heads_before + chunk.heads.len() as u64 > MAX_HEADS_BYTES {
            return Err(NotTaken::Elsewhere(self.stand()));
        }
        let paths = Paths::new(&self.dir, chunk.segment);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| NotTaken::Copy(LedgerError::io(path)(error))
        };
        if let (Some(begun), Some(base)) = (&begins, &chunk.base) {
            let seal = Paths::new(&self.dir, begun.index - 1).seal;
            files::replace_whole(&seal, base.as_bytes()).map_err(failed(&seal))?;
        }
        // Rows before their lines, as the ledger itself writes them.
        append(&paths.values, &chunk.values).map_err(failed(&paths.values))?;
        append(&paths.lines, &chunk.lines).map_err(failed(&paths.lines))?;
        append(&paths.heads, &chunk.heads).map_err(failed(&paths.heads))?;
        if begins.is_some() {
            files::sync_directory(&self.dir).map_err(failed(&self.dir))?;
        }
        let Reading { position, extent, open, erasures } = reading;
        (self.index, self.sealed, self.position, self.extent, self.open) =
            (chunk.segment, false, position, extent, open);
        self.heads_bytes = heads_before + chunk.heads.len() as u64;
        if let Some(note) = &chunk.head {
            let newest = self.dir.join(HEAD_FILE);
            files::replace_whole(&newest, note.as_bytes()).map_err(failed(&newest))?;
        }
        if let Some(seal) = &chunk.seal {
            self.seal(seal, &paths)?;
        }
        self.note(erasures)?;
        Ok(self.stand())
    }

    /// Where `chunk` begins a segment, what that begins with.
    fn place(&self, chunk: &Chunk) -> Result<Option<Begun>, NotTaken> {
        let elsewhere = || NotTaken::Elsewhere(self.stand());
        let begun = match &chunk.base {
            _ if chunk.segment == self.index && !self.sealed && self.index > 0 => {
                return if chunk.first == self.position.seq() { Ok(None) } else { Err(elsewhere()) };
            }
            Some(base) if self.index == 0 && chunk.segment > 1 => self.based(chunk.segment, base)?,
            None if chunk.segment == self.index + 1 && (self.sealed || self.index == 0) => {
                Begun { index: chunk.segment, position: self.position.clone(), open: self.open.clone() }
            }
            _ => return Err(elsewhere()),
        };
        if chunk.first == begun.position.seq() { Ok(Some(begun)) } else { Err(elsewhere()) }
    }

    /// A copy begins after a segment that was retired: its seal says where.
    fn based(&self, index: u64, base: &str) -> Result<Begun, NotTaken> {
        let wrong = |why: &str| NotTaken::Wrong(format!("the seal of segment {}: {why}", index - 1));
        let seal: Seal = serde_json::from_str(base).map_err(|error| wrong(&error.to_string()))?;
        let head = Head::verify(&seal.head, &self.key).map_err(|error| wrong(&error.to_string()))?;
        let position = seal.position().filter(|position| {
            seal.segment == index - 1 && position.seq() == head.size && position.frontier.root() == head.root
        });
        let position = position.ok_or_else(|| wrong("it contradicts its own head"))?;
        Ok(Begun { index, position, open: seal.open })
    }

    /// Seals the segment that the copy stands in, which is complete with what was written just now.
    fn seal(&mut self, text: &str, paths: &Paths) -> Result<(), NotTaken> {
        let wrong = |why: String| NotTaken::Wrong(format!("the seal of segment {}: {why}", self.index));
        let seal: Seal = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let head = Head::verify(&seal.head, &self.key).map_err(|error| wrong(error.to_string()))?;
        let heads = heads::tally(&paths.heads).map_err(LedgerError::io(&paths.heads))?;
        let (index, extent, position, open) = (self.index, &self.extent, &self.position, &self.open);
        if let Some(what) = seal.contradicted(&head, &Complete { index, extent, position, open, heads }) {
            let why = wrong(format!("it contradicts the segment: its {what}"));
            // Heads are the only part that could not be verified as they came: they have to come again.
            fs::remove_file(&paths.heads).map_err(LedgerError::io(&paths.heads))?;
            self.heads_bytes = 0;
            return Err(why);
        }
        let newest = self.dir.join(HEAD_FILE);
        files::replace_whole(&newest, seal.head.as_bytes()).map_err(LedgerError::io(&newest))?;
        files::replace_whole(&paths.seal, text.as_bytes()).map_err(LedgerError::io(&paths.seal))?;
        (self.sealed, self.extent, self.heads_bytes) = (true, Extent::default(), 0);
        Ok(())
    }

    /// Keeps in mind of which segments rows have to go, unless they are gone.
    fn note(&mut self, erasures: BTreeMap<u64, String>) -> Result<(), LedgerError> {
        let before = self.wanted.clone();
        for (segment, digest) in erasures {
            let paths = Paths::new(&self.dir, segment);
            let there = stored::exists(&paths.lines).map_err(LedgerError::io(&self.dir))?;
            if there && digest_of(&paths.values)? != digest {
                self.wanted.insert(segment, digest);
            } else {
                self.wanted.remove(&segment);
            }
        }
        if self.wanted == before { Ok(()) } else { self.write_wanted() }
    }

    pub(super) fn write_wanted(&self) -> Result<(), LedgerError> {
        let path = self.dir.join(WANTED_FILE);
        let text = serde_json::to_vec(&self.wanted).map_err(|error| LedgerError::Unrecordable(error.to_string()))?;
        files::replace_whole(&path, &text).map_err(LedgerError::io(&path))
    }

    /// The folder it lies in.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}

/// What a segment begins with.
struct Begun {
    index: u64,
    position: Position,
    open: BTreeSet<String>,
}

/// The lines of a chunk as they go by.
struct Reading {
    position: Position,
    extent: Extent,
    open: BTreeSet<String>,
    erasures: BTreeMap<u64, String>,
}

impl Reading {
    fn lines(&mut self, chunk: &Chunk) -> Result<(), NotTaken> {
        let wrong = |why: String| NotTaken::Wrong(why);
        let mut rows = rows(&chunk.values).map_err(wrong)?;
        for (number, line) in whole_lines(&chunk.lines).map_err(wrong)?.enumerate() {
            let seq = self.position.seq();
            let at = |why: String| NotTaken::Wrong(format!("record {seq}: {why}"));
            let fields: Map<String, Value> = serde_json::from_slice(line).map_err(|error| at(error.to_string()))?;
            let peek = recovery::peek(line).map_err(|error| at(error.to_string()))?;
            let follows = chain::decoded(&peek.prev) == Some(self.position.prev);
            if peek.seq != seq || fields.get("v").and_then(Value::as_u64) != Some(VERSION) {
                return Err(at("it is not the record that has to stand there".to_owned()));
            }
            if !follows {
                // The first follows what was shipped before.
                return Err(if number == 0 { NotTaken::Forked } else { at("it does not follow".to_owned()) });
            }
            committed(&fields, rows.remove(&seq)).map_err(at)?;
            peek.mark(&mut self.open);
            if peek.kind == kind::VALUES_ERASED {
                let erased: ErasedValues =
                    serde_json::from_value(Value::Object(fields)).map_err(|error| at(error.to_string()))?;
                self.erasures.insert(erased.segment, erased.kept.digest);
            }
            self.position.push(line);
            self.extent.push(line.len() + 1, peek.time);
        }
        self.extent.value_bytes += chunk.values.len() as u64;
        match rows.first_key_value() {
            Some((seq, _)) => Err(wrong(format!("there is a row of record {seq}, which is not in it"))),
            None => Ok(()),
        }
    }
}

/// The lines in `bytes`, each without its newline; none is empty, unfinished, or longer than any that is read.
fn whole_lines(bytes: &[u8]) -> Result<impl Iterator<Item = &[u8]>, String> {
    let whole = match bytes.strip_suffix(b"\n") {
        None if !bytes.is_empty() => return Err("its last line is not whole".to_owned()),
        whole => whole,
    };
    let lines = || whole.into_iter().flat_map(|whole| whole.split(|byte| *byte == b'\n'));
    if lines().any(|line| line.is_empty() || line.len() > MAX_LINE_BYTES) {
        return Err("a line is empty, or longer than any record".to_owned());
    }
    Ok(lines())
}

fn rows(values: &[u8]) -> Result<BTreeMap<u64, Row>, String> {
    let (mut rows, mut last) = (BTreeMap::new(), None);
    for line in whole_lines(values)? {
        let row: Row = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        if last.is_some_and(|last| last >= row.seq) {
            return Err("its rows are not in order".to_owned());
        }
        last = Some(row.seq);
        rows.insert(row.seq, row);
    }
    Ok(rows)
}

/// Each value that is there is the one that the line is committed to. One that is not there was erased, which a record
/// says that comes later.
fn committed(fields: &Map<String, Value>, row: Option<Row>) -> Result<(), String> {
    let mut values = row.map(|row| row.values).unwrap_or_default();
    for (name, member) in fields {
        let Some(expected) = values::committed(member) else { continue };
        if values.remove(&format!("/{name}")).is_some_and(|value| !value.matches(expected)) {
            return Err(format!("the companion value /{name} is not the one that was recorded"));
        }
    }
    match values.keys().next() {
        Some(extra) => Err(format!("there is a companion value {extra} that the record does not have")),
        None => Ok(()),
    }
}

fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    if !bytes.is_empty() {
        file.write_all(bytes)?;
        file.sync_data()?;
    }
    Ok(())
}

/// The digest of the rows in `path`, as a record of an erasure has it.
pub(super) fn digest_of(path: &Path) -> Result<String, LedgerError> {
    let digest = || -> io::Result<String> {
        let mut hashing = chain::Hashing::new();
        let mut source = match stored::open(path) {
            Ok(source) => source,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(chain::encoded(&hashing.finish())),
            Err(error) => return Err(error),
        };
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = io::Read::read(&mut source, &mut buffer)?;
            if read == 0 {
                return Ok(chain::encoded(&hashing.finish()));
            }
            hashing.update(buffer.get(..read).unwrap_or_default());
        }
    };
    digest().map_err(LedgerError::io(path))
}

fn read_wanted(dir: &Path) -> Result<BTreeMap<u64, String>, LedgerError> {
    let path = dir.join(WANTED_FILE);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| LedgerError::damaged(&path, error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(LedgerError::io(&path)(error)),
    }
}
