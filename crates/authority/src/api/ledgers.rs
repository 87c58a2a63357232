//! `/v1/ledgers`: the ledgers of enrolled sidecars as the authority knows them, and what it has of their copies, byte for
//! byte, for whoever verifies one elsewhere.

use std::collections::BTreeSet;

use audit::{
    Event, VerifyingKey,
    erasure::{Erasure, ErasureError, Person},
    ship::{Taken, pieces::Copied},
};
use model::{Id, Tenant};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{KnownLedger, Listed, Page};
use tokio::runtime::Handle;

use super::{
    Answer, Call, body, object,
    page::{answer, page},
    problem::Problem,
    records::unreadable,
    shipped::{blocking, changed, within},
};
use crate::Authority;

/// Whom to erase from the copy of a ledger, and why.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Erasing {
    /// The person's id at the issuer.
    #[schemars(length(min = 1))]
    user: String,
    /// The issuer, where the ledger knows several people of that id.
    #[serde(default)]
    issuer: Option<String>,
    /// The tenant, likewise.
    #[serde(default)]
    tenant: Option<String>,
    /// Why, on record for good: it must not name the person. Needed unless it is a dry run.
    #[serde(default)]
    reason: Option<String>,
    /// Only say what there is.
    #[serde(default)]
    dry_run: bool,
}

impl Authority {
    /// The ledgers of which the caller may read something, the oldest first.
    pub(super) async fn ledgers(&self, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&["limit", "cursor"])?;
        let mut listed = self.store.ledgers(page(&call.query)?).await?;
        listed.items.retain(|ledger| !readable(call, ledger).is_empty());
        Ok(Answer::ok(answer("ledgers", &listed, shown)))
    }

    /// One ledger, with the heads of it that are anchored here, the newest last.
    pub(super) async fn show_ledger(&self, id: &str, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&[])?;
        let (ledger, _) = self.readable_ledger(id, call).await?;
        let id = ledger.id.clone();
        let mut body = shown(&ledger);
        if let Some(members) = body.as_object_mut() {
            members.insert("heads".to_owned(), json!(self.store.ledger_heads(&id).await?));
        }
        Ok(Answer::ok(body))
    }

    /// The segments that there are of its copy.
    pub(super) async fn segments_of(&self, id: &str, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&["limit", "cursor"])?;
        let Page { after, limit } = page(&call.query)?;
        let ledger = self.copied_ledger(id, call).await?;
        let shelf = self.shelf.clone();
        let found = blocking(move || shelf.segments(ledger.id.as_str(), after, limit)).await?;
        let (items, next) = found.map_err(|error| unreadable(&error))?;
        Ok(Answer::ok(answer("segments", &Listed { items, next }, |copied: &Copied| *copied)))
    }

    /// A piece of a file of its copy.
    pub(super) async fn file_of(&self, id: &str, name: &str, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&["offset"])?;
        let from = call.query.value("offset").map_or(Ok(0), str::parse);
        let from = from.map_err(|_| Problem::invalid("`offset` has to be a number of bytes"))?;
        let ledger = self.copied_ledger(id, call).await?;
        let room = self.searching()?;
        let (shelf, name) = (self.shelf.clone(), name.to_owned());
        let found = within(room, move || shelf.piece(ledger.id.as_str(), &name, from)).await?;
        let piece = found.map_err(|error| unreadable(&error))?.ok_or_else(Problem::not_found)?;
        Ok(Answer::ok(serde_json::to_value(&piece).unwrap_or_default()))
    }

    /// Erases a person from its copy, at the caller's word: the ledger itself need not be there any more.
    pub(super) async fn erase_from(&self, id: &str, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&[])?;
        let ledger = self.copied_ledger(id, call).await?;
        let Erasing { user, issuer, tenant, reason, dry_run } = call.read()?;
        let person = Person { user, issuer, tenant };
        let key: VerifyingKey = ledger.verifying_key.parse().map_err(|_| Problem::not_found())?;
        let shelf = self.shelf.clone();
        if dry_run {
            let found = within(self.searching()?, move || shelf.look(&key, &person)).await?;
            let found = found.map_err(|error| unreadable(&error))?;
            let (sealed, unsealed) = found.records();
            return Ok(Answer::ok(json!({
                "ledger": ledger.id, "principals": found.principals, "records": sealed + unsealed,
                "mentions": found.mentions, "unclaimed": found.unclaimed,
            })));
        }
        call.caller.must_be_fresh(call.now)?;
        let (by, reason) = (call.caller.name(), body::text("reason", &reason.unwrap_or_default())?);
        let erasure = Erasure::new(person, &by, &reason).map_err(|error| not_erased(&error))?;
        let room = self.searching()?;
        let (own, runtime) = (self.ledger.clone(), Handle::current());
        let erase = move || {
            shelf.erase(&key, &erasure, |taken| {
                let changed = changed(taken.clone(), &by, Some(reason.clone()));
                runtime.block_on(own.event(Event::CopyChanged(Box::new(changed))))
            })
        };
        let erased = within(room, erase).await?.map_err(|error| not_erased(&error))?;
        let shown = |taken: &Taken| json!({ "segment": taken.segment, "records": taken.records });
        let records: u64 = erased.iter().map(|taken| taken.records).sum();
        let segments: Vec<_> = erased.iter().rev().map(shown).collect();
        Ok(Answer::ok(json!({ "ledger": ledger.id, "records": records, "segments": segments })))
    }

    /// The ledger called `id`, of which the caller may do this with everything: its files hold what is every tenant's, and
    /// what is nobody's.
    async fn copied_ledger(&self, id: &str, call: &Call) -> Result<KnownLedger, Problem> {
        match self.readable_ledger(id, call).await? {
            (ledger, None) => Ok(ledger),
            (_, Some(_)) => {
                Err(Problem::forbidden("This takes in what is every tenant's, and you may only some of it."))
            }
        }
    }
}

