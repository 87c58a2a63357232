//! The withdrawals that are held, found by what they take back. Bounded: what is too much is held as one rule that
//! refuses more, never less.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher as _,
};

use jiff::Timestamp;
use model::{
    Code, Id, Refusal, Withdrawal,
    withdrawal::{Cause, Passage},
};

/// The most withdrawals that are held one by one. With more, the older half is held as "everything before".
const MAX_HELD: usize = 65_536;

/// Seconds between two looks for what may be forgotten.
const FORGET_INTERVAL: i64 = 60;

/// What is held.
#[derive(Debug, Default)]
pub(super) struct Held {
    generation: Option<String>,
    position: u64,
    /// By a keyed hash of the target, so that what a chain passes through need not be copied to be looked up.
    targets: HashMap<u64, Vec<Kept>>,
    count: usize,
    /// How many of these are of earlier generations. At most as many as may be held beside them.
    lost: usize,
    hasher: RandomState,
    floor: Option<Floor>,
    /// Seconds since 1970 of the last look for what may be forgotten.
    forgot_at: i64,
}

/// One withdrawal, without the words of it.
#[derive(Debug, Clone)]
struct Kept {
    withdrawal: Withdrawal,
    /// Of an earlier generation, and not known to this one (yet): it holds whatever position a token has.
    lost: bool,
}

/// Everything issued before a position is refused.
#[derive(Debug, Clone, Copy)]
struct Floor {
    position: u64,
    until: Timestamp,
}

/// What takes a delegation back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// What the call is refused with.
    pub(crate) code: Code,
    /// The withdrawal, where it is a single one.
    pub(crate) withdrawal: Option<Withdrawal>,
    why: &'static str,
}

impl Held {
    pub(super) fn generation(&self) -> Option<&str> {
        self.generation.as_deref()
    }

    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    pub(super) const fn len(&self) -> usize {
        self.count
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0 && self.floor.is_none()
    }

    /// Takes what was told. Whether anything is withdrawn now that was not before.
    pub(super) fn take(
        &mut self,
        generation: &str,
        position: u64,
        withdrawals: Vec<Withdrawal>,
        now: Timestamp,
    ) -> Result<bool, String> {
        let another = self.generation.as_deref() != Some(generation);
        if another {
            self.begin(generation, now)?;
        }
        self.position = position;
        let change = another || !withdrawals.is_empty();
        for withdrawal in withdrawals {
            self.keep(withdrawal);
        }
        if now.as_second() - self.forgot_at >= FORGET_INTERVAL || now.as_second() < self.forgot_at {
            self.forget(now);
        }
        if self.count - self.lost > MAX_HELD {
            self.forget(now);
            self.condense();
        }
        Ok(change)
    }

