//! The ledger's handle: async callers on one side, the writer's thread on the other.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use aws_lc_rs::signature::Ed25519KeyPair;
use model::{Id, Verdict, id::DecisionMark};
use tokio::sync::{Semaphore, TryAcquireError, oneshot};

use crate::{
    Head, LedgerError, LedgerSettings, VerifyingKey, beside,
    erasure::{Erased, Erasure, ErasureError},
    files,
    keeper::{Chore, Keeper},
    opening::begin,
    record::{self, CallDecided, CallSettled, Event},
    segment::HEAD_FILE,
    ship::{self, Backlog},
    values::Draft,
    writer::{Append, Mark, Order, Request},
};

/// How long a record may take to become durable before whoever waits for it is told that it is not. The longest that
/// disks take which work.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A ledger that is being written. Clones are the same ledger.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

struct Inner {
    id: String,
    key: VerifyingKey,
    signer: Ed25519KeyPair,
    dir: std::path::PathBuf,
    requests: mpsc::Sender<Request>,
    chores: mpsc::Sender<Chore>,
    slots: Arc<Semaphore>,
    queue: usize,
    shared: Arc<Shared>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
    }
}

/// What the keeper writes with. It does not keep the ledger open.
pub(crate) struct Pen(Weak<Inner>);

/// What the writer's thread tells everyone.
#[derive(Default)]
pub(crate) struct Shared {
    /// Since when the writer is at one piece of work; `None` while it waits for some.
    pub(crate) working: Mutex<Option<Instant>>,
    /// The same of the thread beside it.
    pub(crate) beside: Mutex<Option<Instant>>,
    pub(crate) healthy: AtomicBool,
    pub(crate) records: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) failures: AtomicU64,
    /// Segments sealed since the start: something for the keeper to do.
    pub(crate) seals: AtomicU64,
    /// The ledger is being closed, or nobody has it any more.
    pub(crate) stopping: AtomicBool,
    /// From which line on the ledger is needed, and by whom.
    pub(crate) needed: Mutex<BTreeMap<&'static str, u64>>,
    /// What is not at the authority yet, where it is to be.
    pub(crate) backlog: OnceLock<Arc<Backlog>>,
    /// Why the last write failed.
    pub(crate) trouble: Mutex<Option<String>>,
    /// Who is told of alerts.
    pub(crate) alerts: OnceLock<AlertObserver>,
    /// Who knows how many calls are under way.
    pub(crate) calls: OnceLock<CallsObserver>,
}

impl Shared {
    /// Tells of `draft`, where that is an alert and somebody wants to be told, with the `words` that are meant for them.
    pub(crate) fn tell(&self, draft: &Draft, words: Option<&str>) {
        if let Some(tell) = self.alerts.get()
            && let Some(mut alert) = draft.alert()
        {
            if let (Some(words), Some(members)) = (words, alert.as_object_mut()) {
                members.insert("message".to_owned(), words.into());
            }
            tell(alert);
        }
    }

    /// How many calls are under way; without anybody who knows, any number may be.
    pub(crate) fn under_way(&self) -> usize {
        self.calls.get().map_or(usize::MAX, |calls| calls())
    }
}

/// Figures for metrics and `/status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerStats {
    /// Records waiting to be durable.
    pub queue: usize,
    /// Records written since the start.
    pub records: u64,
    /// Group commits since the start: `records / commits` share one fsync.
    pub commits: u64,
    /// Writes that failed since the start.
    pub failures: u64,
    /// Bytes free on the ledger's disk for this process; `None` where the system does not say.
    pub disk_free_bytes: Option<u64>,
}

/// Is told what each alert says, without anything that is personal but the `message` of a notice, which its rule means
/// for whoever is told. It must not block.
pub type AlertObserver = Arc<dyn Fn(serde_json::Value) + Send + Sync>;

/// Says how many calls are under way; called on the writer's thread for each fsync, so it must not block.
pub type CallsObserver = Arc<dyn Fn() -> usize + Send + Sync>;

/// The ledger's word that a decision is durable. Only [`Ledger::decided`] makes one.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a call may go only with its receipt"]
pub struct Receipt {
    id: Id<DecisionMark>,
    seq: u64,
    verdict: Verdict,
}

