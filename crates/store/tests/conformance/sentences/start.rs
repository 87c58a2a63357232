//! How a database begins: schema, declarations, a restore.

use countersign_store::{
    AgentChange, ChangeKind, Declarations, Enrolment, NewJoinToken, OpenError, Serves, Store, StoreError,
};
use model::{AgentStatus, registry::TaskStatus};
use serde_json::json;

use crate::{
    crash::every_change,
    place::{ISSUER, Place, after, id, ids, keyed, later, now, target, writer},
};

const FILE: &str = r#"
agents:
  - { id: support, owner: dana, actions: [orders.read, refunds.create], tenants: [acme] }
grants:
  - id: refunds
    user: { issuer: "https://sso.example", id: alice }
    agent: { id: support }
    authorization_details: [{ type: "urn:countersign:action", actions: [orders.read], locations: [orders] }]
    stage: draft
    expires: 2027-01-01T00:00:00Z
tasks:
  - { id: ticket-1, grant: refunds, run: run-1, tenant: acme, initiated_by: alice, expires: 2026-12-01T00:00:00Z }
"#;

/// What applying `text` brings: how many declarations, and the kinds of change.
async fn declare(place: &Place, store: &Store, text: &str) -> (u64, Vec<&'static str>) {
    let path = place.folder.path().join("declared.yaml");
    std::fs::write(&path, text).unwrap();
    let declared = Declarations::read(&path, ISSUER).await.unwrap();
    let before = store.head().await.unwrap().position;
    let applied = store.declare(&writer(), &declared).await.unwrap().value;
    let changes = store.changes(before, 100).await.unwrap().changes;
    (applied, changes.iter().map(|change| change.kind.word()).collect())
}

pub(crate) async fn declarations_are_applied_once_and_make_nothing_good_again(place: &Place) {
    let store = place.open().await;
    let new = vec!["agent.registered", "grant.created", "task.started"];
    assert_eq!(declare(place, &store, FILE).await, (3, new));
    assert_eq!(declare(place, &store, FILE).await, (0, vec![]), "the same again changes nothing");
    assert_eq!(declare(place, &store, "agents: []").await, (0, vec![]), "what is not named stays");
    assert!(store.agent(ISSUER, &id("support")).await.unwrap().is_some());

    let narrower = FILE.replace("[orders.read, refunds.create]", "[orders.read]");
    assert_eq!(declare(place, &store, &narrower).await, (1, vec!["agent.changed", "withdrawal.created"]));
    // Suspended here: another owner in the file does not lift that, another status there does.
    let suspend = AgentChange { status: Some(AgentStatus::Suspended), ..AgentChange::default() };
    store.change_agent(&writer(), ISSUER, &id("support"), suspend).await.unwrap();
    let status = async || store.agent(ISSUER, &id("support")).await.unwrap().unwrap().agent.status;
    declare(place, &store, &narrower.replace("owner: dana", "owner: erin")).await;
    assert_eq!(status().await, AgentStatus::Suspended);
    declare(place, &store, &narrower.replace("owner: dana", "owner: dana, status: suspended")).await;
    declare(place, &store, &narrower.replace("owner: dana", "owner: dana, status: active")).await;
    assert_eq!(status().await, AgentStatus::Active);

    store.end_task(&writer(), &id("ticket-1"), TaskStatus::Completed).await.unwrap();
    store.withdraw_grant(&writer(), &id("refunds")).await.unwrap();
    let gone = AgentChange { status: Some(AgentStatus::Decommissioned), ..AgentChange::default() };
    store.change_agent(&writer(), ISSUER, &id("support"), gone).await.unwrap();
    let other = FILE.replace("owner: dana", "owner: frank").replace("2027-", "2028-").replace("2026-12", "2026-11");
    assert_eq!(declare(place, &store, &other).await, (0, vec![]));
    assert_eq!(store.task(&id("ticket-1")).await.unwrap().unwrap().task.status, TaskStatus::Completed);
}

