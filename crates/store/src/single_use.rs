//! Names that may be used once: the `jti` of client assertions and of hand-over tokens. Off the change log.
//!
//! Bounded for each principal that uses them, so that a busy or hostile one can only lock out itself. What
//! cannot be remembered is refused, never let through.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Mutex, PoisonError},
};

use dashmap::DashMap;
use jiff::{SignedDuration, Timestamp};

use crate::{Store, error::StoreError};

/// The most names one principal may have in use at a time, at one replica.
pub const MAX_LIVE_IDS: usize = 16_384;

/// How long after its end a name is still remembered by the database, for clocks that differ or step back.
const MARGIN: SignedDuration = SignedDuration::from_hours(1);
/// How often names that ended are forgotten by the database.
const FORGET_EVERY: SignedDuration = SignedDuration::from_mins(5);

const DOING: &str = "using a name up";

/// Names that were used here, for each principal: what needs no question to the database to be refused.
#[derive(Debug, Default)]
pub(crate) struct SingleUse {
    here: DashMap<String, Live>,
    forgotten: Mutex<Option<Timestamp>>,
}

#[derive(Debug, Default)]
struct Live {
    names: HashSet<String>,
    by_end: BTreeSet<(Timestamp, String)>,
    /// Everything that ended before this has been forgotten. Kept, because the wall clock may step back.
    forgotten_to: Option<Timestamp>,
}

/// Why a name may not be used.
#[derive(Debug, thiserror::Error)]
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
    /// Whether it was used cannot be known now.
    #[error("whether it has been used before cannot be known: {0}")]
    Unavailable(#[source] StoreError),
}

impl Store {
    /// Uses the name `id` up for `space` (a principal and what for), at every replica, and remembers that until
    /// `until`, when what carries the name is no longer accepted anyway.
    ///
    /// # Errors
    /// When it was used before, when that cannot be known, or when there is no room to remember it.
    pub async fn use_once(&self, space: &str, id: &str, until: Timestamp, now: Timestamp) -> Result<(), NotUsable> {
        self.single_use.here.entry(space.to_owned()).or_default().take(id, until, now)?;
        self.forget_used(now).await;
        let first = self.insert_used(space, id, until).await.map_err(NotUsable::Unavailable)?;
        if first { Ok(()) } else { Err(NotUsable::Used) }
    }

    /// Whether nobody used it before, and the database would know.
    async fn insert_used(&self, space: &str, id: &str, until: Timestamp) -> Result<bool, StoreError> {
        let mut transaction = self.engine.begin(DOING).await?;
        let sql = "INSERT INTO used (space, id, until) SELECT $1, $2, $3 \
                   WHERE $3 >= (SELECT until FROM forgotten WHERE id = 1) ON CONFLICT (space, id) DO NOTHING";
        let values = vec![space.into(), id.into(), until.into()];
        let first = transaction.execute(DOING, sql, values).await? == 1;
        if first {
            transaction.commit(DOING).await?;
        }
        Ok(first)
    }

    /// Forgets what ended long ago, now and then. In two steps that are minutes apart: first nothing that ended
    /// before is taken any more, then it is forgotten; so no question that is under way meets a gap.
    async fn forget_used(&self, now: Timestamp) {
        {
            let mut forgotten = self.single_use.forgotten.lock().unwrap_or_else(PoisonError::into_inner);
            if forgotten.is_some_and(|last| now.duration_since(last) < FORGET_EVERY) {
                return;
            }
            *forgotten = Some(now);
        }
        if let Err(error) = self.forget_used_now(now).await {
            tracing::warn!(%error, "names that ended are not forgotten: they will be later");
        }
    }

    async fn forget_used_now(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.engine.begin(DOING).await?;
        let sql = "DELETE FROM used WHERE until < (SELECT until FROM forgotten WHERE id = 1)";
        transaction.execute(DOING, sql, Vec::new()).await?;
        let until = now.checked_sub(MARGIN).unwrap_or(Timestamp::MIN);
        let sql = "UPDATE forgotten SET until = $1 WHERE id = 1 AND until < $1";
        transaction.execute(DOING, sql, vec![until.into()]).await?;
        transaction.commit(DOING).await
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
        assert!(live.take("a", at(60), at(0)).is_ok());
        assert!(matches!(live.take("a", at(60), at(1)), Err(NotUsable::Used)));
        assert!(matches!(live.take("a", at(90), at(60)), Err(NotUsable::Used)));
        assert!(live.take("b", at(60), at(1)).is_ok());
    }

    #[test]
    fn a_clock_that_steps_back_does_not_make_a_used_name_good_again() {
        let mut live = Live::default();
        assert!(live.take("a", at(60), at(0)).is_ok());
        assert!(live.take("b", at(200), at(100)).is_ok());
        assert!(matches!(live.take("a", at(60), at(30)), Err(NotUsable::Ended)));
    }

    #[test]
    fn when_there_is_no_room_to_remember_nothing_is_let_through_until_something_ends() {
        let mut live = Live::default();
        for index in 0..MAX_LIVE_IDS {
            assert!(live.take(&index.to_string(), at(60), at(0)).is_ok());
        }
        assert!(matches!(live.take("one more", at(60), at(60)), Err(NotUsable::Full)));
        assert!(live.take("one more", at(120), at(61)).is_ok());
        assert_eq!((live.names.len(), live.by_end.len()), (1, 1));
    }
}
