//! What many threads found, added up in the order of the ledger: the same comes out however many there are, also where
//! more was found than is kept.

use std::{
    collections::BTreeMap,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use policy::replay::Tally;

/// How far anybody may be ahead of the slowest, in batches: what waits to be added up is held.
const AHEAD: u64 = 64;

/// The sum so far, and what waits for its turn.
pub(super) struct InOrder {
    sums: Mutex<Sums>,
    moved: Condvar,
}

struct Sums {
    tally: Tally,
    /// The number of the batch that is added next.
    next: u64,
    waiting: BTreeMap<u64, Tally>,
    stopped: bool,
}

impl InOrder {
    /// Nothing yet: the first batch is number 0.
    pub(super) fn of(tally: Tally) -> Self {
        let sums = Sums { tally, next: 0, waiting: BTreeMap::new(), stopped: false };
        Self { sums: Mutex::new(sums), moved: Condvar::new() }
    }

    /// Takes what was found in the batch `number`; waits where those before it are far behind. Whoever has the one that is
    /// next never waits.
    pub(super) fn add(&self, number: u64, found: Tally) {
        let mut sums = self.sums();
        while !sums.stopped && number > sums.next + AHEAD {
            sums = self.moved.wait(sums).unwrap_or_else(PoisonError::into_inner);
        }
        sums.waiting.insert(number, found);
        let before = sums.next;
        loop {
            let next = sums.next;
            let Some(found) = sums.waiting.remove(&next) else { break };
            sums.tally.merge(found);
            sums.next += 1;
        }
        if sums.next > before {
            self.moved.notify_all();
        }
    }

    /// Nobody waits any more: a batch will never come.
    pub(super) fn stop(&self) {
        self.sums().stopped = true;
        self.moved.notify_all();
    }

    /// Whether that is so.
    pub(super) fn is_stopped(&self) -> bool {
        self.sums().stopped
    }

    /// The sum.
    pub(super) fn into_sum(self) -> Tally {
        self.sums.into_inner().unwrap_or_else(PoisonError::into_inner).tally
    }

    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use policy::replay::{Answer, Bounds, Change, Found, Group, Names};

    use super::*;

    /// One call that would change, for a person of their own.
    fn found(number: u64) -> Tally {
        let answer = |decision| Answer { decision, code: None, rules: [].into(), obligations: Vec::new() };
        let group = Group {
            change: Change::NewDenial,
            tool: model::Id::new("orders").unwrap(),
            action: model::Id::new(&format!("action.{}", number % 5)).unwrap(),
            then: answer("permit"),
            now: answer("deny"),
        };
        let people = Names { counts: BTreeMap::from([(format!("user:{number}"), 1)]), others: 0 };
        let mut tally = Tally::new(Bounds::default());
        tally.add(group, Found { calls: 1, people, ..Found::default() });
        tally
    }

    #[test]
    fn who_is_done_first_changes_nothing_of_what_is_kept() {
        let bounds = Bounds { groups: 3, names: 2, examples: 1 };
        let sum = |order: &[u64]| {
            let sum = InOrder::of(Tally::new(bounds));
            order.iter().for_each(|number| sum.add(*number, found(*number)));
            let tally = sum.into_sum();
            let groups: Vec<_> =
                tally.groups().into_iter().map(|(group, found)| (group.clone(), found.clone())).collect();
            (groups, tally.ungrouped)
        };
        let forwards: Vec<u64> = (0..40).collect();
        let others: Vec<u64> = (0..40).rev().collect();
        let mixed: Vec<u64> = (0..40).map(|number| (number * 7) % 40).collect();
        let expected = sum(&forwards);
        assert_eq!((expected.0.len(), expected.1.values().sum::<u64>()), (3, 16));
        assert_eq!(sum(&others), expected);
        assert_eq!(sum(&mixed), expected);
    }

    #[test]
    fn nobody_is_far_ahead_and_nobody_waits_for_what_never_comes() {
        let sum = InOrder::of(Tally::new(Bounds::default()));
        std::thread::scope(|scope| {
            let ahead = scope.spawn(|| sum.add(AHEAD + 1, found(1)));
            sum.add(0, found(0));
            ahead.join().unwrap();
            let stuck = scope.spawn(|| sum.add(2 * AHEAD, found(1)));
            sum.stop();
            stuck.join().unwrap();
        });
        assert!(sum.is_stopped());
    }
}
