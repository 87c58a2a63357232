//! What is good once stays used: an authority that started anew knows nothing of what was used before, so it takes
//! nothing that was made before.

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::world::{World, now, payload};

/// So many seconds ago, on the second.
fn ago(seconds: i64) -> Timestamp {
    Timestamp::from_second(now() - seconds).unwrap()
}

#[tokio::test]
async fn an_assertion_that_was_used_is_not_good_again_after_a_restart() {
    let world = World::new().await;
    let assertion = world.assertion("support", json!({ "iat": now() - 20 }));
    world.first(&[("client_assertion", &assertion)]).await.token();
    let world = world.restarted(ago(10)).await;
    let again = world.first(&[("client_assertion", &assertion)]).await;
    assert_eq!((again.status, again.error().0), (StatusCode::UNAUTHORIZED, "invalid_client"));
    assert!(again.error().1.contains("make a new one"), "{}", again.body);
    world.first_token().await;
}

#[tokio::test]
async fn what_was_made_in_the_second_of_the_start_counts_as_used() {
    let second = ago(10);
    let world = World::new().await.restarted(second + SignedDuration::from_millis(900)).await;
    for (made, accepted) in [(-1, false), (0, false), (1, true)] {
        let assertion = world.assertion("support", json!({ "iat": second.as_second() + made }));
        let answer = world.first(&[("client_assertion", &assertion)]).await;
        assert_eq!(answer.status == StatusCode::OK, accepted, "{made}: {}", answer.body);
    }
    // A start on the second itself is no exception.
    let world = world.restarted(second).await;
    let assertion = world.assertion("support", json!({ "iat": second.as_second() }));
    assert_eq!(world.first(&[("client_assertion", &assertion)]).await.error().0, "invalid_client");
}

#[tokio::test]
async fn an_assertion_has_to_say_when_it_was_made() {
    let world = World::new().await;
    let answer = world.first(&[("client_assertion", &world.assertion("support", json!({ "iat": null })))]).await;
    assert_eq!((answer.status, answer.error().0), (StatusCode::UNAUTHORIZED, "invalid_client"));
    assert!(answer.error().1.contains("no `iat`"), "{}", answer.body);
}

#[tokio::test]
async fn nothing_is_issued_for_an_assertion_before_it_was_made() {
    let world = World::new().await;
    let made = now() + 2;
    let answer = world.first(&[("client_assertion", &world.assertion("support", json!({ "iat": made })))]).await;
    let issued = payload(&answer.token())["iat"].as_i64().unwrap();
    assert!(issued >= made, "{issued} {made}");
}

#[tokio::test]
async fn what_was_handed_over_before_a_restart_has_to_be_handed_over_anew() {
    let world = World::new().await;
    let parent = world.first_token().await;
    let handed = world.hand_over("support", &parent, "researcher").await.token();
    world.exchange("researcher", &[("subject_token", &handed)]).await.token();
    let started = payload(&handed)["iat"].as_i64().unwrap();
    let world = world.restarted(Timestamp::from_second(started).unwrap()).await;
    let assertion = |agent| world.assertion(agent, json!({ "iat": started + 1 }));
    let with = [("subject_token", handed.as_str()), ("client_assertion", &assertion("researcher"))];
    let again = world.exchange("researcher", &with).await;
    assert_eq!((again.status, again.error().0), (StatusCode::BAD_REQUEST, "invalid_request"));
    assert!(again.error().1.contains("handed over anew"), "{}", again.body);

    // The parent's own token is not for one use: it goes on.
    let with = [
        ("subject_token", parent.as_str()),
        ("requested_actor", "researcher"),
        ("client_assertion", &assertion("support")),
    ];
    let handed = world.exchange("support", &with).await.token();
    let with = [("subject_token", handed.as_str()), ("client_assertion", &assertion("researcher"))];
    world.exchange("researcher", &with).await.token();
}

#[tokio::test]
async fn it_is_ready_once_what_is_made_now_can_be_used() {
    let world = World::new().await.restarted(Timestamp::from_second(now() + 3600).unwrap()).await;
    let answer = world.get("/readyz").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.body["detail"].as_str().unwrap().contains("started"), "{}", answer.body);
    let world = world.restarted(ago(1)).await;
    assert_eq!(world.get("/readyz").await.status, StatusCode::OK);
}
