//! What happens beside calls: a token that is used after its end, or by another than it is bound to, raises an alert, and a view that grows old ends what
//! still flows.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::{BuildHasher as _, Hash},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use audit::{
    Event,
    record::{TokenUse, UsedAfterEnd, UsedByAnother, WithdrawalFacts},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use model::{Code, Delegation, Id, Principal, Refusal, Task, Tenant, id::Run, withdrawal::Passage};
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};
use token::Seen;

use super::{Following, Found, Issued, Withdrawals};
use crate::{sidecar::Sidecar, trail::Trail};

/// Between two looks at how old the view is.
const LOOK: Duration = Duration::from_millis(250);
/// For how long the same token's uses after the same end have one record.
const QUIET: Duration = Duration::from_secs(60);
/// Tokens that are told apart at once. More are only counted.
const MAX_TOLD: usize = 4096;

/// The alerts of a kind that were raised lately, and how many uses there were.
#[derive(Debug)]
pub(crate) struct Said {
    told: Mutex<HashMap<u64, Instant>>,
    hasher: RandomState,
    uses: Counter<u64>,
}

impl Said {
    /// Of tokens that were used after their end.
    pub(super) fn after_end(meter: &Meter) -> Self {
        let uses = meter
            .u64_counter("countersign_used_after_end")
            .with_description("Calls with a token that had been taken back, or whose task had ended")
            .build();
        Self::new(uses)
    }

    /// Of tokens that were used by another than they are bound to.
    pub(crate) fn by_another(meter: &Meter) -> Self {
        let uses = meter
            .u64_counter("countersign_used_by_another")
            .with_description("Calls with a token that is bound to another certificate than the connection's")
            .build();
        Self::new(uses)
    }

    fn new(uses: Counter<u64>) -> Self {
        Self { told: Mutex::default(), hasher: RandomState::new(), uses }
    }

    /// Whether this use of what `key` names gets a record.
    fn is_due(&self, key: impl Hash, now: Instant) -> bool {
        let key = self.hasher.hash_one(key);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= MAX_TOLD {
            told.retain(|_, at| now.saturating_duration_since(*at) < QUIET);
        }
        if told.get(&key).is_some_and(|at| now.saturating_duration_since(*at) < QUIET) || told.len() >= MAX_TOLD {
            return false;
        }
        told.insert(key, now);
        true
    }
}

/// A call was refused: where its token had been taken back, or is another's, somebody gets to know.
pub(crate) async fn noticed(sidecar: &Sidecar, refusal: &Refusal, following: Option<&Following>, trail: &Trail) {
    by_another(sidecar, refusal.code, trail).await;
    let (Some(view), Some(following)) = (&sidecar.withdrawals, following) else { return };
    if !matches!(refusal.code, Code::Withdrawn | Code::TaskEnded | Code::Expired) {
        return;
    }
    let Some((found, alert)) = after_end(view, refusal.code, following, trail) else { return };
    view.late.uses.add(1, &[KeyValue::new("code", refusal.code.as_str())]);
    let withdrawal = found.withdrawal.as_ref().map(|withdrawal| withdrawal.id.as_str());
    if !view.late.is_due((&alert.used.token, withdrawal), net::clock::monotonic()) {
        return;
    }
    tracing::warn!(decision_id = %alert.used.call, code = %refusal.code, "a token was used after it had been taken back");
    raise(sidecar, Event::UsedAfterEnd(Box::new(alert))).await;
}

/// A bound token that comes over another connection than its holder's was taken from them, or given away.
async fn by_another(sidecar: &Sidecar, code: Code, trail: &Trail) {
    let Some((seen, bound_to)) = trail.seen.as_deref().and_then(|seen| Some((seen, seen.bound_to?))) else { return };
    let presented = presented(trail);
    // What it was refused for says nothing of that: an expired one is refused before anybody asks who shows it.
    if presented == Some(bound_to) {
        return;
    }
    sidecar.by_another.uses.add(1, &[KeyValue::new("code", code.as_str())]);
    if !sidecar.by_another.is_due((&seen.digest, apart(trail)), net::clock::monotonic()) {
        return;
    }
    let text = |certificate: [u8; 32]| URL_SAFE_NO_PAD.encode(certificate);
    let used = token_use(seen.into(), code, trail);
    tracing::warn!(decision_id = %used.call, %code, "a token was used by another than it is bound to");
    let alert = UsedByAnother { used, bound_to: text(bound_to), presented: presented.map(text) };
    raise(sidecar, Event::UsedByAnother(Box::new(alert))).await;
}

