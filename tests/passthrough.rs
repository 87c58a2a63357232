//! Rung 0: agents go on with the credential they have today, on record and until a date. What is ours goes the whole way,
//! and nothing of the sidecar's ever goes with what is not.

use std::{fs, os::unix::fs::PermissionsExt as _};

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::support::{
    Answer, Curl, Sidecar, World, eventually, http, mark,
    process::{self, Ran},
    sidecar::{Setup, TOOL_SECRET, audit, explain},
    skipped,
    tool::{Tool, values},
    world,
};

const OWNER: &str = "dana@acme.example";
const OWN: &str = "todays-own-credential";
const ORDER: &str = "/orders/v1/orders/17";

fn in_days(days: i64) -> String {
    in_seconds(days * 24 * 60 * 60)
}

fn in_seconds(seconds: i64) -> String {
    jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap().to_string()
}

/// The usual sidecar, which passes calls of `orders` through, with `more` settings of that.
fn setup(world: &World, more: &Value) -> Setup {
    Setup::new(&world.openid, &world.tool).with(|config| {
        let mut settings =
            json!({"owner": OWNER, "until": in_days(30), "agent": "support-v1", "user_header": "X-Acting-User"});
        for (name, value) in more.as_object().unwrap() {
            settings[name] = value.clone();
        }
        config["tools"]["orders"]["passthrough"] = settings;
    })
}

fn passing(world: &World, more: &Value) -> Sidecar {
    setup(world, more).start()
}

