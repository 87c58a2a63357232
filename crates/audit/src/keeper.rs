//! The keeper: the ledger's second thread. It compresses sealed segments, retires old ones and erases people, beside
//! the writer and never in its way: it touches sealed segments only, and appends its records like anyone else.

pub(crate) mod compress;
pub(crate) mod erase;
pub(crate) mod late;
pub(crate) mod requests;
pub(crate) mod retire;

use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, atomic::Ordering, mpsc},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::oneshot;

use self::compress::Pace;
use crate::{
    LedgerError, RetentionConfig,
    erasure::{Erased, Erasure, ErasureError},
    log::{Pen, Shared},
    segment::{self, Paths, Seal},
    stored,
};

/// How many looks apart compression and retention are, where no segment was sealed in between.
const LOOKS: u32 = 60;

/// The niceness of the keeper's thread: what it does can wait.
const NICENESS: i32 = 19;

/// What the keeper is asked.
pub(crate) enum Chore {
    /// Erase a person.
    Erase(Box<Erasure>, oneshot::Sender<Result<Erased, ErasureError>>),
    /// End.
    Stop,
}

/// The keeper of one ledger.
pub(crate) struct Keeper {
    pub(crate) dir: PathBuf,
    pub(crate) pen: Pen,
    pub(crate) shared: Arc<Shared>,
    pub(crate) interval: Duration,
    pub(crate) compress_after: Option<Duration>,
    pub(crate) retention: RetentionConfig,
}

impl Keeper {
    /// Works until it is told to stop or nobody has the ledger any more.
    pub(crate) fn run(self, chores: &mpsc::Receiver<Chore>) {
        lower_priority();
        attempt("clean up after a crash", self.finish_what_was_begun());
        let mut next: Option<Instant> = None;
        let mut seals = 0;
        loop {
            match chores.recv_timeout(self.interval) {
                Ok(Chore::Erase(erasure, reply)) => drop(reply.send(erase::erase(&self, &erasure))),
                Ok(Chore::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            attempt("answer requests", requests::answer(&self));
            let (now, sealed) = (net::clock::monotonic(), self.shared.seals.load(Ordering::Acquire));
            if next.is_none_or(|next| next <= now) || sealed != seals {
                seals = sealed;
                next = now.checked_add(self.interval * LOOKS);
                attempt("take out what late ends of calls brought", late::finish(&self));
                attempt("retire segments", retire::retire_due(&self, net::clock::now()));
                let compressed = self.compress_next(net::clock::now());
                // One at a time: whoever asks for something in between does not wait for all of them.
                if matches!(compressed, Ok(true)) {
                    next = None;
                }
                attempt("compress segments", compressed.map(drop));
            }
        }
    }

    /// Removes what a crash left half made, and takes the segments away that were on record as retired.
    pub(crate) fn finish_what_was_begun(&self) -> Result<(), LedgerError> {
        for entry in fs::read_dir(&self.dir).map_err(LedgerError::io(&self.dir))? {
            let path = entry.map_err(LedgerError::io(&self.dir))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let half_made = name.ends_with(".gz.new") || name.ends_with(".values.new");
            // The original is still there: it has not been replaced yet.
            let doubled = name.strip_suffix(".gz").is_some_and(|plain| self.dir.join(plain).exists());
            if half_made || doubled {
                stored::remove_if_there(&path).map_err(LedgerError::io(&path))?;
            }
        }
        requests::forget_answers(&self.dir)?;
        retire::resume(&self.dir)
    }

    /// Compresses the first sealed segment whose last record is old enough; false where there is none.
    fn compress_next(&self, now: Timestamp) -> Result<bool, LedgerError> {
        let Some(after) = self.compress_after else { return Ok(false) };
        let pace = Pace::new(&self.shared);
        for index in segment::list(&self.dir).map_err(LedgerError::io(&self.dir))? {
            let paths = Paths::new(&self.dir, index);
            let files = [&paths.lines, &paths.values, &paths.heads];
            if !files.iter().any(|path| path.exists()) {
                continue;
            }
            let seal = Seal::read(&paths.seal).map_err(LedgerError::io(&paths.seal))?;
            let Some(latest) = seal.and_then(|seal| seal.latest) else { continue };
            if Duration::try_from(now.duration_since(latest)).unwrap_or_default() < after {
                continue;
            }
            for path in files.into_iter().filter(|path| path.exists()) {
                compress::compress(path, &pace).map_err(LedgerError::io(path))?;
            }
            return Ok(true);
        }
        Ok(false)
    }
}

/// A chore that failed is tried again: nothing waits for it.
fn attempt(what: &str, outcome: Result<(), LedgerError>) {
    match outcome {
        Ok(()) | Err(LedgerError::Closed) => {}
        Err(error) => tracing::warn!(%error, "the ledger's keeper could not {what}; it tries again"),
    }
}

/// Of this thread alone, which ends with the ledger.
fn lower_priority() {
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(error = %io::Error::from(error), "the ledger's keeper runs at the usual priority");
    }
}
