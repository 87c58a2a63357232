//! The sidecar under test: its configuration on disk as an operator would write it, the running binary, and the
//! commands that read its ledger.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use super::{
    Answer, Curl, free_port, http,
    openid::{AUDIENCE, OpenId},
    process::{self, Daemon, Ran},
    tool::Tool,
};

/// The credential that the tool wants and the agent never sees.
pub(crate) const TOOL_SECRET: &str = "the-tools-own-credential";

/// The tests' team policy: what the delegation covers goes, with one rule that denies and one that asks a person.
pub(crate) const POLICY: &str = r#"package countersign.teams.support

import data.countersign.lib.delegation
import data.countersign.lib.money

allow contains {"code": "covered"} if delegation.covers(input.action)

deny contains {"code": "order_on_hold", "message": "Order 18 is on hold.", "internal": "hold 4711 by finance"} if {
    input.action.name == "refunds.create"
    input.action.resource == "orders/18"
}

approval contains {"code": "large_refund", "approvers": ["user"], "expires": "PT15M"} if {
    input.action.name == "refunds.create"
    not money.at_most(input.action.parameters.amount, {"minor": 4000, "currency": "USD"})
}
"#;

/// The actions of the tests' tool that only prove the way through, by name.
pub(crate) const PROBES: [(&str, &str, &str); 10] = [
    ("probe.echo", "GET /v1/echo/{name}", "read"),
    ("probe.status", "GET /v1/status/{code}", "read"),
    ("probe.upload", "POST /v1/upload", "write"),
    ("probe.download", "GET /v1/download", "read"),
    ("probe.stream", "GET /v1/stream", "read"),
    ("probe.redirect", "GET /v1/redirect", "read"),
    ("probe.cookie", "GET /v1/cookie", "read"),
    ("probe.hang", "GET /v1/hang", "read"),
    ("probe.cut", "GET /v1/cut", "read"),
    ("probe.drop", "GET /v1/drop", "read"),
];

/// A configuration that is not running yet.
pub(crate) struct Setup {
    /// The configuration, which is written as JSON: that is YAML too.
    pub(crate) config: Value,
    /// The team's policy.
    pub(crate) policy: String,
    /// The platform team's policy.
    pub(crate) platform: String,
    /// Environment variables of the process.
    pub(crate) environment: Vec<(String, String)>,
    /// The size, in bytes, beyond which no file of the process grows: a disk that fills up.
    pub(crate) file_size_limit: Option<u64>,
    /// The user it runs as, who then owns everything of it; only where the tests are root.
    pub(crate) user: Option<u32>,
    /// Arguments for the command besides its configuration.
    pub(crate) arguments: Vec<String>,
    directory: tempfile::TempDir,
}

/// The platform team's policy where a test is not about it.
const PLATFORM: &str = "package countersign.org\n\ndeny contains {\"code\": \"never\"} if false\n";

impl Setup {
    /// The usual sidecar: `openid` delegates, `tool` is behind it.
    pub(crate) fn new(openid: &OpenId, tool: &Tool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = config(openid.issuer(), tool);
        let mut setup = Self {
            config,
            policy: POLICY.to_owned(),
            platform: PLATFORM.to_owned(),
            environment: Vec::new(),
            file_size_limit: None,
            user: None,
            arguments: Vec::new(),
            directory,
        };
        setup.config["listen"] = json!({
            "agent": {
                "tcp": format!("127.0.0.1:{}", free_port()),
                "bearer": "all",
                // All tests are one agent, and look for the record of each refusal.
                "limits": {"refusals_per_minute": 1_000_000},
            },
            "health": {"tcp": format!("127.0.0.1:{}", free_port())},
        });
        setup.write_secret("tool-credential", TOOL_SECRET);
        if let Some(file) = tool.certificate_authority() {
            setup.config["tls"] = json!({"authorities": file});
        }
        setup
    }

