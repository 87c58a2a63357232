//! Which tokens the open segment already holds, so that a call need only cite its token's digest.
//!
//! A segment can be read alone: whoever explains a call finds its token in the same segment.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use model::{Agent, Delegation};

use crate::{
    canonical::Unrecordable,
    chain::Hash,
    record::{self, Subject},
    values::Draft,
};

/// How many tokens of a segment are remembered as seen. Beyond that they are forgotten and written again, which
/// costs room, never truth.
const MAX_SEEN: usize = 4096;
/// How many registrations are kept to be shared by the tokens they were written with.
const MAX_AGENTS: usize = 64;

/// The tokens that the open segment holds, by their digest.
#[derive(Default)]
pub(super) struct Seen {
    tokens: HashMap<String, Written>,
    agents: Vec<Arc<Agent>>,
}

/// A token that this segment already holds.
struct Written {
    /// The same allocation needs no comparison.
    last: Weak<Delegation>,
    /// The same token may mean something else after a configuration change.
    content: Hash,
    /// The calling agent's registration, where a call has needed it.
    agent: Option<Arc<Agent>>,
}

impl Seen {
    /// Has `push` write the token that `subject` was called under, unless the segment already holds exactly it.
    pub(super) fn cite(
        &mut self,
        subject: &Subject,
        push: impl FnOnce(Draft) -> Result<u64, Unrecordable>,
    ) -> Result<(), Unrecordable> {
        let Some(delegation) = subject.delegation() else { return Ok(()) };
        let (digest, agent) = (&delegation.token.digest, subject.registration());
        let known = self.tokens.get_mut(digest).filter(|written| written.has(agent));
        if known.as_ref().is_some_and(|written| std::ptr::eq(written.last.as_ptr(), Arc::as_ptr(delegation))) {
            return Ok(());
        }
        let draft = record::token_seen(delegation, agent)?;
        let (last, content) = (Arc::downgrade(delegation), record::delegation_content(&draft));
        if let Some(written) = known.filter(|written| written.content == content) {
            written.last = last;
            return Ok(());
        }
        push(draft)?;
        if self.tokens.len() >= MAX_SEEN {
            self.tokens.clear();
        }
        let agent = agent.map(|agent| self.shared(agent));
        self.tokens.insert(digest.clone(), Written { last, content, agent });
        Ok(())
    }

    /// A segment begins that holds none yet.
    pub(super) fn clear(&mut self) {
        self.tokens.clear();
    }

    fn shared(&mut self, agent: &Agent) -> Arc<Agent> {
        if let Some(known) = self.agents.iter().find(|known| ***known == *agent) {
            return Arc::clone(known);
        }
        if self.agents.len() >= MAX_AGENTS {
            self.agents.clear();
        }
        let agent = Arc::new(agent.clone());
        self.agents.push(Arc::clone(&agent));
        agent
    }
}

impl Written {
    /// Whether it was written with this registration, where one is needed.
    fn has(&self, agent: Option<&Agent>) -> bool {
        agent.is_none() || self.agent.as_deref() == agent
    }
}
