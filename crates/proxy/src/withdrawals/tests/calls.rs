//! Calls under the view: refused when what they rest on is taken back, or when nobody can know; ended when they are
//! under way; and somebody gets to know who tries again.

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use net::{Body, Peer};
use serde_json::Value;

use super::*;
use crate::testing::{ISSUER, world::World};

const ORDER: &str = "/orders/v1/orders/17";
const EVENTS: &str = "/orders/v1/orders/events";
const SILENT: &str = "/orders/v1/orders/silent";
const REFUNDS: &str = "/orders/v1/orders/17/refunds";
const JSON: (&str, &str) = ("content-type", "application/json");
const REFUND: &str = r#"{"amount": "20.00", "currency": "USD"}"#;

fn following(read: u64, write: u64) -> Following {
    let (read, write) = (Duration::from_millis(read), Duration::from_millis(write));
    Following { read, write, issuers: [ISSUER.to_owned()].into() }
}

/// A world whose view was whole just now.
async fn fresh() -> World {
    let world = World::following(following(60_000, 60_000)).await;
    tell(&world, vec![]);
    world
}

fn view(world: &World) -> &Arc<Withdrawals> {
    world.sidecar.withdrawals().unwrap()
}

fn tell(world: &World, withdrawals: Vec<Withdrawal>) {
    view(world).hear(news("g", withdrawals), net::clock::now()).unwrap();
}

fn taken_back(target: &str, position: u64) -> Withdrawal {
    Withdrawal { until: "2200-01-01T00:00:00Z".parse().unwrap(), ..withdrawal("w-1", target, position) }
}

async fn code(world: &World, method: &str, uri: &str, token: &str) -> (u16, Value) {
    let bearer = format!("Bearer {token}");
    let body = if method == "POST" { REFUND } else { "" };
    let (status, told, _) = world.told(method, uri, &[JSON, ("authorization", &bearer)], body).await;
    (status, told["code"].clone())
}

#[tokio::test]
async fn what_is_taken_back_is_refused_and_what_is_issued_afterwards_is_not() {
    let world = fresh().await;
    let (before, after) = (world.token(&json!({ "pos": 10 })), world.token(&json!({ "pos": 20, "jti": "j2" })));
    assert_eq!(code(&world, "GET", ORDER, &before).await.0, 200);
    tell(&world, vec![taken_back("user:https://sso.example#alice", 20)]);
    assert_eq!(code(&world, "GET", ORDER, &before).await, (401, json!("withdrawn")), "although it is in the cache");
    assert_eq!(code(&world, "GET", ORDER, &after).await.0, 200);
    let ended = Withdrawal { cause: Cause::Ended, ..taken_back("task:task-1", 30) };
    tell(&world, vec![ended]);
    assert_eq!(code(&world, "GET", ORDER, &after).await, (403, json!("task_ended")));
    assert_eq!(world.forwarded().len(), 2);
    let refused = world.records("call.decided").await;
    let codes: Vec<_> = refused.iter().filter_map(|record| record.text("code")).collect();
    assert_eq!(codes, ["withdrawn", "task_ended"]);
}

#[tokio::test]
async fn who_cannot_know_refuses_writes_before_reads_and_recovers_alone() {
    let world = World::following(following(60_000, 150)).await;
    let token = world.token(&json!({ "pos": 10 }));
    assert_eq!(code(&world, "GET", ORDER, &token).await, (503, json!("authority_stale")), "not heard yet");
    tell(&world, vec![]);
    assert_eq!(code(&world, "POST", REFUNDS, &token).await.0, 201);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(code(&world, "POST", REFUNDS, &token).await, (503, json!("authority_stale")));
    assert_eq!(code(&world, "GET", ORDER, &token).await.0, 200);
    tell(&world, vec![]);
    assert_eq!(code(&world, "POST", REFUNDS, &token).await.0, 201);
    let hopeless = world.token(&json!({ "pos": 10, "jti": "j3", "groups": [] }));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(code(&world, "POST", REFUNDS, &hopeless).await, (403, json!("entitlement")), "waiting would not help");
}

