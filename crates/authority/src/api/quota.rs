//! How much one principal may ask, and how much may go on at once: whoever floods the API locks out itself.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};

/// Principals that are remembered; beyond that, those that have asked nothing for a while are forgotten.
const MAX_KNOWN: usize = 10_000;
/// How many seconds' worth may be asked at once.
const BURST: i64 = 4;
/// A thousandth of a request: what is counted in.
const ONE: i64 = 1_000;

/// A quota for each principal that asks.
#[derive(Debug)]
pub(crate) struct Quotas<K> {
    per_second: i64,
    known: Mutex<HashMap<K, Quota>>,
}

#[derive(Debug, Clone, Copy)]
struct Quota {
    /// What is left, in thousandths.
    left: i64,
    at: Timestamp,
}

impl<K: Eq + Hash> Quotas<K> {
    /// So many requests a second over a while, and a burst of four seconds' worth.
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second: i64::from(per_second), known: Mutex::default() }
    }

    /// Takes one request of `who`'s quota; or the seconds until there is one.
    pub(crate) fn take(&self, who: K, now: Timestamp) -> Result<(), u64> {
        let full = self.per_second * BURST * ONE;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN && !known.contains_key(&who) {
            known.retain(|_, quota| self.filled(*quota, now) < full);
            if known.len() >= MAX_KNOWN {
                return Err(1);
            }
        }
        let quota = known.entry(who).or_insert(Quota { left: full, at: now });
        let left = self.filled(*quota, now);
        // A clock that steps back gives nothing, and takes nothing away.
        let at = now.max(quota.at);
        if left < ONE {
            *quota = Quota { left, at };
            let missing = ONE - left;
            return Err(u64::try_from(missing / (self.per_second * ONE) + 1).unwrap_or(1));
        }
        *quota = Quota { left: left - ONE, at };
        Ok(())
    }

    fn filled(&self, quota: Quota, now: Timestamp) -> i64 {
        let full = self.per_second * BURST * ONE;
        let since = now.duration_since(quota.at).clamp(SignedDuration::ZERO, SignedDuration::from_secs(BURST));
        let milliseconds = i64::try_from(since.as_millis()).unwrap_or_default();
        full.min(quota.left + milliseconds * self.per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(milliseconds).unwrap()
    }

    #[test]
    fn a_burst_is_taken_and_then_only_as_much_as_comes_in() {
        let quotas = Quotas::new(2);
        for _ in 0..8 {
            assert_eq!(quotas.take("a", at(0)), Ok(()));
        }
        assert!(quotas.take("a", at(0)).is_err());
        assert_eq!(quotas.take("b", at(0)), Ok(()), "another's quota is another's");
        assert_eq!(quotas.take("a", at(500)), Ok(()));
        assert!(quotas.take("a", at(500)).is_err());
        assert!(quotas.take("a", at(0)).is_err(), "a clock that steps back gives nothing");
        assert_eq!(quotas.take("a", at(1_000)), Ok(()));
    }

    #[test]
    fn whoever_asks_nothing_is_forgotten_and_no_more_are_remembered_than_there_is_room_for() {
        let quotas = Quotas::new(1);
        for who in 0..MAX_KNOWN {
            assert_eq!(quotas.take(who, at(0)), Ok(()));
        }
        assert!(quotas.take(MAX_KNOWN, at(0)).is_err());
        assert_eq!(quotas.take(MAX_KNOWN, at(5_000)), Ok(()));
        assert_eq!(quotas.known.lock().unwrap().len(), 1);
    }
}
