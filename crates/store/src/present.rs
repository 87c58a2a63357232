//! The work that an agent does for a user who is there: the grant that counts, and the task that goes on in their
//! session, for whoever knows only user and agent.

use model::{Grant, Id, Principal, Task, Tenant};

use crate::{
    Store,
    error::StoreError,
    grants::{self, GrantRecord},
    tasks,
};

impl Store {
    /// The grant that `user` gave `agent` last, of those that were not withdrawn. It may have expired.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn last_grant(&self, user: &Principal, agent: &Principal) -> Result<Option<GrantRecord>, StoreError> {
        let sql = format!(
            "SELECT {} FROM grants WHERE user_issuer = $1 AND user_id = $2 AND agent_issuer = $3 AND agent_id = $4 \
             AND status = 'active' ORDER BY created DESC LIMIT 1",
            grants::COLUMNS
        );
        let values =
            vec![user.issuer.as_str().into(), (&user.id).into(), agent.issuer.as_str().into(), (&agent.id).into()];
        let rows = self.engine.rows("reading the last grant", sql, values).await?;
        rows.first().map(|row| grants::read(row, 0)).transpose()
    }

    /// The task that was started last under `grant` for its user in `session`, in whatever status it is: none of those
    /// that go on without them.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn last_present(
        &self,
        grant: &Id<Grant>,
        tenant: &Id<Tenant>,
        session: Option<&str>,
    ) -> Result<Option<Task>, StoreError> {
        let mut values = vec![grant.into(), tenant.into()];
        let bound = match session {
            Some(session) => {
                values.push(session.into());
                "session = $3"
            }
            None => "session IS NULL",
        };
        let sql = format!(
            "SELECT {} FROM tasks WHERE grant_id = $1 AND tenant = $2 AND presence = 'present' AND {bound} \
             ORDER BY created DESC LIMIT 1",
            tasks::COLUMNS
        );
        let rows = self.engine.rows("reading the last task", sql, values).await?;
        rows.first().map(|row| tasks::read(row, 0)).transpose().map(|record| record.map(|record| record.task))
    }
}
