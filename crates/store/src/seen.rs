//! How far the database was seen to be: one that goes back has lost what it acknowledged, as a standby has that lagged
//! when it took over. Whoever notices says so in the database itself, so that no replica goes on until a person decides.

use std::sync::{Mutex, PoisonError};

use crate::{Store, changes::Head, engine::Value, error::StoreError};

const DOING: &str = "saying that the database lost something";

/// The last position that was committed as far as this replica knows, and of which generation.
#[derive(Debug, Default)]
pub(crate) struct Seen(Mutex<Known>);

/// What was known before a question was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Known {
    generation: String,
    position: u64,
}

impl Seen {
    pub(crate) fn known(&self) -> Known {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn note(&self, generation: &str, position: u64) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.generation != generation {
            *known = Known { generation: generation.to_owned(), position };
        }
        known.position = known.position.max(position);
    }
}

impl Known {
    /// The position that was known, where a database of `generation` has not come as far.
    pub(crate) fn beyond(&self, generation: &str, position: u64) -> Option<u64> {
        (self.generation == generation && position < self.position).then_some(self.position)
    }
}

impl Store {
    /// Says that `generation` was at `position` once, as somebody remembers who was told.
    ///
    /// # Errors
    /// When it is not any more, or the database does not answer.
    pub async fn was_at(&self, generation: &str, position: u64) -> Result<(), StoreError> {
        self.seen.note(generation, position);
        self.head().await.map(drop)
    }

    /// Whether the database, which says that it is at `head`, still has what it had by `known`; `lost` is what it says
    /// of that itself.
    pub(crate) async fn has_all(&self, known: &Known, head: &Head, lost: u64) -> Result<(), StoreError> {
        let Head { position, generation, .. } = head;
        if lost > 0 {
            return Err(StoreError::WentBack { head: *position, position: lost });
        }
        match known.beyond(generation, *position) {
            None => Ok(()),
            Some(beyond) => Err(self.went_back(generation, *position, beyond).await),
        }
    }

    /// Notes that the database is at `head` and was `beyond` that, for every replica.
    pub(crate) async fn went_back(&self, generation: &str, head: u64, beyond: u64) -> StoreError {
        let error = StoreError::WentBack { head, position: beyond };
        let noting = async {
            let mut transaction = self.engine.begin(DOING).await?;
            let sql = "UPDATE head SET lost = $1 WHERE id = 1 AND generation = $2 AND lost < $1";
            transaction.execute(DOING, sql, vec![Value::position(beyond), generation.into()]).await?;
            transaction.commit(DOING).await
        };
        match noting.await {
            Ok(()) => tracing::error!(%error, "nothing is issued or changed"),
            Err(failed) => tracing::error!(%error, %failed, "nothing is issued or changed here"),
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_known_before_a_question_tells_whether_its_answer_goes_back() {
        let seen = Seen::default();
        assert_eq!(seen.known().beyond("one", 0), None);
        seen.note("one", 7);
        seen.note("one", 5);
        let before = seen.known();
        assert_eq!((before.beyond("one", 6), before.beyond("one", 7)), (Some(7), None));
        // An answer to a question from before something was committed is no going back.
        seen.note("one", 9);
        assert_eq!(before.beyond("one", 8), None);
        // Positions of another generation say nothing of this one.
        seen.note("two", 3);
        assert_eq!((seen.known().beyond("one", 0), seen.known().beyond("two", 2)), (None, Some(3)));
    }
}