    /// The same with its configuration changed by `change`.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self
    }

    /// Where everything of it lies.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file that only its owner may read.
    pub(crate) fn write_secret(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Puts configuration and policy on disk; the path of the former.
    pub(crate) fn write(&self) -> PathBuf {
        let team = self.directory.path().join("policies/support");
        let org = self.directory.path().join("policies/org");
        fs::create_dir_all(&team).unwrap();
        fs::create_dir_all(&org).unwrap();
        fs::write(team.join("support.rego"), &self.policy).unwrap();
        fs::write(org.join("org.rego"), &self.platform).unwrap();
        let ledger = self.directory.path().join("ledger");
        if !ledger.exists() {
            fs::create_dir(&ledger).unwrap();
            fs::set_permissions(&ledger, fs::Permissions::from_mode(0o700)).unwrap();
        }
        self.write_secret("countersign.yaml", &serde_json::to_string_pretty(&self.config).unwrap())
    }

    /// Runs it to its end: for configurations that it must not start with.
    pub(crate) fn run(&self) -> Ran {
        let path = self.write();
        let mut command = process::countersign();
        process::run(command.arg("sidecar").arg("--config").arg(path).envs(self.environment.iter().cloned()))
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start(self) -> Sidecar {
        let daemon = self.spawn();
        let mut sidecar = Sidecar { setup: self, daemon };
        sidecar.until_ready();
        sidecar
    }

    /// Starts it, ready or not.
    pub(crate) fn start_unready(self) -> Sidecar {
        let daemon = self.spawn();
        Sidecar { setup: self, daemon }
    }

    fn spawn(&self) -> Daemon {
        let path = self.write();
        let mut command = match (self.user, self.file_size_limit) {
            (Some(user), _) => {
                give_away(self.directory.path(), user);
                process::countersign_as(user)
            }
            (None, None) => process::countersign(),
            (None, Some(bytes)) => process::limited(bytes),
        };
        command.arg("sidecar").arg("--config").arg(path).args(&self.arguments);
        command.envs(self.environment.iter().cloned());
        Daemon::start(&mut command, &self.directory.path().join("sidecar.log"))
    }
}

/// Makes `user` the owner of everything below `directory`.
fn give_away(directory: &Path, user: u32) {
    let status =
        Command::new("chown").args(["--recursive", "--no-dereference", &user.to_string()]).arg(directory).status();
    assert!(status.unwrap().success());
}

fn config(issuer: &str, tool: &Tool) -> Value {
    let reading = ["orders.read", "orders.list", "customers.read"];
    let probes = PROBES.map(|(name, ..)| name);
    let support = [&reading[..], &probes].concat();
    let actions = [&support[..], &["refunds.create"]].concat();
    let agent = |id: &str, status: &str| json!({"id": id, "issuer": issuer, "owner": "ops@acme.example", "actions": actions, "tenants": ["acme"], "status": status});
    json!({
        "sidecar": {"name": "support", "audience": AUDIENCE, "tenants": ["acme"]},
        "issuers": [{
            "issuer": issuer,
            "role": "delegation",
            "tenants": ["acme"],
            "chain": "act",
            "entitlements": {"from": "groups", "map": {"support": support, "refunds": ["refunds.create"]}},
        }],
        "policy": [{"name": "org", "path": "policies/org"}, {"name": "support", "path": "policies/support", "for": ["orders"]}],
        "ledger": {"dir": "ledger"},
        "agents": [agent("support-v1", "active"), agent("refund-helper", "active"), agent("retired", "suspended")],
        "tools": {"orders": orders(issuer, tool)},
    })
}

fn orders(issuer: &str, tool: &Tool) -> Value {
    let mut actions = json!({
        "orders.read": {"match": "GET /v1/orders/{order}", "effect": "read", "resource": "orders/{order}"},
        "orders.list": {"match": "GET /v1/orders", "effect": "read", "resource": "orders"},
        "refunds.create": {
            "match": "POST /v1/orders/{order}/refunds",
            "effect": "write",
            "resource": "orders/{order}",
            "facts": ["order"],
            "parameters": {
                "amount": {"type": "money", "value": "body:/amount", "currency": "body:/currency"},
                "reason": {"type": "string", "value": "body:/reason", "optional": true},
            },
            "idempotency": "header:Idempotency-Key",
        },
    });
    for (name, request, effect) in PROBES {
        let resource = name.replace('.', "/");
        actions[name] = json!({"match": request, "effect": effect, "resource": resource});
    }
    // A write's body is closed unless it says otherwise; this one streams whatever it is given.
    actions["probe.upload"]["additional"] = json!("allow");
    json!({
        "at": "/orders",
        "upstream": tool.url(),
        "credential": {"bearer": {"file": "tool-credential"}},
        "facts": {"order": {
            "get": "/v1/orders/{order}", "ttl": "10s", "timeout": "5s",
            "pick": {"placed_by": {"at": "/customer/id", "principal": issuer}, "status": {"at": "/status"}},
        }},
        "actions": actions,
    })
}

/// A running sidecar.
pub(crate) struct Sidecar {
    setup: Setup,
    /// Its process.
    pub(crate) daemon: Daemon,
}

impl Sidecar {
    /// The port that agents call.
    pub(crate) fn port(&self) -> u16 {
        self.port_of("agent")
    }

    /// The port of health and metrics.
    pub(crate) fn health_port(&self) -> u16 {
        self.port_of("health")
    }

    fn port_of(&self, listener: &str) -> u16 {
        let address = self.setup.config["listen"][listener]["tcp"].as_str().unwrap();
        address.rsplit_once(':').unwrap().1.parse().unwrap()
    }

    /// The URL that an agent uses for `path` (`/orders/v1/orders/17`).
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port())
    }

    /// `curl` of a path, with the agent's token.
    pub(crate) fn get(&self, path: &str, token: &str) -> Curl {
        Curl::get(self.url(path)).bearer(token)
    }

    /// `curl` of a refund of `body` on `order`.
    pub(crate) fn refund(&self, order: &str, token: &str, body: &str) -> Curl {
        Curl::post(self.url(&format!("/orders/v1/orders/{order}/refunds")), "application/json", body).bearer(token)
    }

    /// The same two without starting a process: for tables of many calls.
    pub(crate) fn plain_get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        http::request(self.port(), "GET", path, headers, b"")
    }

    /// Whether it says that it is ready.
    pub(crate) fn is_ready(&self) -> bool {
        std::net::TcpStream::connect(("127.0.0.1", self.health_port())).is_ok()
            && http::get(self.health_port(), "/readyz").status == 200
    }

    /// Waits until it is.
    pub(crate) fn until_ready(&mut self) {
        super::eventually("the sidecar to be ready", || {
            if let Some(status) = self.daemon.ended() {
                panic!("the sidecar ended with {status}: {}", self.daemon.output());
            }
            self.is_ready().then_some(())
        });
    }

    /// The page of `/metrics`.
    pub(crate) fn metrics(&self) -> String {
        http::get(self.health_port(), "/metrics").text()
    }

    /// Everything of it on disk.
    pub(crate) fn directory(&self) -> &Path {
        self.setup.directory()
    }

    /// Its ledger.
    pub(crate) fn ledger(&self) -> PathBuf {
        self.directory().join("ledger")
    }

    /// What it was made of, after it ended.
    pub(crate) fn into_setup(self) -> Setup {
        self.setup
    }

    /// Asks it to end and waits for that.
    pub(crate) fn stop(&mut self) {
        self.daemon.signal("TERM");
        let status = self.daemon.wait();
        assert!(status.success(), "{status}: {}", self.daemon.output());
    }

    /// Starts it again on what is on disk, after it ended.
    pub(crate) fn restart(&mut self) {
        self.restart_unready();
        self.until_ready();
    }

    /// The same without waiting until it is ready.
    pub(crate) fn restart_unready(&mut self) {
        self.daemon = self.setup.spawn();
    }

    /// `countersign audit query` over its ledger, one record a line.
    #[track_caller]
    pub(crate) fn query(&self, arguments: &[&str]) -> Vec<Value> {
        audit(&self.ledger(), "query", &[arguments, &["--json"]].concat()).lines()
    }

    /// The records of one call.
    #[track_caller]
    pub(crate) fn records(&self, decision_id: &str) -> Vec<Value> {
        self.query(&[]).into_iter().filter(|record| record["decision_id"] == decision_id).collect()
    }

    /// The record by which the call was decided.
    #[track_caller]
    pub(crate) fn decided(&self, answer: &Answer) -> Value {
        let id = answer.decision_id();
        let mut decided = self.records(&id).into_iter().filter(|record| record["kind"] == "call.decided");
        let record = decided.next().unwrap_or_else(|| panic!("no record of {id}"));
        assert_eq!(decided.next(), None, "two decisions under one id");
        record
    }

    /// The record of how the call ended, which is written after the agent has its answer.
    #[track_caller]
    pub(crate) fn settled(&self, decision_id: &str) -> Value {
        super::eventually("the call to be settled", || {
            self.records(decision_id).into_iter().find(|record| record["kind"] == "call.settled")
        })
    }
}

/// `countersign audit COMMAND --from LEDGER ARGUMENTS`
pub(crate) fn audit(ledger: &Path, command: &str, arguments: &[&str]) -> Ran {
    process::run(process::countersign().args(["audit", command, "--from"]).arg(ledger).args(arguments))
}

/// `countersign explain DECISION --from LEDGER ARGUMENTS`
pub(crate) fn explain(ledger: &Path, decision_id: &str, arguments: &[&str]) -> Ran {
    process::run(process::countersign().args(["explain", decision_id, "--from"]).arg(ledger).args(arguments))
}
