//! The authority's signing keys: one takes over from another at one moment, wherever it is looked at.

use countersign_store::{NewSigningKey, Store, StoreError};
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::place::{Place, after, later, now, writer};

fn new(x: &str, replaces: Option<&str>) -> NewSigningKey {
    NewSigningKey {
        jwk: json!({ "kty": "OKP", "crv": "Ed25519", "x": x }),
        ahead: SignedDuration::from_secs(60),
        replaces: replaces.map(str::to_owned),
        lasts: SignedDuration::from_secs(300),
    }
}

async fn words(store: &Store) -> Vec<&'static str> {
    store.changes(0, 100).await.unwrap().changes.iter().map(|change| change.kind.word()).collect()
}

pub(crate) async fn a_signing_key_takes_over_at_one_moment_at_every_replica(place: &Place) {
    let (one, other) = (place.open().await, place.open().await);
    let first = one.publish_signing_key(&writer(), &new("first", None)).await.unwrap().value;
    assert_eq!(first.signs_from, now(), "where nothing signs, the first key signs at once");
    let again = other.publish_signing_key(&later(5), &new("first", None)).await.unwrap().value;
    assert_eq!(again, first, "a key that is there already changes nothing");

    // Both replicas rotate at once: one of them does.
    let mut rotations = Vec::new();
    for (store, name) in [(one.clone(), "second"), (other.clone(), "third")] {
        let id = first.id.clone();
        rotations.push(
            place
                .tasks
                .spawn("rotation", async move { store.publish_signing_key(&later(10), &new(name, Some(&id))).await }),
        );
    }
    let mut done = Vec::new();
    for rotation in rotations {
        match rotation.join().await.unwrap() {
            Ok(made) => done.push(made.value),
            Err(StoreError::Conflict(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
    let [second] = done.as_slice() else { panic!("{done:?}") };
    for store in [&one, &other] {
        let listed = store.signing_keys().await.unwrap();
        assert_eq!((listed.position, listed.keys.len()), (2, 2));
        let signing =
            |second| listed.keys.iter().filter(|key| key.signs(after(second))).map(|key| &key.id).collect::<Vec<_>>();
        assert_eq!((signing(69), signing(70)), (vec![&first.id], vec![&second.id]), "never two, never none");
        let published = |second| listed.keys.iter().filter(|key| key.is_published(after(second))).count();
        assert_eq!((published(10), published(369), published(370)), (2, 2, 1));
    }
    let missing = one.publish_signing_key(&later(80), &new("fourth", Some("nothing"))).await;
    assert!(matches!(missing, Err(StoreError::NotFound { .. })));
    assert_eq!(words(&one).await, ["key.rotated", "key.rotated"]);
    let text = serde_json::to_string(&one.changes(0, 100).await.unwrap().changes).unwrap();
    assert!(text.contains(&second.id), "{text}");
}

pub(crate) async fn a_signing_key_that_was_withdrawn_signs_and_shows_no_more(place: &Place) {
    let store = place.open().await;
    let first = store.publish_signing_key(&writer(), &new("first", None)).await.unwrap().value;
    let withdrawn = store.withdraw_signing_key(&later(20), &first.id).await.unwrap();
    assert_eq!((withdrawn.value.withdrawn, withdrawn.position), (Some(after(20)), 2));
    let again = store.withdraw_signing_key(&later(30), &first.id).await.unwrap();
    assert_eq!((again.value, again.position), (withdrawn.value.clone(), 2));
    assert!(!withdrawn.value.signs(after(21)) && !withdrawn.value.is_published(after(21)));
    let next = store.publish_signing_key(&later(40), &new("next", None)).await.unwrap().value;
    assert_eq!(next.signs_from, after(40), "nothing else signs, so nobody waits");
    let waiting = store.publish_signing_key(&later(50), &new("waiting", Some(&next.id))).await.unwrap().value;
    assert_eq!(waiting.signs_from, after(110));
    store.withdraw_signing_key(&later(60), &next.id).await.unwrap();
    let keys = store.signing_keys().await.unwrap().keys;
    assert!(keys.iter().any(|key| key.id == waiting.id && key.signs(after(60))), "the next one signs early: {keys:?}");
    assert!(matches!(store.withdraw_signing_key(&writer(), "nothing").await, Err(StoreError::NotFound { .. })));
    let private: Value = json!({ "kty": "OKP", "crv": "Ed25519", "x": "a", "d": "very secret" });
    let error =
        store.publish_signing_key(&writer(), &NewSigningKey { jwk: private, ..new("", None) }).await.unwrap_err();
    assert!(!error.to_string().contains("very secret"));
}
