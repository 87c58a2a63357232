//! Keeping issuers' keys: the only IO of this crate.
//!
//! One task an issuer fetches in the background; an unknown `kid` asks for one fetch more, of which there is never
//! more than one at a time and never two close together. The last good set serves until it is too old.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use jiff::Timestamp;
use model::json::Json;
use net::{Believed, FetchRequest, HttpClient, Tasks};
use tokio::{io::AsyncReadExt, sync::Mutex};

use crate::{Issuer, KeySet, KeySource, keys::MAX_KEY_SET_BYTES};

/// For one document, from the first lookup to the last byte.
const FETCH_DEADLINE: Duration = Duration::from_secs(5);
/// Between two looks at a key file.
const FILE_INTERVAL: Duration = Duration::from_secs(5);
/// Between two tries while an issuer cannot be reached.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// The same, as long as there has never been a key set.
const RETRY_INTERVAL_AT_START: Duration = Duration::from_secs(1);

/// How close together fetches may be that unknown keys ask for.
#[derive(Debug, Clone, Copy)]
struct Spacing {
    regular: Duration,
    /// As long as there has never been a key set.
    at_start: Duration,
}

const SPACING: Spacing = Spacing { regular: Duration::from_secs(10), at_start: Duration::from_secs(1) };

/// The clients that keys are fetched with.
#[derive(Debug, Clone)]
pub struct KeyClients {
    /// For URLs from the configuration, and what lies at the same origin.
    pub operator: HttpClient,
    /// For a `jwks_uri` elsewhere: https and public addresses only.
    pub learned: HttpClient,
}

/// How an issuer's keys stand: for metrics and readiness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyStatus {
    /// The issuer.
    pub issuer: String,
    /// How long ago the keys were last fetched; `None` if never, zero for fixed keys.
    pub age: Option<Duration>,
    /// How many can be used.
    pub keys: usize,
    /// The keys of the set that are not used, each with the reason.
    pub ignored: Vec<String>,
    /// Why the last fetch failed, if it did.
    pub last_error: Option<String>,
}

/// The keys of one issuer, as they are now.
pub(crate) struct IssuerKeys {
    issuer: Issuer,
    clients: KeyClients,
    /// By whose word the servers were known when the first key was fetched.
    believed: [Believed; 2],
    tasks: Tasks,
    loaded: ArcSwapOption<Loaded>,
    last_error: ArcSwapOption<String>,
    spacing: Spacing,
    /// Held during a fetch, so that there is never more than one.
    fetches: Mutex<Fetches>,
}

/// When the last fetches were.
#[derive(Debug, Default)]
struct Fetches {
    /// When the last one ended.
    ended: Option<Instant>,
    /// When the last one began that an unknown key asked for.
    asked_for: Option<Instant>,
}

/// Why a fetch is made.
#[derive(Debug, Clone, Copy)]
enum Cause {
    /// It is time.
    Interval,
    /// A token names a key that is not there; when it asked.
    UnknownKey(Instant),
}

/// A key set and when it was known to be the issuer's.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) set: Arc<KeySet>,
    /// Rises with every set that differs from the one before.
    pub(crate) generation: u64,
    /// Both clocks: one steps, the other stands still while the machine sleeps. What either says is old is old.
    fetched_at: Timestamp,
    fetched: Instant,
}

impl KeyClients {
    fn believed(&self) -> [Believed; 2] {
        [self.operator.believed(), self.learned.believed()]
    }
}

impl IssuerKeys {
    /// Begins to keep the keys of `issuer`. Ends when the value is dropped or `tasks` shut down.
    pub(crate) fn start(issuer: &Issuer, clients: &KeyClients, tasks: &Tasks) -> Arc<Self> {
        let keys = Self::idle(issuer, clients, tasks, SPACING);
        if !matches!(issuer.keys, KeySource::Fixed(_)) {
            drop(tasks.spawn("key refresh", refresh(Arc::downgrade(&keys), tasks.clone())));
        }
        keys
    }

