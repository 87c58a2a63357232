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

pub(crate) async fn users_are_found_by_an_attribute_of_theirs_as_it_was_last(place: &Place) {
    let store = place.open().await;
    let user = |name: &str, issuer: &str| Principal {
        kind: PrincipalKind::User,
        id: id(name),
        issuer: issuer.to_owned(),
        tenant: None,
    };
    let claims = |name: &str, value: &str| UserClaims {
        attributes: [(name.to_owned(), value.to_owned())].into(),
        ..UserClaims::default()
    };
    let at = Timestamp::UNIX_EPOCH;
    let later = at.checked_add(SignedDuration::from_hours(1)).unwrap();
    for (name, issuer, attribute, value, as_of) in [
        ("alice", SSO, "email", "Alice@acme.example", at),
        ("alice-2", SSO, "email", "alice@ACME.example", at),
        ("bob", SSO, "email", "alice@acme.example", at),
        ("bob", SSO, "email", "bob@acme.example", later),
        ("carol", SSO, "nickname", "alice@acme.example", at),
        ("dana", SSO, "email", "xalice@acme.example", at),
        ("alice", ISSUER, "email", "alice@acme.example", at),
        ("elise", SSO, "email", "\u{c9}lise@acme.example", at),
        ("quoted", SSO, "email", "\"x\"@acme.example", at),
    ] {
        store.user_seen(&user(name, issuer), &id("acme"), &claims(attribute, value), as_of).await.unwrap();
    }
    let found = async |value: &str, most: usize| {
        let found = store.users_with(SSO, ("email", value), most).await.unwrap();
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(found("alice@acme.EXAMPLE", 9).await, ["alice", "alice-2"]);
    assert_eq!(found("bob@acme.example", 9).await, ["bob"]);
    assert_eq!(found("\"x\"@acme.example", 9).await, ["quoted"]);
    assert_eq!(found("\u{c9}lise@acme.example", 9).await, ["elise"]);
    for nobody in ["", "@", "acme.example", "%", "' OR 1 = 1 --", "\\", "email"] {
        assert!(found(nobody, 9).await.is_empty(), "{nobody}");
    }
    assert_eq!(found("alice@acme.example", 1).await.len(), 1);
}
