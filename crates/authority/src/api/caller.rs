//! Who manages: a user with a management token, which nothing else is and which is nothing else.
//!
//! Its audience is its own and stands beside none that an exchange takes; it comes from a listed client; it names
//! nobody who acts. So nothing an agent can hold opens `/v1`, and what opens `/v1` gives an agent nothing.

use std::{collections::BTreeSet, sync::Arc};

use http::{HeaderMap, header};
use jiff::{SignedDuration, Timestamp};
use model::{Action, Id, Principal, Tenant, delegation::UserClaims};
use policy::{
    Steering,
    input::management::{Management as Asked, Object},
};
use token::{Rejection, SubjectAudiences, UserSubject, VerifiedSubject};

use super::problem::{Code, Problem};
use crate::{
    Authority,
    config::{AdministratorsConfig, Management},
    peek,
};

/// How far an identity provider's clock may be ahead of ours when it says when somebody logged in.
const SKEW: SignedDuration = SignedDuration::from_secs(60);
/// The claims of delegation: a token that has one was made for an agent.
const DELEGATION: [&str; 3] = ["act", "may_act", "delegation_chain"];

/// A user who manages. Only [`Authority::caller`] makes one.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The user.
    pub(crate) user: Principal,
    /// Their tenant.
    pub(crate) tenant: Id<Tenant>,
    /// What they may do without any agent.
    pub(crate) entitlement: BTreeSet<Id<Action>>,
    /// What their identity provider says of them.
    pub(crate) claims: UserClaims,
    /// Their session there.
    pub(crate) session: Option<String>,
    role: Role,
    /// The longest ago that a fresh login is.
    fresh: SignedDuration,
}

/// What they may do to what is not their own.
#[derive(Debug, Clone)]
enum Role {
    /// Everything or nothing, by their groups.
    Groups { administers: bool },
    /// What policy says (`manage`), of what they do now.
    Policy { steering: Arc<Steering>, operation: &'static str, now: Timestamp },
}

impl Caller {
    /// The name by which a quota or an idempotency key is theirs.
    pub(crate) fn key(&self) -> String {
        // The length keeps (issuer, id) apart from any other pair that reads the same when joined.
        format!("{}:{}{}", self.user.issuer.len(), self.user.issuer, self.user.id)
    }

    /// Who did something, for the change log and for people.
    pub(crate) fn name(&self) -> String {
        // An id has no white space, so no two callers share a name.
        format!("user:{} of {}", self.user.id, self.user.issuer)
    }

    /// Whether they may do what they do to `object`, whoever it belongs to.
    pub(crate) fn administers(&self, object: &Object) -> bool {
        let (steering, operation, now) = match &self.role {
            Role::Groups { administers } => return *administers,
            Role::Policy { steering, operation, now } => (steering, *operation, *now),
        };
        let asked = Asked { caller: &self.user, claims: &self.claims, operation, object, now };
        match steering.manage(&asked) {
            Some(Ok(_)) => true,
            // A policy that fails gives nobody anything; what is their own stays theirs.
            Some(Err(reasons)) => {
                let why = reasons.iter().find_map(|reason| reason.internal.as_deref());
                if let Some(why) = why {
                    tracing::warn!(operation, why, "the policy of management gave no answer");
                }
                false
            }
            None => false,
        }
    }

    /// For what only administrators do.
    pub(crate) fn must_administer(&self, object: &Object) -> Result<(), Problem> {
        if self.administers(object) { Ok(()) } else { Err(Problem::forbidden("Only an administrator may do this.")) }
    }

    /// For what is `whose`, or an administrator's business. Otherwise it is not there.
    pub(crate) fn must_own(&self, whose: &Principal, object: &Object) -> Result<(), Problem> {
        if whose.is(&self.user) || self.administers(object) { Ok(()) } else { Err(Problem::not_found()) }
    }

