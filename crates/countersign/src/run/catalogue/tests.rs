//! What a catalogue may make of the policies that decide, and what of the rest of a configuration it does not go with.

use policy::bundle::File;
use proxy::describe_tools;
use serde_json::json;

use super::*;
use crate::run::testing::{Folder, says};

/// Rules about an action, its amount and its count, and one that is wrong already.
const RULES: &str = r#"package countersign.teams.support

import data.countersign.lib.money

allow contains {"code": "all"}

deny contains {"code": "large"} if {
    input.action.name == "refunds.create"
    not money.at_most(input.action.parameters.amount, {"minor": 100, "currency": "USD"})
}

deny contains {"code": "many"} if {
    input.action.name == "refunds.create"
    input.action.parameters.count > 5
}

deny contains {"code": "typing_mistake"} if input.action.name == "refunds.creat"
"#;

fn catalogue(change: impl FnOnce(&mut Value)) -> Catalogue {
    let mut tools = json!({
        "orders": {"at": "/orders", "upstream": "https://orders.example", "credential": "none", "actions": {
            "orders.read": {"match": "GET /v1/orders/{order}", "effect": "read", "resource": "orders/{order}"},
            "refunds.create": {
                "match": "POST /v1/orders/{order}/refunds", "effect": "write", "resource": "orders/{order}",
                "parameters": {
                    "amount": {"type": "money", "value": "body:/amount", "currency": "body:/currency"},
                    "count": {"type": "integer", "value": "body:/count"},
                },
            },
        }},
        "crm": {"at": "/crm", "upstream": "https://crm.example", "credential": "none", "actions": {}},
    });
    change(&mut tools);
    let tools = serde_json::from_value(tools).unwrap();
    describe_tools(&tools, &[Id::new("acme").unwrap()].into()).unwrap().0
}

fn held(owned: &str, change: impl FnOnce(&mut Value)) -> Result<(), String> {
    let file = File { path: "support.rego".to_owned(), text: RULES.to_owned() };
    let tools = Some(["orders", "crm"].map(|tool| Id::new(tool).unwrap()).into());
    let policies =
        vec![Source { name: "support".to_owned(), tools, policies: vec![file], tests: Vec::new(), data: Vec::new() }];
    let owned = [Id::new(owned).unwrap()].into();
    held_against(&policies, &catalogue(|_| ()), &catalogue(change), &owned)
}

#[test]
fn what_a_rule_reads_may_not_become_something_else_under_it_and_what_it_is_about_may_go() {
    let actions = |tools: &mut Value| tools["orders"]["actions"].take();
    let renamed = |tools: &mut Value| {
        let parameters = &mut tools["orders"]["actions"]["refunds.create"]["parameters"];
        *parameters = json!({"sum": parameters["amount"].take(), "count": parameters["count"].take()});
    };
    let retyped = |tools: &mut Value| {
        let parameter = json!({"type": "string", "value": "body:/count"});
        tools["orders"]["actions"]["refunds.create"]["parameters"]["count"] = parameter;
    };
    for (why, place) in [(held("orders", renamed).unwrap_err(), ":9:"), (held("orders", retyped).unwrap_err(), ":14:")]
    {
        assert!(why.contains(place), "{why}");
        assert!(!why.contains("refunds.creat`"), "what was wrong before is no fault of its: {why}");
    }
    // Whatever the configuration itself says of a tool is not the bundle's doing.
    held("crm", renamed).unwrap();
    held("orders", |_| ()).unwrap();
    held("orders", |tools| {
        let mut all = actions(tools);
        all.as_object_mut().unwrap().remove("refunds.create").unwrap();
        tools["orders"]["actions"] = all;
    })
    .unwrap();
    // Also where its request is another action's now.
    held("orders", |tools| {
        let mut all = actions(tools);
        let members = all.as_object_mut().unwrap();
        let refund = members.remove("refunds.create").unwrap();
        members.insert("payments.return".to_owned(), refund);
        tools["orders"]["actions"] = all;
    })
    .unwrap();
    held("orders", |tools| {
        let more = json!({"match": "GET /v1/orders", "effect": "read", "resource": "orders"});
        tools["orders"]["actions"]["orders.list"] = more;
    })
    .unwrap();
}

#[test]
fn requests_of_an_action_that_rules_name_may_not_become_another_one_that_everybody_may_do() {
    let rules = "package countersign.teams.support\n\nallow contains {\"code\": \"all\"}\n\n\
                 deny contains {\"code\": \"export\"} if input.action.name == \"orders.export\"\n";
    let file = |text: &str| File { path: "support.rego".to_owned(), text: text.to_owned() };
    let tools = Some([Id::new("orders").unwrap()].into());
    let team = |text: &str| {
        let policies = vec![file(text)];
        vec![Source { name: "support".to_owned(), tools: tools.clone(), policies, tests: Vec::new(), data: Vec::new() }]
    };
    let export = || json!({"match": "GET /v1/orders/export", "effect": "read", "resource": "orders"});
    let before = catalogue(|tools| tools["orders"]["actions"]["orders.export"] = export());
    let owned = [Id::new("orders").unwrap()].into();
    let held = |text: &str, after: &Catalogue| held_against(&team(text), &before, after, &owned);
    // Without it, its requests are those of `orders.read`.
    let gone = catalogue(|_| ());
    let why = held(rules, &gone).unwrap_err();
    assert!(why.contains("orders.export") && why.contains(":5:"), "{why}");
    held("package countersign.teams.support\n\nallow contains {\"code\": \"all\"}\n", &gone).unwrap();
    // What is new is in nobody's grant, and what no action matches is refused.
    held(rules, &catalogue(|tools| tools["orders"]["actions"]["orders.dump"] = export())).unwrap();
    held(rules, &catalogue(|tools| tools["orders"]["actions"] = json!({}))).unwrap();
}

#[test]
fn a_tools_actions_stand_in_one_place_and_a_name_is_ones() {
    let folder = Folder::new(|config| {
        let catalogue = "catalogue:\n  - { name: support, path: catalogue, for: [orders, crm] }\n\
                         \x20 - { name: other, path: catalogue, for: [orders] }\ntools:";
        config.replacen("tools:", catalogue, 1)
    });
    let found = problems(&folder.document().value);
    for words in [
        ["catalogue.support", "another source"],
        ["catalogue.support", "`crm`, which is not configured"],
        ["tools.orders.actions", "`support`"],
        ["catalogue.other", "in the `for` of `support`"],
    ] {
        assert!(says(&found, &words), "{words:?}: {found:?}");
    }
}
