//! `/v1/pins`: bundles of policy that stay at one of their revisions, at every sidecar or at those of one tenant. An
//! earlier revision may allow what a later one refused, and the reverse: pinning and taking back need a fresh login.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use model::{Id, Tenant};
use policy::bundle::{is_revision, is_source};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde_json::Value;
use store::{NewPin, Pin, Store, StoreError};

use super::{
    Answer, Call,
    body::text,
    object,
    page::{answer, page},
    problem::Problem,
    sidecars::Reason,
};
use crate::Authority;

/// A bundle to be kept at a revision.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Pinning {
    bundle: String,
    revision: String,
    #[serde(default)]
    tenant: Option<Id<Tenant>>,
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    until: Option<Timestamp>,
    reason: String,
}

impl Authority {
    /// Keeps a bundle at a revision.
    pub(super) async fn pin(&self, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&[])?;
        let Pinning { bundle, revision, tenant, until, reason } = call.read()?;
        call.caller.must_administer(&object::pin(&bundle, tenant.as_ref(), &self.tenants))?;
        call.caller.must_be_fresh(call.now)?;
        if !is_source(&bundle) {
            return Err(Problem::invalid("`bundle` has to be `org` or the name of a team"));
        }
        if revision.is_empty() || !is_revision(&revision) {
            return Err(Problem::invalid("`revision` has to be what the bundle's manifest calls it"));
        }
        if let Some(tenant) = &tenant {
            self.known_tenants(&[tenant.clone()].into())?;
        }
        if until.is_some_and(|until| until <= call.now) {
            return Err(Problem::invalid("`until` is over"));
        }
        let writer = call.writer(Some(text("reason", &reason)?));
        let committed = self.store.pin(&writer, NewPin { bundle, revision, tenant, until }).await?;
        self.recorded(committed.position).await?;
        Ok(Answer::created(shown(&committed.value)).replayed(committed.replayed))
    }

    /// The pins that hold, the oldest first.
    pub(super) async fn pins(&self, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&["bundle", "limit", "cursor"])?;
        call.caller.must_administer(&object::pins(&self.tenants))?;
        let listed = self.store.pins(call.query.value("bundle"), call.now, page(&call.query)?).await?;
        Ok(Answer::ok(answer("pins", &listed, shown)))
    }

    /// Takes a pin back. Whether there is one is not told to others.
    pub(super) async fn unpin(&self, id: &str, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&[])?;
        let id: Id<Pin> = Id::new(id).map_err(|_| Problem::not_found())?;
        let object = match self.store.pinned(&id).await? {
            Some(pin) => object::pin(&pin.bundle, pin.tenant.as_ref(), &self.tenants),
            None => object::pins(&self.tenants),
        };
        call.caller.must_administer(&object)?;
        call.caller.must_be_fresh(call.now)?;
        let Reason { reason } = call.read()?;
        let committed = self.store.unpin(&call.writer(Some(text("reason", &reason)?)), &id).await?;
        self.recorded(committed.position).await?;
        Ok(Answer::ok(shown(&committed.value)).replayed(committed.replayed))
    }
}

/// Every pin, as read after some head of the change log: asked for by each sidecar's question, and read once a change.
#[derive(Debug, Default)]
pub(super) struct View(Mutex<Option<Read>>);

#[derive(Debug)]
struct Read {
    generation: String,
    head: u64,
    pins: Arc<[Pin]>,
}

impl View {
    /// The pins as of `head` of `generation`, or later.
    pub(super) async fn of(
        &self,
        store: &Store,
        (generation, head): (&str, u64),
        now: Timestamp,
    ) -> Result<Arc<[Pin]>, StoreError> {
        let last = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(read) = last().as_ref().filter(|read| read.generation == generation && read.head >= head) {
            return Ok(Arc::clone(&read.pins));
        }
        let pins: Arc<[Pin]> = store.all_pins(now).await?.into();
        let mut last = last();
        // Somebody who asked later may have read by now.
        if last.as_ref().is_none_or(|read| read.generation != generation || read.head < head) {
            *last = Some(Read { generation: generation.to_owned(), head, pins: Arc::clone(&pins) });
        }
        Ok(pins)
    }
}

fn shown(pin: &Pin) -> Value {
    serde_json::to_value(pin).unwrap_or_default()
}

/// What the body may be.
pub(super) fn pinning_schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<Pinning>()
}
