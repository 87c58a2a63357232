//! Agents that change nothing (`entry: exchanged`): the sidecar holds the agent's identity and obtains the delegated
//! token for the user's own, or for a task that a call names. With the real provider, authority and tool.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    revoke::{administrator, enrol},
    support::{
        Answer, Sidecar, World,
        authority::{Authority, Client, entitlements},
        eventually, mark,
        openid::{AUDIENCE, claims},
        process,
        sidecar::Setup,
        skipped,
        tool::values,
        world,
    },
};

/// An agent as it was before: it knows nothing of any of this.
const AGENT: &str = "legacy-v1";

/// A new key of that agent's in `file`, as the sidecar keeps it; what it answers is how the authority knows it.
fn key(file: &Path) -> Value {
    fs::remove_file(file).ok();
    process::run(process::countersign().args(["agents", "key"]).arg(file)).lines().remove(0)
}

/// An authority, and a sidecar that holds the agent's identity.
struct Parts {
    authority: Authority,
    /// An agent that obtains its tokens itself.
    modern: Client,
    sidecar: Sidecar,
    root: String,
    folder: tempfile::TempDir,
}

/// The entry of an agent whose connections are `connects`.
fn entry(connects: &Value) -> Value {
    json!({"exchanged": {
        "subject_audiences": [AUDIENCE],
        "agents": [{"agent": AGENT, "key": "legacy.pem", "connects": connects}],
    }})
}

fn parts(world: &World) -> Parts {
    parts_with(world, |_| (), |_| ())
}

/// The same with changes to the authority's configuration and the sidecar's setup.
fn parts_with(world: &World, change: impl FnOnce(&mut Value), setup: impl FnOnce(&mut Setup)) -> Parts {
    let modern = Client::new("modern-v9");
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("legacy.pem");
    let jwks = key(&key_file);
    let authority = Authority::start_with(&world.openid, &[&modern], |directory, config| {
        declare(&directory.join("store.yaml"), world.openid.issuer(), &jwks);
        change(config);
    });
    let root = administrator(world);
    let enrolled = enrol(&authority, &root, folder.path());
    let issuer = authority.issuer();
    let mut made = Setup::new(&world.openid, &world.tool).with(|config| {
        config["authority"] = enrolled;
        config["issuers"] = json!([
            {"issuer": issuer, "role": "delegation", "tenants": ["acme"], "withdrawals": "changes"},
            {
                "issuer": world.openid.issuer(), "role": "subject", "tenants": ["acme"], "claims": {"tenant": "tenant"},
                "entitlements": entitlements(),
            },
        ]);
        let actions = ["orders.read", "orders.list", "refunds.create"];
        config["agents"] = [AGENT, "modern-v9"]
            .map(|id| json!({"id": id, "issuer": issuer, "owner": "ops@acme.example", "actions": actions, "tenants": ["acme"]}))
            .into_iter()
            .collect();
        config["listen"]["agent"]["entry"] = entry(&json!("anybody"));
    });
    fs::copy(&key_file, made.directory().join("legacy.pem")).unwrap();
    setup(&mut made);
    Parts { authority, modern, sidecar: made.start(), root, folder }
}

/// Adds the agent, alice's grant for it, and tasks of hers and bob's that people started.
fn declare(store: &Path, provider: &str, jwks: &Value) {
    let mut declared: Value = serde_json::from_slice(&fs::read(store).unwrap()).unwrap();
    let mut push = |list: &str, value: Value| declared[list].as_array_mut().unwrap().push(value);
    push(
        "agents",
        json!({
            "id": AGENT, "owner": "ops@acme.example", "actions": ["orders.read", "refunds.create"], "tenants": ["acme"],
            "credentials": [{"jwks": jwks}],
        }),
    );
    for user in ["alice", "erin"] {
        push(
            "grants",
            json!({
                "id": format!("legacy-{user}"), "user": {"id": user, "issuer": provider}, "agent": {"id": AGENT},
                "stage": "supervised", "expires": "2999-01-01T00:00:00Z", "presence": ["detached"],
                "authorization_details": [
                    {"type": "urn:countersign:action", "actions": ["orders.read", "refunds.create"], "locations": ["orders"]},
                ],
            }),
        );
        push(
            "tasks",
            json!({
                "id": format!("ticket-{user}-7"), "grant": format!("legacy-{user}"), "run": "run-7", "tenant": "acme",
                "initiated_by": user, "sensitivity": "low", "stage": "supervised", "presence": "detached",
                "expires": "2999-01-01T00:00:00Z", "status": "active",
            }),
        );
    }
    fs::write(store, declared.to_string()).unwrap();
}