/// A call with `headers`, and the mark by which the tool's log is found.
fn call(sidecar: &Sidecar, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (Answer, String) {
    let marked = mark();
    let headers = [headers, &[("x-mark", marked.as_str())]].concat();
    (http::request(sidecar.port(), method, path, &headers, body.as_bytes()), marked)
}

fn get(sidecar: &Sidecar, path: &str, headers: &[(&str, &str)]) -> (Answer, String) {
    call(sidecar, "GET", path, headers, "")
}

/// The one request of that mark at the tool.
#[track_caller]
fn received(world: &World, marked: &str) -> Value {
    let [one] = &world.tool.marked(marked)[..] else { panic!("one request of {marked}") };
    one.clone()
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[test]
fn an_agent_goes_on_with_what_it_has_and_all_of_it_is_on_record() {
    let Some(world) = world() else { return };
    let sidecar = passing(world, &json!({}));
    let own = bearer(OWN);
    let refund = json!({"amount": "900.00", "currency": "USD"}).to_string();
    let headers = [("authorization", own.as_str()), ("x-acting-user", "alice"), ("content-type", "application/json")];
    let (answer, marked) = call(&sidecar, "POST", "/orders/v1/orders/17/refunds", &headers, &refund);
    answer.went(201);
    let request = received(world, &marked);
    assert_eq!(values(&request, "authorization"), [own.as_str()]);
    assert!(!request.to_string().contains(TOOL_SECRET));

    let record = sidecar.decided(&answer);
    for (member, expected) in [
        ("decision", json!("permit")),
        ("mode", json!("passthrough")),
        ("entry", json!("passthrough")),
        ("rung", json!(0)),
        ("tool", json!("orders")),
        ("action", json!("refunds.create")),
        ("resource", json!("orders/17")),
        ("tenant", json!("acme")),
        ("asserted", json!({"agent": "support-v1", "user": "alice"})),
    ] {
        assert_eq!(record[member], expected, "{member}: {record}");
    }
    for member in ["user", "agent", "token", "run_id", "identity_mode"] {
        assert_eq!(record[member], Value::Null, "nobody was verified: {record}");
    }
    assert_eq!(record["passthrough"]["owner"], OWNER);
    assert_eq!(
        (&record["passthrough"]["credential"], &record["revisions"]["policy"]),
        (&json!("bearer"), &Value::Null)
    );
    assert!(record["parameters"]["amount"].to_string().contains("900"), "{record}");
    let settled = sidecar.settled(&answer.decision_id());
    assert_eq!((&settled["outcome"], &settled["status"]), (&json!("completed"), &json!(201)));
    assert!(
        record["trace_id"].is_string()
            && values(&request, "traceparent")[0].contains(record["trace_id"].as_str().unwrap())
    );

    // What is said of people lies beside the line, and what proves anything is nowhere.
    for file in fs::read_dir(sidecar.ledger()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file())
    {
        let text = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
        assert!(!text.contains(OWN), "{}", file.display());
        let of_lines = file.extension().is_some_and(|extension| extension == "jsonl");
        assert!(!of_lines || !text.contains("\"alice\""), "{}", file.display());
    }
    let metrics = sidecar.metrics();
    let counted = metrics.lines().any(|line| {
        line.starts_with("countersign_decisions_total")
            && line.contains("mode=\"passthrough\"")
            && line.contains("refunds.create")
    });
    assert!(counted, "{metrics}");
}

#[test]
fn a_call_with_a_token_of_ours_goes_the_whole_way_beside_it() {
    let Some(world) = world() else { return };
    let sidecar = passing(world, &json!({}));
    let alice = bearer(&world.openid.delegated("alice"));
    let (answer, marked) = get(&sidecar, ORDER, &[("authorization", &alice)]);
    answer.went(200);
    assert_eq!(values(&received(world, &marked), "authorization"), [bearer(TOOL_SECRET)]);
    let record = sidecar.decided(&answer);
    assert_eq!(
        (&record["mode"], &record["rung"], &record["entry"]),
        (&json!("enforce"), &json!(5), &json!("delegated"))
    );
    assert_eq!(record["user"]["id"], "alice");
}

#[test]
fn a_token_of_ours_that_is_bad_is_refused_and_never_passed_through() {
    let Some(world) = world() else { return };
    let sidecar = passing(world, &json!({}));
    let good = world.openid.delegated("alice");
    let mut parts: Vec<&str> = good.split('.').collect();
    parts[2] = "c2lnbmF0dXJl";
    let forged = parts.join(".");
    let now = jiff::Timestamp::now().as_second();
    let expired = world.openid.sign(&json!({"like": good, "claims": {"iat": now - 300, "exp": now - 60}}));
    let foreign = world.openid.sign(&json!({"like": good, "claims": {"iss": [world.openid.issuer()]}}));
    let elsewhere = world.openid.sign(&json!({"like": good, "claims": {"aud": "urn:example:other"}}));
    let users = world.openid.user("alice");
    let basic = format!("Basic {}", base64::Engine::encode(&base64::prelude::BASE64_STANDARD, format!("x:{good}")));
    for (authorization, status, code) in [
        (bearer(&forged), 401, "invalid_token"),
        (bearer(&expired), 401, "expired"),
        (bearer(&elsewhere), 401, "wrong_audience"),
        (bearer(&foreign), 401, "invalid_token"),
        (bearer(&users), 403, "impersonation"),
        (format!("DPoP {good}"), 401, "no_credential"),
        (format!("Token {good}"), 401, "no_credential"),
        (format!("Bearer  {good} x"), 401, "invalid_token"),
        (basic, 401, "no_credential"),
    ] {
        let (answer, marked) = get(&sidecar, ORDER, &[("authorization", &authorization)]);
        answer.refused(status, code);
        assert!(world.tool.marked(&marked).is_empty(), "{code}: nothing reaches the tool");
    }
}

#[test]
fn a_token_of_ours_does_not_come_to_the_tool_in_another_place() {
    let Some(world) = world() else { return };
    let sidecar = passing(world, &json!({}));
    let good = world.openid.delegated("alice");
    let own = bearer(OWN);
    for (path, name, value) in [
        (ORDER.to_owned(), "x-api-key", good.clone()),
        (ORDER.to_owned(), "x-context", format!("{{\"token\":\"{good}\"}}")),
        (format!("{ORDER}?token={good}"), "x-none", "1".to_owned()),
        (format!("{ORDER}?access_token={OWN}"), "x-none", "1".to_owned()),
    ] {
        let (answer, marked) = get(&sidecar, &path, &[("authorization", &own), (name, &value)]);
        if path.contains("access_token") {
            // What the agent has today is its own, and so is where it puts it.
            answer.went(200);
            continue;
        }
        answer.refused(400, "malformed");
        assert!(world.tool.marked(&marked).is_empty(), "{name}: nothing reaches the tool");
    }
}

#[test]
fn what_the_agent_says_of_itself_and_what_is_for_neighbours_stays_here() {
    let Some(world) = world() else { return };
    let sidecar = passing(world, &json!({}));
    let own = bearer(OWN);
    let kept = [
        ("cookie", "session=of-another-tool"),
        ("txn-token", "forged"),
        ("x-forwarded-user", "root"),
        ("x-remote-user", "root"),
        ("proxy-authorization", "Basic YTpi"),
        ("x-http-method-override", "DELETE"),
        ("countersign-decision-id", "forged"),
        ("x_api_key", "twin"),
        ("x-hop", "1"),
    ];
    let headers =
        [&kept[..], &[("authorization", own.as_str()), ("x-api-key", "key-1"), ("connection", "x-hop")]].concat();
    let (answer, marked) = get(&sidecar, ORDER, &headers);
    // `http::request` says `connection: close` too; both are lists of names.
    answer.went(200);
    let request = received(world, &marked);
    for (name, _) in kept {
        assert!(values(&request, name).is_empty(), "{name}: {request}");
    }
    assert_eq!(values(&request, "x-api-key"), ["key-1"], "a key of the agent's own goes");
    assert_eq!(answer.header("set-cookie"), None);
    let (answer, _) = get(&sidecar, "/orders/v1/cookie", &[("authorization", &own)]);
    answer.went(200);
    assert_eq!(answer.header("set-cookie"), None, "a session is of a host, and all tools share this one");

    for scheme in ["Negotiate YTpi", "NTLM TlRMTVNTUAAB"] {
        let (answer, marked) = get(&sidecar, ORDER, &[("authorization", scheme)]);
        answer.refused(400, "malformed");
        assert!(world.tool.marked(&marked).is_empty(), "a connection that is signed in is nobody else's");
    }
    let (answer, _) = get(&sidecar, ORDER, &[("authorization", &own), ("connection", "authorization")]);
    answer.refused(400, "malformed");
}

#[test]
fn who_shows_nothing_gets_nothing_of_the_sidecars_whatever_the_tool_is_shown_otherwise() {
    let Some(world) = world() else { return };
    for (identity, credential) in [
        ("service_account", json!({"header": {"name": "X-Api-Key", "value": {"file": "tool-credential"}}})),
        ("service_account", json!({"bearer": {"file": "tool-credential"}})),
    ] {
        let sidecar = setup(world, &json!({}))
            .with(|config| {
                config["tools"]["orders"]["credential"] = credential;
                config["tools"]["orders"]["identity"] = json!(identity);
            })
            .start();
        // Over the same connections as one that is admitted, if they were shared.
        let alice = bearer(&world.openid.delegated("alice"));
        get(&sidecar, ORDER, &[("authorization", &alice)]).0.went(200);
        let (answer, marked) = get(&sidecar, ORDER, &[]);
        answer.went(200);
        let request = received(world, &marked);
        assert!(!request.to_string().contains(TOOL_SECRET), "{request}");
        for name in ["authorization", "x-api-key", "txn-token"] {
            assert!(values(&request, name).is_empty(), "{name}: {request}");
        }
        assert_eq!(sidecar.decided(&answer)["passthrough"]["credential"], "none");
    }
}

/// Signs one certificate: the authority's, the certificate and its key, all in PEM.
fn client_certificate() -> [String; 3] {
    let named = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let (key, client) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut params = named("clients");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap().pem();
    let certificate = named("countersign").signed_by(&client, &Issuer::new(params, key)).unwrap().pem();
    [authority, certificate, client.serialize_pem()]
}

#[test]
fn the_sidecars_client_certificate_is_not_shown_for_a_call_that_is_passed_through() {
    let Some(world) = world() else { return };
    let [authority, certificate, key] = client_certificate();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("clients.pem");
    fs::write(&file, authority).unwrap();
    let Some(tool) = Tool::secured(&["--client-ca", file.to_str().unwrap()]) else { return };
    let setup = Setup::new(&world.openid, &tool).with(|config| {
        let orders = &mut config["tools"]["orders"];
        orders["tls"] = json!({"certificate": "client.pem", "key": {"file": "client-key.pem"}});
        orders["passthrough"] = json!({"owner": OWNER, "until": in_days(30)});
    });
    setup.write_secret("client.pem", &certificate);
    setup.write_secret("client-key.pem", &key);
    let sidecar = setup.start();
    let alice = bearer(&world.openid.delegated("alice"));
    get(&sidecar, ORDER, &[("authorization", &alice)]).0.went(200);
    assert_eq!(tool.requests().last().unwrap()["peer"], "countersign");
    let own = bearer(OWN);
    let (answer, marked) = get(&sidecar, ORDER, &[("authorization", &own)]);
    answer.refused(502, "tool_unreachable");
    assert!(
        tool.marked(&marked).is_empty(),
        "the tool serves nobody without a certificate, and this one is not the agent's"
    );
}

#[test]
fn who_sent_it_is_on_record_where_the_connection_proves_it() {
    let Some(world) = world() else { return };
    if !process::is_root() {
        return skipped("the agent's user", "only root can become somebody else");
    }
    const AGENT: u32 = 65_501;
    let setup = setup(world, &json!({})).with(|config| {
        config["listen"]["agent"] =
            json!({"unix": "agent.sock", "mode": "0666", "allow_uids": [AGENT], "bearer": "all"});
    });
    fs::set_permissions(setup.directory(), fs::Permissions::from_mode(0o755)).unwrap();
    let sidecar = setup.start();
    let socket = sidecar.directory().join("agent.sock");
    let mut curl = process::as_user(AGENT, "curl");
    curl.args(["--silent", "--fail", "-H", &format!("Authorization: {}", bearer(OWN)), "--unix-socket"]);
    // Nobody at the other end of a socket can say who they are, but the kernel does.
    process::run(curl.arg(socket).arg("http://localhost/orders/v1/orders/17")).well();
    let [record] = &sidecar.query(&["--kind", "call.decided"])[..] else { panic!("one decision") };
    assert_eq!(record["connection"], json!({"uid": AGENT}));
}

#[test]
fn what_flows_flows_and_is_settled_with_its_bytes() {
    let Some(world) = world() else { return };
    let sidecar = passing(world, &json!({}));
    let body = vec![b'x'; 300_000];
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let marked = mark();
        let upload = Curl::post(sidecar.url("/orders/v1/upload"), "application/octet-stream", body.clone());
        let answer = upload.bearer(OWN).header("X-Mark", &marked).argument(version).send();
        assert!((200..300).contains(&answer.status), "{version}: {}", answer.status);
        assert_eq!(received(world, &marked)["body_bytes"], body.len());
        let settled = sidecar.settled(&answer.decision_id());
        assert_eq!((&settled["outcome"], &settled["request_bytes"]), (&json!("completed"), &json!(body.len())));
    }
    let unreached = Curl::get(sidecar.url("/orders/v1/drop")).bearer(OWN).send();
    assert_eq!(unreached.status, 502, "{}", unreached.text());
    assert_eq!(sidecar.settled(&unreached.decision_id())["outcome"], "tool_unreachable");
}

#[test]
fn what_no_action_is_found_for_goes_only_where_configuration_says_so_and_becomes_a_suggestion() {
    let Some(world) = world() else { return };
    let own = bearer(OWN);
    let headers = [("authorization", own.as_str())];
    let strict = passing(world, &json!({}));
    let (answer, marked) = get(&strict, "/orders/v1/unheard/of", &headers);
    answer.refused(403, "unmapped_action");
    assert!(world.tool.marked(&marked).is_empty());
    get(&strict, "/nowhere/v1", &headers).0.refused(401, "invalid_token");

    let open = passing(world, &json!({"unmapped": "pass"}));
    let (answer, marked) = call(&open, "DELETE", "/orders/v1/unheard/of", &headers, "");
    let request = received(world, &marked);
    assert_eq!((&request["method"], values(&request, "authorization")), (&json!("DELETE"), vec![own.clone()]));
    let record = open.decided(&answer);
    assert_eq!((&record["tool"], &record["action"]), (&json!("orders"), &Value::Null), "{record}");
    assert_eq!((&record["passthrough"]["unmapped"], &record["path"]), (&json!(true), &json!("/orders/v1/unheard/of")));
    let config = open.directory().join("countersign.yaml");
    let report = report(&open, &["unmapped", "--config", config.to_str().unwrap(), "--json"]).well();
    let row: Value = serde_json::from_str(report.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&row["tool"], &row["method"], &row["agents"]),
        (&json!("orders"), &json!("DELETE"), &json!(["support-v1"]))
    );
    // What is mapped has to be what it says: the record is of what the tool is asked.
    let body = json!({"amount": "9.00", "currency": "USD", "hidden": true}).to_string();
    let typed = [headers[0], ("content-type", "application/json")];
    call(&open, "POST", "/orders/v1/orders/17/refunds", &typed, &body).0.refused(400, "malformed");
    for path in ["/orders/v1/../../x", "/orders/v1/a%2Fb", "/orders//v1"] {
        let (answer, marked) = get(&open, path, &headers);
        assert_ne!(answer.status, 200, "{path}");
        assert!(world.tool.marked(&marked).iter().all(|request| !request.to_string().contains("..")), "{path}");
    }
}

