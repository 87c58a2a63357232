//! The decisions of a ledger with the questions they answered, for whoever decides them again, and many of them. One reads
//! the lines, in batches; what they say is put together by whoever has a batch, on any thread.

use std::{
    collections::{HashMap, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use memchr::memmem;
use model::Question;
use serde::Deserialize;

use crate::{
    LedgerError,
    query::may_hold,
    read::{Entry, SegmentReader, Unread},
    rebuild::{self, NotReplayable, Token},
    record::kind,
    segment::{self, Paths, Seal},
    stored,
};

/// How the lines of what is read here name themselves. Canonical lines have no white space, and within a text the quotes
/// are escaped, so that a line without these is of another kind.
const DECIDED: &[u8] = b"\"kind\":\"call.decided\"";
const SEEN: &[u8] = b"\"kind\":\"token.seen\"";

/// The most decisions of a batch, and the bytes that they and their tokens may take until it is full: small enough that many threads have
/// something to do, large enough that they seldom ask for more.
const MOST: usize = 64;
const MOST_BYTES: usize = 512 * 1024;

/// A segment that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its number.
    pub index: u64,
    /// The bytes of its lines, as they were written.
    pub bytes: u64,
}

/// The segments of the ledger in `dir` that may hold decisions of that time, oldest first.
///
/// # Errors
/// When the directory cannot be listed, or a seal not be read.
pub fn segments(dir: &Path, from: Option<Timestamp>, to: Option<Timestamp>) -> Result<Vec<Segment>, LedgerError> {
    let mut found = Vec::new();
    for index in segment::list(dir).map_err(LedgerError::io(dir))? {
        if !may_hold(dir, index, from, to)? {
            continue;
        }
        let paths = Paths::new(dir, index);
        let seal = Seal::read(&paths.seal).map_err(LedgerError::io(&paths.seal))?;
        let bytes = seal.map_or_else(|| stored::bytes_on_disk(&paths.lines), |seal| seal.line_bytes);
        found.push(Segment { index, bytes });
    }
    Ok(found)
}

/// A decision, and what it was about.
#[derive(Debug)]
pub struct Decided {
    /// The record.
    pub entry: Entry,
    /// The question it answered.
    pub question: Result<Question, NotReplayable>,
}

/// What is known of tokens so far, to put questions together with.
#[derive(Debug, Default)]
pub struct Tokens(HashMap<String, Token>);

impl Tokens {
    /// What `entry` comes to; `None` for what is no decision. A `token.seen` is remembered for those that follow.
    pub fn take(&mut self, entry: Entry) -> Option<Decided> {
        match entry.kind.as_str() {
            kind::TOKEN_SEEN => {
                if let Some(digest) = entry.text_at("/token/digest") {
                    self.0.insert(digest.to_owned(), Token::of(&entry));
                }
                None
            }
            kind::CALL_DECIDED => {
                let token = entry.text("token").and_then(|digest| self.0.get(digest));
                let question = rebuild::question_under(&entry, token);
                Some(Decided { entry, question })
            }
            _ => None,
        }
    }
}

/// The lines of decisions, batch by batch, in the order of the ledger. Which lines are in which batch depends on the ledger
/// alone.
pub struct Batches {
    dir: PathBuf,
    segments: VecDeque<u64>,
    reading: Option<Reading>,
}

/// A segment that is being read.
struct Reading {
    index: u64,
    reader: SegmentReader,
    seen: Arc<Seen>,
}

impl Batches {
    /// Those of `segments` of the ledger in `dir`.
    pub fn of(dir: &Path, segments: &[Segment]) -> Self {
        let segments = segments.iter().map(|segment| segment.index).collect();
        Self { dir: dir.to_owned(), segments, reading: None }
    }

    /// The next one; `None` where there is none. One may be without decisions. Segments that retention took away since they
    /// were listed are passed over.
    ///
    /// # Errors
    /// When a segment cannot be read. What follows cannot be trusted to be next to it, and is not read.
    pub fn next_batch(&mut self) -> Result<Option<Batch>, LedgerError> {
        loop {
            if let Some(reading) = &mut self.reading {
                let batch = reading.batch();
                match batch {
                    Ok(batch) if batch.bytes > 0 => return Ok(Some(batch)),
                    Ok(_) => self.reading = None,
                    Err(error) => {
                        (self.reading, self.segments) = (None, VecDeque::new());
                        return Err(error);
                    }
                }
            }
            let Some(index) = self.segments.pop_front() else { return Ok(None) };
            let reader = SegmentReader::open_unless_retired(&self.dir, index)?;
            self.reading = reader.map(|reader| Reading { index, reader, seen: Arc::default() });
        }
    }
}

impl Reading {
    fn batch(&mut self) -> Result<Batch, LedgerError> {
        let wanted = |line: &[u8]| [DECIDED, SEEN].iter().any(|kind| memmem::find(line, kind).is_some());
        let before = self.reader.bytes();
        let mut batch = Batch {
            segment: self.index,
            paths: self.reader.paths().clone(),
            seen: Arc::clone(&self.seen),
            decided: Vec::new(),
            bytes: 0,
        };
        let mut held = 0;
        while batch.decided.len() < MOST && held < MOST_BYTES {
            let Some(unread) = self.reader.next_unread(wanted)? else { break };
            held += unread.bytes();
            // By its own kind: what is within a record may have a member of that name, too.
            match unread.kind.as_str() {
                kind::CALL_DECIDED => batch.decided.push(unread),
                kind::TOKEN_SEEN => {
                    let damaged =
                        |error: serde_json::Error| LedgerError::damaged(&batch.paths.lines, error.to_string());
                    self.seen.note(unread).map_err(damaged)?;
                }
                _ => {}
            }
        }
        batch.bytes = self.reader.bytes() - before;
        Ok(batch)
    }
}

/// Some decisions of one segment, not looked into yet.
pub struct Batch {
    segment: u64,
    paths: Paths,
    seen: Arc<Seen>,
    decided: Vec<Unread>,
    bytes: u64,
}

impl Batch {
    /// How many bytes of lines were read for it.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many decisions it has.
    pub const fn len(&self) -> usize {
        self.decided.len()
    }

    /// Whether it has none.
    pub const fn is_empty(&self) -> bool {
        self.decided.is_empty()
    }

    /// The decisions, in their order. What follows an error cannot be trusted.
    pub fn decided(&self) -> impl Iterator<Item = Result<Decided, LedgerError>> {
        self.decided.iter().map(|unread| {
            let entry = unread.read(self.segment, &self.paths)?;
            let token = match entry.text("token") {
                Some(digest) => self.seen.before(digest, unread.seq, self)?,
                None => None,
            };
            let question = rebuild::question_under(&entry, token.as_deref());
            Ok(Decided { entry, question })
        })
    }
}

/// What was read of the tokens of a segment, each put together by the first who needs it.
#[derive(Default)]
struct Seen(Mutex<Records>);

/// By the digest of the token, with their places in the ledger, in order.
type Records = HashMap<String, Vec<(u64, Arc<Known>)>>;

/// One record of a token.
type Known = Mutex<Is>;

enum Is {
    Unread(Unread),
    Read(Arc<Token>),
}

impl Seen {
    fn note(&self, unread: Unread) -> Result<(), serde_json::Error> {
        #[derive(Deserialize)]
        struct Record {
            token: Option<Cited>,
        }
        #[derive(Deserialize)]
        struct Cited {
            digest: Option<String>,
        }
        let Record { token } = serde_json::from_slice(&unread.line)?;
        if let Some(digest) = token.and_then(|token| token.digest) {
            let known = (unread.seq, Arc::new(Mutex::new(Is::Unread(unread))));
            self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(digest).or_default().push(known);
        }
        Ok(())
    }

    /// What was said last of the token `digest` before the record `seq`.
    fn before(&self, digest: &str, seq: u64, batch: &Batch) -> Result<Option<Arc<Token>>, LedgerError> {
        let known = {
            let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let known = all.get(digest).into_iter().flatten().rev().find(|(at, _)| *at < seq);
            let Some((_, known)) = known else { return Ok(None) };
            Arc::clone(known)
        };
        // Whoever needs the same token waits here, and nobody else does.
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        let token = match &*known {
            Is::Read(token) => return Ok(Some(Arc::clone(token))),
            Is::Unread(unread) => Arc::new(Token::of(&unread.read(batch.segment, &batch.paths)?)),
        };
        *known = Is::Read(Arc::clone(&token));
        Ok(Some(token))
    }
}
