//! P5: what is withdrawn at the authority is refused at every sidecar that follows it, within the bound, whatever the
//! network and the authority do meanwhile; and what is under way is ended.

mod fleet;
pub(crate) mod planes;

use std::{
    io::Read,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

use crate::support::{
    Answer, Sidecar, World,
    changes::{Behaviour, Changes},
    eventually, http, mark, process,
    sidecar::Setup,
    world,
};

/// Where a number is given, latencies are measured with so many followers and printed.
const FOLLOWERS: &str = "COUNTERSIGN_TEST_FOLLOWERS";

/// A sidecar that is to follow `changes`.
fn follower(world: &World, changes: &Changes, read: &str, write: &str) -> Setup {
    let setup = Setup::new(&world.openid, &world.tool).with(|config| {
        config["authority"] = json!({
            "url": changes.url(),
            "credential": {"key": "sidecar.pem", "id": "sidecar-1"},
            "staleness": {"read": read, "write": write},
        });
        config["issuers"][0]["withdrawals"] = json!("changes");
    });
    let document = Ed25519KeyPair::generate_pkcs8v1(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
    let pem =
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(document.as_ref()));
    setup.write_secret("sidecar.pem", &pem);
    setup
}

/// A token for alice's task, issued when `changes` was where it is.
fn token(world: &World, changes: &Changes, task: &str) -> String {
    world.openid.sign(&json!({"like": world.probe(), "claims": {"task_id": task, "pos": changes.head()}}))
}

fn task(id: &str) -> Value {
    json!({"kind": "task", "id": id})
}

fn read(sidecar: &Sidecar, token: &str) -> Answer {
    sidecar.plain_get("/orders/v1/status/200", &[("authorization", &format!("Bearer {token}"))])
}

fn write(sidecar: &Sidecar, token: &str) -> Answer {
    let headers = [("authorization", &*format!("Bearer {token}")), ("content-type", "text/plain")];
    http::request(sidecar.port(), "POST", "/orders/v1/upload", &headers, b"x")
}

fn staleness(sidecar: &Sidecar) -> f64 {
    let metrics = sidecar.metrics();
    let line = metrics.lines().find_map(|line| line.strip_prefix("countersign_authority_staleness_seconds "));
    line.unwrap_or_else(|| panic!("no staleness in {metrics}")).parse().unwrap()
}

fn status(sidecar: &Sidecar) -> Value {
    let socket = sidecar.directory().join("admin.sock");
    let ran = process::run(process::countersign().args(["health", "--json", "--admin"]).arg(socket));
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.stderr))
}

#[test]
fn what_is_withdrawn_is_refused_at_every_sidecar_that_follows() {
    let Some(world) = world() else { return };
    let changes = Changes::start();
    let sidecars: Vec<Sidecar> = (0..3).map(|_| follower(world, &changes, "60s", "30s").start()).collect();
    let (ended, other) = (token(world, &changes, "ended"), token(world, &changes, "other"));
    for sidecar in &sidecars {
        read(sidecar, &ended).went(200);
        write(sidecar, &ended).went(200);
    }
    changes.withdraw(&task("ended"), "ended");
    for sidecar in &sidecars {
        eventually("the task to be known as ended", || (read(sidecar, &ended).status == 403).then_some(()));
        read(sidecar, &ended).refused(403, "task_ended");
        read(sidecar, &other).went(200);
    }
    changes.withdraw(&json!({"kind": "tenant", "id": "acme"}), "withdrawn");
    let renewed = token(world, &changes, "ended");
    for sidecar in &sidecars {
        eventually("the tenant to be known as withdrawn", || (read(sidecar, &other).status == 401).then_some(()));
        write(sidecar, &other).refused(401, "withdrawn");
        // What is issued afterwards is the authority's decision.
        read(sidecar, &renewed).went(200);
    }
    // Somebody gets to know who tried.
    let alerts = sidecars[0].query(&["--kind", "alert.raised"]);
    assert!(alerts.iter().any(|alert| alert["alert"] == "used_after_end" && alert["task_id"] == "ended"), "{alerts:?}");
    let metrics = sidecars[0].metrics();
    assert!(metrics.contains("countersign_used_after_end_total{code=\"task_ended\""), "{metrics}");
    assert!(metrics.contains("countersign_withdrawals_applied_total{kind=\"tenant\""), "{metrics}");
    let status = status(&sidecars[0]);
    let authority = &status["authority"];
    assert_eq!((&authority["url"], &authority["generation"]), (&json!(changes.url()), &json!("first")));
    assert_eq!((&authority["position"], &authority["withdrawals"]), (&json!(changes.head()), &json!(2)));
}

