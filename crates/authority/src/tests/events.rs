//! Security events that are pushed: what they end, what is on record of it, and the answers of RFC 8935.

use http::{Request, StatusCode};
use http_body_util::Full;
use net::Peer;
use serde_json::{Value, json};

use super::world::{SSO, World, now};

pub(super) const AUDIENCE: &str = "https://countersign.example/ssf";
pub(super) const SECRET: &str = "the-transmitters-secret";
const REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const DISABLED: &str = "https://schemas.openid.net/secevent/risc/event-type/account-disabled";
const VERIFICATION: &str = "https://schemas.openid.net/secevent/ssf/event-type/verification";

/// A world whose identity provider transmits security events too.
pub(super) async fn world() -> World {
    world_with(json!({})).await
}

/// The same with more said of the transmitter.
async fn world_with(more: Value) -> World {
    World::with(
        |_| (),
        |config| {
            let beside = |name: &str| config.keys.dir.with_file_name(name);
            let secret = beside("push.secret");
            std::fs::write(&secret, SECRET).unwrap();
            std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            let mut transmitter = json!({
                "transmitter": SSO, "audience": AUDIENCE, "keys": { "file": beside("sso.json") },
                "algorithms": ["ES256"], "push": { "file": secret },
            });
            for (name, value) in more.as_object().unwrap() {
                transmitter[name] = value.clone();
            }
            config.events = serde_json::from_value(json!([transmitter])).unwrap();
        },
    )
    .await
}

fn alice() -> Value {
    json!({ "format": "iss_sub", "iss": SSO, "sub": "alice" })
}

/// A SET about `subject`, `change`d.
fn event(world: &World, name: &str, subject: &Value, change: &Value) -> String {
    let mut claims = json!({
        "iss": SSO, "aud": AUDIENCE, "iat": now(), "jti": uuid::Uuid::now_v7().to_string(), "sub_id": subject,
        "events": { name: { "reason_admin": { "en": "reported stolen" } } },
    });
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    world.sso.sign("secevent+jwt", &claims).unwrap().expose().to_owned()
}

/// What the answer to a push is: its status, and the error code of one that was not taken.
pub(super) async fn pushed_with(world: &World, token: &str, kind: &str, secret: Option<&str>) -> (u16, String) {
    let mut request = Request::post("/ssf/events").header("content-type", kind);
    if let Some(secret) = secret {
        request = request.header("authorization", format!("Bearer {secret}"));
    }
    let request = request.body(Full::new(token.to_owned().into())).unwrap();
    let peer = Peer::tcp(([127, 0, 0, 1], 1).into());
    let (head, body) = std::sync::Arc::clone(&world.authority).handle(peer, request).await.into_parts();
    let body = net::body::collect(body, 1 << 20).await.unwrap();
    assert_eq!(head.headers["cache-control"], "no-store");
    if head.status == StatusCode::ACCEPTED {
        assert!(body.is_empty());
        return (202, String::new());
    }
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert!(body["description"].is_string() || body["detail"].is_string(), "{body}");
    (head.status.as_u16(), body["err"].as_str().unwrap_or_default().to_owned())
}

async fn pushed(world: &World, token: &str) -> (u16, String) {
    pushed_with(world, token, "application/secevent+jwt", Some(SECRET)).await
}

fn taken() -> (u16, String) {
    (202, String::new())
}

fn refused(err: &str) -> (u16, String) {
    (400, err.to_owned())
}

#[tokio::test]
async fn a_revoked_session_ends_with_its_tasks_and_who_said_so_and_why_is_on_record() {
    let world = world().await;
    world.first(&[]).await.token();
    let session = json!({ "format": "complex", "user": alice(), "session": { "format": "opaque", "id": "session-1" } });
    let token = event(&world, REVOKED, &session, &json!({}));
    assert_eq!(pushed(&world, &token).await, taken());
    let records = world.records("withdrawal.created");
    let text = |name: &str| records[0].text(name).unwrap().to_owned();
    assert_eq!(records.len(), 1);
    assert_eq!(text("by"), format!("security event of {SSO}"));
    assert_eq!(text("reason"), "session-revoked: reported stolen");
    assert!(format!("{:?}", records[0].fields).contains("session-1"));
    assert_eq!(world.first(&[]).await.error().0, "invalid_request", "nothing is issued for that session");
    // Told again it is acknowledged and has no effect.
    assert_eq!(pushed(&world, &token).await, taken());
    assert_eq!(world.records("withdrawal.created").len(), 1);
}

#[tokio::test]
async fn a_disabled_account_ends_everything_of_the_user() {
    let world = world().await;
    world.first(&[]).await.token();
    assert_eq!(pushed(&world, &event(&world, DISABLED, &alice(), &json!({}))).await, taken());
    assert_eq!(world.first(&[]).await.error().0, "invalid_request");
    let listed = world.manage("GET", "withdrawals", &world.admin_token(), Value::Null).await.done();
    assert_eq!(listed["withdrawals"][0]["target"]["kind"], "user", "{listed}");
    let bob = json!({ "format": "iss_sub", "iss": SSO, "sub": "bob" });
    assert_eq!(pushed(&world, &event(&world, DISABLED, &bob, &json!({}))).await, taken(), "whoever that is");
}

