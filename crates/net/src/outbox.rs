//! What is told to somebody else and waited for by nobody: a bounded queue, sent one by one, tried again with longer and
//! longer pauses, and given up after a while.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::{Body, HttpClient, Tasks, clock};

/// How many wait at the most; what comes then is dropped and counted.
const QUEUE: usize = 256;
/// For the answer's head.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first pause before another attempt; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// After so long one is given up, for those behind it.
const GIVEN_UP: Duration = Duration::from_secs(15 * 60);

/// Where something is told, and how.
pub struct Destination {
    /// What it is called in logs.
    pub name: &'static str,
    /// With what.
    pub client: HttpClient,
    /// Where: an operator's URL.
    pub url: Uri,
    /// The header fields for a body at a moment, made anew for each attempt: who tells, or a signature.
    pub fields: Fields,
}

/// See [`Destination::fields`].
pub type Fields = Box<dyn Fn(&[u8], Timestamp) -> Result<HeaderMap, String> + Send + Sync>;

/// Things to be told, JSON each.
#[derive(Debug, Clone)]
pub struct Outbox {
    queue: mpsc::Sender<Bytes>,
    dropped: Arc<AtomicU64>,
}

/// What became of an attempt.
enum Attempt {
    Told,
    /// It is no use to try again.
    Refused(String),
    Failed(String),
}

impl Outbox {
    /// One that tells `destination`, until `tasks` end. What waits then is not told.
    pub fn new(destination: Destination, tasks: &Tasks) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Bytes>(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let (stop, count) = (tasks.shutdown_token(), Arc::clone(&dropped));
        tasks.spawn(destination.name, async move {
            loop {
                let body = tokio::select! {
                    () = stop.cancelled() => return,
                    body = waiting.recv() => match body { Some(body) => body, None => return },
                };
                tokio::select! {
                    () = stop.cancelled() => return,
                    told = destination.tell(body) => if !told { count.fetch_add(1, Ordering::Relaxed); },
                }
            }
        });
        Self { queue, dropped }
    }

    /// Has `body` told. Never waits; whether there was room for it.
    pub fn put(&self, body: impl Into<Bytes>) -> bool {
        let room = self.queue.try_send(body.into()).is_ok();
        if !room {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        room
    }

    /// How many were not told: there was no room, or nobody took them.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Destination {
    /// Tells `body`, however long it takes; whether it was taken.
    async fn tell(&self, body: Bytes) -> bool {
        let begun = clock::monotonic();
        let mut pause = FIRST_PAUSE;
        loop {
            let why = match self.attempt(body.clone()).await {
                Attempt::Told => return true,
                Attempt::Refused(why) => return self.untold(&why),
                Attempt::Failed(why) => why,
            };
            if clock::monotonic().saturating_duration_since(begun) > GIVEN_UP {
                return self.untold(&why);
            }
            tracing::debug!(to = self.name, why, ?pause, "it is tried again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn untold(&self, why: &str) -> bool {
        tracing::warn!(to = self.name, why, "it was not taken, and is given up");
        false
    }

    async fn attempt(&self, body: Bytes) -> Attempt {
        let fields = match (self.fields)(&body, clock::now()) {
            Ok(fields) => fields,
            Err(why) => return Attempt::Failed(why),
        };
        let mut request = Request::new(Body::full(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = fields;
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self.client.send(request, PATIENCE).await {
            // The body says nothing that is needed; a redirect is not followed.
            Ok(response) => match response.status().as_u16() {
                200..300 => Attempt::Told,
                status @ (408 | 425 | 429 | 500..) => Attempt::Failed(format!("status {status}")),
                status => Attempt::Refused(format!("status {status}")),
            },
            Err(error) => Attempt::Failed(error.to_string()),
        }
    }
}
