//! What an authority answers is believed only as what was asked for; who waits for it, and whose connection is whose.

use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response};
use hyper::body::Incoming as HyperBody;
use net::{Body, Peer, PeerAddress, PeerCertificate, PeerCredentials, PeerIdentity, ServeLimits, Tasks};
use serde_json::{Value, json};
use token::{Algorithm, KeptKey, SigningKey};

use super::*;
use crate::{
    config::Connects,
    testing::{
        ISSUER, PROVIDER, authority,
        world::{World, loopback},
    },
};

/// An authority that answers what it is told to, and counts.
struct Told {
    answer: Mutex<(u16, String)>,
    asked: AtomicUsize,
    /// Whether it waits with its answers.
    waits: tokio::sync::watch::Sender<bool>,
}

impl Told {
    fn to(&self, status: u16, body: &Value) {
        *self.answer.lock().unwrap() = (status, body.to_string());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn identity(id: &str, connects: Connects) -> Identity {
    let key = KeptKey::new(Arc::new(SigningKey::generate(Algorithm::EdDsa).unwrap()));
    Identity::new(Id::new(id).unwrap(), ISSUER, key, connects, TaskChoice::Present)
}

fn identities(endpoint: &str, agents: Vec<Identity>) -> Identities {
    Identities::new(IdentitiesParts {
        authority: ISSUER.to_owned(),
        endpoint: endpoint.parse().unwrap(),
        audience: "urn:support".to_owned(),
        subject_audiences: ["portal".to_owned()].into(),
        agents,
    })
}

async fn world() -> (World, Arc<Told>) {
    let listener = loopback().await;
    let endpoint = format!("http://{}/oauth2/token", listener.local_addr());
    let told = Arc::new(Told {
        answer: Mutex::new((503, "{}".to_owned())),
        asked: AtomicUsize::new(0),
        waits: tokio::sync::watch::Sender::new(false),
    });
    let (answering, tasks) = (Arc::clone(&told), Tasks::new());
    let handler = move |_: Peer, request: Request<HyperBody>| {
        let told = Arc::clone(&answering);
        async move {
            let form = net::body::collect(request.into_body(), 1_000_000).await.unwrap();
            assert!(String::from_utf8(form.to_vec()).unwrap().contains("client_assertion="));
            told.asked.fetch_add(1, Ordering::SeqCst);
            told.waits.subscribe().wait_for(|waits| !waits).await.unwrap();
            let (status, body) = told.answer.lock().unwrap().clone();
            Response::builder().status(status).body(Body::full(body)).unwrap()
        }
    };
    tasks.spawn("authority", net::serve(listener, ServeLimits::default(), tasks.clone(), handler));
    (World::holding(identities(&endpoint, vec![identity("support", Connects::Anybody)])).await, told)
}

/// The token of a user as their provider gives it.
fn user(world: &World, id: &str) -> String {
    let now = net::clock::now().as_second();
    let claims = json!({
        "iss": PROVIDER, "sub": id, "aud": "portal", "iat": now - 5, "exp": now + 250, "jti": format!("{id}-1"), "groups": ["support"],
    });
    world.key.sign("at+jwt", &claims).unwrap().expose().to_owned()
}

/// What an authority should answer for alice, with `changes` to the token.
fn answer(world: &World, changes: &Value) -> Value {
    let hop = |issuer: &str, id: &str, profile: &str| {
        let held = authority("50");
        json!({ "iss": issuer, "sub": id, "sub_profile": profile, "scope": held.scope.to_string(), "authorization_details": held.elements })
    };
    let mut claims = json!({
        "act": { "sub": "support" },
        "delegation_chain": [hop(PROVIDER, "alice", "user"), hop(ISSUER, "support", "ai_agent")],
        "authorization_details": authority("50").elements,
    });
    for (name, change) in changes.as_object().unwrap() {
        claims[name] = change.clone();
    }
    let issued = "urn:ietf:params:oauth:token-type:access_token";
    json!({ "access_token": world.token(&claims), "issued_token_type": issued, "token_type": "Bearer" })
}

async fn read(world: &World, token: &str) -> (u16, Value) {
    let authorization = format!("Bearer {token}");
    let (status, body, _) = world.told("GET", "/orders/v1/orders/17", &[("authorization", &authorization)], "").await;
    (status, body["code"].clone())
}

#[tokio::test]
async fn only_what_was_asked_for_is_taken_from_the_authority() {
    let (world, told) = world().await;
    let good = |changes: Value| answer(&world, &changes);
    let chain = |user: &str, agents: &[&str]| {
        let whole = answer(&world, &json!({}));
        let token = whole["access_token"].as_str().unwrap().split('.').nth(1).unwrap().to_owned();
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, token).unwrap();
        let claims: Value = serde_json::from_slice(&bytes).unwrap();
        let mut hops = vec![claims["delegation_chain"][0].clone()];
        hops[0]["sub"] = json!(user);
        for agent in agents {
            let mut hop = claims["delegation_chain"][1].clone();
            hop["sub"] = json!(agent);
            hops.push(hop);
        }
        let act = agents.iter().fold(Value::Null, |inner, agent| {
            if inner.is_null() { json!({ "sub": agent }) } else { json!({ "sub": agent, "act": inner }) }
        });
        json!({ "sub": user, "act": act, "delegation_chain": hops })
    };
    let with = |name: &str, value: Value| {
        let mut changed = good(json!({}));
        changed[name] = value;
        changed
    };
    let kept = user(&world, "alice");
    for (number, (why, status, body)) in [
        ("another user's", 200, good(chain("bob", &["support"]))),
        ("another agent's", 200, good(chain("alice", &["helper"]))),
        ("a longer chain", 200, good(chain("alice", &["support", "helper"]))),
        ("for another audience", 200, good(json!({ "aud": "urn:other" }))),
        ("ended", 200, good(json!({ "iat": 1_700_000_000, "exp": 1_700_000_100 }))),
        ("the user's own again", 200, with("access_token", json!(kept))),
        ("no bearer", 200, with("token_type", json!("N_A"))),
        ("no access token", 200, with("issued_token_type", json!("urn:ietf:params:oauth:token-type:jwt"))),
        ("nothing", 200, json!({})),
        ("words", 200, json!("access_token")),
        ("another way", 302, good(json!({}))),
        ("its own trouble", 500, good(json!({}))),
        ("too much", 200, with("more", json!("x".repeat(70_000)))),
    ]
    .into_iter()
    .enumerate()
    {
        told.to(status, &body);
        // Each with a token of its own, so that no answer is remembered.
        let now = net::clock::now().as_second();
        let claims = json!({
            "iss": PROVIDER, "sub": "alice", "aud": "portal", "iat": now - 5, "exp": now + 250, "jti": format!("j-{number}"),
            "groups": ["support"],
        });
        let token = world.key.sign("at+jwt", &claims).unwrap();
        let (status, code) = read(&world, token.expose()).await;
        assert!(matches!(status, 401 | 403 | 503), "{why}: {status} {code}");
        assert_eq!(told.asked(), number + 1, "{why}");
    }
    assert!(world.forwarded().is_empty());
    told.to(200, &good(json!({})));
    assert_eq!(read(&world, &kept).await.0, 200);
    let records = world.records("call.decided").await;
    assert!(records.iter().all(|entry| entry.fields["entry"] == "exchanged"), "{records:?}");
}

#[tokio::test]
async fn many_wait_for_one_exchange_and_whoever_began_it_may_leave() {
    let (world, told) = world().await;
    let world = Arc::new(world);
    told.to(200, &answer(&world, &json!({})));
    told.waits.send_replace(true);
    let alice = user(&world, "alice");
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let (world, alice) = (Arc::clone(&world), alice.clone());
            world.tasks.clone().spawn("call", async move { read(&world, &alice).await.0 })
        })
        .collect();
    while told.asked() == 0 {
        tokio::task::yield_now().await;
    }
    for call in &calls[..10] {
        call.abort();
    }
    told.waits.send_replace(false);
    for call in calls {
        assert!(call.join().await.map_or(true, |status| status == 200));
    }
    assert_eq!((read(&world, &alice).await.0, told.asked()), (200, 1));

    // A refusal is believed for a moment, and is of that token alone.
    told.to(400, &json!({ "error": "invalid_request", "error_description": "no grant", "code": "task_ended" }));
    let bob = user(&world, "bob");
    for _ in 0..3 {
        assert_eq!(read(&world, &bob).await, (403, json!("task_ended")));
    }
    assert_eq!((told.asked(), read(&world, &alice).await.0), (2, 200));
}