impl Receipt {
    /// The decision.
    pub fn id(&self) -> &Id<DecisionMark> {
        &self.id
    }

    /// The place of its record in the ledger.
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// What was decided.
    pub const fn verdict(&self) -> Verdict {
        self.verdict
    }
}

impl Ledger {
    /// Opens the ledger in `settings.dir`, made there first where there is none, mends what a crash left, and
    /// writes the record of the start. The writer runs on a thread of `tasks`, which ends at [`Ledger::close`] or
    /// when the last handle is dropped: drain the calls first, then close, then drain `tasks`.
    ///
    /// # Errors
    /// When the directory is in use, not private, damaged, or cannot be written.
    pub async fn open(settings: LedgerSettings, tasks: &net::Tasks) -> Result<Self, LedgerError> {
        let (ready, opened) = oneshot::channel();
        let (requests, inbox) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let (queue, told) = (settings.queue.max(1), Arc::clone(&shared));
        let (interval, compress_after) = (settings.keeper_interval, settings.compress_after);
        let retention = settings.retention;
        let (beside, worker) = beside::pair(Arc::clone(&told), settings.fsync_observer.clone());
        // Dropping a task's handle lets it run on. This one ends with the writer, which waits for what it asked of it.
        drop(tasks.spawn_blocking("ledger syncs", move || worker.run()));
        drop(tasks.spawn_blocking("ledger writer", move || match begin(settings, told, beside) {
            Ok((mut writer, lock, id, dir, signer)) => {
                let lock = Arc::new(lock);
                let key = writer.verifying_key();
                if ready.send(Ok((id, key, dir, signer, Arc::clone(&lock)))).is_ok() {
                    writer.run(&inbox);
                }
                drop(lock);
            }
            Err(error) => drop(ready.send(Err(error))),
        }));
        let (id, key, dir, signer, lock) = opened.await.map_err(|_| LedgerError::Closed)??;
        let slots = Arc::new(Semaphore::new(queue));
        let (chores, given) = mpsc::channel();
        let inner = Arc::new(Inner { id, key, signer, dir, requests, chores, slots, queue, shared });
        let (pen, dir, shared) = (Pen(Arc::downgrade(&inner)), inner.dir.clone(), Arc::clone(&inner.shared));
        let keeper = Keeper { dir, pen, shared, interval, compress_after, retention };
        drop(tasks.spawn_blocking("ledger keeper", move || {
            keeper.run(&given);
            drop(lock);
        }));
        Ok(Self { inner })
    }

    /// The ledger's id, the first part of every decision id made with it.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// The public key its heads verify under; pin it outside the ledger.
    pub fn verifying_key(&self) -> &VerifyingKey {
        &self.inner.key
    }

    /// A new decision id: the ledger's id and `uuid` (version 7, so that its time says where to look).
    pub fn decision_id(&self, uuid: uuid::Uuid) -> Result<Id<DecisionMark>, model::id::InvalidId> {
        Id::new(&format!("{}.{uuid}", self.inner.id))
    }

    /// Records a decision. When this returns it is durable: no power failure loses it.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`] when it could not be made durable: the call may not go. [`LedgerError::TooLarge`]
    /// when no reader would take a record of this size: nothing is written, and the ledger goes on.
    pub async fn decided(&self, record: CallDecided) -> Result<Receipt, LedgerError> {
        if !record.names_a_principal() {
            return Err(LedgerError::NoPrincipal);
        }
        // Whoever comes while the disk hangs would only lengthen the queue.
        if self.hangs() {
            return Err(LedgerError::Unavailable("the disk does not answer".to_owned()));
        }
        let id = record.id().clone();
        let verdict = record.decision.verdict;
        if verdict == Verdict::Permit
            && record.changes_something()
            && let Some(why) = self.inner.shared.backlog.get().and_then(|backlog| backlog.refuses_writes())
        {
            return Err(LedgerError::Unavailable(why));
        }
        let mark = match verdict {
            Verdict::Permit => Mark::Opens(id.to_string()),
            Verdict::Deny | Verdict::ApprovalRequired => Mark::None,
        };
        let subject = Some(record.subject.clone());
        let draft = record::decided(&record)?;
        let seq = self.append(Append { draft, mark, subject }).await?;
        Ok(Receipt { id, seq, verdict })
    }

