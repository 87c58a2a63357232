//! `/v1/agents`: the inventory. Who is accountable for an agent, what it may do at most, what it shows itself by and
//! how old that is; and what takes it out of service, for a while or for good.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use model::{Action, Agent, AgentStatus, Id, Principal, Tenant, duration::ConfigDuration};
use policy::input::management::Object;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{AgentChange, AgentFilter, Committed, Credential, CredentialKind, NewAgent, Registration};

use super::{
    Answer, Call,
    body::text,
    object,
    page::{answer, page},
    problem::Problem,
    sidecars::Reason,
};
use crate::{Authority, ages};

/// The most credentials that an agent may have at once.
const MAX_CREDENTIALS: usize = 8;

/// An agent to be registered.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Registering {
    id: Id<Principal>,
    owner: String,
    #[serde(default)]
    description: Option<String>,
    actions: BTreeSet<Id<Action>>,
    tenants: BTreeSet<Id<Tenant>>,
    #[schemars(with = "Vec<WrittenCredential>")]
    credentials: Vec<CredentialKind>,
}

/// A credential, as it may be written here: a file is named in declarations only.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "it describes what `CredentialKind` reads")]
enum WrittenCredential {
    /// A JWKS (RFC 7517 §5) with public keys.
    Jwks(Value),
    /// The SPIFFE ID in its client certificate (an X.509-SVID).
    Spiffe(String),
    /// The subject of its client certificate, as in `CN=support, O=acme`.
    Subject(String),
}

/// What is to be different.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ChangingAgent {
    #[serde(default)]
    owner: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    actions: Option<BTreeSet<Id<Action>>>,
    #[serde(default)]
    tenants: Option<BTreeSet<Id<Tenant>>>,
    reason: String,
}

/// A credential to be added.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rotating {
    #[schemars(with = "WrittenCredential")]
    credential: CredentialKind,
    /// How long those it has stay good beside it.
    #[serde(default)]
    overlap: Option<ConfigDuration>,
    reason: String,
}

/// What is done with an agent, beside changing what stands of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It may not act until it is reinstated.
    Suspend,
    /// It may again.
    Reinstate,
    /// It never will again.
    Decommission,
}

