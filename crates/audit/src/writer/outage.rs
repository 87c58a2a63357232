//! When the disk fails: the segment is closed for good, calls are refused, and the writer tries again by itself until
//! a new segment holds the record of the outage, and with it how calls ended that were permitted before.

use std::{
    collections::BTreeSet,
    fs, io,
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};

use jiff::Timestamp;

use super::{Append, Mark, Writer};
use crate::{
    LedgerError, files,
    journal::{self, Journal},
    record, recovery, segment,
};

/// How often a ledger that failed tries again.
const RETRY: Duration = Duration::from_secs(1);

/// How many ends of calls are kept while the disk fails. No call is permitted meanwhile, so more than this many would
/// have to have been under way when it began.
pub(crate) const MAX_KEPT: usize = 16 * 1024;

/// A time in which the ledger could not be written.
pub(super) struct Outage {
    pub(super) since: Timestamp,
    pub(super) refused: u64,
    pub(super) why: String,
}

impl Writer {
    /// Notes that the disk failed. The segment is not written again.
    pub(super) fn fail(&mut self, error: &io::Error) {
        tracing::error!(%error, "the ledger cannot be written; calls are refused until it can");
        *self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        self.shared.healthy.store(false, Ordering::Release);
        self.shared.failures.fetch_add(1, Ordering::Relaxed);
        if let Some(segment) = self.segment.take() {
            self.broken = Some(segment);
        }
        self.head_due = None;
        self.retry_at = Some(net::clock::monotonic() + RETRY);
        if self.outage.is_none() {
            let outage = Outage { since: net::clock::now(), refused: 0, why: error.to_string() };
            // Now, and once: it can be recorded only when it is over.
            match record::unavailable(outage.since, outage.refused, &outage.why) {
                Ok(alert) => self.shared.tell(&alert, None),
                Err(error) => tracing::warn!(%error, "nobody can be told that the ledger cannot be written"),
            }
            self.outage = Some(outage);
        }
    }

    /// The outcomes of `appends` that the disk did not take. What became of a call cannot be said again by asking the
    /// agent to repeat it, so it waits here.
    pub(super) fn not_written(&mut self, appends: Vec<Append>, why: &str) -> Vec<Result<u64, LedgerError>> {
        let mut outcomes = Vec::with_capacity(appends.len());
        for append in appends {
            let settles = matches!(append.mark, Mark::Settles(_));
            if settles && self.kept.len() < MAX_KEPT {
                self.kept.push(append);
                outcomes.push(Err(LedgerError::Kept(why.to_owned())));
                continue;
            }
            if let Some(outage) = self.outage.as_mut() {
                outage.refused += 1;
            }
            outcomes.push(Err(LedgerError::Unavailable(why.to_owned())));
        }
        outcomes
    }

    /// Mends the failed segment, begins a new one, and records the outage in it.
    pub(super) fn retry(&mut self) {
        self.retry_at = None;
        if let Err(error) = self.mend() {
            self.fail(&io::Error::other(error.to_string()));
            return;
        }
        let Some(outage) = self.outage.take() else { return };
        let alert = match record::unavailable(outage.since, outage.refused, &outage.why) {
            Ok(draft) => Append::event(draft),
            Err(error) => {
                self.outage = Some(outage);
                self.fail(&io::Error::other(error));
                return;
            }
        };
        // With the record of the outage, because there is none to write them after.
        let mut appends = vec![alert];
        appends.append(&mut self.kept);
        match self.write(&mut appends) {
            Ok(_) => {
                let kept = appends.len() - 1;
                tracing::info!(refused = outage.refused, kept, "the ledger can be written again");
                self.shared.healthy.store(true, Ordering::Release);
            }
            Err(error) => {
                self.kept = appends.split_off(1);
                self.outage = Some(outage);
                self.fail(&error);
            }
        }
    }

    /// Leaves nothing that failed: the segment is sealed, and the journal is a new one.
    fn mend(&mut self) -> Result<(), LedgerError> {
        // What goes on beside is about files that are mended here; how it ended no longer matters.
        if let Err(error) = self.beside.settle() {
            tracing::warn!(%error, "the files of the failed segment could not be synced");
        }
        self.mend_segment()?;
        // In each try: it may be another file by now, or wiped by half, and recovery would see nothing of what is added to
        // that. What it held is of no use any more.
        self.journal = Journal::open(&self.home.dir).map_err(LedgerError::io(&self.home.dir))?;
        Ok(())
    }

    /// Cuts the failed segment back to what was acknowledged, reads it again, and seals it.
    fn mend_segment(&mut self) -> Result<(), LedgerError> {
        let Some(broken) = &self.broken else { return Ok(()) };
        let paths = &broken.paths;
        let (extent, position) = (&broken.extent, &broken.position);
        // What the disk may have lost since it was acknowledged.
        journal::restore(&self.home.dir, broken.index, paths).map_err(LedgerError::io(&self.home.dir))?;
        for (path, length) in [(&paths.lines, extent.line_bytes), (&paths.values, extent.value_bytes)] {
            files::cut(path, length).map_err(LedgerError::io(path))?;
            files::sync(path).map_err(LedgerError::io(path))?;
        }
        if extent.records == 0 {
            segment::remove_empty(paths);
            self.next_index = broken.index;
        } else {
            let mut open = BTreeSet::new();
            let replay = recovery::replay(paths, &broken.start, &mut open, Some(extent.line_bytes))?;
            if replay.position != *position {
                return Err(LedgerError::damaged(&paths.lines, "what is on disk is not what was acknowledged"));
            }
            recovery::trim_heads(paths)?;
            self.home.seal(broken.index, extent, position, &self.open).map_err(LedgerError::io(&paths.seal))?;
        }
        self.broken = None;
        Ok(())
    }

    /// Calls that nobody settled, the record of the stop, the last head and the seal; with the reserve given up where
    /// the disk is full.
    pub(super) fn close(&mut self) {
        for attempt in 0..2 {
            match self.stop() {
                Ok(()) => return,
                Err(error) => {
                    self.fail(&error);
                    self.give_up_reserve(attempt, &error);
                }
            }
        }
        if let Err(error) = self.beside.settle() {
            tracing::warn!(%error, "the last thing that went on beside the writer failed");
        }
        tracing::error!("the ledger was not closed cleanly; the next start mends it");
    }

    fn stop(&mut self) -> io::Result<()> {
        if self.outage.is_some() {
            self.retry();
        }
        if self.outage.is_some() {
            return Err(io::Error::other("the ledger is not writable"));
        }
        let mut records = self.last_records()?;
        self.write(&mut records)?;
        self.seal()?;
        self.forget()
    }

    fn give_up_reserve(&self, attempt: u32, error: &io::Error) {
        tracing::warn!(attempt, %error, "the ledger could not be closed; giving up the disk reserve");
        if let Err(error) = fs::remove_file(&self.reserve) {
            tracing::warn!(%error, "the disk reserve could not be removed");
        }
    }

    /// Nobody is left who could say how an open call ended.
    fn last_records(&self) -> io::Result<Vec<Append>> {
        let mut records = Vec::with_capacity(self.open.len() + 1);
        for id in &self.open {
            let draft = record::settled_unknown(id).map_err(io::Error::other)?;
            records.push(Append::end(draft, id.clone()));
        }
        let stopped = record::stopped(self.settings.started.component).map_err(io::Error::other)?;
        records.push(Append::event(stopped));
        Ok(records)
    }
}
