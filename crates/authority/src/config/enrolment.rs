//! The `enrolment` part of the section: which workloads may join as sidecars by what they are already, and what each of
//! them serves. What is not written here joins by a join token or not at all.

use std::collections::{BTreeMap, BTreeSet};

use model::{Id, Principal, Tenant, Tool};
use net::peer::is_spiffe_id;
use schemars::JsonSchema;
use serde::Deserialize;
use store::Serves;
use token::{Algorithm, Issuer, config::KeysConfig};

use super::{ConfigError, events::bare};

/// What the name of a service account begins with, as the `sub` of its tokens.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Workloads that may join as sidecars by what they are.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EnrolmentConfig {
    /// By the SPIFFE ID in their client certificate, exactly. The listener has to believe their trust domain
    /// (`listen.tls.trust_domains`).
    pub spiffe: BTreeMap<String, EnrolledConfig>,
    /// By a projected token of a Kubernetes cluster.
    pub kubernetes: Vec<ClusterConfig>,
}

/// What a workload that joins will serve.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolledConfig {
    /// The tenants; at least one.
    pub tenants: BTreeSet<Id<Tenant>>,
    /// The tools; all of its tenants' where absent.
    #[serde(default)]
    pub tools: Option<BTreeSet<Id<Tool>>>,
    /// The agents; all of its tenants' where absent.
    #[serde(default)]
    pub agents: Option<BTreeSet<Id<Principal>>>,
}

/// A Kubernetes cluster whose projected service account tokens are believed.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// The `iss` of its tokens, exactly.
    pub issuer: String,
    /// The audience that tokens for joining are projected with: one of their own, as the authority's issuer.
    pub audience: String,
    /// Where the cluster's public keys come from.
    #[serde(default)]
    pub keys: KeysConfig,
    /// The algorithms it signs with.
    #[serde(default = "rs256")]
    pub algorithms: BTreeSet<Algorithm>,
    /// Who may join, by `NAMESPACE:SERVICEACCOUNT`.
    pub service_accounts: BTreeMap<String, EnrolledConfig>,
}

/// The same, checked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Enrolments {
    /// By SPIFFE ID.
    pub(crate) spiffe: BTreeMap<String, Serves>,
    /// By the `iss` of their tokens.
    pub(crate) clusters: BTreeMap<String, Cluster>,
}

/// A cluster, checked.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    /// The audience of tokens for joining.
    pub(crate) audience: String,
    /// Whose keys they are verified with, as an issuer of tokens that name nobody but a workload.
    pub(crate) issuer: Issuer,
    /// By `sub`.
    pub(crate) subjects: BTreeMap<String, Serves>,
}

fn rs256() -> BTreeSet<Algorithm> {
    [Algorithm::Rs256].into()
}

impl EnrolmentConfig {
    pub(super) fn resolve(&self) -> Result<Enrolments, ConfigError> {
        let wrong = |what: String| Err(ConfigError::Enrolment(what));
        let mut resolved = Enrolments::default();
        for (id, enrolled) in &self.spiffe {
            if !is_spiffe_id(id) {
                return wrong(format!("spiffe: `{id}` is not the SPIFFE ID of a workload"));
            }
            resolved.spiffe.insert(id.clone(), enrolled.serves(id)?);
        }
        for cluster in &self.kubernetes {
            let checked = cluster.resolve()?;
            if resolved.clusters.insert(cluster.issuer.clone(), checked).is_some() {
                return wrong(format!("kubernetes: {} is there twice", cluster.issuer));
            }
        }
        Ok(resolved)
    }
}

impl EnrolledConfig {
    fn serves(&self, who: &str) -> Result<Serves, ConfigError> {
        if self.tenants.is_empty() {
            return Err(ConfigError::Enrolment(format!("{who}: `tenants` has to name at least one")));
        }
        Ok(Serves { tenants: self.tenants.clone(), tools: self.tools.clone(), agents: self.agents.clone() })
    }
}

impl ClusterConfig {
    fn resolve(&self) -> Result<Cluster, ConfigError> {
        let wrong = |what: &str| Err(ConfigError::Enrolment(format!("kubernetes: {}: {what}", self.issuer)));
        if self.audience.is_empty() {
            return wrong("`audience` has to be one that tokens for joining alone are projected with");
        }
        let mut subjects = BTreeMap::new();
        for (name, enrolled) in &self.service_accounts {
            let parts: Vec<_> = name.split(':').collect();
            if !matches!(parts.as_slice(), [namespace, account] if !namespace.is_empty() && !account.is_empty()) {
                return wrong("a service account is written NAMESPACE:SERVICEACCOUNT");
            }
            subjects.insert(format!("{SERVICE_ACCOUNT}{name}"), enrolled.serves(name)?);
        }
        if subjects.is_empty() {
            return wrong("`service_accounts` has to name at least one");
        }
        let issuer = bare(&self.issuer, &self.keys, &self.algorithms);
        let issuer = issuer.resolve().map_err(|error| ConfigError::Enrolment(format!("kubernetes: {error}")))?;
        Ok(Cluster { audience: self.audience.clone(), issuer, subjects })
    }
}
