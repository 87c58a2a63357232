//! The sections of the configuration that the sidecar's calls depend on (DESIGN §5.6): the agent listener and
//! the tools. Parsed without side effects here; [`tools::resolve`] says what they mean.

mod entry;
mod limits;
mod listener;
mod passthrough;
pub mod tools;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use model::{Action, Effect, Id, ParameterKind, Tenant, catalogue::IdentityMode, duration::ConfigDuration};
use net::{ClientTlsConfig, SecretSource};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use entry::{Connects, EntryConfig, EntryError, ExchangedAgentConfig, ExchangedConfig, TaskChoice};
pub use limits::{LimitsConfig, PeerShare};
pub use listener::{AgentListenerConfig, Bearer, ClaimedTrace, InputHeader, ListenAddress, ListenerError, SocketMode};
pub use passthrough::{PassthroughConfig, PassthroughError, UnmappedConfig};

/// An upstream API.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolConfig {
    /// The path prefix under which agents reach it, for example `/orders`.
    pub at: String,
    /// Its base URL. Plain http only to this machine, unless `plaintext: anywhere`.
    pub upstream: String,
    /// Whether plain http may leave this machine.
    #[serde(default)]
    pub plaintext: PlaintextConfig,
    /// The tenants it serves; those of the sidecar, where absent.
    pub tenants: Option<BTreeSet<Id<Tenant>>>,
    /// What it sees of the caller.
    #[serde(default = "default_identity")]
    pub identity: IdentityMode,
    /// The credential that the sidecar presents to it, for every tenant that `credentials` does not name.
    pub credential: Option<CredentialConfig>,
    /// The credential for single tenants.
    #[serde(default)]
    pub credentials: BTreeMap<Id<Tenant>, CredentialConfig>,
    /// What it is shown and held to over TLS, beside what `tls` says for all: a client certificate, authorities of
    /// its own.
    pub tls: Option<ClientTlsConfig>,
    /// Whether it is known to speak HTTP/2.
    #[serde(default)]
    pub http2: Http2Config,
    /// Observes all its actions, instead of enforcing what is decided about them.
    #[serde(skip_serializing)]
    pub observe: Option<ObserveConfig>,
    /// Passes calls that show no token of ours through, with the agent's own credential and on record.
    #[serde(skip_serializing)]
    pub passthrough: Option<PassthroughConfig>,
    /// How long it may take until the head of its response, counted from the last byte it took.
    #[serde(default = "default_tool_timeout")]
    pub timeout: ConfigDuration,
    /// How long it may pause in the middle of a response, as long as the agent reads it. Streams of server-sent events
    /// may pause as they like.
    #[serde(default = "default_tool_pause")]
    pub pause: ConfigDuration,
    /// The reads that facts come from, by name.
    #[serde(default)]
    pub facts: BTreeMap<String, FactConfig>,
    /// Its actions, by name. Names are unique over all tools.
    #[serde(default)]
    pub actions: BTreeMap<Id<Action>, ActionConfig>,
}

const fn default_identity() -> IdentityMode {
    IdentityMode::ServiceAccount
}

const fn default_tool_pause() -> ConfigDuration {
    ConfigDuration::seconds(300)
}

const fn default_tool_timeout() -> ConfigDuration {
    ConfigDuration::seconds(30)
}

/// Whether plain http may leave this machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PlaintextConfig {
    /// Only to this machine.
    #[default]
    Loopback,
    /// Anywhere: the network between is trusted.
    Anywhere,
}

/// Whether a tool is known to speak HTTP/2.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Http2Config {
    /// It is spoken where the TLS handshake offers it, HTTP/1.1 otherwise and over plain http.
    #[default]
    Negotiated,
    /// It is spoken over plain http, and nothing else (h2c, RFC 9113 §3.3).
    PriorKnowledge,
}

/// A credential that the sidecar presents to a tool.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum CredentialConfig {
    /// The tool asks for none.
    None,
    /// `Authorization: Bearer <secret>`
    Bearer(SecretSource),
    /// A header field of its own, for example an API key.
    Header {
        /// The field's name.
        name: String,
        /// Its value.
        value: SecretSource,
    },
    /// `Authorization: Basic <user:password>` (RFC 7617)
    Basic {
        /// The user name; without a colon.
        user: String,
        /// The password.
        password: SecretSource,
    },
}

/// A read of the tool that facts come from.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FactConfig {
    /// The path of the `GET` below the tool's base URL, with the action's path variables: `/v1/orders/{order}`.
    pub get: String,
    /// How long an answer may be used again.
    #[serde(default = "default_fact_ttl")]
    pub ttl: ConfigDuration,
    /// How long the read may take.
    #[serde(default = "default_fact_timeout")]
    pub timeout: ConfigDuration,
    /// Where the resource's tenant is in the answer (RFC 6901 pointer). A resource of another tenant counts as missing.
    pub tenant: Option<String>,
    /// The values to pick from the answer, by name.
    pub pick: BTreeMap<String, LeafConfig>,
}

const fn default_fact_ttl() -> ConfigDuration {
    ConfigDuration::seconds(5)
}

const fn default_fact_timeout() -> ConfigDuration {
    ConfigDuration::seconds(1)
}

/// One value picked from the answer of a fact's read.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LeafConfig {
    /// RFC 6901 pointer to it: `/customer/id`.
    pub at: String,
    /// Where it names a principal: the issuer whose name it is.
    pub principal: Option<String>,
}

/// A business operation on a tool.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActionConfig {
    /// Method and path below the tool's address: `POST /v1/orders/{order}/refunds`.
    pub r#match: String,
    /// What it does.
    pub effect: Effect,
    /// The name of the resource it touches: `orders/{order}`.
    pub resource: String,
    /// The facts it always needs.
    #[serde(default)]
    pub facts: Vec<String>,
    /// Its parameters, by name. They are closed: what is not declared is refused, except for reads.
    #[serde(default)]
    pub parameters: BTreeMap<String, ParameterConfig>,
    /// Whether query and body members that are not declared are let through unseen.
    #[serde(default)]
    pub additional: Additional,
    /// Where the caller's idempotency key is: `header:Idempotency-Key`.
    pub idempotency: Option<String>,
    /// Observes it, instead of enforcing what is decided about it.
    #[serde(skip_serializing)]
    pub observe: Option<ObserveConfig>,
}

/// That refusals by scope, limits, relations, stage, policy and for want of an approval are written down and not enforced.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ObserveConfig {
    /// Who answers for it.
    pub owner: String,
    /// When it ends, RFC 3339: `2026-12-31T00:00:00Z`. From then on it is enforced, without a restart.
    #[schemars(with = "String")]
    pub until: Timestamp,
}

/// Whether members that are not declared are let through unseen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Additional {
    /// They are refused, unless the action reads; so the body of a draft or write is read before it goes.
    #[default]
    Refuse,
    /// They are let through. A body that no parameter needs then streams unseen.
    Allow,
}

/// How a parameter is found and read.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParameterConfig {
    /// Its type.
    pub r#type: ParameterKind,
    /// Where its value is: `path:name`, `query:name`, `header:Name` or `body:/pointer`.
    pub value: String,
    /// For money: where its currency is (like `value`), or the ISO 4217 code that it always is.
    pub currency: Option<String>,
    /// For money: whether the value counts minor units (cents).
    #[serde(default)]
    pub minor: bool,
    /// For decimals: how many fraction digits it may have.
    pub scale: Option<u32>,
    /// Whether a call may leave it out.
    #[serde(default)]
    pub optional: bool,
}
