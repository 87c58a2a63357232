//! What a sidecar joins by besides a join token: the SPIFFE ID in its client certificate, or a projected token of its
//! Kubernetes service account. Who may, and what each serves, is in the configuration and nowhere else.

use std::collections::BTreeSet;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use model::Code;
use net::{Peer, PeerIdentity, Tasks};
use secrecy::{ExposeSecret, SecretString};
use store::{Enrolment, Evidence};
use token::{ConfigError, Defaults, KeyClients, SubjectAudiences, VerifiedSubject, Verifier, VerifierSettings};

use crate::{
    Authority,
    api::problem::{Code as ProblemCode, Problem},
    config::Enrolments,
    peek,
};

/// For how long after its end a token is still known to have enrolled a key: as much as a cluster's clock may be off.
const SKEW: SignedDuration = SignedDuration::from_secs(60);

/// What a sidecar joins by, verified, and the bytes that its proof of possession has to go with.
#[derive(Debug)]
pub(crate) struct Joins {
    /// For the store.
    pub(crate) enrolment: Enrolment,
    /// What the proof names by its hash.
    pub(crate) evidence: Vec<u8>,
}

/// A verifier of the tokens of clusters, and of nothing else: none of its issuers is one for anything else here.
pub(crate) fn clusters(enrolments: &Enrolments, clients: &KeyClients, tasks: &Tasks) -> Result<Verifier, ConfigError> {
    let clusters = || enrolments.clusters.values();
    let settings = VerifierSettings {
        issuers: clusters().map(|cluster| cluster.issuer.clone()).collect(),
        audiences: BTreeSet::new(),
        tenants: clusters().flat_map(|cluster| cluster.issuer.tenants().iter().cloned()).collect(),
        defaults: Defaults::default(),
        cache_entries: 0,
    };
    Verifier::new(settings, clients, tasks)
}

impl Authority {
    /// By the client certificate of the connection. TLS has verified that an authority of its trust domain signed it.
    pub(crate) fn joins_by_certificate(&self, peer: &Peer) -> Result<Joins, Problem> {
        let missing = || {
            let detail = "Join with `token`, with `service_account_token`, or over a connection with an X.509-SVID.";
            Problem::new(ProblemCode::NoCredential, detail)
        };
        let certificate = peer.certificate.as_ref().ok_or_else(missing)?;
        let PeerIdentity::Spiffe(id) = &certificate.identity else { return Err(missing()) };
        let Some(serves) = self.settings.enrolments.spiffe.get(id) else {
            return Err(not_listed(id));
        };
        Ok(Joins {
            enrolment: Enrolment::Proved { by: id.clone(), serves: serves.clone(), once: None },
            evidence: URL_SAFE_NO_PAD.encode(certificate.x5t_s256).into_bytes(),
        })
    }

    /// By a projected token of a service account.
    pub(crate) async fn joins_by_service_account(
        &self,
        token: &SecretString,
        now: Timestamp,
    ) -> Result<Joins, Problem> {
        let compact = token.expose_secret();
        let payload = peek::payload(compact).ok_or_else(|| not_good("it is no JWT"))?;
        let issuer = payload.member("iss").and_then(model::json::Json::as_text).unwrap_or_default();
        let cluster = self.settings.enrolments.clusters.get(issuer);
        let cluster = cluster.ok_or_else(|| not_good("its issuer is not a cluster that is configured"))?;
        let audiences = SubjectAudiences { users: [cluster.audience.clone()].into(), ..SubjectAudiences::default() };
        let verified = self.clusters.verify_subject(compact, &audiences, now).await;
        let verified = verified.map_err(|rejection| {
            let why = rejection.refusal.internal.as_deref().unwrap_or(&rejection.refusal.detail);
            match rejection.refusal.code {
                Code::KeysUnavailable => Problem::unavailable("the keys of the cluster", &why),
                _ => not_good(why),
            }
        })?;
        let VerifiedSubject::User(account) = verified else { return Err(not_good("it is a delegated token")) };
        // Whoever else it was made out to could join with it.
        if peek::audiences(&payload) != [cluster.audience.as_str()] {
            return Err(not_good("it is good for another audience too"));
        }
        let subject = account.user.id.as_str();
        let by = format!("{subject} of {issuer}");
        let serves = cluster.subjects.get(subject).ok_or_else(|| not_listed(&by))?;
        let until = account.token.expires_at.checked_add(SKEW).unwrap_or(Timestamp::MAX);
        let id = URL_SAFE_NO_PAD.encode(digest(&SHA256, compact.as_bytes()));
        let once = Some(Evidence { id, until });
        Ok(Joins {
            enrolment: Enrolment::Proved { by, serves: serves.clone(), once },
            evidence: compact.as_bytes().to_vec(),
        })
    }
}

/// Why goes to the log: whoever holds a token that is none shall not learn what would be one.
fn not_good(why: &str) -> Problem {
    tracing::info!(why, "a service account's token does not let a sidecar join");
    Problem::new(ProblemCode::InvalidToken, "The service account's token is not one that lets a sidecar join here.")
}

/// Who it is was proved.
fn not_listed(who: &str) -> Problem {
    tracing::info!(who, "somebody who is not configured to join asks to");
    Problem::forbidden("You are known, and not among those who may join as a sidecar (`authority.enrolment`).")
}
