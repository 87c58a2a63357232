//! An issuer of the test's own: it signs as fast as a test can call, and publishes its keys as badly as one wants.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use token::{Algorithm, SigningKey, mint};

use crate::support::{
    Sidecar, World,
    openid::{AUDIENCE, usual_details},
    sidecar::Setup,
};

/// What comes of asking for the keys.
#[derive(Clone)]
pub(super) enum Publishes {
    /// This set.
    Set(Value),
    /// One set, then the other, and again.
    Turns(Value, Value),
    /// These bytes, whatever they are.
    Bytes(Vec<u8>),
    /// This set, a byte at a time, with a pause after each.
    Drips(Value, Duration),
    /// White space, so many bytes, of unknown length.
    Endless(u64),
    /// Nothing, on an open connection.
    Hangs,
    /// The end of the connection.
    Closes,
}

struct State {
    publishes: Mutex<Publishes>,
    asked: AtomicU64,
    elsewhere: AtomicU64,
    over: AtomicBool,
}

/// A running issuer.
pub(super) struct Issuer {
    port: u16,
    state: Arc<State>,
    pub(super) key: SigningKey,
}

impl Issuer {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
        let state = Arc::new(State {
            publishes: Mutex::new(Publishes::Set(mint::key_set([&key]))),
            asked: AtomicU64::new(0),
            elsewhere: AtomicU64::new(0),
            over: AtomicBool::new(false),
        });
        let serving = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.over.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), state) = (stream, Arc::clone(&serving)) else { continue };
                std::thread::spawn(move || state.serve(stream));
            }
        });
        Self { port, state, key }
    }

    /// Its name.
    pub(super) fn name(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(super) fn publishes(&self, what: Publishes) {
        *self.state.publishes.lock().unwrap() = what;
    }

    pub(super) fn publishes_keys(&self, keys: &[&SigningKey]) {
        self.publishes(Publishes::Set(mint::key_set(keys.iter().copied())));
    }

    /// How often it was asked for its keys.
    pub(super) fn asked(&self) -> u64 {
        self.state.asked.load(Ordering::SeqCst)
    }

    /// How often it was asked for anything else.
    pub(super) fn asked_elsewhere(&self) -> u64 {
        self.state.elsewhere.load(Ordering::SeqCst)
    }

    /// A sidecar that believes its delegations.
    pub(super) fn setup(&self, world: &World, change: impl FnOnce(&mut Value)) -> Setup {
        let mut setup = Setup::new(&world.openid, &world.tool);
        let text = setup.config.to_string().replace(world.openid.issuer(), &self.name());
        setup.config = serde_json::from_str(&text).unwrap();
        setup.config["issuers"][0]["keys"] = json!({"jwks_url": format!("{}/jwks", self.name())});
        setup.config["issuers"][0]["refresh"] = json!("1s");
        change(&mut setup.config);
        setup
    }

    pub(super) fn sidecar(&self, world: &World) -> Sidecar {
        self.setup(world, |_| ()).start()
    }

    /// A token by which `support-v1` acts for alice, different from every other.
    pub(super) fn token(&self) -> String {
        self.token_of(&self.key)
    }

    pub(super) fn token_of(&self, key: &SigningKey) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let now = net::clock::now().as_second();
        let claims = json!({
            "iss": self.name(), "sub": "alice", "aud": AUDIENCE, "iat": now - 1, "exp": now + 280,
            "jti": format!("token-{}", NEXT.fetch_add(1, Ordering::Relaxed)),
            "client_id": "support-v1", "tenant": "acme", "groups": ["support", "refunds"],
            "act": {"sub": "support-v1", "iss": self.name()},
            "scope": "orders.read orders.list customers.read refunds.create",
            "authorization_details": usual_details(), "run_id": "run-1", "task_id": "ticket-1", "stage": "supervised",
        });
        key.sign("at+jwt", &claims).unwrap().expose().to_owned()
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::SeqCst);
        TcpStream::connect(("127.0.0.1", self.port)).ok();
    }
}

impl State {
    fn serve(&self, mut stream: TcpStream) {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return,
            }
        }
        if !head.starts_with(b"GET /jwks ") {
            self.elsewhere.fetch_add(1, Ordering::SeqCst);
            stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").ok();
            return;
        }
        let turn = self.asked.fetch_add(1, Ordering::SeqCst);
        let publishes = self.publishes.lock().unwrap().clone();
        // Whoever is not listening any more does not get the rest.
        match publishes {
            Publishes::Set(set) => stream.write_all(&answer(&set)).ok(),
            Publishes::Turns(one, other) => {
                stream.write_all(&answer(if turn.is_multiple_of(2) { &one } else { &other })).ok()
            }
            Publishes::Bytes(bytes) => stream.write_all(&bytes).ok(),
            Publishes::Drips(set, pause) => answer(&set).iter().try_for_each(|byte| {
                std::thread::sleep(pause);
                stream.write_all(&[*byte]).ok()
            }),
            Publishes::Endless(bytes) => endless(&mut stream, bytes),
            Publishes::Hangs => stream.read(&mut byte).ok().map(drop),
            Publishes::Closes => None,
        };
    }
}

fn answer(set: &Value) -> Vec<u8> {
    let body = set.to_string();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
    format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn endless(stream: &mut TcpStream, bytes: u64) -> Option<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n").ok()?;
    let piece = [b' '; 64 * 1024];
    (0..bytes / 65_536).try_for_each(|_| stream.write_all(&piece).ok())
}
