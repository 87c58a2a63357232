//! Tasks that shutdown knows about.
//!
//! Everything that runs beside the main line is spawned here, so that stopping means: ask, wait, and only
//! then cut. A task that panics is logged by its name and takes nothing else with it.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long [`Tasks::drain`] waits, after cutting, for futures to be dropped.
const AFTER_FORCE: Duration = Duration::from_secs(1);

/// A group of tasks that end together. Clones are the same group.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    soft: CancellationToken,
    force: CancellationToken,
    panics: Arc<AtomicU64>,
}

impl Tasks {
    /// An empty group.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `future` beside the caller. `name` says in the log which task panicked.
    ///
    /// The future should end soon after [`Tasks::shutdown_token`] is cancelled; when shutdown runs out of
    /// patience it is dropped at its next await. Dropping the returned handle lets the task run on.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let force = self.force.clone();
        let panics = Arc::clone(&self.panics);
        Task(self.tracker.spawn(async move {
            let guarded = AssertUnwindSafe(future).catch_unwind();
            tokio::select! {
                outcome = guarded => Some(outcome.unwrap_or_else(|panic| log_and_unwind(name, panic, &panics))),
                () = force.cancelled() => None,
            }
        }))
    }

    /// Does `look` now, and again each time that `every` has passed, until shutdown begins. One look at a time, the next no
    /// sooner than `every` after the last one began; one that is under way at shutdown is waited for.
    pub fn repeat<F>(&self, name: &'static str, every: Duration, mut look: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.shutdown_token();
        let looks = async move {
            let mut next = tokio::time::interval(every);
            next.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = next.tick() => {}
                }
                look().await;
            }
        };
        drop(self.spawn(name, looks));
    }

    /// Runs blocking work on a thread of its own. Cannot be cut: it must look at
    /// [`Tasks::shutdown_token`] itself, or be short.
    pub fn spawn_blocking<F, T>(&self, name: &'static str, work: F) -> Task<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let panics = Arc::clone(&self.panics);
        Task(self.tracker.spawn_blocking(move || {
            let outcome = catch_unwind(AssertUnwindSafe(work));
            Some(outcome.unwrap_or_else(|panic| log_and_unwind(name, panic, &panics)))
        }))
    }

    /// A thread for work that is done piece after piece, until shutdown begins.
    #[must_use]
    pub fn desk(&self, name: &'static str) -> Desk {
        let (pieces, mut next) = mpsc::channel::<Piece>(PIECES);
        let (stop, runtime) = (self.shutdown_token(), Handle::current());
        drop(self.spawn_blocking(name, move || {
            let mut next = || {
                runtime.block_on(async {
                    tokio::select! {
                        () = stop.cancelled() => None,
                        piece = next.recv() => piece,
                    }
                })
            };
            while let Some(piece) = next() {
                piece();
            }
        }));
        Desk { tasks: self.clone(), pieces }
    }

    /// Cancelled when shutdown begins: finish what is in hand, begin nothing new.
    #[must_use]
    pub fn shutdown_token(&self) -> CancellationToken {
        self.soft.clone()
    }

    /// Cancelled when shutdown has run out of patience; every task is then dropped where it stands.
    #[must_use]
    pub fn force_token(&self) -> CancellationToken {
        self.force.clone()
    }

    /// Begins shutdown and returns at once.
    pub fn stop(&self) {
        self.soft.cancel();
        self.tracker.close();
    }

    /// How many tasks have not ended.
    #[must_use]
    pub fn running(&self) -> usize {
        self.tracker.len()
    }

    /// How many tasks panicked so far.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Begins shutdown, waits up to `deadline` for every task to end, then cuts those that have not.
    /// Returns whether all ended by themselves.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.stop();
        if tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok() {
            return true;
        }
        tracing::warn!(running = self.running(), "shutdown deadline passed, ending the remaining tasks");
        self.force.cancel();
        if tokio::time::timeout(AFTER_FORCE, self.tracker.wait()).await.is_err() {
            tracing::error!(running = self.running(), "tasks that do not yield were left behind");
        }
        false
    }
}

/// Blocking work that is done piece after piece on one thread. For what takes much memory again and again: the next piece
/// takes it where the one before left it, which the allocator does not give to another thread.
#[derive(Clone, Debug)]
pub struct Desk {
    tasks: Tasks,
    pieces: mpsc::Sender<Piece>,
}

type Piece = Box<dyn FnOnce() + Send>;

/// How many pieces wait at a desk before whoever brings another waits too.
const PIECES: usize = 16;

impl Desk {
    /// Does `work` after what was brought before; cut where shutdown begins before its turn. Else as
    /// [`Tasks::spawn_blocking`].
    pub fn run<F, T>(&self, name: &'static str, work: F) -> Task<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (reply, done) = oneshot::channel();
        let piece: Piece = Box::new(move || drop(reply.send(catch_unwind(AssertUnwindSafe(work)))));
        let (pieces, panics) = (self.pieces.clone(), Arc::clone(&self.tasks.panics));
        Task(self.tasks.tracker.spawn(async move {
            pieces.send(piece).await.ok()?;
            let outcome = done.await.ok()?;
            Some(outcome.unwrap_or_else(|panic| log_and_unwind(name, panic, &panics)))
        }))
    }
}

