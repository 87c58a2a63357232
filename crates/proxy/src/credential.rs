//! credential: what the tool gets to see. The sidecar's own secret for (tool, tenant), read anew when its file
//! changes, beside calls and never by one; it is never printed, and never leaves towards the agent. Each travels on
//! connections of its own.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, header};
use model::{Code, Id, Refusal, Tenant};
use net::{
    ClientTls, ClientTlsConfig, ClientTlsError, HttpClient, SecretError, SecretSource, Stamp, Tasks, keep_looking,
    secret::header_value,
};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    admit::Admitted,
    assertion::TXN_TOKEN,
    config::{CredentialConfig, Http2Config},
    headers,
    sidecar::Sidecar,
};

/// Between two looks at the files of credentials and of what tools are shown over TLS.
const LOOK: Duration = Duration::from_secs(1);

/// A file that is being written in place is empty for a moment.
const IN_PLACE: Duration = Duration::from_millis(50);

/// What one call presents to the tool: a header field, or nothing where the tool asks for none.
pub(crate) struct Credential {
    current: Arc<Current>,
    tls: Option<Arc<ClientTls>>,
    http2: Http2Config,
    /// Of `identity: hybrid`: who acts for whom in this call.
    assertion: Option<HeaderValue>,
}

/// What a tool was shown and an agent may not see.
#[derive(Clone, Default)]
pub(crate) struct Secrets([Option<HeaderValue>; 2]);

impl Secrets {
    /// Whether `value` has one of them in it.
    pub(crate) fn are_in(&self, value: &HeaderValue) -> bool {
        self.0.iter().flatten().any(|secret| headers::holds(value, secret))
    }
}

impl From<HeaderValue> for Secrets {
    fn from(value: HeaderValue) -> Self {
        Self([Some(value), None])
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

/// A tool's credentials: one for each tenant that has its own, one for the others.
#[derive(Debug)]
pub struct Credentials {
    general: Option<Loaded>,
    by_tenant: BTreeMap<Id<Tenant>, Loaded>,
    tls: Option<Arc<ClientTls>>,
    http2: Http2Config,
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

    /// The same, with what the tool is told of the call.
    pub(crate) fn with_assertion(self, assertion: HeaderValue) -> Self {
        Self { assertion: Some(assertion), ..self }
    }

    /// What to send in `Txn-Token`.
    pub(crate) const fn assertion(&self) -> Option<&HeaderValue> {
        self.assertion.as_ref()
    }

    /// Everything of it that the agent may not see.
    pub(crate) fn secrets(&self) -> Secrets {
        Secrets([self.field().map(|(_, value)| value.clone()), self.assertion.clone()])
    }

    /// Changes whenever the secret does: what is cached under it belongs to this credential alone.
    pub(crate) fn identity(&self) -> u64 {
        self.current.identity
    }

    /// The connections that carry this credential and no other. They belong to the family of `client`, and go with
    /// the credential when it changes.
    pub(crate) fn client(&self, client: &HttpClient) -> &HttpClient {
        self.current.connections.get_or_init(|| apart(client, self.tls.clone(), self.http2))
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
        Ok(Self { general, by_tenant: loaded, tls: None, http2: Http2Config::default() })
    }

    /// The same, on connections that the tool is shown and held to `tls` by, and that speak HTTP/2 by `http2`.
    pub(crate) fn over(self, tls: Option<ClientTls>, http2: Http2Config) -> Self {
        Self { tls: tls.map(Arc::new), http2, ..self }
    }

    /// When the client certificate that the tool is shown ends, where there is one.
    pub(crate) fn certificate_ends(&self) -> Option<jiff::Timestamp> {
        self.tls.as_ref().and_then(|tls| tls.ends())
    }

    /// Reads again what changed on disk.
    pub(crate) fn look(&self) {
        self.general.iter().chain(self.by_tenant.values()).for_each(Loaded::look);
        if let Some(tls) = &self.tls {
            tls.look();
        }
    }

    /// The credential for the tenant of who was `admitted`, as it was at the last look at its file. Nobody else gets one.
    ///
    /// # Errors
    /// `credential_unavailable` where there is none or its file could not be read.
    pub(crate) fn choose(&self, admitted: &Admitted) -> Result<Credential, Box<Refusal>> {
        let tenant = &admitted.delegation().tenant;
        let unavailable = |internal: String| {
            let detail = "The sidecar has no usable credential for the tool.";
            Box::new(Refusal::new(Code::CredentialUnavailable, detail).internally(internal))
        };
        let loaded = self
            .by_tenant
            .get(tenant)
            .or(self.general.as_ref())
            .ok_or_else(|| unavailable(format!("no credential for tenant {tenant}")))?;
        match &**loaded.now.load() {
            Ok(current) => Ok(Credential {
                current: Arc::clone(current),
                tls: self.tls.clone(),
                http2: self.http2,
                assertion: None,
            }),
            Err(error) => Err(unavailable(error.to_string())),
        }
    }
}

/// The way to a tool that shows it nothing of the sidecar's: no header field, no assertion, no client certificate. There
/// is no place for one in it.
pub(crate) struct Bare {
    tls: Option<Arc<ClientTls>>,
    http2: Http2Config,
    connections: OnceLock<HttpClient>,
}

impl Bare {
    /// Of what holds over TLS, whom to believe and nothing else.
    pub(crate) fn load(tls: Option<&ClientTlsConfig>, http2: Http2Config) -> Result<Self, ClientTlsError> {
        let authorities = tls.and_then(|tls| tls.authorities.clone());
        let believed = |authorities| ClientTlsConfig { authorities: Some(authorities), certificate: None, key: None };
        let tls = authorities.map(|authorities| ClientTls::load(believed(authorities), &|_| None)).transpose()?;
        Ok(Self { tls: tls.map(Arc::new), http2, connections: OnceLock::new() })
    }

    /// Reads again what changed on disk.
    pub(crate) fn look(&self) {
        if let Some(tls) = &self.tls {
            tls.look();
        }
    }

    /// Its connections, which none of the sidecar's credentials travels on.
    pub(crate) fn client(&self, client: &HttpClient) -> &HttpClient {
        self.connections.get_or_init(|| apart(client, self.tls.clone(), self.http2))
    }
}

impl fmt::Debug for Bare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bare")
    }
}

