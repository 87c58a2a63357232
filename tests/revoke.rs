//! Both planes together: a sidecar that enrolled itself follows a real authority, and whatever is taken back there, by
//! anybody who may, is refused here; what is left, or begun anew, goes on.

use std::{path::Path, time::Instant};

use serde_json::{Value, json};

use crate::support::{
    Answer, Sidecar, World,
    authority::{Authority, Client, entitlements, token},
    eventually, http,
    openid::{AUDIENCE, claims},
    process::{self, Ran},
    sidecar::Setup,
    world,
};

/// An authority, its two agents, and a sidecar that follows it.
pub(crate) struct Planes {
    pub(crate) authority: Authority,
    pub(crate) agent: Client,
    helper: Client,
    sidecar: Sidecar,
    pub(crate) alice: String,
    root: String,
    folder: tempfile::TempDir,
}

fn planes(world: &World) -> Planes {
    planes_with(world, |_| ())
}

/// The same with `change` made to the authority's configuration.
pub(crate) fn planes_with(world: &World, change: impl FnOnce(&mut Value)) -> Planes {
    let (agent, helper) = (Client::new("support-v9"), Client::new("refund-v9"));
    let authority = Authority::start_with(&world.openid, &[&agent, &helper], |_, config| change(config));
    let folder = tempfile::tempdir().unwrap();
    let (root, alice) = (administrator(world), world.openid.manager("alice"));
    let enrolled = enrol(&authority, &root, folder.path());

    let issuer = authority.issuer();
    let sidecar = Setup::new(&world.openid, &world.tool)
        .with(|config| {
            config["authority"] = enrolled;
            config["issuers"] = json!([
                {"issuer": issuer, "role": "delegation", "tenants": ["acme"], "withdrawals": "changes"},
                {"issuer": world.openid.issuer(), "role": "subject", "tenants": ["acme"], "claims": {"tenant": "tenant"}, "entitlements": entitlements()},
            ]);
            let actions = ["orders.read", "orders.list", "refunds.create"];
            config["agents"] = ["support-v9", "refund-v9"]
                .map(|id| json!({"id": id, "issuer": issuer, "owner": "ops@acme.example", "actions": actions, "tenants": ["acme"]}))
                .into_iter()
                .collect();
        })
        .start();
    Planes { authority, agent, helper, sidecar, alice, root, folder }
}

/// The management token of somebody who manages the authority.
pub(crate) fn administrator(world: &World) -> String {
    world.openid.administrator()
}

/// Enrols a sidecar by a join token of `root`'s, with its key below `folder`: the section of its configuration that
/// says whom it follows.
pub(crate) fn enrol(authority: &Authority, root: &str, folder: &Path) -> Value {
    let join = folder.join("join.token");
    let place = ["--authority", &authority.issuer()].map(str::to_owned);
    let mut invite = process::countersign();
    invite.args(["sidecars", "invite", "--tenants", "acme", "--out"]).arg(&join).args(&place);
    process::run(invite.env("COUNTERSIGN_TOKEN", root)).well();
    let mut enrol = process::countersign();
    enrol.args(["sidecar", "enrol", "--name", "edge", "--json", "--token"]).arg(&join);
    enrol.arg("--dir").arg(folder.join("enrolled")).args(&place);
    let enrolled = process::run(&mut enrol).lines().remove(0);
    json!({"url": enrolled["url"], "credential": {"key": enrolled["key"], "id": enrolled["id"]}})
}

impl Planes {
    fn run(&self, token: &str, arguments: &[&str]) -> Ran {
        self.authority.run(token, &[arguments, &["--json"]].concat())
    }

    pub(crate) fn json(&self, token: &str, arguments: &[&str]) -> Value {
        self.run(token, arguments).lines().remove(0)
    }

    pub(crate) fn read(&self, token: &str) -> Answer {
        let authorization = format!("Bearer {token}");
        self.sidecar.plain_get("/orders/v1/orders/17", &[("authorization", &authorization)])
    }

    /// A task of alice's under a new grant, and the first token of it.
    pub(crate) fn task(&self, world: &World, redelegate: &str) -> (String, String, String) {
        let details = self.folder.path().join("details.json");
        let element = json!([{"type": "urn:countersign:action", "actions": ["orders.read", "refunds.create"], "locations": ["orders"]}]);
        std::fs::write(&details, element.to_string()).unwrap();
        let grant = self.json(
            &self.alice,
            &[
                "grant",
                "create",
                "--agent",
                "support-v9",
                "--details",
                details.to_str().unwrap(),
                "--stage",
                "supervised",
                "--presence",
                "detached",
                "--redelegate",
                redelegate,
                "--expires",
                "1d",
            ],
        );
        let grant = grant["id"].as_str().unwrap().to_owned();
        let task = self.json(
            &self.alice,
            &[
                "task",
                "start",
                "--grant",
                &grant,
                "--stage",
                "supervised",
                "--justification",
                "a test",
                "--presence",
                "detached",
                "--expires",
                "1h",
            ],
        );
        let task = task["id"].as_str().unwrap().to_owned();
        let token = self.token(world, &task);
        (grant, task, token)
    }