fn report(sidecar: &Sidecar, arguments: &[&str]) -> Ran {
    let mut command = process::countersign();
    command.arg("report").args(arguments);
    if !arguments.contains(&"--config") {
        command.arg("--from").arg(sidecar.ledger());
    }
    process::run(&mut command)
}

#[test]
fn an_action_that_climbed_already_needs_a_token_while_the_others_do_not() {
    let Some(world) = world() else { return };
    let sidecar = passing(world, &json!({"except": ["refunds.create"]}));
    let own = bearer(OWN);
    let headers = [("authorization", own.as_str()), ("content-type", "application/json")];
    get(&sidecar, ORDER, &headers).0.went(200);
    let refund = json!({"amount": "9.00", "currency": "USD"}).to_string();
    for path in ["/orders/v1/orders/17/refunds", "/orders/v1/orders/17/refunds/", "/orders/v1/orders/17/Refunds"] {
        let (answer, marked) = call(&sidecar, "POST", path, &headers, &refund);
        assert!(matches!(answer.status, 400..=403), "{path}: {}", answer.status);
        assert!(world.tool.marked(&marked).is_empty(), "{path}: no other name of it goes around the exception");
    }
    let (answer, _) = call(&sidecar, "POST", "/orders/v1/orders/17/refunds", &headers[1..], &refund);
    answer.refused(401, "no_credential");
}

