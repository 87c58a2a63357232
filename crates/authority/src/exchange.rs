//! RFC 8693 token exchange under the binding rules of DESIGN §5.1, as one straight line: who asks, what they hold,
//! what stands registered, what is left of what they ask for, signed.
//!
//! The deciding is in `first` and `next`, and what policy says of it in `ruled`; all of it is pure, and here is what has to
//! be read for it.

mod claims;
mod first;
mod instance;
mod issuance;
mod next;
mod noted;
mod ruled;
mod task;

use std::time::Duration;

use jiff::Timestamp;
use model::{
    Agent, Code, Id, Principal, Stage, Task,
    withdrawal::{Passage, passages},
};
use serde_json::{Value, json};
use store::{GrantStatus, Standing};
use token::{Compact, DelegatedSubject, Rejection, UserSubject, VerifiedSubject};

use self::{
    claims::{BoundClaims, HandOverClaims, PARENT_EXP},
    first::Subject,
    issuance::{Asked, Issuance, Registered},
};
pub(crate) use self::{issuance::principal, noted::Noted};
use crate::{
    Authority,
    client::Client,
    form::Form,
    metadata::{CLIENT_CREDENTIALS, TOKEN_EXCHANGE},
    narrow::Requested,
    peek,
    refused::{Error, Refused},
    withdrawn::Known,
};

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// A signed token that nobody has yet: [`crate::record::issued`] hands it out, once the record of it is durable.
#[derive(Debug)]
pub(crate) struct Minted {
    pub(crate) compact: Compact,
    pub(crate) issuance: Issuance,
    pub(crate) audience: String,
    pub(crate) narrowed: bool,
    pub(crate) subject_digest: Option<String>,
    hand_over: bool,
}

/// When something is asked for, and what is known then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// The time.
    pub(crate) now: Timestamp,
    /// The state that everything is read after.
    pub(crate) known: Known,
}

/// What the client holds: a verified token and where it came from.
struct Held<'a> {
    compact: &'a str,
    delegated: &'a DelegatedSubject,
}

impl Authority {
    /// The token that `client` gets for what `form` holds, not yet recorded.
    pub(crate) async fn exchange(&self, form: &Form, client: &Client, at: Moment) -> Result<Minted, Refused> {
        client.may_act()?;
        self.instance_stands(client)?;
        match form.required("grant_type")? {
            CLIENT_CREDENTIALS => return self.reissue(form, client, at).await,
            TOKEN_EXCHANGE => check_form(form)?,
            _ => {
                let supported = "only token exchange (RFC 8693) and, for a task, `client_credentials` are supported";
                return Err(Refused::new(Error::UnsupportedGrantType, supported));
            }
        }
        let compact = form.required("subject_token")?;
        let subject = self.verifier.verify_subject_of(compact, &self.audiences, client.proof(), at.now).await;
        let subject = subject.map_err(|it| refused(&it))?;
        if subject_issued_at(&subject) <= at.known.began {
            return Err(Refused::request("the subject token is from before the authority's state was restored"));
        }
        match (&subject, form.value("requested_actor")) {
            // What opens the management API gives an agent nothing.
            (VerifiedSubject::User(_), _) if self.manages(compact) => {
                Err(Refused::request("subject_token: a management token is good for managing alone"))
            }
            (VerifiedSubject::User(_), Some(_)) => {
                Err(Refused::request("only an agent's own delegated token can be handed on"))
            }
            (VerifiedSubject::User(user), None) => self.first_hop(form, client, user, at).await,
            (VerifiedSubject::Delegated(delegated), Some(actor)) => {
                self.not_withdrawn(&delegated.delegation)?;
                self.own_instance(&delegated.delegation, client, at.now).await?;
                self.hand_over(form, client, delegated, actor, at).await
            }
            (VerifiedSubject::Delegated(delegated), None) => {
                self.not_withdrawn(&delegated.delegation)?;
                self.take_over(form, client, &Held { compact, delegated }, at).await
            }
        }
    }

