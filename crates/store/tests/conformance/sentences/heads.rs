//! Ledgers of sidecars, and their heads.

use countersign_store::{
    AnchoredHead, ChangeKind, Enrolment, MAX_EARLIER_HEADS, Page, Serves, Sidecar, Store, StoreError,
};
use serde_json::json;

use crate::place::{Place, after, id, ids, later, writer};

async fn sidecar(store: &Store, name: &str) -> Sidecar {
    let serves = Serves { tenants: ids(&["acme"]), tools: None, agents: None };
    let proved = Enrolment::Proved { by: format!("spiffe://acme.example/{name}"), serves, once: None };
    let key = json!({ "kty": "EC", "crv": "P-256", "x": name, "y": "b" });
    store.enrol(&writer(), &proved, name, &key).await.unwrap().value
}

fn head(size: u64, seconds: i64) -> AnchoredHead {
    AnchoredHead { size, tree: format!("tree {size}"), note: format!("note {size}"), at: after(seconds) }
}

pub(crate) async fn a_ledger_has_one_key_and_one_sidecar_that_speaks_for_it(place: &Place) {
    let store = place.open().await;
    let (one, other) = (sidecar(&store, "one").await, sidecar(&store, "other").await);
    let ledger = id("0123456789abcdef");
    let enrolled = store.enrol_ledger(&writer(), &ledger, &one, "the key").await.unwrap();
    assert!(store.anchor(&ledger, 0, &head(10, 1)).await.unwrap());
    let again = store.enrol_ledger(&later(5), &ledger, &one, "the key").await.unwrap();
    assert_eq!((again.position, again.value.enrolled), (enrolled.position, enrolled.value.enrolled), "nothing changed");
    let clash = store.enrol_ledger(&later(6), &ledger, &one, "another key").await;
    assert!(matches!(clash, Err(StoreError::Conflict(_))), "{clash:?}");
    let taken = store.enrol_ledger(&later(7), &ledger, &other, "the key").await.unwrap();
    assert_eq!(taken.position, enrolled.position + 1, "whoever speaks for it now is on record");
    let known = store.ledger(&ledger).await.unwrap().unwrap();
    assert_eq!((known.sidecar, known.head), (other.id.clone(), Some(head(10, 1))), "its head stays");
    assert_eq!(store.ledgers(Page::default()).await.unwrap().items, [store.ledger(&ledger).await.unwrap().unwrap()]);
    let feed = store.changes(enrolled.position - 1, 10).await.unwrap();
    let who: Vec<_> = feed.changes.iter().map(|change| &change.kind).collect();
    assert!(
        matches!(who[..], [ChangeKind::LedgerEnrolled { sidecar: first, .. }, ChangeKind::LedgerEnrolled { sidecar: then, .. }] if *first == one.id && *then == other.id),
        "{who:?}"
    );
}

pub(crate) async fn a_ledger_stays_every_tenants_whose_records_it_may_hold(place: &Place) {
    let store = place.open().await;
    let of = |tenants: &[&str], sidecar: &Sidecar| {
        let serves = Serves { tenants: ids(tenants), ..sidecar.serves.clone() };
        Sidecar { serves, ..sidecar.clone() }
    };
    let (one, other) = (sidecar(&store, "one").await, sidecar(&store, "other").await);
    let ledger = id("0123456789abcdef");
    let enrolled = store.enrol_ledger(&writer(), &ledger, &of(&["acme", "beta"], &one), "the key").await.unwrap();
    let fewer = store.enrol_ledger(&later(5), &ledger, &of(&["acme"], &one), "the key").await.unwrap();
    assert_eq!((fewer.position, fewer.value.tenants), (enrolled.position, ids(&["acme", "beta"])), "nothing changed");
    let taken = store.enrol_ledger(&later(6), &ledger, &of(&["gamma"], &other), "the key").await.unwrap();
    assert_eq!(taken.value.tenants, ids(&["acme", "beta", "gamma"]));
    assert_eq!(store.ledger(&ledger).await.unwrap().unwrap().tenants, ids(&["acme", "beta", "gamma"]));
}

pub(crate) async fn a_head_takes_the_place_of_the_one_it_continues_and_of_no_other(place: &Place) {
    let (store, replica) = (place.open().await, place.open().await);
    let one = sidecar(&store, "one").await;
    let ledger = id("0123456789abcdef");
    store.enrol_ledger(&writer(), &ledger, &one, "the key").await.unwrap();
    let position = store.head().await.unwrap().position;
    assert!(store.ledger(&ledger).await.unwrap().unwrap().head.is_none());
    assert!(!store.anchor(&id("another"), 0, &head(1, 0)).await.unwrap(), "of a ledger that nobody knows");
    let (here, there) = (head(10, 0), head(12, 0));
    let both = tokio::join!(store.anchor(&ledger, 0, &here), replica.anchor(&ledger, 0, &there));
    let (here, there) = (both.0.unwrap(), both.1.unwrap());
    assert!(here != there, "one of two that continue the same: {here} {there}");
    let size = if here { 10 } else { 12 };
    assert!(!store.anchor(&ledger, 0, &head(99, 1)).await.unwrap());
    assert!(replica.anchor(&ledger, size, &head(20, 2)).await.unwrap());
    assert_eq!(store.ledger(&ledger).await.unwrap().unwrap().head, Some(head(20, 2)));
    assert_eq!(store.head().await.unwrap().position, position, "no head takes a position");
}

pub(crate) async fn of_earlier_heads_one_a_minute_is_kept_and_not_for_ever(place: &Place) {
    let store = place.open().await;
    let one = sidecar(&store, "one").await;
    let ledger = id("0123456789abcdef");
    store.enrol_ledger(&writer(), &ledger, &one, "the key").await.unwrap();
    let mut before = 0;
    for (size, seconds) in [(1, 0), (2, 1), (3, 59), (4, 60), (5, 61), (6, 130)] {
        assert!(store.anchor(&ledger, before, &head(size, seconds)).await.unwrap());
        before = size;
    }
    assert_eq!(store.ledger_heads(&ledger).await.unwrap(), ["note 1", "note 4", "note 6"]);
    assert!(store.anchor(&ledger, 6, &head(7, 131)).await.unwrap());
    assert_eq!(store.ledger_heads(&ledger).await.unwrap(), ["note 1", "note 4", "note 6", "note 7"]);
    let most = u64::try_from(MAX_EARLIER_HEADS).unwrap();
    for more in 0..most {
        let seconds = i64::try_from(200 + more * 60).unwrap();
        assert!(store.anchor(&ledger, 7 + more, &head(8 + more, seconds)).await.unwrap());
    }
    let kept = store.ledger_heads(&ledger).await.unwrap();
    assert_eq!((kept.len(), kept[0].as_str()), (MAX_EARLIER_HEADS, "note 8"));
}