#[test]
fn a_connection_is_an_agents_by_what_was_proved_of_it() {
    let svid = "spiffe://acme.example/support";
    let held = identities(
        "http://127.0.0.1:1/oauth2/token",
        vec![identity("by-user", Connects::Uid(1001)), identity("by-name", Connects::Spiffe(svid.to_owned()))],
    );
    let of = |peer: &Peer| held.of(peer).map(|identity| identity.agent.id.to_string());
    let unix = |uid: u32| Peer {
        address: PeerAddress::Unix(PeerCredentials { uid, gid: 1001, pid: None }),
        secure: false,
        certificate: None,
    };
    let tls = |identity: PeerIdentity| Peer {
        secure: true,
        certificate: Some(Arc::new(PeerCertificate { identity, x5t_s256: [1; 32] })),
        ..Peer::tcp("127.0.0.1:1".parse().unwrap())
    };
    assert_eq!(of(&unix(1001)).as_deref(), Some("by-user"));
    assert_eq!(of(&tls(PeerIdentity::Spiffe(svid.to_owned()))).as_deref(), Some("by-name"));
    for nobody in [
        unix(1002),
        tls(PeerIdentity::Spiffe(format!("{svid}/2"))),
        tls(PeerIdentity::Subject(svid.to_owned())),
        Peer::tcp("127.0.0.1:1001".parse().unwrap()),
    ] {
        assert_eq!(of(&nobody), None, "{nobody:?}");
    }
}

