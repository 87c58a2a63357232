//! Where recorded decisions come from, and how they are handed to those who make them again: the lines of a ledger on
//! every core at once, or the pages of an authority.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use audit::{
    LedgerError,
    decisions::{self, Batches, Decided, Tokens},
    query::Filter,
    rebuild::{self, NotReplayable},
};
use jiff::Timestamp;
use model::{Action, Code, Decision, Id, Question, Verdict};
use policy::{
    Engine,
    replay::{Asked, Bounds, Recorded, Tally, replay},
};
use proxy::Reach;

use super::in_order::InOrder;
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

/// The policies that are asked now.
pub(super) struct Candidate {
    pub(super) engine: Engine,
    /// What their sidecar can be held to, where its configuration is at hand.
    pub(super) reach: Option<Reach>,
}

impl Candidate {
    fn decide(&self, question: &Question) -> Decision {
        let decision = self.engine.decide_again(question);
        match &self.reach {
            Some(reach) => reach.hold(decision),
            None => decision,
        }
    }
}

/// How a ledger is read.
#[derive(Clone, Copy)]
pub(super) struct Way {
    pub(super) bounds: Bounds,
    /// How many threads decide; as many as there are cores where it is not said.
    pub(super) threads: Option<usize>,
    /// No progress is shown.
    pub(super) quiet: bool,
}

/// What the threads share: the lines that nobody has taken yet, and what was found.
struct Shared {
    /// Whoever wants something to do reads it.
    batches: Mutex<(u64, Batches)>,
    found: InOrder,
    read: AtomicU64,
    decided: AtomicU64,
}

/// Makes the decisions of the ledger in `directory` again.
pub(super) fn directory(directory: &Path, candidate: &Candidate, span: &Span, way: Way) -> Result<Tally, Failure> {
    let segments = decisions::segments(directory, span.from, span.to).map_err(unreadable)?;
    let all: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = way.threads.unwrap_or_else(cores).clamp(1, MOST_THREADS);
    let shared = Shared {
        batches: Mutex::new((0, Batches::of(directory, &segments))),
        found: InOrder::of(Tally::new(way.bounds)),
        read: AtomicU64::new(0),
        decided: AtomicU64::new(0),
    };
    let mut bar = Bar::new("replaying", way.quiet);
    let waiting = std::thread::current();
    let parts = std::thread::scope(|scope| {
        let work = || {
            let worked = work(&shared, candidate, span, way.bounds);
            waiting.unpark();
            worked
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            let decided = shared.decided.load(Ordering::Relaxed);
            bar.show(shared.read.load(Ordering::Relaxed), all, format_args!("{decided} decisions"));
            std::thread::park_timeout(LOOK);
        }
        workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    bar.clear();
    for part in parts {
        let part = part.map_err(|_| Failure::new(Exit::Failed, "a thread of the replay panicked; this is a defect"))?;
        part.map_err(unreadable)?;
    }
    Ok(shared.found.into_sum())
}

/// Nobody waits for what a thread had that is not there any more.
struct StopsAll<'a>(&'a InOrder, bool);

impl Drop for StopsAll<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.stop();
        }
    }
}

/// Takes lines until there are none left.
fn work(shared: &Shared, candidate: &Candidate, span: &Span, bounds: Bounds) -> Result<(), LedgerError> {
    let mut ended = StopsAll(&shared.found, false);
    while !shared.found.is_stopped() {
        let next = {
            let mut batches = shared.batches.lock().unwrap_or_else(PoisonError::into_inner);
            let (number, batches) = &mut *batches;
            batches.next_batch()?.map(|batch| {
                *number += 1;
                (*number - 1, batch)
            })
        };
        let Some((number, batch)) = next else { break };
        let (mut tally, mut failed) = (Tally::new(bounds), None);
        let decided = batch.decided().map_while(|decided| decided.map_err(|error| failed = Some(error)).ok());
        let recorded = decided.filter(|decided| span.holds(decided)).map(recorded);
        replay(|question| candidate.decide(question), recorded, &mut tally);
        if let Some(failed) = failed {
            return Err(failed);
        }
        shared.read.fetch_add(batch.bytes(), Ordering::Relaxed);
        shared.decided.fetch_add(batch.len() as u64, Ordering::Relaxed);
        shared.found.add(number, tally);
    }
    ended.1 = true;
    Ok(())
}

/// Makes the decisions again that sidecars shipped to an authority.
pub(super) fn authority(remote: &Remote, candidate: &Candidate, span: &Span, way: Way) -> Result<Tally, Failure> {
    let mut tally = Tally::new(way.bounds);
    let mut bar = Bar::new("replaying", way.quiet);
    let ledgers = remote.ledgers()?;
    // From the beginning of each: what a decision says of its token was said before it.
    let filter = Filter { to: span.to, ..Filter::default() };
    for (index, ledger) in ledgers.iter().enumerate() {
        let (mut tokens, mut failed) = (Tokens::default(), None);
        let entries = remote.of(ledger, &filter, 0).map_while(|entry| entry.map_err(|error| failed = Some(error)).ok());
        let decided = entries.filter_map(|entry| tokens.take(entry)).filter(|decided| span.holds(decided));
        replay(|question| candidate.decide(question), decided.map(recorded), &mut tally);
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
        Err(NotReplayable::Erased { paths } | NotReplayable::Absent { paths }) => {
            return Recorded::NotReplayable { paths };
        }
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