    /// What takes back something issued at `position` that passes through `passages`.
    pub(super) fn find<'a>(&self, passages: impl Iterator<Item = Passage<'a>>, position: Option<u64>) -> Option<Found> {
        if self.count > 0 {
            for passage in passages {
                let kept = self.targets.get(&self.hasher.hash_one(passage)).into_iter().flatten();
                let covering = kept
                    .filter(|kept| kept.lost || kept.withdrawal.is_later_than(position))
                    .find(|kept| kept.withdrawal.target.borrowed() == passage);
                if let Some(kept) = covering {
                    return Some(Found::of(&kept.withdrawal));
                }
            }
        }
        let below = self.floor.is_some_and(|floor| position.is_none_or(|position| position < floor.position));
        below.then(Found::condensed)
    }

    /// What bars those who show no token of ours from going as what `passages` name: whatever is held of it, but for what
    /// was only narrowed, which says nothing of who has no authority to narrow.
    pub(super) fn barring<'a>(&self, mut passages: impl Iterator<Item = Passage<'a>>) -> Option<Found> {
        passages.find_map(|passage| {
            let kept = self.targets.get(&self.hasher.hash_one(passage)).into_iter().flatten();
            let mut barring = kept.filter(|kept| kept.withdrawal.cause != Cause::Narrowed);
            let found = barring.find(|kept| kept.withdrawal.target.borrowed() == passage)?;
            Some(Found::of(&found.withdrawal))
        })
    }

    /// Another generation: what is known stays, and positions of it say nothing any more.
    fn begin(&mut self, generation: &str, now: Timestamp) -> Result<(), String> {
        self.forget(now);
        if self.count > MAX_HELD {
            return Err(format!("{} withdrawals of earlier generations are held, and no more can be", self.count));
        }
        for kept in self.targets.values_mut().flatten() {
            kept.lost = true;
        }
        self.lost = self.count;
        // Tokens of the generation before are refused by their age; what has no position stays below the floor. What
        // was condensed is no longer known by name: whether it is issued for again is the authority's alone.
        self.floor = self.floor.map(|floor| Floor { position: 0, ..floor });
        self.generation = Some(generation.to_owned());
        self.position = 0;
        Ok(())
    }

    fn keep(&mut self, withdrawal: Withdrawal) {
        let place = self.hasher.hash_one(withdrawal.target.borrowed());
        let kept = self.targets.entry(place).or_default();
        let (before, lost) = (kept.len(), kept.iter().filter(|known| known.lost).count());
        // One of this generation for each target is enough: the last covers what those before it did, but that what was
        // narrowed bars nobody. One that the restored database knows too was not lost.
        kept.retain(|known| {
            let covered =
                !known.lost && (withdrawal.cause != Cause::Narrowed || known.withdrawal.cause == Cause::Narrowed);
            let replaced = known.withdrawal.id == withdrawal.id || covered;
            !(replaced && known.withdrawal.target == withdrawal.target)
        });
        self.lost -= lost - kept.iter().filter(|known| known.lost).count();
        kept.push(Kept { withdrawal, lost: false });
        self.count = self.count + kept.len() - before;
    }

    /// Forgets what no token can be good for any more.
    fn forget(&mut self, now: Timestamp) {
        self.forgot_at = now.as_second();
        self.retain(|kept| kept.withdrawal.until > now);
        self.floor = self.floor.filter(|floor| floor.until > now);
    }

    fn retain(&mut self, keep: impl Fn(&Kept) -> bool) {
        self.targets.retain(|_, kept| {
            kept.retain(&keep);
            !kept.is_empty()
        });
        self.count = self.targets.values().map(Vec::len).sum();
        self.lost = self.targets.values().flatten().filter(|kept| kept.lost).count();
    }

    /// Holds the older half as "everything before": whoever has a token from before it needs a new one.
    fn condense(&mut self) {
        let mut positions: Vec<u64> =
            self.targets.values().flatten().filter(|kept| !kept.lost).map(|kept| kept.withdrawal.position).collect();
        let middle = positions.len() / 2;
        if positions.is_empty() {
            return;
        }
        let (_, &mut position, _) = positions.select_nth_unstable(middle);
        let condensed = |kept: &&Kept| !kept.lost && kept.withdrawal.position <= position;
        let until = self.targets.values().flatten().filter(condensed).map(|kept| kept.withdrawal.until).max();
        let until = until.into_iter().chain(self.floor.map(|floor| floor.until)).max();
        self.retain(|kept| !condensed(&kept));
        self.floor = until.map(|until| Floor { position, until });
        tracing::warn!(position, held = self.count, "many withdrawals; tokens from before this position are refused");
    }
}

impl Found {
    fn of(withdrawal: &Withdrawal) -> Self {
        let why = match withdrawal.cause {
            Cause::Withdrawn => "was withdrawn",
            Cause::Narrowed => "was narrowed since the token was issued",
            Cause::Ended => "came to its end",
        };
        Self { code: withdrawal.code(), withdrawal: Some(withdrawal.clone()), why }
    }

    const fn condensed() -> Self {
        Self {
            code: Code::Withdrawn,
            withdrawal: None,
            why: "is from before so many withdrawals that they count for all",
        }
    }

    /// The authority was restored since.
    pub(super) const fn restored() -> Self {
        Self { code: Code::Withdrawn, withdrawal: None, why: "is from before the authority was restored" }
    }

    /// The key that signed the token was withdrawn, or is published no more.
    pub(super) const fn key() -> Self {
        Self { code: Code::Withdrawn, withdrawal: None, why: "was signed with a key that is no longer good" }
    }

    /// What the agent is told, and the operator.
    pub(crate) fn refusal(&self) -> Refusal {
        self.refused(self.detail())
    }

    /// The same for who shows no token.
    pub(super) fn bar(&self) -> Refusal {
        let kind = self.withdrawal.as_ref().map_or("right", |withdrawal| withdrawal.target.kind());
        self.refused(format!("The {kind} whose calls these are said to be {}.", self.why))
    }

    fn detail(&self) -> String {
        match (&self.withdrawal, self.code) {
            (_, Code::TaskEnded) => "The task that the token was issued for came to its end.".to_owned(),
            (Some(withdrawal), _) => format!("The {} {}. Ask for a new token.", withdrawal.target.kind(), self.why),
            (None, _) => format!("The token {}. Ask for a new one.", self.why),
        }
    }

    fn refused(&self, detail: String) -> Refusal {
        let refusal = Refusal::new(self.code, detail);
        match &self.withdrawal {
            Some(Withdrawal { id, target, position, at, .. }) => {
                let id: &Id<Withdrawal> = id;
                refusal.internally(format!("withdrawal {id} of {target} at {at}, position {position}"))
            }
            None => refusal,
        }
    }
}