#[test]
fn an_answer_is_found_by_everything_that_it_was_asked_with() {
    let held =
        identities("http://127.0.0.1:1/", vec![identity("one", Connects::Uid(1)), identity("two", Connects::Uid(2))]);
    let other = Identities::new(IdentitiesParts {
        authority: ISSUER.to_owned(),
        endpoint: "http://127.0.0.1:1/".parse().unwrap(),
        audience: "urn:other".to_owned(),
        subject_audiences: ["portal".to_owned()].into(),
        agents: Vec::new(),
    });
    let agents: Vec<_> = [1, 2]
        .map(|uid| {
            let credentials = PeerCredentials { uid, gid: 1, pid: None };
            let peer = Peer { address: PeerAddress::Unix(credentials), secure: false, certificate: None };
            Arc::clone(held.of(&peer).unwrap())
        })
        .into();
    let task = |name: &str| Id::new(name).unwrap();
    let keys = [
        held.key(&agents[0], Some("token"), None),
        held.key(&agents[1], Some("token"), None),
        held.key(&agents[0], Some("tokem"), None),
        held.key(&agents[0], Some("token"), Some(&task("t"))),
        held.key(&agents[0], None, Some(&task("t"))),
        held.key(&agents[0], None, Some(&task("token"))),
        held.key(&agents[0], Some("oken"), Some(&task("t"))),
        other.key(&agents[0], Some("token"), None),
    ];
    let different: std::collections::HashSet<_> = keys.iter().copied().collect();
    assert_eq!(different.len(), keys.len());
    assert_eq!(held.key(&agents[0], Some("token"), None), keys[0]);
}
