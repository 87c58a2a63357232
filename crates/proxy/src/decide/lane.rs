//! Policies that take long decide on threads of their own, few at a time. A decision is made on the thread that
//! serves connections, since handing it over would cost more than making it; but one that takes long holds up everybody
//! whose connection that thread serves.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::available_parallelism,
    time::{Duration, Instant},
};

use model::{Action, Code, Id, Refusal};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::Semaphore,
};

/// A decision that takes more of its thread's time is a slow one, however long it had to wait for a core. Some hundred
/// times what one takes that people write.
const LONG: Duration = Duration::from_millis(20);
/// For so long after a slow decision those about the same action are taken to be slow too.
const CALM: Duration = Duration::from_secs(10);
/// The longest that a decision waits for its turn among the slow ones.
const PATIENCE: Duration = Duration::from_secs(2);

/// The actions that are slow to decide about, and the room there is for them.
#[derive(Debug)]
pub(crate) struct Lanes {
    /// Whether there is any: all that a call looks at as long as there is none.
    any: AtomicBool,
    slow: Mutex<BTreeMap<Id<Action>, Instant>>,
    room: Semaphore,
}

impl Default for Lanes {
    fn default() -> Self {
        // Half of the cores at most: the other half goes on serving.
        let room = available_parallelism().map_or(1, |cores| cores.get() / 2).max(1);
        Self { any: AtomicBool::new(false), slow: Mutex::default(), room: Semaphore::new(room) }
    }
}

impl Lanes {
    /// Makes a decision about `action`, here or in its turn among the slow ones.
    pub(crate) async fn run<T>(&self, action: &Id<Action>, decide: impl FnOnce() -> T) -> Result<T, Box<Refusal>> {
        if !self.is_slow(action, net::clock::monotonic()) {
            return Ok(self.timed(action, decide));
        }
        let turn = tokio::time::timeout(PATIENCE, self.room.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            let detail = "The policy takes long about this action, and too many calls wait for it.";
            return Err(Box::new(Refusal::new(Code::Overloaded, detail)));
        };
        // Another thread takes over what this one serves meanwhile.
        match Handle::current().runtime_flavor() {
            RuntimeFlavor::MultiThread => Ok(tokio::task::block_in_place(|| self.timed(action, decide))),
            _ => Ok(self.timed(action, decide)),
        }
    }

    fn timed<T>(&self, action: &Id<Action>, decide: impl FnOnce() -> T) -> T {
        let before = net::clock::thread_cpu();
        let decided = decide();
        if net::clock::thread_cpu().saturating_sub(before) > LONG {
            let ended = net::clock::monotonic();
            self.slow.lock().unwrap_or_else(PoisonError::into_inner).insert(action.clone(), ended);
            self.any.store(true, Ordering::Release);
        }
        decided
    }

    fn is_slow(&self, action: &Id<Action>, now: Instant) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let mut slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        slow.retain(|_, last| now.saturating_duration_since(*last) < CALM);
        self.any.store(!slow.is_empty(), Ordering::Release);
        slow.contains_key(action)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn action(name: &str) -> Id<Action> {
        Id::new(name).unwrap()
    }

    /// Works for longer than people's policies do.
    fn pause() {
        let before = net::clock::thread_cpu();
        while net::clock::thread_cpu() - before < LONG * 2 {
            std::hint::spin_loop();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn who_was_slow_once_holds_up_nobody_else_again() {
        let lanes = Arc::new(Lanes::default());
        assert!(lanes.run(&action("quick"), || ()).await.is_ok());
        assert!(!lanes.is_slow(&action("quick"), net::clock::monotonic()));
        lanes.run(&action("slow"), pause).await.unwrap();
        assert!(lanes.is_slow(&action("slow"), net::clock::monotonic()));
        assert!(!lanes.is_slow(&action("quick"), net::clock::monotonic()));
        // The one thread there is goes on while a slow decision is under way: it answers what that waits for.
        let (answer, question) = std::sync::mpsc::channel();
        let deciding = Arc::clone(&lanes);
        let tasks = net::Tasks::new();
        let slow = tasks.spawn("slow", async move {
            let waits = move || question.recv_timeout(Duration::from_secs(30)).is_ok();
            deciding.run(&action("slow"), waits).await.unwrap()
        });
        tasks.spawn("answer", async move { answer.send(()).unwrap() }).join().await.unwrap();
        assert!(slow.join().await.unwrap());
    }

    #[tokio::test]
    async fn slow_decisions_are_few_at_a_time_and_the_rest_is_refused() {
        let lanes = Lanes::default();
        lanes.run(&action("slow"), pause).await.unwrap();
        let all = lanes.room.acquire_many(u32::try_from(lanes.room.available_permits()).unwrap()).await.unwrap();
        let refused = lanes.run(&action("slow"), || ()).await.unwrap_err();
        assert_eq!(refused.code, Code::Overloaded);
        assert!(lanes.run(&action("quick"), || ()).await.is_ok(), "others have a lane of their own");
        drop(all);
        assert!(lanes.run(&action("slow"), || ()).await.is_ok());
    }

    #[tokio::test]
    async fn what_was_slow_is_tried_again_after_a_while() {
        let lanes = Lanes::default();
        lanes.run(&action("slow"), pause).await.unwrap();
        let later = net::clock::monotonic() + CALM + LONG;
        assert!(!lanes.is_slow(&action("slow"), later));
        assert!(!lanes.any.load(Ordering::Acquire));
    }
}
