//! Decisions that were made before. A decision depends on nothing but the policies, which an engine has for life,
//! and the part of the input that they read: the key is a digest of the tool and exactly that part.

use aws_lc_rs::digest::{SHA256, digest};
use model::{Code, Decision, Part, Question};
use quick_cache::sync::Cache;

use crate::{
    input::{self, InvalidInput},
    obligation,
};

/// The most bytes of text in the reasons and obligations of a decision that is kept.
const MAX_TEXT: usize = 2048;

/// What differs from call to call by itself. A policy that reads one of these is asked each time.
const NEVER_THE_SAME: [&[&str]; 3] = [&["now"], &["now_ns"], &["call", "id"]];

pub(super) struct Memory {
    decisions: Option<Cache<Key, Decision>>,
}

/// What a decision is found by.
pub(super) type Key = [u8; 32];

/// Whether a policy that reads this may be asked the same again.
pub(super) fn recurs(reads: &Part) -> bool {
    !NEVER_THE_SAME.iter().any(|path| reads.touches(path))
}

impl Memory {
    /// Keeps about `most` decisions, those that are asked for again longer than others.
    pub(super) fn of(most: usize) -> Self {
        Self { decisions: (most > 0).then(|| Cache::new(most)) }
    }

    /// The question as it is recorded, and what its decision is found by, where it may be asked again and `reads` is
    /// what the policies read of it.
    pub(super) fn write(
        &self,
        question: &Question,
        reads: Option<&Part>,
    ) -> Result<(Vec<u8>, Option<Key>), InvalidInput> {
        let Some(reads) = reads.filter(|_| self.decisions.is_some()) else {
            return Ok((input::canonical_json(question)?, None));
        };
        let (text, mut taken) = input::canonical_taking(question, reads)?;
        // JSON holds no zero byte, so that nothing of the one runs over into the other.
        taken.push(0);
        taken.extend_from_slice(question.call.tool.as_str().as_bytes());
        Ok((text, digest(&SHA256, &taken).as_ref().try_into().ok()))
    }

    pub(super) fn recall(&self, key: &Key) -> Option<Decision> {
        self.decisions.as_ref()?.get(key)
    }

    /// Keeps what would be decided again: an error or a spent budget may pass.
    pub(super) fn keep(&self, key: Key, decision: &Decision) {
        let Some(decisions) = &self.decisions else { return };
        // A denial may name another package that failed.
        let failures = [Code::PolicyError, Code::PolicyBudget];
        let failed = failures.iter().any(|failure| {
            decision.code == Some(*failure) || decision.reasons.iter().any(|reason| reason.code == failure.as_str())
        });
        let of = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let text: usize = decision.reasons.iter().map(|reason| of(&reason.message) + of(&reason.internal) + 64).sum();
        // What obliges to much is seldom, and asked again.
        let obliges: usize = decision.obligations.iter().map(obligation::size).sum();
        if !failed && text + obliges <= MAX_TEXT {
            decisions.insert(key, decision.clone());
        }
    }
}

#[cfg(test)]
mod tests;