/// Connections of their own in the family of `client`.
fn apart(client: &HttpClient, tls: Option<Arc<ClientTls>>, http2: Http2Config) -> HttpClient {
    match http2 {
        Http2Config::Negotiated => client.apart(tls),
        Http2Config::PriorKnowledge => client.apart_with_prior_knowledge(),
    }
}

static NEXT_IDENTITY: AtomicU64 = AtomicU64::new(1);

/// A secret as it was last read, and how to read it again.
struct Loaded {
    shape: Shape,
    source: Option<SecretSource>,
    now: ArcSwap<Result<Arc<Current>, CredentialError>>,
    /// Its file at the last look; `None` where it has to be read again whatever it looks like.
    seen: Mutex<Option<Stamp>>,
}

struct Current {
    field: Option<(HeaderName, HeaderValue)>,
    identity: u64,
    connections: OnceLock<HttpClient>,
}

impl Current {
    fn new(field: Option<(HeaderName, HeaderValue)>) -> Arc<Self> {
        let identity = NEXT_IDENTITY.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { field, identity, connections: OnceLock::new() })
    }
}

/// How the secret becomes a header field.
enum Shape {
    None,
    Bearer,
    Header(HeaderName),
    Basic(String),
}

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
        let field = match source {
            Some(source) => shape.field(&source.load(env)?)?,
            None => None,
        };
        let now = ArcSwap::from_pointee(Ok(Current::new(field)));
        Ok(Self { shape, source: source.cloned(), now, seen: Mutex::default() })
    }

    /// Reads the secret again if its file is another than at the last look. An environment does not change.
    fn look(&self) {
        let Some(SecretSource::File(path)) = &self.source else { return };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.now.load_full();
        let stamp = Stamp::of(path);
        if before.is_ok() && stamp.is_some() && stamp == *seen {
            return;
        }
        *seen = stamp.filter(|stamp| stamp.is_settled(net::clock::now()));
        let read = self.read().or_else(|_| {
            std::thread::sleep(IN_PLACE);
            self.read()
        });
        match (read, &*before) {
            (Ok(field), Ok(current)) if field == current.field => {}
            (Ok(field), _) => {
                self.now.store(Arc::new(Ok(Current::new(field))));
                tracing::info!(file = %path.display(), "another credential is presented to a tool from now on");
            }
            (Err(error), before) => {
                let said = before.as_ref().is_err_and(|before| before.to_string() == error.to_string());
                if !said {
                    tracing::error!(%error, "a tool's credential cannot be used, its calls are refused");
                }
                self.now.store(Arc::new(Err(error)));
            }
        }
    }

    fn read(&self) -> Result<Option<(HeaderName, HeaderValue)>, CredentialError> {
        match &self.source {
            Some(source) => self.shape.field(&source.load(&|_| None)?),
            None => Ok(None),
        }
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
    if reserved.contains(&known.as_str()) || known == TXN_TOKEN { Err(invalid()) } else { Ok(known) }
}

