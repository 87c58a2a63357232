//! A sidecar that cannot write its ledger tells its authority, which puts it on record: its own ledger has it only once
//! it is over. Told is how things stand, again and again while they do, so that nothing depends on one answer.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use audit::{Ledger, LedgerError};
use http::{HeaderValue, Method, Request, Uri, header};
use jiff::Timestamp;
use net::{Body, HttpClient, Plaintext, Tasks};
use serde_json::{Value, json};
use store::remote::Authorise;

use crate::failure::Failure;

/// Between two looks at the ledger.
const EVERY: Duration = Duration::from_millis(500);
/// An outage is over when the ledger could be written for so long: a disk that comes and goes is one outage.
const STEADY: Duration = Duration::from_secs(5);
/// While an outage lasts it is told again after so long.
const AGAIN: Duration = Duration::from_secs(60);
/// The first pause after an attempt that failed, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// For an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// For an answer, where the sidecar cannot start: whoever starts it again waits for its end.
const AT_START: Duration = Duration::from_secs(3);
/// A ledger that does not say which it is.
const UNKNOWN: &str = "unknown";

/// The authority, as it is told.
pub(super) struct Authority {
    client: HttpClient,
    url: Uri,
    authorise: Authorise,
}

/// How the ledger stands, and what the authority knows of that.
#[derive(Debug)]
struct Watch {
    outage: Option<Outage>,
    /// Since when the ledger can be written, while an outage is not over yet.
    steady: Option<Instant>,
    /// What was told last: since when there is an outage, or that there is none.
    told: Option<Option<Timestamp>>,
    /// When it is told next, where something is to be told.
    next: Instant,
    pause: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Outage {
    since: Timestamp,
    why: String,
}

impl Authority {
    /// The one at `base`, told as whoever `authorise` says.
    pub(super) fn new(client: &HttpClient, base: &str, authorise: Authorise) -> Result<Self, Failure> {
        let url = net::check_operator_url(&format!("{base}/v1/alerts"), Plaintext::LoopbackOnly);
        Ok(Self { client: client.apart(None), url: url.map_err(Failure::configuration)?, authorise })
    }

