//! The input: every leaf there, exact, one sequence of bytes, and a schema that is not stale.

use std::{path::PathBuf, sync::Arc};

use model::{Amount, Decimal, ParameterKind, Parameters, limits::Window, question};

use super::*;
use crate::fixture;

fn json(question: &Question) -> serde_json::Value {
    serde_json::from_slice(&canonical_json(question).unwrap()).unwrap()
}

#[test]
fn a_question_becomes_the_document_that_policies_are_written_against() {
    let document = json(&fixture::question());
    assert_eq!(document["version"], 1);
    assert_eq!(document["call"]["path"], "/orders/v1/orders/17/refunds");
    assert_eq!(document["call"]["mcp"], serde_json::json!({"method": null, "name": null}));
    assert_eq!(document["action"]["name"], "refunds.create");
    let parameters = serde_json::json!({"amount": {"minor": 2000, "currency": "USD", "text": "20.00"}, "reason": null});
    assert_eq!(document["action"]["parameters"], parameters);
    assert_eq!(document["user"]["groups"], serde_json::json!(["emea", "support"]));
    assert_eq!(document["agent"]["owner"], "dana@acme.example");
    assert_eq!(document["chain"][1]["id"], "support-v2");
    assert_eq!(document["chain"][1]["covers"], true);
    assert_eq!(document["chain"][1]["verified"], "delegation_chain");
    assert_eq!(document["delegation"]["limits"]["amount"]["max"]["minor"], 5000);
    assert_eq!(document["delegation"]["limits"]["daily"]["window"], "P1D");
    assert_eq!(document["delegation"]["where"], serde_json::json!({"order.placed_by": "$user"}));
    assert_eq!(document["facts"]["order"]["placed_by"], serde_json::json!({"id": "alice", "issuer": fixture::REALM}));
    assert_eq!(document["approval"], serde_json::Value::Null);
    assert_eq!(document["now"], "2026-11-22T10:00:00Z");
    assert_eq!(document["now_ns"], 1_795_341_600_000_000_000_i64);
    assert_eq!(document["delegation"]["expires_at_ns"], 1_795_341_780_000_000_000_i64);
}

#[test]
fn what_is_absent_is_null_down_to_the_last_leaf() {
    let mut question = fixture::question();
    let mut parameters = Parameters::default();
    for (name, kind) in [
        ("amount", ParameterKind::Money),
        ("due", ParameterKind::Time),
        ("rate", ParameterKind::Decimal),
        ("note", ParameterKind::String),
        ("tags", ParameterKind::Set),
        ("count", ParameterKind::Integer),
    ] {
        parameters.set(name, kind, None);
    }
    question.call.parameters = parameters;
    question.facts = fixture::order(FactValue::Null, FactValue::Null);
    let document = json(&question);
    let parameters = serde_json::json!({
        "amount": {"minor": null, "currency": null, "text": null},
        "due": {"ns": null, "text": null},
        "rate": {"unscaled": null, "scale": null, "text": null},
        "note": null, "tags": null, "count": null,
    });
    assert_eq!(document["action"]["parameters"], parameters);
    assert_eq!(document["facts"], serde_json::json!({"order": {"placed_by": null, "status": null}}));
    // The amount is limited and not there: nothing covers the call, and nothing carries it.
    assert_eq!(document["delegation"]["covers"], false);
    assert_eq!(document["delegation"]["limits"], serde_json::json!({}));
}

#[test]
fn the_element_that_carries_the_call_is_one_whose_relations_hold() {
    let mut question = fixture::question();
    let mut delegation = fixture::delegation();
    let mut other = delegation.authority.elements[0].clone();
    other.relations = [("order.placed_by".to_owned(), "nobody".to_owned())].into();
    other.limits = model::Limits::default();
    delegation.authority.elements.insert(0, other);
    question.delegation = Arc::new(delegation);
    assert_eq!(json(&question)["delegation"]["where"], serde_json::json!({"order.placed_by": "$user"}));
}

#[test]
fn a_limit_says_what_is_left_of_it_or_that_nobody_knows() {
    let mut question = fixture::question();
    let money = |text| Amount::Money(model::Money::from_major(text, "USD").unwrap());
    let number = |text: &str| Amount::Number(text.parse::<Decimal>().unwrap());
    let state = |max, used| question::LimitState {
        name: "daily".to_owned(),
        max,
        used,
        window: "P1D".parse::<Window>().unwrap(),
        hop: 1,
    };
    question.limits = vec![
        state(money("200"), Some(money("150.50"))),
        state(money("200"), Some(money("300"))),
        state(number("5"), Some(number("2"))),
        state(number("2.5"), Some(number("2"))),
        state(money("200"), None),
    ];
    let document = json(&question);
    let left: Vec<_> = (0..5).map(|index| document["limits"][index]["remaining"].clone()).collect();
    assert_eq!(left[0], serde_json::json!({"minor": 4950, "currency": "USD", "text": "49.50"}));
    assert_eq!(left[1]["minor"], 0);
    assert_eq!(left[2], serde_json::json!({"minor": 3, "currency": null, "text": "3"}));
    assert_eq!(left[3], serde_json::json!({"minor": null, "currency": null, "text": "0.5"}));
    assert_eq!(left[4], serde_json::json!({"minor": null, "currency": null, "text": null}));
}

#[test]
fn a_hop_that_only_nested_act_names_holds_nothing() {
    let mut question = fixture::question();
    let mut inner = fixture::hop(PrincipalKind::Agent, "inner", fixture::AUTHORITY);
    inner.authority = None;
    inner.evidence = Evidence::NestedAct;
    let mut delegation = fixture::delegation();
    let mut hops: Vec<model::Hop> = delegation.chain.hops().cloned().collect();
    hops.insert(1, inner);
    delegation.chain = model::Chain::new(hops, 4).unwrap();
    question.delegation = Arc::new(delegation);
    let document = json(&question);
    for leaf in ["scope", "details", "covers"] {
        assert_eq!(document["chain"][1][leaf], serde_json::Value::Null, "{leaf}");
    }
    assert_eq!(document["chain"][1]["verified"], "nested_act");
}

