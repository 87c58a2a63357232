//! The ledger: what it holds, that it can be asked, that tampering shows, and that it survives being killed.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use serde_json::{Value, json};

use crate::support::{
    Sidecar, World, eventually, mark,
    sidecar::{Setup, audit, explain},
    tool::{Tool, values},
    world,
};

/// A way to change the text of a segment, and its name.
type Tampering<'a> = (&'a str, &'a dyn Fn(&str) -> String);

/// A sidecar of the test's own that has made two permitted and two refused calls and stopped.
fn worked(world: &World) -> Sidecar {
    let mut sidecar = Setup::new(&world.openid, &world.tool).start();
    let alice = world.openid.delegated("alice");
    let bob = world.openid.delegated_with("bob", &[("run_id", "run-2")]);
    let ids: Vec<_> = [
        sidecar.get("/orders/v1/orders/17", &alice).send(),
        sidecar.refund("17", &alice, r#"{"amount":"20.00","currency":"USD"}"#).send(),
        sidecar.refund("21", &alice, r#"{"amount":"20.00","currency":"USD"}"#).send(),
        sidecar.refund("21", &bob, r#"{"amount":"20.00","currency":"USD"}"#).send(),
    ]
    .iter()
    .map(crate::support::Answer::decision_id)
    .collect();
    sidecar.settled(&ids[1]);
    sidecar.settled(&ids[0]);
    sidecar.stop();
    sidecar
}

fn verifies(ledger: &Path) -> Result<String, String> {
    let ran = audit(ledger, "verify", &[]);
    if ran.code == Some(0) { Ok(ran.stdout) } else { Err(format!("{}{}", ran.stdout, ran.stderr)) }
}

fn copy(ledger: &Path) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let status = Command::new("cp").arg("-a").arg(ledger).arg(directory.path().join("ledger")).status().unwrap();
    assert!(status.success());
    directory
}

/// The files of record lines, which hold `call.decided`; oldest first.
fn segments(ledger: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(ledger)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.is_file() && fs::read_to_string(path).is_ok_and(|text| text.contains("\"kind\":\"call.decided\""))
        })
        .collect();
    found.sort();
    found
}

#[test]
fn a_ledger_verifies_and_every_way_of_tampering_shows() {
    let Some(world) = world() else { return };
    let sidecar = worked(world);
    let ledger = sidecar.ledger();
    let report = verifies(&ledger).unwrap();
    assert!(!report.is_empty());

    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let whole = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let changes: [Tampering<'_>; 7] = [
        ("a decision turned round", &|text| text.replacen("\"deny\"", "\"permit\"", 1)),
        ("a byte of a number", &|text| text.replacen("\"seq\":2", "\"seq\":3", 1)),
        ("a line taken out", &|text| {
            let mut all = lines(text);
            all.remove(all.len() / 2);
            whole(&all)
        }),
        ("two lines exchanged", &|text| {
            let mut all = lines(text);
            let last = all.len() - 2;
            all.swap(last, last - 1);
            whole(&all)
        }),
        ("a line twice", &|text| {
            let mut all = lines(text);
            let line = all[2].clone();
            all.insert(2, line);
            whole(&all)
        }),
        ("the end cut off", &|text| {
            let all = lines(text);
            whole(&all[..all.len() - 2])
        }),
        ("a space more", &|text| text.replacen("\":", "\": ", 1)),
    ];
    for (name, change) in changes {
        let tampered = copy(&ledger);
        let segment = segments(&tampered.path().join("ledger")).remove(0);
        let text = fs::read_to_string(&segment).unwrap();
        let changed = change(&text);
        assert_ne!(text, changed, "{name} changes nothing");
        fs::write(&segment, changed).unwrap();
        let complaint = verifies(&tampered.path().join("ledger")).expect_err(name);
        assert!(!complaint.contains("panicked"), "{name}: {complaint}");
    }
    let tampered = copy(&ledger);
    fs::remove_file(segments(&tampered.path().join("ledger")).remove(0)).unwrap();
    verifies(&tampered.path().join("ledger")).expect_err("a segment taken away");
}

