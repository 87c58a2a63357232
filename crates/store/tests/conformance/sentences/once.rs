//! What may happen once only, whoever asks at whichever replica: names, keys, join tokens.

use countersign_store::{Enrolment, LONGEST_TOKEN, NewJoinToken, NotUsable, Page, Serves, SidecarStatus, StoreError};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use crate::place::{Place, after, id, ids, keyed, later, now, target, writer};

pub(crate) async fn the_same_key_and_request_is_made_once_wherever_it_is_asked(place: &Place) {
    let stores = [place.open().await, place.open().await];
    let mut askers = Vec::new();
    for number in 0..24 {
        let store = stores[number % 2].clone();
        askers.push(
            place
                .tasks
                .spawn("asker", async move { store.withdraw(&keyed("key"), target("task:ticket-1")).await.unwrap() }),
        );
    }
    let mut answers = Vec::new();
    for asker in askers {
        answers.push(asker.join().await.unwrap());
    }
    assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
    assert!(answers.iter().all(|answer| answer.position == 1 && answer.value == answers[0].value));
    assert_eq!(stores[0].head().await.unwrap().position, 1);
}

pub(crate) async fn the_same_key_with_another_request_is_refused(place: &Place) {
    let store = place.open().await;
    store.withdraw(&keyed("key"), target("task:ticket-1")).await.unwrap();
    assert!(matches!(store.withdraw(&keyed("key"), target("task:ticket-2")).await, Err(StoreError::OtherRequest)));
    let another = store.withdraw_grant(&keyed("key"), &id("ticket-1")).await;
    assert!(matches!(another, Err(StoreError::OtherRequest)), "{another:?}");
    // Another's key is another key, and a day later nobody remembers it.
    let other = countersign_store::Writer { by: "user:erin@acme".to_owned(), ..keyed("key") };
    assert!(!store.withdraw(&other, target("task:ticket-2")).await.unwrap().replayed);
    let next_day = countersign_store::Writer { now: after(24 * 3600 + 1), ..keyed("key") };
    assert!(!store.withdraw(&next_day, target("task:ticket-2")).await.unwrap().replayed);
    for bad in ["", &"x".repeat(257)] {
        assert!(matches!(store.withdraw(&keyed(bad), target("task:a")).await, Err(StoreError::Invalid(_))));
    }
}

pub(crate) async fn a_name_is_good_once_at_whichever_replica(place: &Place) {
    let stores = [place.open().await, place.open().await, place.open().await];
    for round in 0..5 {
        let mut users = Vec::new();
        for number in 0..30 {
            let store = stores[number % 3].clone();
            users.push(place.tasks.spawn("user", async move {
                store.use_once("support", &format!("jti-{round}"), after(60), now()).await
            }));
        }
        let mut good = 0;
        for user in users {
            match user.join().await.unwrap() {
                Ok(()) => good += 1,
                Err(NotUsable::Used) => {}
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(good, 1, "round {round}");
    }
    // Another's name is another name; a store that was opened since knows what was used.
    stores[0].use_once("researcher", "jti-0", after(60), now()).await.unwrap();
    let restarted = place.open().await;
    assert!(matches!(restarted.use_once("support", "jti-0", after(60), now()).await, Err(NotUsable::Used)));
    assert_eq!(stores[0].head().await.unwrap().position, 0, "off the change log");
    // Whatever it is called: what no database keeps as text, and what would fill one.
    for odd in ["a\0b", &"x".repeat(1 << 20), "'; DROP TABLE used; --"] {
        stores[0].use_once("support", odd, after(60), now()).await.unwrap();
        let again = stores[1].use_once("support", odd, after(60), now()).await;
        assert!(matches!(again, Err(NotUsable::Used)), "{again:?}");
    }
}

pub(crate) async fn a_name_that_ended_long_ago_is_forgotten_and_not_good_again(place: &Place) {
    let store = place.open().await;
    store.use_once("support", "old", after(60), now()).await.unwrap();
    // Hours later, and later again: it is forgotten in two steps.
    for hour in 2..4 {
        store.forget(LONGEST_TOKEN, after(hour * 3600)).await.unwrap().unwrap();
    }
    assert_eq!(crate::engines::count(place, "SELECT count(*) FROM used").await, 0);
    // At a replica whose clock stands still.
    let slow = place.open().await;
    let again = slow.use_once("support", "old", after(60), now()).await;
    assert!(matches!(again, Err(NotUsable::Used | NotUsable::Ended)), "{again:?}");
}

fn key(x: &str) -> serde_json::Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "x": x })
}