    /// Records what became of a permitted call.
    ///
    /// # Errors
    /// [`LedgerError::Kept`] when it is not durable yet, and will be once the ledger can be written. Any other when it
    /// will not be; the call is then closed as `unknown` when the ledger is closed, or at the next start.
    pub async fn settled(&self, record: CallSettled) -> Result<(), LedgerError> {
        self.append(Append::end(record::settled(&record)?, record.id.to_string())).await.map(drop)
    }

    /// Hands over the record of what became of a permitted call, and does not wait for it to be written. `false`
    /// where the queue has no room: [`Ledger::settled`] waits for some.
    ///
    /// # Errors
    /// When it cannot be recorded at all, or the ledger is closed.
    pub fn settle(&self, record: &CallSettled) -> Result<bool, LedgerError> {
        let slot = match Arc::clone(&self.inner.slots).try_acquire_owned() {
            Ok(slot) => slot,
            Err(TryAcquireError::NoPermits) => return Ok(false),
            Err(TryAcquireError::Closed) => return Err(LedgerError::Closed),
        };
        let append = Append::end(record::settled(record)?, record.id.to_string());
        let request = Request::Append { append: Box::new(append), reply: oneshot::channel().0, slot: Some(slot) };
        self.inner.requests.send(request).map_err(|_| LedgerError::Closed)?;
        Ok(true)
    }

    /// Records something that happened beside calls.
    ///
    /// # Errors
    /// When it could not be made durable within [`PATIENCE`]. It may be later, so what it says has to hold then too.
    pub async fn event(&self, event: Event) -> Result<(), LedgerError> {
        let draft = record::event(&event)?;
        // Said whether it can be recorded or not: an alert is of no use to nobody.
        self.inner.shared.tell(&draft, event.words());
        let appended = self.append(Append::event(draft));
        let late = |_| LedgerError::Unavailable("the disk does not answer".to_owned());
        tokio::time::timeout(PATIENCE, appended).await.map_err(late)?.map(drop)
    }

    /// From now on `tell` is told of every alert as it is recorded, and of an outage of the ledger as it begins: what is on
    /// record of that comes after it. Once for each ledger; another is told nothing.
    pub fn tell_alerts(&self, tell: AlertObserver) {
        drop(self.inner.shared.alerts.set(tell));
    }

    /// From now on `calls` says how many calls are under way: where they are few, no record waits for another. Once for
    /// each ledger; another is not asked.
    pub fn serves(&self, calls: CallsObserver) {
        drop(self.inner.shared.calls.set(calls));
    }

    /// Erases a person: takes the companion values of their records out of every segment, the one that is being written
    /// included, which is sealed for it; each segment's loss is recorded first. The chain still verifies.
    ///
    /// # Errors
    /// When it is not clear whom it is about, or when a record or a file cannot be written. What was taken out until
    /// then is on record; done again, it goes on.
    pub async fn erase(&self, erasure: Erasure) -> Result<Erased, ErasureError> {
        let (reply, answer) = oneshot::channel();
        let chore = Chore::Erase(Box::new(erasure), reply);
        self.inner.chores.send(chore).map_err(|_| LedgerError::Closed)?;
        answer.await.map_err(|_| LedgerError::Closed)?
    }

    /// What the keeper writes with, to stop between two of its steps.
    #[cfg(test)]
    pub(crate) fn pen(&self) -> Pen {
        Pen(Arc::downgrade(&self.inner))
    }

    /// Whether the last write succeeded, and none hangs. A ledger that is not healthy tries again by itself.
    pub fn healthy(&self) -> bool {
        self.inner.shared.healthy.load(Ordering::Acquire) && !self.hangs()
    }

    /// Why it is not healthy; `None` while it is.
    pub fn trouble(&self) -> Option<String> {
        if self.hangs() {
            return Some("the disk does not answer".to_owned());
        }
        if self.inner.shared.healthy.load(Ordering::Acquire) {
            return None;
        }
        let why = self.inner.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Some(why.unwrap_or_else(|| "it cannot be written".to_owned()))
    }