impl Authority {
    /// The ledger called `id`, and the tenants whose records in it the caller may read, all of them or at least one.
    pub(super) async fn readable_ledger(
        &self,
        id: &str,
        call: &Call,
    ) -> Result<(KnownLedger, Option<BTreeSet<String>>), Problem> {
        let id = Id::new(id).map_err(|_| Problem::not_found())?;
        let ledger = self.store.ledger(&id).await?.ok_or_else(Problem::not_found)?;
        let readable = readable(call, &ledger);
        if readable.is_empty() {
            return Err(Problem::not_found());
        }
        let some = (readable.len() < ledger.tenants.len()).then_some(readable);
        Ok((ledger, some))
    }
}

fn readable(call: &Call, ledger: &KnownLedger) -> BTreeSet<String> {
    let may = |tenant: &&Id<Tenant>| call.caller.administers(&object::ledger(&ledger.id, tenant));
    ledger.tenants.iter().filter(may).map(ToString::to_string).collect()
}

fn shown(ledger: &KnownLedger) -> Value {
    json!({
        "id": ledger.id,
        "sidecar": ledger.sidecar,
        "tenants": ledger.tenants,
        "verifying_key": ledger.verifying_key,
        "enrolled_at": ledger.enrolled,
        "size": ledger.head.as_ref().map(|head| head.size),
        "anchored_at": ledger.head.as_ref().map(|head| head.at),
    })
}

fn not_erased(error: &ErasureError) -> Problem {
    match error {
        ErasureError::Ledger(error) => unreadable(error),
        ErasureError::Ambiguous(_) | ErasureError::NamesThePerson(_) | ErasureError::Missing(_) => {
            Problem::invalid(error.to_string())
        }
    }
}

/// What the body of an erasure may be.
pub(super) fn erasing_schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<Erasing>()
}
