//! Sidecars that joined by what they are: again with the same key is the same sidecar, wherever it is asked.

use countersign_store::{Enrolment, Evidence, Serves, Store, StoreError};
use serde_json::{Value, json};

use crate::place::{Place, after, ids, target, writer};

fn proved(evidence: Option<&str>) -> Enrolment {
    Enrolment::Proved {
        by: "system:serviceaccount:agents:support".to_owned(),
        serves: Serves { tenants: ids(&["acme"]), tools: None, agents: None },
        once: evidence.map(|id| Evidence { id: id.to_owned(), until: after(3600) }),
    }
}

fn key(x: &str) -> Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "x": x })
}

pub(crate) async fn what_enrolled_one_key_enrols_no_other_one(place: &Place) {
    let stores: [Store; 2] = [place.open().await, place.open().await];
    let mut joining = Vec::new();
    for number in 0..12 {
        let store = stores[number % 2].clone();
        joining.push(place.tasks.spawn("sidecar", async move {
            store.enrol(&writer(), &proved(Some("token")), "support", &key(&format!("key-{}", number % 4))).await
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
    let first = enrolled.first().unwrap();
    assert!(enrolled.len() == 3 && enrolled.iter().all(|it| it == first), "one key, as often as it asks: {enrolled:?}");
    let store = &stores[0];
    let own = &first.keys[0].jwk;
    let again = store.enrol(&writer(), &proved(Some("another token")), "support", own).await.unwrap();
    assert!(again.replayed && again.value == *first);
    // That other token was not used up by it.
    let more = store.enrol(&writer(), &proved(Some("another token")), "support", &key("more")).await.unwrap();
    assert_ne!(more.value.id, first.id);
    let renamed = store.enrol(&writer(), &proved(None), "billing", own).await;
    assert!(matches!(renamed, Err(StoreError::Conflict(_))));
    store.remove_sidecar(&writer(), &first.id).await.unwrap();
    let back = store.enrol(&writer(), &proved(Some("a third token")), "support", own).await;
    assert!(matches!(back, Err(StoreError::Conflict(_))), "what was removed does not come back");
}

pub(crate) async fn what_is_told_once_has_its_effect_once_wherever_it_is_told(place: &Place) {
    let stores: [Store; 2] = [place.open().await, place.open().await];
    let targets = [target("user:https://sso.example#alice"), target("session:https://sso.example#session-1")];
    let mut telling = Vec::new();
    for number in 0..12 {
        let (store, targets) = (stores[number % 2].clone(), targets.clone());
        let once = Evidence { id: format!("event-{}", number % 3), until: after(3600) };
        telling.push(
            place.tasks.spawn("event", async move {
                store.withdraw_once(&writer(), &targets, "events", &once).await.unwrap()
            }),
        );
    }
    let mut told = Vec::new();
    for telling in telling {
        told.extend(telling.join().await.unwrap());
    }
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told.iter().all(|committed| committed.value.len() == 2));
    assert_eq!(stores[0].head().await.unwrap().position, 6, "without gaps");
    let elsewhere = Evidence { id: "event-0".to_owned(), until: after(3600) };
    assert!(stores[0].withdraw_once(&writer(), &targets, "another's events", &elsewhere).await.unwrap().is_some());
}
