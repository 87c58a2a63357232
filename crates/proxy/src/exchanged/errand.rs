//! One exchange: the user's token is verified here, the authority is asked, and its answer is held to what it was asked
//! for. It belongs to no call: others wait for it too.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use model::{Code, Delegation, Principal, Refusal, Retry};
use secrecy::ExposeSecret as _;
use token::{Presented, Proof, Rejection, Seen, UserSubject, VerifiedSubject};

use super::{
    ask::{NoToken, PATIENCE, Question, ask},
    held::{Flight, Good, Held},
    identity::{Identities, Identity},
};
use crate::sidecar::Sidecar;

/// For how long a refusal of the authority's is believed.
const REFUSED: Duration = Duration::from_secs(5);
/// For how long it is not asked again after it could not be asked.
const UNAVAILABLE: Duration = Duration::from_secs(1);

/// An exchange to be made.
pub(super) struct Errand {
    pub(super) sidecar: Arc<Sidecar>,
    pub(super) identities: Arc<Identities>,
    pub(super) identity: Arc<Identity>,
    pub(super) question: Question,
    /// When a token was found taken back whose place this one takes.
    pub(super) replaced: Option<Instant>,
}

impl Errand {
    /// The user whose token it is, where there is one.
    pub(super) async fn user(&self) -> Result<Option<Box<UserSubject>>, Box<Rejection>> {
        let Some(token) = &self.question.token else { return Ok(None) };
        let snapshot = self.sidecar.snapshot();
        let subjects = &self.identities.subjects;
        let subject = snapshot.verifier.verify_subject(token.expose_secret(), subjects, net::clock::now()).await;
        match subject {
            Ok(VerifiedSubject::User(user)) => Ok(Some(user)),
            Ok(VerifiedSubject::Delegated(_)) => {
                let refusal = Refusal::new(Code::InvalidToken, "The token is not a user's own.");
                Err(self.refused(refusal, None))
            }
            Err(mut rejection) => {
                if let Some(seen) = &mut rejection.seen {
                    seen.agent = Some(self.identity.agent.clone());
                }
                Err(rejection)
            }
        }
    }

    /// Makes the exchange, keeps what it brought, and tells whoever waits.
    pub(super) async fn run(self, user: Option<Box<UserSubject>>, flight: Flight, renewal: bool) {
        let started = net::clock::monotonic();
        let outcome = self.obtain(user.as_deref()).await;
        let now = net::clock::monotonic();
        let exchanged = &self.sidecar.exchanged;
        let (held, keep, word) = match outcome {
            Ok(good) => {
                exchanged.heard(None);
                (Held::Good(Arc::new(good)), true, "issued")
            }
            Err(NoToken::Refused(refusal)) => {
                exchanged.heard(None);
                exchanged.hold.refused(&self.identity.agent, now);
                let rejection = Arc::from(self.refused(*refusal, user.as_deref()));
                (Held::Refused { rejection, until: now + REFUSED }, true, "refused")
            }
            Err(NoToken::Unavailable(why)) => {
                if let Some(lines) = self.sidecar.quiet.due("exchange") {
                    let (agent, suppressed) = (&self.identity.agent.id, lines - 1);
                    tracing::warn!(%agent, error = why, suppressed, "no delegated token could be obtained");
                }
                exchanged.heard(Some(why.clone()));
                let rejection = Arc::from(self.refused(unavailable(why), user.as_deref()));
                // What is there until it ends is better than that.
                (Held::Refused { rejection, until: now + UNAVAILABLE }, !renewal, "unavailable")
            }
        };
        self.sidecar.metrics.exchange(renewal, word, now.saturating_duration_since(started));
        flight.land(held, keep);
    }

    async fn obtain(&self, user: Option<&UserSubject>) -> Result<Good, NoToken> {
        let exchanged = &self.sidecar.exchanged;
        let Ok(Ok(_room)) = tokio::time::timeout(PATIENCE, exchanged.asking.acquire()).await else {
            return Err(NoToken::Unavailable("too many exchanges are under way".to_owned()));
        };
        let compact = ask(&exchanged.client, &self.identities, &self.identity, &self.question).await?;
        let now = net::clock::now();
        // Whether this listener takes bearer tokens is asked of every call.
        let presented = Presented { compact: compact.expose(), bearer_allowed: true, proof: Proof::None };
        let verified = self.sidecar.snapshot().verifier.verify(presented, now).await;
        let verified = verified.map_err(|rejection| match rejection.refusal.retry {
            Retry::After => NoToken::Unavailable(rejection.refusal.internal.unwrap_or(rejection.refusal.detail)),
            _ => NoToken::Refused(Box::new(rejection.refusal)),
        })?;
        let delegation = verified.delegation();
        if let Some(wrong) = self.mistaken(delegation, user) {
            let refusal = Refusal::new(Code::InvalidToken, "The authority's answer is not for this call.");
            return Err(NoToken::Refused(Box::new(refusal.internally(format!("its {wrong} is another's")))));
        }
        let rests_until = user.map(|user| user.token.expires_at);
        let good = Good::new(compact, delegation.token.expires_at, rests_until, now);
        Ok(good.in_place_of(self.replaced))
    }

    /// What of the answer is not what was asked for: nobody's delegation answers for anybody else.
    fn mistaken(&self, delegation: &Delegation, user: Option<&UserSubject>) -> Option<&'static str> {
        let chain = &delegation.chain;
        let same = |one: &Principal, other: &Principal| one.issuer == other.issuer && one.id == other.id;
        match () {
            () if delegation.token.issuer != self.identities.issuer => Some("issuer"),
            () if chain.hops().count() != 2 || !same(&chain.agent().principal, &self.identity.agent) => Some("agent"),
            () if user.is_some_and(|user| !same(&chain.user().principal, &user.user)) => Some("user"),
            () if user.is_some_and(|user| delegation.tenant != user.tenant) => Some("tenant"),
            () if self.question.task.is_some() && delegation.task.id != self.question.task => Some("task"),
            () => None,
        }
    }

    /// A refusal, with whom it concerns: the agent by its connection, the user by their own token.
    pub(super) fn refused(&self, refusal: Refusal, user: Option<&UserSubject>) -> Box<Rejection> {
        let agent = Some(self.identity.agent.clone());
        let seen = Seen {
            issuer: user.map_or_else(|| self.identities.issuer.clone(), |user| user.token.issuer.clone()),
            digest: user.map(|user| user.token.digest.clone()).unwrap_or_default(),
            jti: user.and_then(|user| user.token.jti.clone()),
            user: user.map(|user| user.user.clone()),
            agent,
            tenant: user.map(|user| user.tenant.clone()),
            run: None,
            task: None,
            position: None,
            bound_to: None,
        };
        Box::new(Rejection { refusal, seen: Some(Box::new(seen)) })
    }
}

pub(super) fn unavailable(internal: String) -> Refusal {
    let detail = "The authority cannot be asked for a delegated token at present.";
    Refusal::new(Code::AuthorityStale, detail).internally(internal)
}
