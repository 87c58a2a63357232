//! What was withdrawn, as far as this sidecar knows, and how fresh that is (P5): the live view that `guard` looks at,
//! that `forward` looks at last, and that ends what is under way.
//!
//! Who listens to the authority is elsewhere; here it is only told ([`Withdrawals::hear`]). Nothing that was withdrawn
//! is ever un-withdrawn: not by an outage, an older answer, a restored database or a flood.

mod after;
mod held;
mod open;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use model::{Code, Delegation, Effect, Refusal, Withdrawal, withdrawal::Passage};
use opentelemetry::{KeyValue, global, metrics::Counter};

pub(crate) use after::{Said, keep_age, noticed};
use held::{Found, Held};
pub(crate) use open::{Cut, Watch};

/// What a call's delegation is held to, besides its own end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Following {
    /// How old the view may be for reads.
    pub read: Duration,
    /// How old the view may be for drafts and writes.
    pub write: Duration,
    /// The issuers whose tokens say their position in the authority's change log.
    pub issuers: BTreeSet<String>,
}

/// What the authority said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// The generation of its database.
    pub generation: String,
    /// When that began.
    pub began: Timestamp,
    /// The position up to which everything is known with this.
    pub position: u64,
    /// What was withdrawn.
    pub withdrawals: Vec<Withdrawal>,
    /// The moment as of which everything is known ([`net::clock::boottime`]), if it is.
    pub fresh_as_of: Option<Duration>,
    /// The keys that its own tokens may be signed with; nothing, where it did not say.
    pub keys: Option<GoodKeys>,
}

/// The keys of one issuer whose tokens are good: what any other key signed was withdrawn with that key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoodKeys {
    /// The issuer.
    pub issuer: String,
    /// The `kid` of each.
    pub ids: BTreeSet<String>,
}

/// What is withdrawn now. Shared by all calls, over every reload.
pub struct Withdrawals {
    /// Whether anything is held: what a call asks first, and mostly last.
    any: AtomicBool,
    /// In nanoseconds of [`net::clock::boottime`]; 0 until it was fresh once.
    fresh_as_of: AtomicU64,
    /// When the generation began, in seconds since 1970: tokens issued before are no longer good.
    began: AtomicI64,
    held: RwLock<Held>,
    keys: ArcSwapOption<GoodKeys>,
    pub(crate) open: open::Open,
    failing: Mutex<Option<String>>,
    late: Said,
    applied: Counter<u64>,
}

/// The view, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewState {
    /// The generation of the authority's database.
    pub generation: Option<String>,
    /// The position up to which everything is known.
    pub position: u64,
    /// How old the view is; `None` before it was fresh once.
    pub staleness: Option<Duration>,
    /// How many withdrawals are held.
    pub held: usize,
    /// Why the last question brought nothing.
    pub failing: Option<String>,
}

impl Default for Withdrawals {
    fn default() -> Self {
        let meter = global::meter("countersign");
        Self {
            any: AtomicBool::new(false),
            fresh_as_of: AtomicU64::new(0),
            began: AtomicI64::new(i64::MIN),
            held: RwLock::default(),
            keys: ArcSwapOption::empty(),
            open: open::Open::default(),
            failing: Mutex::default(),
            late: Said::after_end(&meter),
            applied: meter
                .u64_counter("countersign_withdrawals_applied")
                .with_description("Withdrawals that the authority told of")
                .build(),
        }
    }
}

impl Withdrawals {
    /// Takes what the authority said at `now`: from here on it holds for every call, those under way too.
    ///
    /// # Errors
    /// When more was lost in restores than can be remembered; nothing was taken then, and the view grows old.
    pub fn hear(&self, news: News, now: Timestamp) -> Result<(), String> {
        let News { generation, began, position, withdrawals, fresh_as_of, keys } = news;
        let told: Vec<&'static str> = withdrawals.iter().map(|withdrawal| withdrawal.target.kind()).collect();
        let change = {
            let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
            let change = held.take(&generation, position, withdrawals, now)?;
            // A token's `iat` has whole seconds, so the beginning is taken for one.
            self.began.fetch_max(began.as_second(), Ordering::AcqRel);
            self.any.store(!held.is_empty(), Ordering::Release);
            change
        };
        let change = self.hear_keys(keys) || change;
        for kind in told {
            self.applied.add(1, &[KeyValue::new("kind", kind)]);
        }
        if change {
            // What came under way before this is here by now; what comes after looks at what is held by now.
            self.open.each(|delegation, issued, cut| {
                if let Some(found) = self.look(delegation, issued) {
                    cut.down(found.code);
                }
            });
        }
        if let Some(as_of) = fresh_as_of {
            // Only now: a view is not fresh while what is under way may still go on.
            self.fresh_as_of.fetch_max(nanoseconds(as_of), Ordering::AcqRel);
        }
        *self.failing.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    /// Whether keys are others now than before.
    fn hear_keys(&self, keys: Option<GoodKeys>) -> bool {
        let others = keys.is_some() && self.keys.load().as_deref() != keys.as_ref();
        if let (true, Some(keys)) = (others, keys) {
            self.keys.store(Some(Arc::new(keys)));
        }
        others
    }

    /// The authority could not be heard.
    pub fn fail(&self, why: String) {
        *self.failing.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    /// How long ago the view was known to be whole; `None` before it was once.
    pub fn staleness(&self) -> Option<Duration> {
        match self.fresh_as_of.load(Ordering::Acquire) {
            0 => None,
            as_of => Some(net::clock::boottime().saturating_sub(Duration::from_nanos(as_of))),
        }
    }

    /// Whether the view was whole once.
    pub fn caught_up(&self) -> bool {
        self.fresh_as_of.load(Ordering::Acquire) != 0
    }

    /// The view, for people.
    pub fn state(&self) -> ViewState {
        let (generation, position, held) = {
            let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
            (held.generation().map(str::to_owned), held.position(), held.len())
        };
        let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ViewState { generation, position, staleness: self.staleness(), held, failing }
    }

    /// What takes `delegation` back.
    pub(crate) fn look(&self, delegation: &Delegation, issued: Issued) -> Option<Found> {
        if issued.followed && delegation.token.issued_at.as_second() < self.began.load(Ordering::Acquire) {
            return Some(Found::restored());
        }
        let token = &delegation.token;
        if let Some(keys) = self.keys.load().as_ref().filter(|keys| issued.followed && keys.issuer == token.issuer)
            && !token.key_id.as_ref().is_some_and(|id| keys.ids.contains(id))
        {
            return Some(Found::key());
        }
        self.find(model::withdrawal::passages(delegation), issued.position)
    }

    /// What takes something back that was issued at `position` and passes through `passages`.
    fn find<'a>(&self, passages: impl Iterator<Item = Passage<'a>>, position: Option<u64>) -> Option<Found> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        self.held.read().unwrap_or_else(PoisonError::into_inner).find(passages, position)
    }
}

