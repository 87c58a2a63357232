//! More than the sidecar takes on: what is too much is refused at once and clearly, nobody's greed is another's loss,
//! and neither the disk nor the memory nor the log is filled by it. `/livez` and `/readyz` answer throughout.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Stdio},
};

use serde_json::{Value, json};

use crate::support::{
    Curl, PATIENCE, Sidecar, World, eventually, http, mark, process,
    sidecar::{Setup, explain},
    skipped, world,
};

/// How many requests with garbage for a token; the long form is by the million.
const GARBAGE: &str = "COUNTERSIGN_TEST_GARBAGE_REQUESTS";

fn limited(world: &World, limits: Value) -> Sidecar {
    Setup::new(&world.openid, &world.tool).with(|config| config["listen"]["agent"]["limits"] = limits).start()
}

/// A call that never ends, from `address`, and is at the tool.
fn hanging(world: &World, sidecar: &Sidecar, token: &str, address: &str) -> Held {
    let mark = mark();
    let call = sidecar.get("/orders/v1/hang", token).header("X-Mark", &mark);
    let child = call.argument("--interface").argument(address).command().stdin(Stdio::null()).spawn().unwrap();
    eventually("the call to reach the tool", || (!world.tool.marked(&mark).is_empty()).then_some(()));
    Held(child)
}

/// A process of the agent that waits.
struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A token like `probe`, for another agent that is registered.
fn of_another_agent(world: &World) -> String {
    world.openid.sign(&json!({"like": world.probe(), "claims": {"act": {"sub": "refund-helper"}}}))
}

fn from(sidecar: &Sidecar, token: &str, address: &str) -> Curl {
    sidecar.get("/orders/v1/status/200", token).argument("--interface").argument(address)
}

fn alive(sidecar: &Sidecar) {
    for path in ["/livez", "/readyz"] {
        http::get(sidecar.health_port(), path).went(200);
    }
}

fn metric(sidecar: &Sidecar, name: &str) -> u64 {
    let metrics = sidecar.metrics();
    let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse().unwrap()
}

#[test]
fn beyond_the_room_calls_are_refused_at_once_and_those_under_way_are_not_disturbed() {
    let Some(world) = world() else { return };
    let sidecar = limited(world, json!({"calls": 3, "peer_share": 100}));
    let probe = world.probe();
    let slow = sidecar.get("/orders/v1/stream?count=20&every=100", &probe).command().spawn().unwrap();
    let held = [(); 2].map(|()| hanging(world, &sidecar, &probe, "127.0.0.1"));
    eventually("all room to be taken", || (metric(&sidecar, "countersign_calls_in_flight") == 3).then_some(()));
    let before = world.tool.requests().len();
    for _ in 0..50 {
        let answer = sidecar.plain_get("/orders/v1/status/200", &[("authorization", &format!("Bearer {probe}"))]);
        answer.refused(503, "overloaded");
        assert_eq!((answer.header("retry-after"), &answer.json()["retry"]), (Some("1"), &json!("after")));
        assert_eq!(answer.json()["sent"], json!(false));
        answer.decision_id();
    }
    alive(&sidecar);
    assert_eq!(world.tool.requests().len(), before, "nothing of it reached the tool");
    assert_eq!(metric(&sidecar, "countersign_shed_total{full=\"total\",room=\"calls\"}"), 50);
    drop(held);
    let output = slow.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"n\":20"), "what was under way came to its end");
    eventually("room", || (sidecar.get("/orders/v1/status/200", &probe).send().status == 200).then_some(()));
}

#[test]
fn a_peer_and_an_agent_have_a_share_and_others_go_on() {
    let Some(world) = world() else { return };
    let sidecar = limited(world, json!({"calls": 6, "peer_share": 34}));
    let (probe, other) = (world.probe(), of_another_agent(world));
    // The share is two calls: of a peer, whoever its agents are, and of an agent, wherever it calls from.
    let first = hanging(world, &sidecar, &probe, "127.0.0.1");
    let second = hanging(world, &sidecar, &other, "127.0.0.1");
    from(&sidecar, &other, "127.0.0.1").send().refused(503, "overloaded");
    from(&sidecar, &other, "127.0.0.2").send().went(200);
    drop(second);
    let third = hanging(world, &sidecar, &probe, "127.0.0.2");
    let refused = from(&sidecar, &probe, "127.0.0.3").send();
    refused.refused(503, "overloaded");
    assert_eq!(sidecar.decided(&refused)["agent"]["id"], "support-v1", "whom it was refused to is known");
    from(&sidecar, &other, "127.0.0.3").send().went(200);
    alive(&sidecar);
    assert!(metric(&sidecar, "countersign_shed_total{full=\"share\",room=\"calls\"}") >= 1);
    assert!(metric(&sidecar, "countersign_shed_total{full=\"share\",room=\"agent\"}") >= 1);
    drop((first, third));
}