#[test]
fn it_ends_by_itself_and_says_since_when() {
    let Some(world) = world() else { return };
    let until = in_seconds(8);
    let sidecar = passing(world, &json!({"until": until}));
    let own = bearer(OWN);
    let (refused, marked) = eventually("the end of passing through", || {
        let (answer, marked) = get(&sidecar, ORDER, &[("authorization", &own)]);
        (answer.status != 200).then_some((answer, marked))
    });
    refused.refused(401, "no_credential");
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    let until: jiff::Timestamp = until.parse().unwrap();
    assert!(detail.contains(&until.to_string()), "{detail}");
    assert!(refused.header("www-authenticate").is_some() && world.tool.marked(&marked).is_empty());
    let alice = bearer(&world.openid.delegated("alice"));
    get(&sidecar, ORDER, &[("authorization", &alice)]).0.went(200);
}

#[test]
fn an_agent_that_is_suspended_is_not_passed_through_under_its_name() {
    let Some(world) = world() else { return };
    let sidecar = passing(world, &json!({"agent": "retired"}));
    let own = bearer(OWN);
    let (answer, marked) = get(&sidecar, ORDER, &[("authorization", &own)]);
    answer.refused(403, "agent_suspended");
    assert!(world.tool.marked(&marked).is_empty());
}

