//! The end of a process, and what it says of itself while it lives.

use std::process::Stdio;

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
