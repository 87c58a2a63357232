//! The live trace: `countersign trace` on a running sidecar, while agents call.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    process::{Child, Stdio},
};

use serde_json::Value;

use crate::support::{Sidecar, World, eventually, process, sidecar::Setup, world};

/// `countersign trace` that has begun to listen.
struct Listening {
    child: Child,
}

impl Listening {
    fn start(sidecar: &Sidecar, arguments: &[&str]) -> Self {
        let mut child = process::countersign()
            .args(["trace", "--timeout", "60s", "--config"])
            .arg(sidecar.directory().join("countersign.yaml"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut complaints = BufReader::new(child.stderr.take().unwrap());
        complaints.read_line(&mut said).unwrap();
        assert_eq!(said, "waiting for calls\n");
        // What it says later nobody waits for.
        child.stderr = Some(complaints.into_inner());
        Self { child }
    }

    /// Everything that it said, once it has ended well.
    fn end(mut self) -> String {
        let mut text = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {text}");
        text
    }
}

fn events(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn socket(sidecar: &Sidecar) -> std::path::PathBuf {
    let mut found = std::fs::read_dir(sidecar.directory()).unwrap().map(|entry| entry.unwrap().path());
    found.find(|path| path.extension().is_some_and(|extension| extension == "sock")).unwrap()
}

fn sidecar(world: &World) -> Sidecar {
    Setup::new(&world.openid, &world.tool).start()
}

#[test]
fn the_next_call_is_shown_stage_by_stage_and_without_its_token() {
    let Some(world) = world() else { return };
    let sidecar = sidecar(world);
    let listening = Listening::start(&sidecar, &["--json"]);
    let alice = world.openid.delegated("alice");
    let answer = sidecar.refund("17", &alice, r#"{"amount":"20.00","currency":"USD","reason":"s3cret-reason"}"#).send();
    let text = listening.end();
    let events = events(&text);
    assert!(events.iter().all(|event| event["decision_id"] == answer.decision_id()), "{text}");
    let stages: Vec<_> = events.iter().filter_map(|event| event["stage"].as_str()).collect();
    let all = ["accept", "admit", "resolve", "guard", "facts", "decide", "approve", "reserve", "credential", "record"];
    assert_eq!(stages, all, "{text}");
    let of = |stage: &str| events.iter().find(|event| event["stage"] == stage).unwrap();
    assert_eq!(of("accept")["method"], "POST");
    assert!(of("admit")["user"].as_str().unwrap().contains("alice"), "{text}");
    assert_eq!(of("resolve")["action"], "refunds.create");
    assert_eq!(of("decide")["resource"], "orders/17");
    let decided = events.iter().find(|event| event["event"] == "decided").unwrap();
    assert_eq!((&decided["decision"], &decided["reasons"][0]["code"]), (&"permit".into(), &"covered".into()));
    let settled = events.last().unwrap();
    assert_eq!((&settled["event"], &settled["outcome"]), (&"settled".into(), &"completed".into()), "{text}");
    for secret in [alice.as_str(), crate::support::sidecar::TOOL_SECRET, "s3cret-reason"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[test]
fn only_calls_that_match_are_shown_and_so_many_as_were_asked_for() {
    let Some(world) = world() else { return };
    let sidecar = sidecar(world);
    let (alice, bob) = (world.openid.delegated("alice"), world.openid.delegated("bob"));
    let refund = |token: &str, order: &str| {
        sidecar.refund(order, token, r#"{"amount":"20.00","currency":"USD"}"#).send().decision_id()
    };
    let of_alice = Listening::start(&sidecar, &["--json", "--user", "alice", "-n", "2"]);
    let denied = Listening::start(&sidecar, &["--code", "policy_denied"]);
    let nobody = Listening::start(&sidecar, &["--action", "orders.list", "--json"]);
    refund(&bob, "21");
    let first = refund(&alice, "17");
    sidecar.get("/orders/v1/orders/17", "not a token").send();
    let second = refund(&alice, "18");
    refund(&alice, "17");
    let text = of_alice.end();
    let ids: std::collections::BTreeSet<_> =
        events(&text).iter().map(|event| event["decision_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, [first, second.clone()].into(), "{text}");
    let text = denied.end();
    assert!(text.starts_with(&format!("{second}\n  accept")), "{text}");
    assert!(
        text.contains("DENY policy_denied: order_on_hold by countersign.teams.support: Order 18 is on hold."),
        "{text}"
    );
    assert!(!text.contains("hold 4711"), "what only the record holds: {text}");
    let list = sidecar.get("/orders/v1/orders", &alice).send().decision_id();
    let text = nobody.end();
    assert!(events(&text).iter().all(|event| event["decision_id"] == list.as_str()), "{text}");
}

#[test]
fn who_waits_in_vain_or_asks_for_nonsense_is_told() {
    let Some(world) = world() else { return };
    let sidecar = sidecar(world);
    let admin = socket(&sidecar);
    let trace = |arguments: &[&str]| process::run(process::countersign().arg("trace").args(arguments));
    let admin = admin.to_str().unwrap();
    let waited = trace(&["--admin", admin, "--timeout", "1s"]);
    assert_eq!(waited.code, Some(1), "{waited:?}");
    assert!(waited.stderr.contains("no call that matches came"), "{waited:?}");
    assert_eq!(trace(&["--admin", "/nowhere.sock"]).code, Some(69));
    assert_eq!(trace(&[]).code, Some(2));
    assert_eq!(trace(&["--admin", admin, "-n", "0"]).code, Some(2));
    let mut connection = UnixStream::connect(admin).unwrap();
    connection.write_all(b"GET /trace?acton=x HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 400") && answer.contains("acton"), "{answer}");
}

#[test]
fn who_does_not_read_holds_up_no_call_and_a_ninth_listener_is_turned_away() {
    let Some(world) = world() else { return };
    let mut sidecar = sidecar(world);
    let listen = |sidecar: &Sidecar| {
        let mut connection = UnixStream::connect(socket(sidecar)).unwrap();
        connection.write_all(b"GET /trace?calls=10000 HTTP/1.0\r\n\r\n").unwrap();
        let mut reader = BufReader::new(connection);
        let mut head = String::new();
        reader.read_line(&mut head).unwrap();
        (head, reader)
    };
    let listening: Vec<_> = (0..8).map(|_| listen(&sidecar)).collect();
    assert!(listening.iter().all(|(head, _)| head.contains("200")));
    assert!(listen(&sidecar).0.contains("503"));
    let alice = world.openid.delegated("alice");
    let authorization = format!("Bearer {alice}");
    let headers = [("Authorization", authorization.as_str())];
    // More than all queues and the socket's own room hold: each call is some two kilobytes.
    let mut statuses = std::collections::BTreeSet::new();
    for _ in 0..600 {
        statuses.insert(sidecar.plain_get("/orders/v1/orders/17", &headers).status);
    }
    assert_eq!(statuses, [200].into());
    let mut said = String::new();
    let (_, mut reader) = listening.into_iter().next().unwrap();
    reader.get_ref().set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    reader.read_to_string(&mut said).unwrap();
    assert_eq!(said.lines().last(), Some(r#"{"event":"dropped","why":"it was read too slowly"}"#));
    // Who was dropped, or went away, makes room.
    eventually("room for another", || listen(&sidecar).0.contains("200").then_some(()));
    sidecar.stop();
}