#[tokio::test]
async fn an_account_that_is_named_by_its_address_ends_where_it_is_said_where_addresses_are() {
    let email = |address: &str| json!({ "format": "email", "email": address });
    let disabled =
        async |world: &World, address: &str| pushed(world, &event(world, DISABLED, &email(address), &json!({}))).await;
    // In an attribute of the user's tokens, as the last of them had it.
    let by = json!({ "emails": { "of": SSO, "by": { "attribute": "email" } } });
    let world =
        world_with(by).await.believing(|issuer| issuer["claims"]["attributes"] = json!({ "email": "email" })).await;
    let verified = world.user_token(json!({ "email": "Alice@acme.example" }));
    world.exchange("support", &[("subject_token", &verified), ("task_id", "ticket")]).await.token();
    for stranger in ["bob@acme.example", "lice@acme.example", "alice@acme.example.evil", "Alice"] {
        assert_eq!(disabled(&world, stranger).await, refused("invalid_request"), "{stranger}");
    }
    assert!(world.records("withdrawal.created").is_empty());
    let again = || async { world.exchange("support", &[("subject_token", &verified), ("task_id", "ticket")]).await };
    again().await.token();
    assert_eq!(disabled(&world, "alice@ACME.example").await, taken());
    assert_eq!(again().await.error().0, "invalid_request");
    let listed = world.manage("GET", "withdrawals", &world.admin_token(), Value::Null).await.done();
    assert_eq!(listed["withdrawals"][0]["target"], json!({ "kind": "user", "issuer": SSO, "id": "alice" }), "{listed}");

    // Or as the name of the user itself.
    let named = world_with(json!({ "emails": { "of": SSO, "by": "id" } })).await;
    assert_eq!(disabled(&named, "alice@acme.example").await, taken());
    let listed = named.manage("GET", "withdrawals", &named.admin_token(), Value::Null).await.done();
    assert_eq!(listed["withdrawals"][0]["target"]["id"], "alice@acme.example", "{listed}");
}

#[tokio::test]
async fn what_lessens_nothing_is_acknowledged_and_what_is_wrong_is_answered_by_its_code() {
    let world = world().await;
    for name in [VERIFICATION, "https://schemas.openid.net/secevent/caep/event-type/device-compliance-change"] {
        assert_eq!(
            pushed(&world, &event(&world, name, &json!({ "format": "opaque", "id": "stream" }), &json!({}))).await,
            taken()
        );
    }
    let good = |change: Value| event(&world, REVOKED, &alice(), &change);
    assert_eq!(pushed(&world, &good(json!({ "iss": "https://other.example" }))).await, refused("invalid_issuer"));
    assert_eq!(pushed(&world, &good(json!({ "aud": "https://other.example" }))).await, refused("invalid_audience"));
    assert_eq!(pushed(&world, &good(json!({ "sub": "alice" }))).await, refused("invalid_request"));
    assert_eq!(pushed(&world, &good(json!({ "exp": now() + 60 }))).await, refused("invalid_request"));
    assert_eq!(pushed(&world, &good(json!({ "iat": now() - 8 * 86_400 }))).await, refused("invalid_request"));
    let theirs = json!({ "format": "iss_sub", "iss": "https://other.example", "sub": "alice" });
    assert_eq!(pushed(&world, &event(&world, REVOKED, &theirs, &json!({}))).await, refused("access_denied"));
    let email = json!({ "format": "email", "email": "alice@acme.example" });
    assert_eq!(pushed(&world, &event(&world, REVOKED, &email, &json!({}))).await, refused("invalid_request"));
    let mut forged = good(json!({}));
    forged.replace_range(forged.rfind('.').unwrap() + 1.., &"A".repeat(86));
    assert_eq!(pushed(&world, &forged).await, refused("invalid_key"));
    assert_eq!(pushed(&world, "nothing").await, refused("invalid_request"));
    assert_eq!(pushed(&world, &"x".repeat(20_000)).await, refused("invalid_request"));
    let kind = "application/secevent+jwt";
    for secret in [None, Some("another"), Some("")] {
        assert_eq!(pushed_with(&world, &good(json!({})), kind, secret).await, refused("authentication_failed"));
    }
    assert_eq!(
        pushed_with(&world, &good(json!({})), "application/jwt", Some(SECRET)).await,
        refused("invalid_request")
    );
    assert!(world.records("withdrawal.created").is_empty());
}

#[tokio::test]
async fn an_event_that_cannot_be_recorded_is_not_acknowledged_however_often_it_is_told() {
    let world = world().await;
    let token = event(&world, DISABLED, &alice(), &json!({}));
    world.ledger.close().await;
    assert_eq!(pushed(&world, &token).await.0, 503);
    assert_eq!(pushed(&world, &token).await.0, 503);
}

#[tokio::test]
async fn where_nobody_is_configured_to_tell_there_is_nothing() {
    let world = World::new().await;
    let token = event(&world, DISABLED, &alice(), &json!({}));
    assert_eq!(pushed(&world, &token).await.0, 404);
}
