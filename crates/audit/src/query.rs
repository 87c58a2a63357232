//! Finding records: by run, user, agent, action, tool, decision and time, segment by segment, in constant memory.

use std::{
    collections::{BTreeSet, VecDeque},
    path::{Path, PathBuf},
    time::Instant,
};

use jiff::{SignedDuration, Timestamp};
use model::{Principal, Verdict};
use serde::{Deserialize, Serialize};

use crate::{
    LedgerError,
    read::{Entry, SegmentReader},
    rebuild::is_about_issuing,
    record::kind,
    segment::{self, Paths, Seal},
    ship::reading::locate,
};

/// How far a decision's record may be from the time in its id: the longest way of a call up to `record`, and then some.
const SLACK: SignedDuration = SignedDuration::from_mins(10);

/// How many segments back the beginning of a call is looked for whose end is asked for.
const MOST_BACK: u64 = 64;

/// What to look for. Every member that is set must match. Records of what became of a call match with the decision.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// A run id.
    pub run: Option<String>,
    /// A user: the id, or as the line for a person writes it (`user:alice@acme`, `alice@acme`).
    pub user: Option<String>,
    /// An agent that acts anywhere in the chain: the id, or `agent:id`.
    pub agent: Option<String>,
    /// An action.
    pub action: Option<String>,
    /// A tool.
    pub tool: Option<String>,
    /// A decision id.
    pub decision: Option<String>,
    /// A verdict.
    pub verdict: Option<Verdict>,
    /// Records of this kind only.
    pub kind: Option<String>,
    /// Of these tenants only; what is of no tenant, and what is not known to be of one, is left out.
    pub tenants: Option<BTreeSet<String>>,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before.
    pub to: Option<Timestamp>,
}

impl Filter {
    /// Whether it selects by anything but kind and time.
    fn is_about_calls(&self) -> bool {
        self.run.is_some()
            || self.user.is_some()
            || self.agent.is_some()
            || self.action.is_some()
            || self.tool.is_some()
            || self.decision.is_some()
            || self.verdict.is_some()
            || self.tenants.is_some()
    }

    fn in_time(&self, time: Timestamp) -> bool {
        self.from.is_none_or(|from| time >= from) && self.to.is_none_or(|to| time < to)
    }

    fn matches_fields(&self, entry: &Entry) -> bool {
        let text = |wanted: &Option<String>, name: &str| {
            wanted.as_deref().is_none_or(|wanted| entry.text(name) == Some(wanted))
        };
        text(&self.run, "run_id")
            && text(&self.action, "action")
            && text(&self.tool, "tool")
            && text(&self.decision, "decision_id")
            && self.tenants.as_ref().is_none_or(|tenants| entry.text("tenant").is_some_and(|of| tenants.contains(of)))
            && self.verdict.is_none_or(|wanted| entry.text("decision") == Some(wanted.as_str()))
            && self.user.as_deref().is_none_or(|wanted| names(entry, "user", wanted))
            && self.agent.as_deref().is_none_or(|wanted| names(entry, "agent", wanted) || is_in_chain(entry, wanted))
    }
}

/// Whether the principal in `member` goes by `wanted`.
fn names(entry: &Entry, member: &str, wanted: &str) -> bool {
    let Some(value) = entry.fields.get(member) else { return false };
    let Ok(principal) = serde_json::from_value::<Principal>(value.clone()) else { return false };
    let shown = principal.to_string();
    principal.id.as_str() == wanted || shown == wanted || shown.split_once(':').is_some_and(|(_, rest)| rest == wanted)
}

fn is_in_chain(entry: &Entry, wanted: &str) -> bool {
    let wanted = wanted.strip_prefix("agent:").unwrap_or(wanted);
    let agents = entry.fields.get("agents").and_then(|agents| agents.as_array());
    let is = |agent: &serde_json::Value| {
        agent.as_str() == Some(wanted) || agent.get("id").and_then(|id| id.as_str()) == Some(wanted)
    };
    agents.is_some_and(|agents| agents.iter().any(is))
}

/// The entries of the ledger in `dir` that match `filter`, oldest first.
///
/// # Errors
/// When the directory cannot be listed.
pub fn query(dir: &Path, filter: Filter) -> Result<Matches, LedgerError> {
    query_from(dir, filter, 0)
}

/// The same from the record `seq` on, as if those before had been read too.
///
/// # Errors
/// When the directory cannot be listed, or a seal not be read.
pub fn query_from(dir: &Path, filter: Filter, seq: u64) -> Result<Matches, LedgerError> {
    let mut segments: VecDeque<u64> = segment::list(dir).map_err(LedgerError::io(dir))?.into();
    if seq > 0
        && let Some((index, _)) = locate(dir, seq)?
    {
        let begin = first_with_open_calls(dir, index)?;
        segments.retain(|segment| *segment >= begin);
    }
    Ok(Matches {
        dir: dir.to_owned(),
        filter,
        segments,
        reader: None,
        called: BTreeSet::new(),
        from_seq: seq,
        next_seq: seq,
    })
}