impl Parts {
    fn call(&self, headers: &[(&str, &str)]) -> Answer {
        self.sidecar.plain_get("/orders/v1/orders/17", headers)
    }

    /// With nothing but what the agent has today.
    fn with(&self, token: &str) -> Answer {
        self.call(&[("authorization", &format!("Bearer {token}"))])
    }

    fn refund(&self, headers: &[(&str, &str)]) -> Answer {
        let headers = [headers, &[("content-type", "application/json")]].concat();
        let body = br#"{"amount":"1.00","currency":"USD"}"#;
        let path = "/orders/v1/orders/17/refunds";
        crate::support::http::request(self.sidecar.port(), "POST", path, &headers, body)
    }

    /// How many exchanges came to `outcome`.
    fn exchanges(&self, kind: &str, outcome: &str) -> u64 {
        let (kind, outcome) = (format!("kind=\"{kind}\""), format!("outcome=\"{outcome}\""));
        let metrics = self.sidecar.metrics();
        let line = metrics.lines().find(|line| {
            line.starts_with("countersign_entry_exchange_seconds_count")
                && line.contains(&kind)
                && line.contains(&outcome)
        });
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    fn all_exchanges(&self) -> u64 {
        let outcomes = ["issued", "refused", "unavailable"];
        outcomes.iter().map(|outcome| self.exchanges("first", outcome) + self.exchanges("renewal", outcome)).sum()
    }

    fn revoke(&self, arguments: &[&str]) {
        let arguments = [&["revoke"], arguments, &["--reason", "a test", "--json"]].concat();
        self.authority.run(&self.root, &arguments).well();
    }

    /// Waits until the call with `token` is refused, and says with which code.
    fn ended(&self, token: &str) -> String {
        eventually("the call to be refused", || Some(self.with(token)).filter(|answer| answer.status != 200)).code()
    }
}

#[test]
fn a_call_with_nothing_but_todays_user_token_works_and_its_record_names_both() {
    let Some(world) = world() else { return };
    let parts = parts(world);
    let (alice, mark) = (world.openid.user("alice"), mark());
    let authorization = format!("Bearer {alice}");
    let answer = parts.call(&[("authorization", &authorization), ("x-mark", &mark)]);
    answer.went(200);
    let record = parts.sidecar.decided(&answer);
    assert_eq!((&record["entry"], &record["agent"]["id"]), (&json!("exchanged"), &json!(AGENT)), "{record}");
    assert_eq!((&record["user"]["id"], &record["decision"]), (&json!("alice"), &json!("permit")), "{record}");
    // The tool sees its own credential, and nothing of the user's.
    let seen = world.tool.marked(&mark).remove(0);
    assert!(!values(&seen, "authorization").concat().contains(&alice), "{seen}");
    assert!(!seen.to_string().contains(alice.split('.').nth(2).unwrap()), "{seen}");

    // What the agent started goes no further than looking. What a person started goes as far as they said.
    parts.refund(&[("authorization", &authorization)]).refused(403, "stage");
    let task = ("countersign-task", "ticket-alice-7");
    parts.refund(&[("authorization", &authorization), task]).went(201);
    // Alone, once the authority knows what the user may do.
    let answer = parts.refund(&[task]);
    answer.went(201);
    let record = parts.sidecar.decided(&answer);
    assert_eq!((&record["entry"], &record["task_id"]), (&json!("exchanged"), &json!("ticket-alice-7")), "{record}");
    assert_eq!(record["user"]["id"], "alice", "{record}");

    // Somebody else's task, one that nobody has, and words that are none.
    parts
        .refund(&[("authorization", &authorization), ("countersign-task", "ticket-erin-7")])
        .refused(403, "impersonation");
    parts.refund(&[("countersign-task", "ticket-bob")]).refused(401, "invalid_token");
    parts.refund(&[("countersign-task", "no-such-task")]).refused(401, "invalid_token");
    parts.refund(&[("countersign-task", "two words")]).refused(400, "malformed");
    parts.refund(&[task, task]).refused(400, "malformed");
    parts.call(&[]).refused(401, "no_credential");

    // An agent that obtains its tokens itself is what it always was.
    let own = parts.authority.first(&parts.modern, &world.openid);
    let answer = parts.with(&own);
    answer.went(200);
    assert_eq!(parts.sidecar.decided(&answer)["entry"], "delegated");
    let text = process::run(
        process::countersign().args(["health", "--admin"]).arg(parts.sidecar.directory().join("admin.sock")),
    );
    assert!(text.stdout.contains(AGENT), "{}{}", text.stdout, text.stderr);

    // A key that the authority does not know is the sidecar's own trouble, and says so; what is kept goes on.
    key(&parts.sidecar.directory().join("legacy.pem"));
    let refused = eventually("the other key to be used", || {
        Some(parts.with(&world.openid.user("alice"))).filter(|answer| answer.status != 200)
    });
    refused.refused(503, "credential_unavailable");
    parts.with(&alice).went(200);
}

#[test]
fn what_is_not_a_good_token_of_a_user_who_gave_a_grant_goes_nowhere() {
    let Some(world) = world() else { return };
    let parts = parts(world);
    let (alice, bob) = (world.openid.user("alice"), world.openid.user("bob"));
    let sign = |asked: Value| {
        let mut asked = asked;
        asked["like"] = json!(alice);
        world.openid.sign(&asked)
    };
    let tampered = {
        let (head, signature) = alice.rsplit_once('.').unwrap();
        let other = bob.rsplit_once('.').unwrap().1;
        assert_ne!(signature, other);
        format!("{head}.{other}")
    };
    for (why, token, status, code) in [
        ("another key's", sign(json!({"key": "unpublished"})), 401, "invalid_token"),
        ("no key's", sign(json!({"key": "none"})), 401, "invalid_token"),
        ("a public key as a secret", sign(json!({"key": "public-as-secret"})), 401, "invalid_token"),
        ("bob's signature", tampered, 401, "invalid_token"),
        ("expired", sign(json!({"from_now": {"iat": -600, "exp": -300}})), 401, "expired"),
        ("for another audience", sign(json!({"claims": {"aud": "urn:example:elsewhere"}})), 401, "wrong_audience"),
        ("another issuer's", sign(json!({"claims": {"iss": "https://elsewhere.example"}})), 401, "invalid_token"),
        ("a management token", world.openid.manager("alice"), 401, "wrong_audience"),
        ("a robot's", world.openid.client_credentials("support-v1"), 403, "robot_user"),
        ("another tenant's", world.openid.user("carol"), 403, "tenant_mismatch"),
        ("no token", "garbage".to_owned(), 401, "invalid_token"),
    ] {
        let answer = parts.with(&token);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{why}: {}", answer.text());
    }
    assert_eq!(parts.all_exchanges(), 0, "the authority was asked about garbage");

    // Good tokens of users who gave this agent nothing: refused by the authority, once for many calls.
    for _ in 0..20 {
        parts.with(&bob).refused(403, "impersonation");
    }
    let record = parts.sidecar.decided(&parts.with(&bob));
    assert_eq!((&record["entry"], &record["user"]["id"]), (&json!("exchanged"), &json!("bob")), "{record}");
    assert_eq!(record["agent"]["id"], AGENT, "{record}");
    assert!(parts.exchanges("first", "refused") <= 5, "{}", parts.sidecar.metrics());
    // What alice's token brought never answers for bob's.
    for _ in 0..5 {
        let answer = parts.with(&alice);
        answer.went(200);
        assert_eq!(parts.sidecar.decided(&answer)["user"]["id"], "alice");
        parts.with(&bob).refused(403, "impersonation");
    }

    // A flood of tasks that are not there: the authority is asked so often and no more, and who is known goes on.
    let mut codes = std::collections::BTreeMap::<String, u32>::new();
    for number in 0..300 {
        let answer = parts.call(&[("countersign-task", &format!("no-task-{number}"))]);
        *codes.entry(answer.code()).or_default() += 1;
    }
    assert!(codes["overloaded"] > 0 && codes["invalid_token"] > 0, "{codes:?}");
    assert!(parts.exchanges("first", "refused") <= 250, "{}", parts.sidecar.metrics());
    parts.with(&alice).went(200);
}

#[test]
fn calls_that_come_at_once_make_one_exchange_and_it_is_renewed_before_it_ends() {
    let Some(world) = world() else { return };
    let parts = parts_with(world, |config| config["authority"]["token_lifetime"] = json!("12s"), |_| ());
    let alice = world.openid.user("alice");
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..100).map(|_| scope.spawn(|| parts.with(&alice).status)).collect();
        for call in calls {
            assert_eq!(call.join().unwrap(), 200);
        }
    });
    assert_eq!((parts.exchanges("first", "issued"), parts.all_exchanges()), (1, 1));
    eventually("a renewal", || {
        parts.with(&alice).went(200);
        (parts.exchanges("renewal", "issued") > 0).then_some(())
    });
    assert_eq!(parts.exchanges("first", "issued"), 1, "a call had to wait");
}

