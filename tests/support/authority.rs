//! The authority, and agents with keys of their own that ask it for tokens.

use std::{
    fs,
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};

use super::{
    Answer, free_port, http, mark,
    openid::{AUDIENCE, OpenId},
    process::{self, Daemon, Ran},
};

/// The audience of management tokens.
pub(crate) const MANAGEMENT: &str = "urn:example:countersign:management";

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// An agent that holds a private key.
pub(crate) struct Client {
    id: &'static str,
    key: EncodingKey,
    jwk: Jwk,
}

impl Client {
    /// A new agent with a new key.
    pub(crate) fn new(id: &'static str) -> Self {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let key = EncodingKey::from_ec_der(pkcs8.as_ref());
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some(format!("{id}-1"));
        Self { id, key, jwk }
    }

    /// Its public keys.
    pub(crate) fn jwks(&self) -> Value {
        json!({"keys": [self.jwk]})
    }

    /// A client assertion (RFC 7523) for `audience`, with `changes` to its claims.
    pub(crate) fn assertion(&self, audience: &str, changes: &Value) -> String {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let mut claims =
            json!({"iss": self.id, "sub": self.id, "aud": audience, "jti": mark(), "iat": now, "exp": now + 60});
        for (name, value) in changes.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        let header = Header { kid: self.jwk.common.key_id.clone(), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &claims, &self.key).unwrap()
    }
}

/// A running authority.
pub(crate) struct Authority {
    /// Its process.
    pub(crate) daemon: Daemon,
    port: u16,
    issuer: String,
    directory: tempfile::TempDir,
}

impl Authority {
    /// Starts one that believes `openid`'s users and knows `clients`: the first has a grant of alice, with the task
    /// `ticket-1` of the run `run-1`; it may pass that on to one more agent.
    pub(crate) fn start(openid: &OpenId, clients: &[&Client]) -> Self {
        Self::start_with(openid, clients, |_, _| ())
    }

    /// The same with `change` made to its configuration, whose folder it is told.
    pub(crate) fn start_with(openid: &OpenId, clients: &[&Client], change: impl FnOnce(&Path, &mut Value)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let issuer = format!("http://127.0.0.1:{port}");
        let write = |name: &str, value: &Value| {
            let path = directory.path().join(name);
            fs::write(&path, serde_json::to_string_pretty(value).unwrap()).unwrap();
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            path
        };
        write("store.yaml", &store(openid, clients));
        let mut config = json!({
            "authority": {
                "issuer": issuer,
                "keys": {"dir": "keys"},
                "sidecars": [{"audience": AUDIENCE}],
                "subject_audiences": [AUDIENCE],
                "management": {
                    "audience": MANAGEMENT, "clients": ["portal"], "administrators": {"groups": ["platform"]},
                },
                "store": "store.yaml",
            },
            "listen": {"tcp": format!("127.0.0.1:{port}")},
            "issuers": [{
                "issuer": openid.issuer(),
                "role": "subject",
                "tenants": ["acme"],
                "claims": {"tenant": "tenant"},
                "entitlements": entitlements(),
            }],
            "ledger": {"dir": "ledger"},
        });
        change(directory.path(), &mut config);
        let issuer = config["authority"]["issuer"].as_str().unwrap().to_owned();
        let config = write("authority.yaml", &config);
        let daemon = Self::spawn(&config);
        let mut authority = Self { daemon, port, issuer, directory };
        authority.until_ready();
        authority
    }

