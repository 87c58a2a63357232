//! exchanged: admit, for agents that change nothing. The agent sends the user's token that it has today, or names a
//! task; this sidecar, which holds the agent's identity, obtains the delegated token for it (RFC 8693) and admits that
//! as it would any other. It is kept for the calls that come after, and renewed before it ends.
//!
//! The user's token is the subject of that exchange and nothing else (P1): it goes to the authority, to no tool, and no
//! call is decided by it.

mod ask;
mod errand;
mod held;
mod identity;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use audit::record::EntryMode;
use http::header;
use jiff::Timestamp;
use model::{Code, Delegation, Effect, Id, Principal, Refusal, Task};
use net::HttpClient;
use secrecy::SecretString;
use token::Rejection;
use tokio::sync::Semaphore;

use self::{
    ask::{PATIENCE, Question},
    errand::{Errand, unavailable},
    held::{Good, Held, Hold, Landing, NoRoom},
    identity::Key,
};
use crate::{
    accept::{Incoming, malformed},
    admit::{Admitted, admit, credential, present},
    config::TaskChoice,
    sidecar::Sidecar,
    snapshot::Snapshot,
    trail::Trail,
    withdrawals::Look,
};

pub use identity::{Identities, IdentitiesParts, Identity};

/// The field in which a call names its task.
const TASK: &str = "countersign-task";
/// Questions to the authority at once; more wait.
const AT_ONCE: usize = 32;
/// Before a token that took the place of one that had been taken back is itself replaced so.
const SETTLED: Duration = Duration::from_secs(1);

/// What all exchanges of a sidecar share, over every reload.
pub(crate) struct Exchanged {
    hold: Arc<Hold>,
    client: HttpClient,
    asking: Semaphore,
    failing: Mutex<Option<String>>,
}

/// How exchanges stand, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangeState {
    /// The agents whose identities are held, each with the `kid` of the key that it signs with.
    pub agents: Vec<(Id<Principal>, String)>,
    /// How many answers of the authority are kept.
    pub kept: usize,
    /// Why it could not be asked the last time, if so.
    pub failing: Option<String>,
}

impl Exchanged {
    /// Asks over connections of its own, that no tool's calls travel on.
    pub(crate) fn new(client: &HttpClient) -> Self {
        Self {
            hold: Arc::new(Hold::new()),
            client: client.apart(None),
            asking: Semaphore::new(AT_ONCE),
            failing: Mutex::default(),
        }
    }

    fn heard(&self, failing: Option<String>) {
        *self.failing.lock().unwrap_or_else(PoisonError::into_inner) = failing;
    }
}

impl Sidecar {
    /// The stage, on a listener where identities are held. Whoever sends a delegated token, or is none of those agents,
    /// is admitted as everywhere.
    pub(crate) async fn exchanged(
        self: &Arc<Self>,
        identities: &Arc<Identities>,
        incoming: &Incoming,
        snapshot: &Snapshot,
        trail: &mut Trail,
    ) -> Result<Admitted, Box<Rejection>> {
        let at = (trail.arrival.time, trail.arrival.instant);
        let Some(identity) = identities.of(&trail.arrival.peer) else { return admit(incoming, snapshot, at.0).await };
        let Shown { token, task } = Shown::read(incoming).map_err(unseen)?;
        let key = identities.key(identity, token, task.as_ref());
        let held = self.exchanged.hold.find(&key, at);
        if held.is_none() && token.is_some_and(|token| !snapshot.verifier.claims_to_be_a_users(token)) {
            return admit(incoming, snapshot, at.0).await;
        }
        trail.entry = EntryMode::Exchanged;
        let call = Call { sidecar: self, identities, identity, incoming, snapshot, token, task, key, at };
        match held {
            Some(Held::Good(good)) => call.known(&good).await,
            Some(Held::Refused { rejection, .. }) => Err(Box::new(Rejection::clone(&rejection))),
            None => call.first(None).await,
        }
    }

    /// How exchanges stand, where identities are held.
    pub fn exchange_state(&self) -> Option<ExchangeState> {
        let snapshot = self.snapshot();
        let identities = snapshot.identities.as_ref()?;
        Some(ExchangeState {
            agents: identities.agents().map(|(agent, key)| (agent.clone(), key)).collect(),
            kept: self.exchanged.hold.len(),
            failing: self.exchanged.failing.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        })
    }
}

/// What the agent sends: one of them at least.
struct Shown<'a> {
    token: Option<&'a str>,
    task: Option<Id<Task>>,
}

impl<'a> Shown<'a> {
    fn read(incoming: &'a Incoming) -> Result<Self, Box<Refusal>> {
        let mut values = incoming.headers().get_all(TASK).iter();
        let task = match (values.next(), values.next()) {
            (None, _) => None,
            (Some(value), None) => {
                let task = value.to_str().ok().and_then(|text| Id::new(text).ok());
                Some(task.ok_or_else(|| malformed("`Countersign-Task` is not the name of a task."))?)
            }
            (Some(_), Some(_)) => return Err(malformed("`Countersign-Task` is given more than once.")),
        };
        let alone = task.is_some() && !incoming.headers().contains_key(header::AUTHORIZATION);
        let token = if alone { None } else { Some(credential(incoming)?) };
        Ok(Self { token, task })
    }
}

