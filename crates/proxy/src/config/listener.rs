//! Where agents connect, how the connection is protected, and what a token may do there.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use model::duration::ConfigDuration;
use net::ServerTlsConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::{EntryConfig, LimitsConfig};
use crate::headers;

/// The most that may be read of a body for its parameters: what a record holds has to be readable.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// What the kernel says for users of other user namespaces.
const OVERFLOW_UID: u32 = 65_534;

/// Where agents connect, and what is asked of them there. Either `tcp` or `unix`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentListenerConfig {
    /// The address to listen on, for example `127.0.0.1:8690`.
    #[serde(default)]
    pub tcp: Option<SocketAddr>,
    /// The path of the Unix socket to listen on, for example `/run/countersign/agent.sock`. Removed at the end.
    #[serde(default)]
    pub unix: Option<PathBuf>,
    /// Who may connect to the Unix socket, by the mode of its file. `"0660"` where it is not given.
    #[serde(default)]
    pub mode: Option<SocketMode>,
    /// The users (by number, as the kernel tells it) whose processes are served on the Unix socket. Without it,
    /// everybody whom the file's mode lets in. Never 65534, which stands for everybody whom the kernel cannot name.
    #[serde(default)]
    pub allow_uids: Option<BTreeSet<u32>>,
    /// How the address speaks TLS. Without it, HTTP in clear text.
    #[serde(default)]
    pub tls: Option<ServerTlsConfig>,
    /// The hosts that requests may be for (`Host`, `:authority`), without ports. Without it: on a loopback address only
    /// `localhost` and loopback addresses, so that no name of somebody else's can lead a browser here; elsewhere any.
    #[serde(default)]
    pub hosts: Option<BTreeSet<String>>,
    /// What a token may do that nothing binds to its sender (plain bearer).
    #[serde(default)]
    pub bearer: Bearer,
    /// How the delegation of a call comes to be: `delegated`, or `exchanged` with the agents whose identities are held.
    #[serde(default)]
    pub entry: EntryConfig,
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
    /// How much is taken on at once, and how much of that of one peer.
    #[serde(default)]
    pub limits: LimitsConfig,
}

impl AgentListenerConfig {
    /// What the server is held to.
    pub fn serve_limits(&self) -> net::ServeLimits {
        net::ServeLimits {
            max_connections: self.limits.connections.get(),
            max_handshakes: self.limits.handshakes.get(),
            peer_share: self.limits.peer_share.percent(),
            max_header_bytes: self.max_header_bytes,
            max_headers: self.max_headers,
            max_streams: self.limits.streams.get(),
            idle_timeout: self.limits.idle.0,
            stall_timeout: self.limits.stall.0,
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

/// Who may connect to a Unix socket: those who may write to its file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SocketMode {
    /// The sidecar's own user.
    #[serde(rename = "0600")]
    Owner,
    /// And its group.
    #[default]
    #[serde(rename = "0660")]
    Group,
    /// Everybody on this machine; only with `allow_uids`.
    #[serde(rename = "0666")]
    Everybody,
}

impl SocketMode {
    /// The bits.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Group => 0o660,
            Self::Everybody => 0o666,
        }
    }
}

/// What a listener listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenAddress<'a> {
    /// A TCP address.
    Tcp(SocketAddr, Option<&'a ServerTlsConfig>),
    /// A Unix socket.
    Unix {
        /// Its path.
        path: &'a Path,
        /// The mode of its file.
        mode: SocketMode,
        /// Whose processes are served.
        allowed: Option<&'a BTreeSet<u32>>,
    },
}

/// Settings of a listener that do not go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ListenerError {
    /// No address, or two.
    #[error("needs exactly one of `tcp` and `unix`")]
    Address,
    /// `mode` or `allow_uids` without a Unix socket.
    #[error("`mode` and `allow_uids` are for `unix` only")]
    UnixOnly,
    /// TLS on a Unix socket.
    #[error("`tls` is for `tcp` only; the kernel says who connects to a Unix socket")]
    TcpOnly,
    /// A socket for everybody, and nothing that says for whom.
    #[error("`mode: \"0666\"` lets everybody on this machine connect, so it needs `allow_uids`")]
    Everybody,
    /// A list of users that is empty.
    #[error("`allow_uids` is empty, so nobody would be served")]
    Nobody,
    /// A number that is nobody's.
    #[error("`allow_uids` has 65534, which stands for every user whom the kernel cannot name here")]
    Unnamed,
}

