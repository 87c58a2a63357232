//! Ships a ledger to its authority as it is signed: never on the way of a call, through outages, and by itself again.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;

use super::{
    ERASURES_PATH, SEGMENTS_PATH, ShipConfig,
    chunk::{CHUNK_TYPE, Chunk, Stand},
    chunks::{Chunks, kept},
    uplink::{NotTold, Uplink},
};
use crate::{Event, Ledger, LedgerError, OnLag, record::Unshipped, recovery};

/// Between two looks for what was signed since.
const LOOK: Duration = Duration::from_millis(250);
/// After a failure, twice as long each time, up to the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// What the rest may take when the process ends.
const AT_THE_END: Duration = Duration::from_millis(2500);
/// Who needs the ledger, for retention.
const SHIPPING: &str = "shipping";

/// How far behind the authority's copy is, for metrics and for calls that may not go then.
#[derive(Debug)]
pub struct Backlog {
    most: Duration,
    refuse: bool,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    /// Since when the oldest record waits that is not there, on the monotonic clock. From the start on where nothing is
    /// known yet.
    oldest: Option<Instant>,
    trouble: Option<String>,
    alerted: bool,
}

impl Backlog {
    fn new(config: &ShipConfig) -> Self {
        let known = Known { oldest: Some(net::clock::monotonic()), trouble: None, alerted: false };
        Self { most: config.max_lag.0, refuse: config.on_lag == OnLag::RefuseWrites, known: Mutex::new(known) }
    }