#[test]
fn names_and_texts_that_a_json_parser_takes_for_its_own_stay_text() {
    let mut question = fixture::question();
    question.request.headers = [("$serde_json::private::Number".to_owned(), "1e400".to_owned())].into();
    question.facts = fixture::order(FactValue::Null, FactValue::Text("{\"a\":1}\u{0}\u{2028}".to_owned()));
    let value = value(&question).unwrap();
    let headers = value[&regorus::Value::from("call")]["headers"].clone();
    assert_eq!(
        headers,
        [("$serde_json::private::Number", "1e400")].iter().fold(
            regorus::Value::new_object(),
            |mut object, (name, text)| {
                object.as_object_mut().unwrap().insert((*name).into(), (*text).into());
                object
            }
        )
    );
    assert_eq!(json(&question)["facts"]["order"]["status"], "{\"a\":1}\u{0}\u{2028}");
}

#[test]
fn the_same_question_is_the_same_bytes_with_sorted_members() {
    let bytes = canonical_json(&fixture::question()).unwrap();
    assert_eq!(bytes, canonical_json(&fixture::question()).unwrap());
    let text = String::from_utf8(bytes).unwrap();
    assert!(
        text.starts_with(r#"{"action":{"effect":"write","name":"refunds.create","parameters":{"amount":{"currency""#)
    );
    assert!(!text.contains(": ") && !text.contains('\n'));
}

#[test]
fn whole_numbers_are_exact_everywhere_but_for_nanoseconds() {
    fn check(path: &str, value: &serde_json::Value) {
        match value {
            serde_json::Value::Number(number) => {
                let integer = number.as_i64().unwrap_or_else(|| panic!("{path} is not whole"));
                assert!(integer.abs() < 1 << 53 || path.ends_with("_ns") || path.ends_with("ns"), "{path}");
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| check(path, item)),
            serde_json::Value::Object(members) => {
                members.iter().for_each(|(name, item)| check(&format!("{path}/{name}"), item));
            }
            _ => {}
        }
    }
    check("", &json(&fixture::question()));
}

/// Whether `value` is of the shape `schema`, for the keywords the generator writes.
fn matches(root: &serde_json::Value, schema: &serde_json::Value, value: &serde_json::Value) -> bool {
    if let Some(reference) = schema["$ref"].as_str() {
        return matches(root, root.pointer(reference.trim_start_matches('#')).unwrap(), value);
    }
    if let Some(options) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
        return options.iter().any(|option| matches(root, option, value));
    }
    if let Some(options) = schema["enum"].as_array() {
        return options.contains(value);
    }
    if let Some(constant) = schema.get("const") {
        return constant == value;
    }
    let kind = match value {
        serde_json::Value::Null => "null",
        serde_json::Value::Bool(_) => "boolean",
        serde_json::Value::Number(_) => "integer",
        serde_json::Value::String(_) => "string",
        serde_json::Value::Array(_) => "array",
        serde_json::Value::Object(_) => "object",
    };
    let kinds = &schema["type"];
    if kinds != kind && !kinds.as_array().is_some_and(|kinds| kinds.iter().any(|one| one == kind)) {
        return false;
    }
    match value {
        serde_json::Value::Array(items) => items.iter().all(|item| matches(root, &schema["items"], item)),
        serde_json::Value::Object(members) => {
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            required.iter().all(|name| members.contains_key(name.as_str().unwrap()))
                && members.iter().all(|(name, item)| {
                    let shape = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
                    shape.is_object() && matches(root, shape, item)
                })
        }
        _ => true,
    }
}

#[test]
fn the_schema_describes_the_input_and_every_declared_member_is_required() {
    let schema = schema();
    let document = json(&fixture::question());
    assert!(matches(&schema, &schema, &document));
    for member in document.as_object().unwrap().keys() {
        let mut without = document.clone();
        without.as_object_mut().unwrap().remove(member);
        assert!(!matches(&schema, &schema, &without), "{member} is not required");
    }
    let mut unknown = document;
    unknown["action"]["nmae"] = "x".into();
    assert!(!matches(&schema, &schema, &unknown));
}

/// `UPDATE_SCHEMA=1 cargo test -p countersign-policy schema` writes it anew.
#[test]
fn the_committed_schemas_are_the_generated_ones() {
    for (name, schema) in [("input", schema()), ("exchange", exchange::schema()), ("management", management::schema())]
    {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../policies/schema/{name}.json"));
        let generated = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(&path, &generated).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == generated,
            "policies/schema/{name}.json is stale: UPDATE_SCHEMA=1 cargo test -p countersign-policy schema"
        );
    }
}

#[test]
fn the_bytes_are_those_of_the_engines_own_value_and_in_canonical_order() {
    let mut question = fixture::question();
    question.request.headers =
        [("b".to_owned(), "\u{7f}\u{1f}\"\\\n".to_owned()), ("a".to_owned(), "é\u{10ffff}".to_owned())].into();
    let bytes = canonical_json(&question).unwrap();
    let parsed: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    // A map of serde_json's is sorted by the bytes of its names.
    assert_eq!(serde_json::to_vec(&parsed).unwrap(), bytes);
    let engine: serde_json::Value = serde_json::from_str(&value(&question).unwrap().to_json_str().unwrap()).unwrap();
    assert_eq!(engine, parsed);
}
