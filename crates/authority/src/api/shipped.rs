//! `/v1/ledger-segments` and `/v1/ledger-erasures` for enrolled sidecars: what they record is kept here too, so that it
//! outlives the machine it was recorded on. Nothing is acknowledged that is not verified and durable.

use std::sync::Arc;

use audit::{
    Event, RetentionConfig, VerifyingKey,
    record::CopyChanged,
    ship::{
        NotTaken, Shelf, Taken,
        chunk::{CHUNK_TYPE, Chunk, Kept, MAX_CHUNK_BYTES, Stand},
    },
};
use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, header};
use jiff::Timestamp;
use model::Id;
use net::{Body, BoxError, Tasks, body::CollectError};
use schemars::{Schema, SchemaGenerator};
use serde::Serialize;
use store::{KnownLedger, Sidecar};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    MAX_BODY_TIME, body,
    problem::{Code, Problem},
    query::Query,
    read,
};
use crate::{Authority, refused::json_response};

/// How often it is looked for what is kept no longer.
const RETIRE_EVERY: std::time::Duration = std::time::Duration::from_secs(60);
/// On record as the reason, where the sidecar's own ledger says that values were erased.
const BY_THE_LEDGER: &str = "the ledger's own record";

impl Authority {
    /// How far a sidecar's ledger is here, and the next chunk of it.
    pub(super) async fn segments<B>(
        &self,
        method: &Method,
        headers: &HeaderMap,
        query: Option<&str>,
        body: B,
    ) -> Result<Response<Body>, Problem>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let teller = self.teller(headers).await?;
        if method == Method::GET {
            let query = Query::parse(query.unwrap_or_default())?;
            query.only(&["ledger"])?;
            return self.stand(&teller.sidecar, query.value("ledger").unwrap_or_default()).await;
        }
        // Each may hold a chunk in memory.
        let room = Arc::clone(&self.api.chunks).try_acquire_owned();
        let room = room.map_err(|_| Problem::new(Code::Overloaded, "Too many sidecars ship their ledgers at once."))?;
        let chunk = Chunk::read(&chunk(headers, body).await?).map_err(|error| Problem::invalid(error.to_string()))?;
        let (key, ledger) = self.spoken_for(&teller, &chunk.ledger, &chunk.proof).await?;
        let shelf = self.shelf.clone();
        match within(room, move || shelf.take(&key, &chunk)).await? {
            Ok(stand) => Ok(answered(&stand)),
            Err(refused) => Err(self.not_taken(&ledger, refused, teller.now).await),
        }
    }

    async fn stand(&self, sidecar: &Sidecar, id: &str) -> Result<Response<Body>, Problem> {
        let id: Id<KnownLedger> = Id::new(id).map_err(|_| Problem::invalid("`ledger` is no ledger's id"))?;
        let Some(ledger) = self.store.ledger(&id).await?.filter(|ledger| ledger.sidecar == sidecar.id) else {
            // Nobody's yet, or another's until the first chunk proves whose it is.
            return Ok(answered(&Stand::default()));
        };
        let key: VerifyingKey = ledger.verifying_key.parse().map_err(|_| Problem::not_found())?;
        let shelf = self.shelf.clone();
        match blocking(move || shelf.stand(&key)).await? {
            Ok(stand) => Ok(answered(&stand)),
            Err(refused) => Err(Problem::unavailable("the copy of the ledger", &refused)),
        }
    }

    /// Erases in the copy what the ledger itself says was erased.
    pub(super) async fn erasures<B>(&self, headers: &HeaderMap, body: B) -> Result<Response<Body>, Problem>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let teller = self.teller(headers).await?;
        let kept: Kept = body::parse(&read(headers, body).await?)?;
        let (key, ledger) = self.spoken_for(&teller, &kept.ledger, &kept.proof).await?;
        let shelf = self.shelf.clone();
        match blocking(move || shelf.erase_but(&key, &kept)).await? {
            Ok((stand, taken)) => {
                if let Some(taken) = taken {
                    let changed = changed(taken, BY_THE_LEDGER, None);
                    let recorded = self.ledger.event(Event::CopyChanged(Box::new(changed))).await;
                    recorded.map_err(|error| Problem::unavailable("the ledger", &error))?;
                }
                Ok(answered(&stand))
            }
            Err(refused) => Err(self.not_taken(&ledger, refused, teller.now).await),
        }
    }

    async fn not_taken(&self, ledger: &KnownLedger, refused: NotTaken, now: Timestamp) -> Problem {
        match &refused {
            NotTaken::Elsewhere(stand) => {
                let stand = serde_json::to_value(stand).unwrap_or_default();
                Problem::new(Code::Conflict, refused.to_string()).with("stand", stand)
            }
            NotTaken::Wrong(why) => {
                tracing::warn!(ledger = %ledger.id, why, "a chunk of a sidecar's ledger is refused");
                Problem::invalid(refused.to_string())
            }
            NotTaken::Forked => match self.alert(ledger, "", false, now).await {
                Ok(()) => Problem::new(Code::Conflict, refused.to_string()),
                Err(problem) => problem,
            },
            NotTaken::NoRoom { .. } | NotTaken::Copy(_) => Problem::unavailable("room for the ledger", &refused),
        }
    }
}

