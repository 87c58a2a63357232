//! A case from a recorded decision: the whole question, so that it can be asked again as it was.

use std::{collections::BTreeMap, fmt::Write};

use model::{Decision, ParameterValue, Question, parameter::Parameter, question::LimitState};
use serde_json::{Value, json};

/// The file of cases that holds `question` with the `decision` it got. It names people as the ledger did.
#[must_use]
pub fn written(name: &str, question: &Question, decision: &Decision) -> String {
    let call = &question.call;
    let parameters: BTreeMap<&str, Value> =
        call.parameters.iter().map(|(name, parameter)| (name, parameter_as_written(parameter))).collect();
    let mut expect = json!({
        "decision": decision.verdict.as_str(),
        "reasons": decision.reasons.iter().map(|reason| reason.code.as_str()).collect::<Vec<_>>(),
    });
    if let (Some(code), Some(members)) = (decision.code, expect.as_object_mut()) {
        members.insert("code".to_owned(), code.as_str().into());
    }
    if let (false, Some(members)) = (decision.obligations.is_empty(), expect.as_object_mut()) {
        let duties: Vec<_> = decision.obligations.iter().map(|obligation| &obligation.duty).collect();
        members.insert("obligations".to_owned(), json!(duties));
    }
    let members = [
        ("name", json!(name)),
        ("tool", json!(call.tool)),
        ("action", json!(call.action)),
        ("effect", json!(call.effect)),
        ("resource", json!(call.resource)),
        ("parameters", json!(parameters)),
        ("facts", json!(question.facts)),
        ("limits", json!(question.limits.iter().map(limit_as_written).collect::<Vec<_>>())),
        ("now", json!(question.now.to_string())),
        (
            "request",
            json!({
                "method": question.request.method,
                "path": question.request.path.as_str(),
                "headers": question.request.headers,
            }),
        ),
        ("recorded", json!({ "id": question.id, "agent": *question.agent, "delegation": *question.delegation })),
        ("expect", expect),
    ];
    // Every value is JSON, which is YAML too.
    let mut text = String::from("cases:\n");
    for (index, (name, value)) in members.iter().enumerate() {
        let indent = if index == 0 { "  - " } else { "    " };
        // Writing to a string does not fail.
        writeln!(text, "{indent}{name}: {value}").ok();
    }
    text
}

/// As people write it, where that reads back as the same; with its type otherwise.
fn parameter_as_written(parameter: &Parameter) -> Value {
    match &parameter.value {
        None => json!({ "kind": parameter.kind }),
        Some(ParameterValue::Money(money)) => format!("{} {}", money.text(), money.currency()).into(),
        Some(ParameterValue::Integer(integer)) => (*integer).into(),
        Some(value) => json!(value),
    }
}

fn limit_as_written(limit: &LimitState) -> Value {
    let amount = |amount: &model::Amount| match amount {
        model::Amount::Money(money) => format!("{} {}", money.text(), money.currency()),
        model::Amount::Number(number) => number.to_string(),
    };
    json!({
        "name": limit.name,
        "max": amount(&limit.max),
        "used": limit.used.as_ref().map(amount),
        "window": limit.window.to_string(),
        "hop": limit.hop,
    })
}