    async fn first_hop(&self, form: &Form, client: &Client, user: &UserSubject, at: Moment) -> Result<Minted, Refused> {
        let issuer = &user.user.issuer;
        let session = user.session.as_deref().map(|sid| Passage::Session(issuer, sid));
        let token = user.token.jti.as_deref().map(|jti| Passage::Token(issuer, jti));
        if self.withdrawn.any(session.into_iter().chain(token), None).is_some() {
            return Err(Refused::request("the user's session, or their token, was withdrawn").denied(Code::Withdrawn));
        }
        let who = [Passage::User(issuer, user.user.id.as_str()), Passage::Tenant(user.tenant.as_str())];
        if self.withdrawn.since(who, user.token.issued_at) {
            let why = "what is done for the user was withdrawn since their token was issued";
            return Err(Refused::request(why).denied(Code::Withdrawn));
        }
        let audience = self.audience(form)?;
        let asked = self.asked(form, self.settings.lifetime, at)?;
        let task = self.task_of(form, client, Some(user), at).await?;
        let agents = vec![client.agent().clone()];
        let registered = self.registered(&task, agents).await?.ok_or_else(first::no_such_task)?;
        let subject = Subject {
            user: user.user.clone(),
            claims: user.claims.clone(),
            entitlement: user.entitlement.clone(),
            tenant: user.tenant.clone(),
            session: user.session.clone(),
            jti: user.token.jti.clone(),
            expires_at: user.token.expires_at,
        };
        let issuance = first::first(&subject, client, &registered, &asked)?;
        let issuance = ruled::ruled(self.policy().as_deref(), issuance, client.agent(), &registered, &asked)?;
        self.user_seen(user, at).await;
        self.sign(issuance, client, audience, &asked.requested, Some(user.token.digest.clone()))
    }

    /// Whether nothing that the parent's token passes through was withdrawn since it was issued.
    fn not_withdrawn(&self, parent: &model::Delegation) -> Result<(), Refused> {
        match self.withdrawn.any(passages(parent), parent.position) {
            None => Ok(()),
            Some(_) => Err(Refused::request("what the subject token was issued for was withdrawn")),
        }
    }

    /// The parent names the agent that it hands on to.
    async fn hand_over(
        &self,
        form: &Form,
        client: &Client,
        parent: &DelegatedSubject,
        actor: &str,
        at: Moment,
    ) -> Result<Minted, Refused> {
        if parent.audience == self.settings.issuer {
            return Err(Refused::request("a token that was handed over cannot be handed on"));
        }
        if form.value("audience").is_some_and(|audience| audience != self.settings.issuer) {
            return Err(Refused::new(Error::InvalidTarget, "a token to be handed over is for this authority alone"));
        }
        let asked = self.asked(form, self.settings.lifetime.min(next::HAND_OVER), at)?;
        let unknown = || Refused::request("there is no agent of that name to hand on to");
        let actor = Id::new(actor).map_err(|_| unknown())?;
        let actor = self.registered_agent(&self.settings.issuer, &actor).await?.ok_or_else(unknown)?;
        let registered = self.later(form, parent, actor.clone()).await?;
        let issuance = next::hand_over(&parent.delegation, client, &actor, &registered, &asked)?;
        let issuance = ruled::ruled(self.policy().as_deref(), issuance, &actor, &registered, &asked)?;
        let issuer = &self.settings.issuer;
        let claims = claims::claims(&issuance, issuer, issuer, client.id());
        let ends = parent.delegation.token.expires_at.as_second();
        let claims = HandOverClaims::new(claims, &principal(&actor), ends);
        Ok(Minted {
            compact: self.keys.sign(&claims, issuance.issued_at)?,
            narrowed: asked.requested.is_narrowed_by(&issuance.authority),
            issuance,
            audience: issuer.clone(),
            subject_digest: Some(parent.delegation.token.digest.clone()),
            hand_over: true,
        })
    }

    /// The agent that was named takes over, with its own key.
    async fn take_over(&self, form: &Form, client: &Client, held: &Held<'_>, at: Moment) -> Result<Minted, Refused> {
        let Held { compact, delegated } = held;
        let may_act = match &delegated.may_act {
            Some(may_act) if delegated.audience == self.settings.issuer => may_act,
            _ => return Err(not_handed_over(client, delegated)),
        };
        let audience = self.audience(form)?;
        let asked = self.asked(form, self.settings.lifetime, at)?;
        let registered = self.later(form, delegated, client.agent().clone()).await?;
        let ends = parent_end(compact)?;
        let parent = &delegated.delegation;
        let issuance = next::take_over(parent, may_act, client, &registered, &asked, ends)?;
        let issuance = ruled::ruled(self.policy().as_deref(), issuance, client.agent(), &registered, &asked)?;
        self.use_once(client, parent, at.now).await?;
        self.sign(issuance, client, audience, &asked.requested, Some(parent.token.digest.clone()))
    }

