//! `/v1/sidecars`: an administrator makes a token that one sidecar may join by, once (`enrol`); sidecars are listed, and
//! removed.

use std::collections::BTreeSet;

use model::{Id, Principal, Tenant, Tool, duration::ConfigDuration};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};
use store::{NewJoinToken, Outage, Serves, Sidecar, SidecarStatus};

use super::{
    Answer, Call,
    body::text,
    object,
    page::{answer, page},
    problem::Problem,
};
use crate::Authority;

/// The longest that a join token may be good.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 3600);

/// A join token to be made.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Invitation {
    #[serde(default)]
    name: Option<String>,
    tenants: BTreeSet<Id<Tenant>>,
    #[serde(default)]
    tools: Option<BTreeSet<Id<Tool>>>,
    #[serde(default)]
    agents: Option<BTreeSet<Id<Principal>>>,
    #[serde(default = "one_hour")]
    expires_in: ConfigDuration,
}

/// Why something is done, for the record.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reason {
    pub(super) reason: String,
}

const fn one_hour() -> ConfigDuration {
    ConfigDuration::seconds(3600)
}

impl Authority {
    /// Makes a join token, shown this once.
    pub(super) async fn invite(&self, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&[])?;
        let Invitation { name, tenants, tools, agents, expires_in } = call.read()?;
        let serves = Serves { tenants, tools, agents };
        call.caller.must_administer(&object::sidecar(None, &serves))?;
        call.caller.must_be_fresh(call.now)?;
        if expires_in.0 > LONGEST {
            return Err(Problem::invalid("`expires_in` may be 7d at most"));
        }
        self.known_tenants(&serves.tenants)?;
        let expires = call.now.checked_add(expires_in.0).unwrap_or(call.now);
        let new = NewJoinToken { name, serves, expires };
        let committed = self.store.create_join_token(&call.writer(None), new).await?;
        self.recorded(committed.position).await?;
        let store::MadeJoinToken { token, secret } = &committed.value;
        let body = json!({
            "id": token.id, "name": token.name, "serves": token.serves, "expires_at": token.expires,
            // An answer that is given again has none: nobody knows it any more.
            "token": secret.as_ref().map(|secret| secret.expose_secret()),
        });
        Ok(Answer::created(body).replayed(committed.replayed))
    }

    /// The sidecars, the oldest first.
    pub(super) async fn sidecars(&self, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&["status", "limit", "cursor"])?;
        call.caller.must_administer(&object::all("sidecar"))?;
        let status = match call.query.value("status") {
            None => None,
            Some("enrolled") => Some(SidecarStatus::Enrolled),
            Some("removed") => Some(SidecarStatus::Removed),
            Some(_) => return Err(Problem::invalid("`status` has to be `enrolled` or `removed`")),
        };
        let listed = self.store.sidecars(status, page(&call.query)?).await?;
        let outages = self.store.outages().await?;
        let shown = |sidecar: &Sidecar| shown(sidecar, outages.iter().find(|outage| outage.sidecar == sidecar.id));
        Ok(Answer::ok(answer("sidecars", &listed, shown)))
    }

    /// One sidecar.
    pub(super) async fn show_sidecar(&self, id: &str, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&[])?;
        let sidecar = self.managed_sidecar(id, call).await?;
        let outage = match sidecar.status {
            SidecarStatus::Enrolled => self.store.outage(&sidecar.id).await?,
            SidecarStatus::Removed => None,
        };
        Ok(Answer::ok(shown(&sidecar, outage.as_ref())))
    }

    /// Removes a sidecar: it may follow, ask and sign no more.
    pub(super) async fn remove_sidecar(&self, id: &str, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&[])?;
        let sidecar = self.managed_sidecar(id, call).await?;
        let Reason { reason } = call.read()?;
        let writer = call.writer(Some(text("reason", &reason)?));
        let committed = self.store.remove_sidecar(&writer, &sidecar.id).await?;
        self.recorded(committed.position).await?;
        Ok(Answer::ok(shown(&committed.value, None)).replayed(committed.replayed))
    }

    /// The sidecar called `id`, for whoever administers it. Others are not told whether there is one.
    async fn managed_sidecar(&self, id: &str, call: &Call) -> Result<Sidecar, Problem> {
        let sidecar = self.store.sidecar(&sidecar_id(id)?).await?;
        let object = match &sidecar {
            Some(sidecar) => object::sidecar(Some(id), &sidecar.serves),
            None => object::all("sidecar"),
        };
        call.caller.must_administer(&object)?;
        sidecar.ok_or_else(Problem::not_found)
    }
}

fn sidecar_id(id: &str) -> Result<Id<Sidecar>, Problem> {
    Id::new(id).map_err(|_| Problem::not_found())
}

fn shown(sidecar: &Sidecar, outage: Option<&Outage>) -> Value {
    let keys: Vec<_> = sidecar
        .keys
        .iter()
        .map(|key| json!({ "kid": key.id, "added_at": key.added, "retires_at": key.retires }))
        .collect();
    json!({
        "id": sidecar.id,
        "name": sidecar.name,
        "status": sidecar.status,
        "tenants": sidecar.serves.tenants,
        "tools": sidecar.serves.tools,
        "agents": sidecar.serves.agents,
        "keys": keys,
        "enrolled_at": sidecar.enrolled,
        "enrolled_by": sidecar.enrolled_by,
        // By its own word; absent where it can write.
        "ledger_unavailable_since": outage.map(|outage| outage.since),
        "ledger_unavailable_why": outage.map(|outage| &outage.why),
    })
}

/// What the body may be.
pub(super) fn invitation_schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<Invitation>()
}

/// What the body may be.
pub(super) fn reason_schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<Reason>()
}
