//! What is kept of policies, for how long, and that nothing else passes for it.

use std::os::unix::fs::PermissionsExt;

use policy::bundle::File as RegoFile;
use serde_json::json;

use super::*;

fn kept(revision: &str) -> Kept {
    let tools: BTreeMap<Id<Tool>, ToolConfig> = serde_json::from_value(json!({"orders": {
        "at": "/orders",
        "upstream": "http://127.0.0.1:1",
        "credential": {"bearer": {"file": "/secrets/of-the-tool"}},
        "actions": {"orders.read": {"match": "GET /v1/orders/{order}", "effect": "read", "resource": "orders/{order}"}},
    }}))
    .unwrap();
    let text = format!("package countersign.teams.support\n\nallow contains {{\"code\": \"{revision}\"}}\n");
    let source = Source {
        name: "support".to_owned(),
        tools: Some([Id::new("orders").unwrap()].into()),
        policies: vec![RegoFile { path: "support.rego".to_owned(), text }],
        tests: Vec::new(),
        data: Vec::new(),
    };
    let catalogue = Catalogue::new(Vec::new(), "catalogue-1".to_owned()).unwrap();
    Kept::new(revision, &catalogue, &tools, &[Id::new("acme").unwrap()].into(), vec![source])
}

fn at(minute: i64) -> Timestamp {
    Timestamp::new(1_790_000_000 + minute * 60, 0).unwrap()
}

fn names(ledger: &Path) -> Vec<String> {
    let listed = fs::read_dir(ledger.join(DIRECTORY)).unwrap();
    let mut names: Vec<_> = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names.into_iter().map(|name| name.trim_end_matches(ENDING).to_owned()).collect()
}

#[test]
fn what_is_kept_is_read_again_without_secrets_and_by_its_owner_alone() {
    let ledger = tempfile::tempdir().unwrap();
    kept("a1").keep(ledger.path(), at(0), None).unwrap();
    let path = ledger.path().join(DIRECTORY).join("a1.json.gz");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let read = Kept::of(ledger.path(), "a1").unwrap().unwrap();
    assert!(read.sources[0].policies[0].text.contains("\"a1\""));
    let catalogue = read.catalogue().unwrap();
    assert_eq!((catalogue.revision(), catalogue.tools().len()), ("catalogue-1", 1));
    assert!(!serde_json::to_string(&read).unwrap().contains("/secrets/"));
    assert_eq!(Kept::newest(ledger.path()).unwrap().unwrap().revision, "a1");
}

#[test]
fn a_revision_leads_nowhere_but_to_what_is_kept() {
    let ledger = tempfile::tempdir().unwrap();
    fs::write(ledger.path().join("outside.json.gz"), "x").unwrap();
    for revision in ["", "../outside", "a/b", "a1\0", "nothing"] {
        assert!(Kept::of(ledger.path(), revision).unwrap().is_none(), "{revision:?}");
    }
    assert!(Kept::newest(ledger.path()).unwrap().is_none());
    kept("a1").keep(ledger.path(), at(0), None).unwrap();
    fs::write(ledger.path().join(DIRECTORY).join("a1.json.gz"), "no archive").unwrap();
    assert!(matches!(Kept::of(ledger.path(), "a1"), Err(KeptError::Unreadable { .. })));
}

#[test]
fn what_no_record_can_cite_any_more_goes_and_nothing_else_does() {
    let ledger = tempfile::tempdir().unwrap();
    kept("first").keep(ledger.path(), at(0), Some(at(0))).unwrap();
    kept("second").keep(ledger.path(), at(10), Some(at(0))).unwrap();
    // The ledger begins at a time at which the first decided still.
    kept("third").keep(ledger.path(), at(20), Some(at(5))).unwrap();
    assert_eq!(names(ledger.path()), ["first", "second", "third"]);
    // Back to the second: it is cited from now on, and the first was followed by it before the first record.
    kept("second").keep(ledger.path(), at(30), Some(at(25))).unwrap();
    assert_eq!(names(ledger.path()), ["second", "third"], "the third decided until minute 30");
    kept("second").keep(ledger.path(), at(40), Some(at(35))).unwrap();
    assert_eq!(names(ledger.path()), ["second", "third"], "when it came into force last is all that is known");
    kept("fourth").keep(ledger.path(), at(60), Some(at(50))).unwrap();
    assert_eq!(names(ledger.path()), ["fourth", "second"]);
}

#[test]
fn more_than_may_be_kept_is_refused_and_leaves_nothing_behind() {
    let mut bounded = Bounded { inner: Vec::new(), left: 4 };
    bounded.write_all(b"four").unwrap();
    assert_eq!(bounded.write_all(b"!").unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    let ledger = tempfile::tempdir().unwrap();
    fs::create_dir(ledger.path().join(DIRECTORY)).unwrap();
    let mut large = kept("large");
    large.sources[0].policies[0].text = " ".repeat(usize::try_from(MAX_BYTES).unwrap());
    assert!(matches!(large.keep(ledger.path(), at(0), None), Err(KeptError::TooLarge)));
    assert_eq!(names(ledger.path()), Vec::<String>::new());
}
