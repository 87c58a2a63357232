//! From a verified payload to typed claims: the issuer's own claim names become ours, and nothing it is not trusted
//! to say comes through.

use model::{Code, Id, Principal, PrincipalKind, json::Json};
use serde_json::{Map, Value};

use crate::{
    Issuer, Seen,
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

/// The claims of a token whose signature was verified.
pub(crate) fn read(claims: &Json, issuer: &Issuer) -> Checked<Read> {
    let mut members = renamed(claims, &issuer.claims);
    let act = part(members.remove("act"));
    let chain = part(members.remove("delegation_chain"));
    match serde_json::from_value(Value::Object(members)) {
        Ok(claims) => Ok(Read { claims, act, chain }),
        Err(error) => {
            let detail = "A claim of the token is missing or has the wrong form.";
            refuse(Code::InvalidToken, detail, format!("claims: {error}"))
        }
    }
}

fn part<T: serde::de::DeserializeOwned>(value: Option<Value>) -> Part<T> {
    value.map(|value| serde_json::from_value(value).map_err(|error| error.to_string())).transpose()
}

/// Our name, the issuer's name, and how its value takes our form.
type Move<'a> = (&'static str, Option<&'a str>, fn(Value) -> Value);

/// The payload's members with mapped ones under our names. A member that has our name by chance does not stay.
fn renamed(claims: &Json, names: &ClaimsConfig) -> Map<String, Value> {
    let Value::Object(mut members) = exact(claims) else { return Map::new() };
    let moves: [Move<'_>; 7] = [
        ("sub", Some(&names.id), same),
        ("tenant", names.tenant.as_deref(), same),
        ("groups", Some(&names.groups), listed),
        ("roles", Some(&names.roles), listed),
        ("sid", Some(&names.session), same),
        ("acr", Some(&names.acr), same),
        ("scope", Some(&names.scope), spaced),
    ];
    for (ours, theirs, form) in moves {
        let found = theirs.and_then(|theirs| at(claims, theirs)).map(exact).map(form);
        match found {
            Some(value) => members.insert(ours.to_owned(), value),
            None => members.remove(ours),
        };
    }
    if !names.attributes.is_empty() {
        let attributes = names
            .attributes
            .iter()
            .filter_map(|(ours, theirs)| Some((ours.clone(), Value::String(text(at(claims, theirs)?)?))));
        members.insert("attributes".to_owned(), Value::Object(attributes.collect()));
    }
    members
}

fn at<'a>(claims: &'a Json, name: &str) -> Option<&'a Json> {
    if name.starts_with('/') { claims.pointer(name) } else { claims.member(name) }
}

/// The value for typed reading. Only whole 64-bit numbers stay what they are: any other becomes a float, which no
/// claim of ours takes.
fn exact(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(text) => match (text.parse::<i64>(), text.parse::<u64>()) {
            (Ok(integer), _) => integer.into(),
            (_, Ok(integer)) => integer.into(),
            _ => text.parse::<f64>().map_or(Value::Null, Value::from),
        },
        Json::Text(text) => Value::String(text.clone()),
        Json::Array(items) => items.iter().map(exact).collect(),
        Json::Object(members) => members.iter().map(|(name, value)| (name.clone(), exact(value))).collect(),
    }
}

fn same(value: Value) -> Value {
    value
}

fn listed(value: Value) -> Value {
    match value {
        Value::String(only) => Value::Array(vec![Value::String(only)]),
        other => other,
    }
}

/// An array of names as the one string that `scope` is. Names with spaces would become two, so they stay as they are
/// and are refused.
fn spaced(value: Value) -> Value {
    let Value::Array(items) = &value else { return value };
    let names: Option<Vec<&str>> = items.iter().map(|item| item.as_str().filter(|name| !name.contains(' '))).collect();
    names.map_or(value.clone(), |names| Value::String(names.join(" ")))
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