/// Whether whoever shows no token may go as what `passages` name, for all that is known now, and whether that can be
/// known. What is held of them holds for as long as it would hold a token.
pub(crate) fn untokened<'a>(
    view: &Withdrawals,
    bound: Duration,
    passages: impl Iterator<Item = Passage<'a>>,
) -> Result<(), Box<Refusal>> {
    match view.staleness() {
        Some(age) if age <= bound => {}
        age => return Err(Box::new(stale(age, bound))),
    }
    let found = view.held.read().unwrap_or_else(PoisonError::into_inner).barring(passages);
    found.map_or(Ok(()), |found| Err(Box::new(found.bar())))
}

/// Where a delegation stands to the authority that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Issued {
    /// Whether its issuer is one that is followed.
    followed: bool,
    /// When it was issued, in the authority's change log. A position of somebody else's log says nothing of this one.
    position: Option<u64>,
}

impl Issued {
    fn new(following: &Following, issuer: &str, position: Option<u64>) -> Self {
        let followed = following.issuers.contains(issuer);
        Self { followed, position: position.filter(|_| followed) }
    }
}

/// How a call's delegation is looked at: which position counts, and what bounds it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look<'a> {
    view: &'a Arc<Withdrawals>,
    following: &'a Following,
    effect: Effect,
    issued: Issued,
}

impl<'a> Look<'a> {
    /// How `delegation` is looked at for a call with `effect`, where there is an authority to follow.
    pub(crate) fn new(
        view: Option<&'a Arc<Withdrawals>>,
        following: Option<&'a Following>,
        delegation: &Delegation,
        effect: Effect,
    ) -> Option<Self> {
        let (view, following) = (view?, following?);
        let issued = Issued::new(following, &delegation.token.issuer, delegation.position);
        Some(Self { view, following, effect, issued })
    }

    /// Whether it was taken back.
    pub(crate) fn withdrawn(&self, delegation: &Delegation) -> Result<(), Box<Refusal>> {
        match self.view.look(delegation, self.issued) {
            Some(found) => Err(Box::new(found.refusal())),
            None => Ok(()),
        }
    }

    /// Whether that can be known: the view is fresh enough for the effect or, where nobody tells of an issuer's
    /// withdrawals, the token is young enough.
    pub(crate) fn fresh(&self, delegation: &Delegation, now: Timestamp) -> Result<(), Box<Refusal>> {
        let bound = self.following.bound(self.effect);
        if self.issued.followed {
            return match self.view.staleness() {
                Some(age) if age <= bound => Ok(()),
                age => Err(Box::new(stale(age, bound))),
            };
        }
        let age = Duration::try_from(now.duration_since(delegation.token.issued_at)).unwrap_or_default();
        if age <= bound {
            return Ok(());
        }
        let detail = "The token is older than one may be that nobody tells the withdrawal of. Obtain a new one.";
        let internal = format!(
            "issuer {} has `withdrawals: none`, so its tokens may be {bound:?} old for this effect; this one is {age:?}",
            delegation.token.issuer
        );
        Err(Box::new(Refusal::new(Code::Expired, detail).internally(internal)))
    }

    /// The call is under way from here on: it is ended when it is taken back. Looked at once more by whoever sends.
    pub(crate) fn watch(&self, delegation: &Arc<Delegation>) -> Watch {
        let bound = self.issued.followed.then(|| self.following.bound(self.effect));
        Watch::new(self.view, delegation, self.issued, self.effect, bound)
    }
}

impl Following {
    /// How old the view may be for `effect`.
    pub(crate) const fn bound(&self, effect: Effect) -> Duration {
        match effect {
            Effect::Read => self.read,
            Effect::Draft | Effect::Write => self.write,
        }
    }
}

/// Nobody can say what was withdrawn since.
pub(crate) fn stale(age: Option<Duration>, bound: Duration) -> Refusal {
    let detail = "The sidecar has not heard from the authority for too long to know what was withdrawn.";
    let internal = match age {
        Some(age) => format!("the view is {age:?} old, and may be {bound:?}"),
        None => "the authority was not heard since the start".to_owned(),
    };
    Refusal::new(Code::AuthorityStale, detail).internally(internal)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1)
}

impl fmt::Debug for Withdrawals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Withdrawals").field("state", &self.state()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
