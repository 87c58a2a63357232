//! Claims as they are read beside the plain way to read them, by a copy of the whole payload: one is as strict as the
//! other, and both read the same.

use model::json::Json;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::testing::{ACT, AUTHORITY, SSO, act_claims, chain_claims, issuer, user_claims};

/// What the plain way makes of `claims`.
fn plainly(claims: &Json, names: &ClaimsConfig) -> Option<Read> {
    let mut members = plainly_renamed(claims, names);
    let act = plain_part(members.remove("act"));
    let chain = plain_part(members.remove("delegation_chain"));
    Some(Read { claims: serde_json::from_value(Value::Object(members)).ok()?, act, chain })
}

fn plain_part<T: serde::de::DeserializeOwned>(value: Option<Value>) -> Part<T> {
    value.map(|value| serde_json::from_value(value).map_err(|error| error.to_string())).transpose()
}

fn plainly_renamed(claims: &Json, names: &ClaimsConfig) -> Map<String, Value> {
    let Value::Object(mut members) = exact(claims) else { return Map::new() };
    let list = |value| if let Value::String(only) = value { json!([only]) } else { value };
    let join = |value: Value| {
        let Value::Array(items) = &value else { return value };
        let names: Option<Vec<&str>> =
            items.iter().map(|item| item.as_str().filter(|name| !name.contains(' '))).collect();
        names.map_or(value.clone(), |names| Value::String(names.join(" ")))
    };
    let found = |theirs: &str| at(claims, theirs).map(exact);
    let moves = [
        ("sub", found(&names.id)),
        ("tenant", names.tenant.as_deref().and_then(found)),
        ("groups", found(&names.groups).map(list)),
        ("roles", found(&names.roles).map(list)),
        ("sid", found(&names.session)),
        ("acr", found(&names.acr)),
        ("scope", found(&names.scope).map(join)),
    ];
    for (ours, value) in moves {
        match value {
            Some(value) => members.insert(ours.to_owned(), value),
            None => members.remove(ours),
        };
    }
    if !names.attributes.is_empty() {
        let texts = names
            .attributes
            .iter()
            .filter_map(|(ours, theirs)| Some((ours.clone(), text(at(claims, theirs)?)?.into())));
        members.insert("attributes".to_owned(), Value::Object(texts.collect()));
    }
    members
}

fn issuers() -> [Issuer; 3] {
    let mapped = "id: oid, scope: scp, roles: /realm/roles, groups: roles, session: jti, acr: /act/sub, attributes: {region: /region, sub: sub}";
    [
        issuer(&format!("{{issuer: '{AUTHORITY}', role: delegation, tenants: [acme]}}")),
        issuer(&format!("{{issuer: '{ACT}', role: delegation, tenants: [acme], chain: act, claims: {{{mapped}}}}}")),
        issuer(&format!("{{issuer: '{SSO}', role: subject, tenants: [acme], claims: {{tenant: /org/tenant}}}}")),
    ]
}

/// Whether broken parts are broken in both; how they are told may differ.
fn same_part<T: PartialEq>(one: &Part<T>, other: &Part<T>) -> bool {
    match (one, other) {
        (Ok(one), Ok(other)) => one == other,
        (one, other) => one.is_err() && other.is_err(),
    }
}

fn same(claims: &Json) {
    for issuer in issuers() {
        match (read(claims, &issuer, &Details::new()), plainly(claims, &issuer.claims)) {
            (Ok(ours), Some(plain)) => {
                assert_eq!(ours.claims, plain.claims, "{claims:?}");
                assert!(same_part(&ours.act, &plain.act), "{:?} {:?}", ours.act, plain.act);
                assert!(same_part(&ours.chain, &plain.chain), "{:?} {:?}", ours.chain, plain.chain);
            }
            (Err(refusal), None) => assert_eq!(refusal.code, Code::InvalidToken),
            (ours, plain) => panic!("{claims:?}: {:?}, plainly {:?}", ours.is_ok(), plain.is_some()),
        }
    }
}