#[test]
fn a_changed_companion_value_shows_too() {
    let Some(world) = world() else { return };
    let sidecar = worked(world);
    let tampered = copy(&sidecar.ledger());
    let ledger = tampered.path().join("ledger");
    let companions: Vec<_> = files(&ledger)
        .into_iter()
        .filter(|path| fs::read_to_string(path).is_ok_and(|text| text.contains("orders/21")))
        .collect();
    assert!(!companions.is_empty(), "the resource lies in a companion file");
    for path in companions {
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("orders/21", "orders/22")).unwrap();
    }
    verifies(&ledger).expect_err("another resource than the one decided on");
}

fn files(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

#[test]
fn what_is_personal_is_not_on_the_line() {
    let Some(world) = world() else { return };
    let sidecar = worked(world);
    for segment in segments(&sidecar.ledger()) {
        let text = fs::read_to_string(&segment).unwrap();
        for personal in ["alice", "orders/17", "20.00", "bob"] {
            assert!(!text.contains(personal), "{personal} is in {}", segment.display());
        }
    }
    for path in files(&sidecar.ledger()) {
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o077, 0, "{} can be read by others", path.display());
    }
}

#[test]
fn the_ledger_can_be_asked_by_run_user_agent_action_and_time() {
    let Some(world) = world() else { return };
    let sidecar = worked(world);
    let decided = |arguments: &[&str]| -> Vec<Value> {
        sidecar.query(arguments).into_iter().filter(|record| record["kind"] == "call.decided").collect()
    };
    assert_eq!(decided(&[]).len(), 4);
    assert_eq!(decided(&["--run", "run-1"]).len(), 3);
    assert_eq!(decided(&["--run", "run-2"]).len(), 1);
    assert_eq!(decided(&["--user", "alice"]).len(), 3);
    assert_eq!(decided(&["--user", "nobody"]).len(), 0);
    assert_eq!(decided(&["--agent", "support-v1"]).len(), 4);
    assert_eq!(decided(&["--agent", "refund-helper"]).len(), 0);
    assert_eq!(decided(&["--action", "refunds.create"]).len(), 3);
    assert_eq!(decided(&["--action", "refunds.create", "--user", "bob"]).len(), 1);

    let second = decided(&[])[1]["time"].as_str().unwrap().to_owned();
    assert_eq!(
        decided(&["--since", &second]).len() + decided(&["--until", &second]).len(),
        4 + decided(&["--since", &second, "--until", &second]).len()
    );
    assert_eq!(decided(&["--since", "2999-01-01T00:00:00Z"]).len(), 0);
    assert_eq!(decided(&["--until", "2000-01-01T00:00:00Z"]).len(), 0);

    let run = sidecar.query(&["--run", "run-1"]);
    let traces: BTreeSet<_> = run.iter().filter_map(|record| record["trace_id"].as_str()).collect();
    assert!(!traces.is_empty(), "from a record its trace");
}