/// A call whose delegation this sidecar obtains.
struct Call<'a> {
    sidecar: &'a Arc<Sidecar>,
    identities: &'a Arc<Identities>,
    identity: &'a Arc<Identity>,
    incoming: &'a Incoming,
    snapshot: &'a Snapshot,
    token: Option<&'a str>,
    task: Option<Id<Task>>,
    key: Key,
    at: (Timestamp, Instant),
}

impl Call<'_> {
    /// By a token that was obtained before. One that was taken back since is obtained anew, once: it may have been
    /// narrowed only. Where there is nothing left, what took it back refuses the call.
    async fn known(&self, good: &Arc<Good>) -> Result<Admitted, Box<Rejection>> {
        let admitted = self.admitted(good).await;
        let holds = admitted.as_ref().is_ok_and(|admitted| !self.is_taken_back(admitted.delegation()));
        if holds {
            if good.is_due(self.at.0) {
                self.renew();
            }
            return admitted;
        }
        if good.replaced.is_some_and(|at| self.at.1.saturating_duration_since(at) < SETTLED) {
            return admitted;
        }
        self.sidecar.exchanged.hold.forget(&self.key, good);
        match self.first(Some(self.at.1)).await {
            Ok(anew) => Ok(anew),
            Err(rejection) => admitted.or(Err(rejection)),
        }
    }

    /// By a token that has to be obtained. The user's own is verified here first, so that the authority is asked about
    /// no garbage. It may take the place of one that was `replaced` at that moment.
    async fn first(&self, replaced: Option<Instant>) -> Result<Admitted, Box<Rejection>> {
        let errand = Errand { replaced, ..self.errand()? };
        let user = errand.user().await?;
        let hold = &self.sidecar.exchanged.hold;
        if !hold.may_ask(&self.identity.agent, self.at.1) {
            return Err(
                errand.refused(overloaded("The authority refused this agent too often; wait."), user.as_deref())
            );
        }
        let (landing, flight) = hold
            .board(self.key, self.at, false)
            .map_err(|NoRoom| errand.refused(overloaded("Too many exchanges are under way."), user.as_deref()))?;
        if let Some(flight) = flight {
            // Not of this call: others wait for it too, and this one may go.
            self.sidecar.tasks.spawn("exchange", errand.run(user, flight, false));
        }
        self.landed(landing).await
    }

    async fn landed(&self, mut landing: Landing) -> Result<Admitted, Box<Rejection>> {
        let landed = async { landing.wait_for(Option::is_some).await.ok().and_then(|held| held.clone()) };
        let held = tokio::time::timeout(2 * PATIENCE, landed).await.unwrap_or_default();
        match held {
            Some(Held::Good(good)) => self.admitted(&good).await,
            Some(Held::Refused { rejection, .. }) => Err(Box::new(Rejection::clone(&rejection))),
            None => Err(unseen(Box::new(unavailable("the exchange did not come to its end".to_owned())))),
        }
    }

    /// Verified anew on every call, as a token that the agent sends.
    async fn admitted(&self, good: &Good) -> Result<Admitted, Box<Rejection>> {
        present(good.compact.expose(), self.incoming, self.snapshot, self.at.0).await
    }

    fn is_taken_back(&self, delegation: &Delegation) -> bool {
        let (view, following) = (self.sidecar.withdrawals.as_ref(), self.snapshot.following.as_ref());
        // Whether it was is the same for every effect.
        Look::new(view, following, delegation, Effect::Read).is_some_and(|look| look.withdrawn(delegation).is_err())
    }

    /// Beside the call, which goes on with the token that still holds.
    fn renew(&self) {
        let Ok(errand) = self.errand() else { return };
        let (hold, key, at) = (Arc::clone(&self.sidecar.exchanged.hold), self.key, self.at);
        self.sidecar.tasks.spawn("renewal", async move {
            // A user's token that is no longer good renews nothing.
            let Ok(user) = errand.user().await else { return };
            if let Ok((_, Some(flight))) = hold.board(key, at, true) {
                errand.run(user, flight, true).await;
            }
        });
    }

    fn errand(&self) -> Result<Errand, Box<Rejection>> {
        if self.task.is_none() && self.identity.task == TaskChoice::Named {
            return Err(unseen(malformed("Every call has to name its task in `Countersign-Task`.")));
        }
        let question = Question { token: self.token.map(SecretString::from), task: self.task.clone() };
        let (identities, identity) = (Arc::clone(self.identities), Arc::clone(self.identity));
        Ok(Errand { sidecar: Arc::clone(self.sidecar), identities, identity, question, replaced: None })
    }
}

fn overloaded(detail: &str) -> Refusal {
    Refusal::new(Code::Overloaded, detail)
}

#[expect(clippy::boxed_local, reason = "a refusal comes in the box it goes on in")]
fn unseen(refusal: Box<Refusal>) -> Box<Rejection> {
    Box::new(Rejection { refusal: *refusal, seen: None })
}

impl fmt::Debug for Exchanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchanged").field("hold", &self.hold).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
