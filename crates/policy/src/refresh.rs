//! Bundles on a server: asked for changes as OPA asks (ETag, long poll), and what must hold of the one that comes.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use jiff::Timestamp;
use net::{
    FetchError, FetchRequest, HttpClient, Plaintext, SecretError, SecretSource, UrlError, check_operator_url, fetch,
    secret::header_value,
};

use crate::{
    bundle::{MAX_ARCHIVE_BYTES, Manifest},
    config::{BundleConfig, BundleCredential},
};

/// The content type by which a server says that it holds answers back where it is asked to.
const HOLDS_BACK: &str = "application/vnd.openpolicyagent.bundles";
/// How long an answer may take beyond the time that it may be held back.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two questions that the server may hold back.
const BREATH: Duration = Duration::from_secs(1);
/// The first pause after a failure, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// The longest ETag that is sent back.
const MAX_ETAG: usize = 1024;

/// Asks one server for one bundle.
pub struct Asker {
    client: HttpClient,
    url: Uri,
    credential: Option<SecretSource>,
    poll: Duration,
    /// How long the server may hold an answer back where it can, as configured.
    long_poll: Option<Duration>,
    /// The same; `None` where its last answer showed that it cannot.
    wait: Option<Duration>,
    /// Its last answer, that nothing changed, came at once although it could have been held back.
    at_once: bool,
}

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The bundle with the ETag that was sent is still the one.
    Same,
    /// The bundle, and how it is named in the next question.
    Bundle {
        /// Its archive, which nobody looked at.
        archive: Bytes,
        /// Its ETag.
        etag: Option<String>,
    },
}

/// Why a server gave no bundle.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nothing came, or not whole.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Something else came. A redirect is one of these.
    #[error("{url}: answered {status}")]
    Status {
        /// Where.
        url: String,
        /// With what.
        status: StatusCode,
    },
    /// What the server is to be shown is not at hand.
    #[error("bundle.credential: {0}")]
    Credential(#[from] SecretError),
}

impl Asker {
    /// Asks as `config` says.
    ///
    /// # Errors
    /// Where its URL is none that may be called.
    pub fn new(client: HttpClient, config: &BundleConfig) -> Result<Self, UrlError> {
        Ok(Self {
            client,
            url: check_operator_url(&config.url, Plaintext::LoopbackOnly)?,
            credential: config.credential.as_ref().map(|BundleCredential::Bearer(secret)| secret.clone()),
            poll: config.poll.0,
            long_poll: config.long_poll.map(|wait| wait.0),
            wait: config.long_poll.map(|wait| wait.0),
            at_once: false,
        })
    }

    /// Asks for the bundle, or whether the one named `etag` is still it. Only then may the server take its time.
    ///
    /// # Errors
    /// Where there is neither.
    pub async fn ask(
        &mut self,
        etag: Option<&str>,
        env: &(dyn Fn(&str) -> Option<String> + Sync),
    ) -> Result<Answer, AskError> {
        let wait = self.wait.filter(|_| etag.is_some());
        let begun = net::clock::monotonic();
        let answer = self.asked(etag, wait, env).await?;
        let unchanged = match &answer {
            Answer::Same => true,
            Answer::Bundle { etag: named, .. } => named.as_deref() == etag,
        };
        // A server that says so at once does not hold back, this time, and would be asked without end.
        self.at_once = wait.is_some() && unchanged && net::clock::monotonic().duration_since(begun) < BREATH;
        Ok(answer)
    }

    /// The same, and the server is not asked to hold anything back.
    ///
    /// # Errors
    /// Where there is neither.
    pub async fn ask_now(
        &mut self,
        etag: Option<&str>,
        env: &(dyn Fn(&str) -> Option<String> + Sync),
    ) -> Result<Answer, AskError> {
        self.asked(etag, None, env).await
    }

    async fn asked(
        &mut self,
        etag: Option<&str>,
        wait: Option<Duration>,
        env: &(dyn Fn(&str) -> Option<String> + Sync),
    ) -> Result<Answer, AskError> {
        let headers = self.headers(etag, wait, env)?;
        let deadline = PATIENCE + wait.unwrap_or_default();
        let request = FetchRequest { url: self.url.clone(), headers, deadline, max_bytes: MAX_ARCHIVE_BYTES };
        let fetched = fetch(&self.client, request).await?;
        let kind = fetched.headers.get(header::CONTENT_TYPE);
        match fetched.status {
            StatusCode::NOT_MODIFIED if etag.is_some() => {
                // Without a body there need not be a type, and then it says nothing.
                if let Some(kind) = kind {
                    self.wait = self.long_poll.filter(|_| kind == HOLDS_BACK);
                }
                Ok(Answer::Same)
            }
            StatusCode::OK => {
                let etag = fetched.headers.get(header::ETAG).and_then(|etag| etag.to_str().ok());
                let etag = etag.filter(|etag| etag.len() <= MAX_ETAG).map(str::to_owned);
                // One odd answer counts until the next: what stands between may have given it.
                let holds_back = kind.is_some_and(|kind| kind == HOLDS_BACK) && etag.is_some();
                self.wait = self.long_poll.filter(|_| holds_back);
                Ok(Answer::Bundle { archive: fetched.body, etag })
            }
            status => Err(AskError::Status { url: net::url::redacted(&self.url), status }),
        }
    }

