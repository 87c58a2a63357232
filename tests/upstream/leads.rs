//! Where a tool's answer leads the agent: to other calls through the sidecar, or out of its view.

use serde_json::{Value, json};

use super::odd;
use crate::support::{Answer, sidecar::Setup, tool::Tool, world};

/// Every value of a field.
fn values<'a>(answer: &'a Answer, name: &str) -> Vec<&'a str> {
    answer.headers.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_str()).collect()
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn what_leads_to_a_tool_leads_through_here_and_bodies_never_change() {
    let Some(world) = world() else { return };
    let Some(tool) = Tool::plain() else { return };
    let sidecar = Setup::new(&world.openid, &tool).with(odd).start();
    let lead = |location: &str, link: &str| {
        let query = format!("location={}&link={}", escaped(location), escaped(link));
        sidecar.get(&format!("/orders/v1/odd/lead?{query}"), &world.probe()).send()
    };
    let url = tool.url();
    let here = format!("{url}/v1/odd/echo?a=b#c");
    let answer = lead(&here, &format!("<{url}/v1/odd/plain>; rel=\"next\", <https://elsewhere.example/x>; rel=prev"));
    answer.went(201);
    assert_eq!(answer.header("location"), Some("/orders/v1/odd/echo?a=b#c"));
    assert_eq!(
        values(&answer, "link"),
        [r#"</orders/v1/odd/plain>; rel="next", <https://elsewhere.example/x>; rel=prev"#]
    );
    assert_eq!(answer.json(), json!({"body": here}), "a body was changed");

    // The agent follows it, and that is a call like any other.
    let followed = answer.header("location").unwrap().split('#').next().unwrap();
    let next = sidecar.get(followed, &world.probe()).send();
    next.went(200);
    assert_eq!(next.json()["url"], "/v1/odd/echo?a=b");
    assert_eq!(sidecar.decided(&next)["action"], "probe.echo");

    for (written, expected) in [
        ("/v1/odd/echo", "/orders/v1/odd/echo"),
        ("echo", "/orders/v1/odd/echo"),
        ("https://elsewhere.example/v1/odd/echo", "https://elsewhere.example/v1/odd/echo"),
        ("mailto:ops@acme.example", "mailto:ops@acme.example"),
    ] {
        assert_eq!(lead(written, "x").header("location"), Some(expected), "{written}");
    }
    let record = sidecar.settled(&answer.decision_id());
    assert_eq!((&record["outcome"], &record["status"]), (&json!("completed"), &json!(201)), "{record}");
}

#[test]
fn a_tool_leads_to_other_tools_that_the_agents_tenant_knows_and_to_no_others() {
    let Some(world) = world() else { return };
    let Some(tool) = Tool::plain() else { return };
    let sidecar = Setup::new(&world.openid, &tool)
        .with(odd)
        .with(|config| {
            config["sidecar"]["tenants"] = json!(["acme", "globex"]);
            let other = |at: &str, upstream: &str, tenant: &str| {
                json!({"at": at, "upstream": upstream, "tenants": [tenant], "credential": "none", "actions": {}})
            };
            config["tools"]["billing"] = other("/billing", "https://billing.example/api", "acme");
            config["tools"]["secret"] = other("/secret", "https://secret.example", "globex");
        })
        .start();
    let location = |to: &str| -> Value {
        let path = format!("/orders/v1/odd/lead?location={}", escaped(to));
        json!(sidecar.get(&path, &world.probe()).send().header("location").unwrap())
    };
    assert_eq!(location("https://billing.example/api/v2/invoices/1"), "/billing/v2/invoices/1");
    assert_eq!(location("https://billing.example/other"), "https://billing.example/other");
    assert_eq!(location("https://secret.example/v1"), "https://secret.example/v1");
}