    fn idle(issuer: &Issuer, clients: &KeyClients, tasks: &Tasks, spacing: Spacing) -> Arc<Self> {
        let fixed = match &issuer.keys {
            KeySource::Fixed(set) => Some(Arc::new(Loaded::now(Arc::clone(set), 1))),
            KeySource::Discovery(_) | KeySource::JwksUrl(_) | KeySource::File(_) => None,
        };
        Arc::new(Self {
            issuer: issuer.clone(),
            clients: clients.clone(),
            believed: clients.believed(),
            tasks: tasks.clone(),
            loaded: ArcSwapOption::new(fixed),
            last_error: ArcSwapOption::empty(),
            spacing,
            fetches: Mutex::default(),
        })
    }

    /// Whether these are the keys that `issuer` as configured now would have, fetched with `clients` as they are now.
    pub(crate) fn serve(&self, issuer: &Issuer, clients: &KeyClients) -> bool {
        let asked = matches!(self.issuer.keys, KeySource::Discovery(_) | KeySource::JwksUrl(_));
        (!asked || self.believed == clients.believed())
            && self.issuer.name == issuer.name
            && self.issuer.keys == issuer.keys
            && self.issuer.algorithms == issuer.algorithms
            && self.issuer.refresh == issuer.refresh
            && self.issuer.max_stale == issuer.max_stale
    }

    /// The keys, unless there are none or they are too old. The reason is for the operator.
    pub(crate) fn current(&self, now: Timestamp) -> Result<Arc<Loaded>, String> {
        let Some(loaded) = self.loaded.load_full() else {
            return Err(format!("no keys of {} yet{}", self.issuer.name, self.because()));
        };
        let by_the_wall = Duration::try_from(now.duration_since(loaded.fetched_at)).unwrap_or_default();
        let age = match self.issuer.keys {
            KeySource::Fixed(_) => Duration::ZERO,
            _ => self.age(&loaded).max(by_the_wall),
        };
        if age > self.issuer.max_stale {
            let age = age.as_secs();
            return Err(format!("the keys of {} are {age}s old{}", self.issuer.name, self.because()));
        }
        Ok(loaded)
    }

    /// Whether the last fetch failed: an unknown key may then be a new one.
    pub(crate) fn failing(&self) -> bool {
        self.last_error.load().is_some()
    }

    /// Fetches now unless a fetch was made a moment ago, and returns when that is over. The fetch runs beside the
    /// caller: one who goes away does not end it for the others.
    pub(crate) async fn refetch(self: &Arc<Self>) {
        let Some(fetch) = self.begin_fetch() else { return };
        if fetch.join().await.is_err() {
            tracing::debug!(issuer = self.issuer.name, "a key fetch was cut short");
        }
    }

    /// The same, without waiting. `None` for fixed keys.
    pub(crate) fn begin_fetch(self: &Arc<Self>) -> Option<net::Task<()>> {
        if matches!(self.issuer.keys, KeySource::Fixed(_)) {
            return None;
        }
        let cause = Cause::UnknownKey(net::clock::monotonic());
        Some(self.tasks.spawn("key refetch", Arc::clone(self).attempt(cause)))
    }

    pub(crate) fn status(&self) -> KeyStatus {
        let loaded = self.loaded.load_full();
        KeyStatus {
            issuer: self.issuer.name.clone(),
            age: loaded.as_ref().map(|loaded| self.age(loaded)),
            keys: loaded.as_ref().map_or(0, |loaded| loaded.set.len()),
            ignored: loaded.map(|loaded| loaded.set.ignored().to_vec()).unwrap_or_default(),
            last_error: self.last_error.load_full().map(|error| error.as_str().to_owned()),
        }
    }

    /// By the clock that does not step.
    fn age(&self, loaded: &Loaded) -> Duration {
        match self.issuer.keys {
            KeySource::Fixed(_) => Duration::ZERO,
            _ => net::clock::monotonic().saturating_duration_since(loaded.fetched),
        }
    }

    fn because(&self) -> String {
        self.last_error.load_full().map_or_else(String::new, |error| format!(": {error}"))
    }

