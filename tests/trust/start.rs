//! What a sidecar and an authority refuse to start with, and that they say what to change.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

use serde_json::json;

use crate::support::{
    World, eventually, mark as mark_of_a_call, process,
    sidecar::{Setup, TOOL_SECRET},
    world,
};

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What the sidecar says instead of starting, after `spoil` of what a run before it left.
#[track_caller]
fn refuses(world: &World, spoil: impl FnOnce(&Setup)) -> String {
    let mut sidecar = Setup::new(&world.openid, &world.tool).start();
    sidecar.stop();
    let setup = sidecar.into_setup();
    let config = setup.write();
    spoil(&setup);
    let ran = process::run(process::countersign().arg("sidecar").arg("--config").arg(config));
    assert_eq!(ran.code, Some(78), "{}{}", ran.stdout, ran.stderr);
    let line = ran.stderr.lines().find(|line| line.starts_with("countersign: ")).unwrap_or_default().to_owned();
    assert!(!line.is_empty(), "{}", ran.stderr);
    line
}

#[test]
fn what_others_can_read_or_change_keeps_it_from_starting_and_it_says_what_to_change() {
    let Some(world) = world() else { return };
    for (name, open, remedy) in [
        ("countersign.yaml", 0o640, "chmod 600"),
        ("countersign.yaml", 0o604, "chmod 600"),
        ("tool-credential", 0o644, "chmod 600"),
        ("tool-credential", 0o620, "chmod 600"),
        ("ledger", 0o750, "chmod 700"),
        ("ledger", 0o701, "chmod 700"),
        ("ledger.key", 0o640, "chmod 600"),
        ("policies/support/support.rego", 0o666, "chmod go-w"),
        ("policies/org", 0o777, "chmod go-w"),
    ] {
        let said = refuses(world, |setup| mode(&setup.directory().join(name), open));
        assert!(said.contains(remedy) && said.contains(name), "{name} {open:o}: {said}");
    }
}

#[test]
fn what_somebody_else_owns_is_theirs() {
    let Some(world) = world() else { return };
    if !process::is_root() {
        return crate::support::skipped("somebody else", "only root can give a file away");
    }
    for name in ["countersign.yaml", "tool-credential", "ledger", "ledger.key", "policies/org/org.rego"] {
        let said = refuses(world, |setup| chown(setup.directory().join(name), Some(64_102), None).unwrap());
        assert!(said.contains(name) && said.contains("owned by root or the user that runs this"), "{name}: {said}");
    }
}

#[test]
fn it_does_not_run_as_the_user_that_agents_run_as() {
    let Some(world) = world() else { return };
    let me = std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap());
    let refused = |setup: Setup| {
        let ran = setup.run();
        assert_eq!(ran.code, Some(78), "{}", ran.stderr);
        ran.stderr
    };
    let listed = Setup::new(&world.openid, &world.tool).with(|config| config["sidecar"]["agent_uids"] = json!([me]));
    let said = refused(listed);
    assert!(said.contains("sidecar.agent_uids") && said.contains("a user of its own"), "{said}");
    let socket = Setup::new(&world.openid, &world.tool)
        .with(|config| config["listen"]["agent"] = json!({"unix": "agent.sock", "allow_uids": [me, me + 1]}));
    let said = refused(socket);
    assert!(said.contains("listen.agent.allow_uids") && said.contains("a user of its own"), "{said}");
    // A check may be made by somebody else, somewhere else.
    let elsewhere = Setup::new(&world.openid, &world.tool).with(|config| config["sidecar"]["agent_uids"] = json!([me]));
    process::run(process::countersign().args(["config", "check"]).arg(elsewhere.write())).well();
    let other = Setup::new(&world.openid, &world.tool).with(|config| config["sidecar"]["agent_uids"] = json!([me + 1]));
    assert!(other.start().is_ready());
}

#[test]
fn a_check_says_that_a_configuration_others_can_read_would_not_start() {
    let Some(world) = world() else { return };
    let setup = Setup::new(&world.openid, &world.tool);
    let path = setup.write();
    mode(&path, 0o644);
    let said = process::run(process::countersign().args(["config", "check"]).arg(&path)).well();
    assert!(said.contains("would not start") && said.contains("chmod 600"), "{said}");
}

#[test]
fn a_configuration_that_others_can_read_from_now_on_is_not_taken() {
    let Some(world) = world() else { return };
    let sidecar = Setup::new(&world.openid, &world.tool).start();
    let path = sidecar.directory().join("countersign.yaml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}\n")).unwrap();
    mode(&path, 0o644);
    eventually("the refusal", || {
        sidecar.daemon.signal("HUP");
        std::thread::sleep(std::time::Duration::from_millis(50));
        sidecar.daemon.output().contains("chmod 600").then_some(())
    });
    assert!(sidecar.is_ready(), "what was in force goes on");
}

#[test]
fn a_secret_that_is_exchanged_for_one_that_others_can_read_is_not_used() {
    let Some(world) = world() else { return };
    let sidecar = Setup::new(&world.openid, &world.tool).start();
    let token = world.openid.delegated("alice");
    let exchange = |open: u32| {
        let next = sidecar.directory().join("next");
        fs::write(&next, TOOL_SECRET).unwrap();
        mode(&next, open);
        fs::rename(next, sidecar.directory().join("tool-credential")).unwrap();
    };
    let call = |mark: &str| sidecar.get("/orders/v1/orders/17", &token).header("X-Mark", mark).send();
    // It is looked at once a second.
    let until = |wanted: u16| {
        eventually("the secret to be looked at", || Some(call("looking")).filter(|answer| answer.status == wanted))
    };
    exchange(0o644);
    until(503).refused(503, "credential_unavailable");
    let mark = mark_of_a_call();
    call(&mark).refused(503, "credential_unavailable");
    assert!(world.tool.marked(&mark).is_empty());
    exchange(0o600);
    until(200);
}

#[test]
fn an_authority_is_as_careful() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    process::run(process::countersign().args(["demo", "--json", "--data"]).arg(&data)).well();
    let refuses = |name: &str, open: u32, closed: u32, remedy: &str| {
        mode(&data.join(name), open);
        let ran =
            process::run(process::countersign().arg("authority").arg("--config").arg(data.join("authority.yaml")));
        mode(&data.join(name), closed);
        assert_eq!(ran.code, Some(78), "{name}: {}", ran.stderr);
        assert!(ran.stderr.contains(remedy) && ran.stderr.contains(name), "{name}: {}", ran.stderr);
    };
    refuses("authority.yaml", 0o644, 0o600, "chmod 600");
    refuses("authority/keys", 0o755, 0o700, "chmod 700");
    refuses("authority/ledger", 0o755, 0o700, "chmod 700");
    refuses("store.yaml", 0o666, 0o600, "chmod go-w");
}