#[tokio::test]
async fn tokens_of_an_issuer_that_nobody_follows_have_to_be_young() {
    let mut loose = following(60_000, 2_000);
    loose.issuers.clear();
    let world = World::following(loose).await;
    tell(&world, vec![]);
    // The claims of the world are five seconds old.
    let token = world.token(&json!({ "pos": 10 }));
    assert_eq!(code(&world, "GET", ORDER, &token).await.0, 200);
    assert_eq!(code(&world, "POST", REFUNDS, &token).await, (401, json!("expired")));
    let young = world.token(&json!({ "jti": "j2", "iat": net::clock::now().as_second() }));
    assert_eq!(code(&world, "POST", REFUNDS, &young).await.0, 201);
    tell(&world, vec![taken_back("user:https://sso.example#alice", 1)]);
    assert_eq!(code(&world, "GET", ORDER, &token).await, (401, json!("withdrawn")), "its position is of another log");
}

/// Takes frames until one is an error.
async fn drained(response: Response<Body>) -> String {
    let mut body = response.into_body();
    loop {
        match body.frame().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return error.to_string(),
            None => return "whole".to_owned(),
        }
    }
}

async fn settled(world: World) -> (Value, Value) {
    let settled = world.records("call.settled").await;
    let last = settled.last().unwrap();
    (json!(last.text("outcome")), last.fields.get("code").cloned().unwrap_or_default())
}

#[tokio::test]
async fn a_stream_that_flows_is_cut_when_it_is_taken_back() {
    let world = fresh().await;
    let bearer = format!("Bearer {}", world.token(&json!({ "pos": 10 })));
    let mut response = world.call("GET", EVENTS, &[("authorization", &bearer)], "").await;
    assert_eq!(response.status(), 200);
    let first = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), Bytes::from_static(b"data: 1\n\n"));
    let reading = world.tasks.spawn("reading", drained(response));
    tokio::task::yield_now().await;
    tell(&world, vec![taken_back("user:https://sso.example#bob", 20)]);
    assert!(!reading.is_finished(), "somebody else's");
    tell(&world, vec![taken_back("run:run-1", 21)]);
    assert_eq!(reading.join().await.unwrap(), "the call was broken off: withdrawn");
    assert_eq!(settled(world).await, (json!("cut"), json!("withdrawn")));
}

#[tokio::test]
async fn an_answer_that_is_here_whole_still_reaches_whoever_has_to_know_it() {
    let world = fresh().await;
    for round in 1..50 {
        let bearer = format!("Bearer {}", world.token(&json!({ "pos": round - 1 })));
        let response = world.call("POST", REFUNDS, &[JSON, ("authorization", &bearer)], REFUND).await;
        assert_eq!(response.status(), 201);
        // Its body may still be on its way.
        tokio::time::sleep(Duration::from_millis(round)).await;
        tell(&world, vec![taken_back("run:run-1", round)]);
        if drained(response).await == "whole" {
            assert_eq!(settled(world).await.0, json!("completed"));
            return;
        }
    }
    panic!("it never did");
}

#[tokio::test]
async fn an_answer_that_is_waited_for_is_given_up_when_it_is_taken_back() {
    let world = Arc::new(fresh().await);
    let bearer = format!("Bearer {}", world.token(&json!({ "pos": 10 })));
    let calling = world.tasks.spawn("calling", {
        let world = Arc::clone(&world);
        async move { world.told("GET", SILENT, &[("authorization", &bearer)], "").await }
    });
    while world.forwarded().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tell(&world, vec![taken_back("token:https://countersign.example#j1", 20)]);
    let (status, told, _) = calling.join().await.unwrap();
    assert_eq!((status, &told["code"], &told["sent"]), (401, &json!("withdrawn"), &json!(true)));
    let world = Arc::into_inner(world).unwrap();
    assert_eq!(settled(world).await, (json!("cut"), json!("withdrawn")));
}

#[tokio::test]
async fn an_upload_that_flows_is_cut_when_it_is_taken_back() {
    let world = Arc::new(fresh().await);
    let bearer = format!("Bearer {}", world.token(&json!({ "pos": 10 })));
    let (pour, poured) = tokio::sync::mpsc::unbounded_channel::<Result<Frame<Bytes>, std::io::Error>>();
    let body = stream::unfold(poured, |mut poured| async { poured.recv().await.map(|frame| (frame, poured)) });
    let request = Request::put("/orders/v1/orders/17/file").header("authorization", bearer).header("host", "localhost");
    let request = request.body(Body::new(StreamBody::new(Box::pin(body)))).unwrap();
    let peer = Peer::tcp("127.0.0.1:4711".parse().unwrap());
    let calling = world.tasks.spawn("calling", Arc::clone(&world.sidecar).answer(peer, request));
    pour.send(Ok(Frame::data(Bytes::from_static(b"first")))).unwrap();
    while view(&world).open.len() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tell(&world, vec![taken_back("task:task-1", 20)]);
    let response = calling.join().await.unwrap();
    assert_eq!(response.status(), 401);
    drop(pour);
    assert_eq!(view(&world).open.len(), 0, "what ended is under way no more");
    let world = Arc::into_inner(world).unwrap();
    assert_eq!(settled(world).await, (json!("cut"), json!("withdrawn")));
}

