//! A candidate beside the policies that decide: asked about the calls as they come, after their decision and on a thread
//! of its own that lets everybody else go first. No call waits for it, and none is decided by it; what it is too slow for is
//! dropped and counted. Where there is none, a call looks at one flag.

mod fold;
mod told;
mod work;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use audit::record::Compared;
use jiff::Timestamp;
use model::{Action, Code, Decision, Id, Question};
use opentelemetry::{KeyValue, global, metrics::Counter};
use policy::{Engine, Written};
use tokio::sync::{Notify, mpsc};

use crate::sidecar::Sidecar;

/// The most calls that wait for it, and the most bytes of policy input among them.
const QUEUE: usize = 1_024;
const MAX_WAITING: usize = 16 * 1024 * 1024;
/// Differences that wait to be put on record.
const FOUND: usize = 256;

/// What a candidate is.
#[derive(Debug)]
pub struct CandidateParts {
    /// What it is asked.
    pub engine: Engine,
    /// The revision of what decides, beside which it was made: calls that others decided are not compared.
    pub active: String,
    /// Of a hundred calls, how many it is asked.
    pub percent: u8,
}

/// What an operator is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CandidateState {
    /// Its revision.
    pub revision: String,
    /// That of what decides beside it.
    pub active: String,
    /// Calls of which it was asked.
    pub compared: u64,
    /// Of those, how many it would have answered otherwise.
    pub differed: u64,
    /// Calls of which it was not asked, because it is too slow for them or something else decides by now.
    pub dropped: u64,
}

/// One candidate.
#[derive(Debug)]
struct Candidate {
    parts: CandidateParts,
    /// It stands there no longer: what waits for it is let go.
    over: AtomicBool,
    /// The calls that it could have been asked.
    seen: AtomicU64,
    compared: AtomicU64,
    differed: AtomicU64,
    dropped: AtomicU64,
    untold: Mutex<Untold>,
}

/// What is in no summary yet.
#[derive(Debug, Clone)]
struct Untold {
    from: Timestamp,
    actions: BTreeMap<Id<Action>, Compared>,
    /// Of those dropped in all, how many a summary has.
    dropped: u64,
    /// Differences that no record names.
    unrecorded: u64,
}

/// A call to be compared.
struct Asked {
    candidate: Arc<Candidate>,
    question: Arc<Question>,
    then: Decision,
    by_stage: bool,
    /// The room it takes while it waits.
    _room: Room,
}

/// Bytes that are taken for as long as this is here.
struct Room {
    waiting: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The place beside the line where a candidate may stand.
pub(crate) struct Beside {
    /// Whether one does: all that a call looks at as long as there is none.
    any: AtomicBool,
    current: ArcSwapOption<Candidate>,
    /// Those that were replaced, until all is told of them.
    past: Mutex<Vec<Arc<Candidate>>>,
    /// Where calls wait for it; none before the first candidate, and none any more at the end.
    queue: ArcSwapOption<mpsc::Sender<Asked>>,
    begun: AtomicBool,
    /// All is told, and nothing will be any more.
    ended: AtomicBool,
    waiting: Arc<AtomicUsize>,
    /// Another one stands there.
    replaced: Notify,
    counters: Counters,
}

#[derive(Clone)]
struct Counters {
    compared: Counter<u64>,
    differed: Counter<u64>,
    dropped: Counter<u64>,
}

/// What is known of a call when it was decided.
pub(crate) struct Answered<'a> {
    /// What decided.
    pub(crate) policy: &'a Engine,
    pub(crate) question: &'a Arc<Question>,
    pub(crate) written: &'a Written,
    pub(crate) decision: &'a Decision,
    /// Whether a person is asked whatever policy says.
    pub(crate) by_stage: bool,
}

impl Beside {
    pub(crate) fn new() -> Self {
        let meter = global::meter("countersign");
        let counter = |name: &'static str, description: &'static str| {
            meter.u64_counter(name).with_description(description).build()
        };
        Self {
            any: AtomicBool::new(false),
            current: ArcSwapOption::empty(),
            past: Mutex::default(),
            queue: ArcSwapOption::empty(),
            begun: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            waiting: Arc::default(),
            replaced: Notify::new(),
            counters: Counters {
                compared: counter("countersign_policy_compared", "Calls that a policy candidate was asked about"),
                differed: counter("countersign_policy_diff", "Calls that it would have answered otherwise"),
                dropped: counter("countersign_policy_compare_dropped", "Calls that it was not asked about"),
            },
        }
    }

    /// Hands a call on to be compared, where a candidate stands there and has room. Never waits.
    pub(crate) fn offer(&self, answered: &Answered<'_>) {
        if self.any.load(Ordering::Relaxed) {
            self.put(answered);
        }
    }