impl Authority {
    /// Registers an agent.
    pub(super) async fn register(&self, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&[])?;
        let Registering { id, owner, description, actions, tenants, credentials } = call.read()?;
        let issuer = self.settings.issuer.clone();
        let agent = Agent { id, issuer, owner: text("owner", &owner)?, actions, tenants, status: AgentStatus::Active };
        call.caller.must_administer(&object::agent(&agent, None))?;
        call.caller.must_be_fresh(call.now)?;
        if credentials.is_empty() || credentials.len() > MAX_CREDENTIALS {
            return Err(Problem::invalid(format!("an agent needs 1 to {MAX_CREDENTIALS} credentials")));
        }
        self.known_tenants(&agent.tenants)?;
        let description = description.map(|it| text("description", &it)).transpose()?;
        let new = NewAgent { agent, description, credentials };
        let committed = self.store.register_agent(&call.writer(None), new).await?;
        self.agent_answer(call, committed).await.map(Answer::for_new)
    }

    /// The agents: all of them for an administrator, those that may work for their tenant for others.
    pub(super) async fn agents(&self, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&["status", "owner", "tenant", "limit", "cursor"])?;
        let status = match call.query.value("status") {
            None => None,
            Some("active") => Some(AgentStatus::Active),
            Some("suspended") => Some(AgentStatus::Suspended),
            Some("decommissioned") => Some(AgentStatus::Decommissioned),
            Some(_) => return Err(Problem::invalid("`status` has to be `active`, `suspended` or `decommissioned`")),
        };
        let tenant = call.query.value("tenant").map(Id::new).transpose();
        let tenant = tenant.map_err(|error| Problem::invalid(format!("`tenant`: {error}")))?;
        let listing = Object { tenants: tenant.iter().cloned().collect(), ..object::all("agent") };
        let tenant = match (call.caller.administers(&listing), tenant) {
            (true, tenant) => tenant,
            (false, Some(other)) if other != call.caller.tenant => return Err(Problem::not_found()),
            (false, _) => Some(call.caller.tenant.clone()),
        };
        let filter = AgentFilter { status, owner: call.query.value("owner").map(str::to_owned), tenant };
        let listed = self.store.agents(&filter, page(&call.query)?).await?;
        Ok(Answer::ok(answer("agents", &listed, |found| self.shown_agent(found, call))))
    }

    /// One agent.
    pub(super) async fn show_agent(&self, id: &str, call: &Call) -> Result<Answer, Problem> {
        let (issuer, id) = self.named(id, call)?;
        let found = self.store.agent(&issuer, &id).await?.ok_or_else(Problem::not_found)?;
        let own = found.agent.tenants.contains(&call.caller.tenant);
        if !own && !call.caller.administers(&object::agent(&found.agent, None)) {
            return Err(Problem::not_found());
        }
        Ok(Answer::ok(self.shown_agent(&found, call)))
    }

    /// Suspends, reinstates or decommissions an agent.
    pub(super) async fn step_agent(&self, id: &str, step: Step, call: &Call) -> Result<Answer, Problem> {
        let Agent { issuer, id, .. } = self.managed_agent(id, None, call).await?.agent;
        let Reason { reason } = call.read()?;
        let status = match step {
            Step::Suspend => AgentStatus::Suspended,
            Step::Reinstate => {
                call.caller.must_be_fresh(call.now)?;
                AgentStatus::Active
            }
            Step::Decommission => AgentStatus::Decommissioned,
        };
        let change = AgentChange { status: Some(status), ..AgentChange::default() };
        let writer = call.writer(Some(text("reason", &reason)?));
        let committed = self.store.change_agent(&writer, &issuer, &id, change).await?;
        self.agent_answer(call, committed).await
    }

    /// Changes what stands of an agent. What lessens it also withdraws what was issued before.
    pub(super) async fn change_agent(&self, id: &str, call: &Call) -> Result<Answer, Problem> {
        let ChangingAgent { owner, description, actions, tenants, reason } = call.read()?;
        let Agent { issuer, id, .. } = self.managed_agent(id, tenants.as_ref(), call).await?.agent;
        call.caller.must_be_fresh(call.now)?;
        if let Some(tenants) = &tenants {
            self.known_tenants(tenants)?;
        }
        let owner = owner.map(|owner| text("owner", &owner)).transpose()?;
        let description = description.map(|it| text("description", &it)).transpose()?;
        let change = AgentChange { owner, description, actions, tenants, status: None };
        let writer = call.writer(Some(text("reason", &reason)?));
        let committed = self.store.change_agent(&writer, &issuer, &id, change).await?;
        self.agent_answer(call, committed).await
    }

    /// Gives an agent another credential, beside those it has for as long as they shall overlap.
    pub(super) async fn add_credential(&self, id: &str, call: &Call) -> Result<Answer, Problem> {
        let found = self.managed_agent(id, None, call).await?;
        call.caller.must_be_fresh(call.now)?;
        let Rotating { credential, overlap, reason } = call.read()?;
        if found.credentials.iter().filter(|it| is_good(it, call.now)).count() >= MAX_CREDENTIALS {
            return Err(Problem::invalid(format!("an agent has {MAX_CREDENTIALS} credentials at most: remove one")));
        }
        let retires = overlap.map(|overlap| call.now.checked_add(overlap.0).unwrap_or(Timestamp::MAX));
        let writer = call.writer(Some(text("reason", &reason)?));
        let named = (found.agent.issuer.as_str(), &found.agent.id);
        let committed = self.store.add_credential(&writer, named, credential, retires).await?;
        self.agent_answer(call, committed).await
    }

    /// Takes a credential away at once.
    pub(super) async fn remove_credential(&self, id: &str, credential: &str, call: &Call) -> Result<Answer, Problem> {
        let Agent { issuer, id, .. } = self.managed_agent(id, None, call).await?.agent;
        let Reason { reason } = call.read()?;
        let writer = call.writer(Some(text("reason", &reason)?));
        let committed = self.store.remove_credential(&writer, (&issuer, &id), credential).await?;
        self.agent_answer(call, committed).await
    }

    /// The agent that a path means, for whoever administers it, and `tenants` as well. Others are not told whether there
    /// is one.
    async fn managed_agent(
        &self,
        id: &str,
        tenants: Option<&BTreeSet<Id<Tenant>>>,
        call: &Call,
    ) -> Result<Registration, Problem> {
        let (issuer, id) = self.named(id, call)?;
        let found = self.store.agent(&issuer, &id).await?;
        let object = match &found {
            Some(found) => object::agent(&found.agent, tenants),
            None => object::all("agent"),
        };
        call.caller.must_administer(&object)?;
        found.ok_or_else(Problem::not_found)
    }

    async fn agent_answer(&self, call: &Call, committed: Committed<Registration>) -> Result<Answer, Problem> {
        self.recorded(committed.position).await?;
        Ok(Answer::ok(self.shown_agent(&committed.value, call)).replayed(committed.replayed))
    }

    /// The agent that a path means: this authority's, unless the query names another issuer.
    fn named(&self, id: &str, call: &Call) -> Result<(String, Id<Principal>), Problem> {
        call.query.only(&["issuer"])?;
        let issuer = call.query.value("issuer").unwrap_or(&self.settings.issuer).to_owned();
        Ok((issuer, Id::new(id).map_err(|_| Problem::not_found())?))
    }

    pub(super) fn known_tenants(&self, tenants: &BTreeSet<Id<Tenant>>) -> Result<(), Problem> {
        match tenants.iter().find(|tenant| !self.tenants.contains(*tenant)) {
            None if tenants.is_empty() => Err(Problem::invalid("`tenants` has to name at least one")),
            None => Ok(()),
            Some(unknown) => Err(Problem::invalid(format!("no issuer here speaks for the tenant {unknown}"))),
        }
    }

    fn shown_agent(&self, found: &Registration, call: &Call) -> Value {
        let Registration { agent, description, credentials, registered, last_seen, .. } = found;
        let mut shown = json!({
            "id": agent.id,
            "issuer": agent.issuer,
            "owner": agent.owner,
            "description": description,
            "actions": agent.actions,
            "tenants": agent.tenants,
            "status": agent.status,
            "registered_at": registered,
            "last_seen_at": last_seen,
        });
        if call.caller.administers(&object::agent(agent, None))
            && let Some(members) = shown.as_object_mut()
        {
            let max_age = self.settings.management.as_ref().map(|it| it.credential_max_age);
            let credentials: Vec<_> =
                credentials.iter().map(|credential| shown_credential(credential, max_age, call.now)).collect();
            let overdue = credentials.iter().filter(|it| it["overdue"] == true).count();
            members.insert("credentials".to_owned(), credentials.into());
            members.insert("credentials_overdue".to_owned(), overdue.into());
        }
        shown
    }
}

