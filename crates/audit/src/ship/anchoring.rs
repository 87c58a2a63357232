//! Has a ledger's heads anchored as they are signed: never on the way of a call, through outages, and by itself again.

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::StatusCode;

use super::{
    HEADS_PATH,
    anchor::{Anchored, Claim, Span},
    reading::Reading,
    uplink::{NotTold, Uplink},
};
use crate::{
    Head, Ledger, LedgerError,
    segment::{self, Paths, Seal},
};

/// Between two looks for a newer head. With how long a head may wait to be signed, a little over a second goes by
/// between a record and its anchor.
const LOOK: Duration = Duration::from_millis(250);
/// After a failure, twice as long each time, up to the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// Who needs the ledger, for retention.
const ANCHORING: &str = "anchoring";
/// What the last head may take when the process ends.
const AT_THE_END: Duration = Duration::from_secs(2);

/// What is known of how far a ledger is anchored, for metrics and `/status`.
#[derive(Debug, Default)]
pub struct Standing(Mutex<Known>);

#[derive(Debug, Default, Clone)]
struct Known {
    size: Option<u64>,
    behind: Option<Instant>,
    trouble: Option<String>,
}

impl Standing {
    fn known(&self) -> Known {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// How many lines the anchored head covers, once that is known.
    pub fn size(&self) -> Option<u64> {
        self.known().size
    }

    /// For how long the newest head has not been anchored; zero where it is.
    pub fn lag(&self) -> Duration {
        let now = net::clock::monotonic();
        self.known().behind.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Why the last attempt failed.
    pub fn trouble(&self) -> Option<String> {
        self.known().trouble
    }
}

/// Has the heads of one ledger anchored.
pub struct Anchoring {
    ledger: Ledger,
    uplink: Uplink,
    standing: Arc<Standing>,
    source: Source,
}

/// What of the ledger is read, on a thread that may wait for the disk.
#[derive(Default)]
pub(crate) struct Source {
    /// The size that the authority has, by its own word.
    pub(crate) anchored: Option<u64>,
    /// The lines after that, where they were read before.
    pub(crate) reading: Option<Reading>,
}

impl Anchoring {
    /// Nothing is known of the authority yet.
    pub fn new(ledger: Ledger, uplink: Uplink) -> Self {
        ledger.needed_from(ANCHORING, 0);
        Self { ledger, uplink, standing: Arc::default(), source: Source::default() }
    }

    /// What is known of it, now and later.
    pub fn standing(&self) -> Arc<Standing> {
        Arc::clone(&self.standing)
    }

    /// Works until `stop` ends, and then once more: the ledger was closed by then, and its last head is anchored too.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut pause = PAUSE.0;
        loop {
            let rest = match self.attempt().await {
                Ok(()) => {
                    pause = PAUSE.0;
                    LOOK
                }
                Err(error) => {
                    self.fail(&error);
                    let rest = pause;
                    pause = (pause * 2).min(PAUSE.1);
                    rest
                }
            };
            tokio::select! {
                () = &mut stop => break,
                () = tokio::time::sleep(rest) => {}
            }
        }
        if !matches!(tokio::time::timeout(AT_THE_END, self.attempt()).await, Ok(Ok(()))) {
            tracing::warn!("the ledger's last head is not anchored; the next start sees to it");
        }
    }

    /// Anchors the newest head, where it is not anchored yet.
    async fn attempt(&mut self) -> Result<(), NotTold> {
        // Told once or twice where the authority stands; more often nobody would be told anything.
        for _ in 0..3 {
            let Some((head, note)) = self.ledger.newest_head() else { return Ok(()) };
            if self.source.anchored == Some(head.size) {
                self.standing.change(|known| known.behind = None);
                return Ok(());
            }
            self.standing.change(|known| _ = known.behind.get_or_insert_with(net::clock::monotonic));
            if self.claim(&head, note).await? {
                return Ok(());
            }
        }
        Err(NotTold::Unreachable("the authority says of each head that it stands elsewhere".to_owned()))
    }

    /// Whether `head` is anchored now; if not, it is known where to go on from.
    async fn claim(&mut self, head: &Head, note: String) -> Result<bool, NotTold> {
        let key = self.ledger.verifying_key();
        let (mut source, size) = (std::mem::take(&mut self.source), head.size);
        let dir: PathBuf = self.ledger.dir().to_owned();
        let read = tokio::task::spawn_blocking(move || (source.span(&dir, size), source)).await;
        let (span, source) = read.map_err(|error| NotTold::Unreachable(error.to_string()))?;
        self.source = source;
        let (after, span) = span?;
        let claim = Claim {
            ledger: key.to_string(),
            proof: self.ledger.prove(&self.uplink.sidecar),
            after,
            subtrees: span.written(),
            note,
        };
        let body = serde_json::to_vec(&claim).map_err(|error| NotTold::Unreachable(error.to_string()))?;
        let told = self.uplink.post(HEADS_PATH, "application/json", Bytes::from(body)).await;
        let told = told.inspect_err(|_| self.source.reading = None)?;
        let elsewhere = told.member("anchored").and_then(|size| size.as_u64());
        if let (StatusCode::CONFLICT, Some(anchored)) = (told.status, elsewhere)
            && anchored <= head.size
            && self.source.anchored != Some(anchored)
        {
            self.source = Source { anchored: Some(anchored), reading: None };
            return Ok(false);
        }
        let Anchored { size } = told.read().inspect_err(|_| self.source.reading = None)?;
        self.source.anchored = Some(size);
        self.ledger.needed_from(ANCHORING, size);
        let troubled = self.standing.known().trouble.is_some();
        self.standing.change(|known| *known = Known { size: Some(size), ..Known::default() });
        if troubled {
            tracing::info!(size, "the ledger's heads are anchored again");
        }
        Ok(size == head.size)
    }

    fn fail(&self, error: &NotTold) {
        let said = error.to_string();
        if self.standing.known().trouble.as_ref() != Some(&said) {
            match error {
                NotTold::Refused { status: StatusCode::CONFLICT, .. } => {
                    tracing::error!(error = said, "the ledger's head is not anchored");
                }
                _ => tracing::warn!(error = said, "the ledger's head is not anchored; it is tried again"),
            }
        }
        self.standing.change(|known| known.trouble = Some(said));
    }
}

impl Source {
    /// What leads from the anchored size (or from nothing) to `size`, and which of these it is.
    pub(crate) fn span(&mut self, dir: &Path, size: u64) -> Result<(u64, Span), LedgerError> {
        let Some(after) = self.anchored.filter(|after| *after > 0) else {
            return self.span_of_all(dir, size).map(|span| (0, span));
        };
        let mut span = Span::after(after);
        if self.reading.as_ref().is_none_or(|reading| reading.seq() != after) {
            self.reading = Reading::open(dir, after)?;
        }
        let gone = || LedgerError::damaged(dir, "the lines after the anchored head are not there any more");
        let reading = self.reading.as_mut().ok_or_else(gone)?;
        read_to(dir, reading, &mut span, size)?;
        Ok((after, span))
    }