    async fn attempt(self: Arc<Self>, cause: Cause) {
        let mut fetches = self.fetches.lock().await;
        if let Cause::UnknownKey(asked) = cause {
            let spacing = if self.loaded.load().is_some() { self.spacing.regular } else { self.spacing.at_start };
            let now = net::clock::monotonic();
            let too_close = fetches.asked_for.is_some_and(|last| now.saturating_duration_since(last) < spacing);
            // One that ended while this one waited is as good.
            if too_close || fetches.ended.is_some_and(|ended| ended >= asked) {
                return;
            }
            fetches.asked_for = Some(now);
        }
        let stop = self.tasks.shutdown_token();
        let fetched = tokio::select! {
            () = stop.cancelled() => return,
            fetched = self.fetch() => fetched,
        };
        match fetched {
            Ok(set) => self.accept(Arc::new(set)),
            Err(error) => self.failed(error),
        }
        fetches.ended = Some(net::clock::monotonic());
    }

    /// Takes keys that are known without a fetch: the authority's own.
    pub(crate) fn replace(&self, set: &Arc<KeySet>) {
        if !self.loaded.load().as_ref().is_some_and(|loaded| Arc::ptr_eq(&loaded.set, set)) {
            self.accept(Arc::clone(set));
        }
    }

    fn accept(&self, set: Arc<KeySet>) {
        let before = self.loaded.load_full();
        let generation = match &before {
            Some(before) if before.set.same_keys(&set) => before.generation,
            Some(before) => before.generation.wrapping_add(1),
            None => 1,
        };
        if before.is_none_or(|before| before.generation != generation) {
            tracing::info!(issuer = self.issuer.name, keys = set.len(), ignored = ?set.ignored(), "issuer's keys changed");
        }
        self.loaded.store(Some(Arc::new(Loaded::now(set, generation))));
        self.last_error.store(None);
    }

    /// Says so once, however often the same is tried again.
    fn failed(&self, error: String) {
        if self.last_error.load().as_deref() != Some(&error) {
            tracing::warn!(issuer = self.issuer.name, %error, "keys could not be fetched, the last good ones stay");
        }
        self.last_error.store(Some(Arc::new(error)));
    }

    async fn fetch(&self) -> Result<KeySet, String> {
        let bytes = match &self.issuer.keys {
            KeySource::Fixed(set) => return Ok(KeySet::clone(set)),
            KeySource::File(path) => read_file(path).await?,
            KeySource::JwksUrl(url) => document(&self.clients.operator, url.clone()).await?,
            KeySource::Discovery(issuer) => {
                let url = self.discover(issuer).await?;
                let client = if same_origin(&url, issuer) { &self.clients.operator } else { &self.clients.learned };
                document(client, url).await?
            }
        };
        KeySet::parse(&bytes, &self.issuer.algorithms).map_err(|error| error.to_string())
    }

    /// The `jwks_uri` of the issuer's metadata: RFC 8414 first, OpenID Connect Discovery where there is none.
    async fn discover(&self, issuer: &Uri) -> Result<Uri, String> {
        let mut errors = Vec::new();
        for url in metadata_urls(issuer)? {
            let found = async {
                let bytes = document(&self.clients.operator, url.clone()).await?;
                jwks_uri(&bytes, &self.issuer.name).map_err(|error| format!("{}: {error}", net::url::redacted(&url)))
            };
            match found.await {
                Ok(uri) => return Ok(uri),
                Err(error) => errors.push(error),
            }
        }
        Err(errors.join("; "))
    }

    /// When to fetch again, by how things stand.
    fn pause(&self) -> Duration {
        let regular = match self.issuer.keys {
            KeySource::File(_) => self.issuer.refresh.min(FILE_INTERVAL),
            _ => self.issuer.refresh,
        };
        match (self.failing(), self.loaded.load().is_some()) {
            (false, _) => regular,
            (true, true) => regular.min(RETRY_INTERVAL),
            (true, false) => regular.min(RETRY_INTERVAL_AT_START),
        }
    }
}

impl fmt::Debug for IssuerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuerKeys").field("issuer", &self.issuer.name).finish_non_exhaustive()
    }
}