/// Why a task has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskEnd {
    /// It panicked; the log names it.
    #[error("the task panicked")]
    Panicked,
    /// It was aborted, or shutdown cut it.
    #[error("the task was cut short")]
    Cut,
}

/// A running task. Dropping it does not stop the task.
#[derive(Debug)]
pub struct Task<T>(JoinHandle<Option<T>>);

impl<T> Task<T> {
    /// Waits for the task's result.
    ///
    /// # Errors
    /// When the task panicked or was cut.
    pub async fn join(self) -> Result<T, TaskEnd> {
        match self.0.await {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Err(TaskEnd::Cut),
            Err(error) if error.is_panic() => Err(TaskEnd::Panicked),
            Err(_) => Err(TaskEnd::Cut),
        }
    }

    /// Drops the task at its next await.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Whether the task has ended, in whatever way.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

fn log_and_unwind(name: &'static str, panic: Box<dyn Any + Send>, panics: &AtomicU64) -> ! {
    panics.fetch_add(1, Ordering::Relaxed);
    tracing::error!(task = name, panic = panic_text(&*panic), "a task panicked");
    resume_unwind(panic)
}

/// The calling thread takes a core's time only where nobody else wants it, from now on. For threads of their own: it is
/// not taken back.
pub fn give_way() {
    // Of the calling thread alone on Linux; elsewhere it would be the whole process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, LEAST) {
        tracing::debug!(%error, "the thread's priority stays as it was");
    }
}

/// The lowest priority there is.
#[cfg(target_os = "linux")]
const LEAST: i32 = 19;

/// What was said at a panic.
#[must_use]
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn a_task_that_listens_ends_within_the_drain() {
        let tasks = Tasks::new();
        let token = tasks.shutdown_token();
        let task = tasks.spawn("listens", async move {
            token.cancelled().await;
            7
        });
        assert!(tasks.drain(Duration::from_secs(30)).await);
        assert_eq!(task.join().await, Ok(7));
    }

    #[tokio::test]
    async fn a_task_that_does_not_listen_is_cut() {
        let tasks = Tasks::new();
        let task = tasks.spawn("deaf", std::future::pending::<()>());
        assert!(!tasks.drain(Duration::from_millis(10)).await);
        assert_eq!(task.join().await, Err(TaskEnd::Cut));
        assert_eq!(tasks.running(), 0);
    }

    #[tokio::test]
    async fn what_is_repeated_begins_at_once_and_ends_with_the_rest() {
        let (tasks, looks) = (Tasks::new(), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&looks);
        tasks.repeat("looks", Duration::from_millis(1), move || {
            let looks = Arc::clone(&counted);
            async move {
                looks.fetch_add(1, Ordering::Relaxed);
            }
        });
        while looks.load(Ordering::Relaxed) < 3 {
            tokio::task::yield_now().await;
        }
        assert!(tasks.drain(Duration::from_secs(30)).await);
        assert_eq!(tasks.running(), 0);
    }

    #[tokio::test]
    async fn pieces_are_done_one_after_the_other_on_one_thread_until_shutdown() {
        let tasks = Tasks::new();
        let desk = tasks.desk("desk");
        let here = || std::thread::current().id();
        let (one, bad, two) = (desk.run("one", here), desk.run("bad", || panic!("on purpose")), desk.run("two", here));
        let (one, two) = (one.join().await.unwrap(), two.join().await.unwrap());
        assert_eq!(one, two);
        assert_ne!(one, here());
        assert_eq!((bad.join().await, tasks.panics()), (Err::<(), _>(TaskEnd::Panicked), 1));
        // Though somebody still holds it.
        assert!(tasks.drain(Duration::from_secs(30)).await);
        assert_eq!(desk.run("late", here).join().await, Err(TaskEnd::Cut));
        assert_eq!(tasks.running(), 0);
    }

    #[tokio::test]
    async fn a_panic_stays_in_its_task() {
        let tasks = Tasks::new();
        let bad = tasks.spawn("bad", async { panic!("on purpose") });
        let bad_thread = tasks.spawn_blocking("bad thread", || panic!("on purpose"));
        let good = tasks.spawn("good", async { 1 });
        assert_eq!(bad.join().await, Err::<(), _>(TaskEnd::Panicked));
        assert_eq!(bad_thread.join().await, Err::<(), _>(TaskEnd::Panicked));
        assert_eq!(good.join().await, Ok(1));
        assert_eq!(tasks.panics(), 2);
        assert!(tasks.drain(Duration::from_secs(30)).await);
    }

    #[tokio::test]
    async fn a_panic_is_logged_by_the_name_of_its_task() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&log);
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || Log(Arc::clone(&written))).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let bad = Tasks::new().spawn("the bad one", async { panic!("reason {}", 7) });
        assert_eq!(bad.join().await, Err::<(), _>(TaskEnd::Panicked));
        let text = String::from_utf8(log.lock().unwrap().clone()).unwrap();
        assert!(text.contains("the bad one") && text.contains("reason 7"), "{text}");
    }

    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn an_aborted_task_has_no_result() {
        let tasks = Tasks::new();
        let task = tasks.spawn("aborted", std::future::pending::<()>());
        task.abort();
        assert_eq!(task.join().await, Err(TaskEnd::Cut));
    }
}