/// The segment from which on `index` has to be read, so that the ends of calls in it find their beginnings.
fn first_with_open_calls(dir: &Path, index: u64) -> Result<u64, LedgerError> {
    let open = |index: u64| -> Result<BTreeSet<String>, LedgerError> {
        let path = Paths::new(dir, index).seal;
        Ok(Seal::read(&path).map_err(LedgerError::io(&path))?.map(|seal| seal.open).unwrap_or_default())
    };
    let mut begin = index;
    let mut waiting = open(index.saturating_sub(1))?;
    while !waiting.is_empty() && begin > 1 && index - begin < MOST_BACK {
        begin -= 1;
        let before = open(begin - 1)?;
        waiting.retain(|call| before.contains(call));
    }
    Ok(begin)
}

/// The entries that match, read as they are asked for.
pub struct Matches {
    dir: PathBuf,
    filter: Filter,
    segments: VecDeque<u64>,
    reader: Option<SegmentReader>,
    /// Matching decisions whose end has not come by yet.
    called: BTreeSet<String>,
    /// What is before it is read and not shown.
    from_seq: u64,
    next_seq: u64,
}

impl Matches {
    fn matches(&mut self, entry: &Entry) -> bool {
        if !self.filter.in_time(entry.time) || self.filter.kind.as_ref().is_some_and(|kind| *kind != entry.kind) {
            return false;
        }
        if !self.filter.is_about_calls() {
            return true;
        }
        if entry.kind == kind::CALL_SETTLED {
            let id = entry.text("decision_id").unwrap_or_default();
            return self.called.remove(id) || self.filter.decision.as_deref() == Some(id);
        }
        let found = self.filter.matches_fields(entry);
        if found && entry.kind == kind::CALL_DECIDED && entry.text("decision") == Some(Verdict::Permit.as_str()) {
            self.called.extend(entry.text("decision_id").map(str::to_owned));
        }
        found
    }

    fn advance(&mut self, until: Option<Instant>) -> Result<Option<Entry>, LedgerError> {
        loop {
            if until.is_some_and(|until| net::clock::monotonic() >= until) {
                return Ok(None);
            }
            if self.reader.is_none() {
                let Some(index) = self.segments.pop_front() else { return Ok(None) };
                if !may_hold(&self.dir, index, self.filter.from, self.filter.to)? {
                    continue;
                }
                self.reader = SegmentReader::open_unless_retired(&self.dir, index)?;
            }
            let next = self.reader.as_mut().map_or(Ok(None), SegmentReader::next)?;
            self.next_seq = next.as_ref().map_or(self.next_seq, |entry| self.next_seq.max(entry.seq + 1));
            match next {
                Some(entry) if self.matches(&entry) && entry.seq >= self.from_seq => return Ok(Some(entry)),
                Some(_) => {}
                None => self.reader = None,
            }
        }
    }
}

/// What a search of bounded length came to.
pub enum Step {
    /// A match.
    Found(Box<Entry>),
    /// The time was over: asked again, it goes on.
    NotYet,
    /// There is nothing more.
    End,
}

impl Matches {
    /// The next match, given up at `until`.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn next_until(&mut self, until: Instant) -> Result<Step, LedgerError> {
        let found = self.advance(Some(until))?;
        Ok(match found {
            Some(entry) => Step::Found(Box::new(entry)),
            None if self.reader.is_none() && self.segments.is_empty() => Step::End,
            None => Step::NotYet,
        })
    }

    /// The number of the record that comes next.
    pub const fn next_seq(&self) -> u64 {
        self.next_seq
    }
}

impl Iterator for Matches {
    type Item = Result<Entry, LedgerError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance(None).transpose();
        if matches!(next, Some(Err(_))) {
            // What follows an unreadable record cannot be trusted to be next to it.
            self.segments.clear();
            self.reader = None;
        }
        next
    }
}

/// Whether a segment may hold records of that time. Only a seal can say no.
pub(crate) fn may_hold(
    dir: &Path,
    index: u64,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
) -> Result<bool, LedgerError> {
    if from.is_none() && to.is_none() {
        return Ok(true);
    }
    let path = Paths::new(dir, index).seal;
    let seal = Seal::read(&path).map_err(LedgerError::io(&path))?;
    let Some((earliest, latest)) = seal.and_then(|seal| seal.earliest.zip(seal.latest)) else { return Ok(true) };
    Ok(from.is_none_or(|from| latest >= from) && to.is_none_or(|to| earliest < to))
}

