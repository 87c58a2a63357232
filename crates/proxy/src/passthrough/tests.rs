//! A call that is passed through, in a sidecar with real parts: what it may not be, and what still stops it.

use std::time::Duration;

use model::{Withdrawal, withdrawal::Cause, withdrawal::Target};
use serde_json::{Value, json};

use crate::{
    Following, News,
    testing::{ISSUER, world::World},
};

const OWN: (&str, &str) = ("authorization", "Bearer the-agents-own-secret");

/// Passing calls of agent `agent` through for an hour from now on.
fn settings(agent: &str) -> Value {
    let until = net::clock::now().checked_add(jiff::SignedDuration::from_hours(1)).unwrap();
    json!({ "owner": "dana@acme.example", "until": until.to_string(), "agent": agent, "user_header": "X-Acting-User" })
}

async fn told(world: &World, method: &str, uri: &str, headers: &[(&str, &str)]) -> (u16, Value) {
    let (status, body, _) = world.told(method, uri, headers, "").await;
    (status, body["code"].clone())
}

#[tokio::test]
async fn what_the_agent_sends_reaches_the_tool_and_nothing_of_the_sidecars() {
    let world = World::passing(settings("support"), None).await;
    let headers = [OWN, ("x-acting-user", "alice"), ("cookie", "a=b"), ("txn-token", "forged")];
    assert_eq!(told(&world, "GET", "/orders/v1/orders/17", &headers).await.0, 200);
    let [received] = &world.forwarded()[..] else { panic!("one call") };
    assert_eq!(received.headers["authorization"], "Bearer the-agents-own-secret");
    for name in ["cookie", "txn-token"] {
        assert!(!received.headers.contains_key(name), "{name}");
    }
    let records = world.records("call.decided").await;
    let [record] = &records[..] else { panic!("one decision") };
    assert_eq!((record.text("mode"), record.text("entry")), (Some("passthrough"), Some("passthrough")));
    assert_eq!((&record.fields["rung"], record.text_at("/asserted/user")), (&json!(0), Some("alice")));
    assert!(!record.fields.contains_key("user") && !record.fields.contains_key("agent"));
}

fn news(target: Option<(Target, Cause)>, position: u64) -> News {
    let now = net::clock::now();
    let withdrawal = |(target, cause)| Withdrawal {
        id: model::Id::new(&format!("w{position}")).unwrap(),
        target,
        position,
        at: now,
        by: "dana".to_owned(),
        reason: None,
        cause,
        until: now.checked_add(jiff::SignedDuration::from_hours(1)).unwrap(),
    };
    News {
        generation: "g1".to_owned(),
        began: "2026-01-01T00:00:00Z".parse().unwrap(),
        position,
        withdrawals: target.into_iter().map(withdrawal).collect(),
        fresh_as_of: Some(net::clock::boottime()),
        keys: None,
    }
}

#[tokio::test]
async fn what_is_withdrawn_by_name_holds_for_calls_that_are_said_to_be_of_it() {
    let bound = Duration::from_secs(600);
    let following = Following { read: bound, write: bound, issuers: [ISSUER.to_owned()].into() };
    let world = World::passing(settings("support"), Some(following)).await;
    let call = async || told(&world, "GET", "/orders/v1/orders/17", &[OWN]).await;
    let hear = |target, position| {
        let view = world.sidecar.withdrawals().unwrap();
        view.hear(news(target, position), net::clock::now()).unwrap();
    };
    let agent = |id: &str| Target::Agent { issuer: ISSUER.to_owned(), id: model::Id::new(id).unwrap() };
    assert_eq!(call().await, (503, json!("authority_stale")), "nobody knows yet what was withdrawn");
    hear(None, 1);
    assert_eq!(call().await.0, 200);
    hear(Some((agent("another"), Cause::Withdrawn)), 2);
    hear(Some((agent("support"), Cause::Narrowed)), 3);
    assert_eq!(call().await.0, 200, "what a grant allows is nothing to who has none");
    hear(Some((agent("support"), Cause::Withdrawn)), 4);
    hear(Some((agent("support"), Cause::Narrowed)), 5);
    assert_eq!(call().await, (401, json!("withdrawn")), "what was narrowed since takes nothing of that back");
}