/// Fetches at intervals for as long as anybody holds the keys.
async fn refresh(keys: Weak<IssuerKeys>, tasks: Tasks) {
    let stop = tasks.shutdown_token();
    loop {
        let Some(held) = keys.upgrade() else { return };
        Arc::clone(&held).attempt(Cause::Interval).await;
        let pause = held.pause();
        drop(held);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn document(client: &HttpClient, url: Uri) -> Result<bytes::Bytes, String> {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    let shown = net::url::redacted(&url);
    let request = FetchRequest { url, headers, deadline: FETCH_DEADLINE, max_bytes: MAX_KEY_SET_BYTES };
    let fetched = net::fetch(client, request).await.map_err(|error| error.to_string())?;
    if fetched.status == StatusCode::OK {
        Ok(fetched.body)
    } else {
        Err(format!("{shown}: answered {}", fetched.status))
    }
}

async fn read_file(path: &Path) -> Result<bytes::Bytes, String> {
    let unreadable = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    // Whoever can put a key in here signs tokens.
    if net::secret::changeable(&file.metadata().await.map_err(unreadable)?) {
        return Err(format!("{} may be changed by others than its owner and root, and is not read", path.display()));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed shows that there are more.
    file.take(MAX_KEY_SET_BYTES as u64 + 1).read_to_end(&mut bytes).await.map_err(unreadable)?;
    Ok(bytes.into())
}

/// Where an issuer's metadata may lie: RFC 8414 §3 puts the well-known part before the path, OpenID Connect after it.
fn metadata_urls(issuer: &Uri) -> Result<[Uri; 2], String> {
    let (Some(scheme), Some(authority)) = (issuer.scheme_str(), issuer.authority()) else {
        return Err(format!("{issuer} is not an absolute URL"));
    };
    let path = issuer.path().trim_end_matches('/');
    let url = |text: String| text.parse::<Uri>().map_err(|error| format!("{text}: {error}"));
    Ok([
        url(format!("{scheme}://{authority}/.well-known/oauth-authorization-server{path}"))?,
        url(format!("{scheme}://{authority}{path}/.well-known/openid-configuration"))?,
    ])
}

/// The `jwks_uri` of metadata that is `issuer`'s own (RFC 8414 §3.3: identical, or it is not believed).
fn jwks_uri(metadata: &[u8], issuer: &str) -> Result<Uri, String> {
    let json = Json::parse(metadata).map_err(|error| error.to_string())?;
    match json.member("issuer").and_then(Json::as_text) {
        Some(named) if named == issuer => {}
        Some(named) => return Err(format!("the metadata is that of `{named}`, not of `{issuer}`")),
        None => return Err("the metadata names no `issuer`".to_owned()),
    }
    let Some(text) = json.member("jwks_uri").and_then(Json::as_text) else {
        return Err("the metadata has no `jwks_uri`".to_owned());
    };
    text.parse().map_err(|error| format!("`jwks_uri`: {error}"))
}

/// Whether the operator who wrote one URL also vouches for where the other leads.
fn same_origin(one: &Uri, other: &Uri) -> bool {
    let port = |uri: &Uri| {
        uri.port_u16().or(match uri.scheme_str() {
            Some("https") => Some(443),
            Some("http") => Some(80),
            _ => None,
        })
    };
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    one.scheme() == other.scheme() && host(one) == host(other) && port(one) == port(other)
}

impl Loaded {
    fn now(set: Arc<KeySet>, generation: u64) -> Self {
        Self { set, generation, fetched_at: net::clock::now(), fetched: net::clock::monotonic() }
    }
}

#[cfg(test)]
impl Loaded {
    pub(crate) fn new(set: Arc<KeySet>, fetched_at: Timestamp) -> Self {
        Self { fetched_at, ..Self::now(set, 1) }
    }

    /// As if it had been fetched so much earlier by the clock that does not step.
    pub(crate) fn earlier(self, by: Duration) -> Self {
        Self { fetched: self.fetched.checked_sub(by).unwrap(), ..self }
    }

    pub(crate) fn newer(self, generation: u64) -> Self {
        Self { generation, ..self }
    }
}

#[cfg(test)]
impl IssuerKeys {
    pub(crate) fn put(&self, loaded: Loaded) {
        self.loaded.store(Some(Arc::new(loaded)));
    }
}

#[cfg(test)]
mod tests;