#[test]
fn a_sidecar_shows_who_it_is_with_the_key_it_enrolled() {
    let Some(world) = world() else { return };
    let changes = Changes::start();
    let sidecar = follower(world, &changes, "60s", "30s").start();
    let question = changes.questions().pop().unwrap();
    let parts: Vec<&str> = question.credential.split('.').collect();
    let [head, claims, signature] = parts.as_slice() else { panic!("{question:?}") };
    let json = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    let (head_json, said) = (json(head), json(claims));
    assert_eq!(head_json["typ"], "countersign-sidecar+jwt");
    let name = format!("{}/sidecars/sidecar-1", changes.url());
    assert_eq!((&said["iss"], &said["sub"], &said["aud"]), (&json!(name), &json!(name), &json!(changes.url())));
    assert!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap() <= 60);
    let public = public_key(&sidecar.directory().join("sidecar.pem"));
    let public = aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, public);
    let signed = format!("{head}.{claims}");
    public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
}

fn public_key(path: &Path) -> Vec<u8> {
    let pem = std::fs::read_to_string(path).unwrap();
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    Ed25519KeyPair::from_pkcs8(&STANDARD.decode(base64).unwrap()).unwrap().public_key().as_ref().to_vec()
}

#[test]
fn nothing_is_served_until_the_sidecar_has_caught_up() {
    let Some(world) = world() else { return };
    let changes = Changes::start();
    let token = token(world, &changes, "t");
    for number in 0..30 {
        changes.withdraw(&task(&format!("t{number}")), "ended");
    }
    // One at a time, so that catching up is many answers.
    changes.page(1);
    changes.behave(Behaviour::Gone);
    let mut sidecar = follower(world, &changes, "60s", "30s").start_unready();
    eventually("it to listen", || std::net::TcpStream::connect(("127.0.0.1", sidecar.health_port())).ok());
    eventually("it to ask", || (read(&sidecar, &token).status == 503).then_some(()));
    read(&sidecar, &token).refused(503, "authority_stale");
    assert!(!sidecar.is_ready());
    assert!(http::get(sidecar.health_port(), "/readyz").text().contains("\"authority\":{\"ok\":false}"));
    changes.behave(Behaviour::Well);
    sidecar.until_ready();
    read(&sidecar, &token).went(200);
    read(&sidecar, &world.openid.sign(&json!({"like": token, "claims": {"task_id": "t29"}})))
        .refused(403, "task_ended");
    let asked: Vec<u64> =
        changes.questions().iter().map(|question| question.after).filter(|after| *after > 0).collect();
    assert!(asked.is_sorted() && asked.contains(&2) && asked.contains(&30), "each page begins where the last ended");
}

/// Calls until the view is older than `bound` seconds: each call before that goes, each after it is refused.
fn until_refused(sidecar: &Sidecar, bound: f64, call: impl Fn() -> Answer) {
    eventually("calls to be refused", || {
        let before = staleness(sidecar);
        let answer = call();
        let after = staleness(sidecar);
        match answer.status {
            200 => assert!(before <= bound, "served {before} s after the last word"),
            _ => {
                answer.refused(503, "authority_stale");
                assert!(after > bound, "refused {after} s after the last word, and {bound} are allowed");
                return Some(());
            }
        }
        None
    });
}