#[test]
fn tail_has_one_line_a_person_can_read_for_each_decision() {
    let Some(world) = world() else { return };
    let sidecar = worked(world);
    let text = audit(&sidecar.ledger(), "tail", &[]).well();
    let line = text.lines().find(|line| line.contains("orders.read")).unwrap_or_else(|| panic!("{text}"));
    for part in
        ["user:alice@acme", "via agent:support-v1", "task:ticket-1", "run:run-1", "orders.read orders/17", "PERMIT"]
    {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    let denied = text.lines().find(|line| line.contains("orders/21") && line.contains("alice")).unwrap();
    assert!(denied.contains("DENY") && denied.contains("relation_unproven"), "{denied}");
}

#[test]
fn a_decision_explains_itself_offline() {
    let Some(world) = world() else { return };
    let sidecar = worked(world);
    let records = sidecar.query(&["--action", "refunds.create", "--user", "alice"]);
    for code in [Value::Null, json!("relation_unproven")] {
        let record = records.iter().find(|record| record["kind"] == "call.decided" && record["code"] == code).unwrap();
        let id = record["decision_id"].as_str().unwrap();
        let text = explain(&sidecar.ledger(), id, &[]).well();
        for part in ["alice", "support-v1", "ticket-1", "run-1", "refunds.create"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        if let Some(code) = code.as_str() {
            assert!(text.contains(code), "{text}");
        }
        let [told] = &explain(&sidecar.ledger(), id, &["--json"]).lines()[..] else { panic!("one object") };
        assert!(told.to_string().contains(id));
    }
    let unknown = explain(&sidecar.ledger(), "none.0198c0de-0000-7000-8000-000000000000", &[]);
    assert_ne!(unknown.code, Some(0));
    assert!(!unknown.stderr.is_empty() && !unknown.stderr.contains("panicked"), "{}", unknown.stderr);
}

#[test]
fn a_sidecar_that_was_killed_in_mid_call_closes_it_as_unknown() {
    let Some(world) = world() else { return };
    let mut sidecar = Setup::new(&world.openid, &world.tool).start();
    let mark = mark();
    let call = sidecar.get("/orders/v1/hang", &world.probe()).header("X-Mark", &mark);
    let mut agent = call.command().spawn().unwrap();
    eventually("the call to reach the tool", || (!world.tool.marked(&mark).is_empty()).then_some(()));
    sidecar.daemon.kill();
    agent.wait().unwrap();
    let before = sidecar.query(&["--action", "probe.hang"]);
    let id = before.iter().find(|record| record["kind"] == "call.decided").expect("decided before it was sent")["decision_id"].clone();

    // A record torn in the middle of a write, as a power cut leaves it.
    let segment = segments(&sidecar.ledger()).remove(0);
    let torn = fs::read_to_string(&segment).unwrap() + "{\"kind\":\"call.set";
    fs::write(&segment, torn).unwrap();

    sidecar.restart();
    let settled = sidecar.settled(id.as_str().unwrap());
    assert_eq!(settled["outcome"], "unknown", "{settled}");
    sidecar.get("/orders/v1/echo/after", &world.probe()).send().went(200);
    sidecar.stop();
    verifies(&sidecar.ledger()).unwrap();
    let kinds: Vec<_> = sidecar.query(&[]).iter().map(|record| record["kind"].clone()).collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "sidecar.started").count(), 2, "{kinds:?}");
}

#[test]
fn many_calls_at_once_are_each_on_record_once_across_many_segments() {
    const THREADS: usize = 8;
    const EACH: usize = 25;
    let Some(world) = world() else { return };
    let mut sidecar = Setup::new(&world.openid, &world.tool)
        .with(|config| config["ledger"]["segment_max_bytes"] = json!(32 << 10))
        .start();
    let authorization = format!("Bearer {}", world.openid.delegated("alice"));
    let call = || sidecar.plain_get("/orders/v1/orders/17", &[("authorization", &authorization)]);
    let work = || (0..EACH).map(|_| call().went(200).decision_id()).collect::<Vec<_>>();
    let ids: BTreeSet<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(ids.len(), THREADS * EACH);
    sidecar.stop();
    let records = sidecar.query(&[]);
    for kind in ["call.decided", "call.settled"] {
        let of_kind: Vec<_> = records.iter().filter(|record| record["kind"] == kind).collect();
        let named: BTreeSet<_> =
            of_kind.iter().map(|record| record["decision_id"].as_str().unwrap().to_owned()).collect();
        assert_eq!((of_kind.len(), &named), (ids.len(), &ids), "{kind}");
    }
    // All but the room that is kept for stopping on a full disk.
    let kept =
        files(&sidecar.ledger()).into_iter().filter(|path| path.file_name().is_some_and(|name| name != "reserve"));
    let each = kept.map(|path| fs::metadata(path).unwrap().len()).sum::<u64>() / ids.len() as u64;
    assert!(each <= 3 << 10, "{each} bytes of ledger a call");
    println!("{each} bytes of ledger a call");
    let segments = segments(&sidecar.ledger());
    assert!(segments.len() > 3, "{segments:?}");
    verifies(&sidecar.ledger()).unwrap();
    // A decision of a late segment still finds its token, which every segment holds for itself.
    let last = records.iter().rfind(|record| record["kind"] == "call.decided").unwrap();
    explain(&sidecar.ledger(), last["decision_id"].as_str().unwrap(), &[]).well();

    let tampered = copy(&sidecar.ledger());
    let middle = segments[segments.len() / 2].file_name().unwrap().to_owned();
    fs::remove_file(tampered.path().join("ledger").join(middle)).unwrap();
    verifies(&tampered.path().join("ledger")).expect_err("a segment taken from the middle");
}

