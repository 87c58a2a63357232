//! How a call's delegation comes to be: the agent obtained it, or the sidecar does for an agent whose identity it
//! holds. Which agent that is, a connection proves and no request says.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use model::{Id, Principal};
use net::peer::is_spiffe_id;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AgentListenerConfig, Bearer};

/// How the delegation of a call comes to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EntryConfig {
    /// The agent sends a delegated token that it obtained itself. A user's own token is refused `impersonation`.
    #[default]
    Delegated,
    /// The agent sends the user's token that it has today, or only names a task, and the sidecar obtains the delegated
    /// token with the agent's identity, which it holds. Delegated tokens are still taken as they are.
    Exchanged(ExchangedConfig),
}

/// Whose identities are held, and what is taken from them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExchangedConfig {
    /// The audiences of users' tokens that are taken, from issuers with `role: subject`: one of them has to be in `aud`.
    /// The authority has to take them too (`subject_audiences`). Without any, calls have to name a task.
    #[serde(default)]
    pub subject_audiences: BTreeSet<String>,
    /// The agents.
    pub agents: Vec<ExchangedAgentConfig>,
}

/// An agent whose identity is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExchangedAgentConfig {
    /// Its id at the authority.
    pub agent: Id<Principal>,
    /// The file of its private key (PKCS#8, PEM; ES256 or `EdDSA`), which nobody but the sidecar may read. Another key in
    /// it counts from the next second on.
    pub key: PathBuf,
    /// Which connections are its.
    pub connects: Connects,
    /// The task of calls that name none.
    #[serde(default)]
    pub task: TaskChoice,
}

/// Which connections are an agent's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Connects {
    /// All of them: the listener is this agent's alone.
    Anybody,
    /// Those of processes that run as this user (by number), on a Unix socket.
    Uid(u32),
    /// Those with this SPIFFE ID in their client certificate.
    Spiffe(String),
}

/// The task of a call that names none in `Countersign-Task`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TaskChoice {
    /// The one that goes on in the session of the user's token, under the grant that the user gave the agent last. Where
    /// there is none, the agent starts one, at `observe`.
    #[default]
    Present,
    /// None: every call has to name its task.
    Named,
}

/// Settings of an entry that do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// No agent.
    #[error("`exchanged.agents` is empty, so there is nobody to exchange for")]
    Nobody,
    /// Two agents on one connection.
    #[error("`exchanged.agents`: {0} and another agent have the same connections")]
    Shared(Id<Principal>),
    /// A user on something else than a Unix socket.
    #[error("`exchanged.agents`: {0} connects by `uid`, which only a Unix socket can tell")]
    NoUids(Id<Principal>),
    /// A user that is not let in.
    #[error("`exchanged.agents`: {agent} connects as the user {uid}, which `allow_uids` does not let in")]
    NotAllowed {
        /// The agent.
        agent: Id<Principal>,
        /// Its user.
        uid: u32,
    },
    /// A SPIFFE ID without certificates, or none.
    #[error("`exchanged.agents`: {0} connects by `spiffe`, which needs a SPIFFE ID and `tls.trust_domains`")]
    NoSvids(Id<Principal>),
    /// Nothing would be let through.
    #[error("`exchanged` needs `bearer: reads` or `bearer: all`: users' tokens are bound to nobody who sends them")]
    Bearer,
}

impl EntryConfig {
    /// The agents whose identities are held.
    pub fn agents(&self) -> &[ExchangedAgentConfig] {
        match self {
            Self::Delegated => &[],
            Self::Exchanged(exchanged) => &exchanged.agents,
        }
    }

    /// Takes relative paths from `base`.
    pub fn place(&mut self, base: &Path) {
        if let Self::Exchanged(exchanged) = self {
            for agent in &mut exchanged.agents {
                agent.key = base.join(&agent.key);
            }
        }
    }

