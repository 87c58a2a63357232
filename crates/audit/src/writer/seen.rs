//! Which tokens the open segment already holds, so that a call need only cite its token's digest.
//!
//! A segment can be read alone: whoever explains a call finds its token in the same segment.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use model::{Agent, Delegation, canonical::Unwritable};
use serde::Serialize;

use crate::{
    canonical::Unrecordable,
    chain::{Hash, sha256},
    record::{self, Subject},
    values::Draft,
};

/// How many tokens of a segment are remembered as seen. Beyond that they are forgotten and written again, which
/// costs room, never truth.
const MAX_SEEN: usize = 4096;

/// The tokens that the open segment holds, by their digest.
#[derive(Default)]
pub(super) struct Seen {
    tokens: HashMap<String, Written>,
}

/// A token that this segment already holds.
struct Written {
    /// The same allocation needs no comparison.
    last: Weak<Delegation>,
    /// The same token may mean something else after a configuration change.
    content: Hash,
    /// The calling agent's registration, where a call has needed it.
    agent: Option<Hash>,
}

impl Seen {
    /// Has `push` write the token that `subject` was called under, unless the segment already holds exactly it.
    pub(super) fn cite(
        &mut self,
        subject: &Subject,
        push: impl FnOnce(Draft) -> Result<u64, Unrecordable>,
    ) -> Result<(), Unrecordable> {
        let Some(delegation) = subject.delegation() else { return Ok(()) };
        if self.remember(delegation, subject.registration())? {
            return Ok(());
        }
        let written = record::token_seen(delegation, subject.registration()).and_then(push);
        if written.is_err() {
            self.tokens.remove(&delegation.token.digest);
        }
        written.map(drop)
    }

    /// A segment begins that holds none yet.
    pub(super) fn clear(&mut self) {
        self.tokens.clear();
    }

    /// Whether this segment already holds exactly this delegation and registration; from now on it does.
    fn remember(&mut self, delegation: &Arc<Delegation>, agent: Option<&Agent>) -> Result<bool, Unrecordable> {
        let digest = &delegation.token.digest;
        let agent = agent.map(content).transpose()?;
        let same_agent = |written: &Written| agent.is_none() || written.agent == agent;
        let same_allocation = |written: &Written| std::ptr::eq(written.last.as_ptr(), Arc::as_ptr(delegation));
        if self.tokens.get(digest).is_some_and(|written| same_allocation(written) && same_agent(written)) {
            return Ok(true);
        }
        let content = content(delegation.as_ref())?;
        if let Some(written) = self.tokens.get_mut(digest)
            && written.content == content
            && same_agent(written)
        {
            written.last = Arc::downgrade(delegation);
            return Ok(true);
        }
        if self.tokens.len() >= MAX_SEEN {
            self.tokens.clear();
        }
        self.tokens.insert(digest.clone(), Written { last: Arc::downgrade(delegation), content, agent });
        Ok(false)
    }
}

fn content(value: &impl Serialize) -> Result<Hash, Unrecordable> {
    // Only ever compared: it may hold what a record could not.
    let text = serde_json::to_vec(value).map_err(|error| Unwritable::Shape(error.to_string()))?;
    Ok(sha256(&text))
}
