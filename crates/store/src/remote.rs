//! `/v1/changes` as both planes speak it, and the follower that a sidecar asks it with (DESIGN §5.5).
//!
//! The question is a long poll: it is answered at once when something is there, or when the wait is over, and always
//! after a read of the committed head that began after it came. That is what makes an answer say how fresh a view is.

pub mod charges;
mod follower;
pub mod limits;

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use model::Withdrawal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pins::Pin;

pub use follower::{Authorise, Cursor, Follower, FollowerSettings, Heard, NotHeard};

/// Where the authority answers.
pub const CHANGES_PATH: &str = "/v1/changes";
/// The longest that an authority waits before it answers, whatever it was asked.
pub const MAX_WAIT: Duration = Duration::from_secs(2);

/// What a follower asks: everything after a position, and how long to wait where there is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The position it has everything up to; 0 for nothing.
    pub after: u64,
    /// How long to wait, at most [`MAX_WAIT`].
    pub wait: Duration,
}

/// The answer: what was withdrawn after the position, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    /// The name of this life of the database: another one after a restore. Positions of two generations cannot be
    /// compared.
    pub generation: String,
    /// When the generation began. Tokens that were issued before it are no longer good.
    #[schemars(with = "String")]
    pub began: Timestamp,
    /// The last position that was committed when the question was answered.
    pub head: u64,
    /// What was withdrawn after `after`, as far as it concerns whoever asks; positions rise.
    pub changes: Vec<Listed>,
    /// Whether there is more before `head` than fits one answer.
    pub more: bool,
    /// The keys that the authority's own tokens may be signed with now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<GoodKeys>,
    /// Every bundle of policy that stays at a revision, as far as that concerns whoever asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pins: Option<Vec<Pin>>,
}

/// The keys of one issuer whose tokens are good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GoodKeys {
    /// The issuer.
    pub issuer: String,
    /// The `kid` of each.
    pub ids: BTreeSet<String>,
}

/// One withdrawal at its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Listed {
    /// Its place in the change log.
    pub position: u64,
    /// What was withdrawn.
    pub withdrawal: Withdrawal,
}

/// A question that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}`: write `after=POSITION` and `wait=SECONDS`, each at most once")]
pub struct InvalidQuestion(String);

impl Question {
    /// The question as a query: `after=17&wait=1.5`.
    pub fn query(&self) -> String {
        format!("after={}&wait={}", self.after, self.wait.min(MAX_WAIT).as_secs_f64())
    }

    /// Reads the query of a request. Without `after` everything is asked for, without `wait` the answer comes at once;
    /// a longer `wait` than [`MAX_WAIT`] is that.
    ///
    /// # Errors
    /// When a member is unknown, given twice, or no number.
    pub fn parse(query: Option<&str>) -> Result<Self, InvalidQuestion> {
        let (mut after, mut wait) = (None, None);
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let invalid = || InvalidQuestion(pair.chars().take(80).collect());
            let again = match pair.split_once('=') {
                Some(("after", number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                    after.replace(number.parse().map_err(|_| invalid())?).is_some()
                }
                Some(("wait", seconds)) if seconds.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => {
                    let seconds: f64 = seconds.parse().map_err(|_| invalid())?;
                    let longest = MAX_WAIT.as_secs_f64();
                    wait.replace(Duration::from_secs_f64(seconds.min(longest))).is_some()
                }
                _ => return Err(invalid()),
            };
            if again {
                return Err(invalid());
            }
        }
        Ok(Self { after: after.unwrap_or_default(), wait: wait.unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests;
