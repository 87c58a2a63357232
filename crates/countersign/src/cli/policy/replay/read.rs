//! Where recorded decisions come from, and how they are handed to those who make them again: segments of a ledger on
//! every core at once, or the pages of an authority.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use audit::{
    LedgerError,
    decisions::{self, Decided, Decisions, Segment, Tokens},
    query::Filter,
    rebuild::{self, NotReplayable},
};
use jiff::Timestamp;
use model::{Action, Code, Id, Verdict};
use policy::{
    Engine,
    replay::{Asked, Bounds, Recorded, Tally, replay},
};

use crate::{
    cli::{audit::remote::Remote, ledger::unreadable, progress::Bar},
    failure::{Exit, Failure},
};

/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(50);
/// The most threads: reading is what limits it then.
const MOST_THREADS: usize = 16;

/// Which decisions are made again.
pub(super) struct Span {
    pub(super) from: Option<Timestamp>,
    pub(super) to: Option<Timestamp>,
    /// Of these actions; of all, where none is named.
    pub(super) actions: BTreeSet<Id<Action>>,
}

impl Span {
    fn holds(&self, decided: &Decided) -> bool {
        let time = decided.entry.time;
        self.from.is_none_or(|from| time >= from)
            && self.to.is_none_or(|to| time < to)
            && (self.actions.is_empty()
                || decided
                    .entry
                    .text("action")
                    .is_some_and(|action| self.actions.iter().any(|wanted| wanted.as_str() == action)))
    }
}

/// The segments that nobody has taken yet, and how far those are that somebody has.
struct Shared<'a> {
    directory: &'a Path,
    segments: &'a [Segment],
    taken: AtomicUsize,
    read: AtomicU64,
    decided: AtomicU64,
    stop: AtomicBool,
}

/// Makes the decisions of the ledger in `directory` again.
pub(super) fn directory(
    directory: &Path,
    engine: &Engine,
    span: &Span,
    bounds: Bounds,
    quiet: bool,
) -> Result<Tally, Failure> {
    let segments = decisions::segments(directory, span.from, span.to).map_err(unreadable)?;
    let all: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(segments.len()).min(MOST_THREADS);
    let shared = Shared {
        directory,
        segments: &segments,
        taken: AtomicUsize::new(0),
        read: AtomicU64::new(0),
        decided: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    let mut bar = Bar::new("replaying", quiet);
    let parts = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| work(&shared, engine, span, bounds))).collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            let decided = shared.decided.load(Ordering::Relaxed);
            bar.show(shared.read.load(Ordering::Relaxed), all, format_args!("{decided} decisions"));
            std::thread::sleep(LOOK);
        }
        workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    bar.clear();
    let mut tally = Tally::new(bounds);
    for part in parts {
        let part = part.map_err(|_| Failure::new(Exit::Failed, "a thread of the replay panicked; this is a defect"))?;
        tally.merge(part.map_err(unreadable)?);
    }
    Ok(tally)
}

/// Takes segments until there is none left.
fn work(shared: &Shared<'_>, engine: &Engine, span: &Span, bounds: Bounds) -> Result<Tally, LedgerError> {
    let mut tally = Tally::new(bounds);
    while let Some(segment) = shared.segments.get(shared.taken.fetch_add(1, Ordering::Relaxed)) {
        if let Err(error) = segment_of(shared, segment.index, engine, span, &mut tally) {
            shared.stop.store(true, Ordering::Relaxed);
            return Err(error);
        }
    }
    Ok(tally)
}

fn segment_of(
    shared: &Shared<'_>,
    index: u64,
    engine: &Engine,
    span: &Span,
    tally: &mut Tally,
) -> Result<(), LedgerError> {
    let Some(mut decisions) = Decisions::open(shared.directory, index)? else { return Ok(()) };
    let (mut failed, mut read) = (None, 0);
    let recorded = std::iter::from_fn(|| {
        while !shared.stop.load(Ordering::Relaxed) {
            let next = decisions.next()?;
            shared.read.fetch_add(decisions.bytes() - read, Ordering::Relaxed);
            read = decisions.bytes();
            match next {
                Ok(decided) if span.holds(&decided) => {
                    shared.decided.fetch_add(1, Ordering::Relaxed);
                    return Some(recorded(decided));
                }
                Ok(_) => {}
                Err(error) => {
                    failed = Some(error);
                    return None;
                }
            }
        }
        None
    });
    replay(engine, recorded, tally);
    failed.map_or(Ok(()), Err)
}

