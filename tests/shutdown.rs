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
    let call = sidecar.get("/orders/v1/stream?count=20&every=50", &world.probe()).header("X-Mark", &mark);
    let agent = call.command().arg("--include").stdin(Stdio::null()).spawn().unwrap();
    eventually("the call to reach the tool", || (!world.tool.marked(&mark).is_empty()).then_some(()));
    sidecar.daemon.signal("TERM");
    eventually("the sidecar to stop accepting", || {
        {
            let mut refused = std::net::TcpStream::connect(("127.0.0.1", sidecar.port())).ok()?;
            refused.write_all(b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n").ok();
            let mut answer = Vec::new();
            refused.read_to_end(&mut answer).ok();
            answer.is_empty().then_some(())
        }
        .or_else(|| std::net::TcpStream::connect(("127.0.0.1", sidecar.port())).is_err().then_some(()))
    });

    let output = agent.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("\"n\":20"), "the stream was cut: {text}");
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
