//! Clients as agents' developers use them: Python's `requests` and `httpx`, over both versions of HTTP, and Node's own
//! `fetch`. Each does the same errand through the sidecar, and sees the same.

use std::{
    collections::BTreeSet,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::support::{Sidecar, mark, root, sidecar::Setup, skipped, world};

/// Does the errand; what the client saw, and the sidecar that was between.
fn errand(client: &mut Command) -> Option<(Value, Sidecar)> {
    let world = world()?;
    let hasty = |config: &mut Value| config["tools"]["orders"]["timeout"] = json!("1s");
    let sidecar = Setup::new(&world.openid, &world.tool).with(hasty).start();
    let asked = json!({
        "base": format!("http://127.0.0.1:{}", sidecar.port()),
        "token": world.openid.delegated("alice"),
        "probe": world.probe(),
        "mark": mark(),
    });
    let mut child = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(asked.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some((serde_json::from_slice(&output.stdout).unwrap(), sidecar))
}

fn python(library: &str) -> Option<Command> {
    let home = root().join("tests/parts/clients");
    if !Path::exists(&home.join("packages/installed")) {
        skipped("clients", "its Python packages are not installed: run `.ci/run parts`");
        return None;
    }
    let mut command = Command::new("python3");
    command.arg(home.join("agent.py")).arg(library);
    Some(command)
}

/// What every client should have seen, and the record of it.
#[track_caller]
fn as_it_should_be(seen: &Value, sidecar: &Sidecar, version: &str) {
    assert_eq!(seen["version"], version);
    let step = |name: &str| (seen[name]["status"].clone(), &seen[name]["json"]);
    assert_eq!(step("read").0, 200, "{seen}");
    assert_eq!(step("read").1["customer"]["id"], "alice");
    assert_eq!(step("refund").0, 201, "{seen}");
    assert_eq!(step("refund").1["refund"], "refund-of-17");
    refusal(&seen["too_much"], 403, "limit_exceeded");
    assert_eq!(seen["too_much"]["json"]["allowed"]["amount"]["max"], "50.00");
    assert_eq!(seen["too_much"]["retry_after"], Value::Null);
    refusal(&seen["no_token"], 401, "no_credential");
    refusal(&seen["later"], 504, "tool_timeout");
    assert_eq!((&seen["later"]["json"]["retry"], &seen["later"]["retry_after"]), (&json!("after"), &json!("5")));
    assert_eq!((step("upload").0, &step("upload").1["bytes"]), (json!(200), &json!(64 * 4096)), "{seen}");
    assert_eq!((step("missing").0, step("missing").1), (json!(404), &json!({"error": "no such order"})));
    assert_eq!((step("led").0, &step("led").1["url"]), (json!(200), &json!("/v1/echo/there")), "{seen}");
    assert_eq!(seen["stream"]["events"], json!([1, 2, 3]));
    assert_eq!(seen["after"], json!(vec![200; 10]));

    let settled = sidecar.settled(seen["stream"]["decision_id"].as_str().unwrap());
    assert_eq!(settled["outcome"], "client_gone", "{settled}");
    let records = sidecar.query(&[]);
    let decided = |id: &Value| {
        let record = records.iter().find(|record| record["kind"] == "call.decided" && record["decision_id"] == *id);
        record.unwrap_or_else(|| panic!("{id} is not on record"))["decision"].clone()
    };
    assert_eq!(decided(&seen["refund"]["decision_id"]), "permit");
    assert_eq!(decided(&seen["too_much"]["decision_id"]), "deny");
    let Some(together) = seen["together"].as_array() else { return };
    let ids: BTreeSet<&str> = together.iter().map(|answer| answer[1].as_str().unwrap()).collect();
    assert!(together.iter().all(|answer| answer[0] == 200) && ids.len() == 20, "{together:?}");
}

#[track_caller]
fn refusal(seen: &Value, status: u16, code: &str) {
    assert_eq!((&seen["status"], &seen["type"]), (&json!(status), &json!("application/problem+json")), "{seen}");
    let problem = &seen["json"];
    assert_eq!(problem["type"], format!("urn:countersign:denial:{code}"));
    assert_eq!((&problem["code"], &problem["decision_id"]), (&json!(code), &seen["decision_id"]));
}

#[test]
fn requests_is_served() {
    let Some(mut client) = python("requests") else { return };
    let Some((seen, sidecar)) = errand(&mut client) else { return };
    as_it_should_be(&seen, &sidecar, "HTTP/1.1");
}

#[test]
fn httpx_is_served() {
    let Some(mut client) = python("httpx") else { return };
    let Some((seen, sidecar)) = errand(&mut client) else { return };
    as_it_should_be(&seen, &sidecar, "HTTP/1.1");
}

#[test]
fn httpx_is_served_over_http_2() {
    let Some(mut client) = python("httpx2") else { return };
    let Some((seen, sidecar)) = errand(&mut client) else { return };
    as_it_should_be(&seen, &sidecar, "HTTP/2");
}

#[test]
fn the_fetch_of_node_is_served() {
    let mut client = Command::new("node");
    client.arg(root().join("tests/parts/clients/fetch.mjs"));
    let Some((seen, sidecar)) = errand(&mut client) else { return };
    as_it_should_be(&seen, &sidecar, "HTTP/1.1");
}
