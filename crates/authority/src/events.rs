//! Security events (Shared Signals Framework 1.0, CAEP, RISC): a transmitter says that a session was revoked or an account
//! disabled, and what rests on it ends here, on record before it is acknowledged.
//!
//! They are pushed here (RFC 8935), or asked for (`poll`, RFC 8936). Either way they are taken by the same rules.

mod poll;

use std::time::Duration;

use aws_lc_rs::{
    constant_time,
    digest::{SHA256, digest},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use jiff::Timestamp;
use model::{Code, Id, Target};
use net::{Body, BoxError, Peer, Tasks};
use opentelemetry::{KeyValue, metrics::Counter};
use secrecy::ExposeSecret;
use serde_json::json;
use store::{Evidence, Writer};
use token::{
    ConfigError, Defaults, Ended, EventRules, KeyClients, MAX_TOKEN_BYTES, NoEvents, SecurityEvent, SecurityEvents,
    Verifier, VerifierSettings, claimed_transmitter,
};

use crate::{
    Authority,
    config::{Address, AuthoritySettings, EmailsConfig, Transmitter},
    refused::json_response,
};

/// How long a transmitter may take to send one.
const MAX_BODY_TIME: Duration = Duration::from_secs(10);
/// The longest reason that is kept, in characters.
const MAX_REASON: usize = 300;
/// The most users who may have one address: all of them are meant, and more are a mistake in what addresses are taken from.
const MAX_SHARING: usize = 16;
/// Events are remembered in so many parts, because what is remembered in one has a bound.
const PARTS: u8 = 64;

/// Why an event was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// It never will be: an error code of RFC 8935 §2.4, and why.
    Refused(&'static str, String),
    /// It may be, when it is told again.
    Unavailable,
}

/// A verifier of what transmitters sign, and of nothing else: none of them is an issuer of anything else here.
pub(crate) fn transmitters(
    settings: &AuthoritySettings,
    clients: &KeyClients,
    tasks: &Tasks,
) -> Result<Verifier, ConfigError> {
    let issuers: Vec<_> = settings.events.iter().map(|transmitter| transmitter.issuer.clone()).collect();
    let settings = VerifierSettings {
        tenants: issuers.iter().flat_map(|issuer| issuer.tenants().iter().cloned()).collect(),
        issuers,
        audiences: [].into(),
        defaults: Defaults::default(),
        cache_entries: 0,
    };
    Verifier::new(settings, clients, tasks)
}

/// Counts what is told.
pub(crate) fn counter() -> Counter<u64> {
    opentelemetry::global::meter("countersign")
        .u64_counter("countersign_security_events")
        .with_description("Security events that transmitters told of, by what they are and what became of them.")
        .build()
}

impl Authority {
    /// Answers a push (RFC 8935 §2).
    pub(crate) async fn pushed<B>(&self, peer: &Peer, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let _room = match self.doors.events.enter(peer, net::clock::now()) {
            Ok(room) => room,
            Err(problem) => return problem.response(),
        };
        match self.take_pushed(request).await {
            Ok(()) => accepted(),
            Err(NotTaken::Refused(err, description)) => refused(err, &description),
            Err(NotTaken::Unavailable) => crate::problem(StatusCode::SERVICE_UNAVAILABLE, "Tell it again later."),
        }
    }

    async fn take_pushed<B>(&self, request: Request<B>) -> Result<(), NotTaken>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let invalid = |why: &str| NotTaken::Refused("invalid_request", why.to_owned());
        let (head, body) = request.into_parts();
        let kind = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.trim().eq_ignore_ascii_case("application/secevent+jwt") {
            return Err(invalid("`Content-Type` has to be application/secevent+jwt"));
        }
        let body = tokio::time::timeout(MAX_BODY_TIME, net::body::collect(body, MAX_TOKEN_BYTES)).await;
        let Ok(Ok(body)) = body else { return Err(invalid("the body is too large, or did not arrive")) };
        let compact = std::str::from_utf8(&body).map_err(|_| invalid("the body is not a token"))?.trim();
        let claimed = claimed_transmitter(compact).map_err(|_| invalid("the body is not a token"))?;
        let transmitter = self.settings.events.iter().find(|transmitter| transmitter.name == claimed);
        let unknown =
            || NotTaken::Refused("invalid_issuer", "its `iss` is no transmitter that is known here".to_owned());
        let transmitter = transmitter.ok_or_else(unknown)?;
        self.may_push(transmitter, &head.headers)?;
        self.take(transmitter, compact, net::clock::now()).await
    }

    /// Whether whoever pushes has the transmitter's secret.
    fn may_push(&self, transmitter: &Transmitter, headers: &HeaderMap) -> Result<(), NotTaken> {
        let not = |why: &str| NotTaken::Refused("authentication_failed", why.to_owned());
        let Some(secret) = &transmitter.push else { return Err(not("nothing is pushed in that transmitter's name")) };
        let secret = secret.load(&|_| None).map_err(|error| {
            tracing::error!(transmitter = transmitter.name, %error, "the secret that events are pushed with cannot be read");
            NotTaken::Unavailable
        })?;
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(not("`Authorization` has to be there, once"));
        };
        let expected = format!("Bearer {}", secret.expose_secret());
        constant_time::verify_slices_are_equal(value.as_bytes(), expected.as_bytes())
            .map_err(|_| not("`Authorization` is not that of the transmitter"))
    }

    /// Takes one token of `transmitter`, once; again it is acknowledged and has no effect.
    pub(crate) async fn take(&self, transmitter: &Transmitter, compact: &str, now: Timestamp) -> Result<(), NotTaken> {
        let emails = transmitter.emails.is_some();
        let rules = EventRules { audience: &transmitter.audience, subjects: &transmitter.subjects, emails };
        let outcome = match self.transmitters.verify_events(compact, rules, now).await {
            Ok(told) if told.transmitter == transmitter.name => {
                self.apply(transmitter, &told, now).await.map(|()| told)
            }
            Ok(_) => Err(NotTaken::Refused("invalid_issuer", "it is another transmitter's".to_owned())),
            Err(error) => Err(not_taken(&error)),
        };
        match outcome {
            Ok(told) => {
                told.events.iter().for_each(|event| self.count(event.name(), "taken"));
                Ok(())
            }
            Err(error) => {
                let (word, why) = match &error {
                    NotTaken::Refused(err, why) => (*err, why.as_str()),
                    NotTaken::Unavailable => ("unavailable", ""),
                };
                tracing::warn!(transmitter = transmitter.name, error = word, why, "a security event is not taken");
                self.count("", word);
                Err(error)
            }
        }
    }

    async fn apply(&self, transmitter: &Transmitter, told: &SecurityEvents, now: Timestamp) -> Result<(), NotTaken> {
        let (ended, reason) = ended(told);
        let mut targets = Vec::new();
        for of in ended {
            match of {
                Ended::Target(target) => targets.push(target.clone()),
                Ended::Email(email) => targets.extend(self.users_at(transmitter, email).await?),
            }
        }
        if targets.is_empty() {
            return Ok(());
        }
        let by = format!("security event of {}", told.transmitter);
        let writer = Writer { by: by.clone(), reason: Some(reason), now, idempotency: None };
        let hash = digest(&SHA256, told.jti.as_bytes());
        let part = hash.as_ref().first().map_or(0, |byte| byte % PARTS);
        let once = Evidence { id: URL_SAFE_NO_PAD.encode(hash), until: told.expires_at };
        let withdrawn = self.store.withdraw_once(&writer, &targets, &format!("{by} {part}"), &once).await;
        let position = match withdrawn.map_err(|error| unavailable("the store", &error))? {
            Some(committed) => committed.position,
            // Told before: it may have been told again because its record failed then.
            None => self.store.head().await.map_err(|error| unavailable("the store", &error))?.position,
        };
        self.recorder.up_to(position).await.map_err(|error| unavailable("the ledger", &error))
    }

    /// Whoever has that address. Where nobody is known to have it, that is said: an event that cannot be mapped is one that
    /// ends nothing.
    async fn users_at(&self, transmitter: &Transmitter, email: &str) -> Result<Vec<Target>, NotTaken> {
        let unknown = || NotTaken::Refused("invalid_request", "no user here is known by that address".to_owned());
        let EmailsConfig { of, by } = transmitter.emails.as_ref().ok_or_else(unknown)?;
        let found = match by {
            Address::Id => Id::new(email).into_iter().collect(),
            Address::Attribute(name) => {
                let found = self.store.users_with(of, (name, email), MAX_SHARING + 1).await;
                found.map_err(|error| unavailable("the store", &error))?
            }
        };
        if found.is_empty() {
            return Err(unknown());
        }
        if found.len() > MAX_SHARING {
            let why = format!("more than {MAX_SHARING} users share that address");
            return Err(NotTaken::Refused("invalid_request", why));
        }
        Ok(found.into_iter().map(|id| Target::User { issuer: of.clone(), id }).collect())
    }

    fn count(&self, event: &str, outcome: &'static str) {
        self.events.add(1, &[KeyValue::new("event", event.to_owned()), KeyValue::new("outcome", outcome)]);
    }
}

