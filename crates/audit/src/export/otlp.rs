//! OTLP/JSON: each record is one log event, named and attributed like those that a running sidecar sends.

use serde_json::{Value, json};

use crate::{read::Entry, record::kind};

/// The severities of the OpenTelemetry log data model.
const INFO: (u8, &str) = (9, "INFO");
const WARN: (u8, &str) = (13, "WARN");

pub(super) fn event(entry: &Entry) -> Value {
    let (number, severity) = if entry.kind == kind::ALERT_RAISED { WARN } else { INFO };
    let time = entry.time.as_nanosecond().to_string();
    let mut attributes = vec![attribute("countersign.ledger.seq", &entry.seq.into())];
    for (name, value) in &entry.fields {
        if !matches!(name.as_str(), "trace_id" | "span_id") {
            attributes.extend(attributes_of(name, value));
        }
    }
    if !entry.erased.is_empty() {
        attributes.push(attribute("countersign.erased", &json!(entry.erased)));
    }
    let mut record = json!({
        "timeUnixNano": time,
        "observedTimeUnixNano": time,
        "severityNumber": number,
        "severityText": severity,
        "eventName": format!("countersign.{}", entry.kind),
        "attributes": attributes,
    });
    if let (Some(record), Some(trace), Some(span)) =
        (record.as_object_mut(), entry.text("trace_id"), entry.text("span_id"))
    {
        record.insert("traceId".to_owned(), trace.into());
        record.insert("spanId".to_owned(), span.into());
    }
    json!({"resourceLogs": [{
        "resource": {"attributes": [attribute("service.name", &"countersign".into())]},
        "scopeLogs": [{"scope": {"name": "countersign"}, "logRecords": [record]}],
    }]})
}

/// A member under the name that the conventions give it, or its own.
fn attributes_of(name: &str, value: &Value) -> Vec<Value> {
    let part = |of: &str| value.get(of).unwrap_or(&Value::Null);
    let named = match name {
        "decision_id" => "countersign.decision.id",
        "run_id" => "countersign.run.id",
        "task_id" => "countersign.task.id",
        "grant_id" => "countersign.grant.id",
        "code" => "countersign.denial.code",
        "stage_reached" => "countersign.stage",
        "action" => "gen_ai.tool.name",
        "status" => "http.response.status_code",
        "method" => "http.request.method",
        "path" => "url.path",
        "user" if value.get("id").is_some() => {
            return vec![attribute("user.id", part("id")), attribute("countersign.user.issuer", part("issuer"))];
        }
        "agent" if value.get("id").is_some() => {
            return vec![
                attribute("gen_ai.agent.id", part("id")),
                attribute("countersign.agent.issuer", part("issuer")),
            ];
        }
        other => return vec![attribute(&format!("countersign.{other}"), value)],
    };
    vec![attribute(named, value)]
}

fn attribute(name: &str, value: &Value) -> Value {
    json!({"key": name, "value": any(value)})
}

/// OTLP's `AnyValue`; its JSON writes integers as text.
fn any(value: &Value) -> Value {
    match value {
        Value::Null => json!({}),
        Value::Bool(value) => json!({"boolValue": value}),
        Value::Number(number) => json!({"intValue": number.to_string()}),
        Value::String(text) => json!({"stringValue": text}),
        Value::Array(items) => json!({"arrayValue": {"values": items.iter().map(any).collect::<Vec<_>>()}}),
        Value::Object(members) => {
            let values: Vec<_> = members.iter().map(|(name, value)| attribute(name, value)).collect();
            json!({"kvlistValue": {"values": values}})
        }
    }
}
