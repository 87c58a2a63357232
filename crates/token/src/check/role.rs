//! Role and actor: two names or no call (P1). A user's token alone is impersonation, a robot is no user.

use model::{Code, PrincipalKind};

use crate::{
    Issuer, Profile,
    config::Role,
    read::Read,
    refusal::{Checked, refuse},
    verify::Rules,
};

/// For a call: the issuer may delegate, somebody acts, and the user is a person other than the actor.
pub(crate) fn for_call(read: &Read, issuer: &Issuer, rules: &Rules) -> Checked<()> {
    not_a_robot(read, issuer, rules)?;
    if issuer.role == Role::Subject || matches!(read.act, Ok(None)) {
        let internal = format!("{} names a user and no agent", issuer.name);
        let detail = "The token names a user and no agent acting for them; exchange it for a delegated token.";
        return refuse(Code::Impersonation, detail, internal);
    }
    not_oneself(read, issuer)
}

/// For an exchange, from an issuer of users' tokens: a person, and nobody acting yet.
pub(crate) fn for_subject(read: &Read, issuer: &Issuer, rules: &Rules) -> Checked<()> {
    not_a_robot(read, issuer, rules)
}

/// An agent that is also the user is one name, not two.
fn not_oneself(read: &Read, issuer: &Issuer) -> Checked<()> {
    let Ok(Some(act)) = &read.act else { return Ok(()) };
    let actor = (act.iss.as_deref().unwrap_or(&issuer.name), act.sub.as_str());
    let first = read.chain.as_ref().ok().and_then(Option::as_ref).and_then(|hops| hops.first());
    let user = (first.map_or(issuer.name.as_str(), |hop| hop.iss.as_str()), read.claims.sub.as_str());
    if actor == user {
        let detail = "The token names the same principal as user and as agent.";
        return refuse(Code::Impersonation, detail, "the acting agent and the user are one");
    }
    Ok(())
}

/// Service accounts: a token of the client itself, one that says so, and the ids that configuration lists.
fn not_a_robot(read: &Read, issuer: &Issuer, rules: &Rules) -> Checked<()> {
    let claims = &read.claims;
    let first = read.chain.as_ref().ok().and_then(Option::as_ref).and_then(|hops| hops.first());
    let profile = claims.sub_profile.as_deref().and_then(Profile::listed);
    let why = match first {
        _ if claims.client_id.as_deref() == Some(&claims.sub) => "`sub` is the client itself",
        _ if profile.is_some_and(|profile| profile != Profile::User) => "`sub_profile` says it is no user",
        Some(hop) if PrincipalKind::from(hop.sub_profile) != PrincipalKind::User => "the first of the chain is no user",
        Some(hop) if rules.issuers.get(&hop.iss).is_some_and(|issuer| issuer.is_robot(&hop.sub)) => {
            "its issuer's `robots` list it"
        }
        _ if issuer.is_robot(&claims.sub) => "its issuer's `robots` list it",
        _ => return Ok(()),
    };
    let detail = "The token names a service account where the user should be.";
    refuse(Code::RobotUser, detail, why)
}
