//! Managing the authority by its command line and API, with the real provider's tokens: who may, what it leads to at
//! the sidecar's side of the wire, and that nothing an agent holds opens any of it.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{
    Answer, World,
    authority::{Authority, Client, MANAGEMENT, token},
    http,
    openid::{AUDIENCE, claims},
    process::{self, Ran},
    sidecar::audit,
    world,
};

const CHANGES: &str = "/v1/changes";

/// An authority, its agent, and the tokens that manage it.
struct Managed {
    authority: Authority,
    agent: Client,
    alice: String,
    root: String,
    folder: tempfile::TempDir,
}

fn managed(world: &World) -> Managed {
    let agent = Client::new("support-v9");
    let authority = Authority::start(&world.openid, &[&agent]);
    let alice = world.openid.manager("alice");
    let root = world.openid.administrator();
    Managed { authority, agent, alice, root, folder: tempfile::tempdir().unwrap() }
}

impl Managed {
    /// Runs a command as whoever `token` is of.
    fn run(&self, token: &str, arguments: &[&str]) -> Ran {
        self.authority.run(token, arguments)
    }

    /// The same, for its JSON.
    fn json(&self, token: &str, arguments: &[&str]) -> Value {
        let mut lines = self.run(token, &[arguments, &["--json"]].concat()).lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.remove(0)
    }

    fn file(&self, name: &str, content: &Value) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn ask(&self, method: &str, path: &str, token: &str, body: &Value) -> Answer {
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
        http::request(self.authority.port(), method, path, &headers, &body)
    }

    fn records(&self, kind: &str) -> Vec<Value> {
        let records = audit(&self.authority.directory().join("ledger"), "query", &["--json"]).lines();
        records.into_iter().filter(|record| record["kind"] == kind).collect()
    }
}

#[test]
fn a_task_is_granted_started_used_and_revoked_from_the_command_line() {
    let Some(world) = world() else { return };
    let managed = managed(world);
    let details = managed.file(
        "details.json",
        &json!([{"type": "urn:countersign:action", "actions": ["orders.read", "payroll.read"], "locations": ["orders"]}]),
    );
    let grant = managed.json(
        &managed.alice,
        &[
            "grant",
            "create",
            "--agent",
            "support-v9",
            "--details",
            &details,
            "--stage",
            "supervised",
            "--presence",
            "detached",
            "--expires",
            "30d",
        ],
    );
    assert_eq!((&grant["scope"], &grant["clipped"]), (&json!(["orders.read"]), &json!(["payroll.read"])), "{grant}");
    let grant = grant["id"].as_str().unwrap();
    let start =
        ["task", "start", "--grant", grant, "--stage", "supervised", "--presence", "detached", "--expires", "1h"];
    let unjustified = managed.run(&managed.alice, &start);
    assert_eq!(unjustified.code, Some(1));
    assert!(unjustified.stderr.contains("justification"), "{}", unjustified.stderr);
    let task = managed.json(&managed.alice, &[&start[..], &["--justification", "ticket 12847"]].concat());
    let task = task["id"].as_str().unwrap();

    // A token by the user's, then one without: the work goes on.
    let fields = [("task_id", task), ("audience", AUDIENCE)];
    let first = token(&managed.authority.exchange(&managed.agent, &world.openid.user("alice"), &fields));
    let next = token(&managed.authority.reissue(&managed.agent, &fields));
    let said = claims(&next);
    assert_eq!(
        (&said["sub"], &said["task_id"], &said["user_presence"]),
        (&json!("alice"), &json!(task), &json!("detached"))
    );
    assert!(said["pos"].as_u64().is_some() && claims(&first)["pos"].as_u64() <= said["pos"].as_u64());

    let table = managed.run(&managed.alice, &["task", "list"]).well();
    assert!(table.starts_with("ID") && table.contains(task), "{table}");
    let revoked = managed.json(&managed.alice, &["revoke", "task", task, "--reason", "closed by the customer"]);
    assert_eq!(revoked["name"], format!("task:{task}"));
    assert!(revoked["position"].as_u64() > said["pos"].as_u64(), "{revoked}");
    let refused = managed.authority.reissue(&managed.agent, &fields);
    assert_eq!(refused.status, 400, "{}", refused.text());
    let shown = managed.json(&managed.alice, &["task", "show", task]);
    assert_eq!(shown["status"], "withdrawn");

    // Each of it is on record, with who and why, before it was answered.
    let record = &managed.records("withdrawal.created")[0];
    assert_eq!((&record["position"], &record["reason"]), (&revoked["position"], &json!("closed by the customer")));
    assert!(record["by"].as_str().unwrap().starts_with("user:alice of "), "{record}");
    for kind in ["grant.created", "task.started"] {
        assert!(!managed.records(kind).is_empty(), "{kind}");
    }
    audit(&managed.authority.directory().join("ledger"), "verify", &[]).well();
}