#[test]
fn what_cannot_be_recorded_is_not_passed_through_either() {
    let Some(world) = world() else { return };
    let mut setup = setup(world, &json!({}));
    setup.file_size_limit = Some(64 << 10);
    let sidecar = setup.start();
    let own = bearer(OWN);
    let refused = eventually("a full disk", || {
        let (answer, marked) = get(&sidecar, ORDER, &[("authorization", &own)]);
        (answer.status != 200).then_some((answer, marked))
    });
    refused.0.refused(503, "ledger_unavailable");
    assert!(world.tool.marked(&refused.1).is_empty(), "no record, no call");
}

#[test]
fn configuration_bounds_the_exception() {
    let Some(world) = world() else { return };
    for (settings, expected) in [
        (json!({"until": in_days(91)}), "90 days"),
        (json!({"owner": ""}), "`owner`"),
        (json!({"except": ["refunds.create"], "unmapped": "pass"}), "`except`"),
        (json!({"user_header": "Authorization"}), "user_header"),
    ] {
        let ran = setup(world, &settings).run();
        assert!(ran.code != Some(0) && ran.stderr.contains(expected), "{settings}: {}", ran.stderr);
    }
}

#[test]
fn such_a_record_is_told_as_what_it_is_wherever_it_is_read() {
    let Some(world) = world() else { return };
    let sidecar = passing(world, &json!({"unmapped": "pass"}));
    let own = bearer(OWN);
    let (answer, _) = get(&sidecar, ORDER, &[("authorization", &own), ("x-acting-user", &"m".repeat(257))]);
    answer.went(200);
    assert_eq!(
        sidecar.decided(&answer)["asserted"],
        json!({"agent": "support-v1"}),
        "what is no name is not on record"
    );
    let (answer, _) = get(&sidecar, ORDER, &[("authorization", &own), ("x-acting-user", "mallory")]);
    answer.went(200);
    let id = answer.decision_id();
    sidecar.settled(&id);

    let line = audit(&sidecar.ledger(), "query", &["--action", "orders.read"]).well();
    assert!(
        line.contains("asserted user:mallory via agent:support-v1") && line.contains("PERMIT (passthrough)"),
        "{line}"
    );
    let nobody = sidecar.query(&["--user", "mallory"]);
    assert!(nobody.is_empty(), "nobody verified that name: {nobody:?}");
    let text = explain(&sidecar.ledger(), &id, &[]).well();
    for words in ["nobody: the call was passed through", "said to be for", "mallory", "nothing was evaluated", OWNER] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
    let json: Value = serde_json::from_str(&explain(&sidecar.ledger(), &id, &["--json"]).well()).unwrap();
    assert_eq!(json["replay"], json!({"rebuilt": false, "passed_through": true}));
    let mut replay = process::countersign();
    replay.args(["policy", "replay", "--json", "--config"]).arg(sidecar.directory().join("countersign.yaml"));
    replay.arg("--from").arg(sidecar.ledger());
    let replayed = process::run(&mut replay);
    assert!(replayed.code == Some(0), "{}", replayed.stderr);
    for format in ["otlp", "ocsf", "opa"] {
        audit(&sidecar.ledger(), "export", &["--format", format]).well();
    }
    audit(&sidecar.ledger(), "verify", &[]).well();
}

