//! What a sidecar of one configuration can be held to, for whoever decides again what such a one would decide.

use std::collections::BTreeSet;

use model::Decision;

use super::{notice::Notices, within_reach};
use crate::config::AgentListenerConfig;

/// Who can be told of calls, and which header fields policy sees.
#[derive(Debug)]
pub struct Reach {
    listener: AgentListenerConfig,
    notices: Notices,
}

impl Reach {
    /// That of a sidecar with this `listener`, and with `channels` beside the one that is always there.
    pub fn new(listener: AgentListenerConfig, channels: BTreeSet<String>) -> Self {
        Self { listener, notices: Notices::new(channels) }
    }

    /// `decision` as it comes to there: a denial, where it obliges to what cannot be met whatever the call.
    pub fn hold(&self, decision: Decision) -> Decision {
        within_reach(decision, &self.listener, &self.notices)
    }
}
