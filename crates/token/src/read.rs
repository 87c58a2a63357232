//! From a verified payload to typed claims: the issuer's own claim names become ours, and nothing it is not trusted
//! to say comes through.

mod details;
mod typed;

use model::{Code, Id, Principal, PrincipalKind, json::Json};
use serde_json::{Error, Value};

pub(crate) use self::details::Details;
use self::typed::{Claim, exact, structure, typed};
use crate::{
    Issuer, Seen,
    check::sender::Binding,
    check::shape::Unverified,
    claims::{ActClaims, DelegationClaims, HopClaims, Profile},
    config::{Assertion, ChainForm, ClaimsConfig, Role},
    refusal::{Checked, refuse},
    verify::Rules,
};

/// A token's claims under our names. `act` and `delegation_chain` stand apart: a broken one is an invalid chain,
/// which is only said when the chain's turn comes.
pub(crate) struct Read {
    pub(crate) claims: DelegationClaims,
    pub(crate) act: Part<ActClaims>,
    pub(crate) chain: Part<Vec<HopClaims>>,
}

/// A part that is absent, readable, or broken with the reason.
pub(crate) type Part<T> = Result<Option<T>, String>;

/// The claims that an issuer has to be trusted for, and with what.
const ASSERTED: [(Assertion, &[&str]); 6] = [
    (Assertion::Chain, &["act", "delegation_chain"]),
    (Assertion::Grant, &["grant_id", "may_act", "pos"]),
    (Assertion::Task, &["task_id", "run_id", "use_case", "initiated_by", "sensitivity", "user_presence"]),
    (Assertion::Stage, &["stage"]),
    (Assertion::Limits, &["authorization_details"]),
    (Assertion::Tenant, &["tenant"]),
];

/// Refuses claims that the issuer is not trusted for.
pub(crate) fn check_assertions(claims: &Json, issuer: &Issuer) -> Checked<()> {
    // A tenant that configuration maps is one that the operator trusts.
    let mapped = |name: &str| name == "tenant" && issuer.claims.tenant.is_some();
    for (assertion, names) in ASSERTED {
        if issuer.asserts.contains(&assertion) {
            continue;
        }
        if let Some(name) = names.iter().find(|name| claims.member(name).is_some() && !mapped(name)) {
            let detail = "The token's issuer is not trusted for something the token says.";
            return refuse(Code::InvalidToken, detail, format!("{} may not assert `{name}`", issuer.name));
        }
    }
    Ok(())
}

/// The member that holds elements, of the token as of each hop.
const DETAILS: &str = "authorization_details";

/// The claims of a token whose signature was verified.
pub(crate) fn read(claims: &Json, issuer: &Issuer, details: &Details) -> Checked<Read> {
    let act = claims.member("act").map(typed).transpose().map_err(|error| error.to_string());
    match renamed(claims, &issuer.claims, details) {
        Ok(read) => {
            let chain = claims.member("delegation_chain").map(|chain| hops(chain, details));
            Ok(Read { claims: read, act, chain: chain.transpose().map_err(|error| error.to_string()) })
        }
        Err(error) => {
            let detail = "A claim of the token is missing or has the wrong form.";
            refuse(Code::InvalidToken, detail, format!("claims: {error}"))
        }
    }
}

/// The hops of `delegation_chain`.
fn hops(chain: &Json, details: &Details) -> Result<Vec<HopClaims>, Error> {
    match chain {
        Json::Array(hops) => hops.iter().map(|hop| self::hop(hop, details)).collect(),
        _ => typed(chain),
    }
}

fn hop(hop: &Json, details: &Details) -> Result<HopClaims, Error> {
    let (Json::Object(members), Some(held)) = (hop, hop.member(DETAILS)) else { return typed(hop) };
    let members = members.iter().map(|(name, value)| match name.as_str() {
        DETAILS => (DETAILS, Claim::Made(Value::Array(Vec::new()))),
        name => (name, Claim::Sent(value)),
    });
    let read: HopClaims = structure(members)?;
    Ok(HopClaims { authorization_details: details.read(held)?, ..read })
}

/// Our name, the issuer's name, and how its value takes our form.
type Move<'n, 'a> = (&'static str, Option<&'n str>, fn(&'a Json) -> Claim<'a>);

/// The payload with mapped members under our names; a member that has our name by chance does not stay. `act` and
/// `delegation_chain` are not in it.
fn renamed<'a>(claims: &'a Json, names: &ClaimsConfig, details: &Details) -> Result<DelegationClaims, Error> {
    let Json::Object(members) = claims else { return typed(claims) };
    let moves: [Move<'_, 'a>; 7] = [
        ("sub", Some(&names.id), Claim::Sent),
        ("tenant", names.tenant.as_deref(), Claim::Sent),
        ("groups", Some(&names.groups), listed),
        ("roles", Some(&names.roles), listed),
        ("sid", Some(&names.session), Claim::Sent),
        ("acr", Some(&names.acr), Claim::Sent),
        ("scope", Some(&names.scope), spaced),
    ];
    let attributes = (!names.attributes.is_empty()).then(|| {
        let texts = names.attributes.iter().filter_map(|(ours, theirs)| Some((ours, text(at(claims, theirs)?)?)));
        Claim::Made(texts.map(|(ours, text)| (ours.clone(), Value::String(text))).collect())
    });
    let ours = |name: &str| {
        matches!(name, "act" | "delegation_chain" | DETAILS)
            || (name == "attributes" && attributes.is_some())
            || moves.iter().any(|(ours, ..)| *ours == name)
    };
    let kept = members.iter().filter(|(name, _)| !ours(name)).map(|(name, value)| (name.as_str(), Claim::Sent(value)));
    let moved = moves.iter().filter_map(|(ours, theirs, form)| Some((*ours, form(at(claims, (*theirs)?)?))));
    let attributes = attributes.clone().map(|attributes| ("attributes", attributes));
    let read: DelegationClaims = structure(kept.chain(moved).chain(attributes))?;
    let authorization_details = claims.member(DETAILS).map(|held| details.read(held)).transpose()?;
    Ok(DelegationClaims { authorization_details, ..read })
}

