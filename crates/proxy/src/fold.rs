//! Whoever is known and refused is on record; whoever loops on the same refusal is on record for the first of them, and
//! then in summaries: how many, from when to when, and which record shows one of them. A token must not be enough to
//! fill a disk. What was permitted, and what a tool may have seen, is never folded.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use audit::{Event, record::RefusalsFolded};
use jiff::Timestamp;
use model::{Action, Code, Id, Principal, Tool, id::DecisionMark};

use crate::{record::SUMMARY_INTERVAL, sidecar::Sidecar, trail::Trail};

/// For how long refusals of a kind are counted together.
const WINDOW: Duration = Duration::from_secs(60);
/// How many more records all kinds of one agent have together than one kind.
const KINDS: u32 = 10;
/// Kinds that are told apart at once. More are only counted, by code.
const MAX_KINDS: usize = 4096;

/// The refusals of those who are known.
#[derive(Debug)]
pub(crate) struct Folding {
    each: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    kinds: HashMap<Kind, Window>,
    agents: HashMap<Who, Budget>,
}

/// Refusals that are alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    user: Who,
    agent: Who,
    tool: Option<Id<Tool>>,
    action: Option<Id<Action>>,
    code: Code,
}

/// A principal as what it is told apart by, or nobody.
type Who = Option<(String, Id<Principal>)>;

/// What may still be recorded in a window.
#[derive(Debug, Clone, Copy)]
struct Budget {
    began: Instant,
    recorded: u32,
}

#[derive(Debug)]
struct Window {
    budget: Budget,
    user: Option<Principal>,
    agent: Option<Principal>,
    /// A refusal of this kind that has a record.
    like: Option<Id<DecisionMark>>,
    folded: Option<Folded>,
}

/// What was folded and is in no summary yet.
#[derive(Debug, Clone)]
struct Folded {
    count: u64,
    from: Timestamp,
    to: Timestamp,
    first: Id<DecisionMark>,
}

/// What becomes of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It gets a record of its own.
    Recorded,
    /// It is in the next summary.
    Folded,
    /// It is counted by code: nobody is known whose it is, or too many kinds are told apart already.
    Counted,
}

impl Folding {
    /// `each` refusals of a kind have a record of their own in each window.
    pub(crate) fn new(each: u32) -> Self {
        Self { each, state: Mutex::default() }
    }

    /// What becomes of the refusal of `trail` with `code` at `now`. Nobody's refusals are for others to count.
    pub(crate) fn fate(&self, trail: &Trail, code: Code, now: Instant) -> Fate {
        let (user, agent) = principals(trail);
        if user.is_none() && agent.is_none() {
            return Fate::Counted;
        }
        let known = trail.known();
        let kind = Kind {
            user: user.map(who),
            agent: agent.map(who),
            tool: known.map(|known| known.tool.clone()),
            action: known.map(|known| known.action.clone()),
            code,
        };
        let mut state = self.state();
        let State { kinds, agents } = &mut *state;
        if kinds.len() >= MAX_KINDS && !kinds.contains_key(&kind) {
            return Fate::Counted;
        }
        let fresh = Budget { began: now, recorded: 0 };
        let all = agents.entry(kind.agent.clone()).or_insert(fresh);
        let window = kinds.entry(kind).or_insert_with(|| Window {
            budget: fresh,
            user: user.cloned(),
            agent: agent.cloned(),
            like: None,
            folded: None,
        });
        // In this order: a loop of one kind takes nothing of what the others of its agent have.
        if window.budget.spend(self.each, now) && all.spend(self.each.saturating_mul(KINDS), now) {
            window.like = Some(trail.arrival.id.clone());
            return Fate::Recorded;
        }
        let (time, id) = (trail.arrival.time, &trail.arrival.id);
        let folded = window.folded.get_or_insert_with(|| Folded { count: 0, from: time, to: time, first: id.clone() });
        folded.count += 1;
        folded.to = time;
        Fate::Folded
    }

    /// What was folded since the last time, and forgets the kinds whose window is over.
    fn take(&self, now: Instant) -> Vec<RefusalsFolded> {
        let mut state = self.state();
        let taken = state
            .kinds
            .iter_mut()
            .filter_map(|(kind, window)| {
                let Folded { count, from, to, first } = window.folded.take()?;
                Some(RefusalsFolded {
                    from,
                    to,
                    count,
                    code: kind.code,
                    user: window.user.clone(),
                    agent: window.agent.clone(),
                    tool: kind.tool.clone(),
                    action: kind.action.clone(),
                    like: window.like.clone(),
                    first,
                })
            })
            .collect();
        state.kinds.retain(|_, window| !window.budget.is_over(now));
        state.agents.retain(|_, budget| !budget.is_over(now));
        taken
    }

    /// Takes back what could not be recorded.
    fn put_back(&self, folded: &RefusalsFolded, now: Instant) {
        let kind = Kind {
            user: folded.user.as_ref().map(who),
            agent: folded.agent.as_ref().map(who),
            tool: folded.tool.clone(),
            action: folded.action.clone(),
            code: folded.code,
        };
        let mut state = self.state();
        let window = state.kinds.entry(kind).or_insert_with(|| Window {
            budget: Budget { began: now, recorded: 0 },
            user: folded.user.clone(),
            agent: folded.agent.clone(),
            like: folded.like.clone(),
            folded: None,
        });
        let later = window.folded.take();
        window.folded = Some(Folded {
            count: folded.count + later.as_ref().map_or(0, |later| later.count),
            from: folded.from,
            to: later.map_or(folded.to, |later| later.to),
            first: folded.first.clone(),
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Budget {
    fn spend(&mut self, most: u32, now: Instant) -> bool {
        if self.is_over(now) {
            *self = Self { began: now, recorded: 0 };
        }
        let allowed = self.recorded < most;
        self.recorded += u32::from(allowed);
        allowed
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= WINDOW
    }
}

/// The user and the agent, as far as a signature vouches for them.
fn principals(trail: &Trail) -> (Option<&Principal>, Option<&Principal>) {
    match (&trail.delegation, &trail.seen) {
        (Some(delegation), _) => (Some(&delegation.chain.user().principal), Some(&delegation.chain.agent().principal)),
        (None, Some(seen)) => (seen.user.as_ref(), seen.agent.as_ref()),
        (None, None) => (None, None),
    }
}

fn who(principal: &Principal) -> (String, Id<Principal>) {
    (principal.issuer.clone(), principal.id.clone())
}

/// Writes summaries of what was folded each [`SUMMARY_INTERVAL`], and the last ones when shutdown begins; the few calls
/// that end after that are recorded one by one.
pub(crate) async fn summaries(sidecar: Arc<Sidecar>) {
    let stopping = sidecar.tasks.shutdown_token();
    loop {
        tokio::select! {
            () = tokio::time::sleep(SUMMARY_INTERVAL) => {}
            () = stopping.cancelled() => {}
        }
        summary(&sidecar, net::clock::monotonic()).await;
        if stopping.is_cancelled() {
            return;
        }
    }
}

pub(crate) async fn summary(sidecar: &Sidecar, now: Instant) {
    for folded in sidecar.folding.take(now) {
        if let Err(error) = sidecar.ledger.event(Event::RefusalsFolded(Box::new(folded.clone()))).await {
            sidecar.folding.put_back(&folded, now);
            if let Some(lines) = sidecar.quiet.due("folded refusals unrecorded") {
                tracing::warn!(%error, lines, "a summary of refusals could not be recorded");
            }
        }
    }
}

#[cfg(test)]
mod tests;
