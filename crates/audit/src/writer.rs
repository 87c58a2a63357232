//! The writer's thread: group commit, heads, seals, and what happens when the disk fails.
//!
//! One thread writes every file. It takes all that waits, makes it durable with one fsync of the journal, and answers
//! all at once. What else has to be synced now and then is left to the thread [beside](crate::beside) it.

mod gather;
pub(crate) mod outage;
mod seen;

use std::{
    collections::BTreeSet,
    io,
    path::PathBuf,
    sync::{Arc, PoisonError, atomic::Ordering, mpsc},
    time::Instant,
};

use jiff::{Timestamp, Unit};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use self::{
    gather::{Gathered, Gathering},
    outage::Outage,
    seen::Seen,
};
use crate::{
    LedgerError, LedgerSettings, VerifyingKey,
    beside::Beside,
    canonical::Unrecordable,
    journal::Journal,
    log::Shared,
    opening::RESERVE_FILE,
    read::MAX_LINE_BYTES,
    record::{self, Subject},
    recovery::Recovered,
    segment::{self, Batch, Home, OpenSegment, Position},
    values::Draft,
};

/// A record on its way to the disk.
pub(crate) struct Append {
    pub(crate) draft: Draft,
    pub(crate) mark: Mark,
    /// The call it is about, whose token it cites.
    pub(crate) subject: Option<Subject>,
}

/// What a record means for the set of open calls.
pub(crate) enum Mark {
    None,
    Opens(String),
    Settles(String),
}

/// What the thread is asked.
pub(crate) enum Request {
    Append {
        append: Box<Append>,
        reply: oneshot::Sender<Result<u64, LedgerError>>,
        /// Held until the answer: the queue's bound. The keeper's few records need none.
        slot: Option<OwnedSemaphorePermit>,
    },
    Do(Order),
}

/// What is asked beside appending.
pub(crate) enum Order {
    /// A head over everything that is durable.
    Sign(oneshot::Sender<Result<(), LedgerError>>),
    /// A seal on the segment that is being written, so that it may be worked on.
    Seal(oneshot::Sender<Result<(), LedgerError>>),
    Close(oneshot::Sender<()>),
}

/// An append that waits for its answer.
struct Waiting {
    append: Append,
    reply: oneshot::Sender<Result<u64, LedgerError>>,
    slot: Option<OwnedSemaphorePermit>,
}

pub(crate) struct Writer {
    home: Arc<Home>,
    settings: LedgerSettings,
    shared: Arc<Shared>,
    reserve: PathBuf,
    journal: Journal,
    beside: Beside,
    /// The end of the durable lines.
    position: Position,
    next_index: u64,
    segment: Option<OpenSegment>,
    /// A segment that failed; it is cut to what was acknowledged and sealed before anything else is written.
    broken: Option<OpenSegment>,
    open: BTreeSet<String>,
    seen: Seen,
    head_due: Option<Instant>,
    retry_at: Option<Instant>,
    outage: Option<Outage>,
    /// What became of calls that ended while the disk failed.
    kept: Vec<Append>,
    gathering: Gathering,
}

impl Writer {
    /// Takes over what was recovered and writes the record of the start and of the calls that were left open.
    pub(crate) fn begin(
        home: Home,
        settings: LedgerSettings,
        id: &str,
        recovered: Recovered,
        shared: Arc<Shared>,
        beside: Beside,
    ) -> Result<Self, LedgerError> {
        let journal = Journal::open(&home.dir).map_err(LedgerError::io(&home.dir))?;
        let reserve = home.dir.join(RESERVE_FILE);
        let mut drafts = vec![Append::event(record::started(&settings.started, id, &recovered.previous)?)];
        for id in &recovered.open {
            drafts.push(Append::end(record::settled_unknown(id)?, id.clone()));
        }
        let mut writer = Self {
            home: Arc::new(home),
            settings,
            shared,
            reserve,
            journal,
            beside,
            position: recovered.position,
            next_index: recovered.next_index,
            segment: None,
            broken: None,
            open: recovered.open,
            seen: Seen::default(),
            head_due: None,
            retry_at: None,
            outage: None,
            kept: Vec::new(),
            gathering: Gathering::new(net::clock::monotonic()),
        };
        let dir = writer.home.dir.clone();
        for written in writer.write(&mut drafts).map_err(LedgerError::io(dir))? {
            written?;
        }
        writer.shared.healthy.store(true, Ordering::Release);
        Ok(writer)
    }

    pub(crate) fn verifying_key(&self) -> VerifyingKey {
        self.home.verifying_key()
    }

    /// Serves requests until the ledger is closed or nobody is left to ask.
    pub(crate) fn run(&mut self, inbox: &mpsc::Receiver<Request>) {
        loop {
            let due = self.due();
            let Ok(Gathered { waiting, order, .. }) = self.gathering.next(inbox, due, || self.shared.under_way())
            else {
                // Nothing goes on beside after this.
                self.sign();
                return;
            };
            self.working(true);
            if !waiting.is_empty() {
                self.answer(waiting);
            }
            match order {
                Some(Order::Close(done)) => {
                    self.close();
                    if done.send(()).is_err() {
                        tracing::debug!("nobody waited for the ledger to close");
                    }
                    return;
                }
                Some(Order::Sign(reply)) => drop(reply.send(self.sign_now())),
                Some(Order::Seal(reply)) => drop(reply.send(self.seal_now())),
                None => {}
            }
            self.tend();
            self.working(false);
        }
    }