/// Makes the decisions again that sidecars shipped to an authority.
pub(super) fn authority(
    remote: &Remote,
    engine: &Engine,
    span: &Span,
    bounds: Bounds,
    quiet: bool,
) -> Result<Tally, Failure> {
    let mut tally = Tally::new(bounds);
    let mut bar = Bar::new("replaying", quiet);
    let ledgers = remote.ledgers()?;
    // From the beginning of each: what a decision says of its token was said before it.
    let filter = Filter { to: span.to, ..Filter::default() };
    for (index, ledger) in ledgers.iter().enumerate() {
        let (mut tokens, mut failed) = (Tokens::default(), None);
        let entries = remote.of(ledger, &filter, 0).map_while(|entry| entry.map_err(|error| failed = Some(error)).ok());
        let decided = entries.filter_map(|entry| tokens.take(entry)).filter(|decided| span.holds(decided));
        replay(engine, decided.map(recorded), &mut tally);
        if let Some(failed) = failed {
            bar.clear();
            return Err(failed);
        }
        bar.show(index as u64 + 1, ledgers.len() as u64, format_args!("{} decisions", tally.compared));
    }
    bar.clear();
    Ok(tally)
}

/// What a record is to whoever decides again.
fn recorded(decided: Decided) -> Recorded {
    let Decided { entry, question } = decided;
    let stage = entry.text("stage_reached").unwrap_or("?").to_owned();
    let question = match question {
        Ok(question) => question,
        Err(NotReplayable::Unasked(stage)) => return Recorded::Elsewhere { stage },
        Err(NotReplayable::Erased { paths }) => return Recorded::NotReplayable { paths },
        Err(NotReplayable::OtherToken) => return Recorded::NotReplayable { paths: vec!["token.seen".to_owned()] },
        Err(NotReplayable::Unreadable(_)) => return Recorded::NotReplayable { paths: Vec::new() },
    };
    let Ok(then) = rebuild::decision(&entry) else { return Recorded::NotReplayable { paths: Vec::new() } };
    let observed = entry.fields.contains_key("observed");
    if !observed && !is_policys(&stage, then.verdict, then.code) {
        return Recorded::Elsewhere { stage };
    }
    let revisions = entry.fields.get("revisions");
    let revision = revisions.and_then(|revisions| revisions.get("policy")?.as_str()).map(str::to_owned);
    Recorded::Asked(Box::new(Asked { question, then, revision, observed }))
}

/// Whether policy is what decided: not where a relation was not shown, where there was no room to ask, where a person
/// said no, or where a later stage refused what policy had let through.
fn is_policys(stage: &str, verdict: Verdict, code: Option<Code>) -> bool {
    match stage {
        "decide" => !matches!(code, Some(Code::RelationUnproven | Code::Overloaded)),
        "approve" => verdict == Verdict::ApprovalRequired,
        _ => verdict == Verdict::Permit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_policy_could_have_let_through_is_not_policys() {
        let deny = |stage, code| is_policys(stage, Verdict::Deny, Some(code));
        assert!(deny("decide", Code::PolicyDenied) && deny("decide", Code::PolicyNoAllow));
        assert!(deny("decide", Code::PolicyError) && deny("decide", Code::NoPolicy));
        assert!(!deny("decide", Code::RelationUnproven) && !deny("decide", Code::Overloaded));
        assert!(!deny("reserve", Code::Velocity) && !deny("credential", Code::CredentialUnavailable));
        assert!(is_policys("record", Verdict::Permit, None));
        assert!(is_policys("approve", Verdict::ApprovalRequired, Some(Code::ApprovalRequired)));
    }
}
