//! `/v1/ledgers`: the ledgers of enrolled sidecars as the authority knows them, for whoever verifies one.

use model::Id;
use serde_json::{Value, json};
use store::KnownLedger;

use super::{
    Answer, Call, object,
    page::{answer, page},
    problem::Problem,
};
use crate::Authority;

impl Authority {
    /// The ledgers, the oldest first.
    pub(super) async fn ledgers(&self, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&["limit", "cursor"])?;
        call.caller.must_administer(&object::all("ledger"))?;
        let listed = self.store.ledgers(page(&call.query)?).await?;
        Ok(Answer::ok(answer("ledgers", &listed, shown)))
    }

    /// One ledger, with the heads of it that are anchored here, the newest last.
    pub(super) async fn show_ledger(&self, id: &str, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&[])?;
        call.caller.must_administer(&object::all("ledger"))?;
        let id = Id::new(id).map_err(|_| Problem::not_found())?;
        let ledger = self.store.ledger(&id).await?.ok_or_else(Problem::not_found)?;
        let mut body = shown(&ledger);
        if let Some(members) = body.as_object_mut() {
            members.insert("heads".to_owned(), json!(self.store.ledger_heads(&id).await?));
        }
        Ok(Answer::ok(body))
    }
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
