//! Work that goes on: tokens issued anew from the agent's own credential and its task, with no user's token
//! (DESIGN §5.5), and tasks that an agent starts under a grant by itself, at `observe` and no further.

use jiff::{SignedDuration, Timestamp};
use model::{Code, Grant, Id, Presence, Sensitivity, Stage, Task, Tenant, registry::TaskStatus, withdrawal::Passage};
use store::{GrantRecord, GrantStatus, NewTask, StoreError, Writer};
use token::UserSubject;

use super::{
    Minted, Moment,
    first::{self, Subject, no_such_task},
    principal, ruled,
};
use crate::{
    Authority,
    client::Client,
    form::Form,
    refused::{Error, Refused},
};

/// How long a task lasts that an agent starts by itself.
const STARTED_BY_AGENT: SignedDuration = SignedDuration::from_hours(1);
/// The value of `task` that asks for the one for which the user is there.
const PRESENT: &str = "present";
/// Parameters of an exchange, which a request without a subject cannot have.
const OF_A_SUBJECT: [&str; 5] =
    ["subject_token", "subject_token_type", "requested_actor", "actor_token", "requested_token_type"];

impl Authority {
    /// The token of a task that goes on. The user is the one of the grant; what they may do is what was last known.
    pub(super) async fn reissue(&self, form: &Form, client: &Client, at: Moment) -> Result<Minted, Refused> {
        if let Some(name) = OF_A_SUBJECT.iter().find(|name| form.value(name).is_some()) {
            return Err(Refused::request(format!("`{name}` belongs to a token exchange (RFC 8693)")));
        }
        let audience = self.audience(form)?;
        let asked = self.asked(form, self.settings.lifetime, at)?;
        let task = self.task_of(form, client, None, at).await?;
        let registered = self.registered(&task, vec![client.agent().clone()]).await?.ok_or_else(no_such_task)?;
        if !client.agent().is(&registered.grant.agent) {
            return Err(no_such_task());
        }
        let subject = self.last_known(&registered.grant, &registered.task).await?;
        let issuance = first::first(&subject, client, &registered, &asked)?;
        let issuance = ruled::ruled(self.policy().as_deref(), issuance, client.agent(), &registered, &asked)?;
        self.sign(issuance, client, audience, &asked.requested, None)
    }

    /// What is known of the grant's user while they are not there.
    async fn last_known(&self, grant: &Grant, task: &Task) -> Result<Subject, Refused> {
        let issuer = &grant.user.issuer;
        let session = task.session.as_deref().map(|sid| Passage::Session(issuer, sid));
        if self.withdrawn.any(session, None).is_some() {
            let why = "the session that the task is bound to has ended";
            return Err(Refused::request(why).denied(Code::Withdrawn));
        }
        let known = self.store.known_user(issuer, &grant.user.id, &task.tenant).await;
        let known = known.map_err(|error| Refused::unavailable("the store", &error))?;
        let (Some(known), Some(believed)) = (known, self.issuers.get(issuer)) else {
            return Err(Refused::request(
                "nothing is known of the task's user: exchange a token of theirs once, then the task goes on without",
            ));
        };
        if !believed.tenants().contains(&task.tenant) {
            return Err(no_such_task());
        }
        Ok(Subject {
            user: model::Principal { tenant: Some(task.tenant.clone()), ..grant.user.clone() },
            entitlement: believed.entitlement(&known.claims),
            claims: known.claims,
            tenant: task.tenant.clone(),
            session: task.session.clone(),
            jti: None,
            // No token of theirs bounds it: task and grant do.
            expires_at: Timestamp::MAX,
        })
    }

    /// The task that the token is for: the one that the form names, the one that goes on with the user there, or one
    /// that the agent starts by naming a grant.
    pub(super) async fn task_of(
        &self,
        form: &Form,
        client: &Client,
        user: Option<&UserSubject>,
        at: Moment,
    ) -> Result<Id<Task>, Refused> {
        match (form.value("task_id"), form.value("grant_id"), form.value("task")) {
            (Some(task), None, None) => Id::new(task).map_err(|_| no_such_task()),
            (None, Some(grant), None) => {
                let record = self.named_grant(grant, client, user).await?;
                self.start_by_agent(form, &record, client, user, at).await
            }
            (None, None, Some(PRESENT)) => self.present(form, client, user, at).await,
            (None, None, Some(_)) => Err(Refused::request("`task` can be `present` only")),
            (None, None, None) => Err(Refused::request("the parameter task_id is missing")),
            _ => Err(Refused::request(
                "`grant_id` starts a task, `task_id` goes on with one, `task` finds the one that goes on: one of them",
            )),
        }
    }

    /// The task that goes on in the session of the user's token: the last one under the grant that they gave the agent
    /// last. Where there is none, or it came to its end by itself, the agent starts the next.
    async fn present(
        &self,
        form: &Form,
        client: &Client,
        user: Option<&UserSubject>,
        at: Moment,
    ) -> Result<Id<Task>, Refused> {
        let Some(user) = user else { return Err(Refused::request("`task=present` needs a token of the user's")) };
        let unavailable = |error: StoreError| Refused::unavailable("the store", &error);
        let record = self.store.last_grant(&user.user, &principal(client.agent())).await.map_err(unavailable)?;
        let Some(record) = record else {
            return Err(Refused::request("the user has given this agent no grant").denied(Code::Impersonation));
        };
        let last = self.store.last_present(&record.grant.id, &user.tenant, user.session.as_deref()).await;
        match last.map_err(unavailable)? {
            Some(task) if task.status == TaskStatus::Withdrawn => {
                let why = format!("the task {} was taken back: a person has to start the next", task.id);
                Err(Refused::request(why).denied(Code::TaskEnded))
            }
            Some(task) if task.status == TaskStatus::Active && task.expires_at > at.now => Ok(task.id),
            Some(_) | None => self.start_by_agent(form, &record, client, Some(user), at).await,
        }
    }

