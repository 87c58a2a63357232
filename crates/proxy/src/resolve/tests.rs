//! Bodies, queries and headers that two readers could take for two things, and the exact reading of the rest.

use model::{Code, Parameters};
use net::Body;
use serde_json::json;

use super::*;
use crate::testing::{delegation, incoming, listener, tools};

async fn call(
    method: &str,
    uri: &str,
    headers: &[(&str, &str)],
    body: Body,
) -> Result<(Parameters, CallBody), Box<Refusal>> {
    let tools = tools("http://127.0.0.1:1");
    let admitted = Admitted::in_test(delegation());
    let mut incoming = incoming(method, uri, headers, "").into_parts();
    incoming.body = body;
    let incoming = Incoming::in_test(incoming);
    let (tool, rest) = tools.catalogue.tool_at(incoming.path()).unwrap();
    let (action, variables) = tool.action_for(method, &rest).unwrap();
    let recognised = Recognised { tool, action, resource: "orders/17".into(), variables, rest };
    let gate = crate::testing::gate(json!({}));
    let call = resolve(incoming, &admitted, recognised, &listener(), &gate).await?;
    Ok((call.facts.parameters, call.outgoing.body))
}

const JSON: (&str, &str) = ("content-type", "application/json");

async fn refund(body: &str) -> Result<String, Code> {
    refund_as(&[JSON], body).await
}