#[tokio::test]
async fn what_flows_on_under_a_view_that_grew_old_is_cut() {
    let world = World::following(following(400, 400)).await;
    tell(&world, vec![]);
    let bearer = format!("Bearer {}", world.token(&json!({ "pos": 10 })));
    let response = world.call("GET", EVENTS, &[("authorization", &bearer)], "").await;
    assert_eq!(drained(response).await, "the call was broken off: authority_stale");
    assert_eq!(settled(world).await, (json!("cut"), json!("authority_stale")));
}

#[tokio::test]
async fn who_uses_a_token_after_its_end_is_on_record_once_also_when_it_has_expired() {
    let world = fresh().await;
    let now = net::clock::now().as_second();
    let ended = Withdrawal { cause: Cause::Ended, ..taken_back("task:task-1", 20) };
    let expired = world.token(&json!({ "pos": 10, "jti": "old", "iat": now - 300, "exp": now - 100 }));
    let later = world.token(&json!({ "pos": 30, "jti": "late", "iat": now - 300, "exp": now - 100 }));
    let live = world.token(&json!({ "pos": 10, "jti": "live" }));
    assert_eq!(code(&world, "GET", ORDER, &expired).await, (401, json!("expired")));
    tell(&world, vec![ended]);
    for _ in 0..3 {
        assert_eq!(code(&world, "GET", ORDER, &live).await, (403, json!("task_ended")));
        assert_eq!(code(&world, "GET", ORDER, &expired).await, (401, json!("expired")));
        assert_eq!(code(&world, "GET", ORDER, &later).await, (401, json!("expired")), "issued after it");
    }
    // Nobody vouches for this one.
    let (head, _) = live.rsplit_once('.').unwrap();
    assert_eq!(code(&world, "GET", ORDER, &format!("{head}.AAAA")).await.1, json!("invalid_token"));
    let alerts = world.records("alert.raised").await;
    let told: Vec<_> =
        alerts.iter().map(|alert| (alert.text("alert"), alert.text("code"), alert.text("withdrawal"))).collect();
    assert_eq!(
        told,
        [
            (Some("used_after_end"), Some("task_ended"), Some("w-1")),
            (Some("used_after_end"), Some("expired"), Some("w-1")),
        ]
    );
    assert_eq!(alerts[0].text("task_id"), Some("task-1"));
}

#[tokio::test]
async fn who_shows_a_token_that_is_bound_to_another_is_on_record_once_also_when_it_has_expired() {
    // Nobody has to be followed for that.
    let world = World::new().await;
    let now = net::clock::now().as_second();
    let cnf = json!({ "x5t#S256": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" });
    let bound = world.token(&json!({ "cnf": cnf, "jti": "bound" }));
    let expired = world.token(&json!({ "cnf": cnf, "jti": "old", "iat": now - 300, "exp": now - 100 }));
    for _ in 0..3 {
        assert_eq!(code(&world, "GET", ORDER, &bound).await, (401, json!("wrong_sender")));
        assert_eq!(code(&world, "GET", ORDER, &expired).await, (401, json!("expired")));
    }
    // One that is bound in a way that nobody can check, and one that is bound to nobody, say nothing of that.
    let strange = world.token(&json!({ "cnf": { "jkt": "x" } }));
    assert_eq!(code(&world, "GET", ORDER, &strange).await, (401, json!("wrong_sender")));
    assert_eq!(code(&world, "GET", ORDER, &world.token(&json!({}))).await.0, 200);
    let alerts = world.records("alert.raised").await;
    let told: Vec<_> = alerts.iter().map(|alert| (alert.text("alert"), alert.text("code"))).collect();
    assert_eq!(told, [(Some("used_by_another"), Some("wrong_sender")), (Some("used_by_another"), Some("expired"))]);
    assert_eq!(alerts[0].text("bound_to"), Some("0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"));
    assert_eq!((alerts[0].text("presented"), alerts[0].text("task_id")), (None, Some("task-1")));
}