    fn working(&self, works: bool) {
        let since = works.then(net::clock::monotonic);
        *self.shared.working.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// When a head, a retry or a seal is due. A head waits for what goes on beside.
    fn due(&self) -> Option<Instant> {
        let head = self.beside.look_at().or(self.head_due);
        [head, self.retry_at, self.seal_due()].into_iter().flatten().min()
    }

    /// What is due by the clock: a head, a seal, or another try after a failure.
    fn tend(&mut self) {
        let now = net::clock::monotonic();
        if self.seal_due().is_some_and(|at| at <= now)
            && let Err(error) = self.seal().and_then(|()| self.forget())
        {
            self.fail(&error);
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry();
        }
        let signs = match self.beside.is_busy() {
            Ok(false) if self.head_due.is_some_and(|at| at <= now) => self.sign_beside(),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = signs {
            self.fail(&error);
        }
    }

    /// Has a head over everything so far signed beside.
    fn sign_beside(&mut self) -> io::Result<()> {
        self.head_due = None;
        let Some(segment) = &self.segment else { return Ok(()) };
        segment.hand_over(&mut self.journal, &mut self.beside, Some(segment.heading(&self.home)))
    }

    /// Returns once a head is signed over everything so far, and nothing goes on beside.
    fn sign(&mut self) {
        let signed = self.sign_here();
        if let Err(error) = signed {
            self.fail(&error);
        }
    }

    fn sign_here(&mut self) -> io::Result<()> {
        self.beside.settle()?;
        let due = self.head_due.take().is_some();
        let Some(segment) = self.segment.as_ref().filter(|_| due) else { return Ok(()) };
        segment.checkpoint(&mut self.journal, &mut self.beside, self.settings.fsync_observer.as_ref())?;
        self.home.sign_head(segment.index, &segment.position).map(drop)
    }

    /// Makes all of `waiting` durable and answers each; where that fails all are refused but ends of calls, which are
    /// kept.
    fn answer(&mut self, waiting: Vec<Waiting>) {
        let mut appends = Vec::with_capacity(waiting.len());
        let mut replies = Vec::with_capacity(waiting.len());
        for Waiting { append, reply, slot } in waiting {
            replies.push((reply, slot, matches!(append.mark, Mark::Settles(_))));
            appends.push(append);
        }
        let outcomes = match &self.outage {
            Some(outage) => {
                let why = outage.why.clone();
                self.not_written(appends, &why)
            }
            None => match self.write(&mut appends) {
                Ok(outcomes) => outcomes,
                Err(error) => {
                    self.fail(&error);
                    self.not_written(appends, &error.to_string())
                }
            },
        };
        for ((reply, slot, settles), outcome) in replies.into_iter().zip(outcomes) {
            drop(slot);
            // A caller that went away does not want its answer. Ends of calls are handed over by nobody who waits.
            match reply.send(outcome) {
                Ok(()) | Err(Ok(_) | Err(LedgerError::Kept(_))) => {}
                Err(Err(error)) if settles => tracing::warn!(%error, "what became of a call could not be recorded"),
                Err(Err(_)) => {}
            }
        }
    }

    /// Appends `appends` durably, in order. The outer error is the disk's and means that none is durable; an inner
    /// one is of a record that cannot be written at all.
    fn write(&mut self, appends: &mut [Append]) -> io::Result<Vec<Result<u64, LedgerError>>> {
        self.roll_if_due()?;
        let mut segment = match self.segment.take() {
            Some(segment) => segment,
            None => self.new_segment()?,
        };
        let now = microseconds(net::clock::now());
        let mut batch = segment.batch();
        let mut outcomes = Vec::with_capacity(appends.len());
        for append in appends.iter_mut() {
            outcomes.push(self.stage(append, now, &mut batch).map_err(LedgerError::from));
        }
        let records = batch.extent.records - segment.extent.records;
        let observer = self.settings.fsync_observer.as_ref();
        let is_due = self.head_due.is_some_and(|at| at <= net::clock::monotonic());
        let due = is_due.then_some(&self.home);
        let result = segment.commit(batch, &mut self.journal, &mut self.beside, due, observer);
        self.position = segment.position.clone();
        self.segment = Some(segment);
        if result? {
            self.head_due = None;
        }
        for (append, outcome) in appends.iter().zip(&outcomes) {
            match &append.mark {
                Mark::Opens(id) if outcome.is_ok() => self.open.insert(id.clone()),
                Mark::Settles(id) if outcome.is_ok() => self.open.remove(id),
                Mark::None | Mark::Opens(_) | Mark::Settles(_) => false,
            };
        }
        self.shared.records.fetch_add(records, Ordering::Relaxed);
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        self.head_due.get_or_insert_with(|| net::clock::monotonic() + self.settings.head_interval);
        Ok(outcomes)
    }

    /// Adds one record to `batch`, after the token it cites where this segment does not hold that yet.
    fn stage(&mut self, append: &mut Append, now: Timestamp, batch: &mut Batch) -> Result<u64, Unrecordable> {
        if let Some(subject) = &append.subject {
            self.seen.cite(subject, |mut draft| push(&mut draft, now, batch))?;
        }
        push(&mut append.draft, now, batch)
    }

    fn new_segment(&mut self) -> io::Result<OpenSegment> {
        let now = net::clock::monotonic();
        let segment = OpenSegment::create(&self.home, self.next_index, self.position.clone(), now)?;
        // From now on the journal says how much of it is durable: nothing.
        if let Err(error) = self.journal.append(&segment.end(), self.settings.fsync_observer.as_ref()) {
            segment::remove_empty(&segment.paths);
            return Err(error);
        }
        self.next_index += 1;
        self.seen.clear();
        Ok(segment)
    }

    /// Seals the segment once it is full or old; the next append begins a new one.
    fn roll_if_due(&mut self) -> io::Result<()> {
        let full = |segment: &OpenSegment| segment.extent.line_bytes >= self.settings.segment_max_bytes;
        let due =
            self.segment.as_ref().is_some_and(full) || self.seal_due().is_some_and(|at| at <= net::clock::monotonic());
        if due { self.seal() } else { Ok(()) }
    }

    /// When the segment is old enough to be sealed, whether or not anything is appended then.
    fn seal_due(&self) -> Option<Instant> {
        let segment = self.segment.as_ref().filter(|segment| segment.extent.records > 0)?;
        segment.opened.checked_add(self.settings.segment_max_age)
    }

    fn sign_now(&mut self) -> Result<(), LedgerError> {
        self.sign();
        self.outcome()
    }

    fn seal_now(&mut self) -> Result<(), LedgerError> {
        let some = self.segment.as_ref().is_some_and(|segment| segment.extent.records > 0);
        let sealed = if some { self.seal() } else { Ok(()) };
        if let Err(error) = sealed.and_then(|()| self.forget()) {
            self.fail(&error);
        }
        self.outcome()
    }

    /// Leaves nothing in the journal: whoever is to be forgotten is taken out of sealed segments, and may not be left
    /// there.
    fn forget(&mut self) -> io::Result<()> {
        let observer = self.settings.fsync_observer.as_ref();
        self.beside.settle()?;
        if let Some(segment) = &self.segment {
            segment.checkpoint(&mut self.journal, &mut self.beside, observer)?;
        }
        self.journal.wipe()?;
        match &self.segment {
            Some(segment) => self.journal.append(&segment.end(), observer),
            None => Ok(()),
        }
    }

    /// What an order is answered with: nothing is done while the disk fails.
    fn outcome(&self) -> Result<(), LedgerError> {
        match &self.outage {
            Some(outage) => Err(LedgerError::Unavailable(outage.why.clone())),
            None => Ok(()),
        }
    }

    fn seal(&mut self) -> io::Result<()> {
        let Some(segment) = &self.segment else { return Ok(()) };
        segment.checkpoint(&mut self.journal, &mut self.beside, self.settings.fsync_observer.as_ref())?;
        self.home.seal(segment.index, &segment.extent, &segment.position, &self.open)?;
        self.segment = None;
        self.head_due = None;
        self.shared.seals.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

impl Append {
    pub(crate) fn event(draft: Draft) -> Self {
        Self { draft, mark: Mark::None, subject: None }
    }

    /// The end of the call `id`.
    pub(crate) fn end(draft: Draft, id: String) -> Self {
        Self { mark: Mark::Settles(id), ..Self::event(draft) }
    }
}

/// Lines carry microseconds: what a seal says of their times must be what they say.
fn microseconds(time: Timestamp) -> Timestamp {
    time.round(Unit::Microsecond).unwrap_or(time)
}

/// Gives `draft` its place and adds its line and its row to `batch`.
fn push(draft: &mut Draft, now: Timestamp, batch: &mut Batch) -> Result<u64, Unrecordable> {
    let seq = batch.position.seq();
    let line = readable(draft.line(seq, now, &batch.position.prev)?)?;
    // Both are looked at before either is taken: a record is in the batch whole or not at all.
    if let Some(row) = draft.row(seq)?.map(readable).transpose()? {
        batch.values.extend_from_slice(row.as_bytes());
        batch.values.push(b'\n');
        batch.extent.value_bytes += row.len() as u64 + 1;
    }
    batch.position.push(line.as_bytes());
    batch.extent.push(line.len() + 1, now);
    batch.lines.extend_from_slice(line.as_bytes());
    batch.lines.push(b'\n');
    Ok(seq)
}

/// Whoever reads the ledger refuses what is longer, so one such line would make all that follows unreadable.
pub(crate) fn readable(text: String) -> Result<String, Unrecordable> {
    if text.len() > MAX_LINE_BYTES {
        return Err(Unrecordable::TooLarge { bytes: text.len(), limit: MAX_LINE_BYTES });
    }
    Ok(text)
}