    /// The newest seal says what the tree is up to there; only what follows has to be read.
    fn span_of_all(&mut self, dir: &Path, size: u64) -> Result<Span, LedgerError> {
        let mut span = Span::after(0);
        for index in segment::list_with(dir, &[".seal"]).map_err(LedgerError::io(dir))?.into_iter().rev() {
            let path = Paths::new(dir, index).seal;
            let seal = Seal::read(&path).map_err(LedgerError::io(&path))?;
            if let Some(position) = seal.and_then(|seal| seal.position()).filter(|position| position.seq() <= size) {
                span = Span::whole(&position.frontier);
                break;
            }
        }
        let reading = Reading::open(dir, span.end())?;
        let mut reading = reading.ok_or_else(|| LedgerError::damaged(dir, "its beginning is missing"))?;
        read_to(dir, &mut reading, &mut span, size)?;
        self.reading = Some(reading);
        Ok(span)
    }
}

fn read_to(dir: &Path, reading: &mut Reading, span: &mut Span, size: u64) -> Result<(), LedgerError> {
    while span.end() < size {
        let line = reading.next()?.ok_or_else(|| {
            LedgerError::damaged(dir, format!("a signed head covers {size} lines, {} are there", span.end()))
        })?;
        span.push(&line);
    }
    Ok(())
}