    fn known<T>(&self, look: impl FnOnce(&mut Known) -> T) -> T {
        look(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The age of the oldest record that is not at the authority; zero where all are.
    pub fn lag(&self) -> Duration {
        let now = net::clock::monotonic();
        self.known(|known| known.oldest.map_or(Duration::ZERO, |since| now.saturating_duration_since(since)))
    }

    /// Why the last attempt failed.
    pub fn trouble(&self) -> Option<String> {
        self.known(|known| known.trouble.clone())
    }

    /// Why no draft and no write may go now.
    pub fn refuses_writes(&self) -> Option<String> {
        let lag = self.lag();
        (self.refuse && lag > self.most).then(|| {
            format!(
                "records of {} s are not at the authority, and the most is {} s",
                lag.as_secs(),
                self.most.as_secs()
            )
        })
    }
}

/// Ships one ledger.
pub struct Shipping {
    ledger: Ledger,
    uplink: Uplink,
    backlog: Arc<Backlog>,
    stand: Option<Stand>,
    chunks: Option<Chunks>,
    /// What did not come across.
    pending: Option<Box<Chunk>>,
}

impl Shipping {
    /// Nothing is known of the authority's copy yet.
    pub fn new(ledger: Ledger, uplink: Uplink, config: &ShipConfig) -> Self {
        ledger.needed_from(SHIPPING, 0);
        let backlog = Arc::new(Backlog::new(config));
        ledger.held_back_by(Arc::clone(&backlog));
        Self { ledger, uplink, backlog, stand: None, chunks: None, pending: None }
    }

    /// How far behind it is, now and later.
    pub fn backlog(&self) -> Arc<Backlog> {
        Arc::clone(&self.backlog)
    }

    /// Works until `stop` ends, and then once more: the ledger was closed by then, and all of it is shipped.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut pause = PAUSE.0;
        loop {
            let outcome = tokio::select! {
                () = &mut stop => break,
                outcome = self.catch_up() => outcome,
            };
            let rest = self.rest(outcome, &mut pause);
            self.alert().await;
            tokio::select! {
                () = &mut stop => break,
                () = tokio::time::sleep(rest) => {}
            }
        }
        // Where it was broken off, nobody knows what arrived: the authority is asked.
        (self.stand, self.chunks, self.pending) = (None, None, None);
        if !matches!(tokio::time::timeout(AT_THE_END, self.catch_up()).await, Ok(Ok(()))) {
            tracing::warn!("not all of the ledger is at the authority; the next start goes on with it");
        }
    }

    /// How long until the next look: longer each time that it fails.
    fn rest(&mut self, outcome: Result<(), NotTold>, pause: &mut Duration) -> Duration {
        match outcome {
            Ok(()) => {
                *pause = PAUSE.0;
                LOOK
            }
            Err(error) => {
                self.fail(&error);
                std::mem::replace(pause, (*pause * 2).min(PAUSE.1))
            }
        }
    }

    /// Ships everything that is signed by now.
    async fn catch_up(&mut self) -> Result<(), NotTold> {
        let Some((head, note)) = self.ledger.newest_head() else { return Ok(()) };
        let stand = match self.stand.take() {
            Some(stand) => stand,
            None => self.ask().await?,
        };
        self.stand = Some(self.erase(stand).await?);
        while let Some(mut chunk) = self.next(head.size).await? {
            chunk.head = (chunk.end() == head.size).then(|| note.clone());
            let stand = self.send(chunk).await?;
            self.stand = Some(self.erase(stand).await?);
        }
        self.caught_up(head.size);
        Ok(())
    }

    fn caught_up(&self, records: u64) {
        let troubled = self.backlog.known(|known| {
            known.oldest = None;
            known.alerted = false;
            known.trouble.take().is_some()
        });
        if troubled {
            tracing::info!(records, "the authority has all of the ledger again");
        }
    }

    async fn ask(&mut self) -> Result<Stand, NotTold> {
        (self.chunks, self.pending) = (None, None);
        let path = format!("{SEGMENTS_PATH}?ledger={}", self.ledger.id());
        let stand = self.uplink.get(&path).await?.read()?;
        self.hold(&stand);
        Ok(stand)
    }

    /// Retention keeps what is not there, and what the copy has yet to be told of.
    fn hold(&self, stand: &Stand) {
        let from = match stand {
            Stand { erase, .. } if !erase.is_empty() => 0,
            Stand { sealed: true, next, .. } => *next,
            // The end of a segment is more than its lines.
            Stand { next, .. } => next.saturating_sub(1),
        };
        self.ledger.needed_from(SHIPPING, from);
    }

    /// The next chunk after where the authority stands, of what a head over `signed` lines covers.
    async fn next(&mut self, signed: u64) -> Result<Option<Box<Chunk>>, NotTold> {
        if let Some(chunk) = self.pending.take() {
            return Ok(Some(chunk));
        }
        let stand = self.stand.clone().unwrap_or_default();
        if stand.sealed && stand.next >= signed && stand.segment > 0 {
            return Ok(None);
        }
        let (dir, chunks) = (self.ledger.dir().to_owned(), self.chunks.take());
        let (key, proof) = (self.ledger.verifying_key().clone(), self.ledger.prove(&self.uplink.sidecar));
        let read = move || -> Result<_, LedgerError> {
            let chunks = match chunks {
                Some(chunks) => Some(chunks),
                None => Chunks::open(&dir, &stand)?,
            };
            let Some(mut chunks) = chunks else { return Ok(None) };
            Ok(Some((chunks.next(signed, &key, &proof)?, chunks)))
        };
        let read = tokio::task::spawn_blocking(read).await.map_err(|error| NotTold::Unreachable(error.to_string()))?;
        let Some((chunk, chunks)) = read? else { return Ok(None) };
        // Of a segment that ends with this chunk there are no more.
        self.chunks = chunk.as_ref().is_none_or(|chunk| chunk.seal.is_none()).then_some(chunks);
        Ok(chunk)
    }

    async fn send(&mut self, chunk: Box<Chunk>) -> Result<Stand, NotTold> {
        if let Some(age) = age(&chunk.lines, net::clock::now()) {
            let since = net::clock::monotonic().checked_sub(age);
            self.backlog.known(|known| known.oldest = since.or(known.oldest));
        }
        let body = chunk.written().map_err(|error| NotTold::Unreachable(error.to_string()))?;
        let told = match self.uplink.post(SEGMENTS_PATH, CHUNK_TYPE, body).await {
            Ok(told) => told,
            Err(error) => {
                self.pending = Some(chunk);
                return Err(error);
            }
        };
        if told.status == StatusCode::CONFLICT
            && let Some(stand) = told.member("stand").and_then(|stand| serde_json::from_value::<Stand>(stand).ok())
        {
            // It has what was sent before an answer was lost, or lost what it had not acknowledged.
            (self.chunks, self.pending) = (None, None);
            self.hold(&stand);
            return Ok(stand);
        }
        if told.status.is_server_error() || told.status == StatusCode::TOO_MANY_REQUESTS {
            self.pending = Some(chunk);
            return Err(told.refused());
        }
        let stand = told.read().inspect_err(|_| self.chunks = None)?;
        self.hold(&stand);
        Ok(stand)
    }

    /// Has erased at the authority what the ledger says was erased here.
    async fn erase(&mut self, mut stand: Stand) -> Result<Stand, NotTold> {
        for segment in stand.erase.clone() {
            let (dir, key) = (self.ledger.dir().to_owned(), self.ledger.verifying_key().clone());
            let proof = self.ledger.prove(&self.uplink.sidecar);
            let read = tokio::task::spawn_blocking(move || kept(&dir, segment, &key, &proof)).await;
            let read = read.map_err(|error| NotTold::Unreachable(error.to_string()))?;
            let Some(kept) = read? else {
                let why =
                    format!("segment {segment} is not there any more, and values of it are to be erased elsewhere");
                return Err(LedgerError::damaged(self.ledger.dir(), why).into());
            };
            let body = serde_json::to_vec(&kept).map_err(|error| NotTold::Unreachable(error.to_string()))?;
            let told = self.uplink.post(ERASURES_PATH, "application/json", Bytes::from(body)).await?;
            stand = told.read()?;
            self.hold(&stand);
            tracing::info!(segment, "what was erased here is erased at the authority");
        }
        Ok(stand)
    }

    fn fail(&mut self, error: &NotTold) {
        let said = error.to_string();
        let again = self.backlog.known(|known| known.trouble.replace(said.clone()).as_ref() == Some(&said));
        if !again {
            tracing::warn!(error = said, "the ledger is not shipped; it is tried again");
        }
        if !matches!(error, NotTold::Unreachable(_)) && self.pending.is_none() {
            (self.stand, self.chunks) = (None, None);
        }
    }

    /// Puts it on record once when the authority's copy is too far behind.
    async fn alert(&mut self) {
        let lag = self.backlog.lag();
        if lag <= self.backlog.most || self.backlog.known(|known| std::mem::replace(&mut known.alerted, true)) {
            return;
        }
        let why = self.backlog.trouble().unwrap_or_default();
        tracing::error!(seconds = lag.as_secs(), why, "records are not at the authority for longer than `max_lag`");
        let since = net::clock::now().checked_sub(lag).unwrap_or(Timestamp::MIN);
        let refuses_writes = self.backlog.refuse;
        let alert = Event::Unshipped(Unshipped { since, refuses_writes, why });
        if let Err(error) = self.ledger.event(alert).await {
            tracing::warn!(%error, "that the ledger is not shipped could not be recorded");
        }
    }
}

/// How long ago the first of `lines` was written.
fn age(lines: &[u8], now: Timestamp) -> Option<Duration> {
    let first = lines.split(|byte| *byte == b'\n').next()?;
    Duration::try_from(now.duration_since(recovery::peek(first).ok()?.time)).ok()
}
