//! What was withdrawn, as issuance asks it: nothing is issued under what was taken back since it began.
//!
//! The question is asked together with the head of the change log, before anything else is read: that position is the
//! `pos` of the token, so a change that races with its issuance is never missed by whoever follows the log.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use model::withdrawal::{Cause, Passage, Withdrawal};
use store::{MAX_FEED, Store, StoreError};

/// Withdrawals by what they take back, followed through the change log.
#[derive(Debug, Default)]
pub(crate) struct Withdrawn(Mutex<View>);

#[derive(Debug, Default)]
struct View {
    generation: Option<String>,
    position: u64,
    /// The last withdrawal of each target. Narrowings are not among them: what is left then may be issued.
    last: HashMap<String, u64>,
}

impl Withdrawn {
    /// The head as committed now, with everything up to it known.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(crate) async fn head(&self, store: &Store) -> Result<u64, StoreError> {
        loop {
            let after = self.view().position;
            // Also those that cover no token any more: a task may have begun before them and still go on.
            let feed = store.followed(after, None, MAX_FEED, Timestamp::MIN).await?;
            let mut view = self.view();
            if view.generation.as_ref() != Some(&feed.generation) {
                let first = view.generation.is_none();
                view.generation = Some(feed.generation);
                if !first {
                    // A restored database. What was withdrawn stays withdrawn; positions are its own.
                    view.position = 0;
                    continue;
                }
            }
            let mut last = after;
            for change in feed.changes {
                last = change.position;
                if let store::ChangeKind::Withdrawal(withdrawal) = change.kind {
                    view.take(&withdrawal);
                }
            }
            let known = if feed.more { last } else { feed.head };
            view.position = view.position.max(known);
            if !feed.more {
                return Ok(feed.head);
            }
        }
    }

    /// The first of `passages` that was withdrawn after `since`, where what is asked about began; ever, where that
    /// is not known.
    pub(crate) fn any<'a>(
        &self,
        passages: impl IntoIterator<Item = Passage<'a>>,
        since: Option<u64>,
    ) -> Option<Passage<'a>> {
        let view = self.view();
        let withdrawn = |passage: &Passage<'_>| {
            view.last.get(&key(*passage)).is_some_and(|position| since.is_none_or(|since| since < *position))
        };
        passages.into_iter().find(withdrawn)
    }

    fn view(&self) -> std::sync::MutexGuard<'_, View> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View {
    fn take(&mut self, withdrawal: &Withdrawal) {
        if withdrawal.cause == Cause::Narrowed {
            return;
        }
        let last = self.last.entry(key(withdrawal.target.borrowed())).or_default();
        *last = withdrawal.position.max(*last);
    }
}

/// A passage as the key of a map that owns it.
fn key(passage: Passage<'_>) -> String {
    format!("{passage:?}")
}
