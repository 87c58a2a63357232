//! Users' tokens whose word is in the database already: the same token comes with each exchange while it lasts, and need
//! not be noted each time.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;

use super::Moment;

/// The most tokens that are known at once. Of more, what is known is begun anew.
const MAX_NOTED: usize = 10_000;

/// Tokens that were noted, by digest, until they end.
#[derive(Debug, Default)]
pub(crate) struct Noted(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The life of the database that they were noted in: another one may not have them.
    began: Option<Timestamp>,
    until: HashMap<String, Timestamp>,
}

impl Noted {
    /// Whether the token with this digest was noted in this life of the database.
    pub(super) fn has(&self, digest: &str, at: Moment) -> bool {
        let known = self.known();
        known.began == Some(at.known.began) && known.until.get(digest).is_some_and(|until| at.now < *until)
    }

    /// It was, and lasts until then.
    pub(super) fn put(&self, digest: &str, until: Timestamp, at: Moment) {
        let mut known = self.known();
        if known.began != Some(at.known.began) {
            *known = Known { began: Some(at.known.began), until: HashMap::new() };
        }
        if known.until.len() >= MAX_NOTED {
            known.until.retain(|_, until| at.now < *until);
        }
        if known.until.len() >= MAX_NOTED {
            known.until.clear();
        }
        known.until.insert(digest.to_owned(), until);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::withdrawn::Known as State;

    fn at(second: i64, began: i64) -> Moment {
        let moment = |second| Timestamp::from_second(second).unwrap();
        Moment { now: moment(second), known: State { position: 1, began: moment(began) } }
    }

    #[test]
    fn a_token_is_known_until_it_ends_and_in_one_life_of_the_database() {
        let noted = Noted::default();
        let end = at(100, 0).now;
        assert!(!noted.has("one", at(1, 0)));
        noted.put("one", end, at(1, 0));
        assert!(noted.has("one", at(99, 0)) && !noted.has("two", at(99, 0)));
        assert!(!noted.has("one", at(100, 0)), "it has ended");
        assert!(!noted.has("one", at(50, 40)), "the database was restored since");
        noted.put("two", end, at(50, 40));
        assert!(noted.has("two", at(50, 40)) && !noted.has("one", at(50, 40)));
    }

    #[test]
    fn however_many_tokens_there_are_few_are_known() {
        let noted = Noted::default();
        for number in 0..=MAX_NOTED {
            noted.put(&number.to_string(), at(100, 0).now, at(1, 0));
        }
        assert!(noted.known().until.len() <= MAX_NOTED && noted.has(&MAX_NOTED.to_string(), at(1, 0)));
    }
}
