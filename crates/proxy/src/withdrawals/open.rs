//! Calls under way, and how they are ended when what they rest on is taken back.
//!
//! A call is entered before it is looked at for the last time, and what is withdrawn is held before calls under way are
//! gone through: one of the two sees the other.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use model::{Code, Delegation, Effect, Refusal};
use tokio::sync::Notify;

use super::{Issued, Withdrawals, stale};

/// Parts of the set of calls under way, so that calls on several cores do not wait for each other.
const SHARDS: usize = 16;

/// Calls under way.
#[derive(Debug, Default)]
pub(crate) struct Open {
    next: AtomicU64,
    shards: [Mutex<HashMap<u64, Entry>>; SHARDS],
}

#[derive(Debug)]
struct Entry {
    delegation: Arc<Delegation>,
    issued: Issued,
    effect: Effect,
    cut: Arc<Cut>,
}

/// The end of a call that comes from here: of what flows to the tool, and of what flows back.
#[derive(Default)]
pub(crate) struct Cut {
    up: Side,
    down: Side,
    ended: Notify,
}

#[derive(Default)]
struct Side {
    code: OnceLock<Code>,
    waker: AtomicWaker,
}

/// A call under way. It is, until this is dropped.
pub(crate) struct Watch {
    view: Arc<Withdrawals>,
    number: u64,
    cut: Arc<Cut>,
    delegation: Arc<Delegation>,
    issued: Issued,
    /// How old the view may be, where the call depends on it.
    bound: Option<Duration>,
}

impl Open {
    fn shard(&self, number: u64) -> MutexGuard<'_, HashMap<u64, Entry>> {
        let place = usize::try_from(number).unwrap_or_default() % SHARDS;
        // The remainder is always a place; the first stands for what cannot be.
        let [first, ..] = &self.shards;
        self.shards.get(place).unwrap_or(first).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many calls are under way.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Shows each call under way.
    pub(super) fn each(&self, mut see: impl FnMut(&Delegation, Issued, &Cut)) {
        for shard in &self.shards {
            for entry in shard.lock().unwrap_or_else(PoisonError::into_inner).values() {
                see(&entry.delegation, entry.issued, &entry.cut);
            }
        }
    }

    /// Ends what nobody can know the right to any more: what still flows to a tool by its effect's bound, what flows
    /// back by that of a read. An answer to a write that was sent whole still reaches whoever has to know it.
    pub(crate) fn stale(&self, write: bool, read: bool) {
        for shard in &self.shards {
            let entries = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for entry in entries.values().filter(|entry| entry.issued.followed) {
                if read {
                    entry.cut.down(Code::AuthorityStale);
                } else if write && entry.effect != Effect::Read {
                    entry.cut.up.end(Code::AuthorityStale);
                }
            }
        }
    }
}

impl Watch {
    pub(super) fn new(
        view: &Arc<Withdrawals>,
        delegation: &Arc<Delegation>,
        issued: Issued,
        effect: Effect,
        bound: Option<Duration>,
    ) -> Self {
        let number = view.open.next.fetch_add(1, Ordering::Relaxed);
        let cut = Arc::new(Cut::default());
        let entry = Entry { delegation: Arc::clone(delegation), issued, effect, cut: Arc::clone(&cut) };
        view.open.shard(number).insert(number, entry);
        Self { view: Arc::clone(view), number, cut, delegation: Arc::clone(delegation), issued, bound }
    }

    /// The last look before the call is sent, or sent again.
    pub(crate) fn last_look(&self) -> Result<(), Box<Refusal>> {
        if let Some(found) = self.view.look(&self.delegation, self.issued) {
            return Err(Box::new(found.refusal()));
        }
        match (self.bound, self.view.staleness()) {
            (Some(bound), Some(age)) if age <= bound => Ok(()),
            (Some(bound), age) => Err(Box::new(stale(age, bound))),
            (None, _) => Ok(()),
        }
    }

    /// How the call is ended from here.
    pub(crate) fn cut(&self) -> &Arc<Cut> {
        &self.cut
    }

    /// Whether it was ended from here.
    pub(crate) fn is_ended(&self) -> bool {
        self.cut.code().is_some()
    }

    /// Why it was ended from here.
    pub(crate) fn ended(&self) -> Box<Refusal> {
        let code = self.cut.code().unwrap_or(Code::Withdrawn);
        let detail = match code {
            Code::AuthorityStale => {
                "The sidecar has not heard from the authority for too long; the call was broken off."
            }
            _ => "What the token was issued for was withdrawn while the call was under way; it was broken off.",
        };
        Box::new(Refusal::new(code, detail))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.view.open.shard(self.number).remove(&self.number);
    }
}

impl Cut {
    /// Ends both directions.
    pub(super) fn down(&self, code: Code) {
        self.up.end(code);
        self.down.end(code);
        self.ended.notify_waiters();
    }

    fn code(&self) -> Option<Code> {
        self.down.code.get().or_else(|| self.up.code.get()).copied()
    }

    /// Until the answer is not waited for any longer.
    pub(crate) async fn ended(&self) {
        let mut woken = std::pin::pin!(self.ended.notified());
        // Listening first: what is ended between a look and that would be missed.
        woken.as_mut().enable();
        if self.down.code.get().is_none() {
            woken.await;
        }
    }

    /// Whether the request's body may flow no more.
    pub(crate) fn poll_up(&self, context: &Context<'_>) -> Option<Code> {
        self.up.poll(context.waker())
    }

    /// Whether the response's body may flow no more.
    pub(crate) fn poll_down(&self, context: &Context<'_>) -> Option<Code> {
        self.down.poll(context.waker())
    }
}

impl Side {
    fn end(&self, code: Code) {
        // The first reason stays.
        if self.code.set(code).is_ok() {
            self.waker.wake();
        }
    }

    fn poll(&self, waker: &Waker) -> Option<Code> {
        if let Some(code) = self.code.get() {
            return Some(*code);
        }
        self.waker.register(waker);
        self.code.get().copied()
    }
}

impl fmt::Debug for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cut").field("up", &self.up.code).field("down", &self.down.code).finish()
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("number", &self.number).field("cut", &self.cut).finish_non_exhaustive()
    }
}