#[test]
fn what_is_taken_back_ends_calls_with_the_users_token_too() {
    let Some(world) = world() else { return };
    let parts = parts_with(
        world,
        |config| {
            config["issuers"][0]["withdrawals"] = json!("backchannel_logout");
            config["issuers"][0]["logout_clients"] = json!(["portal"]);
        },
        |_| (),
    );
    let alice = world.openid.user("alice");
    let answer = parts.with(&alice);
    answer.went(200);
    let task = parts.sidecar.decided(&answer)["task_id"].as_str().unwrap().to_owned();
    parts.revoke(&["task", &task]);
    assert_eq!(parts.ended(&alice), "withdrawn");
    // The agent does not begin again by itself what a person took back.
    for _ in 0..3 {
        let answer = parts.with(&alice);
        assert!(["task_ended", "withdrawn"].contains(&answer.code().as_str()), "{}", answer.text());
    }
    // Another session is another matter, until it ends at the provider.
    let again = world.openid.user("alice");
    parts.with(&again).went(200);
    let told = |asked| world.openid.control("POST", "/logout", &asked);
    let uri = format!("{}/oidc/backchannel_logout", parts.authority.issuer());
    told(json!({"client_id": "portal", "username": "alice", "sid": claims(&again)["sid"], "uri": uri}));
    assert_eq!(parts.ended(&again), "withdrawn");
    parts.with(&again).refused(401, "withdrawn");

    // What is only narrowed goes on with what is left, and no call fails for it.
    let third = world.openid.user("alice");
    parts.with(&third).went(200);
    let detail = json!([{"type": "urn:countersign:action", "actions": ["orders.read"], "locations": ["orders"]}]);
    let details = parts.folder.path().join("details.json");
    fs::write(&details, detail.to_string()).unwrap();
    let change = ["grant", "change", "legacy-alice", "--json", "--reason", "less", "--details"];
    let change = [&change[..], &[details.to_str().unwrap()]].concat();
    parts.authority.run(&world.openid.manager("alice"), &change).well();
    let authorization = format!("Bearer {third}");
    let task = ("countersign-task", "ticket-alice-7");
    eventually("the narrower token", || {
        parts.with(&third).went(200);
        let answer = parts.refund(&[("authorization", &authorization), task]);
        (answer.status == 403 && answer.code() == "insufficient_scope").then_some(())
    });
    parts.revoke(&["agent", AGENT]);
    parts.ended(&third);
    eventually("the suspension to be told", || (parts.with(&third).code() == "agent_suspended").then_some(()));
}

