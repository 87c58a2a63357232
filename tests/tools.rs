//! `countersign tools` and `report unmapped` by the real binary: what is proposed loads and is never more than a person would
//! have to allow, what is checked is found, and documents that somebody else wrote do no harm.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    process::{Ran, countersign, run},
    sidecar::Setup,
    world,
};

/// A document with the difficulties that real ones have.
const DOCUMENT: &str = r##"
openapi: 3.1.0
info: { title: Shop API, version: "1" }
servers:
  - { url: "https://{region}.shop.example/v1", variables: { region: { default: eu } } }
  - { url: "https://other.example" }
webhooks:
  orderPaid: { post: { responses: { 200: { description: ok } } } }
components:
  securitySchemes: { key: { type: apiKey, in: header, name: X-Api-Key } }
  parameters:
    limit: { name: limit, in: query, schema: { type: integer } }
  schemas:
    Money:
      type: object
      required: [amount, currency]
      properties: { amount: { type: integer }, currency: { type: string } }
    Node:
      type: object
      properties: { name: { type: string }, next: { $ref: "#/components/schemas/Node" } }
    Order:
      type: object
      properties: { id: { type: string }, self_url: { type: string, format: uri } }
paths:
  /orders:
    get:
      operationId: listOrders
      parameters:
        - { $ref: "#/components/parameters/limit" }
        - { name: "$filter", in: query, schema: { type: string } }
        - { name: tags, in: query, schema: { type: array, items: { type: string } } }
      responses: { 200: { description: ok, content: { application/json: { schema: { type: array, items: { $ref: "#/components/schemas/Order" } } } } } }
    post:
      operationId: createOrder
      parameters: [{ name: Idempotency-Key, in: header, schema: { type: string } }]
      requestBody:
        required: true
        content:
          application/json:
            schema:
              type: object
              required: [customer_id, total]
              properties:
                customer_id: { type: integer }
                total: { $ref: "#/components/schemas/Money" }
                weight: { type: number }
                labels: { type: array, items: { type: string } }
                due: { type: string, format: date-time }
                note: { type: [string, "null"] }
                gift: { type: boolean }
                tree: { $ref: "#/components/schemas/Node" }
      callbacks: { done: { "{$request.body#/callback_url}": { post: { responses: { 200: { description: ok } } } } } }
      responses: { 201: { description: ok } }
  /orders/{order-id}:
    parameters: [{ name: order-id, in: path, required: true, schema: { type: string } }]
    get: { operationId: getOrder, responses: { 200: { description: ok, content: { application/json: { schema: { $ref: "#/components/schemas/Order" } } } } } }
    delete: { operationId: deleteOrder, responses: { 204: { description: gone } } }
  /orders/{order-id}/cancel:
    post: { operationId: cancelOrder, responses: { 200: { description: ok } } }
  /orders/{order-id}/{part}:
    get: { responses: { 200: { description: ok } } }
  /orders/archive/{year}:
    get: { responses: { 200: { description: ok } } }
  /{any}/cancel/{x}:
    post: { responses: { 200: { description: ok } } }
  /orders/search:
    post:
      operationId: searchOrders
      requestBody: { content: { application/json: { schema: { type: object, properties: { text: { type: string } } } } } }
      responses: { 200: { description: ok } }
  /files/{name}.json:
    get: { responses: { 200: { description: ok } } }
  /uploads:
    post:
      requestBody: { content: { multipart/form-data: { schema: { type: object } } } }
      responses: { 200: { description: ok } }
  /elsewhere:
    servers: [{ url: "https://files.example" }]
    get: { responses: { 200: { description: ok } } }
"##;

fn tools(directory: &Path, arguments: &[&str]) -> Ran {
    run(countersign().current_dir(directory).arg("tools").args(arguments))
}

/// A directory with `api.yaml` in it.
fn with(document: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("api.yaml"), document).unwrap();
    directory
}

