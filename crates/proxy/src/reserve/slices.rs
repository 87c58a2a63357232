//! What this sidecar holds of cumulative limits: a slice for each window that calls are charged to, leased from the
//! authority and asked for again when it is spent or its time is over.
//!
//! In memory alone: what a process that is killed held counts as spent until the window ends.

use std::{
    collections::HashMap,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use audit::record::ChargedLimit;
use jiff::{SignedDuration, Timestamp};
use model::{
    Id, Tenant,
    limits::{Claim, LimitKey, Period},
};
use opentelemetry::{global, metrics::Counter};
use store::remote::{
    charges::{ChargeAnswer, ChargeRequest, ChargedTo},
    limits::{Lease, LeaseAnswer, LeaseRequest, NotLeased},
};

use super::{charge::Part, once::Once, repeats::Repeats};

/// The most limits that are known at once. With half of them, those that nobody uses are forgotten: the authority knows
/// what was spent of them.
const MAX_LIMITS: usize = 65_536;
/// How long a window is known after its end, for calls that are under way.
const KEPT: SignedDuration = SignedDuration::from_secs(60);
/// How long the authority's no is taken for its answer to the same question.
const REMEMBERED: Duration = Duration::from_secs(1);
/// The same, where it did not answer.
const UNHEARD: Duration = Duration::from_millis(250);
/// How often slices whose time is over are given back.
const ROUND: Duration = Duration::from_secs(1);
/// How often one call asks: others may take meanwhile what it asked for.
const ASKS: usize = 4;

/// What the authority is asked with: the answer to a question, or why there is none.
pub type Asking = Pin<Box<dyn Future<Output = Result<LeaseAnswer, NotLeased>> + Send>>;

/// What the authority answers to what it is told of a call under an idempotency key, or why it does not.
pub type Charging = Pin<Box<dyn Future<Output = Result<ChargeAnswer, NotLeased>> + Send>>;

/// How slices are leased.
pub struct Leasing {
    /// The authority's name as an issuer: its grants are known to it.
    pub authority: String,
    /// How much is leased beyond what a call needs, in percent of the limit.
    pub slice: u8,
    /// How long a slice is used without asking.
    pub lease: Duration,
    /// How long a call waits for its turn to ask. The question itself has its own deadline.
    pub patience: Duration,
    /// Asks the authority.
    pub ask: Box<dyn Fn(LeaseRequest) -> Asking + Send + Sync>,
    /// Tells the authority of a call under an idempotency key.
    pub charge: Box<dyn Fn(ChargeRequest) -> Charging + Send + Sync>,
}

/// What is held of cumulative limits. Shared by all calls, over every reload.
pub struct Limits {
    pub(super) leasing: Leasing,
    slices: Mutex<HashMap<LimitKey, Vec<Arc<Slice>>>>,
    pub(super) repeats: Repeats,
    pub(super) once: Once,
    failures: Counter<u64>,
}

/// Why a call is not charged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Short {
    /// So little is left of the window.
    Exceeded { remaining: u64, max: u64 },
    /// Enough is left, and others hold it.
    Elsewhere { remaining: u64, max: u64 },
    /// It cannot be known.
    Unavailable(String),
}

/// What is held of one window.
#[derive(Debug)]
pub(super) struct Slice {
    key: LimitKey,
    tenant: Id<Tenant>,
    pub(super) period: Period,
    pub(super) lease: Id<Lease>,
    state: Mutex<State>,
    /// Whoever asks holds it: one question of a lease at a time.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// The last question's step.
    step: u64,
    /// What may be spent, what was spent of it included.
    granted: u64,
    /// What calls were charged, those under way included.
    spent: u64,
    /// Whether the authority still counts more than `granted`.
    unreported: bool,
    /// The maximum in force when it was last asked.
    max: u64,
    /// What all others held then.
    others: u64,
    /// Until when it may be used, by [`net::clock::boottime`].
    until: Duration,
    refused: Option<Refused>,
}

/// The authority's last no.
#[derive(Debug)]
struct Refused {
    units: u64,
    max: u64,
    until: Duration,
    short: Short,
}

impl Limits {
    /// Holds nothing yet.
    pub fn new(leasing: Leasing) -> Self {
        let failures = global::meter("countersign")
            .u64_counter("countersign_limit_lease_failures")
            .with_description(
                "Slices of cumulative limits that could not be leased because the authority gave no answer or refused",
            )
            .build();
        Self { leasing, slices: Mutex::default(), repeats: Repeats::default(), once: Once::new(), failures }
    }

    /// The authority's name as an issuer.
    pub(crate) fn authority(&self) -> &str {
        &self.leasing.authority
    }

    /// What is known to be used of a claim's window, in units; `None` before it was asked for once.
    pub(crate) fn used(&self, claim: &Claim, now: Timestamp) -> Option<u64> {
        let slices = self.slices.lock().unwrap_or_else(PoisonError::into_inner);
        let slice = slices.get(&claim.key)?.iter().find(|slice| slice.period.holds(now))?;
        let state = slice.state();
        (state.max > 0).then(|| state.others.saturating_add(state.spent))
    }

