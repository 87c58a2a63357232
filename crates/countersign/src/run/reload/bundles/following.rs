//! The task that asks for one bundle until shutdown: what it does with each answer, and how long it waits for the next.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use net::Tasks;
use policy::refresh::{Answer, AskError, Asker};
use tokio::sync::{mpsc, oneshot};

use super::{super::last_good::Note, Arrival, Bundles, Followed, Taken, Verdict};
use crate::environment::Environment;

/// The task that asks for one bundle.
pub(super) struct Following {
    pub(super) name: String,
    pub(super) followed: Arc<Followed>,
    pub(super) bundles: Arc<Bundles>,
    pub(super) asker: Asker,
    pub(super) environment: Environment,
    pub(super) arrivals: mpsc::Sender<Arrival>,
    pub(super) tasks: Tasks,
}

impl Following {
    pub(super) async fn run(mut self) {
        let stop = self.tasks.shutdown_token();
        let followed = Arc::clone(&self.followed);
        let mut seen = followed.known().etag.clone();
        let (mut failures, mut refused) = (0_u32, false);
        loop {
            let pause = self.asker.pause(failures, refused);
            let anew = tokio::select! {
                () = stop.cancelled() => return,
                () = followed.again.notified() => true,
                () = tokio::time::sleep(pause) => false,
            };
            if anew {
                // Whatever was refused may be taken now.
                seen = None;
            }
            let asked_at = net::clock::now();
            let answer = tokio::select! {
                () = stop.cancelled() => return,
                answer = self.ask(seen.as_deref()) => answer,
                () = followed.again.notified() => {
                    // It is asked at once, and held back no longer.
                    followed.again.notify_one();
                    continue;
                }
            };
            (failures, refused) = match answer {
                Ok(Answer::Same) => {
                    self.heard(None);
                    if seen == followed.known().etag {
                        self.confirm(asked_at).await;
                    }
                    (0, false)
                }
                Ok(Answer::Bundle { archive, etag }) => {
                    self.heard(None);
                    match self.hand_on(archive, etag.clone()).await {
                        Verdict::Decides => {
                            followed.freshness.confirm(asked_at);
                            seen = etag;
                            (0, false)
                        }
                        Verdict::Refused => {
                            seen = etag;
                            (failures.saturating_add(1), true)
                        }
                        Verdict::Later => (failures.saturating_add(1), false),
                    }
                }
                Err(error) => {
                    self.heard(Some(error.to_string()));
                    (failures.saturating_add(1), false)
                }
            };
        }
    }

    async fn ask(&mut self, etag: Option<&str>) -> Result<Answer, AskError> {
        let environment = &self.environment;
        self.asker.ask(etag, &|name: &str| environment.value(name).map(str::to_owned)).await
    }

    /// What the last question came to, which is said where it is new.
    fn heard(&self, error: Option<String>) {
        let mut known = self.followed.known();
        if known.last_error != error {
            match &error {
                Some(error) => tracing::warn!(bundle = self.name, "the bundle's server gives none: {error}"),
                None => tracing::info!(bundle = self.name, "the bundle's server answers again"),
            }
            known.last_error = error;
        }
    }

    /// The server says that what decides is the one.
    async fn confirm(&self, at: Timestamp) {
        self.followed.freshness.confirm(at);
        let Some(last_good) = self.bundles.last_good.clone() else { return };
        let note = {
            let known = self.followed.known();
            let Taken { serial, sha256 } = known.taken.clone();
            Note { url: self.followed.url.clone(), etag: known.etag.clone(), serial, sha256, confirmed: at }
        };
        let name = self.name.clone();
        let keeping = self.tasks.spawn_blocking("policy bundle", move || last_good.confirm(&name, &note));
        if let Ok(Err(error)) = keeping.join().await {
            tracing::warn!(bundle = self.name, "that it is the newest bundle is not kept: {error}");
        }
    }

    async fn hand_on(&self, archive: Bytes, etag: Option<String>) -> Verdict {
        let (verdict, answer) = oneshot::channel();
        let arrival = Arrival { name: self.name.clone(), archive, etag, verdict };
        if self.arrivals.send(arrival).await.is_err() {
            return Verdict::Later;
        }
        answer.await.unwrap_or(Verdict::Later)
    }
}
