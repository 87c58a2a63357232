//! Policy at the authority, in the real binary: what it says before a token is issued, that it is tried before it decides,
//! and that whoever is to know of alerts is told.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
};

use aws_lc_rs::hmac;
use serde_json::{Value, json};

use crate::support::{
    authority::{Authority, Client},
    eventually, free_port, http,
    openid::{AUDIENCE, OpenId, claims},
    process,
    sidecar::{Setup, audit},
    webhook::taken,
    world,
};

/// What the platform team says of issuing, in the folder of an authority's configuration.
fn org(directory: &Path, config: &mut Value, body: &str) {
    let folder = directory.join("policies");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("org.rego"), format!("package countersign.org\n\n{body}\n")).unwrap();
    config["authority"]["policy"] = json!([{ "name": "org", "path": "policies" }]);
}

/// An authority at which users hand on everything, and agents what reads orders.
fn users_give_all_and_agents_reading(openid: &OpenId, agent: &Client, other: &Client) -> Authority {
    Authority::start_with(openid, &[agent, other], |directory, config| {
        org(
            directory,
            config,
            r#"delegate contains {"code": "by_the_user"} if input.exchange.from.kind == "user"
            delegate contains {"code": "reads_only"} if {
                every action in input.exchange.requested.scope { action == "orders.read" }
            }"#,
        );
    })
}

#[test]
fn a_token_is_issued_as_far_as_policy_says_and_the_record_says_by_which() {
    let Some(world) = world() else { return };
    let (agent, other) = (Client::new("support-v9"), Client::new("helper-v1"));
    let authority = users_give_all_and_agents_reading(&world.openid, &agent, &other);
    let token = authority.first(&agent, &world.openid);
    assert!(claims(&token)["scope"].as_str().unwrap().contains("refunds.create"));
    let hand_over = |more: &[(&str, &str)]| {
        let fields = [&[("requested_actor", "helper-v1")], more].concat();
        authority.exchange(&agent, &token, &fields)
    };
    let refused = hand_over(&[]);
    assert_eq!((refused.status, &refused.json()["error"]), (400, &json!("access_denied")), "{}", refused.text());
    hand_over(&[("scope", "orders.read")]).went(200);
    let records =
        |kind: &str| audit(&authority.directory().join("ledger"), "query", &["--kind", kind, "--json"]).lines();
    let revision = records("policy.activated")[0]["revision"].clone();
    let issued = records("token.issued");
    assert_eq!(issued[0]["reasons"][0]["code"], "by_the_user", "{}", issued[0]);
    assert_eq!(issued[1]["reasons"][0]["code"], "reads_only", "{}", issued[1]);
    assert_eq!((&issued[0]["policy"], issued.len()), (&revision, 2));
    let refused = &records("token.refused")[0];
    assert_eq!((&refused["policy"], &refused["withheld"][0]["source"]), (&revision, &json!("countersign.org")));
}

/// The authority's configuration with a line for each of its sections, as a person writes it.
fn written(authority: &Authority) -> PathBuf {
    let text = fs::read_to_string(authority.directory().join("authority.yaml")).unwrap();
    let sections: Value = serde_json::from_str(&text).unwrap();
    let lines: Vec<String> =
        sections.as_object().unwrap().iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    let path = authority.directory().join("written.yaml");
    fs::write(&path, lines.concat()).unwrap();
    path
}

/// `countersign policy replay` of the authority's ledger: by the platform team's `body`, or by what its configuration names.
fn replayed(authority: &Authority, body: Option<&str>, arguments: &[&str]) -> process::Ran {
    let mut command = process::countersign();
    command.args(["policy", "replay"]);
    match body {
        Some(body) => {
            let folder = authority.directory().join("candidate");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("org.rego"), format!("package countersign.org\n\n{body}\n")).unwrap();
            command.arg(format!("org={}", folder.display())).arg("--from").arg(authority.directory().join("ledger"));
        }
        None => drop(command.arg("--config").arg(written(authority))),
    }
    process::run(command.args(arguments))
}