/// Takes away, now and then, what `retention` does not keep of the copies, and puts that on record.
pub(crate) fn retire(shelf: Shelf, retention: RetentionConfig, ledger: audit::Ledger, tasks: &Tasks) {
    if retention == RetentionConfig::default() {
        return;
    }
    let stop = tasks.shutdown_token();
    tasks.spawn("retention of shipped ledgers", async move {
        loop {
            let (shelf, now) = (shelf.clone(), net::clock::now());
            match tokio::task::spawn_blocking(move || shelf.retire(&retention, now)).await {
                Ok(Ok(taken)) => {
                    for taken in taken {
                        let changed = changed(taken, "authority.shipped.retention", None);
                        if let Err(error) = ledger.event(Event::CopyChanged(Box::new(changed))).await {
                            tracing::warn!(%error, "that a shipped segment was taken away could not be recorded");
                        }
                    }
                }
                Ok(Err(error)) => tracing::warn!(%error, "shipped segments could not be taken away"),
                Err(error) => tracing::error!(%error, "the retention of shipped ledgers failed"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RETIRE_EVERY) => {}
            }
        }
    });
}

pub(super) fn changed(taken: Taken, by: &str, reason: Option<String>) -> CopyChanged {
    let Taken { ledger, segment, records, left } = taken;
    CopyChanged { ledger, segment, records, left, by: by.to_owned(), reason }
}

/// Work that waits for the disk.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Problem::unavailable("the copy of the ledger", &error))
}

/// The same, which holds `room` until it ends: it goes on also where whoever asked went away.
pub(super) async fn within<T: Send + 'static>(
    room: OwnedSemaphorePermit,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    blocking(move || {
        let done = work();
        drop(room);
        done
    })
    .await
}

fn answered(stand: &impl Serialize) -> Response<Body> {
    json_response(StatusCode::OK, &serde_json::to_value(stand).unwrap_or_default())
}

/// The whole chunk, which has to say that it is one.
async fn chunk<B>(headers: &HeaderMap, body: B) -> Result<Bytes, Problem>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    if headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) != Some(CHUNK_TYPE) {
        return Err(Problem::invalid(format!("`Content-Type` has to be `{CHUNK_TYPE}`")));
    }
    match tokio::time::timeout(MAX_BODY_TIME, net::body::collect(body, MAX_CHUNK_BYTES)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(CollectError::TooLarge { limit })) => {
            Err(Problem::new(Code::TooLarge, format!("The chunk is larger than {limit} bytes.")))
        }
        Ok(Err(CollectError::Broken { .. })) => Err(Problem::invalid("the body broke off")),
        Err(_) => Err(Problem::invalid("the body did not arrive in time")),
    }
}

/// A chunk: bytes, which say themselves what they are.
pub(super) fn chunk_schema(_generator: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({ "type": "string", "format": "binary" })
}

/// What the body of an erasure may be.
pub(super) fn kept_schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<Kept>()
}