    /// Another one under the same name, with the same keys and database, and with a ledger of its own.
    pub(crate) fn replica(&self) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let text = fs::read_to_string(self.directory.path().join("authority.yaml")).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config["listen"]["tcp"] = json!(format!("127.0.0.1:{port}"));
        for (name, of) in [
            ("keys", "/authority/keys/dir"),
            ("store.yaml", "/authority/store"),
            ("url", "/authority/database/postgres/url/file"),
        ] {
            *config.pointer_mut(of).unwrap() = json!(self.directory.path().join(name));
        }
        let path = directory.path().join("authority.yaml");
        fs::write(&path, config.to_string()).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let mut replica = Self { daemon: Self::spawn(&path), port, issuer: self.issuer(), directory };
        replica.until_ready();
        replica
    }

    fn spawn(config: &Path) -> Daemon {
        let mut command = process::countersign();
        command.arg("authority").arg("--config").arg(config);
        Daemon::start(&mut command, &config.with_file_name("authority.log"))
    }

    /// Starts it again on what is on disk, after it ended.
    pub(crate) fn restart(&mut self) {
        self.daemon = Self::spawn(&self.directory.path().join("authority.yaml"));
        self.until_ready();
    }

    /// A request to the management API by `openid`'s user alice, who logged in just now and is in `groups`.
    pub(crate) fn manage(&self, openid: &OpenId, groups: &[&str], path: &str, body: &Value) -> Answer {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let claims = json!({"aud": MANAGEMENT, "azp": "portal", "client_id": "portal", "groups": groups, "auth_time": now, "jti": mark()});
        let token = openid.sign(&json!({"like": openid.user("alice"), "claims": claims}));
        self.post(path, &[("authorization", &format!("Bearer {token}"))], body)
    }

    /// A JSON document by `POST`.
    pub(crate) fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let headers = [headers, &[("content-type", "application/json")]].concat();
        http::request(self.port, "POST", path, &headers, body.to_string().as_bytes())
    }

    fn until_ready(&mut self) {
        super::eventually("the authority to be ready", || {
            if let Some(status) = self.daemon.ended() {
                panic!("the authority ended with {status}: {}", self.daemon.output());
            }
            let listening = std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok();
            (listening && http::get(self.port, "/readyz").status == 200).then_some(())
        });
    }

    /// Its issuer identifier.
    pub(crate) fn issuer(&self) -> String {
        self.issuer.clone()
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Kills it and starts it again over what it left behind.
    pub(crate) fn killed(&mut self) {
        self.daemon.kill();
        let mut command = process::countersign();
        command.arg("authority").arg("--config").arg(self.directory.path().join("authority.yaml"));
        self.daemon = Daemon::start(&mut command, &self.directory.path().join("authority.log"));
        self.until_ready();
    }

    /// A token of a task that goes on, by `client`'s own credential.
    pub(crate) fn reissue(&self, client: &Client, fields: &[(&str, &str)]) -> Answer {
        let assertion = client.assertion(&self.issuer(), &Value::Null);
        let usual = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", ASSERTION),
            ("client_assertion", assertion.as_str()),
        ];
        http::post_form(self.port, "/oauth2/token", &[], &[&usual, fields].concat())
    }

    /// Where its files lie.
    pub(crate) fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// A document by `GET`.
    pub(crate) fn get(&self, path: &str) -> Answer {
        http::get(self.port, path)
    }

    /// An exchange by `client` of `subject`, with more fields.
    pub(crate) fn exchange(&self, client: &Client, subject: &str, more: &[(&str, &str)]) -> Answer {
        let assertion = client.assertion(&self.issuer(), &Value::Null);
        self.exchange_with(&assertion, subject, more)
    }

    /// The same with a client assertion as it stands.
    pub(crate) fn exchange_with(&self, assertion: &str, subject: &str, more: &[(&str, &str)]) -> Answer {
        exchange_at(self.port, assertion, subject, more)
    }

    /// Runs `countersign ARGUMENTS` against it, as whoever `token` is of.
    pub(crate) fn run(&self, token: &str, arguments: &[&str]) -> Ran {
        let mut command = process::countersign();
        let command = command.args(arguments).env("COUNTERSIGN_TOKEN", token);
        process::run(command.env("COUNTERSIGN_AUTHORITY_URL", self.issuer()))
    }

    /// The token of alice's task for `client`.
    #[track_caller]
    pub(crate) fn first(&self, client: &Client, openid: &OpenId) -> String {
        token(&self.exchange(client, &openid.user("alice"), &[("task_id", "ticket-1"), ("audience", AUDIENCE)]))
    }
}

/// An exchange of `subject` with a client assertion as it stands, at whatever listens on `port`.
pub(crate) fn exchange_at(port: u16, assertion: &str, subject: &str, more: &[(&str, &str)]) -> Answer {
    let usual = [
        ("grant_type", EXCHANGE),
        ("subject_token", subject),
        ("subject_token_type", ACCESS_TOKEN),
        ("client_assertion_type", ASSERTION),
        ("client_assertion", assertion),
    ];
    http::post_form(port, "/oauth2/token", &[], &[&usual, more].concat())
}

/// The token of an answer that has one.
#[track_caller]
pub(crate) fn token(answer: &Answer) -> String {
    answer.went(200);
    answer.json()["access_token"].as_str().unwrap().to_owned()
}

/// What users may do without any agent, as both planes' configuration has it.
pub(crate) fn entitlements() -> Value {
    json!({"from": "groups", "map": {"support": ["orders.read", "orders.list"], "refunds": ["refunds.create"]}})
}

fn store(openid: &OpenId, clients: &[&Client]) -> Value {
    let actions = ["orders.read", "orders.list", "refunds.create"];
    let agents: Vec<_> = clients
        .iter()
        .map(|client| {
            json!({
                "id": client.id, "owner": "ops@acme.example", "actions": actions, "tenants": ["acme"],
                "credentials": [{"jwks": {"keys": [client.jwk]}}],
            })
        })
        .collect();
    let user = |id: &str| json!({"id": id, "issuer": openid.issuer()});
    let task = |id: &str, grant: &str, status: &str| {
        json!({
            "id": id, "grant": grant, "run": "run-1", "tenant": "acme", "use_case": "support", "initiated_by": "alice",
            "sensitivity": "low", "stage": "supervised", "expires": "2999-01-01T00:00:00Z", "status": status,
        })
    };
    let grant = |id: &str, owner: &str| {
        json!({
            "id": id, "user": user(owner), "agent": {"id": clients[0].id}, "stage": "supervised",
            "expires": "2999-01-01T00:00:00Z", "redelegate": 1,
            "authorization_details": [
                {"type": "urn:countersign:action", "actions": ["orders.read", "orders.list"], "locations": ["orders"]},
                {
                    "type": "urn:countersign:action", "actions": ["refunds.create"], "locations": ["orders"],
                    "identifier": "orders/*", "limits": {"amount": {"max": "50.00", "currency": "USD"}},
                    "where": {"order.placed_by": "$user"},
                },
            ],
        })
    };
    json!({
        "agents": agents,
        "grants": [grant("grant-alice", "alice"), grant("grant-bob", "bob")],
        "tasks": [task("ticket-1", "grant-alice", "active"), task("ticket-done", "grant-alice", "completed"), task("ticket-bob", "grant-bob", "active")],
    })
}