#[test]
fn whatever_reached_the_tool_was_on_record_before_even_when_the_sidecar_is_killed_under_load() {
    let Some(world) = world() else { return };
    let Some(tool) = Tool::plain() else { return };
    let mut sidecar = Setup::new(&world.openid, &tool)
        .with(|config| config["listen"]["agent"]["input_headers"] = json!(["x-mark"]))
        .start();
    let port = sidecar.port();
    let authorization = format!("Bearer {}", world.openid.delegated("alice"));
    let stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !stopped.load(Ordering::Relaxed) {
                    let request = format!(
                        "GET /orders/v1/orders/17 HTTP/1.1\r\nhost: localhost\r\nauthorization: {authorization}\r\nx-mark: {}\r\nconnection: close\r\n\r\n",
                        mark()
                    );
                    // Killed, it answers nothing any more; that is what the test is about.
                    let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else { break };
                    stream.write_all(request.as_bytes()).ok();
                    stream.read_to_end(&mut Vec::new()).ok();
                }
            });
        }
        eventually("the load to be on", || (tool.requests().len() > 100).then_some(()));
        sidecar.daemon.kill();
        stopped.store(true, Ordering::Relaxed);
    });
    sidecar.restart();
    let records = sidecar.query(&["--action", "orders.read"]);
    let of_kind = |kind: &str| records.iter().filter(|record| record["kind"] == kind).collect::<Vec<_>>();
    let on_record: BTreeSet<_> =
        of_kind("call.decided").iter().filter_map(|record| record["headers"]["x-mark"].as_str()).collect();
    let requests = tool.requests();
    for request in &requests {
        let mark = values(request, "x-mark").remove(0);
        assert!(on_record.contains(mark.as_str()), "{mark} reached the tool unrecorded");
    }
    assert!(requests.len() > 100);
    assert_eq!(of_kind("call.decided").len(), of_kind("call.settled").len(), "every call that was permitted is closed");
    sidecar.stop();
    verifies(&sidecar.ledger()).unwrap();
}

#[test]
fn a_ledger_written_anew_with_another_key_does_not_pass_for_the_one_whose_key_is_known() {
    let Some(world) = world() else { return };
    let (ours, other) = (worked(world), worked(world));
    let report: Value = serde_json::from_str(&audit(&ours.ledger(), "verify", &["--json"]).well()).unwrap();
    let key = report["report"]["verifying_key"].as_str().unwrap_or_else(|| panic!("{report}"));
    audit(&ours.ledger(), "verify", &["--key", key]).well();
    let foreign = audit(&other.ledger(), "verify", &["--key", key]);
    assert_eq!(foreign.code, Some(1), "{}{}", foreign.stdout, foreign.stderr);
}

#[test]
fn tail_follows_calls_as_they_come() {
    let Some(world) = world() else { return };
    let sidecar = Setup::new(&world.openid, &world.tool).start();
    let mut command = crate::support::process::countersign();
    command.args(["audit", "tail", "-f", "-n", "0", "--from"]).arg(sidecar.ledger());
    let mut follower = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(follower.stdout.take().unwrap()));
    let (told, line) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("PERMIT"))).map(|line| told.send(line))
    });
    let token = world.openid.delegated("alice");
    let line = eventually("the line of a call", || {
        sidecar.get("/orders/v1/orders/17", &token).send().went(200);
        line.try_recv().ok()
    });
    follower.kill().unwrap();
    follower.wait().unwrap();
    assert!(line.unwrap().contains("user:alice@acme via agent:support-v1"));
}

#[test]
fn what_cannot_be_recorded_is_not_sent() {
    let Some(world) = world() else { return };
    let mut setup = Setup::new(&world.openid, &world.tool);
    // A file system that is full from a point on: every write of the process beyond this size fails.
    setup.file_size_limit = Some(64 << 10);
    let sidecar = setup.start();
    let token = world.openid.delegated("alice");
    let mark = mark();
    let mut permitted = 0;
    let refused = loop {
        let answer = sidecar.get("/orders/v1/orders/17", &token).header("X-Mark", &mark).send();
        if answer.status != 200 {
            break answer;
        }
        permitted += 1;
        assert!(permitted < 500, "the ledger does not fill up");
    };
    refused.refused(503, "ledger_unavailable");
    assert_eq!(world.tool.marked(&mark).len(), permitted, "nothing unrecorded is sent");
    eventually("readiness to drop", || (!sidecar.is_ready()).then_some(()));
}
