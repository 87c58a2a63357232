//! The agents whose identities this sidecar holds, and which connection is whose: by what the kernel or TLS proved of
//! it, never by what a request says.

use std::{collections::BTreeSet, sync::Arc};

use aws_lc_rs::digest::{Context, SHA256};
use http::Uri;
use jiff::Timestamp;
use model::{Id, Principal, PrincipalKind, Task};
use net::{Peer, PeerAddress, PeerIdentity};
use token::{KeptKey, SubjectAudiences};

use crate::config::{Connects, TaskChoice};

/// Everything that exchanges are made with.
#[derive(Debug)]
pub struct Identities {
    /// The authority: its name as an issuer.
    pub(super) issuer: String,
    /// Its token endpoint.
    pub(super) endpoint: Uri,
    /// Whom the tokens are for: this sidecar.
    pub(super) audience: String,
    /// What users' tokens are held to.
    pub(super) subjects: SubjectAudiences,
    agents: Vec<Arc<Identity>>,
}

/// What [`Identities`] are made of.
#[derive(Debug)]
pub struct IdentitiesParts {
    /// The authority's URL, which is its name as an issuer.
    pub authority: String,
    /// Its token endpoint.
    pub endpoint: Uri,
    /// The sidecar's logical audience.
    pub audience: String,
    /// The audiences of users' tokens that are taken.
    pub subject_audiences: BTreeSet<String>,
    /// The agents, each with its key.
    pub agents: Vec<Identity>,
}

/// An agent whose identity this sidecar holds.
#[derive(Debug)]
pub struct Identity {
    /// The agent, as the authority names it.
    pub(super) agent: Principal,
    /// What proves that.
    pub(super) key: KeptKey,
    /// Which connections are its.
    connects: Connects,
    /// The task of calls that name none.
    pub(super) task: TaskChoice,
}

/// What an exchange is found by: who asks whom with what, so that nothing answers for anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

impl Identity {
    /// The agent `id` of the authority `issuer`.
    pub fn new(id: Id<Principal>, issuer: &str, key: KeptKey, connects: Connects, task: TaskChoice) -> Self {
        let agent = Principal { kind: PrincipalKind::Agent, id, issuer: issuer.to_owned(), tenant: None };
        Self { agent, key, connects, task }
    }

    fn has(&self, peer: &Peer) -> bool {
        match &self.connects {
            Connects::Anybody => true,
            Connects::Uid(uid) => matches!(peer.address, PeerAddress::Unix(of) if of.uid == *uid),
            Connects::Spiffe(id) => peer
                .certificate
                .as_ref()
                .is_some_and(|it| matches!(&it.identity, PeerIdentity::Spiffe(own) if own == id)),
        }
    }
}

impl Identities {
    /// Puts the parts together.
    pub fn new(parts: IdentitiesParts) -> Self {
        let IdentitiesParts { authority, endpoint, audience, subject_audiences, agents } = parts;
        let subjects = SubjectAudiences { users: subject_audiences, ..SubjectAudiences::default() };
        let agents = agents.into_iter().map(Arc::new).collect();
        Self { issuer: authority, endpoint, audience, subjects, agents }
    }

    /// The agent whose connection `peer` is at the other end of.
    pub(super) fn of(&self, peer: &Peer) -> Option<&Arc<Identity>> {
        self.agents.iter().find(|identity| identity.has(peer))
    }

    /// The agents, and the `kid` of the key that each signs with now.
    pub fn agents(&self) -> impl Iterator<Item = (&Id<Principal>, String)> {
        self.agents.iter().map(|identity| (&identity.agent.id, identity.key.current().id().to_owned()))
    }

    /// Reads keys again whose files changed.
    pub(crate) fn look(&self, now: Timestamp) {
        for identity in &self.agents {
            if identity.key.look(now) {
                let agent = &identity.agent.id;
                tracing::info!(%agent, key = identity.key.current().id(), "another key signs for an agent from now on");
            }
        }
    }

    /// What the exchange of `token` by `identity` is found by.
    pub(super) fn key(&self, identity: &Identity, token: Option<&str>, task: Option<&Id<Task>>) -> Key {
        let mut digest = Context::new(&SHA256);
        let present = [b'n', b'p'].get(usize::from(identity.task == TaskChoice::Present)).copied();
        digest.update(&[present.unwrap_or_default()]);
        let parts = [self.issuer.as_str(), &self.audience, identity.agent.id.as_str()];
        let parts = parts.into_iter().chain(self.subjects.users.iter().map(String::as_str)).map(Some);
        for part in parts.chain([None, task.map(Id::as_str), token]) {
            // Lengths keep the parts apart; what is absent has none.
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            digest.update(&length.to_be_bytes());
            digest.update(part.unwrap_or_default().as_bytes());
        }
        let mut key = [0; 32];
        for (to, from) in key.iter_mut().zip(digest.finish().as_ref()) {
            *to = *from;
        }
        Key(key)
    }
}
