//! Names that may be used once: the `jti` of client assertions and of hand-over tokens. Off the change log.
//!
//! Bounded for each principal that uses them, so that a busy or hostile one can only lock out itself. What
//! cannot be remembered is refused, never let through.

use std::collections::{BTreeSet, HashSet};

use dashmap::DashMap;
use jiff::Timestamp;
use net::Tasks;
use tokio::sync::{mpsc, oneshot};

use crate::{
    Store, digest,
    engine::{Engine, Transaction},
    error::StoreError,
};

/// The most names one principal may have in use at a time, at one replica.
pub const MAX_LIVE_IDS: usize = 16_384;

/// The most names that become durable together.
const BATCH: usize = 256;

const DOING: &str = "using a name up";

/// A name that somebody wants to use up, and who waits to hear whether it was good.
#[derive(Debug)]
pub(crate) struct Use {
    space: String,
    id: String,
    until: Timestamp,
    answer: oneshot::Sender<Result<bool, StoreError>>,
}

/// Names that were used here, for each principal: what needs no question to the database to be refused.
#[derive(Debug, Default)]
pub(crate) struct SingleUse {
    here: DashMap<String, Live>,
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
        // Whatever it says of itself, it takes as much room as any other.
        let id = digest::hex(id.as_bytes());
        self.single_use.here.entry(space.to_owned()).or_default().take(&id, until, now)?;
        let first = self.first_use(space, id, until).await.map_err(NotUsable::Unavailable)?;
        if first { Ok(()) } else { Err(NotUsable::Used) }
    }

    /// Whether nobody used it before, and the database will know.
    async fn first_use(&self, space: &str, id: String, until: Timestamp) -> Result<bool, StoreError> {
        let ended = || StoreError::Unavailable { doing: DOING, cause: "it is being closed".to_owned() };
        let (answer, answered) = oneshot::channel();
        let used = Use { space: space.to_owned(), id, until, answer };
        self.uses.send(used).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

/// Makes names that are waiting durable together: one commit for all that came while the last one was under way.
pub(crate) fn keep(engine: Engine, mut queue: mpsc::Receiver<Use>, tasks: &Tasks) {
    let stop = tasks.shutdown_token();
    tasks.spawn("names used up", async move {
        loop {
            let first = tokio::select! {
                biased;
                first = queue.recv() => first,
                () = stop.cancelled() => {
                    queue.close();
                    queue.recv().await
                }
            };
            let Some(first) = first else { return };
            let mut batch = vec![first];
            while batch.len() < BATCH {
                let Ok(next) = queue.try_recv() else { break };
                batch.push(next);
            }
            use_up(&engine, batch).await;
        }
    });
}

/// Uses up each name of `batch`, and answers. Where one spoils it for all together, each stands for itself.
async fn use_up(engine: &Engine, mut batch: Vec<Use>) {
    // In one order at every replica: two that want the same names wait for each other, and not in a circle.
    batch.sort_by(|one, other| (&one.space, &one.id).cmp(&(&other.space, &other.id)));
    match insert(engine, &batch).await {
        Ok(first) => {
            for (used, first) in batch.into_iter().zip(first) {
                // Whoever asked may have gone.
                used.answer.send(Ok(first)).ok();
            }
        }
        // Each by itself would only wait as long again.
        Err(error @ StoreError::Unavailable { .. }) => refuse(batch, &error),
        Err(error) if batch.len() == 1 => refuse(batch, &error),
        Err(_) => {
            for used in batch {
                Box::pin(use_up(engine, vec![used])).await;
            }
        }
    }
}

fn refuse(batch: Vec<Use>, error: &StoreError) {
    for used in batch {
        let cause = match error {
            StoreError::Unavailable { cause, .. } => cause.clone(),
            other => other.to_string(),
        };
        used.answer.send(Err(StoreError::Unavailable { doing: DOING, cause })).ok();
    }
}

/// Which of `batch` nobody used before; durable, when this returns. One statement, and so one transaction.
async fn insert(engine: &Engine, batch: &[Use]) -> Result<Vec<bool>, StoreError> {
    // Few different statements, which are prepared once: the last name fills up what is left of one, to no effect.
    let size = batch.len().next_power_of_two();
    let all = batch.iter().chain(std::iter::repeat_n(batch.last(), size - batch.len()).flatten());
    let values = all.flat_map(|used| [used.space.as_str().into(), used.id.as_str().into(), used.until.into()]);
    let rows = engine.written(DOING, insert_of(size), values.collect()).await?;
    let mut new =
        rows.iter().map(|row| Ok((row.text(0)?, row.text(1)?))).collect::<Result<HashSet<_>, StoreError>>()?;
    // Taken out: of the same name twice, one is the first.
    Ok(batch.iter().map(|used| new.remove(&(used.space.clone(), used.id.clone()))).collect())
}

/// The statement that uses up `size` names, and gives those that nobody used before.
fn insert_of(size: usize) -> String {
    let row = |number: usize| format!("(${}, ${}, ${})", 3 * number + 1, 3 * number + 2, 3 * number + 3);
    let asked = (0..size).map(row).collect::<Vec<_>>().join(", ");
    format!(
        "INSERT INTO used (space, id, until) SELECT column1, column2, column3 FROM (VALUES {asked}) AS asked \
         WHERE column3 >= (SELECT until FROM forgotten WHERE id = 1) ON CONFLICT (space, id) DO NOTHING \
         RETURNING space, id"
    )
}

/// Whether nobody used the name before, as part of `transaction`.
pub(crate) async fn insert_one(
    transaction: &mut Transaction,
    space: &str,
    id: &str,
    until: Timestamp,
) -> Result<bool, StoreError> {
    let sql = "INSERT INTO used (space, id, until) SELECT $1, $2, $3 \
               WHERE $3 >= (SELECT until FROM forgotten WHERE id = 1) ON CONFLICT (space, id) DO NOTHING";
    let values = vec![space.into(), id.into(), until.into()];
    Ok(transaction.execute(DOING, sql, values).await? == 1)
}

/// No name is taken that ended before this: whether it was used is not known any more.
pub(crate) async fn forgotten(engine: &Engine) -> Result<Timestamp, StoreError> {
    let rows = engine.rows(DOING, "SELECT until FROM forgotten WHERE id = 1", Vec::new()).await?;
    rows.first().map_or(Ok(Timestamp::MIN), |row| row.moment(0))
}

/// A queue for names.
pub(crate) fn queue() -> (mpsc::Sender<Use>, mpsc::Receiver<Use>) {
    mpsc::channel(4 * BATCH)
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
