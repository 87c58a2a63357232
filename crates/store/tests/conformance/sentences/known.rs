//! What is last known of users.

use jiff::{SignedDuration, Timestamp};
use model::{Id, Principal, PrincipalKind, delegation::UserClaims};

use crate::place::{ISSUER, Place, SSO, id};

pub(crate) async fn a_user_is_known_in_each_tenant_by_the_newest_token(place: &Place) {
    let store = place.open().await;
    let alice = Principal { kind: PrincipalKind::User, id: id("alice"), issuer: SSO.to_owned(), tenant: None };
    let claims = |group: &str| UserClaims { groups: [group.to_owned()].into(), ..UserClaims::default() };
    let at = Timestamp::UNIX_EPOCH;
    let later = at.checked_add(SignedDuration::from_hours(1)).unwrap();
    store.user_seen(&alice, &id("beta"), &claims("readers"), at).await.unwrap();
    store.user_seen(&alice, &id("acme"), &claims("support"), later).await.unwrap();
    store.user_seen(&alice, &id("acme"), &claims("old"), at).await.unwrap();
    let known = store.known_in_tenants(SSO, &alice.id).await.unwrap();
    let known: Vec<_> = known.iter().map(|known| (known.claims.clone(), known.as_of)).collect();
    assert_eq!(known, [(claims("support"), later), (claims("readers"), at)]);
    let nobody: Id<Principal> = id("bob");
    assert!(store.known_in_tenants(SSO, &nobody).await.unwrap().is_empty());
    assert!(store.known_in_tenants(ISSUER, &alice.id).await.unwrap().is_empty());
}