/// Writes `countersign.yaml`: a configuration with `tools`, as `tools import` writes them.
fn configure(directory: &Path, tools: &str) {
    let head = r#"
sidecar: { name: t, audience: "urn:example:t", tenants: [acme] }
listen: { agent: { tcp: 127.0.0.1:8690, bearer: reads } }
issuers:
  - { issuer: https://sso.example, role: delegation, tenants: [acme], asserts: [chain, grant, task, stage, limits] }
ledger: { dir: ledger }
policy: [{ name: team, path: policies, for: [shop] }]
"#;
    fs::create_dir_all(directory.join("secrets")).unwrap();
    fs::create_dir_all(directory.join("policies")).unwrap();
    fs::write(
        directory.join("policies/team.rego"),
        "package countersign.teams.team\n\nallow contains {\"code\": \"all\"} if true\n",
    )
    .unwrap();
    fs::write(directory.join("secrets/shop"), "secret").unwrap();
    fs::set_permissions(directory.join("secrets/shop"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(directory.join("countersign.yaml"), format!("{head}{tools}")).unwrap();
}

fn check(directory: &Path) -> Ran {
    run(countersign().current_dir(directory).args(["config", "check", "countersign.yaml"]))
}

fn imported() -> (TempDir, String, Value) {
    let directory = with(DOCUMENT);
    let text = tools(directory.path(), &["import", "api.yaml", "--tool", "shop"]).well();
    let json = tools(directory.path(), &["import", "api.yaml", "--tool", "shop", "--json"]).well();
    (directory, text, serde_json::from_str(&json).unwrap())
}

#[test]
fn what_is_proposed_loads_as_it_is_and_is_the_same_each_time() {
    let (directory, text, json) = imported();
    configure(directory.path(), &text);
    let said = check(directory.path());
    assert_eq!(said.code, Some(0), "{}{}\n{text}", said.stdout, said.stderr);
    let actions: Vec<&String> = json["tools"]["shop"]["actions"].as_object().unwrap().keys().collect();
    assert_eq!(
        actions,
        [
            "archive.read",
            "cancel.update",
            "orders.cancel",
            "orders.create",
            "orders.delete",
            "orders.list",
            "orders.read",
            "orders.read_get",
            "orders.search",
            "uploads.create",
        ]
    );
    let again = tools(directory.path(), &["import", "api.yaml", "--tool", "shop"]).well();
    assert_eq!(text, again);
}

#[test]
fn what_can_be_typed_is_and_nothing_is_let_through_unseen() {
    let (_directory, text, json) = imported();
    let create = &json["tools"]["shop"]["actions"]["orders.create"];
    assert_eq!(
        create["parameters"],
        json!({
            "customer_id": {"type": "id", "value": "body:/customer_id"},
            "total_amount": {"type": "money", "value": "body:/total/amount", "currency": "body:/total/currency", "minor": true},
            "weight": {"type": "decimal", "value": "body:/weight", "scale": 6, "optional": true},
            "labels": {"type": "set", "value": "body:/labels", "optional": true},
            "due": {"type": "time", "value": "body:/due", "optional": true},
            "note": {"type": "string", "value": "body:/note", "optional": true},
            "tree_name": {"type": "string", "value": "body:/tree/name", "optional": true},
            "tree_next_name": {"type": "string", "value": "body:/tree/next/name", "optional": true},
            "tree_next_next_name": {"type": "string", "value": "body:/tree/next/next/name", "optional": true},
        })
    );
    assert_eq!((&create["effect"], &create["idempotency"]), (&json!("write"), &json!("header:Idempotency-Key")));
    let shop = &json["tools"]["shop"];
    assert_eq!((&shop["at"], &shop["upstream"]), (&json!("/shop"), &json!("https://eu.shop.example/v1")));
    assert_eq!(shop["credential"], json!({"header": {"name": "X-Api-Key", "value": {"file": "secrets/shop"}}}));
    let list = &shop["actions"]["orders.list"];
    assert_eq!(list["parameters"]["_filter"]["value"], "query:$filter");
    assert!(text.contains("query:$$filter"), "a dollar sign is text: {text}");
    let read = &shop["actions"]["orders.read"];
    assert_eq!((&read["match"], &read["resource"]), (&json!("GET /orders/{order_id}"), &json!("orders/{order_id}")));
    assert_eq!(shop["actions"]["orders.search"]["effect"], "write", "whoever says it reads is a person");
    let allowed = text.lines().any(|line| line.trim_start().starts_with("additional: allow"));
    assert!(!allowed, "only a person lets anything through unseen: {text}");
    for words in [
        "multipart/form-data",
        "`gift` (a boolean",
        "callback_url",
        "reads by its name",
        "https://other.example",
        "neither says more",
        "webhooks",
        "a variable only in part",
        "`https://files.example`",
        "`upstream` is what the document says",
        "`scale` is a guess",
        "in minor units",
    ] {
        let flat = text.replace('#', " ").split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(words), "nothing about {words}: {text}");
    }
}

#[test]
fn only_what_is_new_is_proposed_beside_a_configuration() {
    let (directory, text, _) = imported();
    configure(directory.path(), &text);
    let existing = ["import", "api.yaml", "--tool", "shop", "--existing", "countersign.yaml"];
    let nothing: Value =
        serde_json::from_str(&tools(directory.path(), &[&existing[..], &["--json"]].concat()).well()).unwrap();
    assert_eq!(nothing["tools"]["shop"], json!({"actions": {}}), "{nothing}");
    let more = format!(
        "{DOCUMENT}  /orders/{{order-id}}/refunds:\n    post: {{ responses: {{ 200: {{ description: ok }} }} }}\n"
    );
    fs::write(directory.path().join("api.yaml"), more).unwrap();
    let one: Value =
        serde_json::from_str(&tools(directory.path(), &[&existing[..], &["--json"]].concat()).well()).unwrap();
    let actions: Vec<&String> = one["tools"]["shop"]["actions"].as_object().unwrap().keys().collect();
    assert_eq!(actions, ["refunds.create"]);
    let other = ["import", "api.yaml", "--tool", "shop2", "--existing", "countersign.yaml", "--json"];
    let other: Value = serde_json::from_str(&tools(directory.path(), &other).well()).unwrap();
    let old: Vec<String> = serde_saphyr::from_str::<Value>(&text).unwrap()["tools"]["shop"]["actions"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    let new = other["tools"]["shop2"]["actions"].as_object().unwrap();
    assert!(old.iter().all(|name| !new.contains_key(name)), "no name is used twice: {new:?}");
    let refused = tools(directory.path(), &[&existing[..], &["--at", "/x"]].concat());
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
}

#[test]
fn a_file_that_somebody_reviewed_is_not_written_over() {
    let directory = with(DOCUMENT);
    let said = tools(directory.path(), &["import", "api.yaml", "--tool", "shop", "-o", "shop.yaml"]).well();
    assert!(said.contains("10 actions"), "{said}");
    let again = tools(directory.path(), &["import", "api.yaml", "--tool", "shop", "-o", "shop.yaml"]);
    assert_eq!(again.code, Some(69), "{}", again.stderr);
}

#[test]
fn documents_that_cannot_be_read_are_named_and_do_no_harm() {
    for (document, words) in [
        ("swagger: '2.0'", "Swagger 2.0"),
        ("openapi: 3.9.0", "3.9.0"),
        ("{\"openapi\": \"3.0.0\", \"paths\": ", "not a JSON or YAML document"),
        ("", "no `openapi"),
        ("\u{0}\u{1}", "api.yaml"),
    ] {
        let directory = with(document);
        let said = tools(directory.path(), &["import", "api.yaml", "--tool", "t"]);
        assert_eq!(said.code, Some(78), "{document}: {}", said.stderr);
        assert!(said.stderr.contains(words) && !said.stderr.contains("panicked"), "{document}: {}", said.stderr);
    }
    let directory = with("x");
    fs::write(directory.path().join("api.yaml"), [0xff, 0xfe, b'{']).unwrap();
    assert_eq!(tools(directory.path(), &["import", "api.yaml"]).code, Some(78));
    assert_eq!(tools(directory.path(), &["import", "nothing.yaml"]).code, Some(78));
}

#[test]
fn text_of_a_document_can_become_neither_yaml_nor_a_variable() {
    let evil = "x\n    upstream: https://evil.example\n  evil:\n    at: /evil ${HOME} \u{2028}- a: &b";
    let document = json!({
        "openapi": "3.0.0", "info": {"title": evil}, "servers": [{"url": "https://shop.example"}],
        "paths": {
            format!("/a{}", evil.replace(['{', '}'], "")): {"get": {"operationId": evil, "tags": [evil], "responses": {}}},
            "/b": {"post": {
                "operationId": evil,
                "parameters": [{"name": evil, "in": "query", "schema": {"type": "string"}}, {"name": evil, "in": "header"}],
                "requestBody": {"content": {"application/json": {"schema": {"type": "object", "properties": {
                    evil: {"type": "string"}, "flag": {"type": "boolean", "description": evil},
                }}}}},
                "responses": {},
            }},
        },
    });
    let directory = with(&document.to_string());
    let text = tools(directory.path(), &["import", "api.yaml", "--tool", "shop"]).well();
    let read: Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(read["tools"].as_object().unwrap().keys().collect::<Vec<_>>(), ["shop"], "{text}");
    assert_eq!(read["tools"]["shop"]["upstream"], "https://shop.example");
    configure(directory.path(), &text.replace("credential: none", "credential: { bearer: { file: secrets/shop } }"));
    let said = check(directory.path());
    assert_eq!(said.code, Some(0), "{}{}\n{text}", said.stdout, said.stderr);
}

#[test]
fn a_password_in_a_document_is_in_nothing_that_is_written() {
    let document = DOCUMENT.replace("https://files.example", "https://user:hunter2@files.example").replacen(
        "servers:",
        "servers:\n  - { url: \"https://user:hunter2@shop.example/v1\" }",
        1,
    );
    let directory = with(&document);
    let text = tools(directory.path(), &["import", "api.yaml", "--tool", "shop"]).well();
    assert!(text.contains("upstream: \"https://shop.example/v1\"") && text.contains("https://files.example"), "{text}");
    configure(directory.path(), &text);
    let said = tools(directory.path(), &["check", "--openapi", "shop=api.yaml"]);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    assert!(said.stdout.contains("https://files.example"), "{}", said.stdout);
    assert!(![&text, &said.stdout, &said.stderr].iter().any(|text| text.contains("hunter2")), "{text}{}", said.stdout);
}

#[test]
fn a_check_says_what_is_unmapped_dead_or_leads_past_the_sidecar() {
    let (directory, text, _) = imported();
    let without = text
        .replace("      orders.delete:", "      orders.removed:")
        .replace("DELETE /orders/{order_id}", "DELETE /gone/{order_id}");
    configure(directory.path(), &without);
    let said = tools(directory.path(), &["check", "--openapi", "shop=api.yaml", "--json"]);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    let report: Value = serde_json::from_str(&said.stdout).unwrap();
    let kinds = |kind: &str| -> Vec<&Value> {
        report["findings"].as_array().unwrap().iter().filter(|finding| finding["kind"] == kind).collect()
    };
    let unmapped: Vec<&str> = kinds("unmapped").iter().map(|finding| finding["operation"].as_str().unwrap()).collect();
    assert_eq!(
        unmapped,
        ["DELETE /orders/{order-id} (deleteOrder)", "GET /elsewhere", "GET /files/{name}.json"],
        "{report}"
    );
    assert_eq!(kinds("dead")[0]["action"], "orders.removed");
    for (kind, words) in [
        ("link", "self_url"),
        ("callback", "createOrder"),
        ("server", "https://other.example"),
        ("server", "https://files.example"),
        ("overlap", "neither says more"),
        ("callback", "orderPaid"),
    ] {
        assert!(
            kinds(kind).iter().any(|finding| finding["message"].as_str().unwrap().contains(words)),
            "{kind} {words}: {report}"
        );
    }
    let accepted = "unmapped,dead,link,callback,server,overlap,parameter";
    let fine = tools(directory.path(), &["check", "--openapi", "api.yaml", "--accept", accepted]).well();
    assert!(fine.starts_with("ok, "), "{fine}");
    let wrong = tools(directory.path(), &["check", "--accept", "unmaped"]);
    assert!(wrong.code == Some(2) && wrong.stderr.contains("did you mean `unmapped`"), "{}", wrong.stderr);
}

#[test]
fn an_action_that_is_taken_for_less_than_its_method_says_is_found_without_a_document() {
    let (directory, text, _) = imported();
    let (before, after) = text.split_once("      orders.search:").unwrap();
    configure(
        directory.path(),
        &format!("{before}      orders.search:{}", after.replacen("effect: write", "effect: read", 1)),
    );
    let said = tools(directory.path(), &["check", "--accept", "overlap"]);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    assert!(said.stdout.contains("warning[effect] shop orders.search"), "{}", said.stdout);
    tools(directory.path(), &["check", "--accept", "overlap,effect:orders.search"]).well();
}

#[test]
fn however_many_actions_overlap_a_check_names_a_few_for_each_and_ends() {
    let directory = tempfile::tempdir().unwrap();
    let mut text =
        "tools:\n  shop:\n    at: /shop\n    upstream: \"https://shop.example\"\n    identity: service_account\n    \
                    credential: { bearer: { file: secrets/shop } }\n    actions:\n"
            .to_owned();
    for number in 0..300 {
        for (name, path) in [("one", format!("a{number}/{{x}}")), ("other", format!("{{x}}/a{number}"))] {
            text.push_str(&format!(
                "      {name}.n{number}: {{ match: \"GET /{path}\", effect: read, resource: \"{path}\" }}\n"
            ));
        }
    }
    configure(directory.path(), &text);
    let said = tools(directory.path(), &["check", "--json"]);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    let report: Value = serde_json::from_str(&said.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    // Of the 90,000 pairs, three for each action and that there are more.
    assert!((300..=4 * 600).contains(&findings.len()), "{}", findings.len());
    let more = findings.iter().filter(|finding| finding["message"].as_str().unwrap().contains("and more actions"));
    assert!(more.count() >= 290);
}

#[test]
fn calls_without_an_action_become_suggestions() {
    let Some(world) = world() else { return };
    let sidecar = Setup::new(&world.openid, &world.tool).start();
    let alice = world.openid.delegated("alice");
    for order in ["17", "18", "19"] {
        sidecar.get(&format!("/orders/v1/orders/{order}/notes"), &alice).send().refused(403, "unmapped_action");
    }
    sidecar.get("/nowhere/at/all", &alice).send().refused(403, "unknown_tool");
    sidecar.get("/orders/v1/orders/17", &alice).send().went(200);
    let report = |arguments: &[&str]| {
        let mut command = countersign();
        command
            .args(["report", "unmapped", "--config"])
            .arg(sidecar.directory().join("countersign.yaml"))
            .args(arguments);
        run(&mut command).well()
    };
    let rows: Vec<Value> = report(&["--json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [notes, nowhere] = &rows[..] else { panic!("two kinds of calls: {rows:?}") };
    assert_eq!((&notes["tool"], &notes["path"]), (&json!("orders"), &json!("/v1/orders/{order}/notes")));
    assert_eq!((&notes["calls"], &notes["agents"]), (&json!(3), &json!(["support-v1"])));
    assert_eq!((&nowhere["tool"], &nowhere["path"]), (&Value::Null, &json!("/nowhere/at/all")));
    let yaml: Value = serde_saphyr::from_str(&report(&["--yaml"])).unwrap();
    let action = &yaml["tools"]["orders"]["actions"]["notes.list"];
    assert_eq!(
        (&action["match"], &action["effect"]),
        (&json!("GET /v1/orders/{order}/notes"), &json!("read")),
        "{yaml}"
    );
    let text = report(&[]);
    assert!(text.contains("/v1/orders/{order}/notes") && !text.contains("/17/"), "{text}");
}
