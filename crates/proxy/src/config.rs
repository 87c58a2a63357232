//! The sections of the configuration that the sidecar's calls depend on (DESIGN §5.6): the agent listener and
//! the tools. Parsed without side effects here; [`tools::resolve`] says what they mean.

pub mod tools;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use model::{Action, Effect, Id, ParameterKind, Tenant, catalogue::IdentityMode, duration::ConfigDuration};
use net::SecretSource;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::headers;

/// The most that may be read of a body for its parameters: what a record holds has to be readable.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Where agents connect, and what is asked of them there.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentListenerConfig {
    /// The address to listen on, for example `127.0.0.1:8690`.
    pub tcp: SocketAddr,
    /// What a token may do that nothing binds to its sender (plain bearer).
    #[serde(default)]
    pub bearer: Bearer,
    /// What becomes of the trace that a request claims to belong to (`traceparent`).
    #[serde(default)]
    pub claimed_trace: ClaimedTrace,
    /// The largest body that is read for an action with parameters in its body, in bytes; at most 1048576, because
    /// parameters go into the record whole. Bodies that no parameter needs have no limit.
    #[serde(default = "default_max_body_bytes", deserialize_with = "max_body_bytes")]
    #[schemars(range(max = MAX_BODY_BYTES))]
    pub max_body_bytes: usize,
    /// How long such a body may take to arrive.
    #[serde(default = "default_body_timeout")]
    pub body_timeout: ConfigDuration,
    /// The largest request head, in bytes.
    #[serde(default = "default_max_header_bytes")]
    pub max_header_bytes: usize,
    /// The most header fields of a request.
    #[serde(default = "default_max_headers")]
    pub max_headers: usize,
    /// The header fields that policy and the record may see. Credentials are never among them.
    #[serde(default)]
    pub input_headers: BTreeSet<InputHeader>,
}

impl AgentListenerConfig {
    /// What the server is held to.
    pub fn serve_limits(&self) -> net::ServeLimits {
        net::ServeLimits {
            max_header_bytes: self.max_header_bytes,
            max_headers: self.max_headers,
            ..net::ServeLimits::default()
        }
    }
}

/// A header field that policy and the record may see.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct InputHeader(String);

impl InputHeader {
    /// Its name, lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for InputHeader {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let name = http::HeaderName::try_from(&text).map_err(|_| format!("`{text}` is not a header field"))?;
        if headers::is_kept_from_tool(&name) {
            return Err(format!("`{name}` holds a credential or stays here; policy and the record do not see it"));
        }
        Ok(Self(name.as_str().to_owned()))
    }
}

impl From<InputHeader> for String {
    fn from(header: InputHeader) -> Self {
        header.0
    }
}

const fn default_max_body_bytes() -> usize {
    64 * 1024
}

fn max_body_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let bytes = usize::deserialize(deserializer)?;
    if bytes > MAX_BODY_BYTES {
        let problem = format!("{bytes} is more than {MAX_BODY_BYTES}: parameters go into the record whole");
        return Err(D::Error::custom(problem));
    }
    Ok(bytes)
}

const fn default_body_timeout() -> ConfigDuration {
    ConfigDuration::seconds(30)
}

const fn default_max_header_bytes() -> usize {
    32 * 1024
}

const fn default_max_headers() -> usize {
    100
}

/// What a token may do that nothing binds to its sender.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Bearer {
    /// Nothing: it is refused.
    #[default]
    Refuse,
    /// Actions that read.
    Reads,
    /// Every action.
    All,
}

/// What becomes of a claimed trace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClaimedTrace {
    /// The call begins a trace of its own and links to the claimed one.
    #[default]
    Link,
    /// The call becomes part of the claimed trace. For agents whose tracing is trusted.
    Parent,
}

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
    /// How long it may take until the head of its response, counted from the last byte it took.
    #[serde(default = "default_tool_timeout")]
    pub timeout: ConfigDuration,
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_larger_than_a_record_can_hold_is_not_configured() {
        let read = |bytes: u64| {
            serde_json::from_value::<AgentListenerConfig>(json!({ "tcp": "127.0.0.1:0", "max_body_bytes": bytes }))
        };
        assert_eq!(read(1_048_576).unwrap().max_body_bytes, 1_048_576);
        let error = read(1_048_577).unwrap_err().to_string();
        assert!(error.contains("1048577") && error.contains("1048576"), "{error}");
    }
}
