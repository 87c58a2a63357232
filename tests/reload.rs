//! Configuration and policy that change while calls come in: what is good is taken whole, what is not changes nothing.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use serde_json::{Value, json};

use crate::support::{
    Sidecar, World, eventually, http, mark,
    sidecar::{POLICY, Setup},
    tool::values,
    world,
};

const TEAM: &str = "policies/support/support.rego";
const ORDER: &str = "/orders/v1/orders/17";

/// Denies everything, in the name of `code`.
fn closed(code: &str) -> String {
    format!("{POLICY}\ndeny contains {{\"code\": \"{code}\"}}\n")
}

/// Puts a file in the place of another at once, as a deployment does.
pub(crate) fn put(sidecar: &Sidecar, name: &str, text: &str) {
    let path = sidecar.directory().join(name);
    let next = sidecar.directory().join("next");
    fs::write(&next, text).unwrap();
    fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(next, path).unwrap();
}

fn change_config(sidecar: &Sidecar, change: impl FnOnce(&mut Value)) {
    let path = sidecar.directory().join("countersign.yaml");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    change(&mut config);
    put(sidecar, "countersign.yaml", &config.to_string());
}

/// How often a reload came out so.
fn reloads(sidecar: &Sidecar, outcome: &str) -> u64 {
    let wanted = format!("countersign_reload_total{{outcome=\"{outcome}\"}} ");
    // They are counted a moment after the sidecar says that it is ready.
    let count = eventually(&wanted, || {
        let metrics = sidecar.metrics();
        metrics.lines().find_map(|line| line.strip_prefix(&wanted)).map(str::to_owned)
    });
    count.parse().unwrap()
}

/// Does `change`, asks for a reload and waits until one came out as `outcome`.
pub(crate) fn reload(sidecar: &Sidecar, outcome: &str, change: impl FnOnce(&Sidecar)) {
    let before = reloads(sidecar, outcome);
    change(sidecar);
    sidecar.daemon.signal("HUP");
    eventually(outcome, || (reloads(sidecar, outcome) > before).then_some(()));
}

pub(crate) fn on_disk(sidecar: &Sidecar) -> Value {
    let ready = http::get(sidecar.health_port(), "/readyz");
    ready.went(200);
    ready.json()["checks"]["configuration"]["on_disk"].clone()
}

fn start(world: &World) -> Sidecar {
    Setup::new(&world.openid, &world.tool).start()
}

#[test]
fn a_changed_policy_decides_the_next_call_and_is_on_record() {
    let Some(world) = world() else { return };
    let sidecar = start(world);
    let token = world.openid.delegated("alice");
    let before = sidecar.get(ORDER, &token).send();
    before.went(200);
    // Nobody asks: the files are watched.
    put(&sidecar, TEAM, &closed("closed_today"));
    eventually("the policy to be taken", || (reloads(&sidecar, "taken") == 1).then_some(()));
    let after = sidecar.get(ORDER, &token).send();
    after.refused(403, "policy_denied");
    assert_eq!(after.json()["reasons"][0]["code"], "closed_today", "{}", after.text());
    let revision = |record: &Value| record["revisions"]["policy"].as_str().unwrap().to_owned();
    let (old, new) = (revision(&sidecar.decided(&before)), revision(&sidecar.decided(&after)));
    assert_ne!(old, new);
    let activated: Vec<Value> =
        sidecar.query(&[]).into_iter().filter(|record| record["kind"] == "policy.activated").collect();
    let activated: Vec<&str> = activated.iter().map(|record| record["revision"].as_str().unwrap()).collect();
    assert_eq!(activated, [&old, &new]);
    assert!(sidecar.metrics().contains(&format!("countersign_policy_info{{bundle=\"support\",revision=\"{new}\"}} 1")));
    assert_eq!(sidecar.query(&[]).iter().filter(|record| record["kind"] == "config.activated").count(), 1);
}

#[test]
fn a_broken_policy_changes_nothing_until_it_is_mended() {
    let Some(world) = world() else { return };
    let sidecar = start(world);
    let token = world.openid.delegated("alice");
    reload(&sidecar, "refused", |sidecar| {
        put(sidecar, TEAM, "package countersign.teams.support\n\nallow contains {\n");
    });
    sidecar.get(ORDER, &token).send().went(200);
    assert_eq!(on_disk(&sidecar), "refused");
    assert!(sidecar.metrics().lines().any(|line| line == "countersign_reload_refused 1"));
    let said = sidecar.daemon.output();
    assert!(said.contains("support.rego:4") && said.contains("stays in force"), "{said}");
    reload(&sidecar, "taken", |sidecar| put(sidecar, TEAM, &closed("mended")));
    sidecar.get(ORDER, &token).send().refused(403, "policy_denied");
    assert_eq!(on_disk(&sidecar), "in_force");
    assert!(sidecar.metrics().contains("countersign_reload_refused 0"));
}

#[test]
fn what_is_wrong_is_said_once_while_it_stays_so() {
    let Some(world) = world() else { return };
    let sidecar = start(world);
    put(&sidecar, TEAM, "package countersign.teams.support\n\nallow contains {\n");
    let said = || sidecar.daemon.output().matches("stays in force").count();
    eventually("the policy to be refused", || (said() == 1).then_some(()));
    // Written again as it was, it is the same mistake; the next one is another.
    put(&sidecar, TEAM, "package countersign.teams.support\n\nallow contains {\n");
    put(&sidecar, TEAM, "package countersign.teams.support\n\n\n\nallow contains {\n");
    eventually("the other mistake to be refused", || (said() == 2).then_some(()));
    sidecar.get(ORDER, &world.openid.delegated("alice")).send().went(200);
}

