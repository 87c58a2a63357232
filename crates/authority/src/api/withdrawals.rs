//! `/v1/withdrawals`: the button that ends it everywhere, and the list of what was ended.

use model::{Id, Principal, Target, Withdrawal, id::Run};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{MAX_PAGE, Page, TaskFilter, WithdrawalFilter};

use super::{
    Answer, Call,
    body::text,
    caller::Caller,
    object,
    page::{answer, page},
    problem::Problem,
};
use crate::Authority;

/// What to take back.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewWithdrawal {
    target: WrittenTarget,
    reason: String,
}

/// A target as an object (`{"kind": "task", "id": …}`) or as people write it (`task:ticket-12847`).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum WrittenTarget {
    Text(String),
    Object(Target),
}

impl Authority {
    /// Takes something back.
    pub(super) async fn withdraw(&self, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&[])?;
        let NewWithdrawal { target, reason } = call.read()?;
        let target = match target {
            WrittenTarget::Object(target) => target,
            WrittenTarget::Text(text) => self.target(&text, &call.caller)?,
        };
        let reason = text("reason", &reason)?;
        self.may_withdraw(&call.caller, &target).await?;
        let committed = self.store.withdraw(&call.writer(Some(reason)), target).await?;
        self.recorded(committed.position).await?;
        Ok(Answer::created(shown(&committed.value)).replayed(committed.replayed))
    }

    /// What was taken back, the oldest first.
    pub(super) async fn withdrawals(&self, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&["target", "kind", "in_force", "limit", "cursor"])?;
        let target = call.query.value("target").map(|text| self.target(text, &call.caller)).transpose()?;
        let listing = target.as_ref().map_or_else(|| object::all("withdrawal"), object::withdrawal);
        if !call.caller.administers(&listing) {
            // Of a list of everybody's, nothing could be shown; of one thing of theirs, all.
            let Some(target) = &target else {
                return Err(Problem::forbidden(
                    "Name what is yours by `target`: only an administrator sees all of it.",
                ));
            };
            self.may_withdraw(&call.caller, target).await?;
        }
        let in_force = match call.query.value("in_force") {
            None | Some("false") => None,
            Some("true") => Some(call.now),
            Some(_) => return Err(Problem::invalid("`in_force` has to be `true` or `false`")),
        };
        let filter = WithdrawalFilter { target, kind: call.query.value("kind").map(str::to_owned), in_force };
        let listed = self.store.withdrawals(&filter, page(&call.query)?).await?;
        Ok(Answer::ok(answer("withdrawals", &listed, shown)))
    }

    /// What people write, with the issuer that they mean where they name none: users and sessions are of the
    /// caller's own, agents and tokens of this authority.
    fn target(&self, text: &str, caller: &Caller) -> Result<Target, Problem> {
        let issuer = match text.split_once(':') {
            Some(("user" | "session", _)) => &caller.user.issuer,
            _ => &self.settings.issuer,
        };
        Target::read(text, Some(issuer)).map_err(|error| Problem::invalid(format!("`target`: {error}")))
    }

    /// Whether it is the caller's to take back: administrators anything, users what is done for them.
    async fn may_withdraw(&self, caller: &Caller, target: &Target) -> Result<(), Problem> {
        if caller.administers(&object::withdrawal(target)) {
            return Ok(());
        }
        let own = match target {
            Target::User { issuer, id } => *issuer == caller.user.issuer && *id == caller.user.id,
            // Whose another session is, nobody here can tell.
            Target::Session { issuer, sid } => *issuer == caller.user.issuer && caller.session.as_ref() == Some(sid),
            Target::Grant { id } => return self.own_grant(id.as_str(), caller).await.map(drop),
            Target::Task { id } => return self.own_task(id.as_str(), caller).await.map(drop),
            Target::Run { id } => self.owns_run(&caller.user, id).await?,
            Target::Agent { .. } | Target::Instance { .. } | Target::Token { .. } | Target::Tenant { .. } => {
                return Err(Problem::forbidden("Only an administrator takes back what is not one user's alone."));
            }
        };
        if own { Ok(()) } else { Err(Problem::not_found()) }
    }

    /// Whether every task of the run is the user's, and there is one.
    async fn owns_run(&self, user: &Principal, id: &Id<Run>) -> Result<bool, Problem> {
        let all = TaskFilter { run: Some(id.clone()), ..TaskFilter::default() };
        let own = TaskFilter { user: Some((user.issuer.clone(), user.id.clone())), ..all.clone() };
        let page = Page { after: 0, limit: MAX_PAGE };
        let (all, own) = (self.store.tasks(&all, page).await?, self.store.tasks(&own, page).await?);
        // A run with more tasks than a page has is for an administrator to end.
        Ok(!own.items.is_empty() && all.next.is_none() && own.items.len() == all.items.len())
    }
}

/// A withdrawal as it is answered: with its target as people write it too.
fn shown(withdrawal: &Withdrawal) -> Value {
    let mut shown = serde_json::to_value(withdrawal).unwrap_or_default();
    if let Some(members) = shown.as_object_mut() {
        members.insert("name".to_owned(), json!(withdrawal.target.to_string()));
    }
    shown
}

/// What the body may be.
pub(super) fn schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<NewWithdrawal>()
}
