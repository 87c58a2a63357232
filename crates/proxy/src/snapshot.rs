//! Everything a call depends on that a reload may change, immutable and read once per call: a call sees the old
//! or the new one whole, never a mixture.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use model::{Agent, Catalogue, Id, Principal, Tenant, Tool};

use crate::{
    config::{
        AgentListenerConfig,
        tools::{ResolvedTools, Upstream},
    },
    decide::Lanes,
    exchanged::Identities,
    observe::Observations,
    withdrawals::Following,
};

/// One consistent state of the sidecar.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) catalogue: Catalogue,
    pub(crate) observed: Arc<Observations>,
    pub(crate) upstreams: Arc<BTreeMap<Id<Tool>, Upstream>>,
    pub(crate) policy: Arc<policy::Engine>,
    pub(crate) verifier: Arc<token::Verifier>,
    pub(crate) agents: Arc<Agents>,
    pub(crate) tenants: BTreeSet<Id<Tenant>>,
    pub(crate) listener: AgentListenerConfig,
    pub(crate) config_revision: Option<String>,
    pub(crate) following: Option<Following>,
    pub(crate) signer: Option<Arc<token::TransactionSigner>>,
    pub(crate) identities: Option<Arc<Identities>>,
    pub(crate) lanes: Lanes,
}

/// What a [`Snapshot`] is made of.
#[derive(Debug)]
pub struct SnapshotParts {
    /// The tools.
    pub tools: ResolvedTools,
    /// What decides.
    pub policy: Arc<policy::Engine>,
    /// What verifies tokens.
    pub verifier: Arc<token::Verifier>,
    /// The registered agents.
    pub agents: Agents,
    /// The tenants this sidecar serves.
    pub tenants: BTreeSet<Id<Tenant>>,
    /// Where agents connect, and what is asked of them there.
    pub listener: AgentListenerConfig,
    /// A digest of the configuration that all of this was made from.
    pub config_revision: Option<String>,
    /// How closely an authority is followed, where one is.
    pub following: Option<Following>,
    /// What signs what tools with `identity: hybrid` are told, where the sidecar is enrolled.
    pub signer: Option<Arc<token::TransactionSigner>>,
    /// The agents whose identities are held, where the entry is `exchanged`.
    pub identities: Option<Arc<Identities>>,
}

impl Snapshot {
    /// Puts the parts together.
    pub fn new(parts: SnapshotParts) -> Self {
        let ResolvedTools { catalogue, upstreams, observed } = parts.tools;
        Self {
            catalogue,
            observed: Arc::new(observed),
            upstreams: Arc::new(upstreams),
            policy: parts.policy,
            verifier: parts.verifier,
            agents: Arc::new(parts.agents),
            tenants: parts.tenants,
            listener: parts.listener,
            config_revision: parts.config_revision,
            following: parts.following,
            signer: parts.signer,
            identities: parts.identities,
            lanes: Lanes::default(),
        }
    }

    /// The same, but that `policy` decides, which was made for the same tools.
    #[must_use]
    pub fn deciding_by(&self, policy: Arc<policy::Engine>) -> Self {
        Self {
            catalogue: self.catalogue.clone(),
            observed: Arc::clone(&self.observed),
            upstreams: Arc::clone(&self.upstreams),
            policy,
            verifier: Arc::clone(&self.verifier),
            agents: Arc::clone(&self.agents),
            tenants: self.tenants.clone(),
            listener: self.listener.clone(),
            config_revision: self.config_revision.clone(),
            following: self.following.clone(),
            signer: self.signer.clone(),
            identities: self.identities.clone(),
            // What was slow to decide about may not be by the new one.
            lanes: Lanes::default(),
        }
    }

    /// The same, but that the same tools have the actions of `catalogue`, of which `observed` are only observed, and that
    /// `policy` decides about those.
    #[must_use]
    pub fn knowing(&self, catalogue: Catalogue, observed: Observations, policy: Arc<policy::Engine>) -> Self {
        Self { catalogue, observed: Arc::new(observed), ..self.deciding_by(policy) }
    }

    /// The tools and actions.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// The actions that are only observed.
    pub fn observed(&self) -> &Observations {
        &self.observed
    }

    /// What verifies tokens.
    pub fn verifier(&self) -> &Arc<token::Verifier> {
        &self.verifier
    }

    /// What decides.
    pub fn policy(&self) -> &Arc<policy::Engine> {
        &self.policy
    }
}

/// The registered agents, by issuer and id.
#[derive(Debug, Default)]
pub struct Agents(HashMap<String, HashMap<Id<Principal>, Arc<Agent>>>);

/// An agent that is registered twice.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("agents: `{id}` of {issuer} is registered twice")]
pub struct RegisteredTwice {
    /// Its id.
    pub id: Id<Principal>,
    /// Its issuer.
    pub issuer: String,
}

impl Agents {
    /// Takes the registrations.
    ///
    /// # Errors
    /// When two are for the same principal: which one holds would be chance.
    pub fn new(agents: Vec<Agent>) -> Result<Self, RegisteredTwice> {
        let mut known: HashMap<String, HashMap<_, _>> = HashMap::new();
        for agent in agents {
            let (id, issuer) = (agent.id.clone(), agent.issuer.clone());
            if known.entry(issuer.clone()).or_default().insert(id.clone(), Arc::new(agent)).is_some() {
                return Err(RegisteredTwice { id, issuer });
            }
        }
        Ok(Self(known))
    }

    /// The registration of `principal`, by issuer and id together.
    pub fn find(&self, principal: &Principal) -> Option<&Arc<Agent>> {
        self.0.get(&principal.issuer)?.get(&principal.id)
    }

    /// Those of that name, whoever registered them.
    pub(crate) fn named<'a>(&'a self, id: &'a Id<Principal>) -> impl Iterator<Item = &'a Arc<Agent>> {
        self.0.values().filter_map(move |agents| agents.get(id))
    }
}
