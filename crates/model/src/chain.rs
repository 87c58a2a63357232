//! The chain: the user, each delegating agent, and the agent now calling, in that order, with what each held.

use serde::{Deserialize, Serialize, Serializer};

use crate::{Authority, Id, Principal, PrincipalKind, registry::Grant};

/// The most agents a chain may have, whatever a configuration says.
pub const MAX_AGENTS: usize = 8;

/// A user and at least one agent, by construction: a chain without an actor is impersonation and has no value here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<Hop>")]
pub struct Chain {
    user: Hop,
    between: Vec<Hop>,
    agent: Hop,
}

/// One principal of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hop {
    /// Who.
    pub principal: Principal,
    /// The running copy, for agents that name one.
    pub instance: Option<String>,
    /// The token it held.
    pub jti: Option<String>,
    /// The grant it acted under.
    pub grant: Option<Id<Grant>>,
    /// What it held. Absent for hops that only nested `act` names: they can deny or narrow, never grant
    /// (RFC 8693 §4.1).
    pub authority: Option<Authority>,
    /// What the hop rests on.
    pub evidence: Evidence,
}

/// What a hop of a chain rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// `delegation_chain`, under the issuer's signature.
    DelegationChain,
    /// The token's own top-level claims.
    Token,
    /// Nested `act`, informational.
    NestedAct,
}

/// Why principals are no chain.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum InvalidChain {
    /// No agent acts: the user's token alone.
    #[error("the token names a user and no agent acting for them")]
    NoActor,
    /// The first principal is not a user.
    #[error("the first principal of the chain is not a user")]
    RobotUser,
    /// A later principal is a user, or an agent is also the user.
    #[error("a user stands where an agent has to, at hop {0}")]
    UserAsAgent(usize),
    /// An actor that is already in the chain extends it.
    #[error("the chain loops: the principal at hop {0} is already in it")]
    Loop(usize),
    /// More agents than allowed.
    #[error("the chain has {agents} agents, at most {max} are allowed")]
    TooDeep {
        /// How many it has.
        agents: usize,
        /// How many it may have.
        max: usize,
    },
}

impl Chain {
    /// Checks the order, kinds, loops and depth of `hops`, user first.
    pub fn new(hops: Vec<Hop>, max_agents: usize) -> Result<Self, InvalidChain> {
        let agents = hops.len().saturating_sub(1);
        let max = max_agents.min(MAX_AGENTS);
        if agents > max {
            return Err(InvalidChain::TooDeep { agents, max });
        }
        for (index, hop) in hops.iter().enumerate() {
            match (index, hop.principal.kind) {
                (0, PrincipalKind::User) => {}
                (0, PrincipalKind::Agent | PrincipalKind::Service) => return Err(InvalidChain::RobotUser),
                (_, PrincipalKind::User) => return Err(InvalidChain::UserAsAgent(index)),
                (_, PrincipalKind::Agent | PrincipalKind::Service) => {}
            }
            if let Some(earlier) = hops.iter().take(index).position(|earlier| earlier.principal.is(&hop.principal)) {
                return Err(if earlier == 0 { InvalidChain::UserAsAgent(index) } else { InvalidChain::Loop(index) });
            }
        }
        let mut hops = hops.into_iter();
        match (hops.next(), hops.next_back()) {
            (Some(user), Some(agent)) => Ok(Self { user, between: hops.collect(), agent }),
            _ => Err(InvalidChain::NoActor),
        }
    }

    /// The user on whose behalf the call is made.
    pub const fn user(&self) -> &Hop {
        &self.user
    }

    /// The agent now calling.
    pub const fn agent(&self) -> &Hop {
        &self.agent
    }

    /// Every hop, user first, calling agent last.
    pub fn hops(&self) -> impl DoubleEndedIterator<Item = &Hop> + Clone {
        std::iter::once(&self.user).chain(&self.between).chain(std::iter::once(&self.agent))
    }

    /// Every agent, the first delegate first.
    pub fn agents(&self) -> impl Iterator<Item = &Hop> + Clone {
        self.hops().skip(1)
    }

    /// The first hop that holds more than the one before it, by its place. Hops without authority hold nothing
    /// of their own and are passed over.
    pub fn widening(&self) -> Option<usize> {
        let mut held: Option<&Authority> = None;
        for (index, hop) in self.hops().enumerate() {
            let Some(authority) = &hop.authority else { continue };
            if held.is_some_and(|held| !authority.within(held)) {
                return Some(index);
            }
            held = Some(authority);
        }
        None
    }
}

impl TryFrom<Vec<Hop>> for Chain {
    type Error = InvalidChain;

    fn try_from(hops: Vec<Hop>) -> Result<Self, InvalidChain> {
        Self::new(hops, MAX_AGENTS)
    }
}

impl Serialize for Chain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.hops())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(kind: PrincipalKind, id: &str) -> Hop {
        let principal =
            Principal { kind, id: Id::new(id).unwrap(), issuer: "https://issuer.example".to_owned(), tenant: None };
        Hop { principal, instance: None, jti: None, grant: None, authority: None, evidence: Evidence::NestedAct }
    }

    fn chain(hops: &[(PrincipalKind, &str)], max: usize) -> Result<Chain, InvalidChain> {
        Chain::new(hops.iter().map(|(kind, id)| hop(*kind, id)).collect(), max)
    }

    #[test]
    fn a_chain_is_a_user_and_distinct_agents_no_more_than_allowed() {
        use PrincipalKind::{Agent, Service, User};
        assert!(chain(&[(User, "alice"), (Agent, "a"), (Agent, "b")], 2).is_ok());
        assert_eq!(chain(&[(User, "alice")], 2), Err(InvalidChain::NoActor));
        assert_eq!(chain(&[], 2), Err(InvalidChain::NoActor));
        assert_eq!(chain(&[(Service, "cron"), (Agent, "a")], 2), Err(InvalidChain::RobotUser));
        assert_eq!(chain(&[(User, "alice"), (User, "bob")], 2), Err(InvalidChain::UserAsAgent(1)));
        assert_eq!(chain(&[(User, "alice"), (Agent, "alice")], 2), Err(InvalidChain::UserAsAgent(1)));
        assert_eq!(chain(&[(User, "alice"), (Agent, "a"), (Agent, "b"), (Agent, "a")], 5), Err(InvalidChain::Loop(3)));
        assert_eq!(
            chain(&[(User, "alice"), (Agent, "a"), (Agent, "b"), (Agent, "c")], 2),
            Err(InvalidChain::TooDeep { agents: 3, max: 2 })
        );
    }
}