#[test]
fn without_the_authority_calls_go_on_until_their_token_ends_and_then_say_so() {
    let Some(world) = world() else { return };
    let mut parts = parts_with(world, |config| config["authority"]["token_lifetime"] = json!("8s"), |_| ());
    let (alice, erin) = (world.openid.user("alice"), world.openid.user("alice"));
    parts.with(&alice).went(200);
    parts.authority.daemon.kill();
    parts.with(&alice).went(200);
    // One who comes now is told that it is not about them.
    parts.with(&erin).refused(503, "authority_stale");
    assert_eq!(parts.ended(&alice), "authority_stale");
    let retry = parts.with(&alice);
    assert_eq!((retry.code().as_str(), retry.json()["retry"].as_str()), ("authority_stale", Some("after")));
    assert!(parts.exchanges("renewal", "unavailable") + parts.exchanges("first", "unavailable") > 0);
    parts.authority.restart();
    eventually("calls to go again", || (parts.with(&alice).status == 200).then_some(()));
}

#[test]
fn an_agent_is_who_its_user_on_this_machine_is_and_cannot_read_the_key() {
    const SIDECAR: u32 = 61_301;
    const LEGACY: u32 = 61_302;
    const OTHER: u32 = 61_303;
    let Some(world) = world() else { return };
    if !process::is_root() {
        return skipped("agents of several users", "only root can be several users");
    }
    let mut place = PathBuf::new();
    let parts = parts_with(
        world,
        |_| (),
        |setup| {
            fs::set_permissions(setup.directory(), fs::Permissions::from_mode(0o755)).unwrap();
            place = setup.directory().to_owned();
            // Whoever follows an authority reads the key that was enrolled, as the user it is.
            let enrolled = PathBuf::from(setup.config["authority"]["credential"]["key"].as_str().unwrap());
            fs::copy(enrolled, place.join("sidecar.pem")).unwrap();
            setup.config["authority"]["credential"]["key"] = json!("sidecar.pem");
            fs::copy(world.tool.certificate_authority().unwrap(), place.join("ca.pem")).unwrap();
            setup.config["tls"] = json!({"authorities": "ca.pem"});
            setup.config["listen"]["agent"] = json!({
                "unix": "agent.sock", "mode": "0666", "allow_uids": [LEGACY, OTHER], "bearer": "reads",
                "entry": entry(&json!({"uid": LEGACY})),
            });
            setup.user = Some(SIDECAR);
        },
    );
    let alice = world.openid.user("alice");
    let call = |user: u32, headers: &[String]| {
        let mut call: Command = process::as_user(user, "curl");
        call.args(["--silent", "--show-error", "--max-time", "20", "--unix-socket"]).arg(place.join("agent.sock"));
        for header in headers {
            call.args(["--header", header]);
        }
        process::run(call.args(["--write-out", "\n%{http_code}", "http://localhost/orders/v1/orders/17"])).well()
    };
    let today = [format!("Authorization: Bearer {alice}")];
    assert!(call(LEGACY, &today).ends_with("\n200"));
    // The same request of another user is what it would be anywhere; and no field makes anybody another agent.
    let claimed = [&today[..], &[format!("Countersign-Agent: {AGENT}"), format!("X-Agent: {AGENT}")]].concat();
    for headers in [&today[..], &claimed] {
        let answer = call(OTHER, headers);
        assert!(answer.contains("\"impersonation\"") && answer.ends_with("\n403"), "{answer}");
    }
    let alone = call(OTHER, &["Countersign-Task: ticket-alice-7".to_owned()]);
    assert!(alone.contains("\"no_credential\""), "{alone}");
    for (user, readable) in [(LEGACY, false), (OTHER, false), (SIDECAR, true)] {
        let mut read = process::as_user(user, "cat");
        let read = process::run(read.arg(place.join("legacy.pem")));
        assert_eq!((read.code == Some(0), read.stdout.contains("PRIVATE")), (readable, readable), "{user}");
    }
    drop(parts);
}

#[test]
fn an_identity_that_cannot_be_held_keeps_the_sidecar_from_starting() {
    let Some(world) = world() else { return };
    let setup = Setup::new(&world.openid, &world.tool).with(|config| {
        config["listen"]["agent"]["entry"] = entry(&json!("anybody"));
    });
    let ran = setup.run();
    assert!(ran.code != Some(0) && ran.stderr.contains("`exchanged` needs `authority`"), "{}", ran.stderr);
}
