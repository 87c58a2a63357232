//! credential: what the tool gets to see. The sidecar's own secret for (tool, tenant), read anew when its file
//! changes; it is never printed, and never leaves towards the agent. Each travels on connections of its own.

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use arc_swap::ArcSwap;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, header};
use model::{Code, Id, Refusal, Tenant};
use net::{ClientTls, HttpClient, SecretError, SecretSource, secret::header_value};
use secrecy::{ExposeSecret, SecretString};

use crate::config::CredentialConfig;

/// What one call presents to the tool: a header field, or nothing where the tool asks for none.
pub(crate) struct Credential {
    current: Arc<Current>,
    tls: Option<Arc<ClientTls>>,
}

/// A tool's credentials: one for each tenant that has its own, one for the others.
#[derive(Debug)]
pub struct Credentials {
    general: Option<Loaded>,
    by_tenant: BTreeMap<Id<Tenant>, Loaded>,
    tls: Option<Arc<ClientTls>>,
}

/// Why a credential cannot be used. Never says what it is.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The secret cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The header is none, or one that the sidecar sets itself.
    #[error("`{0}` is not a header field that a credential can be sent in")]
    Header(String),
    /// A user name with a colon (RFC 7617 §2).
    #[error("a user name may not hold a colon or a control character")]
    User,
}

impl Credential {
    /// The field to send.
    pub(crate) fn field(&self) -> Option<&(HeaderName, HeaderValue)> {
        self.current.field.as_ref()
    }

    /// Changes whenever the secret does: what is cached under it belongs to this credential alone.
    pub(crate) fn identity(&self) -> u64 {
        self.current.identity
    }