/// What ended by what was told, and why. Everything else is said in the log.
fn ended(told: &SecurityEvents) -> (Vec<&Ended>, String) {
    let mut ended = Vec::new();
    let mut reasons = Vec::new();
    for event in &told.events {
        match event {
            SecurityEvent::Ended { kind, of, reason } => {
                ended.push(of);
                reasons.push(reason.as_ref().map_or_else(|| kind.clone(), |reason| format!("{kind}: {reason}")));
            }
            other => say(&told.transmitter, other),
        }
    }
    let reason = reasons.join("; ").chars().filter(|c| !c.is_control()).take(MAX_REASON).collect();
    (ended, reason)
}

fn say(transmitter: &str, event: &SecurityEvent) {
    let (name, status) = match event {
        SecurityEvent::StreamUpdated(status) => (event.name(), status.as_str()),
        SecurityEvent::Other(name) => (name.as_str(), ""),
        SecurityEvent::Ended { .. } | SecurityEvent::Verification => (event.name(), ""),
    };
    tracing::info!(transmitter, name, status, "a security event that ends nothing");
}

fn unavailable(what: &str, error: &dyn std::fmt::Display) -> NotTaken {
    tracing::error!(%error, what, "a security event cannot be taken now");
    NotTaken::Unavailable
}

/// The error codes of RFC 8935 §2.4.
fn not_taken(error: &NoEvents) -> NotTaken {
    let refusal = error.refusal();
    tracing::info!(internal = refusal.internal, "a security event is refused");
    let err = match (error, refusal.code) {
        (_, Code::KeysUnavailable) => return NotTaken::Unavailable,
        (NoEvents::Key(_), _) => "invalid_key",
        (NoEvents::Claims(_), Code::WrongAudience) => "invalid_audience",
        (NoEvents::Claims(_), Code::InsufficientScope) => "access_denied",
        (NoEvents::Claims(_), _) => "invalid_request",
    };
    NotTaken::Refused(err, refusal.detail.clone())
}

/// RFC 8935 §2.2.
fn accepted() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// RFC 8935 §2.3.
fn refused(err: &str, description: &str) -> Response<Body> {
    let mut response = json_response(StatusCode::BAD_REQUEST, &json!({ "err": err, "description": description }));
    response.headers_mut().insert(header::CONTENT_LANGUAGE, HeaderValue::from_static("en"));
    response
}
