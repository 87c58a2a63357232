//! The `issuers` section of the configuration: whom to believe, for what, and how their claims are called.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use model::{Action, Id, Tenant, Tool, duration::ConfigDuration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Algorithm;

/// An issuer whose tokens are accepted, and what it may say in them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// The issuer, exactly as tokens have it in `iss`. An https URL (http to this machine), unless its keys are in
    /// a file.
    pub issuer: String,
    /// What its tokens are good for.
    pub role: Role,
    /// The tenants it may speak for. A token without a tenant takes the only one of a list of one.
    pub tenants: BTreeSet<Id<Tenant>>,
    /// Where its public keys come from.
    #[serde(default)]
    pub keys: KeysConfig,
    /// The algorithms it signs with.
    #[serde(default = "default_algorithms")]
    pub algorithms: BTreeSet<Algorithm>,
    /// The header types (`typ`) of its tokens. `JWT` lets through providers that do not type their access tokens
    /// (Keycloak, Entra); their ID tokens then differ by nothing but the audience.
    #[serde(default = "default_types")]
    pub types: BTreeSet<TokenType>,
    /// The longest time between `iat` and `exp`.
    #[serde(default = "default_max_lifetime")]
    pub max_lifetime: ConfigDuration,
    /// How far its clock may be off from ours. At most one minute.
    #[serde(default = "default_skew")]
    pub skew: ConfigDuration,
    /// How a delegation issuer names the chain.
    #[serde(default)]
    pub chain: ChainForm,
    /// What it may say beyond who the user is. Default: everything for a delegation issuer, nothing for a subject
    /// issuer. A claim it is not trusted for makes its token invalid.
    #[serde(default)]
    pub asserts: Option<BTreeSet<Assertion>>,
    /// The names of its claims.
    #[serde(default)]
    pub claims: ClaimsConfig,
    /// What its users may do without any agent.
    #[serde(default)]
    pub entitlements: Option<EntitlementsConfig>,
    /// Stands in for `authorization_details` that it does not send. Only with `chain: act`.
    #[serde(default)]
    pub assume: Option<AssumeConfig>,
    /// Subject ids that are service accounts, never users; `*` stands for any characters.
    #[serde(default)]
    pub robots: Vec<String>,
    /// The most agents in a chain (at most 8).
    #[serde(default = "default_max_agents")]
    pub max_agents: usize,
    /// How it is learned what of this issuer's is withdrawn: by a sidecar that follows an authority, and by the authority.
    #[serde(default)]
    pub withdrawals: Withdrawals,
    /// The clients of this issuer's that it tells the authority of logouts for: the `aud` of its logout tokens. Only
    /// with `withdrawals: backchannel_logout`.
    #[serde(default)]
    pub logout_clients: BTreeSet<String>,
    /// How often its keys are fetched anew.
    #[serde(default = "default_refresh")]
    pub refresh: ConfigDuration,
    /// How long keys serve when they cannot be fetched.
    #[serde(default = "default_max_stale")]
    pub max_stale: ConfigDuration,
}

/// What an issuer's tokens are good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// They name a user: good for an exchange, never for a call.
    Subject,
    /// They name a user and the agent acting for them: good for a call.
    Delegation,
}

/// Where public keys come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeysConfig {
    /// The issuer's metadata says (RFC 8414, OpenID Connect Discovery).
    #[default]
    Discovery,
    /// A JWK set at this URL.
    JwksUrl(String),
    /// A JWK set in this file, read again when it changes.
    File(PathBuf),
}

/// A value of the `typ` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum TokenType {
    /// RFC 9068.
    #[serde(rename = "at+jwt")]
    AccessToken,
    /// Any JWT, also one without `typ`.
    #[serde(rename = "JWT")]
    Any,
}

/// How an issuer names the chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChainForm {
    /// `delegation_chain`, which nested `act` must equal.
    #[default]
    Required,
    /// Nested `act` only: inner actors can deny or narrow, never grant (RFC 8693 §4.1).
    Act,
}

/// What an issuer may say beyond who the user is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Assertion {
    /// `tenant`
    Tenant,
    /// `grant_id`, `may_act`, `pos`
    Grant,
    /// `task_id`, `run_id`, `use_case`, `initiated_by`, `sensitivity`, `user_presence`
    Task,
    /// `stage`
    Stage,
    /// `authorization_details`
    Limits,
    /// `act`, `delegation_chain`
    Chain,
}

/// The names of an issuer's claims: a member (`groups`, `https://acme.example/groups`) or, with a leading slash, an
/// RFC 6901 pointer (`/realm_access/roles`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClaimsConfig {
    /// The user's id.
    pub id: String,
    /// The tenant. Default: `tenant` for issuers that may assert one, nothing for others.
    pub tenant: Option<String>,
    /// The user's groups: an array of strings, or one string.
    pub groups: String,
    /// The user's roles: an array of strings, or one string.
    pub roles: String,
    /// The user's session.
    pub session: String,
    /// The authentication context class.
    pub acr: String,
    /// The action names: one string with spaces, or an array of strings (`scp` at some providers).
    pub scope: String,
    /// Further attributes of the user, by the name policy shall see.
    pub attributes: BTreeMap<String, String>,
}

impl Default for ClaimsConfig {
    fn default() -> Self {
        Self {
            id: "sub".to_owned(),
            tenant: None,
            groups: "groups".to_owned(),
            roles: "roles".to_owned(),
            session: "sid".to_owned(),
            acr: "acr".to_owned(),
            scope: "scope".to_owned(),
            attributes: BTreeMap::new(),
        }
    }
}

/// What users may do without any agent, from what the issuer says of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EntitlementsConfig {
    /// The claim to look at.
    pub from: EntitlementSource,
    /// The actions that each of its values entitles to.
    pub map: BTreeMap<String, BTreeSet<Id<Action>>>,
}

/// The claim that entitlements come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EntitlementSource {
    /// `groups`
    Groups,
    /// `roles`
    Roles,
}

/// What is assumed where an issuer sends no `authorization_details`: the actions of `scope`, on these tools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AssumeConfig {
    /// The tools.
    pub locations: BTreeSet<Id<Tool>>,
}

/// How an issuer's withdrawals reach us.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Withdrawals {
    /// Not at all: its tokens may be no older than the bound for what they do (`authority.staleness`).
    #[default]
    None,
    /// Through the authority's change log: the issuer is the authority that is followed, or writes to its log.
    Changes,
    /// The issuer tells the authority of each logout (OpenID Connect Back-Channel Logout 1.0), and sidecars hear of it
    /// in the authority's change log. Only for issuers of users' tokens.
    BackchannelLogout,
}

/// An issuer's configuration that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("issuer {issuer}: {problem}")]
pub struct ConfigError {
    /// The issuer, as configured.
    pub issuer: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

fn default_algorithms() -> BTreeSet<Algorithm> {
    [Algorithm::Es256, Algorithm::EdDsa].into()
}

fn default_types() -> BTreeSet<TokenType> {
    [TokenType::AccessToken].into()
}

const fn default_max_lifetime() -> ConfigDuration {
    ConfigDuration::seconds(300)
}

const fn default_skew() -> ConfigDuration {
    ConfigDuration::seconds(5)
}

const fn default_max_agents() -> usize {
    4
}

const fn default_refresh() -> ConfigDuration {
    ConfigDuration::seconds(300)
}

const fn default_max_stale() -> ConfigDuration {
    ConfigDuration(Duration::from_secs(86_400))
}