#[test]
fn on_a_unix_socket_each_user_of_the_machine_has_a_share() {
    const FIRST: u32 = 4711;
    const SECOND: u32 = 4712;
    let Some(world) = world() else { return };
    if !process::is_root() {
        return skipped("users", "only root may become another user");
    }
    let setup = Setup::new(&world.openid, &world.tool).with(|config| {
        config["listen"]["agent"] = json!({
            "unix": "agent.sock", "mode": "0666", "allow_uids": [FIRST, SECOND], "bearer": "all",
            "limits": {"calls": 2, "peer_share": 50},
        });
    });
    fs::set_permissions(setup.directory(), PermissionsExt::from_mode(0o755)).unwrap();
    let socket = setup.directory().join("agent.sock");
    let sidecar = setup.start();
    let call = |user: u32, token: &str, path: &str, mark: &str| {
        let mut command = process::as_user(user, "curl");
        command
            .args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--unix-socket"])
            .arg(&socket);
        command.args(["-H", &format!("Authorization: Bearer {token}"), "-H", &format!("X-Mark: {mark}")]);
        command.arg(format!("http://localhost{path}")).stdin(Stdio::null()).stdout(Stdio::piped());
        command
    };
    let (probe, other, mark) = (world.probe(), of_another_agent(world), mark());
    let held = Held(call(FIRST, &probe, "/orders/v1/hang", &mark).spawn().unwrap());
    eventually("the call to reach the tool", || (!world.tool.marked(&mark).is_empty()).then_some(()));
    let status = |user: u32, token: &str| {
        let output = call(user, token, "/orders/v1/status/200", "").output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(status(FIRST, &other), "503", "the user has its share, whoever its agent is");
    assert_eq!(status(SECOND, &other), "200");
    assert_eq!(status(SECOND, &probe), "503", "the agent has its share, whoever runs it");
    alive(&sidecar);
    drop(held);
    eventually("room", || (status(FIRST, &probe) == "200").then_some(()));
}

#[test]
fn connections_have_a_share_too_and_health_has_its_own() {
    let Some(world) = world() else { return };
    let sidecar = limited(world, json!({"connections": 8, "peer_share": 50}));
    let idle: Vec<TcpStream> = (0..4).map(|_| http::connect(sidecar.port())).collect();
    eventually("the connections", || (metric(&sidecar, "countersign_connections_open") == 4).then_some(()));
    assert_eq!(http::raw(sidecar.port(), b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"), b"", "closed at once");
    assert!(metric(&sidecar, "countersign_connections_refused_total") >= 1);
    from(&sidecar, &world.probe(), "127.0.0.2").send().went(200);
    alive(&sidecar);
    // Whoever takes what the health listener gives to one leaves room for the one who has to know.
    let asking: Vec<TcpStream> = (0..80).map(|_| http::connect(sidecar.health_port())).collect();
    let probe = Curl::get(format!("http://127.0.0.1:{}/livez", sidecar.health_port()));
    probe.argument("--interface").argument("127.0.0.2").send().went(200);
    drop((idle, asking));
    eventually("room", || from(&sidecar, &world.probe(), "127.0.0.1").attempt().ok());
}

#[test]
fn bodies_of_one_peer_do_not_take_the_memory_of_others() {
    let Some(world) = world() else { return };
    let sidecar = limited(world, json!({"body_bytes": 100_000, "peer_share": 60}));
    let token = world.openid.delegated("alice");
    let head = format!(
        "POST /orders/v1/orders/17/refunds HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: 60000\r\n\r\n"
    );
    let mut slow = http::connect(sidecar.port());
    slow.write_all(head.as_bytes()).unwrap();
    slow.write_all(&[b' '; 55_000]).unwrap();
    eventually("the body to be held", || (metric(&sidecar, "countersign_body_bytes_held") == 55_000).then_some(()));
    let body = [br#"{"amount":"20.00","currency":"USD","reason":""#.as_slice(), &b"x".repeat(8_000), b"\"}"].concat();
    let refund = |address: &str| {
        let call = Curl::post(sidecar.url("/orders/v1/orders/17/refunds"), "application/json", body.clone());
        call.bearer(&token).argument("--interface").argument(address).send()
    };
    refund("127.0.0.1").refused(503, "overloaded");
    refund("127.0.0.2").went(201);
    drop(slow);
    eventually("room", || (refund("127.0.0.1").status == 201).then_some(()));
    eventually("no byte to be held", || (metric(&sidecar, "countersign_body_bytes_held") == 0).then_some(()));
}

#[test]
fn what_nobody_uses_or_takes_is_given_up_after_the_time_that_is_set() {
    let Some(world) = world() else { return };
    let sidecar = limited(world, json!({"idle": "500ms", "stall": "500ms"}));
    let mut agent = Agent::new(sidecar.port());
    let probe = world.probe();
    assert_eq!(agent.ask(&[request(&format!("Bearer {}", world.openid.delegated("alice")))]), [200]);
    // Half of what is the library's own bound.
    agent.0.get_ref().set_read_timeout(Some(PATIENCE / 2)).unwrap();
    assert_eq!(agent.0.read(&mut [0; 64]).expect("it is closed"), 0);

    let mut slow = http::connect(sidecar.port());
    let head = format!(
        "GET /orders/v1/download?bytes=100000000 HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {probe}\r\n\r\n"
    );
    slow.write_all(head.as_bytes()).unwrap();
    let settled = eventually("the call to be given up", || {
        let records = sidecar.query(&["--action", "probe.download"]);
        records.into_iter().find(|record| record["kind"] == "call.settled")
    });
    assert_eq!(settled["outcome"], "client_gone", "{settled}");
    eventually("its room", || (metric(&sidecar, "countersign_calls_in_flight") == 0).then_some(()));
}

#[test]
fn a_loop_of_refusals_is_folded_and_what_goes_is_not() {
    let Some(world) = world() else { return };
    let sidecar = limited(world, json!({"refusals_per_minute": 5}));
    let token = world.openid.delegated("alice");
    let get = |path: &str| sidecar.plain_get(path, &[("authorization", &format!("Bearer {token}"))]);
    let ids: Vec<String> =
        (0..200).map(|_| get("/orders/v1/nothing").refused(403, "unmapped_action").decision_id()).collect();
    for _ in 0..20 {
        get("/orders/v1/orders/17").went(200);
    }
    get("/billing").refused(403, "unknown_tool");
    // One, or two where the loop was under way when it was time for one.
    let summaries = eventually("the summaries", || {
        let summaries = sidecar.query(&["--kind", "refusals.summary", "--user", "alice"]);
        let counted: u64 = summaries.iter().filter_map(|summary| summary["counts"]["unmapped_action"].as_u64()).sum();
        (counted == 195).then_some(summaries)
    });
    assert!(summaries.len() <= 2, "{summaries:?}");
    for summary in &summaries {
        assert_eq!((&summary["agent"]["id"], &summary["like"]), (&json!("support-v1"), &json!(ids[4])), "{summary}");
    }
    assert_eq!(summaries[0]["first"], json!(ids[5]));
    let decided: Vec<Value> = sidecar.query(&["--user", "alice", "--kind", "call.decided"]);
    let of = |code: &Value| decided.iter().filter(|record| record["code"] == *code).count();
    assert_eq!((of(&json!("unmapped_action")), of(&json!("unknown_tool")), of(&Value::Null)), (5, 1, 20));
    assert_eq!(metric(&sidecar, "countersign_refusals_folded_total"), 195);
    let told = explain(&sidecar.ledger(), &ids[100], &[]);
    assert_eq!(told.code, Some(1));
    assert!(told.stderr.contains(&ids[4]) && told.stderr.contains("unmapped_action"), "{}", told.stderr);
}

#[test]
fn a_failing_tool_does_not_fill_the_log() {
    let Some(world) = world() else { return };
    let sidecar = limited(world, json!({}));
    let authorization = format!("Bearer {}", world.probe());
    for _ in 0..60 {
        sidecar.plain_get("/orders/v1/drop", &[("authorization", &authorization)]).refused(502, "tool_unreachable");
    }
    let lines = sidecar.daemon.output().matches("not served").count();
    assert!((1..20).contains(&lines), "{lines} lines");
}

/// A connection that is kept, for many requests in a row.
struct Agent(BufReader<TcpStream>);

impl Agent {
    fn new(port: u16) -> Self {
        Self(BufReader::new(http::connect(port)))
    }

    /// Sends `requests` and reads as many answers; their statuses.
    fn ask(&mut self, requests: &[String]) -> Vec<u16> {
        self.0.get_mut().write_all(requests.concat().as_bytes()).unwrap();
        requests.iter().map(|_| self.answer()).collect()
    }

    fn answer(&mut self) -> u16 {
        let (mut status, mut length) = (0, 0);
        for number in 0.. {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            if number == 0 {
                status = line.split(' ').nth(1).unwrap_or_else(|| panic!("no answer: {line:?}")).parse().unwrap();
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        self.0.read_exact(&mut vec![0; length]).unwrap();
        status
    }
}

fn request(authorization: &str) -> String {
    format!("GET /orders/v1/orders/17 HTTP/1.1\r\nhost: localhost\r\nauthorization: {authorization}\r\n\r\n")
}

fn size(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    // What is kept for a full disk is there from the start; the journal is written over and over.
    let kept = entries.filter(|entry| entry.file_name() != "journal");
    kept.map(|entry| entry.metadata().map_or(0, |metadata| metadata.len())).sum()
}

#[test]
fn garbage_for_tokens_fills_neither_disk_nor_memory_and_asks_no_issuer() {
    let Some(world) = world() else { return };
    let sidecar = limited(world, json!({}));
    let count: usize = std::env::var(GARBAGE).map_or(20_000, |count| count.parse().unwrap());
    let good = world.openid.delegated("alice");
    let (head, rest) = good.split_once('.').unwrap();
    let (payload, signature) = rest.split_once('.').unwrap();
    let unknown = |n: usize| {
        let header = json!({"alg": "ES256", "typ": "at+jwt", "kid": format!("unknown-{n}")}).to_string();
        base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, header)
    };
    let garbage = |n: usize| match n % 6 {
        0 => format!("Bearer {n}"),
        1 => format!("Bearer a{n}.b{n}.c{n}"),
        2 => format!("Bearer {}.{payload}.{signature}", unknown(n)),
        3 => format!("Bearer {head}.{payload}.{}{n:08}", &signature[..signature.len() - 8]),
        4 => format!("Bearer {head}.{payload}{n}.{signature}"),
        _ => format!("Basic {n}"),
    };
    let mut agent = Agent::new(sidecar.port());
    let mut flood = |from: usize, to: usize| {
        for start in (from..to).step_by(60) {
            let requests: Vec<String> = (start..(start + 60).min(to)).map(|n| request(&garbage(n))).collect();
            assert!(agent.ask(&requests).iter().all(|status| *status == 401));
        }
    };
    flood(0, count / 10);
    let (memory, fetches) = (sidecar.daemon.peak_memory(), world.openid.count("jwks"));
    let disk = size(&sidecar.ledger());
    let mut others = Agent::new(sidecar.port());
    for part in 1..10 {
        flood(count / 10 * part, count / 10 * (part + 1));
        assert_eq!(others.ask(&[request(&format!("Bearer {good}"))]), [200], "a good token is served meanwhile");
        alive(&sidecar);
    }
    let grown = sidecar.daemon.peak_memory() - memory;
    assert!(grown < 16 << 20, "{grown} bytes of memory for {count} requests");
    let grown = size(&sidecar.ledger()) - disk;
    assert!(grown < 256 << 10, "{grown} bytes of ledger for {count} requests");
    // Other tests use this provider too; a storm would be thousands.
    let fetches = world.openid.count("jwks") - fetches;
    assert!(fetches < 60, "{fetches} fetches of keys");
    let kinds = sidecar.query(&["--kind", "call.decided"]);
    assert_eq!(kinds.len(), 9, "only what was said by somebody known is on record");
    let counted: u64 = eventually("all to be counted", || {
        let summaries = sidecar.query(&["--kind", "refusals.summary"]);
        let sum = summaries.iter().flat_map(|summary| summary["counts"].as_object().unwrap().values().cloned());
        let sum: u64 = sum.map(|count| count.as_u64().unwrap()).sum();
        (sum >= count as u64).then_some(sum)
    });
    assert_eq!(counted, count as u64);
}

#[test]
fn limits_that_make_no_sense_are_named_at_the_start() {
    let Some(world) = world() else { return };
    for (limits, named) in [
        (json!({"calls": 0}), "nonzero"),
        (json!({"peer_share": 101}), "101"),
        (json!({"call": 1}), "call"),
        (json!({"idle": "soon"}), "soon"),
    ] {
        let setup =
            Setup::new(&world.openid, &world.tool).with(|config| config["listen"]["agent"]["limits"] = limits.clone());
        let ran = setup.run();
        assert_eq!(ran.code, Some(78), "{limits}: {}", ran.stderr);
        assert!(ran.stderr.contains(named), "{limits}: {}", ran.stderr);
    }
}