    /// The connections that carry this credential and no other. They belong to the family of `client`, and go with
    /// the credential when it changes.
    pub(crate) fn client(&self, client: &HttpClient) -> &HttpClient {
        self.current.connections.get_or_init(|| client.apart(self.tls.clone()))
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("identity", &self.identity()).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads every secret once. An error comes with the key of the configuration that is wrong.
    pub(crate) fn load(
        general: Option<&CredentialConfig>,
        by_tenant: &BTreeMap<Id<Tenant>, CredentialConfig>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, (String, CredentialError)> {
        let general = general
            .map(|config| Loaded::new(config, env))
            .transpose()
            .map_err(|error| ("credential".to_owned(), error))?;
        let mut loaded = BTreeMap::new();
        for (tenant, config) in by_tenant {
            let credential = Loaded::new(config, env).map_err(|error| (format!("credentials.{tenant}"), error))?;
            loaded.insert(tenant.clone(), credential);
        }
        Ok(Self { general, by_tenant: loaded, tls: None })
    }

    /// The same, on connections that the tool is shown and held to `tls` by.
    pub(crate) fn over(self, tls: Option<ClientTls>) -> Self {
        Self { tls: tls.map(Arc::new), ..self }
    }

    /// When the client certificate that the tool is shown ends, where there is one.
    pub(crate) fn certificate_ends(&self) -> Option<jiff::Timestamp> {
        self.tls.as_ref().and_then(|tls| tls.ends())
    }

    /// The credential for `tenant`, read again if its file changed.
    ///
    /// # Errors
    /// `credential_unavailable` where there is none or its file cannot be read.
    pub(crate) fn choose(&self, tenant: &Id<Tenant>) -> Result<Credential, Box<Refusal>> {
        let unavailable = |internal: String| {
            let detail = "The sidecar has no usable credential for the tool.";
            Box::new(Refusal::new(Code::CredentialUnavailable, detail).internally(internal))
        };
        let loaded = self
            .by_tenant
            .get(tenant)
            .or(self.general.as_ref())
            .ok_or_else(|| unavailable(format!("no credential for tenant {tenant}")))?;
        let current = loaded.current().map_err(|error| unavailable(error.to_string()))?;
        Ok(Credential { current, tls: self.tls.clone() })
    }
}

static NEXT_IDENTITY: AtomicU64 = AtomicU64::new(1);

/// A secret as it was last read, and how to read it again.
struct Loaded {
    shape: Shape,
    source: Option<SecretSource>,
    now: ArcSwap<Current>,
}

struct Current {
    field: Option<(HeaderName, HeaderValue)>,
    identity: u64,
    seen: Option<Stamp>,
    connections: OnceLock<HttpClient>,
}

impl Current {
    fn new(field: Option<(HeaderName, HeaderValue)>, seen: Option<Stamp>) -> Self {
        Self { field, identity: NEXT_IDENTITY.fetch_add(1, Ordering::Relaxed), seen, connections: OnceLock::new() }
    }
}

/// How the secret becomes a header field.
enum Shape {
    None,
    Bearer,
    Header(HeaderName),
    Basic(String),
}

/// What shows that a file changed.
type Stamp = (SystemTime, u64, u64);

impl Loaded {
    fn new(config: &CredentialConfig, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, CredentialError> {
        let (shape, source) = match config {
            CredentialConfig::None => (Shape::None, None),
            CredentialConfig::Bearer(source) => (Shape::Bearer, Some(source)),
            CredentialConfig::Header { name, value } => (Shape::Header(own_header(name)?), Some(value)),
            CredentialConfig::Basic { user, .. } if user.contains(|c: char| c == ':' || c.is_control()) => {
                return Err(CredentialError::User);
            }
            CredentialConfig::Basic { user, password } => (Shape::Basic(user.clone()), Some(password)),
        };
        let seen = source.and_then(stamp);
        let field = match source {
            Some(source) => shape.field(&source.load(env)?)?,
            None => None,
        };
        Ok(Self { shape, source: source.cloned(), now: ArcSwap::from_pointee(Current::new(field, seen)) })
    }

    /// The secret, read again if its file is another than at the last reading. An environment does not change.
    fn current(&self) -> Result<Arc<Current>, CredentialError> {
        let now = self.now.load_full();
        let Some(source @ SecretSource::File(_)) = &self.source else { return Ok(now) };
        let seen = stamp(source);
        if seen.is_some() && seen == now.seen {
            return Ok(now);
        }
        let field = self.shape.field(&source.load(&|_| None)?)?;
        let fresh = Arc::new(Current::new(field, seen));
        self.now.store(Arc::clone(&fresh));
        Ok(fresh)
    }
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Shape {
    fn field(&self, secret: &SecretString) -> Result<Option<(HeaderName, HeaderValue)>, CredentialError> {
        Ok(match self {
            Self::None => None,
            Self::Bearer => Some((header::AUTHORIZATION, header_value("Bearer ", secret)?)),
            Self::Header(name) => Some((name.clone(), header_value("", secret)?)),
            Self::Basic(user) => {
                let pair = SecretString::from(format!("{user}:{}", secret.expose_secret()));
                let encoded = SecretString::from(STANDARD.encode(pair.expose_secret()));
                Some((header::AUTHORIZATION, header_value("Basic ", &encoded)?))
            }
        })
    }
}

/// A field for a credential: a valid name, and none that frames the message or names the host.
fn own_header(name: &str) -> Result<HeaderName, CredentialError> {
    let invalid = || CredentialError::Header(name.to_owned());
    let known = HeaderName::try_from(name).map_err(|_| invalid())?;
    let reserved = ["host", "content-length", "transfer-encoding", "connection", "te", "upgrade", "via", "traceparent"];
    if reserved.contains(&known.as_str()) { Err(invalid()) } else { Ok(known) }
}

fn stamp(source: &SecretSource) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let SecretSource::File(path) = source else { return None };
    let metadata = std::fs::metadata::<&PathBuf>(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant() -> Id<Tenant> {
        Id::new("acme").unwrap()
    }

    fn load(config: &CredentialConfig) -> Result<Credentials, (String, CredentialError)> {
        Credentials::load(Some(config), &BTreeMap::new(), &|name| (name == "KEY").then(|| "k1".to_owned()))
    }

    #[test]
    fn a_secret_becomes_the_field_its_tool_expects() {
        let shown = |config: &CredentialConfig| {
            let credential = load(config).unwrap().choose(&tenant()).unwrap();
            credential.field().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        };
        let source = SecretSource::Env("KEY".into());
        assert_eq!(shown(&CredentialConfig::Bearer(source.clone())).as_deref(), Some("authorization: Bearer k1"));
        let header = CredentialConfig::Header { name: "X-Api-Key".into(), value: source.clone() };
        assert_eq!(shown(&header).as_deref(), Some("x-api-key: k1"));
        let basic = CredentialConfig::Basic { user: "u".into(), password: source };
        assert_eq!(shown(&basic).as_deref(), Some("authorization: Basic dTprMQ=="));
        assert_eq!(shown(&CredentialConfig::None), None);
    }

    #[test]
    fn a_rotated_file_is_read_again_and_counts_as_another_credential() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let put = |path: &std::path::Path, text: &str| {
            std::fs::write(path, text).unwrap();
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        };
        put(&path, "first\n");
        let credentials = load(&CredentialConfig::Bearer(SecretSource::File(path.clone()))).unwrap();
        let first = credentials.choose(&tenant()).unwrap();
        assert_eq!(first.identity(), credentials.choose(&tenant()).unwrap().identity());
        put(&directory.path().join("next"), "second-one\n");
        std::fs::rename(directory.path().join("next"), &path).unwrap();
        let second = credentials.choose(&tenant()).unwrap();
        assert_eq!(second.field().unwrap().1, "Bearer second-one");
        assert_ne!(first.identity(), second.identity());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(credentials.choose(&tenant()).unwrap_err().code, Code::CredentialUnavailable);
    }

    #[test]
    fn nothing_prints_a_secret() {
        let credentials = load(&CredentialConfig::Bearer(SecretSource::Env("KEY".into()))).unwrap();
        let credential = credentials.choose(&tenant()).unwrap();
        let shown = format!("{credentials:?} {credential:?} {:?}", credential.field());
        assert!(!shown.contains("k1"), "{shown}");
    }

    #[test]
    fn a_header_that_frames_the_message_is_no_place_for_a_credential() {
        for name in ["Host", "Content-Length", "a b", ""] {
            let config = CredentialConfig::Header { name: name.into(), value: SecretSource::Env("KEY".into()) };
            assert!(load(&config).is_err(), "{name}");
        }
        let newline = CredentialConfig::Bearer(SecretSource::Env("MISSING".into()));
        assert!(load(&newline).is_err());
    }
}
