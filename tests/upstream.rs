//! The connection to the tool: both versions of HTTP on either side, certificates that are not what they should be,
//! answers that are rare, broken or hostile, and what of all that reaches the agent and the record.

mod agent;
mod broken;
mod flow;
mod leads;
mod matrix;
mod raw;
mod secured;
mod shared;

use serde_json::{Value, json};

/// Makes the probing actions reach the tool's odd answers, whatever their method.
fn odd(config: &mut Value) {
    let actions = &mut config["tools"]["orders"]["actions"];
    for (name, request) in [
        ("probe.echo", "GET /v1/odd/{name}"),
        ("probe.status", "HEAD /v1/odd/{name}"),
        ("probe.upload", "POST /v1/odd/{name}"),
    ] {
        actions[name]["match"] = json!(request);
    }
    config["tools"]["orders"]["timeout"] = json!("10s");
}

/// How one call ended, by the record.
fn settled(records: &[Value], id: &str) -> Option<Value> {
    records.iter().find(|record| record["kind"] == "call.settled" && record["decision_id"] == id).cloned()
}
