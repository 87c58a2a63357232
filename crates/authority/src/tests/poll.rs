//! Asking a transmitter for events: what it tells is taken and acknowledged, and its outages are outlived.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Response, StatusCode};
use net::{Body, ServeLimits, Tasks};
use serde_json::{Value, json};

use super::world::{SSO, World, clients, now};

const AUDIENCE: &str = "https://countersign.example/ssf";

/// A transmitter over a real socket, and what it was asked.
struct Stream {
    port: u16,
    told: Arc<Mutex<Told>>,
    tasks: Tasks,
}

#[derive(Default)]
struct Told {
    /// What is not acknowledged yet.
    waiting: BTreeMap<String, String>,
    refused: BTreeMap<String, Value>,
    asked: usize,
    /// How often it fails before it answers.
    failing: usize,
}

impl Stream {
    async fn start() -> Self {
        let listener = net::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let port = listener.local_addr().port();
        let (told, tasks) = (Arc::new(Mutex::new(Told::default())), Tasks::new());
        let shared = Arc::clone(&told);
        let serving = net::serve(listener, ServeLimits::default(), tasks.clone(), move |_, request| {
            let shared = Arc::clone(&shared);
            async move {
                let (head, body) = request.into_parts();
                let body = net::body::collect(body, 1 << 20).await.unwrap();
                let authorised = head.headers.get("authorization").is_some_and(|it| it == "Bearer ask-me");
                let (status, answer) = shared.lock().unwrap().answer(authorised, &body);
                let mut response = Response::new(Body::full(answer));
                *response.status_mut() = status;
                response
            }
        });
        tasks.spawn("transmitter", serving);
        Self { port, told, tasks }
    }

    fn tell(&self, jti: &str, token: String) {
        self.told.lock().unwrap().waiting.insert(jti.to_owned(), token);
    }

    async fn until(&self, what: &str, mut done: impl FnMut(&Told) -> bool) {
        let deadline = net::clock::monotonic() + Duration::from_secs(30);
        while !done(&self.told.lock().unwrap()) {
            assert!(net::clock::monotonic() < deadline, "waited in vain for {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Told {
    fn answer(&mut self, authorised: bool, body: &[u8]) -> (StatusCode, String) {
        self.asked += 1;
        if !authorised {
            return (StatusCode::UNAUTHORIZED, String::new());
        }
        if self.failing > 0 {
            self.failing -= 1;
            return (StatusCode::INTERNAL_SERVER_ERROR, String::new());
        }
        let asked: Value = serde_json::from_slice(body).unwrap();
        for jti in asked["ack"].as_array().into_iter().flatten() {
            self.waiting.remove(jti.as_str().unwrap());
        }
        for (jti, error) in asked["setErrs"].as_object().into_iter().flatten() {
            self.waiting.remove(jti);
            self.refused.insert(jti.clone(), error.clone());
        }
        (StatusCode::OK, json!({ "sets": self.waiting, "moreAvailable": false }).to_string())
    }
}

async fn asking(stream: &Stream) -> World {
    let port = stream.port;
    let world = World::with(
        |_| (),
        move |config| {
            let beside = |name: &str| config.keys.dir.with_file_name(name);
            let secret = beside("poll.secret");
            std::fs::write(&secret, "ask-me").unwrap();
            std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            config.events = serde_json::from_value(json!([{
                "transmitter": SSO, "audience": AUDIENCE, "keys": { "file": beside("sso.json") },
                "algorithms": ["ES256"],
                "poll": { "url": format!("http://127.0.0.1:{port}/poll"), "credential": { "file": secret }, "wait": "1s" },
            }]))
            .unwrap();
        },
    )
    .await;
    world.authority.ask_transmitters(&clients().operator, &stream.tasks);
    world
}

fn disabled(world: &World, jti: &str, user: &str, change: &Value) -> String {
    let event = "https://schemas.openid.net/secevent/risc/event-type/account-disabled";
    let mut claims = json!({
        "iss": SSO, "aud": AUDIENCE, "iat": now(), "jti": jti,
        "sub_id": { "format": "iss_sub", "iss": SSO, "sub": user }, "events": { event: { "reason": "hijacking" } },
    });
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    world.sso.sign("secevent+jwt", &claims).unwrap().expose().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_transmitter_tells_is_taken_and_acknowledged_and_what_is_wrong_is_said_to_be() {
    let stream = Stream::start().await;
    let world = asking(&stream).await;
    stream.tell("one", disabled(&world, "one", "alice", &json!({})));
    stream.tell("two", disabled(&world, "two", "bob", &json!({ "aud": "https://other.example" })));
    stream.tell("three", "nothing".to_owned());
    stream.until("each of them to be settled", |told| told.waiting.is_empty()).await;
    assert_eq!(world.records("withdrawal.created").len(), 1);
    assert_eq!(world.first(&[]).await.error().0, "invalid_request", "alice's account is disabled");
    {
        let told = stream.told.lock().unwrap();
        let refused: Vec<_> =
            told.refused.iter().map(|(jti, why)| (jti.as_str(), why["err"].as_str().unwrap())).collect();
        assert_eq!(refused, [("three", "invalid_request"), ("two", "invalid_audience")]);
    }
    // Told once more by one that lost the acknowledgement.
    stream.tell("one", disabled(&world, "one", "alice", &json!({})));
    stream.until("it to be acknowledged again", |told| told.waiting.is_empty()).await;
    assert_eq!(world.records("withdrawal.created").len(), 1);
    stream.tasks.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_transmitter_is_outlived_and_what_cannot_be_recorded_is_not_acknowledged() {
    let stream = Stream::start().await;
    stream.told.lock().unwrap().failing = 2;
    let world = asking(&stream).await;
    stream.tell("one", disabled(&world, "one", "alice", &json!({})));
    stream.until("it to be heard after the outage", |told| told.waiting.is_empty()).await;
    assert_eq!(world.records("withdrawal.created").len(), 1);
    world.ledger.close().await;
    let asked = stream.told.lock().unwrap().asked;
    stream.tell("two", disabled(&world, "two", "bob", &json!({})));
    stream.until("it to be asked for again", |told| told.asked >= asked + 3).await;
    assert!(stream.told.lock().unwrap().waiting.contains_key("two"));
    stream.tasks.stop();
}
