//! Keys fetched from a real server on loopback, which behaves and misbehaves.

use std::{collections::BTreeMap, sync::Mutex as StdMutex};

use http::{Request, Response};
use hyper::body::Incoming;
use net::Body;
use serde_json::json;

use super::*;
use crate::{
    Algorithm, SigningKey, mint,
    testing::{clients, issuer},
};

/// No second fetch for an unknown key, however long the test takes.
const NEVER_TWICE: Spacing = Spacing { regular: Duration::from_secs(86_400), at_start: Duration::ZERO };

/// What is served, by path, and how often it was asked for.
#[derive(Clone, Default)]
struct Pages(Arc<StdMutex<BTreeMap<String, Page>>>);

#[derive(Clone)]
struct Page {
    status: u16,
    body: Vec<u8>,
    location: Option<String>,
    hits: usize,
}

impl Pages {
    async fn serve(&self, tasks: &Tasks) -> String {
        let listener = net::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let origin = format!("http://{}", listener.local_addr());
        let pages = self.clone();
        let handler = move |_, request: Request<Incoming>| {
            let response = pages.answer(request.uri().path());
            async move { response }
        };
        drop(tasks.spawn("pages", net::serve(listener, net::ServeLimits::default(), tasks.clone(), handler)));
        origin
    }

    fn answer(&self, path: &str) -> Response<Body> {
        let mut pages = self.0.lock().unwrap();
        let Some(page) = pages.get_mut(path) else {
            return Response::builder().status(404).body(Body::empty()).unwrap();
        };
        page.hits += 1;
        let mut response = Response::builder().status(page.status);
        if let Some(location) = &page.location {
            response = response.header("location", location);
        }
        response.body(Body::full(page.body.clone())).unwrap()
    }

    fn put(&self, path: &str, body: impl Into<Vec<u8>>) {
        self.page(path, 200, body, None);
    }

    fn page(&self, path: &str, status: u16, body: impl Into<Vec<u8>>, location: Option<String>) {
        let hits = self.hits(path);
        let page = Page { status, body: body.into(), location, hits };
        self.0.lock().unwrap().insert(path.to_owned(), page);
    }

    fn hits(&self, path: &str) -> usize {
        self.0.lock().unwrap().get(path).map_or(0, |page| page.hits)
    }
}

fn key() -> SigningKey {
    SigningKey::generate(Algorithm::EdDsa).unwrap()
}

fn set(keys: &[&SigningKey]) -> Vec<u8> {
    serde_json::to_vec(&mint::key_set(keys.iter().copied())).unwrap()
}

fn started(name: &str, rest: &str, tasks: &Tasks) -> Arc<IssuerKeys> {
    let issuer = issuer(&format!("{{issuer: '{name}', role: subject, tenants: [acme]{rest}}}"));
    IssuerKeys::start(&issuer, &clients(), tasks)
}

/// The same without a background, so that every fetch is one the test asks for.
fn idle(name: &str, rest: &str, tasks: &Tasks) -> Arc<IssuerKeys> {
    let issuer = issuer(&format!("{{issuer: '{name}', role: subject, tenants: [acme]{rest}}}"));
    IssuerKeys::idle(&issuer, &clients(), tasks, NEVER_TWICE)
}

impl IssuerKeys {
    /// One fetch, now, as the background makes it.
    async fn again(self: &Arc<Self>) {
        Arc::clone(self).attempt(Cause::Interval).await;
    }

    fn knows(&self, key: &SigningKey) -> bool {
        self.current(net::clock::now()).is_ok_and(|loaded| loaded.set.find(Some(key.id()), Algorithm::EdDsa).is_ok())
    }

    fn error(&self) -> String {
        self.status().last_error.unwrap_or_default()
    }
}