#[test]
fn without_the_authority_writes_are_refused_after_their_bound_and_reads_after_theirs() {
    let Some(world) = world() else { return };
    let changes = Changes::start();
    let sidecar = follower(world, &changes, "6s", "2s").start();
    let token = token(world, &changes, "t");
    write(&sidecar, &token).went(200);
    for behaviour in [Behaviour::Gone, Behaviour::Silent] {
        changes.behave(behaviour);
        until_refused(&sidecar, 2.0, || write(&sidecar, &token));
        until_refused(&sidecar, 6.0, || read(&sidecar, &token));
        assert!(sidecar.is_ready(), "one outage does not take every sidecar out of service");
        assert!(status(&sidecar)["authority"]["last_error"].is_string());
        changes.withdraw(&task("meanwhile"), "withdrawn");
        changes.behave(Behaviour::Well);
        eventually("it to recover by itself", || (write(&sidecar, &token).status == 200).then_some(()));
        read(&sidecar, &world.openid.sign(&json!({"like": token, "claims": {"task_id": "meanwhile"}})))
            .refused(401, "withdrawn");
        assert!(status(&sidecar)["authority"]["last_error"].is_null());
    }
}

#[test]
fn an_authority_that_says_nonsense_is_not_heard_and_takes_nothing_back() {
    let Some(world) = world() else { return };
    let changes = Changes::start();
    let sidecar = follower(world, &changes, "60s", "1s").start();
    let token = token(world, &changes, "t");
    changes.withdraw(&task("t"), "withdrawn");
    eventually("the withdrawal", || (read(&sidecar, &token).status == 401).then_some(()));
    let other = self::token(world, &changes, "other");
    let empty =
        json!({"generation": "first", "began": "2020-01-01T00:00:00Z", "head": 1, "changes": [], "more": false});
    let unknown = json!({"generation": "first", "began": "2020-01-01T00:00:00Z", "head": 9, "more": false,
        "changes": [{"position": 9, "withdrawal": {"id": "w", "target": {"kind": "galaxy", "id": "x"}, "position": 9,
            "at": "2026-01-01T00:00:00Z", "by": "x", "reason": null, "until": "2200-01-01T00:00:00Z"}}]});
    for (status_code, body) in [
        (401, "{}".to_owned()),
        (503, String::new()),
        (302, String::new()),
        (200, "{}".to_owned()),
        (200, "nonsense".to_owned()),
        (200, empty.to_string()),
        (200, unknown.to_string()),
        (200, " ".repeat(9 * 1024 * 1024)),
    ] {
        changes.behave(Behaviour::With(status_code, body.clone()));
        eventually("the view to grow old", || (write(&sidecar, &other).status == 503).then_some(()));
        read(&sidecar, &token).refused(401, "withdrawn");
        let error = status(&sidecar)["authority"]["last_error"].clone();
        assert!(error.is_string(), "{status_code} {}: {error}", &body[..body.len().min(80)]);
        changes.behave(Behaviour::Well);
        eventually("it to be heard again", || (write(&sidecar, &other).status == 200).then_some(()));
    }
}