async fn refund_as(headers: &[(&str, &str)], body: &str) -> Result<String, Code> {
    let outcome = call("POST", "/orders/v1/orders/17/refunds", headers, Body::full(body.to_owned())).await;
    let (parameters, sent) = outcome.map_err(|refusal| refusal.code)?;
    let CallBody::Read(bytes) = sent else { panic!("the body was not read") };
    assert_eq!(bytes, body, "what was read is what is sent");
    match parameters.value("amount") {
        Some(model::ParameterValue::Money(money)) => Ok(money.to_string()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn money_is_read_exactly_as_number_or_string() {
    for amount in ["20", "20.00", "\"20.00\"", "20.0"] {
        let body = format!(r#"{{"amount": {amount}, "currency": "USD"}}"#);
        assert_eq!(refund(&body).await, Ok("20.00 USD".to_owned()), "{body}");
    }
    let nested = r#"{"amount": 20, "currency": "USD", "details": {"note": "late"}}"#;
    assert!(refund(nested).await.is_ok());
}

#[tokio::test]
async fn hostile_bodies_are_malformed() {
    let deep = format!(r#"{{"amount":1,"currency":"USD","details":{}1{}}}"#, "[".repeat(40), "]".repeat(40));
    let huge = format!(r#"{{"amount":{},"currency":"USD"}}"#, "9".repeat(60));
    let cases = [
        r#"{"amount":20,"amount":80,"currency":"USD"}"#,
        r#"{"amount":20,"\u0061mount":80,"currency":"USD"}"#,
        r#"{"currency":"USD"}"#,
        r#"{"amount":null,"currency":"USD"}"#,
        r#"{"amount":20}"#,
        r#"{"amount":20,"currency":null}"#,
        r#"{"amount":20,"currency":"usd"}"#,
        r#"{"amount":20,"currency":["USD"]}"#,
        r#"{"amount":-20,"currency":"USD"}"#,
        r#"{"amount":"-0","currency":"USD"}"#,
        r#"{"amount":20,"currency":"USD","admin":true}"#,
        r#"{"amount":20,"currency":"USD","Amount":80}"#,
        r#"{"amount":20,"currency":"USD","details":{"note":"x","more":1}}"#,
        r#"{"amount":20,"currency":"USD","details":"x"}"#,
        r#"{"amount":20,"currency":"USD","details":null}"#,
        r#"{"amount":20,"currency":"USD","details":{"note":7}}"#,
        r#"{"amount":{"$serde_json::private::Number":"20"},"currency":"USD"}"#,
        r#"{"amount":{"x":20},"currency":"USD"}"#,
        r#"{"amount":1e400,"currency":"USD"}"#,
        r#"{"amount":2e1,"currency":"USD"}"#,
        r#"{"amount":20.001,"currency":"USD"}"#,
        r#"{"amount":"20,00","currency":"USD"}"#,
        r#"{"amount":" 20","currency":"USD"}"#,
        r#"{"amount":true,"currency":"USD"}"#,
        r#"{"amount":20,"currency":"USD"} {}"#,
        r#"{"amount":20,"currency":"USD"}x"#,
        r#"[{"amount":20,"currency":"USD"}]"#,
        "20",
        "null",
        "{",
        "",
        "amount=20&currency=USD",
        "\u{feff}{}",
        &deep,
        &huge,
    ];
    for body in cases {
        assert_eq!(refund(body).await, Err(Code::Malformed), "{body}");
    }
}

#[tokio::test]
async fn only_plain_json_is_read_and_only_so_much_of_it() {
    let good = r#"{"amount":20,"currency":"USD"}"#;
    for content_type in [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON;charset=\"UTF-8\"",
        "application/merge-patch+json",
    ] {
        assert!(refund_as(&[("content-type", content_type)], good).await.is_ok(), "{content_type}");
    }
    for content_type in [
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "application/json; profile=x",
        "application/+json",
        "application/jsonx",
        "",
    ] {
        assert_eq!(refund_as(&[("content-type", content_type)], good).await, Err(Code::Malformed), "{content_type}");
    }
    assert_eq!(refund_as(&[], good).await, Err(Code::Malformed));
    assert_eq!(refund_as(&[JSON, ("content-type", "text/plain")], good).await, Err(Code::Malformed));
    assert_eq!(refund_as(&[JSON, ("content-encoding", "gzip")], good).await, Err(Code::Malformed));
    assert_eq!(refund_as(&[JSON, ("content-encoding", "identity")], good).await, Err(Code::Malformed));
    let large = format!(r#"{{"amount":20,"currency":"USD","details":{{"note":"{}"}}}}"#, "x".repeat(70_000));
    assert_eq!(refund(&large).await, Err(Code::BodyTooLarge));
}

#[tokio::test]
async fn a_write_has_no_undeclared_query_and_one_idempotency_key() {
    let body = r#"{"amount":20,"currency":"USD"}"#;
    let with = async |uri: &str, headers: &[(&str, &str)]| {
        call("POST", uri, headers, Body::full(body)).await.map(|_| ()).map_err(|refusal| refusal.code)
    };
    let uri = "/orders/v1/orders/17/refunds";
    assert_eq!(with(uri, &[JSON, ("idempotency-key", "k")]).await, Ok(()));
    assert_eq!(with(&format!("{uri}?amount=80"), &[JSON]).await, Err(Code::Malformed));
    assert_eq!(with(&format!("{uri}?"), &[JSON]).await, Ok(()));
}

#[tokio::test]
async fn a_query_parameter_that_servers_read_differently_is_malformed() {
    let limit = async |query: &str| {
        let outcome = call("GET", &format!("/orders/v1/orders?{query}"), &[], Body::empty()).await;
        outcome.map(|(parameters, _)| parameters.value("limit").cloned()).map_err(|refusal| refusal.code)
    };
    assert_eq!(limit("limit=10&page=2+x").await, Ok(Some(model::ParameterValue::Integer(10))));
    assert_eq!(limit("l%69mit=10").await, Ok(Some(model::ParameterValue::Integer(10))));
    assert_eq!(limit("page=2").await, Ok(None));
    for query in [
        "limit=1&limit=2",
        "limit=1&l%69mit=2",
        "limit=+1",
        "limit=1%2B",
        "limit=",
        "limit",
        "limit=1.0",
        "limit=1e3",
        "limit=01",
        "limit=%31%00",
        "Limit=5",
        "limit[]=5",
        "limit=5&limit%00=6",
        "limit=5&limit%00x=6",
        "limit=5&%20LIMIT=6",
        "limit%5B0%5D=5",
        "limit.x=5",
        "limit+=5",
        "page=1;limit=9",
        "limit=%ff",
        "limit=9007199254740993",
    ] {
        assert_eq!(limit(query).await, Err(Code::Malformed), "{query}");
    }
}

#[tokio::test]
async fn every_kind_is_read_in_its_one_form() {
    let tag = async |body: &str, headers: &[(&str, &str)]| {
        let headers = [&[JSON], headers].concat();
        let outcome = call("POST", "/orders/v1/orders/17/tags", &headers, Body::full(body.to_owned())).await;
        outcome.map(|(parameters, _)| serde_json::to_value(&parameters).unwrap()).map_err(|refusal| refusal.code)
    };
    let all = tag(
        r#"{"tags":["b","a","b"],"weight":1.250,"due":"2026-11-22T10:00:00.5+01:00","count":-3,"fee":1999,"other":{"x":1}}"#,
        &[("x-owner", "bob")],
    )
    .await
    .unwrap();
    assert_eq!(all["tags"]["value"]["value"], serde_json::json!(["a", "b"]));
    assert_eq!(all["weight"]["value"]["value"]["unscaled"], 1250);
    assert_eq!(all["due"]["value"]["value"], "2026-11-22T09:00:00.5Z");
    assert_eq!((&all["count"]["value"]["value"], &all["owner"]["value"]["value"]), (&(-3).into(), &"bob".into()));
    assert_eq!(all["fee"]["value"]["value"]["text"], "19.99");
    let absent = tag(r#"{"tags":[],"count":null}"#, &[]).await.unwrap();
    assert_eq!(absent["count"]["value"], serde_json::Value::Null);
    for body in [
        r#"{"tags":"a"}"#,
        r#"{"tags":["a",1]}"#,
        r#"{"tags":{}}"#,
        r#"{"tags":[],"weight":1.2345}"#,
        r#"{"tags":[],"weight":"1e2"}"#,
        r#"{"tags":[],"count":"3"}"#,
        r#"{"tags":[],"count":3.0}"#,
        r#"{"tags":[],"due":"2026-11-22"}"#,
        r#"{"tags":[],"due":"2026-11-22 10:00:00Z"}"#,
        r#"{"tags":[],"due":"2026-11-22T10:00:00"}"#,
        r#"{"tags":[],"due":"2026-11-22T10:00:60Z"}"#,
        r#"{"tags":[],"due":"2026-11-22T10:00:00Z[UTC]"}"#,
        r#"{"tags":[],"due":1700000000}"#,
        r#"{"tags":[],"fee":19.99}"#,
        r#"{"tags":[],"fee":-1}"#,
        r#"{"tags":[],"Weight":1}"#,
    ] {
        assert_eq!(tag(body, &[]).await, Err(Code::Malformed), "{body}");
    }
    assert_eq!(tag(r#"{"tags":[]}"#, &[("x-owner", "a"), ("x-owner", "b")]).await, Err(Code::Malformed));
}

#[tokio::test]
async fn a_body_that_no_parameter_needs_is_not_looked_at() {
    let outcome =
        call("PUT", "/orders/v1/orders/17/file", &[("content-encoding", "gzip")], Body::full("\u{1}{{{")).await;
    assert!(matches!(outcome.unwrap().1, CallBody::Unseen(_)));
}

#[tokio::test]
async fn a_write_without_parameters_has_nothing_in_its_body() {
    let cancel = async |headers: &[(&str, &str)], body: &'static str| {
        let outcome = call("POST", "/orders/v1/orders/17/cancel", headers, Body::full(body)).await;
        outcome.map(|_| ()).map_err(|refusal| refusal.code)
    };
    assert_eq!(cancel(&[], "").await, Ok(()));
    assert_eq!(cancel(&[JSON], "{}").await, Ok(()));
    for body in [r#"{"_method":"DELETE"}"#, "[1]", "7", "null", "x"] {
        assert_eq!(cancel(&[JSON], body).await, Err(Code::Malformed), "{body}");
    }
    let form = ("content-type", "application/x-www-form-urlencoded");
    assert_eq!(cancel(&[form], "_method=DELETE").await, Err(Code::Malformed));
    assert_eq!(cancel(&[JSON, ("content-encoding", "gzip")], "{}").await, Err(Code::Malformed));
}

#[test]
fn a_foreign_tenants_tool_is_refused_exactly_as_a_missing_one() {
    let snapshot = |tenants: Option<std::collections::BTreeSet<Id<Tenant>>>| {
        let mut tools = tools("http://127.0.0.1:1");
        let mut tool = tools.catalogue.tools()[0].clone();
        tool.tenants = tenants;
        tools.catalogue = Catalogue::new(vec![tool], "r".into()).unwrap();
        tools.catalogue
    };
    let foreign = snapshot(Some([Id::new("globex").unwrap()].into()));
    let acme = Id::new("acme").unwrap();
    let find = |catalogue: &Catalogue, uri: &str| {
        let incoming = incoming("GET", uri, &[], "");
        recognise(&incoming, &acme, catalogue).map(|known| known.action.id.to_string())
    };
    assert_eq!(find(&foreign, "/orders/v1/orders/1"), find(&foreign, "/nowhere/v1/orders/1"));
    assert_eq!(find(&foreign, "/orders/v1/orders/1").unwrap_err().code, Code::UnknownTool);
    let own = snapshot(None);
    assert_eq!(find(&own, "/orders/v1/orders/1"), Ok("orders.read".to_owned()));
    assert_eq!(find(&own, "/orders/v1/orders/1/").unwrap_err().code, Code::UnmappedAction);
    assert_eq!(find(&own, "/orders/v1").unwrap_err().code, Code::UnmappedAction);
    assert_eq!(find(&own, "/ordersx/v1/orders/1").unwrap_err().code, Code::UnknownTool);
}