#[test]
fn the_rung_is_in_the_status_in_the_change_of_mode_and_in_the_report() {
    let Some(world) = world() else { return };
    let until = in_days(30);
    let sidecar = setup(world, &json!({"until": until}))
        .with(|config| {
            config["listen"]["admin"] = json!({"unix": "admin.sock"});
        })
        .start();
    assert!(sidecar.daemon.output().contains("passes calls without a delegated token through"), "said at each start");
    let [changed] = &sidecar.query(&["--kind", "mode.changed"])[..] else { panic!("one change") };
    assert_eq!(
        (&changed["tool"], &changed["action"], &changed["mode"]),
        (&json!("orders"), &Value::Null, &json!("passthrough"))
    );
    assert_eq!((&changed["rung"], &changed["owner"], &changed["until"]), (&json!(0), &json!(OWNER), &json!(until)));
    let status = process::run(
        process::countersign().args(["health", "--json", "--admin"]).arg(sidecar.directory().join("admin.sock")),
    );
    let status: Value = serde_json::from_str(&status.well()).unwrap();
    let [passed] = &status["catalogue"]["passthrough"].as_array().unwrap()[..] else { panic!("one tool: {status}") };
    assert_eq!((&passed["tool"], &passed["rung"], &passed["ended"]), (&json!("orders"), &json!(0), &json!(false)));

    let (own, alice) = (bearer(OWN), bearer(&world.openid.delegated("alice")));
    for authorization in [&own, &own, &alice] {
        get(&sidecar, ORDER, &[("authorization", authorization)]).0.went(200);
    }
    get(&sidecar, "/orders/v1/orders", &[("authorization", &alice)]).0.went(200);
    let said = report(&sidecar, &["rollout", "--json"]).well();
    let rows: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [list, read] = &rows[..] else { panic!("two actions: {said}") };
    assert_eq!((&list["rung"], &list["passed"]), (&json!(5), &json!(0)), "{said}");
    assert_eq!((&read["rung"], &read["passed"], &read["enforced"]), (&json!(0), &json!(2), &json!(1)), "{said}");
    assert!(report(&sidecar, &["rollout"]).well().contains("PASSED"));
}

#[test]
fn who_is_forgotten_is_forgotten_here_too_by_the_name_that_was_said() {
    let Some(world) = world() else { return };
    let mut sidecar = passing(world, &json!({}));
    let own = bearer(OWN);
    for user in ["mallory", "trent"] {
        get(&sidecar, ORDER, &[("authorization", &own), ("x-acting-user", user)]).0.went(200);
    }
    sidecar.stop();
    let asked = ["--user", "mallory", "--by", "the officer", "--reason", "request 17"];
    audit(&sidecar.ledger(), "erase", &asked).well();
    let lines = audit(&sidecar.ledger(), "query", &["--kind", "call.decided"]).well();
    assert!(!lines.contains("mallory") && lines.contains("user:(erased)") && lines.contains("user:trent"), "{lines}");
    audit(&sidecar.ledger(), "verify", &[]).well();
}
