//! What is good once stays used, whatever is started anew; and what was made before the state began, which may have
//! been lost, was never good.

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
    let world = world.restarted().await;
    let again = world.first(&[("client_assertion", &assertion)]).await;
    assert_eq!((again.status, again.error().0), (StatusCode::UNAUTHORIZED, "invalid_client"));
    assert!(again.error().1.contains("used before"), "{}", again.body);
    let unused = world.assertion("support", json!({ "iat": now() - 20 }));
    world.first(&[("client_assertion", &unused)]).await.token();
}

#[tokio::test]
async fn what_was_made_in_the_second_in_which_the_state_began_counts_as_used() {
    let second = ago(10);
    let world = World::begun(second + SignedDuration::from_millis(900), |_| (), |_| ()).await;
    for (made, accepted) in [(-1, false), (0, false), (1, true)] {
        let assertion = world.assertion("support", json!({ "iat": second.as_second() + made }));
        let answer = world.first(&[("client_assertion", &assertion)]).await;
        assert_eq!(answer.status == StatusCode::OK, accepted, "{made}: {}", answer.body);
    }
    // A beginning on the second itself is no exception.
    let world = World::begun(second, |_| (), |_| ()).await;
    let assertion = world.assertion("support", json!({ "iat": second.as_second() }));
    let refused = world.first(&[("client_assertion", &assertion)]).await;
    assert_eq!(refused.error().0, "invalid_client");
    assert!(refused.error().1.contains("make a new one"), "{}", refused.body);
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
async fn what_was_handed_over_is_taken_once_whatever_restarts_in_between() {
    let world = World::new().await;
    let parent = world.first_token().await;
    let handed = world.hand_over("support", &parent, "researcher").await.token();
    world.exchange("researcher", &[("subject_token", &handed)]).await.token();
    let world = world.restarted().await;
    let again = world.exchange("researcher", &[("subject_token", &handed)]).await;
    assert_eq!((again.status, again.error().0), (StatusCode::BAD_REQUEST, "invalid_request"));
    assert!(again.error().1.contains("used before"), "{}", again.body);

    // The parent's own token is not for one use: it goes on.
    let handed = world.hand_over("support", &parent, "researcher").await.token();
    let world = world.restarted().await;
    world.exchange("researcher", &[("subject_token", &handed)]).await.token();
}

#[tokio::test]
async fn a_token_from_before_the_state_began_is_handed_on_by_nobody() {
    let world = World::new().await;
    let parent = world.first_token().await;
    // Restored meanwhile: the same authority with another life of its state.
    let later = Timestamp::from_second(now() + 1).unwrap();
    let world = world.restored(later).await;
    let assertion = world.assertion("support", json!({ "iat": now() + 2 }));
    let refused = world
        .exchange(
            "support",
            &[("subject_token", &parent), ("requested_actor", "researcher"), ("client_assertion", &assertion)],
        )
        .await;
    assert_eq!(refused.error().0, "invalid_request");
    assert!(refused.error().1.contains("restored"), "{}", refused.body);
}

#[tokio::test]
async fn it_is_ready_once_what_is_made_now_can_be_used() {
    let soon = Timestamp::from_second(now() + 3600).unwrap();
    let world = World::begun(soon, |_| (), |_| ()).await;
    let answer = world.get("/readyz").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.body["detail"].as_str().unwrap().contains("began"), "{}", answer.body);
    let world = World::begun(ago(1), |_| (), |_| ()).await;
    assert_eq!(world.get("/readyz").await.status, StatusCode::OK);
}