impl Sidecar {
    /// Looks every second whether a credential changed, or what a tool is shown over TLS, or the key that signs
    /// assertions or for an agent, so that no call has to.
    pub fn watch_credentials(self: &Arc<Self>, tasks: &Tasks) {
        let sidecar = Arc::downgrade(self);
        keep_looking(tasks, "credentials", LOOK, move || {
            let Some(sidecar) = sidecar.upgrade() else { return };
            let snapshot = sidecar.snapshot();
            for upstream in snapshot.upstreams.values() {
                upstream.credentials.look();
                upstream.bare.look();
            }
            if let Some(signer) = &snapshot.signer {
                signer.look(net::clock::now());
            }
            if let Some(identities) = &snapshot.identities {
                identities.look(net::clock::now());
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted() -> Admitted {
        Admitted::in_test(crate::testing::delegation())
    }

    fn load(config: &CredentialConfig) -> Result<Credentials, (String, CredentialError)> {
        Credentials::load(Some(config), &BTreeMap::new(), &|name| (name == "KEY").then(|| "k1".to_owned()))
    }

    #[test]
    fn a_secret_becomes_the_field_its_tool_expects() {
        let shown = |config: &CredentialConfig| {
            let credential = load(config).unwrap().choose(&admitted()).unwrap();
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
        let chosen = || {
            credentials.look();
            credentials.choose(&admitted())
        };
        let first = chosen().unwrap();
        assert_eq!(first.identity(), chosen().unwrap().identity());
        put(&path, "first\n");
        assert_eq!(first.identity(), chosen().unwrap().identity(), "what is written again as it was is the same");
        put(&directory.path().join("next"), "second-one\n");
        std::fs::rename(directory.path().join("next"), &path).unwrap();
        assert_eq!(credentials.choose(&admitted()).unwrap().identity(), first.identity(), "no call looks by itself");
        let second = chosen().unwrap();
        assert_eq!(second.field().unwrap().1, "Bearer second-one");
        assert_ne!(first.identity(), second.identity());
        // As long, in place, and within one tick of any clock.
        put(&path, "second-two\n");
        assert_eq!(chosen().unwrap().field().unwrap().1, "Bearer second-two");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(chosen().unwrap_err().code, Code::CredentialUnavailable);
        put(&path, "third\n");
        assert_eq!(chosen().unwrap().field().unwrap().1, "Bearer third");
    }

    #[test]
    fn a_secret_that_others_may_read_from_now_on_is_not_presented_any_more() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, "s").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o600);
        let credentials = load(&CredentialConfig::Bearer(SecretSource::File(path.clone()))).unwrap();
        mode(0o644);
        credentials.look();
        let refusal = credentials.choose(&admitted()).unwrap_err();
        assert!(refusal.internal.as_ref().unwrap().contains("chmod 600"), "{refusal:?}");
        mode(0o600);
        credentials.look();
        assert!(credentials.choose(&admitted()).is_ok());
    }

    #[test]
    fn nothing_prints_a_secret() {
        let credentials = load(&CredentialConfig::Bearer(SecretSource::Env("KEY".into()))).unwrap();
        let credential = credentials.choose(&admitted()).unwrap();
        let shown = format!("{credentials:?} {credential:?} {:?}", credential.field());
        assert!(!shown.contains("k1"), "{shown}");
    }

    #[test]
    fn a_header_that_frames_the_message_is_no_place_for_a_credential() {
        for name in ["Host", "Content-Length", "Txn-Token", "a b", ""] {
            let config = CredentialConfig::Header { name: name.into(), value: SecretSource::Env("KEY".into()) };
            assert!(load(&config).is_err(), "{name}");
        }
        let newline = CredentialConfig::Bearer(SecretSource::Env("MISSING".into()));
        assert!(load(&newline).is_err());
    }

    #[test]
    fn nothing_that_the_tool_was_shown_comes_back_to_the_agent() {
        let shown = |text| Some(HeaderValue::from_static(text));
        let secrets = Secrets([shown("Bearer tool-secret-1"), shown("aaaa.bbbb.cccc")]);
        let mut fields = http::HeaderMap::new();
        for (name, value) in [
            ("x-credential", "you sent tool-secret-1"),
            ("x-assertion", "you sent aaaa.bbbb.cccc."),
            ("txn-token", "another"),
            ("x-ok", "aaaa.bbbb"),
        ] {
            fields.append(name, HeaderValue::from_static(value));
        }
        let kept = headers::for_agent(&fields, &secrets);
        assert_eq!(kept.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-ok"]);
        assert_eq!(format!("{secrets:?}"), "Secrets");
    }
}