    /// The grant of that name, if it is this agent's, and this user's where there is one.
    async fn named_grant(
        &self,
        grant: &str,
        client: &Client,
        user: Option<&UserSubject>,
    ) -> Result<GrantRecord, Refused> {
        let no_such_grant = || Refused::request("there is no grant of that name for this user and this agent");
        let grant = Id::new(grant).map_err(|_| no_such_grant())?;
        let record = self.store.grant(&grant).await;
        let record = record.map_err(|error| Refused::unavailable("the store", &error))?.ok_or_else(no_such_grant)?;
        let own = client.agent().is(&record.grant.agent) && user.is_none_or(|user| record.grant.user.is(&user.user));
        if own { Ok(record) } else { Err(no_such_grant()) }
    }

    /// Starts a task at `observe`: what goes further, a person starts.
    async fn start_by_agent(
        &self,
        form: &Form,
        record: &GrantRecord,
        client: &Client,
        user: Option<&UserSubject>,
        at: Moment,
    ) -> Result<Id<Task>, Refused> {
        if form.value("stage").is_some_and(|stage| stage != Stage::Observe.as_str()) {
            return Err(Refused::request("an agent starts tasks at `observe`: what goes further, a person starts"));
        }
        let unavailable = |error: StoreError| Refused::unavailable("the store", &error);
        if record.status != GrantStatus::Active || record.grant.expires_at <= at.now {
            return Err(Refused::request(format!("the grant {} has ended", record.grant.id)));
        }
        let (presence, tenant, session) = match user {
            Some(user) => (Presence::Present, user.tenant.clone(), user.session.clone()),
            None => (Presence::Detached, self.only_tenant(form, client)?, None),
        };
        if !record.permits(presence) {
            return Err(Refused::new(
                Error::UnauthorizedClient,
                "the grant does not permit work without its user (`detached`): exchange a token of theirs",
            ));
        }
        // What a person took back, an agent does not begin again by itself.
        let Grant { user: giver, agent, .. } = &record.grant;
        let given = [
            Passage::User(&giver.issuer, giver.id.as_str()),
            Passage::Agent(&agent.issuer, agent.id.as_str()),
            Passage::Tenant(tenant.as_str()),
        ];
        if self.withdrawn.since(given, record.given) {
            let why =
                "what was given for this user, agent or tenant was withdrawn since: a person has to start the task";
            return Err(Refused::request(why).denied(Code::Withdrawn));
        }
        if self.api.starts(client.id(), at.now).is_err() {
            return Err(Refused::new(Error::TemporarilyUnavailable, "the agent starts more tasks than it may: wait"));
        }
        let new = new_task(form, record, client, at.now, (presence, tenant, session));
        let who = principal(client.agent());
        let by = format!("agent:{} of {}", who.id, who.issuer);
        let writer = Writer { by, reason: None, now: at.now, idempotency: None };
        let committed = self.store.start_task(&writer, new).await.map_err(|error| match error {
            StoreError::Conflict(why) | StoreError::Invalid(why) => Refused::request(why),
            error => unavailable(error),
        })?;
        let recorded = self.recorder.up_to(committed.position).await;
        recorded.map_err(|error| Refused::unavailable("the ledger", &error))?;
        Ok(committed.value.task.id)
    }

    /// The tenant of work that nobody's token names one for.
    fn only_tenant(&self, form: &Form, client: &Client) -> Result<Id<Tenant>, Refused> {
        let tenants = &client.agent().tenants;
        match form.value("tenant") {
            Some(named) => Id::new(named)
                .ok()
                .filter(|named| tenants.contains(named))
                .ok_or_else(|| Refused::request("the agent is not registered for that tenant")),
            None => match (tenants.first(), tenants.len()) {
                (Some(only), 1) => Ok(only.clone()),
                _ => Err(Refused::request("the agent works for several tenants: name one by `tenant`")),
            },
        }
    }

    /// Remembers what the user's token says, for when they are not there. That it cannot be noted stops nothing now.
    pub(super) async fn user_seen(&self, user: &UserSubject, at: Moment) {
        // The same token says the same again.
        if self.noted.has(&user.token.digest, at) {
            return;
        }
        match self.store.user_seen(&user.user, &user.tenant, &user.claims, user.token.issued_at).await {
            Ok(()) => self.noted.put(&user.token.digest, user.token.expires_at, at),
            Err(error) => {
                tracing::warn!(%error, "what a user's token says could not be noted for work that goes on without them");
            }
        }
    }
}

fn new_task(
    form: &Form,
    record: &GrantRecord,
    client: &Client,
    now: Timestamp,
    (presence, tenant, session): (Presence, Id<Tenant>, Option<String>),
) -> NewTask {
    let longest = now.checked_add(STARTED_BY_AGENT).unwrap_or(now);
    NewTask {
        id: None,
        grant: record.grant.id.clone(),
        run: form.value("run_id").and_then(|run| Id::new(run).ok()),
        tenant,
        session,
        use_case: form.value("use_case").map(|text| text.chars().filter(|c| !c.is_control()).take(200).collect()),
        initiated_by: client.id().to_owned(),
        justification: None,
        sensitivity: Sensitivity::High,
        stage: Stage::Observe,
        presence,
        expires_at: longest.min(record.grant.expires_at),
    }
}