    /// By a token of alice's that is issued now. One of the very second in which she was revoked counts as from before.
    fn token(&self, world: &World, task: &str) -> String {
        let fields = [("task_id", task), ("audience", AUDIENCE)];
        let answer = eventually("a token", || {
            let answer = self.authority.exchange(&self.agent, &world.openid.user("alice"), &fields);
            (answer.status == 200 || !answer.text().contains("since their token")).then_some(answer)
        });
        token(&answer)
    }

    /// Waits until `token` is refused with `code`; how long that took, in milliseconds.
    pub(crate) fn refused(&self, token: &str, code: &str) -> u128 {
        let since = Instant::now();
        let answer = eventually("the call to be refused", || Some(self.read(token)).filter(|it| it.status != 200));
        let took = since.elapsed().as_millis();
        assert_eq!(answer.code(), code, "{}", answer.text());
        took
    }
}

#[test]
fn what_is_revoked_at_the_authority_is_refused_at_the_sidecar() {
    let Some(world) = world() else { return };
    let planes = planes(world);
    let session = format!("{}#{}", world.openid.issuer(), "no-such-session");
    let mut took = Vec::new();

    let (grant, task, first) = planes.task(world, "1");
    planes.read(&first).went(200);
    // A second agent acts through the first.
    let handed = planes.authority.exchange(&planes.agent, &first, &[("requested_actor", "refund-v9")]);
    let second = token(&planes.authority.exchange(&planes.helper, &token(&handed), &[("audience", AUDIENCE)]));
    planes.read(&second).went(200);

    // One token: what was made from it ends too, and the task goes on.
    let jti = claims(&first)["jti"].as_str().unwrap().to_owned();
    planes.json(&planes.root, &["revoke", "token", &jti, "--reason", "leaked"]);
    took.push(planes.refused(&second, "withdrawn"));
    planes.refused(&first, "withdrawn");
    let next = planes.token(world, &task);
    planes.read(&next).went(200);

    // A narrowed grant: the old token ends, a new one holds what is left.
    planes.json(&planes.alice, &["grant", "change", &grant, "--stage", "observe", "--reason", "only looking"]);
    took.push(planes.refused(&next, "withdrawn"));
    let less = planes.token(world, &task);
    planes.read(&less).went(200);
    planes.sidecar.refund("17", &less, r#"{"amount":"1.00","currency":"USD"}"#).send().refused(403, "stage");

    // The task's end, by a person who says that it is done.
    planes.json(&planes.alice, &["task", "end", &task]);
    took.push(planes.refused(&less, "task_ended"));

    // Everything that alice has going, then everything by the agent.
    let (_, another, token) = planes.task(world, "0");
    planes.read(&token).went(200);
    planes.json(&planes.root, &["revoke", "session", &session, "--reason", "somebody else's"]);
    planes.read(&token).went(200);
    planes.json(&planes.root, &["revoke", "user", &format!("{}#alice", world.openid.issuer()), "--reason", "left"]);
    took.push(planes.refused(&token, "withdrawn"));
    let fields = [("task_id", another.as_str()), ("audience", AUDIENCE)];
    assert_eq!(planes.authority.reissue(&planes.agent, &fields).status, 400);
    let (_, _, token) = planes.task(world, "0");
    planes.read(&token).went(200);
    planes.json(&planes.root, &["revoke", "agent", "support-v9", "--reason", "prompt injection"]);
    took.push(planes.refused(&token, "withdrawn"));
    println!("from the command's end to the refusal, in ms: {took:?}");
}

#[test]
fn a_sidecar_that_was_removed_refuses_and_a_killed_authority_is_followed_again() {
    let Some(world) = world() else { return };
    let mut planes = planes(world);
    let (_, task, token) = planes.task(world, "0");
    planes.read(&token).went(200);
    planes.authority.killed();
    planes.json(&planes.alice, &["revoke", "task", &task, "--reason", "after the restart"]);
    planes.refused(&token, "withdrawn");
    let (_, _, token) = planes.task(world, "0");
    eventually("calls to go again", || Some(planes.read(&token)).filter(|answer| answer.status == 200));
    let listed = planes.run(&planes.root, &["sidecars", "list"]).lines();
    let id = listed[0]["id"].as_str().unwrap();
    planes.json(&planes.root, &["sidecars", "remove", id, "--reason", "replaced"]);
    // It hears nothing any more: writes first, reads after their own bound.
    eventually("writes to be refused", || {
        let answer = write(&planes, &token);
        (answer.status == 503 && answer.code() == "authority_stale").then_some(())
    });
}

fn write(planes: &Planes, token: &str) -> Answer {
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let body = br#"{"amount":"1.00","currency":"USD"}"#;
    http::request(planes.sidecar.port(), "POST", "/orders/v1/orders/17/refunds", &headers, body)
}