fn serves() -> Serves {
    Serves { tenants: ids(&["acme"]), tools: Some(ids(&["orders"])), agents: None }
}

fn new_token() -> NewJoinToken {
    NewJoinToken { name: None, serves: serves(), expires: after(600) }
}

pub(crate) async fn a_join_token_is_good_once_and_its_secret_is_nowhere(place: &Place) {
    let (one, other) = (place.open().await, place.open().await);
    let made = one.create_join_token(&keyed("join"), new_token()).await.unwrap().value;
    let secret = made.secret.unwrap();
    assert!(one.create_join_token(&keyed("join"), new_token()).await.unwrap().value.secret.is_none());
    let mut joining = Vec::new();
    for number in 0..12 {
        let store = if number % 2 == 0 { one.clone() } else { other.clone() };
        let enrolment = Enrolment::JoinToken(secret.clone());
        joining.push(place.tasks.spawn("sidecar", async move {
            store.enrol(&writer(), &enrolment, "support", &key(&format!("key-{number}"))).await
        }));
    }
    let mut enrolled = Vec::new();
    for joining in joining {
        match joining.join().await.unwrap() {
            Ok(sidecar) => enrolled.push(sidecar.value),
            Err(StoreError::Conflict(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(enrolled.len(), 1);
    let sidecar = enrolled.remove(0);
    assert_eq!(sidecar.serves, serves());
    let again = one.enrol(&writer(), &Enrolment::JoinToken(secret.clone()), "support", &sidecar.keys[0].jwk).await;
    let again = again.unwrap();
    assert!(again.replayed && again.value == sidecar, "whoever lost the answer gets it again");
    assert_eq!(one.sidecars(Some(SidecarStatus::Enrolled), Page::default()).await.unwrap().items, [sidecar]);
    for change in crate::crash::every_change(&one).await {
        assert!(!serde_json::to_string(&change).unwrap().contains(secret.expose_secret()));
    }
    assert!(!crate::engines::raw(place).contains(secret.expose_secret()));
}

pub(crate) async fn a_join_token_that_is_not_good_always_gets_the_same_answer(place: &Place) {
    let store = place.open().await;
    let mut named = new_token();
    named.name = Some("billing".to_owned());
    let named = store.create_join_token(&writer(), named).await.unwrap().value;
    let taken = store.create_join_token(&writer(), new_token()).await.unwrap().value;
    store.withdraw_join_token(&writer(), &taken.token.id).await.unwrap();
    let late = store.create_join_token(&writer(), new_token()).await.unwrap().value;
    let none = SecretString::from("countersign-join-none");
    let mut answers = std::collections::BTreeSet::new();
    for (secret, at) in [(named.secret.unwrap(), 0), (taken.secret.unwrap(), 0), (late.secret.unwrap(), 600), (none, 0)]
    {
        let error = store.enrol(&later(at), &Enrolment::JoinToken(secret), "support", &key("a")).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict(_)), "{error:?}");
        answers.insert(error.to_string());
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    let nothing = NewJoinToken { serves: Serves { tenants: ids(&[]), ..serves() }, ..new_token() };
    assert!(matches!(store.create_join_token(&writer(), nothing).await, Err(StoreError::Invalid(_))));
    let private = json!({ "kty": "OKP", "crv": "Ed25519", "x": "a", "d": "very secret" });
    let proved = Enrolment::Proved { by: "spiffe://acme.example/sidecar".to_owned(), serves: serves(), once: None };
    let error = store.enrol(&writer(), &proved, "support", &private).await.unwrap_err();
    assert!(!error.to_string().contains("very secret"));
    assert!(store.enrol(&writer(), &proved, "support", &key("a")).await.is_ok());
}