    /// Tells of the outages of `ledger` until the end.
    pub(super) fn watch(self, ledger: &Ledger, tasks: &Tasks) {
        let (ledger, stop) = (ledger.clone(), tasks.shutdown_token());
        tasks.spawn("outages of the ledger", async move {
            let mut watch = Watch::new(net::clock::monotonic());
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(EVERY) => {}
                }
                let now = net::clock::monotonic();
                watch.look(ledger.trouble(), net::clock::now(), now);
                if !watch.is_due(now) {
                    continue;
                }
                let told = tokio::select! {
                    () = stop.cancelled() => return,
                    told = self.tell(watch.says(ledger.id())) => told,
                };
                if let Err(why) = &told {
                    tracing::debug!(why, "the authority was not told how the ledger stands");
                }
                watch.told(told.is_ok(), net::clock::monotonic());
            }
        });
    }

    /// Tells that the ledger in `dir` could not be opened because of `error`. Nobody waits long for it.
    pub(super) async fn not_opened(&self, dir: &Path, error: &LedgerError) -> Result<(), String> {
        // Without one it is at least said that there is none.
        let ledger = audit::ledger_id(dir).unwrap_or_else(|_| UNKNOWN.to_owned());
        let (since, why) = (net::clock::now(), error.to_string());
        let said = json!({
            "alert": "ledger_unavailable", "ledger": ledger, "since": since, "why": why, "starting": true,
        });
        tokio::time::timeout(AT_START, self.tell(said)).await.map_err(|_| "it does not answer".to_owned())?
    }

    async fn tell(&self, said: Value) -> Result<(), String> {
        let mut request = Request::new(Body::full(said.to_string()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        request.headers_mut().insert(header::AUTHORIZATION, (self.authorise)(net::clock::now())?);
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = self.client.send(request, PATIENCE).await.map_err(|error| error.to_string())?;
        if answer.status().is_success() { Ok(()) } else { Err(format!("status {}", answer.status())) }
    }
}

impl Watch {
    const fn new(now: Instant) -> Self {
        Self { outage: None, steady: None, told: None, next: now, pause: PAUSES.0 }
    }

    /// Takes in how the ledger stands: what is wrong with it, if anything is.
    fn look(&mut self, trouble: Option<String>, wall: Timestamp, now: Instant) {
        let before = self.state();
        match trouble {
            Some(why) => {
                self.steady = None;
                self.outage.get_or_insert(Outage { since: wall, why });
            }
            None if self.outage.is_some() => {
                let since = *self.steady.get_or_insert(now);
                if now.saturating_duration_since(since) >= STEADY {
                    (self.outage, self.steady) = (None, None);
                }
            }
            None => {}
        }
        if self.state() != before {
            (self.next, self.pause) = (now, PAUSES.0);
        }
    }

    fn state(&self) -> Option<Timestamp> {
        self.outage.as_ref().map(|outage| outage.since)
    }

    /// Whether something is to be told now: whoever starts says that its ledger works, in case it did not before.
    fn is_due(&self, now: Instant) -> bool {
        now >= self.next && (self.told != Some(self.state()) || self.outage.is_some())
    }

    fn says(&self, ledger: &str) -> Value {
        match &self.outage {
            Some(Outage { since, why }) => {
                json!({ "alert": "ledger_unavailable", "ledger": ledger, "since": since, "why": why })
            }
            None => json!({ "alert": "ledger_unavailable", "ledger": ledger, "over": true }),
        }
    }

    fn told(&mut self, taken: bool, now: Instant) {
        if taken {
            self.told = Some(self.state());
            (self.next, self.pause) = (now + AGAIN, PAUSES.0);
        } else {
            self.next = now + self.pause;
            self.pause = (self.pause * 2).min(PAUSES.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wall(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn an_outage_is_told_as_it_begins_while_it_lasts_and_when_it_is_over() {
        let start = net::clock::monotonic();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let fails = || Some("no space".to_owned());
        let mut watch = Watch::new(start);
        watch.look(None, wall(0), at(0));
        assert!(watch.is_due(at(0)), "whoever starts says how things stand");
        assert_eq!(watch.says("l"), json!({"alert": "ledger_unavailable", "ledger": "l", "over": true}));
        watch.told(true, at(0));
        assert!(!watch.is_due(at(3_600)), "that it goes on working is no news");
        watch.look(fails(), wall(10), at(10));
        assert!(watch.is_due(at(10)));
        let said = watch.says("l");
        assert_eq!((&said["since"], &said["why"]), (&json!(wall(10)), &json!("no space")));
        // Nobody hears it: again, with longer pauses.
        watch.told(false, at(10));
        assert!(!watch.is_due(at(10)) && watch.is_due(at(11)));
        watch.told(false, at(11));
        assert!(!watch.is_due(at(12)) && watch.is_due(at(13)));
        watch.told(true, at(13));
        assert!(!watch.is_due(at(72)) && watch.is_due(at(73)), "it lasts");
        watch.told(true, at(73));
        // It comes and goes: one outage.
        watch.look(None, wall(80), at(80));
        watch.look(fails(), wall(83), at(83));
        watch.look(None, wall(84), at(84));
        watch.look(None, wall(88), at(88));
        assert!(!watch.is_due(at(88)));
        watch.look(None, wall(89), at(89));
        assert!(watch.is_due(at(89)));
        assert_eq!(watch.says("l")["over"], true);
        watch.told(false, at(89));
        // Another one before that was heard.
        watch.look(fails(), wall(90), at(90));
        assert!(watch.is_due(at(90)));
        assert_eq!(watch.says("l")["since"], json!(wall(90)));
    }
}
