//! Issued authority = what was held ∩ everything that limits it. Pure: no IO, no clock, nothing to configure.

use std::collections::BTreeSet;

use model::{Action, Authority, Code, Element, Id, Principal, Scope, Tool};

use crate::{
    form::Form,
    refused::{Error, Refused},
};

/// The most `authorization_details` elements one request may have.
const MAX_ELEMENTS: usize = 16;

/// What a client asks for. Nothing said asks for all there is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requested {
    /// `scope`
    pub(crate) scope: Option<BTreeSet<Id<Action>>>,
    /// `authorization_details`
    pub(crate) details: Option<Authority>,
}

/// One limit on what is issued, and whose it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ceiling<'a> {
    /// Whose limit it is.
    pub(crate) of: Limiting<'a>,
    /// The limit.
    pub(crate) is: Most<'a>,
}

/// What a limit consists of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Most<'a> {
    /// Actions, however and on whatever.
    Actions(&'a BTreeSet<Id<Action>>),
    /// Actions with their elements.
    Authority(&'a Authority),
    /// Tools, whatever is done with them.
    Tools(&'a BTreeSet<Id<Tool>>),
}

/// Whose limit left nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limiting<'a> {
    /// The user's own entitlement.
    User,
    /// The user's grant.
    Grant,
    /// The registration of an agent in the chain.
    Agent(&'a Id<Principal>),
    /// The request: what it asks for is not held.
    Request,
    /// Policy (`delegate`).
    Policy,
}

impl Requested {
    /// Reads `scope` and `authorization_details`.
    pub(crate) fn read(form: &Form) -> Result<Self, Refused> {
        let scope = form.value("scope").map(|scope| Scope::parse(scope).iter().cloned().collect());
        let details = form.value("authorization_details").map(elements).transpose()?.map(|elements| Authority {
            scope: elements.iter().flat_map(|element| element.actions.iter().cloned()).collect(),
            elements: elements.into(),
        });
        Ok(Self { scope, details })
    }

    /// Whether `issued` is less than was asked for by name.
    pub(crate) fn is_narrowed_by(&self, issued: &Authority) -> bool {
        let named = |scope: &BTreeSet<_>| scope.iter().all(|action| issued.scope.contains(action));
        !self.scope.as_ref().is_none_or(named) || !self.details.as_ref().is_none_or(|details| details.within(issued))
    }

    /// What it limits.
    pub(crate) fn ceilings(&self) -> impl Iterator<Item = Ceiling<'_>> {
        let scope = self.scope.as_ref().map(Most::Actions);
        let details = self.details.as_ref().map(Most::Authority);
        scope.into_iter().chain(details).map(|is| Ceiling { of: Limiting::Request, is })
    }
}

fn elements(text: &str) -> Result<Vec<Element>, Refused> {
    let invalid = |why: String| Refused::new(Error::InvalidAuthorizationDetails, why);
    let json = model::json::Json::parse(text.as_bytes()).map_err(|error| invalid(error.to_string()))?;
    let elements: Vec<Element> = serde_json::from_value(json.to_serde()).map_err(|error| invalid(error.to_string()))?;
    if elements.len() > MAX_ELEMENTS {
        return Err(invalid(format!("at most {MAX_ELEMENTS} elements may be asked for")));
    }
    Ok(elements)
}

/// What is left of `held` under every ceiling; or the first that leaves nothing.
pub(crate) fn narrow<'a>(
    held: &Authority,
    ceilings: impl IntoIterator<Item = Ceiling<'a>>,
) -> Result<Authority, Limiting<'a>> {
    let mut left = held.clone();
    for Ceiling { of, is } in ceilings {
        left = match is {
            Most::Actions(actions) => clip(left, |element| element.actions.retain(|action| actions.contains(action))),
            Most::Tools(tools) => clip(left, |element| element.locations.retain(|tool| tools.contains(tool))),
            Most::Authority(authority) => left.intersect(authority),
        };
        if left.is_empty() {
            return Err(of);
        }
    }
    Ok(left)
}

/// What is left of `authority` when each element is clipped.
fn clip(mut authority: Authority, element: impl Fn(&mut Element)) -> Authority {
    for each in &mut authority.elements {
        element(each);
    }
    authority.elements.retain(|element| !element.actions.is_empty() && !element.locations.is_empty());
    authority.scope = authority
        .scope
        .iter()
        .filter(|action| authority.elements.iter().any(|element| element.actions.contains(*action)))
        .cloned()
        .collect();
    authority
}

impl std::fmt::Display for Limiting<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User => f.write_str("the user is not entitled to any of it"),
            Self::Grant => f.write_str("the grant holds none of it"),
            Self::Agent(id) => write!(f, "the agent {id} is not registered for any of it"),
            Self::Request => f.write_str("what was asked for is not held"),
            Self::Policy => f.write_str("policy lets none of it be delegated"),
        }
    }
}

impl From<Limiting<'_>> for Refused {
    fn from(limiting: Limiting<'_>) -> Self {
        let denial = match limiting {
            Limiting::User => Code::Entitlement,
            Limiting::Grant | Limiting::Agent(_) | Limiting::Request => Code::InsufficientScope,
            Limiting::Policy => Code::PolicyDenied,
        };
        Self::new(Error::InvalidScope, format!("nothing is left to issue: {limiting}")).denied(denial)
    }
}