    /// For what widens authority: the user logged in just now (RFC 9470).
    pub(crate) fn must_be_fresh(&self, now: Timestamp) -> Result<(), Problem> {
        let seconds = self.fresh.as_secs();
        let since =
            self.claims.auth_time.and_then(|at| Timestamp::from_second(at).ok()).map(|at| now.duration_since(at));
        match since {
            Some(since) if since <= self.fresh && since >= -SKEW => Ok(()),
            Some(_) => Err(Problem::new(Code::LoginTooOld, "This widens authority: log in again and repeat it.")
                .with("max_age", seconds)),
            None => Err(Problem::new(
                Code::LoginTooOld,
                "This widens authority, and the token does not say when the user logged in (`auth_time`).",
            )
            .with("max_age", seconds)),
        }
    }
}

impl Authority {
    /// The user whose management token the request for `operation` carries.
    pub(crate) async fn caller(
        &self,
        headers: &HeaderMap,
        operation: &'static str,
        now: Timestamp,
    ) -> Result<Caller, Problem> {
        // Without the section there is no management API.
        let Some(management) = &self.settings.management else { return Err(Problem::not_found()) };
        let compact = bearer(headers)?;
        let audiences = SubjectAudiences { users: [management.audience.clone()].into(), ..SubjectAudiences::default() };
        let verified = self.verifier.verify_subject(compact, &audiences, now).await;
        match verified.map_err(|rejection| refused(&rejection))? {
            VerifiedSubject::User(user) => {
                self.is_for_management(compact, management, &user)?;
                let role = self.role(&user, management, operation, now);
                Ok(caller(*user, management, role))
            }
            VerifiedSubject::Delegated(_) => Err(not_accepted("a delegated token")),
        }
    }

    /// Policy says who manages; where none does, the groups that are configured.
    fn role(&self, user: &UserSubject, management: &Management, operation: &'static str, now: Timestamp) -> Role {
        if let Some(steering) = self.policy().filter(|steering| steering.says_who_manages()) {
            return Role::Policy { steering, operation, now };
        }
        let administers = management.administrators.as_ref().is_some_and(|administrators| {
            let AdministratorsConfig { issuer, groups } = administrators;
            issuer.as_ref().is_none_or(|issuer| *issuer == user.user.issuer) && !groups.is_disjoint(&user.claims.groups)
        });
        Role::Groups { administers }
    }

    /// What a management token is besides a valid token of a user.
    fn is_for_management(&self, compact: &str, management: &Management, user: &UserSubject) -> Result<(), Problem> {
        let Some(payload) = peek::payload(compact) else { return Err(not_accepted("it cannot be read again")) };
        if DELEGATION.iter().any(|name| payload.member(name).is_some()) {
            return Err(not_accepted("it names somebody who acts"));
        }
        let elsewhere = |name: &&str| self.audiences.users.contains(*name) || self.audiences.sidecars.contains(*name);
        if let Some(other) = peek::audiences(&payload).into_iter().find(elsewhere) {
            return Err(not_accepted(&format!("it is good for {other} too")));
        }
        let azp = payload.member("azp").and_then(model::json::Json::as_text);
        let clients = [azp, user.token.client_id.as_deref()];
        let mut clients = clients.into_iter().flatten().peekable();
        if clients.peek().is_none() || clients.any(|client| !management.clients.contains(client)) {
            return Err(not_accepted("its client is not one that manages"));
        }
        Ok(())
    }

    /// Whether a token that was verified as a user's is one that manages, which is no subject of an exchange.
    pub(crate) fn manages(&self, compact: &str) -> bool {
        let Some(management) = &self.settings.management else { return false };
        // One that cannot be read again is refused too.
        peek::payload(compact)
            .is_none_or(|payload| peek::audiences(&payload).into_iter().any(|name| name == management.audience))
    }
}

fn caller(user: UserSubject, management: &Management, role: Role) -> Caller {
    Caller {
        role,
        fresh: SignedDuration::try_from(management.fresh).unwrap_or(SignedDuration::ZERO),
        tenant: user.tenant,
        entitlement: user.entitlement,
        session: user.session,
        claims: user.claims,
        user: user.user,
    }
}

/// The one bearer token of a request (RFC 6750 §2.1); never from the URL.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let missing = || Problem::new(Code::NoCredential, "Send a management token: `Authorization: Bearer …`.");
    let value = match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        (None, _) => return Err(missing()),
        (Some(_), Some(_)) => return Err(Problem::invalid("`Authorization` is there twice")),
    };
    let (scheme, token) = value.and_then(|value| value.split_once(' ')).ok_or_else(missing)?;
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() { Ok(token) } else { Err(missing()) }
}

fn refused(rejection: &Rejection) -> Problem {
    let refusal = &rejection.refusal;
    if refusal.code == model::Code::KeysUnavailable {
        let why = refusal.internal.as_deref().unwrap_or(&refusal.detail);
        return Problem::unavailable("the keys of the token's issuer", &why);
    }
    not_accepted(refusal.internal.as_deref().unwrap_or(&refusal.detail))
}

/// Why goes to the log: whoever holds a token that is none shall not learn what would be one.
fn not_accepted(why: &str) -> Problem {
    tracing::info!(why, "a token does not open the management API");
    Problem::new(Code::InvalidToken, "The token is not a management token of this authority.")
}