#[tokio::test]
async fn bad_answers_keep_the_last_good_keys_and_an_empty_set_withdraws_them() {
    let (pages, tasks, first, second) = (Pages::default(), Tasks::new(), key(), key());
    let origin = pages.serve(&tasks).await;
    pages.put("/jwks", set(&[&first]));
    let keys = idle(&origin, &format!(", keys: {{jwks_url: '{origin}/jwks'}}"), &tasks);
    keys.again().await;
    assert!(keys.knows(&first));
    let generation = || keys.current(net::clock::now()).unwrap().generation;
    assert_eq!(generation(), 1);

    let broken = json!({"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}).to_string();
    for (status, body) in [
        (200, "not json".to_owned()),
        (200, "{}".to_owned()),
        (200, broken),
        (200, " ".repeat(MAX_KEY_SET_BYTES + 1)),
        (500, String::from_utf8(set(&[&second])).unwrap()),
        (204, String::new()),
    ] {
        pages.page("/jwks", status, body, None);
        keys.again().await;
        assert!(keys.knows(&first) && !keys.knows(&second) && keys.failing(), "{status}");
    }
    // A redirect is not followed, wherever it leads.
    pages.put("/elsewhere", set(&[&second]));
    pages.page("/jwks", 302, "", Some(format!("{origin}/elsewhere")));
    keys.again().await;
    assert!(keys.knows(&first) && keys.error().contains("302"), "{}", keys.error());
    assert_eq!(pages.hits("/elsewhere"), 0);

    pages.put("/jwks", set(&[&second, &first]));
    keys.again().await;
    assert!(keys.knows(&first) && keys.knows(&second) && !keys.failing());
    assert_eq!(generation(), 2);
    keys.again().await;
    assert_eq!(generation(), 2, "the same keys again are no change");
    pages.put("/jwks", r#"{"keys": []}"#);
    keys.again().await;
    assert!(!keys.knows(&first) && !keys.knows(&second) && !keys.failing());
    assert_eq!(generation(), 3);
}

#[tokio::test]
async fn unknown_keys_ask_for_one_fetch_however_many_come() {
    let (pages, tasks, first, second, third) = (Pages::default(), Tasks::new(), key(), key(), key());
    let origin = pages.serve(&tasks).await;
    pages.put("/jwks", set(&[&first]));
    let keys = idle(&origin, &format!(", keys: {{jwks_url: '{origin}/jwks'}}"), &tasks);
    keys.again().await;
    let before = pages.hits("/jwks");
    pages.put("/jwks", set(&[&second]));
    let storm: Vec<_> = (0..50).map(|_| keys.begin_fetch().unwrap()).collect();
    for fetch in storm {
        fetch.join().await.unwrap();
    }
    assert!(keys.knows(&second));
    assert_eq!(pages.hits("/jwks"), before + 1);
    pages.put("/jwks", set(&[&third]));
    let before = pages.hits("/jwks");
    keys.refetch().await;
    assert!(!keys.knows(&third));
    assert_eq!(pages.hits("/jwks"), before);
}

#[tokio::test]
async fn an_issuer_that_comes_up_late_is_served_when_it_does() {
    let (pages, tasks, first) = (Pages::default(), Tasks::new(), key());
    let origin = pages.serve(&tasks).await;
    let keys = idle(&origin, &format!(", keys: {{jwks_url: '{origin}/jwks'}}"), &tasks);
    keys.refetch().await;
    assert!(keys.current(net::clock::now()).unwrap_err().contains("404"));
    assert_eq!(keys.status().age, None);
    pages.put("/jwks", set(&[&first]));
    keys.refetch().await;
    assert!(keys.knows(&first));
}

#[tokio::test]
async fn metadata_is_found_in_either_form_and_believed_only_about_its_own_issuer() {
    let (pages, tasks, first) = (Pages::default(), Tasks::new(), key());
    let origin = pages.serve(&tasks).await;
    pages.put("/jwks", set(&[&first]));
    let metadata = |issuer: &str, jwks: &str| json!({ "issuer": issuer, "jwks_uri": jwks }).to_string();
    let jwks = format!("{origin}/jwks");
    for (name, path) in [
        (format!("{origin}/realms/a"), "/.well-known/oauth-authorization-server/realms/a"),
        (format!("{origin}/realms/b"), "/realms/b/.well-known/openid-configuration"),
        (format!("{origin}/realms/c/"), "/realms/c/.well-known/openid-configuration"),
    ] {
        pages.put(path, metadata(&name, &jwks));
        let keys = idle(&name, "", &tasks);
        keys.again().await;
        assert!(keys.knows(&first), "{path}: {}", keys.error());
    }
    for (realm, body, hint) in [
        ("d", metadata("https://evil.example", &jwks), "not of"),
        ("e", metadata(&format!("{origin}/realms/e/"), &jwks), "not of"),
        ("f", json!({ "jwks_uri": jwks }).to_string(), "no `issuer`"),
        ("g", json!({ "issuer": format!("{origin}/realms/g") }).to_string(), "no `jwks_uri`"),
        ("h", metadata(&format!("{origin}/realms/h"), "http://169.254.169.254/latest"), "https"),
        ("i", metadata(&format!("{origin}/realms/i"), "https://127.0.0.1/jwks"), "public"),
        ("j", metadata(&format!("{origin}/realms/j"), "file:///etc/passwd"), ""),
    ] {
        pages.put(&format!("/realms/{realm}/.well-known/openid-configuration"), body);
        let keys = idle(&format!("{origin}/realms/{realm}"), "", &tasks);
        keys.again().await;
        assert!(!keys.knows(&first) && keys.failing(), "{realm}");
        assert!(keys.error().contains(hint), "{realm}: {}", keys.error());
    }
}

#[tokio::test]
async fn a_key_file_is_read_again() {
    let (tasks, first, second) = (Tasks::new(), key(), key());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jwks.json");
    let keys = idle("anything", &format!(", keys: {{file: '{}'}}", path.display()), &tasks);
    keys.again().await;
    assert!(keys.current(net::clock::now()).is_err());
    for held in [&first, &second] {
        std::fs::write(&path, set(&[held])).unwrap();
        keys.again().await;
        assert!(keys.knows(held));
    }
    assert!(!keys.knows(&first));
    std::fs::write(&path, vec![b' '; MAX_KEY_SET_BYTES + 10]).unwrap();
    keys.again().await;
    assert!(keys.knows(&second) && keys.failing());
}

#[tokio::test]
async fn the_background_stops_with_its_owner_and_with_shutdown() {
    let tasks = Tasks::new();
    let keys = started("anything", ", keys: {file: /nonexistent}", &tasks);
    keys.again().await;
    assert!(tasks.drain(Duration::from_secs(30)).await, "shutdown waited for the interval");
    let tasks = Tasks::new();
    drop(started("anything", ", keys: {file: /nonexistent}, refresh: 1s", &tasks));
    let gone = async {
        while tasks.running() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.expect("nobody holds the keys");
}

#[test]
fn an_origin_is_scheme_host_and_port() {
    let same = |one: &str, other: &str| same_origin(&one.parse().unwrap(), &other.parse().unwrap());
    assert!(same("https://a.example/jwks", "https://A.example:443/realms/x"));
    assert!(!same("http://a.example/jwks", "https://a.example/"));
    assert!(!same("https://a.example:444/jwks", "https://a.example/"));
    assert!(!same("https://a.example.evil.example/jwks", "https://a.example/"));
}
