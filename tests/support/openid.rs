//! The OpenID provider: tokens as it gives them to honest clients, and tokens that only a test can have signed.

use std::process::Command;

use serde_json::{Value, json};

use super::{http, process::Part};

/// The audience of the sidecar under test.
pub(crate) const AUDIENCE: &str = "urn:example:countersign:support";

/// The tool's name, as the sidecar's configuration and the tokens have it.
pub(crate) const TOOL: &str = "orders";

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// A running provider.
pub(crate) struct OpenId {
    part: Part,
    clients: Value,
    _directory: tempfile::TempDir,
}

impl OpenId {
    /// Starts one; `None` (said aloud) where it is not installed.
    pub(crate) fn start() -> Option<Self> {
        Self::with(false)
    }

    /// The same behind TLS, under a certificate authority of its own. Only what it signs and counts can be asked for.
    pub(crate) fn secure() -> Option<Self> {
        Self::with(true)
    }

    fn with(secure: bool) -> Option<Self> {
        let home = super::root().join("tests/parts/openid");
        if !home.join("node_modules").exists() || Command::new("node").arg("--version").output().is_err() {
            super::skipped("openid", "Node.js or its packages are not installed: run `.ci/run parts`");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("node");
        command.arg(home.join("server.mjs"));
        if secure {
            command.arg("--tls").arg(directory.path().join("tls"));
        }
        let part = Part::start(&mut command, &directory.path().join("stderr"));
        let clients = http::get(part.port("control_port"), "/clients").json();
        Some(Self { part, clients, _directory: directory })
    }

    /// Its issuer identifier.
    pub(crate) fn issuer(&self) -> &str {
        self.part.ready["issuer"].as_str().unwrap()
    }

    /// The file of the certificate authority to trust, for one that was started over TLS.
    pub(crate) fn certificate_authority(&self) -> Option<&str> {
        self.part.ready["ca"].as_str()
    }

    /// Asks its control port.
    #[track_caller]
    pub(crate) fn control(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
        let answer = http::request(self.part.port("control_port"), method, path, &[], &body);
        answer.went(200);
        answer.json()
    }

    /// How often something was asked for: `jwks`, `discovery` or `token`.
    pub(crate) fn count(&self, what: &str) -> u64 {
        self.control("GET", "/counts", &Value::Null)[what].as_u64().unwrap()
    }

    /// A token that `asked` describes (see the part's own head).
    #[track_caller]
    pub(crate) fn sign(&self, asked: &Value) -> String {
        self.control("POST", "/sign", asked)["token"].as_str().unwrap().to_owned()
    }

    /// `user`'s own token, as a portal would have it after a login.
    #[track_caller]
    pub(crate) fn user(&self, user: &str) -> String {
        self.token("portal", &[("grant_type", "urn:example:test:user"), ("username", user)])
    }

    /// `user`'s management token, as the portal would have it after a login.
    #[track_caller]
    pub(crate) fn manager(&self, user: &str) -> String {
        let audience = super::authority::MANAGEMENT;
        self.token("portal", &[("grant_type", "urn:example:test:user"), ("username", user), ("audience", audience)])
    }

    /// A management token of somebody in the group that administers, who logged in just now.
    #[track_caller]
    pub(crate) fn administrator(&self) -> String {
        self.sign(&json!({"like": self.manager("dave"), "claims": {"groups": ["platform"]}}))
    }

    /// The token of `agent` itself, for nobody.
    #[track_caller]
    pub(crate) fn client_credentials(&self, agent: &str) -> String {
        self.token(agent, &[("grant_type", "client_credentials"), ("scope", "orders.read"), ("resource", AUDIENCE)])
    }

    /// A delegated token: `agent` acts for whoever `subject` names. `more` adds or replaces fields of the exchange.
    #[track_caller]
    pub(crate) fn exchange(&self, agent: &str, subject: &str, more: &[(&str, &str)]) -> String {
        let usual = [
            ("grant_type", EXCHANGE),
            ("subject_token", subject),
            ("subject_token_type", ACCESS_TOKEN),
            ("audience", AUDIENCE),
            ("run_id", "run-1"),
            ("task_id", "ticket-1"),
            ("stage", "supervised"),
        ];
        let kept = usual.into_iter().filter(|(name, _)| !more.iter().any(|(other, _)| other == name));
        let fields: Vec<_> = kept.chain(more.iter().copied()).collect();
        self.token(agent, &fields)
    }

    /// A delegated token by which `support-v1` does what the tests' agent usually does for `user`: read and list orders
    /// and customers, and refund at most 50 USD on orders that the user placed.
    #[track_caller]
    pub(crate) fn delegated(&self, user: &str) -> String {
        self.delegated_with(user, &[])
    }

    /// The same, with more fields.
    #[track_caller]
    pub(crate) fn delegated_with(&self, user: &str, more: &[(&str, &str)]) -> String {
        let details = usual_details().to_string();
        let usual = [("authorization_details", details.as_str())];
        let given = more.iter().any(|(name, _)| *name == "authorization_details");
        let more = [if given { &[][..] } else { &usual }, more].concat();
        self.exchange("support-v1", &self.user(user), &more)
    }

    fn token(&self, client: &str, fields: &[(&str, &str)]) -> String {
        let port = self.part.port("port");
        let answer = if let Some(secret) = self.clients[client]["secret"].as_str() {
            let basic = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, format!("{client}:{secret}"));
            http::post_form(port, "/token", &[("authorization", &format!("Basic {basic}"))], fields)
        } else {
            let assertion = self.control("POST", "/client-assertion", &json!({"client_id": client}));
            let proof =
                ["client_assertion_type", "client_assertion"].map(|name| (name, assertion[name].as_str().unwrap()));
            http::post_form(port, "/token", &[], &[fields, &[("client_id", client)], &proof].concat())
        };
        answer.went(200);
        answer.json()["access_token"].as_str().unwrap().to_owned()
    }
}

/// What the usual agent may do, as `authorization_details`.
pub(crate) fn usual_details() -> Value {
    json!([
        {
            "type": "urn:countersign:action",
            "actions": ["orders.read", "orders.list", "customers.read"],
            "locations": [TOOL],
        },
        {
            "type": "urn:countersign:action",
            "actions": ["refunds.create"],
            "locations": [TOOL],
            "identifier": "orders/*",
            "limits": {"amount": {"max": "50.00", "currency": "USD"}},
            "where": {"order.placed_by": "$user"},
        },
    ])
}

/// The claims of a compact token.
pub(crate) fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, payload).unwrap()).unwrap()
}
