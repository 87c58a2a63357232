//! The sidecar is the agent's only way out, where one of the forms of deploy/egress is applied. The tests run in a
//! network of their own, so that no rule of theirs touches the machine's.

use std::{net::UdpSocket, process::Command, time::Duration};

use serde_json::json;

use super::agent::{AGENT, SIDECAR, agent_calls, agent_runs, apart};
use crate::support::{
    process, root,
    sidecar::{Setup, TOOL_SECRET},
    skipped,
    tool::Tool,
    world,
};

/// Says to the inner tests that the network around them is theirs.
const INSIDE: &str = "COUNTERSIGN_TEST_OWN_NETWORK";

/// Runs the test `name` of this very program in a network namespace where there is nothing but a loopback.
fn in_a_network_of_its_own(name: &str) {
    let mut command = Command::new("unshare");
    command
        .args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture"]).env(INSIDE, "yes");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
    said.lines().filter(|line| line.starts_with("SKIPPED")).for_each(|line| println!("{line}"));
}

fn possible(program: &str) -> bool {
    let there = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap().status.success();
    let allowed =
        process::is_root() && Command::new("unshare").args(["--net", "true"]).status().is_ok_and(|ran| ran.success());
    if !there || !allowed {
        skipped("a network of its own", &format!("needs root and {program}"));
    }
    there && allowed
}

#[test]
fn with_the_rule_for_its_user_the_agent_reaches_the_sidecar_and_nothing_else() {
    if possible("nft") && possible("ip") {
        in_a_network_of_its_own("trust::egress::inside_with_the_rule");
    }
}

#[test]
fn with_a_network_of_nothing_the_agent_reaches_the_sidecar_by_its_socket_and_nothing_else() {
    if possible("ip") {
        in_a_network_of_its_own("trust::egress::inside_without_any_network");
    }
}

#[test]
#[ignore = "changes the firewall: run by another test, in a network namespace of its own"]
fn inside_with_the_rule() {
    assert!(std::env::var_os(INSIDE).is_some(), "only in a network of its own");
    let Some(world) = world() else { return };
    let Some(tool) = Tool::plain() else { return };
    let sidecar = apart(world, &tool);
    let token = world.openid.delegated("alice");
    let (by_sidecar, direct) = (sidecar.url("/orders/v1/orders/17"), format!("{}/v1/orders/17", tool.url()));
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let port = receiver.local_addr().unwrap().port();
    let send = format!("echo x > /dev/udp/127.0.0.1/{port}");

    // Without the rule the agent gets everywhere: what follows is the rule's doing.
    agent_calls(&direct, TOOL_SECRET).expect("nothing holds it").went(200);
    assert!(agent_runs("bash", &["-c", &send]).status.success());
    receiver.recv(&mut [0; 8]).expect("a datagram");

    let rule = root().join("deploy/egress/agent.nft");
    let apply = || {
        let mut nft = Command::new("nft");
        nft.args(["-D", &format!("agent={AGENT}"), "-D", &format!("sidecar={}", sidecar.port()), "-f"]).arg(&rule);
        let output = nft.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    apply();
    apply();
    agent_calls(&by_sidecar, &token).expect("the one way out").went(200);
    let health = format!("http://127.0.0.1:{}/metrics", sidecar.health_port());
    for url in [
        &direct,
        &direct.replace("localhost", "127.0.0.1"),
        &direct.replace("localhost", "[::1]"),
        &health,
        world.openid.issuer(),
    ] {
        assert!(agent_calls(url, TOOL_SECRET).is_none(), "the agent reaches {url}");
    }
    agent_runs("bash", &["-c", &send]);
    assert!(receiver.recv(&mut [0; 8]).is_err(), "a datagram got out");
    // It is a rule for the agent: the sidecar still reaches the tool, and so does everybody else.
    let mut others = process::as_user(SIDECAR, "curl");
    assert!(others.args(["--silent", "--fail", &direct]).output().unwrap().status.success());
    agent_calls(&by_sidecar, &token).expect("the one way out").went(200);
}

#[test]
#[ignore = "run by another test, in a network namespace of its own"]
fn inside_without_any_network() {
    assert!(std::env::var_os(INSIDE).is_some(), "only in a network of its own");
    let Some(world) = world() else { return };
    let Some(tool) = Tool::plain() else { return };
    let mut setup = Setup::new(&world.openid, &tool);
    let socket = setup.directory().join("agent.sock");
    setup.user = Some(SIDECAR);
    setup.config["listen"]["agent"] =
        json!({"unix": "agent.sock", "mode": "0666", "allow_uids": [AGENT], "bearer": "all"});
    std::fs::set_permissions(setup.directory(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let _sidecar = setup.start();
    let token = format!("Authorization: Bearer {}", world.openid.delegated("alice"));
    let from_nowhere = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args([
            "--net",
            "setpriv",
            "--reuid",
            &AGENT.to_string(),
            "--regid",
            &AGENT.to_string(),
            "--clear-groups",
        ]);
        command.args(["--no-new-privs", "curl", "--silent", "--fail", "--noproxy", "*", "-H", &token]).args(arguments);
        command.output().unwrap().status.success()
    };
    assert!(from_nowhere(&["--unix-socket", socket.to_str().unwrap(), "http://localhost/orders/v1/orders/17"]));
    assert!(!from_nowhere(&[&format!("{}/v1/orders/17", tool.url())]));
    // The socket knows whose process connects: root is not listed.
    let root = Command::new("curl")
        .args(["--silent", "-H", &token, "--unix-socket", socket.to_str().unwrap()])
        .arg("http://localhost/orders/v1/orders/17")
        .output();
    assert!(root.unwrap().stdout.is_empty());
}
