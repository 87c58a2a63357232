//! The agent on the same machine: another user, with everything that it is given, trying everything else.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Output, Stdio},
};

use serde_json::json;

use crate::support::{
    Answer, Sidecar, World, eventually,
    process::{self, Daemon},
    sidecar::Setup,
    skipped,
    tool::Tool,
    world,
};

/// The sidecar's user and the agent's. Nobody on the machine has these numbers.
pub(super) const SIDECAR: u32 = 64_107;
pub(super) const AGENT: u32 = 64_108;

/// `curl`, and whatever else the agent runs.
pub(super) fn agent_runs(program: &str, arguments: &[&str]) -> Output {
    process::as_user(AGENT, program).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// What the agent's `curl` of `url` with `token` was answered; `None` where nothing answered.
pub(super) fn agent_calls(url: &str, token: &str) -> Option<Answer> {
    let bearer = format!("Authorization: Bearer {token}");
    let output =
        agent_runs("curl", &["--silent", "--include", "--noproxy", "*", "--max-time", "10", "-H", &bearer, url]);
    if !output.status.success() {
        return None;
    }
    let end = output.stdout.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some(Answer::new(&String::from_utf8_lossy(&output.stdout[..end]), output.stdout[end + 4..].to_vec()))
}

/// A sidecar that runs as a user of its own, knows who the agents are, and lies where everybody may look.
pub(super) fn apart(world: &World, tool: &Tool) -> Sidecar {
    let mut setup = Setup::new(&world.openid, tool);
    setup.user = Some(SIDECAR);
    setup.config["sidecar"]["agent_uids"] = json!([AGENT]);
    fs::set_permissions(setup.directory(), fs::Permissions::from_mode(0o755)).unwrap();
    setup.start()
}

/// What of everything below `directory` the agent can do something with (`-readable`, `-writable`).
fn open_to_the_agent(directory: &Path, how: &str) -> Vec<String> {
    let found = agent_runs("find", &[directory.to_str().unwrap(), "-mindepth", "1", "-not", "-type", "l", how]);
    String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn the_agent_reads_no_secret_and_opens_nothing_but_the_agents_listener() {
    let Some(world) = world() else { return };
    if !process::is_root() {
        return skipped("the agent's user", "only root can become somebody else");
    }
    let Some(tool) = Tool::plain() else { return };
    let sidecar = apart(world, &tool);
    let token = world.openid.delegated("alice");
    let call = agent_calls(&sidecar.url("/orders/v1/orders/17"), &token).expect("the agent is let through");
    call.went(200);

    let directory = sidecar.directory();
    for path in open_to_the_agent(directory, "-readable") {
        // Policies say what is allowed and are no secret; the last is this test's own.
        let known = path.contains("/policies") || path.ends_with("/sidecar.log");
        assert!(known, "the agent can read {path}");
    }
    assert_eq!(open_to_the_agent(directory, "-writable"), Vec::<String>::new());
    for secret in ["countersign.yaml", "tool-credential", "ledger.key", "ledger", "ledger/ledger.json", "admin.sock"] {
        assert!(directory.join(secret).exists(), "{secret}");
        let output = agent_runs("cat", &[directory.join(secret).to_str().unwrap()]);
        assert!(!output.status.success() && output.stdout.is_empty(), "the agent reads {secret}");
    }
    let socket = directory.join("admin.sock");
    let asked = agent_runs("curl", &["--silent", "--unix-socket", socket.to_str().unwrap(), "http://localhost/status"]);
    assert!(!asked.status.success() && asked.stdout.is_empty());
    // What the network shows of it names nobody.
    let metrics = sidecar.metrics();
    assert!(!metrics.contains("alice") && !metrics.contains("support-v1"), "{metrics}");
}

#[test]
fn the_agents_token_is_good_in_one_place_and_in_its_own_hands() {
    let Some(world) = world() else { return };
    let (Some(tool), Some(other)) = (Tool::plain(), Tool::plain()) else { return };
    let billing = Setup::new(&world.openid, &other)
        .with(|config| config["sidecar"]["audience"] = json!("urn:example:countersign:billing"))
        .start();
    let token = world.openid.delegated("alice");
    billing.get("/orders/v1/orders/17", &token).send().refused(401, "wrong_audience");
    assert_eq!(other.requests().len(), 0);

    let here = Setup::new(&world.openid, &tool).start();
    here.get("/orders/v1/orders/17", &token).send().went(200);
    // Bound to a certificate that whoever sends it here does not have.
    let thumbprint = "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2";
    let bound = world.openid.sign(&json!({"like": token, "claims": {"cnf": {"x5t#S256": thumbprint}}}));
    here.get("/orders/v1/orders/17", &bound).send().refused(401, "wrong_sender");
    // A tool that is shown the agent's token does not know it.
    for request in tool.requests() {
        assert!(!request.to_string().contains(&token), "{request}");
    }
}

#[test]
fn the_demo_gives_its_agent_tokens_and_nothing_else() {
    if !process::is_root() {
        return skipped("the agent's user", "only root can become somebody else");
    }
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let data = directory.path().join("data");
    let mut command = process::countersign_as(SIDECAR);
    command.current_dir("/").args(["demo", "--serve", "--data"]).arg(&data);
    let demo = Daemon::start(&mut command, &directory.path().join("demo.log"));
    let output = eventually("the demo's guide", || Some(demo.output()).filter(|text| text.contains("Ctrl-C stops")));
    let url = output
        .split_whitespace()
        .find(|word| word.starts_with("http://127.0.0.1:") && word.ends_with("/orders/v1/orders/17"))
        .unwrap();
    let header = fs::read_to_string(data.join("tokens/support-v2.header")).unwrap();
    let token = header.trim().rsplit(' ').next().unwrap();
    agent_calls(url, token).expect("the agent is let through").went(200);
    agent_calls(&format!("{url}/notes"), token).expect("an answer").refused(403, "unmapped_action");

    assert_eq!(open_to_the_agent(directory.path(), "-readable"), [directory.path().join("demo.log").to_str().unwrap()]);
    assert!(!agent_runs("ls", &[data.to_str().unwrap()]).status.success());
    // The orders API itself, found in the configuration, wants a credential that the agent does not have.
    let config = fs::read_to_string(data.join("countersign.yaml")).unwrap();
    let upstream = config.lines().find_map(|line| line.trim().strip_prefix("upstream: ")).unwrap().trim_matches('"');
    let direct = agent_calls(&format!("{upstream}/v1/orders/17"), token).expect("the orders API is there");
    assert_eq!(direct.status, 401, "{}", direct.text());
    let id = demo.id().to_string();
    for file in ["environ", "maps", "mem"] {
        assert!(!agent_runs("head", &["--bytes=1", &format!("/proc/{id}/{file}")]).status.success(), "{file}");
    }
}