    fn sign(
        &self,
        issuance: Issuance,
        client: &Client,
        audience: String,
        requested: &Requested,
        subject_digest: Option<String>,
    ) -> Result<Minted, Refused> {
        let claims = claims::claims(&issuance, &self.settings.issuer, &audience, client.id());
        let compact = match client.certificate() {
            Some(certificate) => self.keys.sign(&BoundClaims::new(claims, certificate), issuance.issued_at)?,
            None => self.keys.sign(&claims, issuance.issued_at)?,
        };
        let narrowed = requested.is_narrowed_by(&issuance.authority);
        Ok(Minted { compact, issuance, audience, narrowed, subject_digest, hand_over: false })
    }

    /// A handed-over token is good for one exchange.
    async fn use_once(&self, client: &Client, handed: &model::Delegation, now: Timestamp) -> Result<(), Refused> {
        let Some(jti) = &handed.token.jti else { return Err(Refused::request("the subject token has no `jti`")) };
        let until = handed.token.expires_at.checked_add(Duration::from_secs(60)).unwrap_or(Timestamp::MAX);
        let who = format!("takes over: {}", client.id());
        self.store
            .use_once(&who, jti, until, now)
            .await
            .map_err(|error| Refused::request(format!("the subject token cannot be used: {error}")))
    }

    /// Task, grant and agents of a later hop, `actor` the last of them.
    async fn later(&self, form: &Form, parent: &DelegatedSubject, actor: Agent) -> Result<Registered, Refused> {
        let unknown = || Refused::request("the task of the subject token is not on record");
        let task = parent.delegation.task.id.as_ref().ok_or_else(unknown)?;
        if form.value("task_id").is_some_and(|asked| asked != task.as_str()) {
            return Err(Refused::request("`task_id` is not the task of the subject token"));
        }
        let mut agents = Vec::new();
        for hop in parent.delegation.chain.agents() {
            let Principal { id, issuer, .. } = &hop.principal;
            let agent = self.registered_agent(issuer, id).await?;
            agents.push(agent.ok_or_else(|| Refused::request(format!("the agent {id} is not registered")))?);
        }
        agents.push(actor);
        self.registered(task, agents).await?.ok_or_else(unknown)
    }

    async fn registered(&self, task: &Id<Task>, agents: Vec<Agent>) -> Result<Option<Registered>, Refused> {
        let unavailable = |error| Refused::unavailable("the store", &error);
        let Some(standing) = self.store.known_standing(task).await.map_err(unavailable)? else { return Ok(None) };
        let Standing { task, grant, .. } = &*standing;
        if grant.status == GrantStatus::Withdrawn {
            let why = format!("the grant {} was withdrawn", grant.grant.id);
            return Err(Refused::request(why).denied(Code::Withdrawn));
        }
        Ok(Some(Registered { task: task.clone(), grant: grant.grant.clone(), agents }))
    }

    async fn registered_agent(&self, issuer: &str, id: &Id<Principal>) -> Result<Option<Agent>, Refused> {
        let registration = self.store.known_agent(issuer, id).await;
        let registration = registration.map_err(|error| Refused::unavailable("the store", &error))?;
        Ok(registration.map(|registration| registration.agent.clone()))
    }

    fn asked(&self, form: &Form, lifetime: Duration, at: Moment) -> Result<Asked, Refused> {
        let stage = form.value("stage").map(stage).transpose()?;
        let max_agents = self.settings.max_agents;
        let Moment { now, known: Known { position, .. } } = at;
        Ok(Asked { requested: Requested::read(form)?, stage, lifetime, max_agents, jti: jti(now), now, position })
    }