#[test]
fn tokens_are_asked_for_again_under_a_candidate_and_each_explains_itself() {
    let Some(world) = world() else { return };
    let (agent, other) = (Client::new("support-v9"), Client::new("helper-v1"));
    let authority = users_give_all_and_agents_reading(&world.openid, &agent, &other);
    let token = authority.first(&agent, &world.openid);
    let hand_over = |more: &[(&str, &str)]| {
        let fields = [&[("requested_actor", "helper-v1")], more].concat();
        authority.exchange(&agent, &token, &fields)
    };
    assert_eq!(hand_over(&[]).status, 400);
    hand_over(&[("scope", "orders.read")]).went(200);
    // Refused before policy was asked.
    assert_eq!(authority.exchange(&other, &token, &[]).status, 400);
    let ledger = authority.directory().join("ledger");
    let report = |ran: process::Ran| -> Value { serde_json::from_str(ran.stdout.trim()).unwrap() };

    let same = replayed(&authority, None, &["--json", "--fail-on", "any-change", "--fail-on", "not-replayable"]);
    assert_eq!(same.code, Some(0), "{same:?}");
    let same = report(same);
    assert_eq!((&same["about"], &same["compared"], &same["unchanged"]), (&json!("token"), &json!(3), &json!(3)));
    assert_eq!(same["elsewhere"], json!({"exchange": 1}), "{same:#}");

    // Whoever hands on may, and users may not.
    let body = r#"delegate contains {"code": "agents_only", "message": "Agents among themselves."} if {
        input.exchange.from.kind == "agent"
    }"#;
    let ran = replayed(&authority, Some(body), &["--json", "--fail-on", "new-denials:refunds.create"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let found = report(ran);
    assert_eq!(found["failed_on"], json!(["new-denials:refunds.create: 1"]), "{found:#}");
    let of = |change: &str| -> Vec<&Value> {
        let changes = found["changes"].as_array().unwrap().iter();
        changes.filter(|one| one["change"] == change && one["action"] == "refunds.create").collect()
    };
    let [denial] = &of("new_denial")[..] else { panic!("{found:#}") };
    assert_eq!(denial["then"]["rules"][0]["code"], "by_the_user", "{denial:#}");
    assert!(denial["people"]["counts"].as_object().unwrap().keys().all(|name| name.contains("alice")), "{denial:#}");
    assert_eq!(denial["agents"]["counts"], json!({"agent:support-v9": 1}));
    assert_eq!(denial["examples"][0]["decision_id"], claims(&token)["jti"]);
    let [permit] = &of("new_permit")[..] else { panic!("{found:#}") };
    assert_eq!(permit["agents"]["counts"], json!({"agent:helper-v1": 1}), "{permit:#}");
    let refused = permit["examples"][0]["decision_id"].as_str().unwrap();
    let misspelt = replayed(&authority, Some(body), &["--fail-on", "new-denials:refund.create"]);
    assert_eq!(misspelt.code, Some(1), "a pipeline that could never fail: {misspelt:?}");
    assert!(misspelt.stdout.contains("no token was asked for again for `refund.create`"), "{misspelt:?}");
    assert!(misspelt.stdout.contains("NEW DENIAL  refunds.create at orders, 1 token"), "{misspelt:?}");

    explain_themselves(&authority, claims(&token)["jti"].as_str().unwrap(), refused);
    audit(&ledger, "verify", &[]).well();
}

/// Each of the two is explained by the authority's ledger and its configuration alone.
fn explain_themselves(authority: &Authority, issued: &str, refused: &str) {
    let config = written(authority);
    let explain = |id: &str, more: &[&str]| {
        let mut command = process::countersign();
        command.args(["explain", id, "--config"]).arg(&config).args(more);
        process::run(&mut command).well()
    };
    let text = explain(issued, &[]);
    assert!(text.contains("ISSUED") && text.contains("by the same policy: the same"), "{text}");
    assert!(text.contains("true               countersign.org.delegate by_the_user"), "{text}");
    assert!(text.contains("not true           countersign.org.delegate reads_only"), "{text}");
    let text = explain(refused, &[]);
    assert!(text.contains("REFUSED") && text.contains("access_denied") && text.contains("the same"), "{text}");
    let told: Value = serde_json::from_str(explain(refused, &["--json"]).trim()).unwrap();
    assert_eq!((&told["replay"]["again"]["same"], &told["kind"]), (&json!(true), &json!("token.refused")), "{told:#}");
}

#[test]
fn a_policy_that_may_not_decide_is_named_with_its_place_and_nothing_starts() {
    let Some(world) = world() else { return };
    let agent = Client::new("support-v9");
    let authority = Authority::start(&world.openid, &[&agent]);
    let path = authority.directory().join("authority.yaml");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    for (body, said) in [
        ("delegate contains {\"code\": \"x\"} if delegate", "recursion"),
        ("delegate := true", "`delegate` is a set of objects"),
        ("allow contains {\"code\": \"x\"}", "never allows"),
    ] {
        fs::remove_dir_all(authority.directory().join("policies")).ok();
        org(&authority.directory(), &mut config, body);
        fs::write(&path, config.to_string()).unwrap();
        let ran = process::run(process::countersign().args(["authority", "--config"]).arg(&path));
        let told = ran.stderr;
        assert!(ran.code != Some(0) && told.contains(said) && told.contains("org.rego:3"), "{body}: {told}");
    }
}

/// Takes one request and answers it; its head and its body.
fn take(listener: &TcpListener, status: &str) -> (String, Vec<u8>) {
    let (mut stream, _) = listener.accept().unwrap();
    let (head, body) = taken(&stream);
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
    (head, body)
}

#[test]
fn a_webhook_is_told_of_an_alert_signed_and_again_where_it_failed() {
    let Some(world) = world() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/alerts", listener.local_addr().unwrap());
    let setup = Setup::new(&world.openid, &world.tool);
    setup.write_secret("webhook.secret", "whsec");
    let sidecar = setup
        .with(|config| config["alerts"] = json!({"webhook": {"url": url, "secret": {"file": "webhook.secret"}}}))
        .start();
    let bound = json!({"x5t#S256": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"});
    let bound = world.openid.sign(&json!({"like": world.openid.delegated("alice"), "claims": {"cnf": bound}}));
    // No call waits for whoever is told.
    sidecar.get("/orders/v1/orders/17", &bound).send().refused(401, "wrong_sender");
    let (_, first) = take(&listener, "503 Service Unavailable");
    let (head, body) = take(&listener, "204 No Content");
    assert_eq!(first, body, "it was not told again");
    let alert: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&alert["kind"], &alert["alert"]), (&json!("alert.raised"), &json!("used_by_another")), "{alert}");
    assert!(
        alert["time"].is_string() && alert.get("user").is_none() && !alert.to_string().contains("alice"),
        "{alert}"
    );
    let signature = head.lines().find_map(|line| line.strip_prefix("countersign-signature: ")).unwrap();
    let (time, signed) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let message = [format!("{time}.").as_bytes(), &body].concat();
    let expected = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"whsec"), &message);
    let expected: String = expected.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(signed, expected);
    assert_eq!(sidecar.query(&["--kind", "alert.raised"]).len(), 1);
    // What is no secret and what is no place to tell anything are refused when it starts.
    for (url, secret) in [("http://alerts.example/", "webhook.secret"), (url.as_str(), "missing")] {
        let setup = Setup::new(&world.openid, &world.tool);
        setup.write_secret("webhook.secret", "whsec");
        let wrong = json!({"webhook": {"url": url, "secret": {"file": secret}}});
        let ran = setup.with(|config| config["alerts"] = wrong).run();
        assert!(ran.code != Some(0) && ran.stderr.contains("alerts.webhook"), "{}", ran.stderr);
    }
}

