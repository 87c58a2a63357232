//! Asking a transmitter for events (RFC 8936): one question at a time, with a deadline, that acknowledges what the last
//! answer brought. What cannot be taken now is not acknowledged, and comes again.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{Method, Request, StatusCode, header};
use model::json::Json;
use net::{Body, HttpClient, Tasks};
use opentelemetry::KeyValue;
use serde_json::{Value, json};

use super::NotTaken;
use crate::{
    Authority,
    config::{Poll, Transmitter},
};

/// How much longer than it may wait an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest answer, in bytes.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// The most events of one answer.
const MAX_EVENTS: usize = 100;
/// Before the next question, where an answer brought nothing: whoever does not wait is not asked all the time.
const QUIET: Duration = Duration::from_secs(1);
/// And where it brought something: whoever tells the same again and again is not asked as fast as it can answer.
const BUSY: Duration = Duration::from_millis(100);
/// The first and the longest pause after a question that failed; each is twice the one before.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// What the transmitter has to be told of its last answer.
#[derive(Debug, Default)]
struct Owed {
    taken: Vec<String>,
    refused: BTreeMap<String, (&'static str, String)>,
}

impl Authority {
    /// Asks the transmitters that are to be asked, until the end.
    pub fn ask_transmitters(self: &Arc<Self>, client: &HttpClient, tasks: &Tasks) {
        for transmitter in &self.settings.events {
            let Some(poll) = transmitter.poll.clone() else { continue };
            let (authority, transmitter, client) = (Arc::clone(self), transmitter.clone(), client.apart(None));
            let heard = Arc::new(AtomicU64::new(nanoseconds()));
            observe(&transmitter.name, &heard);
            let stop = tasks.shutdown_token();
            tasks.spawn("security events", async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = authority.ask(&transmitter, &poll, &client, &heard) => {}
                }
            });
        }
    }

    async fn ask(&self, transmitter: &Transmitter, poll: &Poll, client: &HttpClient, heard: &AtomicU64) {
        let (mut owed, mut pause, mut trouble) = (Owed::default(), PAUSES.0, Trouble::default());
        loop {
            let answer = once(poll, client, &owed).await;
            trouble.is(&transmitter.name, answer.as_ref().err());
            let whole = match answer {
                Ok(sets) => {
                    heard.store(nanoseconds(), Ordering::Relaxed);
                    // What was owed has arrived.
                    owed = Owed::default();
                    self.take_all(transmitter, sets, &mut owed).await
                }
                Err(_) => false,
            };
            pause = if whole { PAUSES.0 } else { (pause * 2).min(PAUSES.1) };
            let rest = match (whole, owed.is_nothing()) {
                (false, _) => pause / 2,
                (true, true) => QUIET,
                (true, false) => BUSY,
            };
            tokio::time::sleep(rest).await;
        }
    }

    /// Takes what an answer brought. Whether each was taken, or refused for good.
    async fn take_all(&self, transmitter: &Transmitter, sets: Vec<(String, String)>, owed: &mut Owed) -> bool {
        let mut whole = true;
        for (jti, compact) in sets {
            match self.take(transmitter, &compact, net::clock::now()).await {
                Ok(()) => owed.taken.push(jti),
                Err(NotTaken::Refused(err, why)) => drop(owed.refused.insert(jti, (err, why))),
                Err(NotTaken::Unavailable) => whole = false,
            }
        }
        whole
    }
}

/// One question (RFC 8936 §2.4); the tokens of the answer, by their names.
async fn once(poll: &Poll, client: &HttpClient, owed: &Owed) -> Result<Vec<(String, String)>, String> {
    let secret = poll.credential.load(&|_| None).map_err(|error| error.to_string())?;
    let credential = net::secret::header_value("Bearer ", &secret).map_err(|error| error.to_string())?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(poll.url.clone())
        .header(header::AUTHORIZATION, credential)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .body(Body::full(owed.question().to_string()))
        .map_err(|error| error.to_string())?;
    let deadline = poll.wait + PATIENCE;
    let whole = async {
        let response = client.send(request, deadline).await.map_err(|error| error.to_string())?;
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            return Err(format!("it answered {}", head.status));
        }
        let body = net::body::collect(body, MAX_ANSWER_BYTES).await.map_err(|error| error.to_string())?;
        sets(&body)
    };
    // What waits longer than it was allowed to is asked again; nothing is acknowledged by that.
    tokio::time::timeout(deadline, whole).await.unwrap_or_else(|_| Err(format!("no whole answer within {deadline:?}")))
}

