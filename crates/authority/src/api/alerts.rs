//! `/v1/alerts` for enrolled sidecars: what they are alarmed by, so far as the authority acts on it by rule, or they
//! cannot put it on record themselves.

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use jiff::Timestamp;
use model::{AgentStatus, Id, Principal, Tenant, id::DecisionMark};
use net::{Body, BoxError};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde_json::json;
use store::{AgentChange, Outage, Sidecar, Writer};

use super::{
    body,
    problem::{Code, Problem},
    read,
};
use crate::{Authority, config::SuspendOn, refused::json_response};

/// Of a sidecar that cannot write its ledger.
const LEDGER_UNAVAILABLE: &str = "ledger_unavailable";
/// The most characters of why that is.
const MAX_WHY: usize = 400;
/// How often one sidecar may say so in a second, over a while: each outage that is new is put on record.
pub(super) const OUTAGES_PER_SECOND: u32 = 1;

/// An alert, as a sidecar's record has it. What else it says is for people.
#[derive(Debug, Deserialize, JsonSchema)]
struct Told {
    /// What it is: `used_after_end`, or `ledger_unavailable`.
    alert: String,
    /// The call that raised it; of `ledger_unavailable` there is none.
    #[serde(default)]
    call: Option<Id<DecisionMark>>,
    /// Whether whoever used the token proved to be whom it was given to.
    #[serde(default)]
    proved: bool,
    /// The agent that the token names.
    #[serde(default)]
    agent: Option<Principal>,
    /// The tenant that it names.
    #[serde(default)]
    tenant: Option<Id<Tenant>>,
    /// Of `ledger_unavailable`: the ledger's id.
    #[serde(default)]
    ledger: Option<String>,
    /// Of `ledger_unavailable`: since when.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    since: Option<Timestamp>,
    /// Of `ledger_unavailable`: why.
    #[serde(default)]
    why: Option<String>,
    /// Of `ledger_unavailable`: whether it is over. Whoever starts says so too.
    #[serde(default)]
    over: bool,
    /// Of `ledger_unavailable`: whether it kept the sidecar from starting. It does not know whether it said so before.
    #[serde(default)]
    starting: bool,
}

impl Authority {
    /// Takes notice of an alert: suspends the agent where a rule says so, puts on record what the sidecar cannot.
    pub(super) async fn alarmed<B>(&self, headers: &HeaderMap, body: B) -> Result<Response<Body>, Problem>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let teller = self.teller(headers).await?;
        let told: Told = body::parse(&read(headers, body).await?)?;
        if told.alert == LEDGER_UNAVAILABLE {
            let quota = self.api.outages.take(teller.sidecar.id.clone(), teller.now);
            let often = || Problem::new(Code::TooMany, "Your ledger comes and goes too often.");
            quota.map_err(|seconds| often().after(seconds))?;
            match told.outage(&teller.sidecar)? {
                Some(outage) => self.ledger_fails(&teller.sidecar, outage, told.starting).await?,
                None => self.ledger_works(&teller.sidecar).await?,
            }
            return Ok(json_response(StatusCode::OK, &json!({ "suspended": false })));
        }
        if told.call.is_none() {
            return Err(Problem::invalid("`call` is missing"));
        }
        let suspended = match told.ruled(&self.settings.suspend) {
            true => self.suspend_by_rule(&teller.sidecar, &told, teller.now).await?,
            false => false,
        };
        Ok(json_response(StatusCode::OK, &json!({ "suspended": suspended })))
    }

    /// Whether the agent is suspended by this. What the sidecar does not serve it has nothing to say of.
    async fn suspend_by_rule(&self, sidecar: &Sidecar, told: &Told, now: Timestamp) -> Result<bool, Problem> {
        let (Some(agent), Some(tenant), Some(call)) = (&told.agent, &told.tenant, &told.call) else {
            return Ok(false);
        };
        let served = sidecar.serves.tenants.contains(tenant)
            && sidecar.serves.agents.as_ref().is_none_or(|served| served.contains(&agent.id));
        let Some(found) = self.store.agent(&agent.issuer, &agent.id).await?.filter(|_| served) else {
            return Ok(false);
        };
        if found.agent.status != AgentStatus::Active || !found.agent.tenants.contains(tenant) {
            return Ok(false);
        }
        let writer = Writer {
            by: format!("sidecar:{}", sidecar.id),
            reason: Some(format!("by rule: {}, call {}", told.alert, call)),
            now,
            // Told twice, it is one suspension: whoever lifted it meanwhile is not overruled by the same call.
            idempotency: Some(format!("{}:{}", told.alert, call)),
        };
        let change = AgentChange { status: Some(AgentStatus::Suspended), ..AgentChange::default() };
        let committed = self.store.change_agent(&writer, &agent.issuer, &agent.id, change).await?;
        self.recorded(committed.position).await?;
        tracing::warn!(agent = %agent.id, alert = told.alert, "an agent is suspended by rule");
        Ok(!committed.replayed)
    }
}

impl Told {
    /// The outage that it says goes on; `None` where it is over.
    fn outage(&self, sidecar: &Sidecar) -> Result<Option<Outage>, Problem> {
        if self.over {
            return Ok(None);
        }
        let (Some(ledger), Some(since)) = (&self.ledger, self.since) else {
            return Err(Problem::invalid("`ledger` and `since` say which ledger it is, and since when"));
        };
        let ledger = Id::<Outage>::new(ledger).map_err(|_| Problem::invalid("`ledger` is no id"))?;
        // Another's words: on one line, and not too many.
        let why = self.why.as_deref().unwrap_or_default().chars().filter(|c| !c.is_control()).take(MAX_WHY).collect();
        let (sidecar, ledger) = (sidecar.id.clone(), ledger.to_string());
        Ok(Some(Outage { sidecar, ledger, since, why, recorded: false }))
    }

    /// Whether a rule suspends for it: only where it is shown that it was the agent itself.
    fn ruled(&self, rules: &std::collections::BTreeSet<SuspendOn>) -> bool {
        self.proved && rules.iter().any(|rule| rule.as_str() == self.alert)
    }
}

/// What the body may be.
pub(super) fn schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<Told>()
}