#[test]
fn an_action_that_is_added_can_be_called_and_the_configuration_is_on_record() {
    let Some(world) = world() else { return };
    let mut echo = Value::Null;
    let take_out = |config: &mut Value| {
        let actions = config["tools"]["orders"]["actions"].as_object_mut().unwrap();
        echo = actions.remove("probe.echo").unwrap();
    };
    let sidecar = Setup::new(&world.openid, &world.tool).with(take_out).start();
    let token = world.probe();
    let before = sidecar.get("/orders/v1/echo/a", &token).send();
    before.refused(403, "unmapped_action");
    reload(&sidecar, "taken", |sidecar| {
        change_config(sidecar, |config| config["tools"]["orders"]["actions"]["probe.echo"] = echo.clone());
    });
    let after = sidecar.get("/orders/v1/echo/a", &token).send();
    after.went(200);
    let revisions = sidecar.decided(&after)["revisions"].clone();
    let records = sidecar.query(&[]);
    let last = records.iter().rfind(|record| record["kind"] == "config.activated").unwrap();
    assert_eq!((&last["revision"], &last["catalogue"]), (&revisions["config"], &revisions["catalogue"]));
    assert_ne!(sidecar.decided(&before)["revisions"]["config"], revisions["config"]);
}

#[test]
fn an_agent_that_is_no_longer_registered_is_refused_at_once() {
    let Some(world) = world() else { return };
    let sidecar = start(world);
    let token = world.openid.delegated("alice");
    sidecar.get(ORDER, &token).send().went(200);
    reload(&sidecar, "taken", |sidecar| {
        change_config(sidecar, |config| {
            config["agents"].as_array_mut().unwrap().retain(|agent| agent["id"] != "support-v1");
        });
    });
    sidecar.get(ORDER, &token).send().refused(403, "unknown_agent");
}

#[test]
fn a_secret_that_is_rotated_is_presented_without_a_reload() {
    let Some(world) = world() else { return };
    let sidecar = start(world);
    let token = world.openid.delegated("alice");
    put(&sidecar, "tool-credential", "the-next-credential");
    eventually("the next credential to be presented", || {
        let mark = mark();
        sidecar.get(ORDER, &token).header("X-Mark", &mark).send().went(200);
        (values(&world.tool.marked(&mark)[0], "authorization") == ["Bearer the-next-credential"]).then_some(())
    });
    assert_eq!(reloads(&sidecar, "taken"), 0, "a secret is no part of the configuration");
}

#[test]
fn certificate_authorities_that_are_exchanged_are_believed_from_the_next_call_on() {
    let Some(world) = world() else { return };
    let setup = Setup::new(&world.openid, &world.tool);
    let right = fs::read_to_string(setup.config["tls"]["authorities"].as_str().unwrap()).unwrap();
    let other = rcgen::generate_simple_self_signed(["other".to_owned()]).unwrap().cert.pem();
    setup.write_secret("authorities.pem", &right);
    let sidecar = setup.with(|config| config["tls"]["authorities"] = json!("authorities.pem")).start();
    let token = world.openid.delegated("alice");
    sidecar.get(ORDER, &token).send().went(200);
    reload(&sidecar, "taken", |sidecar| put(sidecar, "authorities.pem", &other));
    // Not even by the connection that the earlier call left open.
    sidecar.get(ORDER, &token).send().refused(502, "tool_unreachable");
    reload(&sidecar, "refused", |sidecar| put(sidecar, "authorities.pem", "no certificate"));
    reload(&sidecar, "taken", |sidecar| put(sidecar, "authorities.pem", &right));
    sidecar.get(ORDER, &token).send().went(200);
}

#[test]
fn what_only_a_restart_can_change_is_refused_and_named() {
    let Some(world) = world() else { return };
    let sidecar = start(world);
    reload(&sidecar, "refused", |sidecar| {
        put(sidecar, TEAM, &closed("not_yet"));
        change_config(sidecar, |config| config["listen"]["agent"]["tcp"] = json!("127.0.0.1:1"));
    });
    let said = sidecar.daemon.output();
    assert!(said.contains("`listen.agent.tcp` needs a restart"), "{said}");
    sidecar.get(ORDER, &world.openid.delegated("alice")).send().went(200);
}

#[test]
fn no_call_fails_while_policies_change_under_load() {
    let Some(world) = world() else { return };
    let sidecar = start(world);
    let token = format!("Bearer {}", world.openid.delegated("alice"));
    let stream = sidecar.get("/orders/v1/stream?count=40&every=100", &world.probe());
    let stream = stream.command().stdout(std::process::Stdio::piped()).spawn().unwrap();
    let (over, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    let answer = sidecar.plain_get(ORDER, &[("authorization", &token)]);
                    answer.went(200);
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // Whatever fails in here, the others have to end.
        let reloading = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..4 {
                let policy = format!("{POLICY}\nallow contains {{\"code\": \"round_{round}\"}} if true\n");
                reload(&sidecar, "taken", |sidecar| put(sidecar, TEAM, &policy));
            }
        }));
        over.store(true, Ordering::Release);
        reloading.unwrap();
    });
    assert!(calls.load(Ordering::Relaxed) > 0);
    let output = stream.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("\"n\":40"), "the stream was cut: {text}");
}