/// Whether the last question failed, so that an outage is said once.
#[derive(Debug, Default)]
struct Trouble(bool);

impl Trouble {
    fn is(&mut self, transmitter: &str, error: Option<&String>) {
        match (std::mem::replace(&mut self.0, error.is_some()), error) {
            (false, Some(error)) => tracing::warn!(transmitter, error, "security events cannot be asked for"),
            (true, None) => tracing::info!(transmitter, "security events are heard again"),
            _ => {}
        }
    }
}

impl Owed {
    fn is_nothing(&self) -> bool {
        self.taken.is_empty() && self.refused.is_empty()
    }

    fn question(&self) -> Value {
        let refused: serde_json::Map<_, _> = self
            .refused
            .iter()
            .map(|(jti, (err, why))| (jti.clone(), json!({ "err": err, "description": why })))
            .collect();
        let mut question = json!({ "maxEvents": MAX_EVENTS, "returnImmediately": false });
        if let Some(members) = question.as_object_mut() {
            if !self.taken.is_empty() {
                members.insert("ack".to_owned(), json!(self.taken));
            }
            if !refused.is_empty() {
                members.insert("setErrs".to_owned(), refused.into());
            }
        }
        question
    }
}

/// The tokens in an answer.
fn sets(body: &[u8]) -> Result<Vec<(String, String)>, String> {
    let answer = Json::parse(body).map_err(|error| error.to_string())?;
    let sets = match answer.member("sets") {
        None => return Ok(Vec::new()),
        Some(Json::Object(sets)) if sets.len() <= MAX_EVENTS => sets,
        Some(_) => return Err(format!("`sets` is no object with at most {MAX_EVENTS} members")),
    };
    let text = |(jti, set): &(String, Json)| set.as_text().map(|compact| (jti.clone(), compact.to_owned()));
    sets.iter().map(|set| text(set).ok_or_else(|| "a member of `sets` is no token".to_owned())).collect()
}

/// How long a transmitter was not heard bounds how late its events are.
fn observe(transmitter: &str, heard: &Arc<AtomicU64>) {
    // Meters live as long as the process, and an authority may end before it.
    let (seen, label) = (Arc::downgrade(heard), [KeyValue::new("transmitter", transmitter.to_owned())]);
    let _age = opentelemetry::global::meter("countersign")
        .f64_observable_gauge("countersign_event_stream_age")
        .with_unit("s")
        .with_description("How long ago a transmitter of security events that is asked was last heard")
        .with_callback(move |observer| {
            if let Some(heard) = seen.upgrade() {
                let age = nanoseconds().saturating_sub(heard.load(Ordering::Relaxed));
                observer.observe(Duration::from_nanos(age).as_secs_f64(), &label);
            }
        })
        .build();
}

fn nanoseconds() -> u64 {
    u64::try_from(net::clock::boottime().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_says_what_became_of_the_last_answer() {
        assert_eq!(Owed::default().question(), json!({ "maxEvents": 100, "returnImmediately": false }));
        let refused = [("b".to_owned(), ("invalid_key", "no key".to_owned()))].into();
        let question = Owed { taken: vec!["a".to_owned()], refused }.question();
        assert_eq!(question["ack"], json!(["a"]));
        assert_eq!(question["setErrs"], json!({ "b": { "err": "invalid_key", "description": "no key" } }));
    }

    #[test]
    fn an_answer_that_is_none_brings_nothing() {
        assert_eq!(
            sets(br#"{"sets": {"a": "x.y.z"}, "moreAvailable": true}"#),
            Ok(vec![("a".to_owned(), "x.y.z".to_owned())])
        );
        assert_eq!(sets(b"{}"), Ok(vec![]));
        let many: serde_json::Map<_, _> = (0..101).map(|number| (number.to_string(), json!("x"))).collect();
        let many = json!({ "sets": many }).to_string();
        for bad in ["", "[", r#"{"sets": []}"#, r#"{"sets": {"a": 1}}"#, r#"{"sets": {"a": "x", "a": "y"}}"#, &many] {
            assert!(sets(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
