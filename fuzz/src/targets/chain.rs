//! Chains: whatever a trusted issuer may have signed about who acts for whom, laid over a token that is good otherwise.

use serde_json::Value;

use super::token;

const GOOD: &[u8] = include_bytes!("../../seeds/token/c-good");

/// An object of claims about the chain, each of which replaces one of a good token, or removes it where it is `null`.
/// What is verified begins with a user, ends with the token's actor, names nobody twice, and no hop widens another.
pub(super) fn chain(bytes: &[u8]) {
    let Ok(Value::Object(changes)) = serde_json::from_slice::<Value>(bytes) else { return };
    let mut claims: Value = serde_json::from_slice(&GOOD[1..]).expect("the good token's claims");
    let members = claims.as_object_mut().expect("an object");
    for (name, change) in changes {
        let about = ["act", "delegation_chain", "sub", "sub_profile", "scope", "authorization_details", "client_id"];
        if !about.contains(&name.as_str()) {
            continue;
        }
        if change.is_null() {
            members.remove(&name);
        } else {
            members.insert(name, change);
        }
    }
    let Some(delegation) = token::verified(&claims) else { return };
    let chain = &delegation.chain;
    assert_eq!(chain.user().principal.id.as_str(), claims["sub"].as_str().expect("a subject"));
    assert_eq!(chain.agent().principal.id.as_str(), claims["act"]["sub"].as_str().expect("an actor"));
    let mut names: Vec<_> = chain.agents().map(|hop| (&hop.principal.issuer, &hop.principal.id)).collect();
    let agents = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), agents, "an agent that acts for itself: {chain:?}");
    assert!((1..=model::chain::MAX_AGENTS).contains(&agents), "{agents} agents");
    assert!(chain.widening().is_none(), "{chain:?}");
}