#[test]
fn an_agent_is_registered_rotated_and_decommissioned_from_the_command_line() {
    let Some(world) = world() else { return };
    let managed = managed(world);
    let (old, new) = (Client::new("report-v1"), Client::new("report-v1"));
    let (old_keys, new_keys) = (managed.file("old.json", &old.jwks()), managed.file("new.json", &new.jwks()));
    let register = [
        "agents",
        "register",
        "report-v1",
        "--owner",
        "dana@acme.example",
        "--actions",
        "orders.read",
        "--tenants",
        "acme",
        "--jwks",
        &old_keys,
    ];
    let refused = managed.run(&managed.alice, &register);
    assert!(refused.code == Some(1) && refused.stderr.contains("administrator"), "{}", refused.stderr);
    let agent = managed.json(&managed.root, &register);
    assert_eq!((&agent["status"], &agent["owner"]), (&json!("active"), &json!("dana@acme.example")));
    assert_eq!(agent["credentials"].as_array().map(Vec::len), Some(1), "{agent}");

    let details = managed.file(
        "details.json",
        &json!([{"type": "urn:countersign:action", "actions": ["orders.read"], "locations": ["orders"]}]),
    );
    let grant = managed.json(
        &managed.alice,
        &[
            "grant",
            "create",
            "--agent",
            "report-v1",
            "--details",
            &details,
            "--presence",
            "detached",
            "--expires",
            "1d",
        ],
    );
    let task = managed.json(
        &managed.alice,
        &["task", "start", "--grant", grant["id"].as_str().unwrap(), "--presence", "detached", "--expires", "1h"],
    );
    let fields = [("task_id", task["id"].as_str().unwrap()), ("audience", AUDIENCE)];
    token(&managed.authority.exchange(&old, &world.openid.user("alice"), &fields));
    managed.json(
        &managed.root,
        &["agents", "rotate", "report-v1", "--jwks", &new_keys, "--overlap", "1h", "--reason", "yearly"],
    );
    // Both while they overlap.
    token(&managed.authority.reissue(&old, &fields));
    token(&managed.authority.reissue(&new, &fields));

    managed.json(&managed.root, &["agents", "suspend", "report-v1", "--reason", "case 311"]);
    assert_eq!(managed.authority.reissue(&new, &fields).json()["error"], "unauthorized_client");
    managed.json(&managed.root, &["agents", "reinstate", "report-v1", "--reason", "case closed"]);
    token(&managed.authority.reissue(&new, &fields));
    managed.json(&managed.root, &["agents", "decommission", "report-v1", "--reason", "replaced"]);
    assert_eq!(managed.authority.reissue(&new, &fields).json()["error"], "unauthorized_client");
    let table = managed.run(&managed.root, &["agents", "list"]).well();
    let line = table.lines().find(|line| line.starts_with("report-v1")).unwrap();
    assert!(line.contains("decommissioned") && line.contains("0d"), "{table}");
}