#[test]
fn a_policy_that_fails_lets_nothing_be_issued_and_says_no_more_than_its_name() {
    let Some(world) = world() else { return };
    let agent = Client::new("support-v9");
    let authority = Authority::start_with(&world.openid, &[&agent], |directory, config| {
        org(directory, config, r#"delegate contains {"code": "x"} if time.parse_rfc3339_ns(input.tenant) > 0"#);
    });
    // An error is a no, and the agent is told which package, not what went wrong in it.
    let answer =
        authority.exchange(&agent, &world.openid.user("alice"), &[("task_id", "ticket-1"), ("audience", AUDIENCE)]);
    assert_eq!(answer.json()["error"], "access_denied");
    let told = answer.text();
    assert!(told.contains("countersign.org: policy_error"), "{told}");
    assert!(!told.contains("parse_rfc3339"), "{told}");
}

#[test]
fn policy_that_changes_decides_without_a_restart_and_one_that_may_not_leaves_the_last_good_one() {
    let Some(world) = world() else { return };
    let agent = Client::new("support-v9");
    let reads = r#"delegate contains {"code": "reads_only"} if {
        every action in input.exchange.requested.scope { action == "orders.read" }
    }"#;
    let all = r#"delegate contains {"code": "all"} if input.exchange.requested"#;
    let health = free_port();
    let authority = Authority::start_with(&world.openid, &[&agent], |directory, config| {
        org(directory, config, all);
        config["listen"]["health"] = json!({ "tcp": format!("127.0.0.1:{health}") });
    });
    let file = authority.directory().join("policies/org.rego");
    let write = |body: &str| fs::write(&file, format!("package countersign.org\n\n{body}\n")).unwrap();
    let user = world.openid.user("alice");
    let asked = [("task_id", "ticket-1"), ("audience", AUDIENCE)];
    let issues = || authority.exchange(&agent, &user, &asked).status;
    let on_disk = || http::request(health, "GET", "/readyz", &[], b"").json()["checks"]["policy"]["on_disk"].clone();
    assert_eq!((issues(), on_disk()), (200, json!("in_force")));

    write(reads);
    eventually("the new policy to decide", || (issues() == 400).then_some(()));
    // Broken, and good again by what it says.
    write("delegate contains {");
    eventually("it to be refused", || (on_disk() == "refused").then_some(()));
    assert_eq!(issues(), 400, "the last good one decides");
    let metrics = http::request(health, "GET", "/metrics", &[], b"").text();
    assert!(metrics.contains("countersign_reload_refused") && metrics.contains("outcome=\"refused\""), "{metrics}");
    write(all);
    authority.daemon.signal("HUP");
    eventually("the last policy to decide", || (issues() == 200).then_some(()));
    assert_eq!(on_disk(), "in_force");
    let records =
        audit(&authority.directory().join("ledger"), "query", &["--kind", "policy.activated", "--json"]).lines();
    assert_eq!(records.len(), 3, "{records:?}");
    assert!(records[0]["revision"] == records[2]["revision"] && records[0]["revision"] != records[1]["revision"]);
}
