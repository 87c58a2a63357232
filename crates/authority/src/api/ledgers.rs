//! `/v1/ledgers`: the ledgers of enrolled sidecars as the authority knows them, and what it has of their copies, byte for
//! byte, for whoever verifies one elsewhere.

use std::collections::BTreeSet;

use audit::ship::pieces::Copied;
use model::{Id, Tenant};
use serde_json::{Value, json};
use store::{KnownLedger, Listed, Page};

use super::{
    Answer, Call, object,
    page::{answer, page},
    problem::Problem,
    records::unreadable,
    shipped::blocking,
};
use crate::Authority;

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
        let _room = self.searching()?;
        let (shelf, name) = (self.shelf.clone(), name.to_owned());
        let found = blocking(move || shelf.piece(ledger.id.as_str(), &name, from)).await?;
        let piece = found.map_err(|error| unreadable(&error))?.ok_or_else(Problem::not_found)?;
        Ok(Answer::ok(serde_json::to_value(&piece).unwrap_or_default()))
    }

    /// The ledger called `id`, of which the caller may read everything: its files hold what is every tenant's, and what is
    /// nobody's.
    async fn copied_ledger(&self, id: &str, call: &Call) -> Result<KnownLedger, Problem> {
        match self.readable_ledger(id, call).await? {
            (ledger, None) => Ok(ledger),
            (_, Some(_)) => Err(Problem::forbidden("Only who may read every tenant's records may read the files.")),
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
