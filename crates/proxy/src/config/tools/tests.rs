//! A configuration that does not hold together is an error that names its place.

use serde_json::{Value, json};

use super::*;
use crate::testing::{tenants, tool};

type Change = Box<dyn FnOnce(&mut Value)>;

fn resolved(change: impl FnOnce(&mut Value)) -> Result<ResolvedTools, String> {
    let mut config = tool("https://orders.example/base/");
    change(&mut config);
    let config: ToolConfig = serde_json::from_value(config).map_err(|error| error.to_string())?;
    let env = |name: &str| (name == "TOOL").then(|| "secret".to_owned());
    resolve(&[(Id::new("orders").unwrap(), config)].into(), &tenants(), &env).map_err(|error| error.to_string())
}

#[test]
fn a_tool_resolves_to_its_catalogue_and_base_url() {
    let tools = resolved(|_| {}).unwrap();
    let upstream = tools.upstreams.values().next().unwrap();
    let url = upstream.base.url("/v1/orders", Some("a=1")).unwrap();
    assert_eq!(url.to_string(), "https://orders.example/base/v1/orders?a=1");
    assert_eq!((upstream.base.host(), upstream.base.port()), ("orders.example", 443));
    let again = resolved(|_| {}).unwrap();
    assert_eq!(tools.catalogue.revision(), again.catalogue.revision());
    let other = resolved(|tool| tool["timeout"] = json!("6s")).unwrap();
    assert_ne!(tools.catalogue.revision(), other.catalogue.revision());
}

#[test]
fn what_does_not_hold_together_is_refused_with_its_place() {
    let action = |change: Value| {
        move |tool: &mut Value| {
            let target = &mut tool["actions"]["refunds.create"];
            for (name, value) in change.as_object().unwrap() {
                target[name] = value.clone();
            }
        }
    };
    let parameter = |value: Value| action(json!({ "parameters": { "p": value } }));
    let cases: Vec<(&str, Change)> = vec![
        ("tools.orders.at", Box::new(|tool| tool["at"] = json!("orders"))),
        ("tools.orders.at", Box::new(|tool| tool["at"] = json!("/a/../b"))),
        ("tools.orders.upstream", Box::new(|tool| tool["upstream"] = json!("http://orders.example"))),
        ("tools.orders.upstream", Box::new(|tool| tool["upstream"] = json!("https://a:b@orders.example"))),
        ("tools.orders.upstream", Box::new(|tool| tool["upstream"] = json!("https://orders.example?x=1"))),
        ("`credential: none`", Box::new(|tool| drop(tool.as_object_mut().unwrap().remove("credential")))),
        ("MISSING", Box::new(|tool| tool["credential"] = json!({ "bearer": { "env": "MISSING" } }))),
        ("globex", Box::new(|tool| tool["tenants"] = json!(["globex"]))),
        ("unknown field", Box::new(|tool| tool["retries"] = json!(3))),
        ("unknown variant `hybird`", Box::new(|tool| tool["identity"] = json!("hybird"))),
        ("facts.order", Box::new(|tool| tool["facts"]["order"]["get"] = json!("v1/orders"))),
        ("facts.order", Box::new(|tool| tool["facts"]["order"]["tenant"] = json!("tenant"))),
        ("actions.refunds.create", Box::new(action(json!({ "match": "/v1/orders" })))),
        ("actions.refunds.create", Box::new(action(json!({ "match": "TRACE /v1/orders" })))),
        ("`nothing`", Box::new(action(json!({ "facts": ["nothing"] })))),
        ("`{other}`", Box::new(action(json!({ "resource": "orders/{other}" })))),
        ("holds a credential", Box::new(action(json!({ "idempotency": "header:Authorization" })))),
        ("parameters.p", Box::new(parameter(json!({ "type": "set", "value": "query:p" })))),
        ("parameters.p", Box::new(parameter(json!({ "type": "decimal", "value": "body:/p" })))),
        ("parameters.p", Box::new(parameter(json!({ "type": "string", "value": "body:/p", "minor": true })))),
        ("`p` of type money", Box::new(parameter(json!({ "type": "money", "value": "body:/p" })))),
        ("holds a credential", Box::new(parameter(json!({ "type": "string", "value": "header:X-Forwarded-For" })))),
        ("is not a source", Box::new(parameter(json!({ "type": "string", "value": "cookie:p" })))),
    ];
    for (expected, change) in cases {
        let error = resolved(change).unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let twice = action(json!({ "parameters": {
        "a": { "type": "string", "value": "body:/x" }, "b": { "type": "string", "value": "body:/x/y" }
    } }));
    assert!(resolved(twice).unwrap_err().contains("within it"));
    let no_body = |tool: &mut Value| {
        tool["actions"]["orders.read"]["parameters"] = json!({ "a": { "type": "string", "value": "body:/x" } });
    };
    assert!(resolved(no_body).unwrap_err().contains("has no body"));
}

#[test]
fn a_credential_is_no_input_of_policy() {
    let listener = |header: &str| {
        serde_json::from_value::<crate::config::AgentListenerConfig>(
            json!({ "tcp": "127.0.0.1:1", "input_headers": [header] }),
        )
    };
    let good = listener("X-Ticket").unwrap();
    assert_eq!(good.input_headers.first().map(crate::config::InputHeader::as_str), Some("x-ticket"));
    assert_eq!(good.bearer, crate::config::Bearer::Refuse);
    for header in ["Authorization", "Cookie", "DPoP", "a b", ""] {
        assert!(listener(header).is_err(), "{header}");
    }
}