    /// Whether it goes together with the rest of `listener`.
    ///
    /// # Errors
    /// Says what does not.
    pub fn check(&self, listener: &AgentListenerConfig) -> Result<(), EntryError> {
        let Self::Exchanged(exchanged) = self else { return Ok(()) };
        if exchanged.agents.is_empty() {
            return Err(EntryError::Nobody);
        }
        if listener.bearer == Bearer::Refuse {
            return Err(EntryError::Bearer);
        }
        for (place, ExchangedAgentConfig { agent, connects, .. }) in exchanged.agents.iter().enumerate() {
            let shared = exchanged.agents.iter().take(place).any(|other| connects.meets(&other.connects));
            if shared {
                return Err(EntryError::Shared(agent.clone()));
            }
            connects.check(agent, listener)?;
        }
        Ok(())
    }
}

impl Connects {
    /// Whether one connection could be both.
    fn meets(&self, other: &Self) -> bool {
        self == other || matches!((self, other), (Self::Anybody, _) | (_, Self::Anybody))
    }

    fn check(&self, agent: &Id<Principal>, listener: &AgentListenerConfig) -> Result<(), EntryError> {
        match self {
            Self::Anybody => Ok(()),
            Self::Uid(_) if listener.unix.is_none() => Err(EntryError::NoUids(agent.clone())),
            Self::Uid(uid) if listener.allow_uids.as_ref().is_some_and(|allowed| !allowed.contains(uid)) => {
                Err(EntryError::NotAllowed { agent: agent.clone(), uid: *uid })
            }
            Self::Uid(_) => Ok(()),
            Self::Spiffe(id) => {
                let asked = listener.tls.as_ref().is_some_and(|tls| !tls.trust_domains.is_empty());
                if asked && is_spiffe_id(id) { Ok(()) } else { Err(EntryError::NoSvids(agent.clone())) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refused(mut listener: Value, agents: &Value) -> Option<EntryError> {
        listener["entry"] = json!({ "exchanged": { "agents": agents } });
        let listener: AgentListenerConfig = serde_json::from_value(listener).unwrap();
        listener.entry.check(&listener).err()
    }

    fn agent(id: &str, connects: &Value) -> Value {
        json!({ "agent": id, "key": "key.pem", "connects": connects })
    }

    #[test]
    fn every_connection_is_one_agents_by_what_the_listener_can_tell() {
        let one = || Id::new("one").unwrap();
        let (anybody, uid) = (json!("anybody"), |uid: u32| json!({ "uid": uid }));
        let svid = json!({ "spiffe": "spiffe://acme.example/agent" });
        let tcp = || json!({ "tcp": "127.0.0.1:0", "bearer": "all" });
        let unix = || json!({ "unix": "/a", "mode": "0666", "allow_uids": [1001, 1002], "bearer": "reads" });
        let mut tls = tcp();
        tls["tls"] = json!({
            "certificate": "c.pem", "key": { "file": "k.pem" }, "trust_domains": { "acme.example": "bundle.pem" },
        });
        assert_eq!(refused(tcp(), &json!([agent("one", &anybody)])), None);
        assert_eq!(refused(unix(), &json!([agent("one", &uid(1001)), agent("two", &uid(1002))])), None);
        assert_eq!(refused(tls, &json!([agent("one", &svid)])), None);
        assert_eq!(refused(tcp(), &json!([])), Some(EntryError::Nobody));
        assert_eq!(refused(tcp(), &json!([agent("one", &uid(1001))])), Some(EntryError::NoUids(one())));
        assert_eq!(refused(tcp(), &json!([agent("one", &svid)])), Some(EntryError::NoSvids(one())));
        let unlisted = EntryError::NotAllowed { agent: one(), uid: 7 };
        assert_eq!(refused(unix(), &json!([agent("one", &uid(7))])), Some(unlisted));
        for other in [anybody, uid(1001)] {
            let both = json!([agent("two", &uid(1001)), agent("one", &other)]);
            assert_eq!(refused(unix(), &both), Some(EntryError::Shared(one())), "{other}");
        }
        let closed = json!({ "tcp": "127.0.0.1:0" });
        assert_eq!(refused(closed, &json!([agent("one", &json!("anybody"))])), Some(EntryError::Bearer));
        let plain: AgentListenerConfig = serde_json::from_value(json!({ "tcp": "127.0.0.1:0" })).unwrap();
        assert_eq!((plain.entry.check(&plain), &plain.entry), (Ok(()), &EntryConfig::Delegated));
    }
}
