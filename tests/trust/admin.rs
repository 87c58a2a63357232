//! The operator's socket: who may ask, and what it says.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
};

use serde_json::{Value, json};

use crate::support::{Curl, Sidecar, eventually, process, sidecar::Setup, skipped, tool::Tool, world};

fn status(socket: &Path) -> Value {
    let ran = process::run(process::countersign().args(["health", "--json", "--admin"]).arg(socket));
    serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}{}", ran.stdout, ran.stderr))
}

fn socket(sidecar: &Sidecar) -> std::path::PathBuf {
    sidecar.directory().join("admin.sock")
}

#[test]
fn the_operator_sees_what_decides_where_it_is_recorded_and_what_was_refused() {
    let Some(world) = world() else { return };
    let mut setup = Setup::new(&world.openid, &world.tool);
    setup.config["listen"]["agent"]["bearer"] = json!("reads");
    let mut sidecar = setup.start();
    let path = socket(&sidecar);
    let metadata = fs::symlink_metadata(&path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);

    sidecar.get("/orders/v1/orders/17", &world.openid.delegated("alice")).send().went(200);
    let told =
        eventually("a signed head", || Some(status(&path)).filter(|told| told["ledger"]["head"]["size"].is_u64()));
    assert_eq!((&told["ready"], &told["name"], &told["version"]), (&json!(true), &json!("support"), &json!("0.1.0")));
    assert_eq!(told["process_id"], sidecar.daemon.id());
    assert!(told["uptime_seconds"].is_u64() && told["checks"]["ledger"]["ok"] == true, "{told}");
    let bundles: Vec<_> = told["policy"]["bundles"].as_array().unwrap().iter().map(|one| &one["package"]).collect();
    assert_eq!(bundles, ["countersign.org", "countersign.teams.support"]);
    assert_eq!(told["policy"]["bundles"][1]["for"], json!(["orders"]));
    assert_eq!(told["catalogue"]["tools"], json!(["orders"]));
    assert_eq!(told["listeners"]["agent"]["plain_bearer"], json!(["read"]));
    assert_eq!(told["listeners"]["agent"]["address"], json!(format!("127.0.0.1:{}", sidecar.port())));
    assert_eq!(told["issuers"][0]["issuer"], json!(world.openid.issuer()));
    assert_eq!(told["configuration"]["refused"], Value::Null);
    let decided = sidecar.query(&["--action", "orders.read"]);
    assert_eq!(decided[0]["revisions"]["policy"], told["policy"]["revision"]);
    assert_eq!(decided[0]["revisions"]["config"], told["configuration"]["revision"]);

    // What is on disk is wrong from now on: what decides is told apart from it.
    fs::write(
        sidecar.directory().join("policies/support/support.rego"),
        "package countersign.teams.support\n\nallow contains {",
    )
    .unwrap();
    sidecar.daemon.signal("HUP");
    let refused = eventually("the refusal", || {
        Some(status(&path)["configuration"]["refused"].clone()).filter(|refused| !refused.is_null())
    });
    assert!(refused["why"].as_str().unwrap().contains("support.rego"), "{refused}");
    assert_eq!(status(&path)["policy"]["revision"], told["policy"]["revision"]);
    let text = process::run(process::countersign().args(["health", "--admin"]).arg(&path)).well();
    assert!(text.contains("REFUSED since") && text.contains("countersign.teams.support"), "{text}");

    sidecar.stop();
    assert!(!path.exists(), "it goes with the process");
    let nobody = process::run(process::countersign().args(["health", "--admin"]).arg(&path));
    assert_eq!(nobody.code, Some(69));
}

#[test]
fn the_socket_serves_status_and_nothing_else() {
    let Some(world) = world() else { return };
    let path = socket(&world.sidecar);
    let ask = |request: &str| {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.lines().next().unwrap_or_default().to_owned()
    };
    let end = "connection: close\r\n\r\n";
    assert!(ask(&format!("GET /status HTTP/1.1\r\nhost: localhost\r\n{end}")).contains("200"));
    assert!(ask(&format!("GET /orders/v1/orders/17 HTTP/1.1\r\nhost: localhost\r\n{end}")).contains("404"));
    assert!(ask(&format!("GET /metrics HTTP/1.1\r\nhost: localhost\r\n{end}")).contains("404"));
    assert!(ask(&format!("POST /status HTTP/1.1\r\nhost: localhost\r\n{end}")).contains("405"));
    assert!(ask(&format!("GET /status HTTP/1.1\r\n{end}")).contains("400"), "no host");
    assert!(ask(&format!("GET /status HTTP/1.1\r\nhost: a\r\nhost: b\r\n{end}")).contains("400"), "two hosts");
}

#[test]
fn other_users_do_not_get_in_even_where_the_file_lets_them() {
    let Some(world) = world() else { return };
    if !process::is_root() {
        return skipped("another user", "only root can become somebody else");
    }
    let Some(tool) = Tool::plain() else { return };
    let (own, other) = (64_105, 64_106);
    let mut setup = Setup::new(&world.openid, &tool);
    setup.user = Some(own);
    fs::set_permissions(setup.directory(), fs::Permissions::from_mode(0o755)).unwrap();
    let sidecar = setup.start();
    let path = socket(&sidecar);
    let asks = |user: u32| {
        let mut command = process::as_user(user, "curl");
        command.args(["--silent", "--show-error", "--unix-socket"]).arg(&path).arg("http://localhost/status");
        command.output().unwrap()
    };
    assert!(asks(own).status.success());
    assert!(!asks(other).status.success(), "the file is its user's alone");
    // A careless change of the mode is not enough.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let output = asks(other);
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert!(asks(own).status.success() && asks_as_root(&path));
}

fn asks_as_root(path: &Path) -> bool {
    Curl::get("http://localhost/status").argument("--unix-socket").argument(path.to_str().unwrap()).send().status == 200
}

#[test]
fn health_answers_for_its_own_host_only() {
    let Some(world) = world() else { return };
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", world.sidecar.health_port());
    for path in ["/livez", "/readyz", "/metrics"] {
        Curl::get(url(path)).send().went(200);
        let rebound = Curl::get(url(path)).header("Host", "rebound.example").send();
        assert_eq!(rebound.status, 421, "{path}: {}", rebound.text());
        let local = Curl::get(url(path)).header("Host", &format!("localhost:{}", world.sidecar.health_port())).send();
        assert_eq!(local.status, 200);
    }
}

#[test]
fn a_socket_that_was_asked_for_and_cannot_be_made_keeps_it_from_starting() {
    let Some(world) = world() else { return };
    let at = |path: &str| {
        Setup::new(&world.openid, &world.tool).with(|config| config["listen"]["admin"] = json!({"unix": path}))
    };
    let ran = at("missing/admin.sock").run();
    assert_eq!(ran.code, Some(69), "{}", ran.stderr);
    assert!(ran.stderr.contains("missing/admin.sock"), "{}", ran.stderr);
    let named = at("operator.sock").start();
    assert_eq!(status(&named.directory().join("operator.sock"))["ready"], true);
    assert!(!socket(&named).exists());
    // Nobody asked for the one beside the ledger.
    let occupied = Setup::new(&world.openid, &world.tool);
    fs::create_dir(occupied.directory().join("admin.sock")).unwrap();
    let sidecar = occupied.start();
    assert!(sidecar.daemon.output().contains("there is no admin socket"));
}
