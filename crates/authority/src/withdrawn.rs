//! What was withdrawn, as issuance asks it: nothing is issued from what was taken back.
//!
//! The question is asked together with the head of the change log, before anything else is read: that position is the
//! `pos` of the token, so a change that races with its issuance is never missed by whoever follows the log.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use model::withdrawal::{Cause, Passage, Target, Withdrawal};
use store::{MAX_FEED, Store, StoreError};

/// So many more entries, and those that cover no token any more are looked for.
const PRUNE_AT: usize = 10_000;

/// Withdrawals by what they take back, followed through the change log.
#[derive(Debug)]
pub(crate) struct Withdrawn {
    view: Mutex<View>,
    /// The longest that a token lives which is presented here, whoever issued it.
    longest_life: SignedDuration,
}

/// The state that an issuance rests on: everything that was committed up to a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    /// The last position.
    pub(crate) position: u64,
    /// When this life of the database began: what was signed before it may rest on what a restore undid.
    pub(crate) began: Timestamp,
}

#[derive(Debug, Default)]
struct View {
    generation: Option<String>,
    position: u64,
    /// The last withdrawals of each target.
    last: HashMap<String, Last>,
    pruned: usize,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    /// Of any kind: tokens from before are good no more.
    any: u64,
    /// Of a kind that leaves nothing to issue from: no narrowing. Absent where there is none.
    whole: Option<u64>,
    /// When the last of those was committed.
    whole_at: Timestamp,
    /// When it may be forgotten; never, for what outlives the tokens that were issued for it.
    until: Timestamp,
}

impl Withdrawn {
    /// Nothing is known yet. No token that is presented here lives longer than `longest_life`.
    pub(crate) fn new(longest_life: SignedDuration) -> Self {
        Self { view: Mutex::default(), longest_life }
    }

    /// The head as committed now, with everything up to it known.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(crate) async fn head(&self, store: &Store, now: Timestamp) -> Result<Known, StoreError> {
        loop {
            let (before, after) = {
                let view = self.view();
                (view.generation.clone(), view.position)
            };
            let feed = store.followed(after, None, MAX_FEED, Timestamp::MIN).await?;
            let mut view = self.view();
            if view.generation != before {
                // Somebody else began anew meanwhile; what was read goes on from elsewhere.
                continue;
            }
            if view.generation.as_ref() != Some(&feed.generation) {
                view.begin(feed.generation);
                continue;
            }
            let mut last = after;
            for withdrawal in feed.changes {
                last = withdrawal.position;
                view.take(&withdrawal, self.longest_life);
            }
            view.prune(now);
            view.position = view.position.max(if feed.more { last } else { feed.head });
            if !feed.more {
                return Ok(Known { position: feed.head, began: feed.began });
            }
        }
    }

    /// The first of `passages` that was withdrawn, and not only narrowed, after `since`, where what is asked about began;
    /// ever, where that is not known.
    pub(crate) fn any<'a>(
        &self,
        passages: impl IntoIterator<Item = Passage<'a>>,
        since: Option<u64>,
    ) -> Option<Passage<'a>> {
        let view = self.view();
        let withdrawn = |passage: &Passage<'_>| {
            let whole = view.last.get(&key(*passage)).and_then(|last| last.whole);
            whole.is_some_and(|position| since.is_none_or(|since| since < position))
        };
        passages.into_iter().find(withdrawn)
    }

    /// Whether any of `passages` was withdrawn, and not only narrowed, at `moment` or later: whether what was given then
    /// has to be given anew.
    pub(crate) fn since<'a>(&self, passages: impl IntoIterator<Item = Passage<'a>>, moment: Timestamp) -> bool {
        let view = self.view();
        passages.into_iter().any(|passage| {
            let last = view.last.get(&key(passage));
            last.is_some_and(|last| last.whole.is_some() && last.whole_at >= moment)
        })
    }

    /// Whether a sidecar that knows everything refuses what passes through `passages` and was issued at `position`.
    pub(crate) fn covers<'a>(&self, passages: impl IntoIterator<Item = Passage<'a>>, position: Option<u64>) -> bool {
        let view = self.view();
        passages.into_iter().any(|passage| {
            let last = view.last.get(&key(passage));
            last.is_some_and(|last| position.is_none_or(|position| position < last.any))
        })
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View {
    /// Another database, or the first. What was withdrawn stays so for whatever does not say when it began; positions
    /// are its own from now on.
    fn begin(&mut self, generation: String) {
        self.generation = Some(generation);
        self.position = 0;
        for last in self.last.values_mut() {
            (last.any, last.whole) = (0, last.whole.map(|_| 0));
        }
    }

    fn take(&mut self, withdrawal: &Withdrawal, longest_life: SignedDuration) {
        let Withdrawal { target, position, at, until, cause, .. } = withdrawal;
        let until = match target {
            // Their ends are where they are registered.
            Target::Task { .. } | Target::Run { .. } | Target::Grant { .. } => *until,
            // It ends by itself, and what was made from it ends with it.
            Target::Token { .. } => at.checked_add(longest_life).unwrap_or(Timestamp::MAX).max(*until),
            Target::User { .. }
            | Target::Session { .. }
            | Target::Agent { .. }
            | Target::Instance { .. }
            | Target::Tenant { .. } => Timestamp::MAX,
        };
        let last = self.last.entry(key(target.borrowed())).or_insert(Last {
            any: 0,
            whole: None,
            whole_at: Timestamp::MIN,
            until,
        });
        // What was read at the same time may come in any order.
        last.any = last.any.max(*position);
        last.until = last.until.max(until);
        if *cause != Cause::Narrowed {
            last.whole = last.whole.max(Some(*position));
            last.whole_at = last.whole_at.max(*at);
        }
    }

    fn prune(&mut self, now: Timestamp) {
        if self.last.len() > self.pruned + PRUNE_AT {
            self.last.retain(|_, last| last.until > now);
            self.pruned = self.last.len();
        }
    }
}

/// A passage as the key of a map that owns it.
fn key(passage: Passage<'_>) -> String {
    format!("{passage:?}")
}

#[cfg(test)]
mod tests {
    use model::{Id, withdrawal::Cause};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn withdrawal(target: Target, second: i64) -> Withdrawal {
        Withdrawal {
            id: Id::new("one").unwrap(),
            target,
            position: 1,
            at: at(second),
            by: "user:alice".to_owned(),
            reason: None,
            until: at(second + 60),
            cause: Cause::Withdrawn,
        }
    }

    #[test]
    fn single_tokens_are_forgotten_when_none_can_be_left_of_them_and_who_was_withdrawn_never() {
        let mut view = View::default();
        let longest = SignedDuration::from_hours(1);
        for number in 0..=PRUNE_AT {
            let target = Target::Token { issuer: "https://sso.example".to_owned(), jti: number.to_string() };
            view.take(&withdrawal(target, 0), longest);
        }
        let session = Target::Session { issuer: "https://sso.example".to_owned(), sid: "s".to_owned() };
        view.take(&withdrawal(session, 0), longest);
        view.prune(at(3_600 - 1));
        assert_eq!(view.last.len(), PRUNE_AT + 2, "an hour's token is still good");
        view.pruned = 0;
        view.prune(at(3_601));
        assert_eq!(view.last.len(), 1);
    }
}
