//! Bundles that stay at a revision.

use countersign_store::{ChangeKind, MAX_PINS, NewPin, Page, StoreError};

use crate::place::{Place, after, id, ids, keyed, later, now, writer};

fn new(bundle: &str, revision: &str) -> NewPin {
    NewPin { bundle: bundle.to_owned(), revision: revision.to_owned(), tenant: None, until: None }
}

pub(crate) async fn a_bundle_has_one_pin_for_the_same_sidecars_and_it_is_gone_when_it_is_taken_back(place: &Place) {
    let store = place.open().await;
    let first = store.pin(&keyed("a"), new("support", "r1")).await.unwrap();
    let again = store.pin(&keyed("a"), new("support", "r1")).await.unwrap();
    assert!(again.replayed && again.value == first.value);
    assert!(matches!(store.pin(&keyed("a"), new("support", "r2")).await, Err(StoreError::OtherRequest)));
    let second = store.pin(&later(1), new("support", "r2")).await.unwrap().value;
    let acme = NewPin { tenant: Some(id("acme")), ..new("support", "r3") };
    let of_acme = store.pin(&later(2), acme).await.unwrap().value;
    assert_eq!(store.all_pins(now()).await.unwrap(), [second.clone(), of_acme.clone()]);
    assert!(second.is_for(&ids(&["acme", "globex"])) && of_acme.is_for(&ids(&["acme"])));
    assert!(!of_acme.is_for(&ids(&["acme", "globex"])) && !of_acme.is_for(&ids(&["globex"])));
    assert_eq!(store.pinned(&first.value.id).await.unwrap(), None);
    assert!(matches!(store.unpin(&writer(), &first.value.id).await, Err(StoreError::NotFound { .. })));

    let back = store.unpin(&keyed("b"), &second.id).await.unwrap();
    assert_eq!(back.value, second);
    assert!(store.unpin(&keyed("b"), &second.id).await.unwrap().replayed);
    assert_eq!(store.all_pins(now()).await.unwrap(), [of_acme]);
    let log = store.changes(0, 100).await.unwrap();
    let words: Vec<&str> = log.changes.iter().map(|change| change.kind.word()).collect();
    assert_eq!(words, ["policy.pinned", "policy.pinned", "policy.pinned", "policy.unpinned"]);
    assert_eq!(log.changes[3].kind, ChangeKind::PolicyUnpinned(second));
    assert_eq!(log.changes[0].reason.as_deref(), Some("because"));
}

pub(crate) async fn a_pin_that_is_over_holds_no_more_and_makes_room(place: &Place) {
    let store = place.open().await;
    for number in 0..MAX_PINS {
        let pin = NewPin { until: Some(after(60)), ..new(&format!("team{number}"), "r") };
        store.pin(&writer(), pin).await.unwrap();
    }
    let full = store.pin(&writer(), new("org", "r")).await.unwrap_err();
    assert!(matches!(full, StoreError::Conflict(_)), "{full}");
    store.pin(&writer(), NewPin { until: Some(after(60)), ..new("team7", "another") }).await.unwrap();
    assert_eq!(store.all_pins(after(59)).await.unwrap().len(), MAX_PINS);
    assert_eq!(store.all_pins(after(60)).await.unwrap(), []);
    let page = store.pins(Some("team7"), now(), Page::default()).await.unwrap();
    assert_eq!((page.items.len(), page.items[0].revision.as_str(), page.next), (1, "another", None));
    let page = store.pins(None, now(), Page { after: 0, limit: 3 }).await.unwrap();
    assert_eq!(page.next, Some(page.items[2].position));
    store.pin(&later(7_200), new("org", "r")).await.unwrap();
    assert_eq!(store.all_pins(now()).await.unwrap().len(), 1);
}

pub(crate) async fn pins_of_one_tenant_leave_room_for_those_of_others_and_of_all(place: &Place) {
    let store = place.open().await;
    let of = |tenant: &str, bundle: &str| NewPin { tenant: Some(id(tenant)), ..new(bundle, "r") };
    let mut made = 0;
    let refused = loop {
        match store.pin(&writer(), of("acme", &format!("team{made}"))).await {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::Conflict(_)) && made < MAX_PINS / 5, "{made}: {refused}");
    // One in the place of another takes no room.
    store.pin(&writer(), of("acme", "team0")).await.unwrap();
    for tenant in 0..MAX_PINS {
        if store.pin(&writer(), of(&format!("t{tenant}"), "support")).await.is_ok() {
            made += 1;
        }
    }
    assert!(made < MAX_PINS, "{made}");
    store.pin(&writer(), new("support", "r")).await.unwrap();
}
