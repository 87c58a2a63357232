//! The file read whole, and every way it can be wrong.

use model::Id;

use super::*;

const ISSUER: &str = "https://countersign.example";

const GOOD: &str = r#"
agents:
  - id: support-v2
    owner: dana@acme.example
    actions: [orders.read, refunds.create]
    tenants: [acme]
    credentials:
      - jwks: { keys: [ { kty: OKP, crv: Ed25519, x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", kid: one } ] }
      - jwks_file: keys.json
grants:
  - id: refunds
    user: { issuer: "https://sso.example", id: alice }
    agent: { id: support-v2 }
    authorization_details:
      - type: urn:countersign:action
        actions: [orders.read, refunds.create]
        locations: [orders]
        limits: { amount: { max: "50.00", currency: USD } }
        where: { order.placed_by: $user }
    stage: supervised
    expires: 2027-01-01T00:00:00Z
    redelegate: 1
tasks:
  - id: ticket-12847
    grant: refunds
    run: run-1
    tenant: acme
    session: session-1
    initiated_by: alice
    stage: supervised
    expires: 2026-12-01T00:00:00Z
"#;

const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"a","y":"b"}]}"#;

fn at() -> Timestamp {
    "2026-11-22T15:00:00Z".parse().unwrap()
}

fn writer() -> Writer {
    Writer { by: "user:dana".to_owned(), reason: Some("why".to_owned()), now: at(), idempotency: None }
}

async fn open(text: &str, keys: &str) -> (tempfile::TempDir, Result<Store, OpenError>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.yaml");
    std::fs::write(&path, text).unwrap();
    std::fs::write(folder.path().join("keys.json"), keys).unwrap();
    let declared = match Declarations::read(&path, ISSUER).await {
        Ok(declared) => declared,
        Err(error) => return (folder, Err(error)),
    };
    let database = Database::Sqlite(folder.path().join("authority.db"));
    let store = Store::open(&database, at(), &Tasks::new()).await.unwrap();
    store.declare(&writer(), &declared).await.unwrap();
    (folder, Ok(store))
}

#[tokio::test]
async fn what_is_written_is_found_under_its_name_and_nothing_else_is() {
    let (_folder, store) = open(GOOD, KEYS).await;
    let store = store.unwrap();
    let id = Id::new("support-v2").unwrap();
    let registration = store.agent(ISSUER, &id).await.unwrap().unwrap();
    assert_eq!(registration.agent.owner, "dana@acme.example");
    let jwks = registration.jwks(at()).await.unwrap();
    assert_eq!((jwks.len(), jwks[1].as_str()), (2, KEYS));
    assert!(store.agent("https://other.example", &id).await.unwrap().is_none());

    let Standing { task, grant, .. } = store.standing(&Id::new("ticket-12847").unwrap()).await.unwrap().unwrap();
    let grant = grant.grant;
    assert_eq!((grant.user.issuer.as_str(), grant.user.id.as_str()), ("https://sso.example", "alice"));
    assert_eq!((grant.agent.issuer.as_str(), grant.redelegate), (ISSUER, 1));
    assert_eq!(grant.authority.scope.to_string(), "orders.read refunds.create");
    assert_eq!(task.sensitivity, model::Sensitivity::High);
    assert!(store.task(&Id::new("ticket-1").unwrap()).await.unwrap().is_none());
}

#[tokio::test]
async fn an_agent_whose_key_file_changed_is_answered_with_the_new_keys_or_not_at_all() {
    let (folder, store) = open(GOOD, KEYS).await;
    let (store, id) = (store.unwrap(), Id::new("support-v2").unwrap());
    let rotated = KEYS.replace("P-256", "P-384");
    std::fs::write(folder.path().join("keys.json"), &rotated).unwrap();
    let registration = store.agent(ISSUER, &id).await.unwrap().unwrap();
    assert_eq!(registration.jwks(at()).await.unwrap()[1], rotated);
    std::fs::remove_file(folder.path().join("keys.json")).unwrap();
    assert!(matches!(registration.jwks(at()).await, Err(StoreError::Keys { .. })));
}

#[tokio::test]
async fn a_wrong_file_is_refused_with_the_place_and_the_reason() {
    let cases = [
        ("owner: dana@acme.example", "owner: \"  \"", "no owner"),
        ("    owner: dana@acme.example\n", "", "owner"),
        ("tenants: [acme]", "tenants: [acme]\n    tenant: acme", "tenant"),
        ("agent: { id: support-v2 }", "agent: { id: support-v3 }", "not registered"),
        ("agent: { id: support-v2 }", "agent: { id: support-v2, issuer: \"https://other.example\" }", "not registered"),
        ("user: { issuer: \"https://sso.example\", id: alice }", "user: { id: alice }", "a user has an issuer"),
        ("grant: refunds", "grant: reads", "no grant reads"),
        ("max: \"50.00\"", "max: 50.00", "quantity"),
        ("max: \"50.00\"", "max: \"-50.00\"", "negative"),
        ("urn:countersign:action", "other", "other"),
        ("actions: [orders.read, refunds.create]\n        loc", "actions: []\n        loc", "allows nothing"),
        ("stage: supervised\n    expires: 2027", "stage: draft\n    expires: 2027", "beyond"),
        ("x: \"11q", "d: secret, x: \"11q", "public key only"),
        ("keys: [ {", "keys: [], other: [ {", "no keys"),
        ("id: ticket-12847", "id: \"ticket 12847\"", "white space"),
        ("expires: 2026-12-01T00:00:00Z", "expires: soon", "failed to parse"),
        ("jwks_file: keys.json", "jwks_file: missing.json", "missing.json"),
        ("session: session-1", "grant: refunds", "duplicate"),
    ];
    for (right, wrong, expected) in cases {
        let text = GOOD.replacen(right, wrong, 1);
        assert_ne!(text, GOOD, "{right}");
        let (_folder, store) = open(&text, KEYS).await;
        let error = store.unwrap_err();
        let OpenError::Invalid { line, column, problem, .. } = &error else { panic!("{error}") };
        assert!(problem.contains(expected) && *line > 1 && *column > 0, "{error}");
        assert!(!problem.contains(" at line "), "said once: {error}");
    }
}

#[tokio::test]
async fn a_name_given_twice_is_refused_at_its_second_place() {
    let again = GOOD.replace("tasks:\n", "tasks:\n  - { id: ticket-12847, grant: refunds, run: r, tenant: acme, initiated_by: alice, expires: 2026-12-01T00:00:00Z }\n");
    let (_folder, store) = open(&again, KEYS).await;
    assert!(store.unwrap_err().to_string().contains("ticket-12847 is there twice"));
}

#[tokio::test]
async fn a_private_key_in_a_file_is_never_quoted_in_the_error() {
    let (_folder, store) = open(&GOOD.replace("x: \"11q", "d: 'very secret', kty: \"11q"), KEYS).await;
    assert!(!store.unwrap_err().to_string().contains("very secret"));
    let (_folder, store) = open(GOOD, "{\"keys\":[{\"kty\":\"OKP\",\"d\":\"very secret\"}]}").await;
    let error = store.unwrap_err().to_string();
    assert!(error.contains("public key only") && !error.contains("very secret"), "{error}");
}