#[test]
fn an_agent_with_a_certificate_is_registered_changed_and_loses_a_credential_from_the_command_line() {
    let Some(world) = world() else { return };
    let managed = managed(world);
    let spiffe: &'static str = "spiffe://acme.example/agent/report";
    let what = ["--owner", "dana@acme.example", "--actions", "orders.read,orders.list", "--tenants", "acme"];
    let register = |more: &[&'static str]| [&["agents", "register", "report-v1"][..], &what, more].concat();
    // Nobody is registered who could not show who they are, or by what names nobody.
    let none = managed.run(&managed.root, &register(&[]));
    assert!(none.code == Some(2) && none.stderr.contains("--spiffe"), "{}", none.stderr);
    let wrong = managed.run(&managed.root, &register(&["--spiffe", "https://acme.example"]));
    assert!(wrong.code == Some(1) && wrong.stderr.contains("spiffe://TRUST-DOMAIN/PATH"), "{}", wrong.stderr);
    let agent = managed.json(&managed.root, &register(&["--spiffe", spiffe, "--subject", "CN=report, O=acme"]));
    let kinds: Vec<_> = agent["credentials"].as_array().unwrap().iter().map(|it| &it["kind"]).collect();
    assert_eq!(kinds, ["spiffe", "subject"]);

    let change = ["agents", "change", "report-v1", "--reason", "reads one order only"];
    let nothing = managed.run(&managed.root, &change);
    assert!(nothing.code == Some(2) && nothing.stderr.contains("--actions"), "{}", nothing.stderr);
    let changed = managed.json(&managed.root, &[&change[..], &["--actions", "orders.read"]].concat());
    assert_eq!((&changed["actions"], &changed["owner"]), (&json!(["orders.read"]), &json!("dana@acme.example")));
    let named = format!("{}#report-v1", managed.authority.issuer());
    let rotate = ["agents", "rotate", &named, "--subject", "CN=report-2, O=acme", "--reason", "the next"];
    managed.json(&managed.root, &rotate);
    let remove = ["agents", "remove-credential", "report-v1"];
    let id = agent["credentials"][0]["id"].as_str().unwrap();
    managed.json(&managed.root, &[&remove[..], &[id, "--reason", "copied"]].concat());
    let gone = managed.run(&managed.root, &[&remove[..], &[id, "--reason", "copied"]].concat());
    assert!(gone.code == Some(1) && gone.stderr.contains("nothing of that name"), "{}", gone.stderr);
    let shown = managed.run(&managed.root, &["agents", "show", "report-v1"]).well();
    assert!(shown.contains("CN=report-2, O=acme") && !shown.contains(spiffe), "{shown}");
    let elsewhere = managed.run(&managed.root, &["agents", "show", "https://elsewhere.example#report-v1"]);
    assert_eq!(elsewhere.code, Some(1), "{}", elsewhere.stdout);
    let listed = managed.run(&managed.root, &["agents", "list", "--tenant", "acme", "--json"]).lines();
    assert!(listed.iter().any(|agent| agent["id"] == "report-v1"), "{listed:?}");
}

#[test]
fn what_was_taken_back_is_listed_to_whose_it_was_and_to_administrators() {
    let Some(world) = world() else { return };
    let managed = managed(world);
    managed.json(&managed.alice, &["revoke", "task", "ticket-1", "--reason", "a test"]);
    let own = managed.run(&managed.alice, &["revoke", "--list", "--target", "task:ticket-1"]).well();
    assert!(own.starts_with("POSITION") && own.contains("task:ticket-1") && own.contains("a test"), "{own}");
    let all = managed.run(&managed.alice, &["revoke", "--list"]);
    assert!(all.code == Some(1) && all.stderr.contains("target"), "{}", all.stderr);
    let everybodys = managed.run(&managed.root, &["revoke", "--list", "task", "--in-force", "--json"]).lines();
    assert_eq!(everybodys.len(), 1, "{everybodys:?}");
    for unclear in [&["revoke"][..], &["revoke", "task"], &["revoke", "--list", "task", "ticket-1"]] {
        assert_eq!(managed.run(&managed.alice, unclear).code, Some(2), "{unclear:?}");
    }
    // A grant is shown with what it lets an agent do, and loses what its user takes from it.
    let shown = managed.run(&managed.alice, &["grant", "show", "grant-alice"]).well();
    assert!(shown.contains("refunds.create") && shown.contains("order.placed_by"), "{shown}");
    let change = ["grant", "change", "grant-alice", "--reason", "a test", "--presence"];
    let wider = managed.json(&managed.alice, &[&change[..], &["detached"]].concat());
    assert_eq!(wider["presence"], json!(["detached"]));
    managed.json(&managed.alice, &[&change[..], &["present"]].concat());
    let start = ["task", "start", "--grant", "grant-alice", "--presence", "detached", "--expires", "1h"];
    assert_eq!(managed.run(&managed.alice, &start).code, Some(1));
    let listed = managed.run(&managed.alice, &["task", "list", "--tenant", "acme", "--json"]).lines();
    assert!(!listed.is_empty());
}

#[test]
fn a_sidecar_is_invited_enrols_itself_and_follows_until_it_is_removed() {
    let Some(world) = world() else { return };
    let managed = managed(world);
    let join = managed.folder.path().join("join.token");
    let invited = managed.json(
        &managed.root,
        &["sidecars", "invite", "--name", "edge", "--tenants", "acme", "--out", join.to_str().unwrap()],
    );
    assert!(invited["token"].is_null() && !std::fs::read_to_string(&join).unwrap().trim().is_empty(), "{invited}");
    private(&join);
    let dir = managed.folder.path().join("enrolled");
    let enrol = |dir: &PathBuf| {
        let mut command = process::countersign();
        command.args(["sidecar", "enrol", "--name", "edge", "--json", "--authority", &managed.authority.issuer()]);
        command.arg("--token").arg(&join).arg("--dir").arg(dir);
        process::run(&mut command)
    };
    let enrolled = enrol(&dir).lines().remove(0);
    let id = enrolled["id"].as_str().unwrap();
    private(&dir.join("sidecar.pem"));
    // The same again finishes what was begun; elsewhere, with another key, the token is used up.
    assert_eq!(enrol(&dir).lines().remove(0)["id"], id);
    let again = enrol(&managed.folder.path().join("another"));
    assert!(again.code == Some(1) && again.stderr.contains("not good"), "{}", again.stderr);

    let assertion = || sidecar_assertion(&dir.join("sidecar.pem"), &managed.authority.issuer(), id);
    let before = managed.ask("GET", CHANGES, &assertion(), &Value::Null);
    before.went(200);
    let head = before.json()["head"].as_u64().unwrap();
    managed.json(&managed.alice, &["revoke", "task", "ticket-1", "--reason", "a test"]);
    let heard = managed.ask("GET", &format!("{CHANGES}?after={head}&wait=2"), &assertion(), &Value::Null).json();
    assert_eq!(heard["changes"][0]["withdrawal"]["target"], json!({"kind": "task", "id": "ticket-1"}), "{heard}");
    let table = managed.run(&managed.root, &["sidecars", "list"]).well();
    assert!(table.contains(id) && table.contains("enrolled"), "{table}");
    let shown = managed.run(&managed.root, &["sidecars", "show", id]).well();
    assert!(shown.contains(id) && shown.contains("enrolled by") && shown.contains("acme"), "{shown}");
    managed.json(&managed.root, &["sidecars", "remove", id, "--reason", "replaced"]);
    assert_eq!(managed.ask("GET", CHANGES, &assertion(), &Value::Null).status, 401);
}

#[test]
fn nothing_an_agent_can_hold_opens_the_management_api() {
    let Some(world) = world() else { return };
    let managed = managed(world);
    let user = world.openid.user("alice");
    let delegated = managed.authority.first(&managed.agent, &world.openid);
    let assertion = managed.agent.assertion(&managed.authority.issuer(), &Value::Null);
    let held = [
        ("the user's token it was given", user),
        ("its own delegated token", delegated),
        ("its client assertion", assertion),
        ("its own token of the provider, for nobody", world.openid.client_credentials("support-v1")),
        ("a delegated token of the provider", world.openid.delegated("alice")),
        (
            "a management token by its own client",
            world.openid.sign(&json!({"like": managed.alice, "claims": {"client_id": "support-v9"}})),
        ),
        (
            "a management token that names it",
            world.openid.sign(&json!({"like": managed.alice, "claims": {"act": {"sub": "support-v9"}}})),
        ),
        ("a forged one", world.openid.sign(&json!({"like": managed.alice, "key": "unpublished"}))),
        ("an unsigned one", world.openid.sign(&json!({"like": managed.alice, "key": "none"}))),
    ];
    let calls: [(&str, &str, Value); 12] = [
        ("GET", "/v1/withdrawals?target=task:ticket-1", Value::Null),
        ("POST", "/v1/withdrawals", json!({"target": "task:ticket-1", "reason": "none"})),
        ("GET", "/v1/agents", Value::Null),
        ("POST", "/v1/agents", json!({"id": "x"})),
        ("POST", "/v1/agents/support-v9/reinstate", json!({"reason": "none"})),
        ("POST", "/v1/agents/support-v9/credentials", json!({"reason": "none"})),
        ("GET", "/v1/grants", Value::Null),
        ("POST", "/v1/grants/grant-alice/change", json!({"redelegate": 9, "reason": "none"})),
        ("POST", "/v1/tasks", json!({"grant": "grant-alice", "expires_in": "1h"})),
        ("POST", "/v1/tasks/ticket-1/stage", json!({"stage": "supervised"})),
        ("POST", "/v1/sidecars", json!({"tenants": ["acme"]})),
        ("GET", CHANGES, Value::Null),
    ];
    let before = managed.records("withdrawal.created").len();
    for (name, token) in &held {
        for (method, path, body) in &calls {
            let answer = managed.ask(method, path, token, body);
            assert_eq!(
                (answer.status, &answer.json()["code"]),
                (401, &json!("invalid_token")),
                "{name}: {method} {path}: {}",
                answer.text()
            );
        }
    }
    assert_eq!(managed.records("withdrawal.created").len(), before);
    // The reverse: what manages gets an agent nothing.
    let answer =
        managed.authority.exchange(&managed.agent, &managed.alice, &[("task_id", "ticket-1"), ("audience", AUDIENCE)]);
    assert_eq!(answer.status, 400, "{}", answer.text());
    for audience in [json!([MANAGEMENT, AUDIENCE]), json!([AUDIENCE, MANAGEMENT])] {
        let both = world.openid.sign(&json!({"like": managed.alice, "claims": {"aud": audience}}));
        let answer =
            managed.authority.exchange(&managed.agent, &both, &[("task_id", "ticket-1"), ("audience", AUDIENCE)]);
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert_eq!(managed.ask("GET", "/v1/agents", &both, &Value::Null).status, 401);
    }
    // What opens it does.
    managed.ask("GET", "/v1/agents", &managed.alice, &Value::Null).went(200);
}

#[test]
fn what_is_written_and_answered_outlives_the_authority() {
    let Some(world) = world() else { return };
    let mut managed = managed(world);
    // Somebody else's is not there for alice.
    let theirs = managed.run(&managed.alice, &["revoke", "session", "a-session", "--reason", "none of mine"]);
    assert!(theirs.code == Some(1) && theirs.stderr.contains("nothing of yours"), "{}", theirs.stderr);
    let revoked = managed.json(&managed.alice, &["revoke", "task", "ticket-1", "--reason", "a test"]);
    managed.authority.killed();
    let listed = managed.json(&managed.root, &["revoke", "task", "ticket-1", "--reason", "again"]);
    assert!(listed["position"].as_u64() > revoked["position"].as_u64());
    let answer = managed.authority.exchange(
        &managed.agent,
        &world.openid.user("alice"),
        &[("task_id", "ticket-1"), ("audience", AUDIENCE)],
    );
    assert_eq!(answer.status, 400, "{}", answer.text());
    // No change is on record twice, and none is missing.
    let positions: Vec<_> =
        managed.records("withdrawal.created").iter().map(|record| record["position"].clone()).collect();
    assert!(positions.contains(&revoked["position"]) && positions.contains(&listed["position"]), "{positions:?}");
    let unique: std::collections::BTreeSet<_> = positions.iter().map(ToString::to_string).collect();
    assert_eq!(unique.len(), positions.len());
}

fn private(path: &std::path::Path) {
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).unwrap().permissions());
    assert_eq!(mode & 0o077, 0, "{} can be read by others", path.display());
}

/// What the sidecar whose key lies at `path` shows its authority.
fn sidecar_assertion(path: &std::path::Path, issuer: &str, id: &str) -> String {
    let key = jsonwebtoken::EncodingKey::from_ed_pem(&std::fs::read(path).unwrap()).unwrap();
    let header = jsonwebtoken::Header {
        typ: Some("countersign-sidecar+jwt".to_owned()),
        ..jsonwebtoken::Header::new(jsonwebtoken::Algorithm::EdDSA)
    };
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let name = format!("{issuer}/sidecars/{id}");
    let claims = json!({"iss": name, "sub": name, "aud": issuer, "iat": now, "exp": now + 30});
    jsonwebtoken::encode(&header, &claims, &key).unwrap()
}