pub(crate) async fn a_restore_begins_a_generation_in_which_nothing_unused_from_before_is_good(place: &Place) {
    let store = place.open().await;
    let before = store.head().await.unwrap();
    let serves = Serves { tenants: ids(&["acme"]), tools: None, agents: None };
    let new = NewJoinToken { name: None, serves, expires: after(600) };
    let token = store.create_join_token(&writer(), new).await.unwrap().value;
    store.withdraw(&keyed("key"), target("task:a")).await.unwrap();
    let began = store.begin_generation(&later(10)).await.unwrap();
    assert_eq!(began.value, store.head().await.unwrap());
    assert_eq!((began.position, began.value.began), (3, after(10)));
    assert_ne!(began.value.generation, before.generation);
    let last = every_change(&store).await.pop().unwrap();
    let ChangeKind::GenerationBegan { generation, before: old } = last.kind else { panic!("{last:?}") };
    assert_eq!((generation, old), (began.value.generation, before.generation));
    let key = json!({ "kty": "OKP", "crv": "Ed25519", "x": "a" });
    let joined = store.enrol(&later(11), &Enrolment::JoinToken(token.secret.unwrap()), "support", &key).await;
    assert!(matches!(joined, Err(StoreError::Conflict(_))));
    assert!(!store.withdraw(&keyed("key"), target("task:a")).await.unwrap().replayed);
    // A start is no restore.
    assert_eq!(place.open().await.head().await.unwrap().generation, store.head().await.unwrap().generation);
}

/// What the first program that databases are left of made: its tables, and the versions it called them by.
const EARLIER: [&str; 6] = [
    include_str!("../../../migrations/0001.sql"),
    include_str!("../../../migrations/0002.sql"),
    include_str!("../../../migrations/0003.sql"),
    include_str!("../../../migrations/0004.sql"),
    include_str!("../../../migrations/0005.sql"),
    "CREATE TABLE schema_versions (version bigint PRIMARY KEY, at text NOT NULL);
     INSERT INTO schema_versions (version, at) VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd'), (5, 'e');
     INSERT INTO head (id, position, generation, began) VALUES (1, 7, 'first', '2026-01-01T00:00:00.000000000Z');
     INSERT INTO forgotten (id, until) VALUES (1, '2026-01-01T00:00:00.000000000Z');
     INSERT INTO users (issuer, id, tenant, claims, as_of) VALUES ('a', 'b', 'c', '{}', 'd')",
];

pub(crate) async fn a_database_of_an_earlier_program_is_brought_up_to_date_with_what_is_in_it(place: &Place) {
    if let countersign_store::Database::Sqlite(path) = &place.database {
        use std::os::unix::fs::OpenOptionsExt;
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    }
    for statements in EARLIER {
        crate::engines::statement(place, statements).await;
    }
    let store = place.open().await;
    let head = store.head().await.unwrap();
    assert_eq!((head.position, head.generation.as_str()), (7, "first"));
    assert_eq!(store.withdraw(&writer(), target("task:a")).await.unwrap().position, 8);
    assert_eq!(crate::engines::count(place, "SELECT count(*) FROM users").await, 1);
    // Only once.
    assert_eq!(place.open().await.head().await.unwrap().position, 8);
}

pub(crate) async fn a_later_schema_is_refused(place: &Place) {
    place.open().await.close().await;
    crate::engines::statement(place, "INSERT INTO schema_versions (version, at) VALUES (99, 'later')").await;
    let error = Store::open(&place.database, now(), &place.tasks).await.unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error}");
    assert!(error.to_string().contains("later version"), "{error}");
}

pub(crate) async fn replicas_that_start_together_make_one_schema(place: &Place) {
    let mut starting = Vec::new();
    for _ in 0..6 {
        let (database, tasks) = (place.database.clone(), place.tasks.clone());
        starting.push(place.tasks.spawn("replica", async move { Store::open(&database, now(), &tasks).await }));
    }
    let mut generations = std::collections::BTreeSet::new();
    for replica in starting {
        generations.insert(replica.join().await.unwrap().unwrap().head().await.unwrap().generation);
    }
    assert_eq!(generations.len(), 1);
}
