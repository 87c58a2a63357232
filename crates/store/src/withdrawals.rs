//! Withdrawals: made by people and rules, listed, followed by sidecars through the change log.

use jiff::Timestamp;
use model::{
    Id, Tenant,
    withdrawal::{Cause, Target, Withdrawal},
};

use crate::{
    Store,
    engine::{Row, Value},
    error::StoreError,
    page::{Listed, Page, Select},
    writing::{Begun, Committed, Writer, Writing},
};

/// Which withdrawals to list.
#[derive(Debug, Clone, Default)]
pub struct WithdrawalFilter {
    /// Only of this target.
    pub target: Option<Target>,
    /// Only of targets of this kind: `task`, `user` …
    pub kind: Option<String>,
    /// Only those that still cover something at this moment.
    pub in_force: Option<Timestamp>,
}

impl Store {
    /// Withdraws `target`: every delegation that passes through it and was issued before is refused from now on.
    /// What is registered here ends with it, so that nothing is issued anew without anybody's doing: the task; the
    /// tasks of a run, a session, a user or a tenant; a grant with its tasks; an agent is suspended.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn withdraw(&self, writer: &Writer, target: Target) -> Result<Committed<Withdrawal>, StoreError> {
        let mut writing = match self.write("withdrawing", writer, &target).await? {
            Begun::Answered(answer) => return Ok(answer),
            Begun::Open(writing) => writing,
        };
        let tenant = writing.only_tenant(&target).await?;
        writing.end(&target).await?;
        let withdrawal = writing.withdraw(target, Cause::Withdrawn, tenant.as_ref()).await?;
        writing.commit(withdrawal).await
    }

    /// The withdrawal called `id`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn withdrawal(&self, id: &Id<Withdrawal>) -> Result<Option<Withdrawal>, StoreError> {
        let sql = "SELECT created, body FROM withdrawals WHERE id = $1";
        let rows = self.engine.rows("reading a withdrawal", sql, vec![id.into()]).await?;
        rows.first().map(read).transpose()
    }

    /// Withdrawals, the oldest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn withdrawals(&self, filter: &WithdrawalFilter, page: Page) -> Result<Listed<Withdrawal>, StoreError> {
        Select::new("created, body", "withdrawals", page)
            .only("target = $$", filter.target.as_ref().map(ToString::to_string))
            .only("kind = $$", filter.kind.clone())
            .only("until >= $$", filter.in_force)
            .page(&self.engine, "listing withdrawals", page, read)
            .await
    }
}

impl Writing<'_> {
    /// Ends what is registered of `target`.
    pub(crate) async fn end(&mut self, target: &Target) -> Result<(), StoreError> {
        match target {
            Target::Task { id } => self.end_tasks("id = $2", vec![id.into()]).await?,
            Target::Run { id } => self.end_tasks("run = $2", vec![id.into()]).await?,
            Target::Tenant { id } => self.end_tasks("tenant = $2", vec![id.into()]).await?,
            Target::User { issuer, id } => {
                let of = "grant_id IN (SELECT id FROM grants WHERE user_issuer = $2 AND user_id = $3)";
                self.end_tasks(of, vec![issuer.as_str().into(), id.into()]).await?
            }
            Target::Session { issuer, sid } => {
                let of = "session = $2 AND grant_id IN (SELECT id FROM grants WHERE user_issuer = $3)";
                self.end_tasks(of, vec![sid.as_str().into(), issuer.as_str().into()]).await?
            }
            Target::Grant { id } => {
                self.end_tasks("grant_id = $2", vec![id.into()]).await?;
                let sql = "UPDATE grants SET status = 'withdrawn', changed = $1 WHERE id = $2";
                self.execute(sql, vec![Value::position(self.next()), id.into()]).await?
            }
            Target::Agent { issuer, id } => {
                let sql = "UPDATE agents SET status = 'suspended', changed = $1 \
                           WHERE issuer = $2 AND id = $3 AND status = 'active'";
                self.execute(sql, vec![Value::position(self.next()), issuer.as_str().into(), id.into()]).await?
            }
            Target::Instance { .. } | Target::Token { .. } => 0,
        };
        Ok(())
    }

    /// The one tenant that `target` concerns, where that is known for sure: sidecars of others need not hear of it.
    pub(crate) async fn only_tenant(&mut self, target: &Target) -> Result<Option<Id<Tenant>>, StoreError> {
        let (sql, id): (_, Value) = match target {
            Target::Tenant { id } => return Ok(Some(id.clone())),
            // A run never crosses tenants.
            Target::Run { id } => ("SELECT tenant FROM tasks WHERE run = $1 LIMIT 1", id.into()),
            Target::Task { id } => ("SELECT tenant FROM tasks WHERE id = $1", id.into()),
            Target::User { .. }
            | Target::Session { .. }
            | Target::Agent { .. }
            | Target::Instance { .. }
            | Target::Grant { .. }
            | Target::Token { .. } => return Ok(None),
        };
        let rows = self.rows(sql, vec![id]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Id::new(&row.text(0)?).map(Some).map_err(StoreError::unreadable)
    }
}

pub(crate) fn read(row: &Row) -> Result<Withdrawal, StoreError> {
    row.json(1)
}
