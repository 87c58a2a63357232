//! Enrolled sidecars: their keys.

use countersign_store::{Enrolment, Page, Serves, SidecarStatus, StoreError};
use serde_json::json;

use crate::place::{Place, after, ids, later, now, writer};

pub(crate) async fn a_sidecars_keys_overlap_while_one_replaces_the_other(place: &Place) {
    let store = place.open().await;
    let key = |x: &str| json!({ "kty": "EC", "crv": "P-256", "x": x, "y": "b", "kid": "mine" });
    let serves = Serves { tenants: ids(&["acme"]), tools: None, agents: None };
    let proved = Enrolment::Proved { by: "spiffe://acme.example/sidecar".to_owned(), serves, once: None };
    let sidecar = store.enrol(&writer(), &proved, "support", &key("old")).await.unwrap().value;
    let old = sidecar.keys[0].id.clone();
    assert_eq!(sidecar.keys[0].jwk["kid"], old, "a key is named by its thumbprint, whatever was sent");
    let rotated = store.add_sidecar_key(&later(10), &sidecar.id, &key("new"), after(100)).await.unwrap().value;
    let new = rotated.keys[1].id.clone();
    assert!(rotated.key(&old, after(99)).is_some() && rotated.key(&new, after(99)).is_some());
    assert!(rotated.key(&old, after(100)).is_none() && rotated.key(&new, after(100)).is_some());
    let again = store.add_sidecar_key(&later(11), &sidecar.id, &key("new"), after(100)).await.unwrap();
    assert_eq!(again.value, rotated, "a key that is there already changes nothing");
    let third = store.add_sidecar_key(&later(200), &sidecar.id, &key("third"), after(300)).await.unwrap().value;
    assert_eq!(third.keys.len(), 2, "keys that retired are gone");

    store.remove_sidecar(&writer(), &sidecar.id).await.unwrap();
    assert_eq!(store.sidecar(&sidecar.id).await.unwrap().unwrap().status, SidecarStatus::Removed);
    let more = store.add_sidecar_key(&later(201), &sidecar.id, &key("more"), after(300)).await;
    assert!(matches!(more, Err(StoreError::Conflict(_))));
    assert!(store.sidecars(Some(SidecarStatus::Enrolled), Page::default()).await.unwrap().items.is_empty());
    assert_eq!(store.sidecars(None, Page::default()).await.unwrap().items.len(), 1);
    assert!(rotated.key(&old, now()).is_some());
}
