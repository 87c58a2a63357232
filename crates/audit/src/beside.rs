//! The thread beside the writer: it makes a segment's own files durable and signs heads over them, five fsyncs one after
//! the other, while the writer goes on and needs the journal alone.
//!
//! One job at a time. What it covers ends with a lap of the journal, which stays as it is until the job is done: only
//! the lap after it is written meanwhile, and whoever needs yet another waits.

use std::{
    fs::File,
    io,
    sync::{Arc, PoisonError, mpsc},
    time::{Duration, Instant},
};

use crate::{
    config::FsyncObserver,
    log::Shared,
    segment::{Home, Position, sync},
};

/// How often the writer looks whether a job is done, where it has nothing else to do.
const LOOK: Duration = Duration::from_millis(2);

/// What is to be done beside the writer.
pub(crate) struct Job {
    pub(crate) values: Arc<File>,
    pub(crate) lines: Arc<File>,
    /// A head to be signed once the files are durable.
    pub(crate) head: Option<Heading>,
}

/// A head over the lines up to a position, which are all written.
pub(crate) struct Heading {
    pub(crate) home: Arc<Home>,
    pub(crate) segment: u64,
    pub(crate) position: Position,
}

/// The writer's side.
pub(crate) struct Beside {
    jobs: mpsc::Sender<Job>,
    ends: mpsc::Receiver<io::Result<()>>,
    /// Since when a job is under way.
    since: Option<Instant>,
}

/// The thread's side.
pub(crate) struct Worker {
    jobs: mpsc::Receiver<Job>,
    ends: mpsc::Sender<io::Result<()>>,
    shared: Arc<Shared>,
    observer: Option<FsyncObserver>,
}

pub(crate) fn pair(shared: Arc<Shared>, observer: Option<FsyncObserver>) -> (Beside, Worker) {
    let ((jobs, given), (ends, ended)) = (mpsc::channel(), mpsc::channel());
    (Beside { jobs, ends: ended, since: None }, Worker { jobs: given, ends, shared, observer })
}

impl Beside {
    /// Has `job` done. The one before has to have ended: [settled](Self::settle).
    pub(crate) fn begin(&mut self, job: Job) -> io::Result<()> {
        self.jobs.send(job).map_err(|_| gone())?;
        self.since = Some(net::clock::monotonic());
        Ok(())
    }

    /// Whether a job is under way.
    ///
    /// # Errors
    /// When one ended since the last question, and the disk failed it.
    pub(crate) fn is_busy(&mut self) -> io::Result<bool> {
        if self.since.is_none() {
            return Ok(false);
        }
        let outcome = match self.ends.try_recv() {
            Err(mpsc::TryRecvError::Empty) => return Ok(true),
            Err(mpsc::TryRecvError::Disconnected) => Err(gone()),
            Ok(outcome) => outcome,
        };
        self.since = None;
        outcome.map(|()| false)
    }

    /// Waits until no job is under way.
    ///
    /// # Errors
    /// When the disk failed it: nothing of what it was to make durable may be taken for that.
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        match self.since.take() {
            Some(_) => self.ends.recv().unwrap_or_else(|_| Err(gone())),
            None => Ok(()),
        }
    }

    /// When to look whether the job that is under way is done: soon at first, seldom where it takes long.
    pub(crate) fn look_at(&self) -> Option<Instant> {
        let now = net::clock::monotonic();
        self.since.map(|since| now + LOOK.max(now.saturating_duration_since(since) / 4))
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread beside the ledger's writer has ended")
}

impl Worker {
    /// Does what the writer asks for until there is none.
    pub(crate) fn run(&self) {
        while self.next() {}
    }

    /// Does the next job; false where there will be none.
    pub(crate) fn next(&self) -> bool {
        let Ok(job) = self.jobs.recv() else { return false };
        self.works(true);
        let outcome = job.run(self.observer.as_ref());
        self.works(false);
        self.ends.send(outcome).is_ok()
    }

    fn works(&self, works: bool) {
        let since = works.then(net::clock::monotonic);
        *self.shared.beside.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}

impl Job {
    fn run(self, observer: Option<&FsyncObserver>) -> io::Result<()> {
        // Rows first, so that no durable line lacks its values.
        sync(&self.values, observer)?;
        sync(&self.lines, observer)?;
        // No head speaks of lines that are not in their own file for good.
        match self.head {
            Some(Heading { home, segment, position }) => home.sign_head(segment, &position).map(drop),
            None => Ok(()),
        }
    }
}
