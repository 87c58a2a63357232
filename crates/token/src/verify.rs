//! The straight line of checks, in DESIGN §4's order: pure, from an unverified token and a key to what it proves.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use model::{
    Delegation, Id, Tenant,
    delegation::{Sender, TaskClaims, TokenFacts, UserClaims},
    id::Run,
};

use crate::{
    Defaults, Issuer, Proof, Rejection, Seen, SubjectAudiences,
    check::{
        audience, chain, kind, role,
        sender::Binding,
        shape::Unverified,
        signature, tenant,
        time::{self, Times},
    },
    config::Role,
    keys::Key,
    logout,
    read::{self, Details, Read},
    refusal::{Checked, refuse, unseen},
    subject::{DelegatedSubject, UserSubject, VerifiedSubject},
};

/// What tokens are held to besides their issuer's own settings.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rules {
    pub(crate) audiences: BTreeSet<String>,
    pub(crate) tenants: BTreeSet<Id<Tenant>>,
    pub(crate) defaults: Defaults,
    pub(crate) issuers: BTreeMap<String, Issuer>,
}

/// A token, the key that should have signed it, and who should have.
pub(crate) struct Candidate<'a> {
    pub(crate) token: &'a Unverified<'a>,
    pub(crate) key: &'a Key,
    pub(crate) issuer: &'a Issuer,
    pub(crate) details: &'a Details,
    /// Whether its signature was found good under that key before.
    pub(crate) signed: bool,
}

/// A token that is good for a call.
pub(crate) struct Admitted {
    pub(crate) delegation: Delegation,
    pub(crate) times: Times,
    pub(crate) binding: Binding,
}

/// Checks a token that is presented for a call.
pub(crate) fn for_call(
    candidate: &Candidate<'_>,
    rules: &Rules,
    proof: Proof,
    bearer_allowed: bool,
    now: Timestamp,
) -> Result<Admitted, Box<Rejection>> {
    candidate.verified(rules, |read| {
        let times = candidate.kind_and_time(read, now)?;
        read::check_assertions(&candidate.token.claims, candidate.issuer)?;
        role::for_call(read, candidate.issuer, rules)?;
        audience::exactly_one(&read.claims.aud, &rules.audiences)?;
        let binding = Binding::read(&candidate.token.claims)?;
        let sender = binding.check(proof, bearer_allowed)?;
        let delegation = candidate.delegation(read, rules, times, sender)?;
        Ok(Admitted { delegation, times, binding })
    })
}

/// Checks a token that is presented as the subject of an exchange.
pub(crate) fn for_exchange(
    candidate: &Candidate<'_>,
    rules: &Rules,
    audiences: &SubjectAudiences,
    proof: Proof,
    now: Timestamp,
) -> Result<VerifiedSubject, Box<Rejection>> {
    candidate.verified(rules, |read| {
        let times = candidate.kind_and_time(read, now)?;
        read::check_assertions(&candidate.token.claims, candidate.issuer)?;
        match candidate.issuer.role {
            Role::Subject => {
                candidate.user(read, rules, audiences, times).map(|subject| VerifiedSubject::User(Box::new(subject)))
            }
            Role::Delegation => candidate
                .delegated(read, rules, audiences, (times, proof))
                .map(|subject| VerifiedSubject::Delegated(Box::new(subject))),
        }
    })
}