fn is_good(credential: &Credential, now: Timestamp) -> bool {
    credential.retires.is_none_or(|retires| now < retires)
}

fn shown_credential(credential: &Credential, max_age: Option<std::time::Duration>, now: Timestamp) -> Value {
    let (kind, keys) = match &credential.is {
        CredentialKind::Jwks(jwks) => ("jwks", Some(kids(jwks))),
        CredentialKind::JwksFile(_) => ("jwks_file", None),
        CredentialKind::Spiffe(id) => ("spiffe", Some(vec![id.clone()])),
        CredentialKind::Subject(name) => ("subject", Some(vec![name.clone()])),
    };
    let age = now.duration_since(credential.added).max(SignedDuration::ZERO);
    let overdue = max_age.is_some_and(|max_age| ages::overdue(credential, max_age, now));
    json!({
        "id": credential.id,
        "kind": kind,
        "names": keys,
        "added_at": credential.added,
        "age_seconds": age.as_secs(),
        "retires_at": credential.retires,
        "overdue": overdue,
    })
}

fn kids(jwks: &Value) -> Vec<String> {
    let keys = jwks.get("keys").and_then(Value::as_array);
    let kid = |key: &Value| key.get("kid").and_then(Value::as_str).map(str::to_owned);
    keys.into_iter().flatten().filter_map(kid).collect()
}

/// What the body may be.
pub(super) fn registering_schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<Registering>()
}

/// What the body may be.
pub(super) fn changing_schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<ChangingAgent>()
}

/// What the body may be.
pub(super) fn rotating_schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<Rotating>()
}