    fn headers(
        &self,
        etag: Option<&str>,
        wait: Option<Duration>,
        env: &(dyn Fn(&str) -> Option<String> + Sync),
    ) -> Result<HeaderMap, AskError> {
        let mut headers = HeaderMap::new();
        if let Some(secret) = &self.credential {
            headers.insert(header::AUTHORIZATION, header_value("Bearer ", &secret.load(env)?)?);
        }
        // It came from a header's value, or was kept from one.
        if let Some(etag) = etag.and_then(|etag| HeaderValue::from_str(etag).ok()) {
            headers.insert(header::IF_NONE_MATCH, etag);
        }
        let prefer = match wait {
            Some(wait) => HeaderValue::from_str(&format!("modes=snapshot;wait={}", wait.as_secs())).ok(),
            None => Some(HeaderValue::from_static("modes=snapshot")),
        };
        headers.extend(prefer.map(|prefer| (HeaderName::from_static("prefer"), prefer)));
        Ok(headers)
    }

    /// How long to wait before the next question, after so many in a row that failed. Where the last of them brought
    /// what was `refused`, not shorter than after one that went well. Never twice the same, so that many sidecars do not
    /// come at one moment.
    #[must_use]
    pub fn pause(&self, failures: u32, refused: bool) -> Duration {
        let usual = if self.wait.is_some() && !self.at_once { BREATH } else { self.poll };
        let longer = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures.min(16))).min(LONGEST_PAUSE);
        let pause = match failures {
            0 => usual,
            _ if refused => usual.max(longer),
            _ => longer,
        };
        // Keyed anew by the system's randomness each time.
        let part = u32::try_from(RandomState::new().build_hasher().finish() % 1024).unwrap_or_default();
        pause / 2 + pause / 2 * part / 1024
    }
}

/// Whether the bundle that says `offered` of itself may take the place of the one with the serial `before`; where that
/// goes back, the serial it goes back from. `same`: it is that very bundle.
///
/// # Errors
/// Says why it may not.
pub fn rising(
    offered: &Manifest,
    before: Option<u64>,
    same: bool,
    rollback: Option<u64>,
) -> Result<Option<u64>, String> {
    let Some(serial) = offered.serial else {
        return Err(
            "it has no serial (`metadata.serial` of its manifest), so that nobody knows which is later".to_owned()
        );
    };
    if offered.roots.is_none() {
        return Err("its manifest does not say which `roots` it owns".to_owned());
    }
    match before {
        Some(before) if serial == before && !same => {
            Err(format!("its serial is {serial}, as that of another bundle that was taken before"))
        }
        Some(before) if serial < before => match rollback {
            Some(lowest) if serial >= lowest => Ok(Some(before)),
            _ => Err(format!(
                "its serial {serial} is lower than {before}; `rollback: {serial}` lets it go back, on record"
            )),
        },
        _ => Ok(None),
    }
}

/// The serial that is gone back from where a pin names the bundle that says `offered` of itself, and `before` was taken.
#[must_use]
pub fn back(offered: &Manifest, before: Option<u64>) -> Option<u64> {
    before.filter(|before| offered.serial.is_some_and(|serial| serial < *before))
}

/// How long ago a server confirmed that a bundle is the one. Looked at by every decision that needs the bundle.
#[derive(Debug)]
pub struct Freshness {
    /// When, in milliseconds since 1970.
    confirmed: AtomicI64,
    /// How long that is enough, in milliseconds; `u64::MAX` for ever.
    enough: AtomicU64,
}

impl Freshness {
    /// Confirmed at `confirmed`, which is enough for `max_age`.
    #[must_use]
    pub fn new(confirmed: Timestamp, max_age: Option<Duration>) -> Self {
        let freshness =
            Self { confirmed: AtomicI64::new(confirmed.as_millisecond()), enough: AtomicU64::new(u64::MAX) };
        freshness.hold_to(max_age);
        freshness
    }

    /// The server confirmed it at `now`. What a clock said that was ahead by then does not count.
    pub fn confirm(&self, now: Timestamp) {
        let now = now.as_millisecond();
        let later = |before: i64| (before < now || before.saturating_sub(now) > MAX_SKEW_MS).then_some(now);
        // Where nothing is later, what stands there stays.
        self.confirmed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later).ok();
    }

    /// From now on that is enough for `max_age`.
    pub fn hold_to(&self, max_age: Option<Duration>) {
        let enough = max_age.map_or(u64::MAX, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        self.enough.store(enough, Ordering::Relaxed);
    }

    /// When it was confirmed last.
    #[must_use]
    pub fn confirmed(&self) -> Timestamp {
        Timestamp::from_millisecond(self.confirmed.load(Ordering::Relaxed)).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Whether that is too long ago at `now`. What was confirmed in time to come was confirmed by another clock, and
    /// counts as never.
    #[must_use]
    pub fn is_stale(&self, now: Timestamp) -> bool {
        let enough = self.enough.load(Ordering::Relaxed);
        if enough == u64::MAX {
            return false;
        }
        let age = now.as_millisecond().saturating_sub(self.confirmed.load(Ordering::Relaxed));
        // Decisions begin a moment before the confirmation that they may see.
        age < -MAX_SKEW_MS || u64::try_from(age).is_ok_and(|age| age > enough)
    }
}

/// How far ahead a confirmation may be of a decision, in milliseconds.
const MAX_SKEW_MS: i64 = 60_000;

#[cfg(test)]
mod tests;