#[test]
fn a_restored_authority_un_withdraws_nothing_and_earlier_positions_are_believed_of_nobody() {
    let Some(world) = world() else { return };
    let changes = Changes::start();
    let sidecar = follower(world, &changes, "60s", "1s").start();
    let before = changes.head();
    let token = token(world, &changes, "t");
    changes.withdraw(&task("t"), "withdrawn");
    let other = self::token(world, &changes, "other");
    eventually("the withdrawal", || (read(&sidecar, &token).status == 401).then_some(()));
    // Restored, and nobody said so: what it says is not taken.
    changes.restore(before, "first");
    eventually("the view to grow old", || (write(&sidecar, &other).status == 503).then_some(()));
    read(&sidecar, &token).refused(401, "withdrawn");
    let error = status(&sidecar)["authority"]["last_error"].clone();
    assert!(error.as_str().is_some_and(|error| error.contains("position")), "{error}");
    // Said so: followed again, and the task stays withdrawn for whatever is issued for it.
    changes.restore(before, "second");
    eventually("the new generation", || (write(&sidecar, &other).status == 200).then_some(()));
    let renewed = world.openid.sign(&json!({"like": token, "claims": {"pos": 1_000_000}}));
    read(&sidecar, &renewed).refused(401, "withdrawn");
    assert_eq!(status(&sidecar)["authority"]["generation"], "second");
}

#[test]
fn a_call_that_streams_is_cut_when_it_is_withdrawn() {
    let Some(world) = world() else { return };
    let changes = Changes::start();
    let sidecar = follower(world, &changes, "60s", "30s").start();
    let (cut, left) = (token(world, &changes, "cut"), token(world, &changes, "left"));
    let streaming = |token: &str, mark: &str| {
        let call = sidecar.get("/orders/v1/stream?count=100000&every=50", token).header("X-Mark", mark);
        let mut child =
            call.argument("--include").argument("--no-buffer").command().stdin(Stdio::null()).spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        let mut head = vec![0; 4096];
        let mut text = String::new();
        while !text.contains("\r\n\r\n") {
            let read = output.read(&mut head).unwrap();
            assert!(read > 0, "{text}");
            text.push_str(&String::from_utf8_lossy(&head[..read]));
        }
        let id = text
            .to_lowercase()
            .split_once("countersign-decision-id: ")
            .unwrap()
            .1
            .split('\r')
            .next()
            .unwrap()
            .to_owned();
        (child, output, id)
    };
    let (mark_cut, mark_left) = (mark(), mark());
    let (mut child, _output, id) = streaming(&cut, &mark_cut);
    let (mut untouched, _flows, _) = streaming(&left, &mark_left);
    changes.withdraw(&task("cut"), "withdrawn");
    let status = eventually("the stream to end", || child.try_wait().unwrap());
    assert!(!status.success(), "the agent can tell that the answer is not whole");
    let settled = sidecar.settled(&id);
    assert_eq!((&settled["outcome"], &settled["code"]), (&json!("cut"), &json!("withdrawn")));
    assert!(untouched.try_wait().unwrap().is_none(), "another task's stream flows on");
    untouched.kill().unwrap();
    untouched.wait().unwrap();
}

/// From the moment an answer left the authority until a call is refused, with several followers: printed, not judged.
#[test]
fn how_long_a_withdrawal_takes_is_measured() {
    let Some(followers) = std::env::var(FOLLOWERS).ok().and_then(|text| text.parse::<usize>().ok()) else { return };
    let Some(world) = world() else { return };
    let changes = Changes::start();
    let sidecars: Vec<Sidecar> = (0..followers).map(|_| follower(world, &changes, "60s", "5s").start()).collect();
    let mut took = Vec::new();
    for round in 0..200 {
        let name = format!("round-{round}");
        let token = token(world, &changes, &name);
        let sidecar = &sidecars[round % followers];
        read(sidecar, &token).went(200);
        std::thread::sleep(Duration::from_millis(20));
        let port = sidecar.port();
        let call = format!(
            "GET /orders/v1/status/200 HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        let began = Instant::now();
        changes.withdraw(&task(&name), "withdrawn");
        // One that was under way at the moment is broken off without an answer.
        while http::raw(port, call.as_bytes()).starts_with(b"HTTP/1.1 200") {}
        took.push(began.elapsed());
    }
    took.sort();
    let at = |share: usize| took[(took.len() - 1) * share / 100];
    println!("withdrawal to refusal with {followers} followers: p50 {:?}, p99 {:?}", at(50), at(99));
    assert!(changes.last_answer().is_some());
}
