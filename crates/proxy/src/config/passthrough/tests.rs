//! An exception is bounded, owned and says whose calls it is about.

use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-11-22T10:00:00Z";

fn resolved(change: &Value) -> Result<Passthrough, String> {
    let mut tool = crate::testing::tool("https://orders.example");
    let mut passthrough = json!({ "owner": "dana@acme.example", "until": "2026-12-31T00:00:00Z" });
    for (name, value) in change.as_object().unwrap() {
        passthrough[name] = value.clone();
    }
    let tenants: Vec<Id<Tenant>> = match passthrough.as_object_mut().unwrap().remove("tenants") {
        Some(tenants) => serde_json::from_value(tenants).unwrap(),
        None => vec![Id::new("acme").unwrap()],
    };
    tool["passthrough"] = passthrough;
    let config: ToolConfig = serde_json::from_value(tool).map_err(|error| error.to_string())?;
    let resolved = config.passthrough.as_ref().unwrap().resolve(&config, tenants.iter(), NOW.parse().unwrap());
    resolved.map_err(|error| error.to_string())
}

#[test]
fn what_does_not_bound_the_exception_is_refused() {
    for (change, expected) in [
        (json!({ "owner": " " }), "`owner`"),
        (json!({ "until": "2027-02-21T00:00:00Z" }), "90 days"),
        (json!({ "until": null }), "timestamp"),
        (json!({ "except": ["refunds.approve"] }), "no action `refunds.approve`"),
        (json!({ "except": ["refunds.create"], "unmapped": "pass" }), "by another name"),
        (json!({ "user_header": "Authorization" }), "names a user"),
        (json!({ "user_header": "Cookie" }), "names a user"),
        (json!({ "user_header": "X-Api-Key" }), "names a user"),
        (json!({ "user_header": "Txn-Token" }), "names a user"),
        (json!({ "user_header": "Connection" }), "names a user"),
        (json!({ "user_header": "x user" }), "names a user"),
        (json!({ "tenants": ["acme", "globex"] }), "`tenant`"),
        (json!({ "tenants": ["acme", "globex"], "tenant": "initech" }), "`tenant`"),
        (json!({ "forever": true }), "unknown field"),
    ] {
        let error = resolved(&change).unwrap_err();
        assert!(error.contains(expected), "{change}: {error}");
    }
}

#[test]
fn a_tool_of_one_tenant_needs_no_word_about_it() {
    let usual = resolved(&json!({})).unwrap();
    assert_eq!((usual.tenant.as_str(), usual.unmapped, usual.agent), ("acme", UnmappedConfig::Refuse, None));
    let named =
        resolved(&json!({ "tenants": ["acme", "globex"], "tenant": "globex", "user_header": "X-User" })).unwrap();
    assert_eq!((named.tenant.as_str(), named.user.unwrap().as_str()), ("globex", "x-user"));
    assert!(resolved(&json!({ "except": ["refunds.create"] })).is_ok());
    // One that is over is no error: it is refused call by call, and says since when.
    assert!(resolved(&json!({ "until": "2026-01-01T00:00:00Z" })).is_ok());
}