    /// Whether the disk has not answered for longer than anybody waits for it.
    fn hangs(&self) -> bool {
        let shared = &self.inner.shared;
        [&shared.working, &shared.beside].into_iter().any(|since| {
            let since = *since.lock().unwrap_or_else(PoisonError::into_inner);
            since.is_some_and(|since| net::clock::monotonic().saturating_duration_since(since) > PATIENCE)
        })
    }

    /// The newest head that was signed, as it lies on disk; `None` before the first.
    pub fn head(&self) -> Option<Head> {
        self.newest_head().map(|(head, _)| head)
    }

    /// The same with its signed note.
    pub(crate) fn newest_head(&self) -> Option<(Head, String)> {
        let note = fs::read_to_string(self.inner.dir.join(HEAD_FILE)).ok()?;
        Head::verify(&note, &self.inner.key).ok().map(|head| (head, note))
    }

    /// The folder it lies in.
    pub(crate) fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// The ledger key's word that `sidecar` speaks for this ledger.
    pub(crate) fn prove(&self, sidecar: &str) -> String {
        ship::anchor::prove(&self.inner.signer, &self.inner.key, sidecar)
    }

    /// Drafts and writes wait for `backlog`, where it says so.
    pub(crate) fn held_back_by(&self, backlog: Arc<Backlog>) {
        // Once for each ledger; another would be told the same.
        drop(self.inner.shared.backlog.set(backlog));
    }

    /// From now on, and until `whom` says this of a later line, retention takes no segment away that holds a line from
    /// `seq` on.
    pub(crate) fn needed_from(&self, whom: &'static str, seq: u64) {
        self.inner.shared.needed.lock().unwrap_or_else(PoisonError::into_inner).insert(whom, seq);
    }

    /// Figures for metrics.
    pub fn stats(&self) -> LedgerStats {
        let shared = &self.inner.shared;
        LedgerStats {
            queue: self.inner.queue.saturating_sub(self.inner.slots.available_permits()),
            records: shared.records.load(Ordering::Relaxed),
            commits: shared.commits.load(Ordering::Relaxed),
            failures: shared.failures.load(Ordering::Relaxed),
            disk_free_bytes: files::disk_free(&self.inner.dir),
        }
    }

    /// Writes what was kept, closes calls that nobody settled as `unknown`, records the stop, signs the last head and
    /// seals. Later appends are refused.
    pub async fn close(&self) {
        self.inner.slots.close();
        self.inner.shared.stopping.store(true, Ordering::Release);
        if self.inner.chores.send(Chore::Stop).is_err() {
            tracing::debug!("the ledger's keeper had ended before");
        }
        let (done, closed) = oneshot::channel();
        if self.inner.requests.send(Request::Do(Order::Close(done))).is_ok() && closed.await.is_err() {
            tracing::error!("the ledger's writer ended before it closed the ledger");
        }
    }

    async fn append(&self, append: Append) -> Result<u64, LedgerError> {
        let slot = Arc::clone(&self.inner.slots).acquire_owned().await.map_err(|_| LedgerError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let request = Request::Append { append: Box::new(append), reply, slot: Some(slot) };
        self.inner.requests.send(request).map_err(|_| LedgerError::Closed)?;
        answer.await.map_err(|_| LedgerError::Closed)?
    }
}

impl Pen {
    /// Appends a record of the keeper's own and waits until it is durable; its place in the ledger.
    pub(crate) fn append(&self, draft: Draft) -> Result<u64, LedgerError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Append { append: Box::new(Append::event(draft)), reply, slot: None })?;
        answer.blocking_recv().map_err(|_| LedgerError::Closed)?
    }

    /// Waits until a signed head covers everything that was appended.
    pub(crate) fn sign(&self) -> Result<(), LedgerError> {
        self.order(Order::Sign)
    }

    /// Waits until everything that was appended is in a sealed segment.
    pub(crate) fn seal(&self) -> Result<(), LedgerError> {
        self.order(Order::Seal)
    }

    fn order(&self, order: fn(oneshot::Sender<Result<(), LedgerError>>) -> Order) -> Result<(), LedgerError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Do(order(reply)))?;
        answer.blocking_recv().map_err(|_| LedgerError::Closed)?
    }

    fn send(&self, request: Request) -> Result<(), LedgerError> {
        let inner = self.0.upgrade().ok_or(LedgerError::Closed)?;
        inner.requests.send(request).map_err(|_| LedgerError::Closed)
    }
}