async fn raise(sidecar: &Sidecar, alert: Event) {
    if let Err(error) = sidecar.ledger.event(alert).await {
        tracing::warn!(%error, "an alert could not be recorded");
    }
}

/// Whom an alert tells from others. Whoever signs certificates themselves makes as many as they like: together they are one.
fn apart(trail: &Trail) -> Option<[u8; 32]> {
    trail.arrival.peer.certificate.as_ref().map(|shown| match shown.identity {
        net::PeerIdentity::SelfSigned => [0; 32],
        net::PeerIdentity::Spiffe(_) | net::PeerIdentity::Subject(_) => shown.x5t_s256,
    })
}

/// The certificate that the call's connection showed.
fn presented(trail: &Trail) -> Option<[u8; 32]> {
    trail.arrival.peer.certificate.as_ref().map(|certificate| certificate.x5t_s256)
}

fn after_end(view: &Withdrawals, code: Code, following: &Following, trail: &Trail) -> Option<(Found, UsedAfterEnd)> {
    let (found, whose, proved) = match (&trail.delegation, &trail.seen) {
        (Some(delegation), _) => {
            let issued = Issued::new(following, &delegation.token.issuer, delegation.position);
            (view.look(delegation, issued)?, Whose::from(delegation.as_ref()), delegation.sender.is_constrained())
        }
        (None, Some(seen)) => {
            let issued = Issued::new(following, &seen.issuer, seen.position);
            let found = view.find(passages(seen, issued.position.is_some()), issued.position)?;
            (found, Whose::from(seen.as_ref()), seen.bound_to.is_some() && seen.bound_to == presented(trail))
        }
        (None, None) => return None,
    };
    let withdrawal = found.withdrawal.as_ref().map(|withdrawal| WithdrawalFacts {
        id: withdrawal.id.clone(),
        target: withdrawal.target.clone(),
        position: withdrawal.position,
        at: withdrawal.at,
    });
    Some((found, UsedAfterEnd { used: token_use(whose, code, trail), proved, withdrawal }))
}

fn token_use(whose: Whose, code: Code, trail: &Trail) -> TokenUse {
    let Whose { token, user, agent, tenant, run, task } = whose;
    TokenUse { call: trail.arrival.id.clone(), code, token, user, agent, tenant, run, task }
}

/// What a refused token is known to pass through. Without a position only what is never issued for again counts: of
/// the rest nobody can say which came first.
fn passages(seen: &Seen, positioned: bool) -> impl Iterator<Item = Passage<'_>> {
    let named = [
        seen.user.as_ref().map(|user| Passage::User(&user.issuer, user.id.as_str())),
        seen.agent.as_ref().map(|agent| Passage::Agent(&agent.issuer, agent.id.as_str())),
        seen.tenant.as_ref().map(|tenant| Passage::Tenant(tenant.as_str())),
        seen.run.as_ref().map(|run| Passage::Run(run.as_str())),
    ];
    let single = [
        seen.task.as_ref().map(|task| Passage::Task(task.as_str())),
        seen.jti.as_deref().map(|jti| Passage::Token(&seen.issuer, jti)),
    ];
    named.into_iter().filter(move |_| positioned).chain(single).flatten()
}

/// Whose token it is.
struct Whose {
    token: String,
    user: Option<Principal>,
    agent: Option<Principal>,
    tenant: Option<Id<Tenant>>,
    run: Option<Id<Run>>,
    task: Option<Id<Task>>,
}

impl From<&Delegation> for Whose {
    fn from(delegation: &Delegation) -> Self {
        Self {
            token: delegation.token.digest.clone(),
            user: Some(delegation.chain.user().principal.clone()),
            agent: Some(delegation.chain.agent().principal.clone()),
            tenant: Some(delegation.tenant.clone()),
            run: Some(delegation.run.clone()),
            task: delegation.task.id.clone(),
        }
    }
}

impl From<&Seen> for Whose {
    fn from(seen: &Seen) -> Self {
        Self {
            token: seen.digest.clone(),
            user: seen.user.clone(),
            agent: seen.agent.clone(),
            tenant: seen.tenant.clone(),
            run: seen.run.clone(),
            task: seen.task.clone(),
        }
    }
}

/// Ends what flows on under a view that is older than its bound, until shutdown.
pub(crate) async fn keep_age(sidecar: Arc<Sidecar>) {
    let stopping = sidecar.tasks.shutdown_token();
    let Some(view) = sidecar.withdrawals.clone() else { return };
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let snapshot = sidecar.snapshot();
        let (Some(following), Some(age)) = (&snapshot.following, view.staleness()) else { continue };
        let (read, write) = (age > following.read, age > following.write);
        if read || write {
            view.open.stale(write, read);
        }
    }
}
