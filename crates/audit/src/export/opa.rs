//! OPA's decision log: what policy was asked, with which input, under which revisions, and what it said.

use serde_json::{Value, json};

use super::{Beside, Object, member};
use crate::{read::Entry, record::kind};

/// The rule whose decision is logged.
const PATH: &str = "countersign/decision";

pub(super) fn event(entry: &Entry, beside: Beside<'_>) -> Option<Value> {
    let asked = entry.kind == kind::CALL_DECIDED && !entry.fields.contains_key("partial");
    if !asked {
        return None;
    }
    let revision = |name: &str| entry.text_at(&format!("/revisions/{name}"));
    let bundle = |revision: &str| json!({"revision": revision});
    let bundles = Object::default()
        .maybe("policy", revision("policy").map(bundle))
        .maybe("catalogue", revision("catalogue").map(bundle));
    let result = Object::default()
        .maybe("decision", member(entry, "decision"))
        .maybe("code", member(entry, "code"))
        .put("reasons", member(entry, "reasons").unwrap_or_else(|| json!([])));
    let took = entry.fields.get("timings").and_then(|timings| timings.get("decide")).and_then(Value::as_u64);
    // Without its input a decision cannot be made again; OPA names what is not there by paths from the event's root.
    let mut erased = Vec::new();
    if beside.input.is_none() {
        erased.push("/input".to_owned());
    }
    let event = Object::default()
        .put("labels", Object::default().put("app", "countersign").maybe("version", revision("binary")))
        .maybe("decision_id", member(entry, "decision_id"))
        .maybe("trace_id", member(entry, "trace_id"))
        .maybe("span_id", member(entry, "span_id"))
        .filled("bundles", bundles)
        .put("path", PATH)
        .maybe("input", beside.input.cloned())
        .put("result", result)
        .maybe("requested_by", entry.text_at("/agent/id"))
        .put("timestamp", entry.time.to_string())
        .filled("metrics", Object::default().maybe("timer_rego_query_eval_ns", took.map(|took| took * 1000)));
    Some(if erased.is_empty() { event } else { event.put("erased", erased) }.into())
}