    fn put(&self, answered: &Answered<'_>) {
        let Some(candidate) = self.current.load_full().filter(|candidate| candidate.takes_the_next()) else { return };
        // Neither was asked by that policy: what is stale refuses without it, and what cannot be read is no question.
        let Ok(input) = answered.written.input() else { return };
        if answered.decision.code == Some(Code::PolicyStale) {
            return;
        }
        if candidate.parts.active != answered.policy.revision() {
            return self.counters.drop_one(&candidate, "replaced");
        }
        let room = Room { waiting: Arc::clone(&self.waiting), bytes: input.len() };
        if self.waiting.fetch_add(room.bytes, Ordering::Relaxed) > MAX_WAITING {
            return self.counters.drop_one(&candidate, "full");
        }
        let asked = Asked {
            candidate: Arc::clone(&candidate),
            question: Arc::clone(answered.question),
            then: answered.decision.clone(),
            by_stage: answered.by_stage,
            _room: room,
        };
        let put = self.queue.load().as_ref().is_some_and(|queue| queue.try_send(asked).is_ok());
        if !put {
            self.counters.drop_one(&candidate, "full");
        }
    }

    /// Another one stands there, or none.
    fn set(&self, candidate: Option<Arc<Candidate>>) {
        let any = candidate.is_some();
        let before = self.current.swap(candidate);
        self.any.store(any, Ordering::Relaxed);
        if let Some(before) = before {
            before.over.store(true, Ordering::Relaxed);
            self.past().push(before);
            self.replaced.notify_one();
        }
    }

    fn past(&self) -> MutexGuard<'_, Vec<Arc<Candidate>>> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counters {
    fn drop_one(&self, candidate: &Candidate, why: &'static str) {
        candidate.dropped.fetch_add(1, Ordering::Relaxed);
        self.dropped.add(1, &[KeyValue::new("why", why)]);
    }
}

impl Candidate {
    fn new(parts: CandidateParts, now: Timestamp) -> Self {
        Self {
            parts,
            over: AtomicBool::new(false),
            seen: AtomicU64::new(0),
            compared: AtomicU64::new(0),
            differed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            untold: Mutex::new(Untold { from: now, actions: BTreeMap::new(), dropped: 0, unrecorded: 0 }),
        }
    }

    /// Whether the next call is among those it is asked about, spread evenly.
    fn takes_the_next(&self) -> bool {
        let percent = u64::from(self.parts.percent.min(100));
        let seen = self.seen.fetch_add(1, Ordering::Relaxed) % 100;
        (seen + 1) * percent / 100 > seen * percent / 100
    }

    fn count(&self, action: &Id<Action>, differs: bool) {
        self.compared.fetch_add(1, Ordering::Relaxed);
        self.differed.fetch_add(u64::from(differs), Ordering::Relaxed);
        let mut untold = self.untold();
        // Names are the catalogue's, which the engine was loaded with.
        let counted = match untold.actions.get_mut(action) {
            Some(counted) => counted,
            None => untold.actions.entry(action.clone()).or_default(),
        };
        counted.compared += 1;
        counted.differed += u64::from(differs);
    }

    fn revision(&self) -> &str {
        self.parts.engine.revision()
    }

    fn untold(&self) -> MutexGuard<'_, Untold> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> CandidateState {
        CandidateState {
            revision: self.revision().to_owned(),
            active: self.parts.active.clone(),
            compared: self.compared.load(Ordering::Relaxed),
            differed: self.differed.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }
}

impl Sidecar {
    /// Asks `candidate` about the calls from now on, instead of the one that stood there; or none any more.
    pub fn compare_with(self: &Arc<Self>, candidate: Option<CandidateParts>) {
        if candidate.is_some() && !self.beside.begun.swap(true, Ordering::AcqRel) {
            self.begin_comparing();
        }
        let now = net::clock::now();
        self.beside.set(candidate.map(|parts| Arc::new(Candidate::new(parts, now))));
    }

    /// What is to be told of the candidate that is asked now.
    pub fn candidate_state(&self) -> Option<CandidateState> {
        self.beside.current.load().as_ref().map(|candidate| candidate.state())
    }

    /// The thread that asks, and the task that puts on record what it finds.
    fn begin_comparing(self: &Arc<Self>) {
        let (queue, asked) = mpsc::channel(QUEUE);
        let (sender, found) = mpsc::channel(FOUND);
        self.beside.queue.store(Some(Arc::new(queue)));
        let worker = work::Worker { tasks: self.tasks.clone(), counters: self.beside.counters.clone(), found: sender };
        drop(self.tasks.spawn_blocking("policy candidate", move || worker.run(asked)));
        self.tasks.spawn("policy differences", told::tell(Arc::clone(self), found));
    }
}

impl fmt::Debug for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Beside").field("any", &self.any).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
