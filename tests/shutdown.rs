//! The end of a process, and what it says of itself while it lives.

use std::{
    io::{Read, Write},
    process::Stdio,
};

use crate::support::{
    eventually, http, mark,
    process::{self, countersign},
    sidecar::{Setup, audit},
    world,
};

#[test]
fn a_call_that_is_under_way_is_finished_and_the_ledger_sealed() {
    let Some(world) = world() else { return };
    let mut sidecar = Setup::new(&world.openid, &world.tool).start();
    let mark = mark();
    let call = sidecar.get("/orders/v1/stream?count=30&every=100", &world.probe()).header("X-Mark", &mark);
    let agent = call.command().arg("--include").stdin(Stdio::null()).spawn().unwrap();
    eventually("the call to reach the tool", || (!world.tool.marked(&mark).is_empty()).then_some(()));
    sidecar.daemon.signal("TERM");
    let accepts = || std::net::TcpStream::connect(("127.0.0.1", sidecar.port())).is_ok();
    eventually("the sidecar to stop accepting", || (!accepts()).then_some(()));
    assert!(sidecar.daemon.ended().is_none(), "it ended with a call under way");

    let output = agent.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("\"n\":30"), "the stream was cut: {text}");
    let status = sidecar.daemon.wait();
    assert!(status.success(), "{status}: {}", sidecar.daemon.output());
    let id = text
        .lines()
        .find_map(|line| line.to_lowercase().strip_prefix("countersign-decision-id: ").map(str::to_owned))
        .unwrap();
    assert_eq!(sidecar.settled(id.trim())["outcome"], "completed");
    audit(&sidecar.ledger(), "verify", &[]).well();
    let last = sidecar.query(&[]).pop().unwrap();
    assert_eq!(last["kind"], "sidecar.stopped", "{last}");
}

#[test]
fn calls_under_way_are_finished_under_load_and_each_is_answered_or_was_never_sent() {
    let Some(world) = world() else { return };
    let mut sidecar = Setup::new(&world.openid, &world.tool).start();
    let (mark, token) = (mark(), world.probe());
    let slow: Vec<_> = (0..8)
        .map(|_| {
            let call = sidecar.get("/orders/v1/stream?count=20&every=100", &token).header("X-Mark", &mark);
            call.command().stdin(Stdio::null()).spawn().unwrap()
        })
        .collect();
    eventually("the streams to reach the tool", || (world.tool.marked(&mark).len() == 8).then_some(()));
    let port = sidecar.port();
    let authorization = format!("Bearer {token}");
    let callers: Vec<_> = (0..6)
        .map(|caller| {
            let authorization = authorization.clone();
            let mark = format!("{mark}-{caller}");
            // On new connections until there are none to be had: how many were answered.
            std::thread::spawn(move || {
                let mut answered = 0;
                loop {
                    let head = format!(
                        "GET /orders/v1/status/200 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                         authorization: {authorization}\r\nx-mark: {mark}\r\n\r\n"
                    );
                    let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else { return answered };
                    let mut bytes = Vec::new();
                    let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.read_to_end(&mut bytes));
                    match http::parse(&bytes) {
                        Some(answer) if answer.status == 200 => answered += 1,
                        // The disk may be busy with other tests.
                        Some(answer) => assert_eq!(answer.refused(503, "ledger_unavailable").json()["sent"], false),
                        // Never taken from the system's queue: closed without a word.
                        None => assert!(bytes.is_empty(), "{sent:?} {}", String::from_utf8_lossy(&bytes)),
                    }
                }
            })
        })
        .collect();
    let calls = || (0..6).map(|caller| world.tool.marked(&format!("{mark}-{caller}")).len()).sum::<usize>();
    eventually("calls of everybody", || (calls() > 60).then_some(()));
    sidecar.daemon.signal("TERM");
    let answered: usize = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
    for call in slow {
        let output = call.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("\"n\":20"), "a stream was cut: {text}");
    }
    let status = sidecar.daemon.wait();
    assert!(status.success(), "{status}: {}", sidecar.daemon.output());
    assert_eq!(calls(), answered, "what the tool saw was answered, and nothing else");
    audit(&sidecar.ledger(), "verify", &[]).well();
    let count = |kind: &str| sidecar.query(&["--kind", kind]).len();
    assert_eq!(count("call.decided"), count("call.settled"), "no call is left open");
}

#[test]
fn a_call_that_does_not_end_is_given_up_after_the_drain() {
    let Some(world) = world() else { return };
    let mut sidecar = Setup::new(&world.openid, &world.tool)
        .with(|config| config["shutdown"] = serde_json::json!({"drain": "300ms"}))
        .start();
    let mark = mark();
    let call = sidecar.get("/orders/v1/hang", &world.probe()).header("X-Mark", &mark);
    let mut agent = call.command().spawn().unwrap();
    eventually("the call to reach the tool", || (!world.tool.marked(&mark).is_empty()).then_some(()));
    sidecar.daemon.signal("TERM");
    sidecar.daemon.wait();
    agent.wait().unwrap();
    audit(&sidecar.ledger(), "verify", &[]).well();
    sidecar.restart();
    let decided = sidecar.query(&["--action", "probe.hang"]);
    let id = decided[0]["decision_id"].as_str().unwrap().to_owned();
    assert_ne!(sidecar.settled(&id)["outcome"], "completed");
}

#[test]
fn the_health_port_shows_health_and_nothing_else() {
    let Some(world) = world() else { return };
    let port = world.sidecar.health_port();
    for path in ["/livez", "/readyz", "/metrics"] {
        http::get(port, path).went(200);
    }
    for path in ["/", "/status", "/orders/v1/orders/17", "/debug", "/metrics/../status", "/v1/agents"] {
        assert!([400, 404].contains(&http::get(port, path).status), "{path}");
    }
    assert_ne!(http::request(port, "POST", "/readyz", &[], b"").status, 200);

    let address = format!("127.0.0.1:{port}");
    process::run(countersign().args(["health", "--address", &address])).well();
    let nobody = format!("127.0.0.1:{}", crate::support::free_port());
    assert_eq!(process::run(countersign().args(["health", "--address", &nobody])).code, Some(69));
}
