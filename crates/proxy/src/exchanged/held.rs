//! What exchanges brought, kept for the calls that come after, and the exchanges under way: one for each key, however
//! many calls wait for it. All of it is bounded.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use model::{Id, Principal};
use quick_cache::{Weighter, sync::Cache};
use token::{Compact, Rejection};
use tokio::sync::watch;

use super::identity::Key;

/// The most answers kept, and the most bytes of them.
const MAX_KEPT: usize = 10_000;
const MAX_KEPT_BYTES: u64 = 32 * 1024 * 1024;
/// The most exchanges under way.
const MAX_FLIGHTS: usize = 1024;
/// How often the authority may say no for one agent in [`WINDOW`]; then it is not asked for what is not known yet.
const REFUSALS: u32 = 240;
const WINDOW: Duration = Duration::from_secs(60);
/// Before a renewal that came to nothing is tried again, in seconds.
const AGAIN: i64 = 2;

/// A token that ends sooner would not outlast its call.
const SPARE: SignedDuration = SignedDuration::from_secs(1);

/// What an exchange brought.
#[derive(Debug, Clone)]
pub(super) enum Held {
    /// A delegated token.
    Good(Arc<Good>),
    /// None, and that it is so is believed for a moment.
    Refused {
        /// What the agent is told.
        rejection: Arc<Rejection>,
        /// Until when.
        until: Instant,
    },
}

/// A delegated token that this sidecar obtained and nobody else has.
#[derive(Debug)]
pub(super) struct Good {
    pub(super) compact: Compact,
    pub(super) expires_at: Timestamp,
    /// When a token was found taken back whose place this one took.
    pub(super) replaced: Option<Instant>,
    /// From when on a call has it renewed, in seconds since 1970.
    renew_at: AtomicI64,
}

impl Good {
    /// One that is renewed in the last third of its life, unless what it rests on ends with it.
    pub(super) fn new(compact: Compact, expires_at: Timestamp, rests_until: Option<Timestamp>, now: Timestamp) -> Self {
        let (now, end) = (now.as_second(), expires_at.as_second());
        let left = end.saturating_sub(now);
        let last = left < AGAIN || rests_until.is_some_and(|until| until.as_second() <= end);
        let renew_at = if last { i64::MAX } else { now.saturating_add(left - left / 3) };
        Self { compact, expires_at, replaced: None, renew_at: AtomicI64::new(renew_at) }
    }

    /// The same, in the place of one that was found taken back at `replaced`.
    pub(super) fn in_place_of(self, replaced: Option<Instant>) -> Self {
        Self { replaced, ..self }
    }

    /// Whether it is this call that has to have it renewed.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        let (now, due) = (now.as_second(), self.renew_at.load(Ordering::Relaxed));
        let next = now.saturating_add(AGAIN);
        now >= due && self.renew_at.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// Weighs an answer by what it takes.
#[derive(Clone)]
struct Weight;

impl Weighter<Key, Held> for Weight {
    fn weight(&self, _: &Key, held: &Held) -> u64 {
        let content = match held {
            Held::Good(good) => good.compact.expose().len(),
            Held::Refused { rejection, .. } => {
                rejection.refusal.detail.len() + rejection.refusal.internal.as_ref().map_or(0, String::len) + 512
            }
        };
        (256 + content) as u64
    }
}

/// What whoever waits for an exchange is told at its end.
pub(super) type Landing = watch::Receiver<Option<Held>>;

/// A principal as what it is told apart by.
type Who = (String, Id<Principal>);

/// Everything that is kept.
pub(super) struct Hold {
    kept: Cache<Key, Held, Weight>,
    flights: Mutex<HashMap<Key, Landing>>,
    refusals: Mutex<HashMap<Who, (Instant, u32)>>,
}

/// An exchange under way. However it ends, it is no longer under way then.
pub(super) struct Flight {
    hold: Arc<Hold>,
    key: Key,
    tell: watch::Sender<Option<Held>>,
}

/// There is no room for another exchange.
pub(super) struct NoRoom;

impl Hold {
    pub(super) fn new() -> Self {
        let kept = Cache::with_weighter(MAX_KEPT, MAX_KEPT_BYTES, Weight);
        Self { kept, flights: Mutex::default(), refusals: Mutex::default() }
    }

    /// How many answers are kept.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// What is known of `key` now.
    pub(super) fn find(&self, key: &Key, (now, instant): (Timestamp, Instant)) -> Option<Held> {
        self.kept.get(key).filter(|held| match held {
            Held::Good(good) => now.duration_since(good.expires_at) < -SPARE,
            Held::Refused { until, .. } => instant < *until,
        })
    }

    /// Forgets `good`, unless another is there already.
    pub(super) fn forget(&self, key: &Key, good: &Arc<Good>) {
        self.kept.remove_if(key, |held| matches!(held, Held::Good(kept) if Arc::ptr_eq(kept, good)));
    }

    /// What the exchange for `key` comes to, and the exchange itself where the caller is the one who has to make it. What
    /// is known `at` this moment is what it comes to, unless it is made `anew`.
    pub(super) fn board(
        self: &Arc<Self>,
        key: Key,
        at: (Timestamp, Instant),
        anew: bool,
    ) -> Result<(Landing, Option<Flight>), NoRoom> {
        let mut flights = self.flights();
        if let Some(landing) = flights.get(&key) {
            return Ok((landing.clone(), None));
        }
        // One that landed since the caller looked is no longer under way, and was kept before that.
        if let Some(held) = self.find(&key, at).filter(|_| !anew) {
            return Ok((watch::channel(Some(held)).1, None));
        }
        if flights.len() >= MAX_FLIGHTS {
            return Err(NoRoom);
        }
        let (tell, landing) = watch::channel(None);
        flights.insert(key, landing.clone());
        Ok((landing, Some(Flight { hold: Arc::clone(self), key, tell })))
    }

    /// Whether the authority may be asked for something new for `agent`.
    pub(super) fn may_ask(&self, agent: &Principal, now: Instant) -> bool {
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.get(&who(agent)).is_none_or(|(since, count)| *count < REFUSALS || is_over(*since, now))
    }

    /// The authority said no for `agent`.
    pub(super) fn refused(&self, agent: &Principal, now: Instant) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        // As many as there are agents in the configuration, and those of the ones before it.
        refusals.retain(|_, (since, _)| !is_over(*since, now));
        refusals.entry(who(agent)).or_insert((now, 0)).1 += 1;
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<Key, Landing>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn who(agent: &Principal) -> Who {
    (agent.issuer.clone(), agent.id.clone())
}

fn is_over(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) >= WINDOW
}

impl Flight {
    /// Keeps what it came to, unless that is nothing that holds, and tells whoever waits.
    pub(super) fn land(self, held: Held, keep: bool) {
        if keep {
            self.hold.kept.insert(self.key, held.clone());
        }
        // Nobody may be left who waits.
        self.tell.send_replace(Some(held));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // What was kept is kept by now: whoever does not find this one finds that.
        self.hold.flights().remove(&self.key);
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").field("kept", &self.len()).finish_non_exhaustive()
    }
}
