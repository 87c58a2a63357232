//! What an exchange starts from: a user's own token, or a delegated one whose agent hands on.

use std::collections::BTreeSet;

use jiff::Timestamp;
use model::{
    Action, Delegation, Id, Principal, Tenant,
    delegation::{TokenFacts, UserClaims},
};

/// The audiences that subject tokens may have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubjectAudiences {
    /// Users' tokens: one of their audiences must be among these.
    pub users: BTreeSet<String>,
    /// Delegated tokens for sidecars: those sidecars' audiences.
    pub sidecars: BTreeSet<String>,
    /// Delegated tokens for the authority itself, which must carry `may_act`.
    pub authority: BTreeSet<String>,
}

/// A verified `subject_token`. Only [`crate::Verifier::verify_subject`] makes one from a token.
#[derive(Debug, Clone, PartialEq)]
pub enum VerifiedSubject {
    /// From an issuer of users' tokens.
    User(Box<UserSubject>),
    /// From a delegation issuer: for the next hop.
    Delegated(Box<DelegatedSubject>),
}

/// What a user's own token proves.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct UserSubject {
    /// The user.
    pub user: Principal,
    /// The tenant.
    pub tenant: Id<Tenant>,
    /// What their issuer says of them.
    pub claims: UserClaims,
    /// What they may do without any agent.
    pub entitlement: BTreeSet<Id<Action>>,
    /// Their session.
    pub session: Option<String>,
    /// The token.
    pub token: TokenFacts,
}

/// What a delegated token proves.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DelegatedSubject {
    /// All of it.
    pub delegation: Delegation,
    /// The agent that may become the next actor, as the authority decided when the parent asked.
    pub may_act: Option<Principal>,
    /// The audience it was made out to.
    pub audience: String,
}

impl VerifiedSubject {
    /// When the token ends: nothing issued for it may live longer.
    pub const fn expires_at(&self) -> Timestamp {
        match self {
            Self::User(subject) => subject.token.expires_at,
            Self::Delegated(subject) => subject.delegation.token.expires_at,
        }
    }
}