    /// The one group of sidecars that the token is for.
    fn audience(&self, form: &Form) -> Result<String, Refused> {
        let target = |why: &str| Refused::new(Error::InvalidTarget, why);
        match (form.value("audience"), self.settings.sidecars.as_slice()) {
            (Some(named), known) if known.iter().any(|audience| audience == named) => Ok(named.to_owned()),
            (Some(_), _) => Err(target("the audience is not one of the sidecars this authority issues for")),
            (None, [only]) => Ok(only.clone()),
            (None, _) => Err(target("`audience` has to name one of the groups of sidecars")),
        }
    }
}

impl Minted {
    /// RFC 8693 §2.2.1, with the details that were granted (RFC 9396 §7).
    pub(crate) fn response(&self) -> Value {
        let Issuance { authority, expires_at, issued_at, task, run, .. } = &self.issuance;
        // A token for this authority is no access token, so it has no token type to be presented with.
        let (issued, kind) = if self.hand_over { (JWT, "N_A") } else { (ACCESS_TOKEN, "Bearer") };
        json!({
            "access_token": self.compact.expose(),
            "issued_token_type": issued,
            "token_type": kind,
            "expires_in": expires_at.as_second() - issued_at.as_second(),
            "scope": authority.scope.to_string(),
            "authorization_details": authority.elements,
            "task_id": task.id,
            "run_id": run,
        })
    }
}

/// What the form may and may not have, whatever it asks for.
fn check_form(form: &Form) -> Result<(), Refused> {
    if form.value("actor_token").is_some() || form.value("actor_token_type").is_some() {
        return Err(Refused::request("`actor_token` is not taken: the actor is the authenticated client"));
    }
    if form.value("resource").is_some() {
        return Err(Refused::new(
            Error::InvalidTarget,
            "`resource` is not taken: name a group of sidecars by `audience`",
        ));
    }
    let kind = form.required("subject_token_type")?;
    if kind != ACCESS_TOKEN && kind != JWT {
        return Err(Refused::request("`subject_token_type` has to be an access token or a JWT"));
    }
    match (form.value("requested_token_type"), form.value("requested_actor")) {
        (None, _) | (Some(ACCESS_TOKEN), None) | (Some(JWT), Some(_)) => Ok(()),
        _ => Err(Refused::request("tokens of the `requested_token_type` are not issued")),
    }
}

const fn subject_issued_at(subject: &VerifiedSubject) -> Timestamp {
    match subject {
        VerifiedSubject::User(_) => Timestamp::MAX,
        VerifiedSubject::Delegated(delegated) => delegated.delegation.token.issued_at,
    }
}

fn stage(text: &str) -> Result<Stage, Refused> {
    [Stage::Observe, Stage::Draft, Stage::Supervised]
        .into_iter()
        .find(|stage| stage.as_str() == text)
        .ok_or_else(|| Refused::request("`stage` has to be `observe`, `draft` or `supervised`"))
}

/// Why a delegated token without a valid `may_act` for this authority opens nothing.
fn not_handed_over(client: &Client, held: &DelegatedSubject) -> Refused {
    if client.agent().is(&held.delegation.chain.agent().principal) {
        return Refused::request("an agent's own token can be handed on only: name the agent by `requested_actor`");
    }
    Refused::request("the subject token was not handed over: its agent has to name this client first")
}

/// RFC 8693 §2.2.2: a subject token that is invalid for any reason is an invalid request.
fn refused(rejection: &Rejection) -> Refused {
    let refusal = &rejection.refusal;
    if refusal.code == Code::KeysUnavailable {
        let why = refusal.internal.as_deref().unwrap_or(&refusal.detail);
        return Refused::unavailable("the keys of the subject token's issuer", &why);
    }
    tracing::info!(code = ?refusal.code, internal = refusal.internal, "subject token refused");
    Refused::request(format!("subject_token: {}", refusal.detail))
}

/// When the token of the parent ends, from a handed-over token that was verified.
fn parent_end(compact: &str) -> Result<Timestamp, Refused> {
    let seconds = peek::payload(compact).and_then(|payload| payload.to_serde().get(PARENT_EXP)?.as_i64());
    let end = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    end.ok_or_else(|| Refused::request("the subject token was not handed over by this authority"))
}

/// A name for a token: unique, and in the order of time.
fn jti(now: Timestamp) -> String {
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let nanoseconds = u32::try_from(now.subsec_nanosecond()).unwrap_or_default();
    uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanoseconds)).to_string()
}

#[cfg(test)]
mod tests;
