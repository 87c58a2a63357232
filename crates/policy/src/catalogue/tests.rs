//! What a catalogue may hold, whose it is, and everything that makes one none.

use std::fs;

use super::*;
use crate::bundle::{Bundle, Making, build};

const READ: &str = r#"{"match": "GET /v1/orders/{order}", "effect": "read", "resource": "orders/{order}"}"#;

fn written(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

fn configured(path: &FilePath, tools: &[&str]) -> CatalogueSource {
    let source = serde_json::json!({ "name": "shop", "path": path, "for": tools });
    serde_json::from_value(source).unwrap()
}

fn opened(files: &[(&str, &str)], tools: &[&str]) -> Result<Actions, String> {
    let directory = written(files);
    let (source, _) =
        configured(directory.path(), tools).source().open(FilePath::new("/")).map_err(|error| error.to_string())?;
    actions(&source).map_err(|error| error.to_string())
}

#[test]
fn a_directory_says_the_actions_of_its_own_tools_in_any_number_of_documents() {
    let whole = format!(r#"{{"catalogue": {{"orders": {{"actions": {{"orders.read": {READ}}}}}}}}}"#);
    let beside = "orders.list: { match: GET /v1/orders, effect: read, resource: orders }\n";
    let found =
        opened(&[("data.json", &whole), ("catalogue/orders/actions/data.yaml", beside)], &["orders", "crm"]).unwrap();
    let names: Vec<&String> = found.values().flat_map(Map::keys).collect();
    assert_eq!(names, ["orders.list", "orders.read"]);
    // A tool without actions is one that nothing may be done with.
    assert!(opened(&[("data.json", r#"{"catalogue": {"orders": {"actions": {}}}}"#)], &["orders"]).is_ok());
}

#[test]
fn what_is_not_a_catalogue_of_the_sources_own_tools_is_refused_whole() {
    let of = |tool: &str, action: &str| format!(r#"{{"catalogue": {{"{tool}": {{"actions": {{"a.b": {action}}}}}}}}}"#);
    let (good, foreign) = (of("orders", READ), of("crm", READ));
    let observing = of("orders", r#"{"match": "GET /", "observe": {"owner": "x", "until": "2030-01-01T00:00:00Z"}}"#);
    let rego = ("a.rego", "package countersign.teams.shop\n");
    let manifest = |roots: &str| format!(r#"{{"revision": "r", "roots": {roots}}}"#);
    for (files, why) in [
        (vec![("data.json", good.as_str()), rego], "no Rego"),
        (vec![("data.json", good.as_str()), ("a_test.rego", rego.1)], "no Rego"),
        (vec![("readme.md", "x")], "no data document"),
        (vec![("data.json", foreign.as_str())], "`data.catalogue.crm`"),
        (vec![("data.json", observing.as_str())], "`observe`"),
        (vec![("data.json", r#"{"countersign": {"org": {"limit": 9}}}"#)], "holds `data.countersign`"),
        (vec![("data.json", r#"{"catalogue": {"orders": {"upstream": "https://x"}}}"#)], "upstream"),
        (vec![("data.json", r#"{"catalogue": {"orders": {"actions": []}}}"#)], "is no object"),
        (vec![("data.json", of("orders", "3").as_str())], "an action is an object"),
        (
            vec![("data.json", good.as_str()), ("catalogue/data.yaml", "orders: { actions: { a.b: {} } }")],
            "another document",
        ),
        (vec![("data.json", good.as_str()), (".manifest", manifest(r#"["catalogue/crm"]"#).as_str())], "its root"),
        (vec![("data.json", good.as_str()), (".manifest", manifest(r#"["catalogue"]"#).as_str())], "its root"),
        (
            vec![("data.json", good.as_str()), (".manifest", manifest(r#"["catalogue/orders/actions"]"#).as_str())],
            "its root",
        ),
        (vec![("data.json", good.as_str()), (".manifest", manifest("[]").as_str())], "no roots"),
    ] {
        let said = opened(&files, &["orders"]).unwrap_err();
        assert!(said.contains(why), "{why}: {said}");
    }
    // Of two tools that are its own, the bundle speaks of those that it declares.
    let declared = manifest(r#"["catalogue/orders"]"#);
    let said = opened(&[("data.json", &foreign), (".manifest", &declared)], &["orders", "crm"]).unwrap_err();
    assert!(said.contains("not among its tools: `orders`"), "{said}");
}

#[test]
fn a_source_holds_no_more_actions_than_can_be_held_against_each_other() {
    let many: Map<String, Value> =
        (0..=MAX_ACTIONS).map(|number| (format!("a.n{number}"), serde_json::json!({}))).collect();
    let document = serde_json::json!({ "catalogue": { "orders": { "actions": many } } }).to_string();
    let said = opened(&[("data.json", &document)], &["orders"]).unwrap_err();
    assert!(said.contains("more than 20000 actions"), "{said}");
}

#[test]
fn a_bundle_is_built_of_it_that_owns_its_tools_and_nothing_else() {
    let document = format!(r#"{{"catalogue": {{"orders": {{"actions": {{"orders.read": {READ}}}}}, "crm": {{}}}}}}"#);
    let directory = written(&[("data.json", &document)]);
    let making = Making { name: None, revision: Some("r1"), serial: Some(3), tests: false };
    let archive = build(directory.path(), making).unwrap();
    let bundle = Bundle::open(&archive, None).unwrap();
    let roots = bundle.manifest().roots.clone().unwrap();
    assert_eq!(roots, ["catalogue/crm", "catalogue/orders"]);
    let source = configured(FilePath::new("x"), &["crm", "orders"]).source();
    let (source, origin) = source.opened(&archive, None, FilePath::new("shop.tar.gz")).unwrap();
    assert_eq!((origin.kind, source.policies.len()), (SourceKind::Catalogue, 0));
    // It is nobody's policy, and somebody else's catalogue it is neither.
    let narrower = configured(FilePath::new("x"), &["orders"]).source();
    assert!(
        narrower.opened(&archive, None, FilePath::new("shop.tar.gz")).unwrap_err().to_string().contains("its root")
    );
    assert!(bundle.source("org", None, FilePath::new("shop.tar.gz")).is_err());
    // A policy is none.
    let policy = written(&[("a.rego", "package countersign.org\n\ndeny contains {\"code\": \"x\"} if false\n")]);
    assert!(build(policy.path(), making).is_err());
}

#[test]
fn settings_that_do_not_go_together_are_said_with_the_section_that_they_stand_in() {
    let mut source = configured(FilePath::new("/catalogue"), &["orders"]);
    assert!(source.problems().is_empty());
    for name in ["org", "Shop", "allow", ""] {
        name.clone_into(&mut source.name);
        assert!(source.problems().iter().any(|problem| problem.contains("its name")), "{name}");
    }
    "shop".clone_into(&mut source.name);
    (source.path, source.tools) = (PathBuf::new(), BTreeSet::new());
    let said = source.problems().join("\n");
    assert!(said.contains("catalogue.shop: needs `path` or `bundle`") && said.contains("names no tool"), "{said}");
    let unknown = serde_json::json!({ "name": "shop", "path": "x", "for": ["orders"], "candidate": { "path": "y" } });
    assert!(serde_json::from_value::<CatalogueSource>(unknown).is_err());
}