/// Everything the ledger holds about one decision.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Found {
    /// The decision.
    pub decided: Entry,
    /// The token it was made under, where one passed verification.
    pub token_seen: Option<Entry>,
    /// What became of the call, where it was permitted and has ended.
    pub settled: Option<Entry>,
}

/// The records of the decision `id`; `None` where the ledger holds none. The time in the id says where to look
/// first; if the clock was wrong then, the whole ledger is read.
///
/// # Errors
/// When a segment cannot be read.
pub fn find(dir: &Path, id: &str) -> Result<Option<Found>, LedgerError> {
    let segments = segment::list(dir).map_err(LedgerError::io(dir))?;
    let around = time_of(id).map(|time| (time.checked_sub(SLACK).ok(), time.checked_add(SLACK).ok()));
    let (mut likely, mut others) = (Vec::new(), Vec::new());
    for &index in &segments {
        let (from, to) = around.unwrap_or_default();
        if may_hold(dir, index, from, to)? { likely.push(index) } else { others.push(index) }
    }
    for index in likely.into_iter().chain(others) {
        if let Some((decided, token_seen, settled)) = find_in(dir, index, id)? {
            let settled = match settled {
                None if decided.text("decision") == Some(Verdict::Permit.as_str()) => {
                    settled_after(dir, segments.iter().copied().filter(|later| *later > index), id)?
                }
                settled => settled,
            };
            return Ok(Some(Found { decided, token_seen, settled }));
        }
    }
    Ok(None)
}

/// The record of a token that an authority issued or refused: by the token's `jti`, by its digest, or by the number of the
/// record, `seq:17`. `None` where the ledger holds none.
///
/// # Errors
/// When a segment cannot be read.
pub fn find_issued(dir: &Path, id: &str) -> Result<Option<Entry>, LedgerError> {
    let number = id.strip_prefix("seq:").and_then(|number| number.parse::<u64>().ok());
    for index in segment::list(dir).map_err(LedgerError::io(dir))?.into_iter().rev() {
        let Some(mut reader) = SegmentReader::open_unless_retired(dir, index)? else { continue };
        while let Some(entry) = reader.next()? {
            let named = entry.text("jti") == Some(id) || entry.text("token") == Some(id) || number == Some(entry.seq);
            if named && is_about_issuing(&entry) {
                return Ok(Some(entry));
            }
        }
    }
    Ok(None)
}

type FoundHere = (Entry, Option<Entry>, Option<Entry>);

fn find_in(dir: &Path, index: u64, id: &str) -> Result<Option<FoundHere>, LedgerError> {
    let Some(mut reader) = SegmentReader::open_unless_retired(dir, index)? else { return Ok(None) };
    let mut decided = None;
    while let Some(entry) = reader.next()? {
        if entry.text("decision_id") != Some(id) {
            continue;
        }
        if entry.kind == kind::CALL_DECIDED {
            decided = Some(entry);
        } else if let (kind::CALL_SETTLED, Some(decided)) = (entry.kind.as_str(), decided.clone()) {
            return Ok(Some((decided.clone(), token_of(dir, &decided)?, Some(entry))));
        }
    }
    match decided {
        Some(decided) => {
            let token = token_of(dir, &decided)?;
            Ok(Some((decided, token, None)))
        }
        None => Ok(None),
    }
}

/// The `token.seen` that `decided` cites: the last one of that digest before it, in its segment.
///
/// # Errors
/// When the segment cannot be read.
pub fn token_of(dir: &Path, decided: &Entry) -> Result<Option<Entry>, LedgerError> {
    let Some(digest) = decided.text("token") else { return Ok(None) };
    let Some(mut reader) = SegmentReader::open_unless_retired(dir, decided.segment)? else { return Ok(None) };
    let mut found = None;
    while let Some(entry) = reader.next()?.filter(|entry| entry.seq < decided.seq) {
        if entry.kind == kind::TOKEN_SEEN && entry.text_at("/token/digest") == Some(digest) {
            found = Some(entry);
        }
    }
    Ok(found)
}

fn settled_after(dir: &Path, segments: impl Iterator<Item = u64>, id: &str) -> Result<Option<Entry>, LedgerError> {
    for index in segments {
        let Some(mut reader) = SegmentReader::open_unless_retired(dir, index)? else { continue };
        while let Some(entry) = reader.next()? {
            if entry.kind == kind::CALL_SETTLED && entry.text("decision_id") == Some(id) {
                return Ok(Some(entry));
            }
        }
    }
    Ok(None)
}

/// The time in a decision id, which is a ledger id and a UUID of version 7.
fn time_of(id: &str) -> Option<Timestamp> {
    let (_, uuid) = id.rsplit_once('.')?;
    let (seconds, nanoseconds) = uuid::Uuid::parse_str(uuid).ok()?.get_timestamp()?.to_unix();
    Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanoseconds).ok()?).ok()
}
