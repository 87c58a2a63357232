//! What a file declares becomes part of the state: once, when it is new or was changed in the file. What was done
//! here since then stays: nothing that ended is made good again, and nothing goes because the file is silent of it.

use model::{AgentStatus, Task, registry::TaskStatus};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Store,
    agents::{NewAgent, Registration},
    engine::Value,
    error::StoreError,
    file::{Declarations, DeclaredGrant},
    grants::{GrantRecord, GrantStatus},
    tasks::TaskRecord,
    writing::{Begun, Committed, Writer, Writing},
};

impl Store {
    /// Applies `declarations`, all of them or none. The value is how many were new or changed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn declare(&self, writer: &Writer, declarations: &Declarations) -> Result<Committed<u64>, StoreError> {
        let mut writing = match self.write::<u64>("applying declarations", writer, &()).await? {
            Begun::Answered(answer) => return Ok(answer),
            Begun::Open(writing) => writing,
        };
        let mut applied = 0;
        for agent in &declarations.agents {
            applied += u64::from(writing.declare_agent(agent).await?);
        }
        for grant in &declarations.grants {
            applied += u64::from(writing.declare_grant(grant).await?);
        }
        for task in &declarations.tasks {
            applied += u64::from(writing.declare_task(task).await?);
        }
        writing.commit(applied).await
    }
}

/// How a declaration stands to what was declared under its name before.
enum Declared<T> {
    /// It says the same.
    Same,
    /// It is new, or says something else than before.
    Other(Option<T>),
}

impl Writing<'_> {
    async fn declare_agent(&mut self, new: &NewAgent) -> Result<bool, StoreError> {
        let (issuer, id) = (&new.agent.issuer, &new.agent.id);
        let Declared::Other(last) = self.declared::<NewAgent>("agent", &format!("{issuer}#{id}"), new).await? else {
            return Ok(false);
        };
        let mut after = new.clone().registration(self.writer.now)?;
        let before = self.agent(issuer, id).await?;
        if let Some(before) = &before {
            if before.agent.status == AgentStatus::Decommissioned {
                tracing::warn!(agent = %id, "declared, but decommissioned: it stays so");
                return Ok(false);
            }
            after.stay(before, last.map(|last| last.agent.status));
        }
        self.put_agent(before.as_ref(), &after).await?;
        Ok(true)
    }

    async fn declare_grant(&mut self, new: &DeclaredGrant) -> Result<bool, StoreError> {
        let id = &new.grant.id;
        let Declared::Other(_) = self.declared::<DeclaredGrant>("grant", id.as_str(), new).await? else {
            return Ok(false);
        };
        let before = self.grant(id).await?;
        if before.as_ref().is_some_and(|before| before.status == GrantStatus::Withdrawn) {
            tracing::warn!(grant = %id, "declared, but withdrawn: it stays so");
            return Ok(false);
        }
        let (given, given_by) = match &before {
            Some(before) => (before.given, before.given_by.clone()),
            None => (self.writer.now, self.writer.by.clone()),
        };
        let DeclaredGrant { grant, presence } = new.clone();
        let after = GrantRecord { grant, presence, status: GrantStatus::Active, given, given_by };
        self.put_grant(before.as_ref(), &after).await?;
        Ok(true)
    }

    async fn declare_task(&mut self, new: &Task) -> Result<bool, StoreError> {
        let Declared::Other(_) = self.declared::<Task>("task", new.id.as_str(), new).await? else { return Ok(false) };
        let before = self.task(&new.id).await?;
        if before.as_ref().is_some_and(|before| before.task.status != TaskStatus::Active) {
            tracing::warn!(task = %new.id, "declared, but ended: it stays so");
            return Ok(false);
        }
        let after = TaskRecord {
            task: new.clone(),
            justification: before.as_ref().and_then(|before| before.justification.clone()),
            started: before.as_ref().map_or(self.writer.now, |before| before.started),
            ended: (new.status != TaskStatus::Active).then_some(self.writer.now),
        };
        self.put_task(before.as_ref(), &after).await?;
        Ok(true)
    }

    /// Remembers what is declared of `name`.
    async fn declared<T: DeserializeOwned>(
        &mut self,
        kind: &'static str,
        name: &str,
        new: &impl Serialize,
    ) -> Result<Declared<T>, StoreError> {
        let body = serde_json::to_string(new).map_err(StoreError::unwritable)?;
        let sql = "SELECT body FROM declared WHERE kind = $1 AND name = $2";
        let rows = self.rows(sql, vec![kind.into(), name.into()]).await?;
        let last = rows.first().map(|row| row.text(0)).transpose()?;
        if last.as_ref() == Some(&body) {
            return Ok(Declared::Same);
        }
        let values: Vec<Value> = vec![kind.into(), name.into(), body.into()];
        let sql = "INSERT INTO declared (kind, name, body) VALUES ($1, $2, $3) \
                   ON CONFLICT (kind, name) DO UPDATE SET body = excluded.body";
        self.execute(sql, values).await?;
        // What an earlier version of this program wrote, and this one cannot read, says nothing.
        Ok(Declared::Other(last.and_then(|last| serde_json::from_str(&last).ok())))
    }
}

impl Registration {
    /// Keeps of `before` what the file does not say: since when, the age of credentials, and a status that was changed
    /// here, unless the file says another one than `last`.
    fn stay(&mut self, before: &Self, last: Option<AgentStatus>) {
        self.registered = before.registered;
        self.last_seen = before.last_seen;
        for credential in &mut self.credentials {
            if let Some(had) = before.credentials.iter().find(|had| had.id == credential.id) {
                credential.clone_from(had);
            }
        }
        let own = self.agent.status;
        self.agent.status = match last {
            Some(last) if last != own => own,
            Some(_) => before.agent.status,
            None if before.agent.status == AgentStatus::Active => own,
            None => before.agent.status,
        };
    }
}
