//! OCSF API Activity (class 6003, checked against 1.9.0-dev): the user is the actor, the agent the `ai_agent`, and the
//! decision the `security_control`. What OCSF has no place for is in `unmapped`, the chain above all.

use serde_json::{Value, json};

use super::{Beside, Object, member};
use crate::{read::Entry, record::kind};

const VERSION: &str = "1.9.0-dev";
const CATEGORY: u64 = 6;
const CLASS: u64 = 6003;

/// The members of a decision that have no place in the class.
const UNMAPPED: [&str; 14] = [
    "agents",
    "asserted",
    "effect",
    "entry",
    "explanation",
    "grant_id",
    "mode",
    "partial",
    "passthrough",
    "reasons",
    "rung",
    "stage_reached",
    "task_id",
    "tenant",
];

pub(super) fn event(entry: &Entry, beside: Beside<'_>) -> Option<Value> {
    if entry.kind != kind::CALL_DECIDED {
        return None;
    }
    let permitted = entry.text("decision") == Some("permit");
    let (activity, activity_name) = activity(entry.text("method").unwrap_or_default());
    let event = Object::default()
        .put("category_uid", CATEGORY)
        .put("category_name", "Application Activity")
        .put("class_uid", CLASS)
        .put("class_name", "API Activity")
        .put("activity_id", activity)
        .put("activity_name", activity_name)
        .put("type_uid", CLASS * 100 + activity)
        .put("severity_id", 1)
        .put("severity", "Informational")
        .put("time", entry.time.as_millisecond())
        .put("metadata", metadata(entry))
        .put("status_id", if permitted { 1 } else { 2 })
        .maybe("status_code", member(entry, "code"))
        .maybe("status_detail", entry.text_at("/explanation/detail"))
        .put("action_id", if permitted { 1 } else { 2 })
        .put("disposition_id", if permitted { 1 } else { 2 })
        .filled("policy", Object::default().maybe("uid", entry.text_at("/revisions/policy")))
        .put("actor", actor(entry, beside))
        .filled("ai_agent", ai_agent(entry))
        .put("src_endpoint", Object::default().put("svc_name", entry.text_at("/agent/id").unwrap_or("unknown")))
        .put("api", api(entry))
        .filled("http_request", http_request(entry))
        .maybe("resources", entry.text("resource").map(|resource| json!([{"name": resource}])))
        .filled("trace", trace(entry))
        .put("unmapped", unmapped(entry, beside));
    Some(event.into())
}

fn activity(method: &str) -> (u64, &'static str) {
    match method {
        "POST" => (1, "Create"),
        "GET" | "HEAD" | "OPTIONS" => (2, "Read"),
        "PUT" | "PATCH" => (3, "Update"),
        "DELETE" => (4, "Delete"),
        "" => (0, "Unknown"),
        _ => (99, "Other"),
    }
}

fn metadata(entry: &Entry) -> Object {
    let product = Object::default()
        .put("name", "Countersign")
        .put("vendor_name", "Countersign")
        .maybe("version", entry.text_at("/revisions/binary"));
    Object::default()
        .put("version", VERSION)
        .put("profiles", json!(["ai_operation", "security_control", "trace"]))
        .put("product", product)
        .maybe("uid", member(entry, "decision_id"))
        .put("sequence", entry.seq)
        .put("log_name", "ledger")
}

/// At least one identity: where the user was erased or never known, the agent's is left.
fn actor(entry: &Entry, beside: Beside<'_>) -> Object {
    let user = Object::default()
        .maybe("uid", entry.text_at("/user/id"))
        .maybe("domain", entry.text_at("/user/issuer"))
        .filled("org", Object::default().maybe("uid", entry.text_at("/user/tenant")));
    let client = beside.token.and_then(|token| token.text_at("/token/client_id"));
    Object::default()
        .filled("user", user)
        .filled("session", Object::default().maybe("uid", member(entry, "task_id")))
        .put("app_name", entry.text_at("/agent/id").unwrap_or("unknown"))
        .maybe("app_uid", client)
}

fn ai_agent(entry: &Entry) -> Object {
    Object::default().maybe("uid", entry.text_at("/agent/id")).maybe("instance_uid", member(entry, "run_id"))
}

fn api(entry: &Entry) -> Object {
    let operation = entry.text("action").or(entry.text("method")).unwrap_or("unknown");
    Object::default()
        .put("operation", operation)
        .filled("service", Object::default().maybe("name", member(entry, "tool")))
        .filled("request", Object::default().maybe("uid", member(entry, "decision_id")))
}

fn http_request(entry: &Entry) -> Object {
    Object::default()
        .maybe("http_method", member(entry, "method"))
        .filled("url", Object::default().maybe("path", member(entry, "path")))
}

fn trace(entry: &Entry) -> Object {
    Object::default()
        .maybe("uid", member(entry, "trace_id"))
        .filled("span", Object::default().maybe("uid", member(entry, "span_id")))
}

fn unmapped(entry: &Entry, beside: Beside<'_>) -> Object {
    let object = UNMAPPED.into_iter().fold(Object::default(), |object, name| object.maybe(name, member(entry, name)));
    let chain = beside.token.and_then(|token| member(token, "chain"));
    let object = object.maybe("delegation_chain", chain);
    if entry.erased.is_empty() { object } else { object.put("erased", entry.erased.clone()) }
}