impl AgentListenerConfig {
    /// Whether requests may be for `host`, which comes without a port.
    pub fn serves(&self, host: &str) -> bool {
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match &self.hosts {
            Some(hosts) => hosts.iter().any(|served| served.eq_ignore_ascii_case(host)),
            None if self.tcp.is_some_and(|address| address.ip().is_loopback()) => {
                host.eq_ignore_ascii_case("localhost")
                    || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
            }
            None => true,
        }
    }

    /// What to listen on.
    ///
    /// # Errors
    /// When the settings do not go together.
    pub fn address(&self) -> Result<ListenAddress<'_>, ListenerError> {
        match (self.tcp, self.unix.as_deref()) {
            (Some(_), None) if self.mode.is_some() || self.allow_uids.is_some() => Err(ListenerError::UnixOnly),
            (Some(address), None) => Ok(ListenAddress::Tcp(address, self.tls.as_ref())),
            (None, Some(_)) if self.tls.is_some() => Err(ListenerError::TcpOnly),
            (None, Some(path)) => {
                let (mode, allowed) = (self.mode.unwrap_or_default(), self.allow_uids.as_ref());
                if allowed.is_some_and(BTreeSet::is_empty) {
                    return Err(ListenerError::Nobody);
                }
                if allowed.is_some_and(|allowed| allowed.contains(&OVERFLOW_UID)) {
                    return Err(ListenerError::Unnamed);
                }
                if mode == SocketMode::Everybody && allowed.is_none() {
                    return Err(ListenerError::Everybody);
                }
                Ok(ListenAddress::Unix { path, mode, allowed })
            }
            (Some(_), Some(_)) | (None, None) => Err(ListenerError::Address),
        }
    }
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

    #[test]
    fn a_loopback_listener_serves_loopback_names_unless_others_are_listed() {
        let listener = |listener: serde_json::Value| serde_json::from_value::<AgentListenerConfig>(listener).unwrap();
        let loopback = listener(json!({ "tcp": "127.0.0.1:8690" }));
        for (host, served) in [
            ("127.0.0.1", true),
            ("127.8.9.1", true),
            ("[::1]", true),
            ("localhost", true),
            ("LocalHost", true),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.", false),
            ("10.0.0.1", false),
            ("2130706433", false),
            ("", false),
        ] {
            assert_eq!(loopback.serves(host), served, "{host}");
        }
        let named = listener(json!({ "tcp": "127.0.0.1:8690", "hosts": ["Sidecar.example", "::1"] }));
        assert!(named.serves("sidecar.EXAMPLE") && named.serves("[::1]") && !named.serves("localhost"));
        assert!(listener(json!({ "tcp": "0.0.0.0:8690" })).serves("sidecar.example"));
        assert!(listener(json!({ "unix": "/agent.sock" })).serves("anything"));
    }

    #[test]
    fn a_listener_has_one_address_and_the_settings_that_belong_to_it() {
        let refused = |listener: serde_json::Value| {
            let listener: AgentListenerConfig = serde_json::from_value(listener).unwrap();
            listener.address().map(|_| ()).err()
        };
        let tls = json!({ "certificate": "c.pem", "key": { "file": "k.pem" } });
        assert_eq!(refused(json!({ "tcp": "127.0.0.1:0" })), None);
        assert_eq!(refused(json!({ "tcp": "127.0.0.1:0", "tls": tls })), None);
        assert_eq!(refused(json!({ "unix": "/a" })), None);
        assert_eq!(refused(json!({ "unix": "/a", "mode": "0666", "allow_uids": [1000] })), None);
        assert_eq!(refused(json!({})), Some(ListenerError::Address));
        assert_eq!(refused(json!({ "tcp": "127.0.0.1:0", "unix": "/a" })), Some(ListenerError::Address));
        assert_eq!(refused(json!({ "tcp": "127.0.0.1:0", "mode": "0600" })), Some(ListenerError::UnixOnly));
        assert_eq!(refused(json!({ "tcp": "127.0.0.1:0", "allow_uids": [1] })), Some(ListenerError::UnixOnly));
        assert_eq!(refused(json!({ "unix": "/a", "tls": tls })), Some(ListenerError::TcpOnly));
        assert_eq!(refused(json!({ "unix": "/a", "mode": "0666" })), Some(ListenerError::Everybody));
        assert_eq!(refused(json!({ "unix": "/a", "allow_uids": [] })), Some(ListenerError::Nobody));
        assert_eq!(refused(json!({ "unix": "/a", "allow_uids": [1, 65534] })), Some(ListenerError::Unnamed));
        assert!(serde_json::from_value::<AgentListenerConfig>(json!({ "unix": "/a", "mode": "0777" })).is_err());
    }
}