    /// Takes what `claim` is charged, asking the authority where the slice does not reach.
    pub(super) async fn take(&self, claim: &Claim, tenant: &Id<Tenant>, now: Timestamp) -> Result<Part, Short> {
        let slice = self.slice(claim, tenant, now)?;
        if let Some(taken) = slice.try_take(claim, net::clock::boottime()) {
            return taken.map(|()| slice.part(claim));
        }
        let turn = tokio::time::timeout(self.leasing.patience, slice.asking.lock()).await;
        let _turn = turn.map_err(|_| Short::Unavailable("others wait for the authority".to_owned()))?;
        for _ in 0..ASKS {
            // Whoever asked before may have brought enough, or a no.
            if let Some(taken) = slice.try_take(claim, net::clock::boottime()) {
                return taken.map(|()| slice.part(claim));
            }
            let asked_at = net::clock::boottime();
            let question = slice.question(Some(claim), &self.leasing, asked_at);
            match (self.leasing.ask)(question).await {
                Ok(answer) => slice.answered(Some(claim), &answer, asked_at),
                Err(error) => {
                    self.failures.add(1, &[]);
                    slice.not_answered(claim, &error, net::clock::boottime());
                }
            }
        }
        Err(Short::Unavailable("others took what was asked for".to_owned()))
    }

    fn slice(&self, claim: &Claim, tenant: &Id<Tenant>, now: Timestamp) -> Result<Arc<Slice>, Short> {
        let mut slices = self.slices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = slices.get(&claim.key).and_then(|known| known.iter().find(|it| it.period.holds(now))) {
            return Ok(Arc::clone(known));
        }
        if slices.len() >= MAX_LIMITS {
            return Err(Short::Unavailable("too many limits are in use at once".to_owned()));
        }
        let slice = Arc::new(Slice::new(claim, tenant, now)?);
        slices.entry(claim.key.clone()).or_default().push(Arc::clone(&slice));
        Ok(slice)
    }

    /// Gives back what nobody uses any more, and charges of calls that were not sent, until `stop`; then everything that
    /// is left. Once in the life of these limits.
    pub async fn keep(self: Arc<Self>, stop: impl Future<Output = ()>) {
        let Some(mut taken_back) = self.once.taken_back() else { return };
        let mut stop = std::pin::pin!(stop);
        let mut rounds = tokio::time::interval(ROUND);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(bound) = taken_back.recv() => self.take_back(bound, &mut taken_back).await,
                _ = rounds.tick() => self.round(net::clock::now(), false).await,
            }
        }
        while let Ok(bound) = taken_back.try_recv() {
            self.take_back(bound, &mut taken_back).await;
        }
        self.round(net::clock::now(), true).await;
    }

    async fn round(&self, now: Timestamp, all: bool) {
        let due: Vec<Arc<Slice>> = {
            let mut slices = self.slices.lock().unwrap_or_else(PoisonError::into_inner);
            let boottime = net::clock::boottime();
            let over = now.checked_sub(KEPT).unwrap_or(Timestamp::MIN);
            let crowded = slices.len() > MAX_LIMITS / 2;
            slices.retain(|_, known| {
                known.retain(|slice| {
                    slice.period.ends > over && (Arc::strong_count(slice) > 1 || slice.counts(crowded))
                });
                !known.is_empty()
            });
            slices.values().flatten().filter(|slice| slice.is_due(boottime, now, all)).cloned().collect()
        };
        for slice in due {
            let Ok(_turn) = slice.asking.try_lock() else { continue };
            slice.state().give_up();
            let asked_at = net::clock::boottime();
            let question = slice.question(None, &self.leasing, asked_at);
            match (self.leasing.ask)(question).await {
                Ok(answer) => slice.answered(None, &answer, asked_at),
                // There is nothing to give back to.
                Err(NotLeased::Refused { .. }) => slice.state().unreported = false,
                Err(error) => {
                    tracing::debug!(%error, "slices of limits are given back later");
                    return;
                }
            }
        }
    }
}