impl Candidate<'_> {
    /// The signature first; whatever is refused after it is refused by name.
    fn verified<T>(&self, rules: &Rules, checks: impl FnOnce(&Read) -> Checked<T>) -> Result<T, Box<Rejection>> {
        if !self.signed {
            signature::check(self.token, self.key).map_err(unseen)?;
        }
        let read = read::read(&self.token.claims, self.issuer, self.details).map_err(|refusal| {
            Box::new(Rejection { refusal: *refusal, seen: Some(Box::new(Seen::unread(self.token))) })
        })?;
        checks(&read).map_err(|refusal| {
            let seen = read.seen(self.token, self.issuer, rules);
            Box::new(Rejection { refusal: *refusal, seen: Some(Box::new(seen)) })
        })
    }

    fn kind_and_time(&self, read: &Read, now: Timestamp) -> Checked<Times> {
        kind::check(&self.token.header, &self.issuer.types)?;
        logout::none(&self.token.claims)?;
        let times = time::read(read.claims.iat, read.claims.exp, read.claims.nbf)?;
        time::check(times, self.issuer.max_lifetime, self.issuer.skew, now)?;
        Ok(times)
    }

    /// A user's own token, for the first exchange.
    fn user(&self, read: &Read, rules: &Rules, audiences: &SubjectAudiences, times: Times) -> Checked<UserSubject> {
        role::for_subject(read, self.issuer, rules)?;
        audience::any(&read.claims.aud, &audiences.users)?;
        Binding::read(&self.token.claims)?.check(Proof::None, true)?;
        let tenant = tenant::of(read.claims.tenant.as_deref(), self.issuer)?;
        tenant::check(&tenant, self.issuer, self.issuer, &rules.tenants)?;
        let claims = user_claims(read);
        Ok(UserSubject {
            user: model::Principal {
                kind: model::PrincipalKind::User,
                id: read::id("sub", &read.claims.sub)?,
                issuer: self.issuer.name.clone(),
                tenant: Some(tenant.clone()),
            },
            tenant,
            entitlement: self.issuer.entitlement(&claims),
            claims,
            session: read.claims.sid.clone(),
            token: self.facts(read, times),
        })
    }

    /// A delegated token of our own, for a later hop: its actor hands on, or was handed on to (`may_act`).
    fn delegated(
        &self,
        read: &Read,
        rules: &Rules,
        audiences: &SubjectAudiences,
        (times, proof): (Times, Proof),
    ) -> Checked<DelegatedSubject> {
        role::for_call(read, self.issuer, rules)?;
        let all = audiences.sidecars.union(&audiences.authority).cloned().collect();
        let audience = audience::exactly_one(&read.claims.aud, &all)?.to_owned();
        // A token for the authority is good for one thing: the hop its `may_act` names.
        if read.claims.may_act.is_none() && audiences.authority.contains(&audience) {
            return audience::wrong(&read.claims.aud);
        }
        let sender = Binding::read(&self.token.claims)?.check(proof, true)?;
        let delegation = self.delegation(read, rules, times, sender)?;
        let may_act = match &read.claims.may_act {
            Some(actor) => Some(model::Principal {
                kind: model::PrincipalKind::Agent,
                id: read::id("may_act", &actor.sub)?,
                issuer: actor.iss.clone().unwrap_or_else(|| self.issuer.name.clone()),
                tenant: None,
            }),
            None => None,
        };
        Ok(DelegatedSubject { delegation, may_act, audience })
    }

    fn delegation(&self, read: &Read, rules: &Rules, times: Times, sender: Sender) -> Checked<Delegation> {
        let claims = &read.claims;
        let (authority, authority_assumed) = chain::authority(read, self.issuer);
        let tenant = tenant::of(claims.tenant.as_deref(), self.issuer)?;
        let chain = chain::check(read, self.issuer, rules, &authority, Some(&tenant))?;
        // The chain check saw to it that the user's issuer is configured.
        let user_issuer = rules.issuers.get(&chain.user().principal.issuer).unwrap_or(self.issuer);
        tenant::check(&tenant, self.issuer, user_issuer, &rules.tenants)?;
        let user = user_claims(read);
        let (run, run_derived) = self.run(read)?;
        Ok(Delegation {
            token: self.facts(read, times),
            chain,
            authority,
            authority_assumed,
            entitlement: user_issuer.entitlement(&user),
            user,
            tenant,
            grant: read::optional_id("grant_id", claims.grant_id.as_deref())?,
            run,
            run_derived,
            task: TaskClaims {
                id: read::optional_id("task_id", claims.task_id.as_deref())?,
                use_case: claims.use_case.clone(),
                initiated_by: claims.initiated_by.clone(),
                sensitivity: claims.sensitivity.unwrap_or(rules.defaults.sensitivity),
                stage: claims.stage.unwrap_or(rules.defaults.stage),
                presence: claims.user_presence,
            },
            session: claims.sid.clone(),
            position: claims.pos,
            sender,
        })
    }

    /// The run the token names, or one derived from issuer and `jti`, the same for every call with this token.
    fn run(&self, read: &Read) -> Checked<(Id<Run>, bool)> {
        if let Some(run) = &read.claims.run_id {
            return Ok((read::id("run_id", run)?, false));
        }
        let Some(jti) = &read.claims.jti else {
            let detail = "The token has neither `run_id` nor `jti`.";
            return refuse(model::Code::InvalidToken, detail, "a run is named by `run_id` or derived from `jti`");
        };
        // The length keeps (issuer, jti) apart from any other pair that reads the same when joined.
        let text = format!("{}:{}{jti}", self.issuer.name.len(), self.issuer.name);
        let hash = digest::digest(&digest::SHA256, text.as_bytes());
        Ok((read::id("jti", &format!("run_{}", URL_SAFE_NO_PAD.encode(hash)))?, true))
    }

    fn facts(&self, read: &Read, times: Times) -> TokenFacts {
        TokenFacts {
            digest: self.token.digest.to_string(),
            issuer: self.issuer.name.clone(),
            jti: read.claims.jti.clone(),
            client_id: read.claims.client_id.clone(),
            key_id: self.key.id.clone(),
            algorithm: self.key.algorithm.as_str().to_owned(),
            issued_at: times.issued_at,
            expires_at: times.expires_at,
        }
    }
}

fn user_claims(read: &Read) -> UserClaims {
    UserClaims {
        groups: read.claims.groups.clone(),
        roles: read.claims.roles.clone(),
        acr: read.claims.acr.clone(),
        auth_time: read.claims.auth_time,
        attributes: read.claims.attributes.clone(),
    }
}

#[cfg(test)]
mod tests;
