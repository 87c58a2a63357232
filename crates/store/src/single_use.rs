//! Names that may be used once: the `jti` of client assertions and of hand-over tokens.
//!
//! Bounded for each principal that uses them, so that a busy or hostile one can only lock out itself. What
//! cannot be remembered is refused, never let through.

use std::collections::{BTreeSet, HashSet};

use dashmap::DashMap;
use jiff::Timestamp;

use crate::Store;

/// The most names one principal may have in use at a time.
pub const MAX_LIVE_IDS: usize = 16_384;

/// Names in use, for each principal.
#[derive(Debug, Default)]
pub(crate) struct SingleUse(DashMap<String, Live>);

#[derive(Debug, Default)]
struct Live {
    names: HashSet<String>,
    by_end: BTreeSet<(Timestamp, String)>,
    /// Everything that ended before this has been forgotten. Kept, because the wall clock may step back.
    forgotten_to: Option<Timestamp>,
}

/// Why a name may not be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum NotUsable {
    /// It was used before.
    #[error("it has been used before")]
    Used,
    /// It ended so long ago that nobody remembers whether it was used.
    #[error("it has ended")]
    Ended,
    /// Too many are in use; some end soon.
    #[error("too many are in use at once")]
    Full,
}

impl Store {
    /// Uses the name `id` up for `principal`, and remembers that until `until`, when what carries the name
    /// is no longer accepted anyway.
    ///
    /// # Errors
    /// When it was used before, when that cannot be known any more, or when there is no room to remember it.
    pub async fn use_once(&self, principal: &str, id: &str, until: Timestamp, now: Timestamp) -> Result<(), NotUsable> {
        self.single_use.0.entry(principal.to_owned()).or_default().take(id, until, now)
    }
}

impl Live {
    fn take(&mut self, id: &str, until: Timestamp, now: Timestamp) -> Result<(), NotUsable> {
        self.forget(now);
        if self.names.contains(id) {
            return Err(NotUsable::Used);
        }
        if self.forgotten_to.is_some_and(|forgotten| until < forgotten) {
            return Err(NotUsable::Ended);
        }
        if self.names.len() >= MAX_LIVE_IDS {
            return Err(NotUsable::Full);
        }
        self.names.insert(id.to_owned());
        self.by_end.insert((until, id.to_owned()));
        Ok(())
    }

    fn forget(&mut self, now: Timestamp) {
        while self.by_end.first().is_some_and(|(end, _)| *end < now) {
            if let Some((_, id)) = self.by_end.pop_first() {
                self.names.remove(&id);
            }
        }
        self.forgotten_to = self.forgotten_to.max(Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_name_is_good_once() {
        let mut live = Live::default();
        assert_eq!(live.take("a", at(60), at(0)), Ok(()));
        assert_eq!(live.take("a", at(60), at(1)), Err(NotUsable::Used));
        assert_eq!(live.take("a", at(90), at(60)), Err(NotUsable::Used));
        assert_eq!(live.take("b", at(60), at(1)), Ok(()));
    }

    #[test]
    fn a_clock_that_steps_back_does_not_make_a_used_name_good_again() {
        let mut live = Live::default();
        assert_eq!(live.take("a", at(60), at(0)), Ok(()));
        assert_eq!(live.take("b", at(200), at(100)), Ok(()));
        assert_eq!(live.take("a", at(60), at(30)), Err(NotUsable::Ended));
    }

    #[test]
    fn when_there_is_no_room_to_remember_nothing_is_let_through_until_something_ends() {
        let mut live = Live::default();
        for index in 0..MAX_LIVE_IDS {
            assert_eq!(live.take(&index.to_string(), at(60), at(0)), Ok(()));
        }
        assert_eq!(live.take("one more", at(60), at(60)), Err(NotUsable::Full));
        assert_eq!(live.take("one more", at(120), at(61)), Ok(()));
        assert_eq!((live.names.len(), live.by_end.len()), (1, 1));
    }
}