impl Slice {
    fn new(claim: &Claim, tenant: &Id<Tenant>, now: Timestamp) -> Result<Self, Short> {
        let lease =
            Id::new(&uuid::Uuid::new_v4().to_string()).map_err(|error| Short::Unavailable(error.to_string()))?;
        Ok(Self {
            key: claim.key.clone(),
            tenant: tenant.clone(),
            period: claim.limit.window.at(now),
            lease,
            state: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what `claim` is charged, where there is enough; says no where the authority just did; or neither.
    fn try_take(&self, claim: &Claim, boottime: Duration) -> Option<Result<(), Short>> {
        let mut state = self.state();
        // A lower maximum than the one it was leased under is the authority's to count.
        let usable = boottime < state.until && state.max <= claim.max;
        if usable && state.take(claim.units) {
            return Some(Ok(()));
        }
        let refused = state.refused.as_ref()?;
        let same = boottime < refused.until && claim.units >= refused.units && claim.max <= refused.max;
        same.then(|| Err(refused.short.clone()))
    }

    /// What the authority is asked next: to charge `claim`, or to take back what is left.
    fn question(&self, claim: Option<&Claim>, leasing: &Leasing, boottime: Duration) -> LeaseRequest {
        let mut state = self.state();
        let max = claim.map_or(state.max, |claim| claim.max);
        if boottime >= state.until || max < state.max {
            state.give_up();
        }
        state.step += 1;
        let need = claim.map_or(0, |claim| claim.units.saturating_sub(state.granted.saturating_sub(state.spent)));
        let spare = if claim.is_some() { share(max, leasing.slice) } else { 0 };
        LeaseRequest {
            tenant: self.tenant.clone(),
            limit: self.key.clone(),
            max,
            starts: self.period.starts,
            lease: self.lease.clone(),
            step: state.step,
            spent: state.spent,
            hold: state.granted,
            need,
            want: need.saturating_add(spare),
            seconds: leasing.lease.as_secs().max(1),
        }
    }

    /// Takes the authority's answer to what was asked at `asked_at`.
    fn answered(&self, claim: Option<&Claim>, answer: &LeaseAnswer, asked_at: Duration) {
        let mut state = self.state();
        state.granted = answer.amount.max(state.spent);
        state.unreported = false;
        state.max = answer.max;
        state.others = answer.taken.saturating_sub(answer.amount);
        state.until = asked_at + Duration::from_secs(answer.seconds);
        // A limit that was lowered meanwhile holds as far as nothing was spent yet.
        let over = answer.taken.saturating_sub(answer.max).min(state.granted - state.spent);
        if over > 0 {
            state.granted -= over;
            state.unreported = true;
        }
        let Some(claim) = claim else { return };
        state.refused = None;
        if state.granted - state.spent < claim.units {
            let certain = state.others.saturating_sub(answer.reserved).saturating_add(state.spent);
            let remaining = answer.max.saturating_sub(state.others.saturating_add(state.spent));
            let short = if certain.saturating_add(claim.units) > answer.max {
                Short::Exceeded { remaining, max: answer.max }
            } else {
                Short::Elsewhere { remaining, max: answer.max }
            };
            state.refuse(claim, asked_at + REMEMBERED, short);
        }
    }

    fn not_answered(&self, claim: &Claim, error: &NotLeased, boottime: Duration) {
        self.state().refuse(claim, boottime + UNHEARD, Short::Unavailable(error.to_string()));
    }

    /// What was taken for `claim`.
    fn part(self: &Arc<Self>, claim: &Claim) -> Part {
        let limit = ChargedLimit {
            name: claim.key.name.clone(),
            hop: claim.hop,
            amount: claim.limit.amount(claim.units),
            starts: self.period.starts,
            lease: self.lease.to_string(),
        };
        Part::new(self, claim.units, limit)
    }

    /// What the authority is told of so much that was taken of it.
    pub(super) fn charged(&self, units: u64) -> ChargedTo {
        ChargedTo { limit: self.key.clone(), starts: self.period.starts, units, lease: Some(self.lease.clone()) }
    }

    /// The call that took so much was not sent.
    pub(super) fn release(&self, units: u64) {
        let mut state = self.state();
        state.spent = state.spent.saturating_sub(units);
        state.refused = None;
    }

    /// Whether it has to be remembered. Where it is crowded, what was spent is the authority's to remember.
    fn counts(&self, crowded: bool) -> bool {
        let state = self.state();
        state.unreported || state.granted > if crowded { state.spent } else { 0 }
    }

    /// Whether there is something to give back, and whom to.
    fn is_due(&self, boottime: Duration, now: Timestamp, all: bool) -> bool {
        let state = self.state();
        let left = state.granted > state.spent && (all || boottime >= state.until);
        self.period.ends > now && (left || state.unreported)
    }
}

impl State {
    fn take(&mut self, units: u64) -> bool {
        let fits = self.granted - self.spent >= units;
        if fits {
            self.spent += units;
        }
        fits
    }

    /// What is left is not used any more: before the authority is told.
    fn give_up(&mut self) {
        self.unreported |= self.granted > self.spent;
        self.granted = self.spent;
    }

    fn refuse(&mut self, claim: &Claim, until: Duration, short: Short) {
        self.refused = Some(Refused { units: claim.units, max: claim.max, until, short });
    }
}

/// So many percent of `max`, rounded down.
fn share(max: u64, percent: u8) -> u64 {
    let share = u128::from(max) * u128::from(percent) / 100;
    u64::try_from(share).unwrap_or(u64::MAX)
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits").field("authority", &self.leasing.authority).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests;