/// A value that some claim could have, or none.
fn value() -> impl Strategy<Value = Value> {
    const TEXTS: &[&str] =
        &["alice", "", "a b", "user", "ai_agent", "supervised", "low", "present", "5.00", "USD", "P1D", "**"];
    const NUMBERS: &[&str] =
        &["1", "-1", "0", "-0", "1.5", "1e3", "9223372036854775808", "18446744073709551616", "-9223372036854775809"];
    let leaf = prop_oneof![
        4 => prop::sample::select(TEXTS).prop_map(Value::from),
        2 => prop::sample::select(NUMBERS).prop_map(|text| serde_json::from_str(text).unwrap()),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
    ];
    const NAMES: &[&str] = &["sub", "iss", "max", "supervised", "act", "limits", "authorization_details", "x"];
    leaf.prop_recursive(3, 20, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(NAMES).prop_map(str::to_owned), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Every place inside `value`, as pointers.
fn places(value: &Value, at: &str, places: &mut Vec<String>) {
    places.push(at.to_owned());
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| self::places(item, &format!("{at}/{index}"), places));
        }
        Value::Object(members) => members.iter().for_each(|(name, member)| {
            self::places(member, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), places);
        }),
        _ => {}
    }
}

/// What happens to one place of a good payload.
#[derive(Debug, Clone)]
enum Change {
    To(Value),
    Gone,
    More(String, Value),
    /// A claim of the token itself.
    Claim(String, Value),
}

fn change() -> impl Strategy<Value = (prop::sample::Index, Change)> {
    const NAMES: &[&str] =
        &["oid", "scp", "roles", "region", "attributes", "sid", "may_act", "limits", "where", "x", "pos", "stage"];
    const CLAIMS: &[&str] = &[
        "sub",
        "oid",
        "groups",
        "roles",
        "scope",
        "scp",
        "sid",
        "jti",
        "acr",
        "tenant",
        "region",
        "act",
        "delegation_chain",
        "authorization_details",
        "attributes",
        "stage",
        "pos",
    ];
    let change = prop_oneof![
        4 => (prop::sample::select(CLAIMS), value()).prop_map(|(name, value)| Change::Claim(name.to_owned(), value)),
        3 => value().prop_map(Change::To),
        1 => Just(Change::Gone),
        2 => (prop::sample::select(NAMES), value()).prop_map(|(name, value)| Change::More(name.to_owned(), value)),
    ];
    (any::<prop::sample::Index>(), change)
}

fn changed(mut claims: Value, changes: Vec<(prop::sample::Index, Change)>) -> Value {
    for (index, change) in changes {
        let mut all = Vec::new();
        places(&claims, "", &mut all);
        let place = index.get(&all);
        match change {
            Change::To(value) if !place.is_empty() => *claims.pointer_mut(place).unwrap() = value,
            Change::Gone => {
                let (parent, name) = place.rsplit_once('/').unwrap_or_default();
                if let Some(members) = claims.pointer_mut(parent).and_then(Value::as_object_mut) {
                    members.remove(&name.replace("~1", "/").replace("~0", "~"));
                }
            }
            Change::More(name, value) => {
                if let Some(members) = claims.pointer_mut(place).and_then(Value::as_object_mut) {
                    members.insert(name, value);
                }
            }
            Change::Claim(name, value) => {
                if let Some(members) = claims.as_object_mut() {
                    members.insert(name, value);
                }
            }
            Change::To(_) => {}
        }
    }
    claims
}

proptest! {
    // Many, as most changes do not touch what either way could take differently. More by `PROPTEST_CASES`.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(3000)))]

    #[test]
    fn claims_are_read_as_a_copy_of_the_payload_would_be(which in 0_usize..3, changes in prop::collection::vec(change(), 0..4)) {
        let claims = [chain_claims, act_claims, user_claims][which]();
        same(&Json::parse(changed(claims, changes).to_string().as_bytes()).unwrap());
    }
}

#[test]
fn equal_details_of_hops_are_kept_once() {
    let mut claims = chain_claims();
    claims["delegation_chain"][1]["authorization_details"] = claims["authorization_details"].clone();
    let json = Json::parse(claims.to_string().as_bytes()).unwrap();
    let read = read(&json, &issuers()[0], &Details::new()).ok().unwrap();
    let hops = read.chain.unwrap().unwrap();
    let own = read.claims.authorization_details.unwrap();
    assert!(hops[1].authorization_details.is_shared_with(&own) && hops[2].authorization_details.is_shared_with(&own));
    assert!(!hops[0].authorization_details.is_shared_with(&own) && hops[0].authorization_details != own);
}
