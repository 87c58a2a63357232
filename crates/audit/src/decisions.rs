//! The decisions of a ledger with the questions they answered, a segment at a time: for whoever decides them again, and
//! many of them. Segments stand alone, so that several can be read at once.

use std::{collections::HashMap, path::Path};

use jiff::Timestamp;
use memchr::memmem;
use model::Question;

use crate::{
    LedgerError,
    query::may_hold,
    read::{Entry, SegmentReader},
    rebuild::{self, NotReplayable, Token},
    record::kind,
    segment::{self, Paths, Seal},
    stored,
};

/// How the lines of what is read here name themselves. Canonical lines have no white space, and within a text the quotes
/// are escaped, so that a line without these is of another kind.
const LOOKED_FOR: [&[u8]; 2] = [b"\"kind\":\"call.decided\"", b"\"kind\":\"token.seen\""];

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

/// The decisions of one segment, in their order.
pub struct Decisions {
    reader: SegmentReader,
    tokens: Tokens,
    failed: bool,
}

impl Decisions {
    /// Opens the segment `index`; `None` where retention took it away since it was listed.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(dir: &Path, index: u64) -> Result<Option<Self>, LedgerError> {
        let reader = SegmentReader::open_unless_retired(dir, index)?;
        Ok(reader.map(|reader| Self { reader, tokens: Tokens::default(), failed: false }))
    }

    /// How many bytes of its lines were read.
    pub const fn bytes(&self) -> u64 {
        self.reader.bytes()
    }
}

impl Iterator for Decisions {
    type Item = Result<Decided, LedgerError>;

    fn next(&mut self) -> Option<Self::Item> {
        let wanted = |line: &[u8]| LOOKED_FOR.iter().any(|kind| memmem::find(line, kind).is_some());
        while !self.failed {
            match self.reader.next_like(wanted) {
                Ok(entry) => {
                    if let Some(decided) = self.tokens.take(entry?) {
                        return Some(Ok(decided));
                    }
                }
                Err(error) => {
                    // What follows an unreadable record cannot be trusted to be next to it.
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