/// The claim that configuration calls `name`.
pub(crate) fn at<'a>(claims: &'a Json, name: &str) -> Option<&'a Json> {
    if name.starts_with('/') { claims.pointer(name) } else { claims.member(name) }
}

/// One name stands for a list of one.
fn listed(json: &Json) -> Claim<'_> {
    match json {
        Json::Text(_) => Claim::Made(Value::Array(vec![exact(json)])),
        _ => Claim::Sent(json),
    }
}

/// An array of names as the one string that `scope` is. Names with spaces would become two, so they stay as they are
/// and are refused.
fn spaced(json: &Json) -> Claim<'_> {
    let Json::Array(items) = json else { return Claim::Sent(json) };
    let names: Option<Vec<&str>> = items.iter().map(|item| item.as_text().filter(|name| !name.contains(' '))).collect();
    names.map_or(Claim::Sent(json), |names| Claim::Made(Value::String(names.join(" "))))
}

fn text(json: &Json) -> Option<String> {
    match json {
        Json::Text(text) | Json::Number(text) => Some(text.clone()),
        Json::Bool(value) => Some(value.to_string()),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

impl Read {
    /// Whom the token concerns, as far as its issuer can be believed about them.
    pub(crate) fn seen(&self, token: &Unverified<'_>, issuer: &Issuer, rules: &Rules) -> Seen {
        let claims = &self.claims;
        let tenant: Option<Id<_>> =
            claims.tenant.as_deref().and_then(|text| Id::new(text).ok()).filter(|id| issuer.tenants.contains(id));
        let first = self.chain.as_ref().ok().and_then(Option::as_ref).and_then(|hops| hops.first());
        let user_issuer = match (issuer.role, issuer.chain, first) {
            (Role::Delegation, ChainForm::Required, Some(hop))
                if hop.sub == claims.sub && rules.issuers.contains_key(&hop.iss) =>
            {
                Some(hop.iss.clone())
            }
            (Role::Delegation, ChainForm::Required, _) => None,
            (Role::Subject, ..) | (Role::Delegation, ChainForm::Act, _) => Some(issuer.name.clone()),
        };
        let principal =
            |kind, id: &str, issuer: String, tenant| Id::new(id).ok().map(|id| Principal { kind, id, issuer, tenant });
        let act = self.act.as_ref().ok().and_then(Option::as_ref);
        Seen {
            issuer: issuer.name.clone(),
            digest: token.digest.to_string(),
            jti: claims.jti.clone(),
            user: user_issuer.and_then(|issuer| principal(PrincipalKind::User, &claims.sub, issuer, tenant.clone())),
            agent: act.filter(|_| issuer.role == Role::Delegation).and_then(|act| {
                let issuer = act.iss.clone().unwrap_or_else(|| issuer.name.clone());
                principal(act.kind(), &act.sub, issuer, None)
            }),
            tenant,
            run: claims.run_id.as_deref().and_then(|text| Id::new(text).ok()),
            task: claims.task_id.as_deref().and_then(|text| Id::new(text).ok()),
            position: claims.pos,
            bound_to: Binding::read(&token.claims).ok().and_then(Binding::certificate),
        }
    }
}

impl Seen {
    /// What is vouched for when the claims could not be read.
    pub(crate) fn unread(token: &Unverified<'_>) -> Self {
        Self {
            issuer: token.issuer.clone(),
            digest: token.digest.to_string(),
            jti: None,
            user: None,
            agent: None,
            tenant: None,
            run: None,
            task: None,
            position: None,
            bound_to: None,
        }
    }
}

impl ActClaims {
    /// What kind of principal it says it is; an agent where it says nothing known.
    pub(crate) fn kind(&self) -> PrincipalKind {
        self.sub_profile.as_deref().and_then(Profile::listed).unwrap_or(Profile::AiAgent).into()
    }
}

/// The identifier in a claim.
pub(crate) fn id<Of>(name: &str, text: &str) -> Checked<Id<Of>> {
    Id::new(text).or_else(|error| {
        let detail = "A claim of the token is missing or has the wrong form.";
        refuse(Code::InvalidToken, detail, format!("`{name}`: {error}"))
    })
}

/// The same, where the claim is there.
pub(crate) fn optional_id<Of>(name: &str, text: Option<&str>) -> Checked<Option<Id<Of>>> {
    text.map(|text| id(name, text)).transpose()
}

#[cfg(test)]
mod differential;
