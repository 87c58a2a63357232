//! Which calls are one kind, and what is proposed for them.

use super::*;

fn seen(agent: &str) -> Seen {
    Seen { calls: 1, agents: [agent.to_owned()].into(), last: None, like: "L.1".to_owned() }
}

fn shapes(paths: &[&str]) -> Vec<(String, u64)> {
    let mut kept = Paths::default();
    for path in paths {
        kept.add("GET", CanonicalPath::parse(path).unwrap().segments(), seen("a"));
    }
    kept.shapes().into_iter().map(|((_, template), seen)| (template, seen.calls)).collect()
}

#[test]
fn what_names_one_thing_is_a_variable() {
    for (path, template) in [
        ("/v1/orders/17/notes", "/v1/orders/{order}/notes"),
        ("/v1/orders/0198f3a2-7d1e-7000-8000-000000000001", "/v1/orders/{order}"),
        ("/users/alice@acme.example", "/users/{user}"),
        ("/categories/12/17", "/categories/{category}/{id}"),
        ("/2010-04-01/Accounts/AC0123456789abcdef0123456789abcdef", "/2010-04-01/Accounts/{account}"),
        ("/a/1/2/3", "/a/{id}/{id_2}/{id_3}"),
        ("/v1/health", "/v1/health"),
        ("/files/caf%C3%A9", "/files/{file}"),
        ("/", "/"),
    ] {
        assert_eq!(shapes(&[path]), [(template.to_owned(), 1)], "{path}");
    }
}

#[test]
fn many_names_below_a_collection_are_names_of_things_and_nothing_else_is() {
    let people = ["/users/alice", "/users/bob", "/users/carol", "/users/dave"];
    assert_eq!(shapes(&people), [("/users/{user}".to_owned(), 4)]);
    assert_eq!(shapes(&people[..3]).len(), 3);
    assert_eq!(shapes(&["/v1/a", "/v1/b", "/v1/c", "/v1/d", "/v1/e"]).len(), 5);
}

#[test]
fn however_many_paths_there_are_a_bounded_number_is_kept() {
    let mut kept = Paths::default();
    for number in 0..6_000_u32 {
        let word: String = number.to_string().bytes().map(|digit| char::from(digit - b'0' + b'a')).collect();
        kept.add("GET", &["x".to_owned(), word], seen("a"));
    }
    assert_eq!(kept.shapes().len(), 5_000);
    assert_eq!(kept.dropped(), 1_000);
}

fn entry(fields: &Value) -> Entry {
    Entry {
        segment: 1,
        seq: 1,
        time: "2026-11-22T10:00:00Z".parse().unwrap(),
        kind: kind::CALL_DECIDED.to_owned(),
        fields: fields.as_object().unwrap().clone(),
        erased: Vec::new(),
    }
}

/// A catalogue with one tool at `/orders` that has one action.
fn catalogue_of_one() -> Catalogue {
    let tool = json!({
        "at": "/orders", "upstream": "https://orders.example", "credential": "none",
        "actions": {"orders.list": {"match": "GET /v1/orders", "effect": "read", "resource": "orders"}},
    });
    let tools = [(model::Id::new("orders").unwrap(), serde_json::from_value(tool).unwrap())].into();
    let tenants = [model::Id::new("acme").unwrap()].into();
    proxy::resolve_tools(&tools, &tenants, &|_| None).unwrap().catalogue
}

#[test]
fn what_is_mapped_meanwhile_or_erased_is_counted_and_nothing_of_it_is_shown() {
    let catalogue = catalogue_of_one();
    let mut report = Report::default();
    for path in [json!("/orders/v1/orders"), json!("/orders/v1/orders/17"), json!("/nowhere"), Value::Null, json!("//")]
    {
        let fields =
            json!({"method": "GET", "path": path, "decision_id": "L.1", "agent": {"kind": "agent", "id": "a"}});
        report.add(&entry(&fields), Some(&catalogue));
    }
    assert_eq!((report.mapped, report.erased), (1, 2));
    let rows: Vec<(Option<String>, String)> = report.rows().into_iter().map(|row| (row.tool, row.template)).collect();
    assert_eq!(rows, [(None, "/nowhere".to_owned()), (Some("orders".to_owned()), "/v1/orders/{order}".to_owned())]);
    let said = text(&report.rows(), &report, true);
    assert!(
        said.contains("1 calls have an action") && said.contains("2 calls have no path") && !said.contains("17"),
        "{said}"
    );
}

#[test]
fn suggestions_are_actions_that_a_sidecar_would_load() {
    let row = |method: &str, template: &str| Row {
        tool: Some("orders".to_owned()),
        method: method.to_owned(),
        template: template.to_owned(),
        seen: seen("support-v1"),
    };
    let rows = [row("POST", "/v1/orders/{order}/notes"), row("GET", "/v1/orders/{order}/notes"), row("TRACE", "/x")];
    let text = suggested(&rows, None, None);
    let read: Value = serde_saphyr::from_str(&text).unwrap();
    let actions = read["tools"]["orders"]["actions"].as_object().unwrap();
    assert_eq!(actions.keys().collect::<Vec<_>>(), ["notes.create", "notes.list"], "{text}");
    assert_eq!(actions["notes.create"]["effect"], "write");
    assert!(text.contains("1 calls, by support-v1"), "{text}");
    let none: Value = serde_saphyr::from_str(&suggested(&[], None, None)).unwrap();
    assert_eq!(none["tools"], json!({}));
}
