//! Differences that are alike: the first of them in a minute have records of their own, the others one together. A
//! candidate that answers everything otherwise must not be enough to fill a disk.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use audit::record::{Differed, PolicyDiffered};
use jiff::Timestamp;
use model::{Decision, Id, id::DecisionMark};
use policy::replay::Group;

use super::work::Found;

/// For how long they are counted together.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// How many of a kind have records of their own in it, and how many of all kinds.
pub(super) const EACH: u32 = 20;
pub(super) const ALL: u32 = 300;
/// Kinds that are told apart at once: the codes of rules may be computed from what a call says. More are only counted.
const MAX_KINDS: usize = 1_000;

/// The differences of a window.
#[derive(Debug, Default)]
pub(super) struct Folds {
    kinds: BTreeMap<Kind, Alike>,
    recorded: u32,
    began: Option<Instant>,
}

/// Differences that are alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    candidate: String,
    active: String,
    group: Group,
}

#[derive(Debug)]
struct Alike {
    recorded: u32,
    /// Both answers, as the first of them had it.
    then: Decision,
    now: Decision,
    more: Option<More>,
}

/// Those without a record of their own.
#[derive(Debug, Clone)]
struct More {
    count: u64,
    from: Timestamp,
    to: Timestamp,
    first: Id<DecisionMark>,
}

/// What becomes of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It has a record of its own.
    Recorded,
    /// It is in the record of those that are alike.
    Folded,
    /// It is only counted.
    Counted,
}

impl Folds {
    /// Whether the window is over at `now`: then [`Folds::take`] is due.
    pub(super) fn are_due(&self, now: Instant) -> bool {
        self.began.is_some_and(|began| now.saturating_duration_since(began) >= WINDOW)
    }

    /// What becomes of `found` at `now`.
    pub(super) fn fate(&mut self, found: &Found, now: Instant) -> Fate {
        self.began.get_or_insert(now);
        let kind = Kind {
            candidate: found.candidate.revision().to_owned(),
            active: found.candidate.parts.active.clone(),
            group: found.difference.group.clone(),
        };
        if self.kinds.len() >= MAX_KINDS && !self.kinds.contains_key(&kind) {
            return Fate::Counted;
        }
        let alike = self.kinds.entry(kind).or_insert_with(|| Alike {
            recorded: 0,
            then: without_words(&found.difference.then),
            now: without_words(&found.difference.now),
            more: None,
        });
        if alike.recorded < EACH && self.recorded < ALL {
            alike.recorded += 1;
            self.recorded += 1;
            return Fate::Recorded;
        }
        let time = found.question.now;
        let first = || More { count: 0, from: time, to: time, first: found.question.id.clone() };
        let more = alike.more.get_or_insert_with(first);
        more.count += 1;
        more.to = time;
        Fate::Folded
    }

    /// The records of those that are alike, and begins anew.
    pub(super) fn take(&mut self) -> Vec<PolicyDiffered> {
        let Self { kinds, .. } = std::mem::take(self);
        let record = |(kind, alike): (Kind, Alike)| {
            let More { count, from, to, first } = alike.more?;
            let Kind { candidate, active, group } = kind;
            Some(PolicyDiffered {
                change: group.change.as_str(),
                tool: group.tool,
                action: group.action,
                active: (active, alike.then),
                candidate: (candidate, alike.now),
                of: Differed::More { count, from, to, first },
            })
        };
        kinds.into_iter().filter_map(record).collect()
    }
}

/// Words are of one call.
fn without_words(decision: &Decision) -> Decision {
    let mut decision = decision.clone();
    for reason in &mut decision.reasons {
        (reason.message, reason.internal) = (None, None);
    }
    decision
}
