//! What a call is charged against cumulative limits: how much, in which whole units, and to which sum.
//!
//! Everything that is counted is a whole number, so that no sum ever rounds: minor units of a currency, calls, or
//! millionths of a plain number. What does not fit is taken for more than is allowed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cumulative, Limits, Window};
use crate::{
    Amount, Decimal, Delegation, Grant, Id, Money, ParameterValue, Parameters, Principal, Tenant,
    amount::MAX_SAFE_INTEGER,
};

/// The largest number of units.
pub const MAX_UNITS: u64 = i64::MAX as u64;

/// Fraction digits that sums of plain numbers are counted with.
const SCALE: u32 = 6;

/// Which sum a call is charged to: what two calls have in common that are counted together. The maximum is not part of
/// it, so that asking for a lower one begins nothing anew.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitKey {
    /// Whose limit it is.
    pub holder: Holder,
    /// Its name. Elements of one holder that give the same name to a limit share it.
    pub name: String,
    /// The parameter that is summed; without it calls are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sum: Option<String>,
    /// The currency, for money.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// The length of its windows.
    pub window: Window,
}

/// Whose limit it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Holder {
    /// A user's grant at the authority: everything done under it is counted, through whichever agents.
    Grant {
        /// The grant.
        grant: Id<Grant>,
    },
    /// An agent under such a grant, that was given less than the grant holds.
    Agent {
        /// The grant.
        grant: Id<Grant>,
        /// The agent's issuer.
        issuer: String,
        /// The agent.
        id: Id<Principal>,
    },
    /// A principal of a chain in tokens of another issuer than the authority.
    Issued {
        /// The issuer of the tokens.
        by: String,
        /// The user's issuer.
        user_issuer: String,
        /// The user on whose behalf.
        user: Id<Principal>,
        /// The issuer of the principal that holds the limit.
        issuer: String,
        /// The principal that holds the limit.
        id: Id<Principal>,
        /// The tenant.
        tenant: Id<Tenant>,
    },
}

/// What one call would be charged to one sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The sum.
    pub key: LimitKey,
    /// The limit, as the token has it.
    pub limit: Cumulative,
    /// The most of a window, in units: that of the token.
    pub max: u64,
    /// What this call is charged, in units.
    pub units: u64,
    /// The place in the chain of the hop that holds the limit.
    pub hop: usize,
}

impl Cumulative {
    /// What a call with `parameters` is charged, in units. `None` where that cannot be said: the summed value is absent,
    /// negative, no quantity of this kind, or more than can be counted.
    pub fn charge(&self, parameters: &Parameters) -> Option<u64> {
        let Some(name) = &self.sum else { return Some(1) };
        let value = parameters.value(name).and_then(ParameterValue::amount)?;
        match (&self.max, &value) {
            (Amount::Money(max), Amount::Money(value)) if max.currency() == value.currency() => {
                u64::try_from(value.minor()).ok()
            }
            // Upwards, and the maximum downwards: what is finer than is counted never adds up to more.
            (Amount::Number(_), Amount::Number(value)) => {
                value.scaled_up(SCALE).and_then(|units| u64::try_from(units).ok()).filter(|units| *units <= MAX_UNITS)
            }
            _ => None,
        }
    }

    /// The most within one window, in units; no more than can be counted.
    pub fn ceiling(&self) -> u64 {
        match &self.max {
            Amount::Money(max) => u64::try_from(max.minor()).unwrap_or_default(),
            Amount::Number(max) => {
                let scale = if self.sum.is_some() { SCALE } else { 0 };
                max.scaled_down(scale)
                    .map_or(MAX_UNITS, |units| u64::try_from(units).unwrap_or(MAX_UNITS).min(MAX_UNITS))
            }
        }
    }

    /// So many units, as the limit's own quantity.
    pub fn amount(&self, units: u64) -> Amount {
        let units = i64::try_from(units).unwrap_or(i64::MAX);
        match &self.max {
            Amount::Money(max) => {
                // No sum is larger than a maximum that was an amount of money itself.
                let minor = units.min(MAX_SAFE_INTEGER);
                Amount::Money(Money::from_minor(minor, max.currency()).unwrap_or_else(|_| max.clone()))
            }
            Amount::Number(_) if self.sum.is_some() => Amount::Number(Decimal::from_scaled(units, SCALE)),
            Amount::Number(_) => Amount::Number(Decimal::from_integer(units)),
        }
    }

    /// Whether it counts the same as `other`, whatever either's maximum is.
    pub fn counts_as(&self, other: &Self) -> bool {
        self.sum == other.sum && self.window == other.window && self.max.currency() == other.max.currency()
    }
}

/// What a call is charged, given the limits that each authority of its chain holds it to, by place and the user's side
/// first. `authority` is the issuer whose grants are known by their ids.
///
/// A hop that holds the same limit as the one before it adds nothing: what is charged there is charged here.
///
/// # Errors
/// The place of a hop with a limit that the call cannot be charged to, and the limit's name.
pub fn claims<'a>(
    delegation: &Delegation,
    held: impl IntoIterator<Item = (usize, &'a Principal, &'a Limits)>,
    parameters: &Parameters,
    authority: Option<&str>,
) -> Result<Vec<Claim>, (usize, String)> {
    let mut before: Vec<(&str, &Cumulative)> = Vec::new();
    let mut claims = Vec::new();
    for (hop, principal, limits) in held {
        for (name, limit) in limits.cumulative() {
            let earlier = before.iter_mut().find(|(known, _)| *known == name);
            match earlier {
                Some((_, known)) if *known == limit => continue,
                Some((_, known)) => *known = limit,
                None => before.push((name, limit)),
            }
            let units = limit.charge(parameters).ok_or_else(|| (hop, name.to_owned()))?;
            let holder = holder(delegation, hop, principal, authority);
            let key = LimitKey {
                holder,
                name: name.to_owned(),
                sum: limit.sum.clone(),
                currency: limit.max.currency().map(str::to_owned),
                window: limit.window,
            };
            claims.push(Claim { key, max: limit.ceiling(), units, hop, limit: limit.clone() });
        }
    }
    Ok(claims)
}

fn holder(delegation: &Delegation, hop: usize, principal: &Principal, authority: Option<&str>) -> Holder {
    let known = delegation.grant.as_ref().filter(|_| authority == Some(delegation.token.issuer.as_str()));
    match known {
        Some(grant) if hop == 0 => Holder::Grant { grant: grant.clone() },
        Some(grant) => {
            Holder::Agent { grant: grant.clone(), issuer: principal.issuer.clone(), id: principal.id.clone() }
        }
        None => {
            let user = &delegation.chain.user().principal;
            Holder::Issued {
                by: delegation.token.issuer.clone(),
                user_issuer: user.issuer.clone(),
                user: user.id.clone(),
                issuer: principal.issuer.clone(),
                id: principal.id.clone(),
                tenant: delegation.tenant.clone(),
            }
        }
    }
}
