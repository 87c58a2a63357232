//! Tasks by id: the durable consent from which short tokens are issued, for as long as the work goes on.

use jiff::Timestamp;
use model::{
    AgentStatus, Grant, Id, Presence, Principal, Sensitivity, Stage, Task, Tenant,
    id::Run,
    registry::TaskStatus,
    withdrawal::{Cause, Target},
};
use serde::{Deserialize, Serialize};

use crate::{
    Store,
    changes::ChangeKind,
    engine::{Row, Value},
    error::StoreError,
    grants::{self, GrantRecord},
    kept::Place,
    page::{Listed, Page, Select, qualified},
    writing::{Begun, Committed, Writer, Writing, new_id},
};

pub(crate) const COLUMNS: &str = "created, id, grant_id, run, tenant, session, use_case, initiated_by, justification, \
                       sensitivity, stage, presence, expires, status, started, ended";

/// A task as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// The task.
    pub task: Task,
    /// Why it may go as far as it may, in the words of whoever raised it.
    pub justification: Option<String>,
    /// Since when.
    pub started: Timestamp,
    /// When it was ended, by whoever did.
    pub ended: Option<Timestamp>,
}

/// A task with the grant it is under, both of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The position of the change log up to which this is known to hold.
    pub as_of: u64,
    /// The task.
    pub task: Task,
    /// Its grant.
    pub grant: GrantRecord,
}

/// A task to be started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewTask {
    /// Its name; a new one, where absent.
    pub id: Option<Id<Task>>,
    /// The grant it is under.
    pub grant: Id<Grant>,
    /// The run it belongs to; a new one, where absent.
    pub run: Option<Id<Run>>,
    /// The tenant whose data it touches.
    pub tenant: Id<Tenant>,
    /// The user's session that it is bound to.
    pub session: Option<String>,
    /// What it is for.
    pub use_case: Option<String>,
    /// Who starts it.
    pub initiated_by: String,
    /// Why it may go as far as it may.
    pub justification: Option<String>,
    /// How sensitive its data is.
    pub sensitivity: Sensitivity,
    /// How far it may go.
    pub stage: Stage,
    /// Whether the user is there.
    pub presence: Presence,
    /// When it ends by itself.
    pub expires_at: Timestamp,
}

/// Which tasks to list.
#[derive(Debug, Clone, Default)]
pub struct TaskFilter {
    /// Only under this grant.
    pub grant: Option<Id<Grant>>,
    /// Only of this run.
    pub run: Option<Id<Run>>,
    /// Only of this tenant.
    pub tenant: Option<Id<Tenant>>,
    /// Only for this user: issuer and id.
    pub user: Option<(String, Id<Principal>)>,
    /// Only those in this status.
    pub status: Option<TaskStatus>,
}

impl Store {
    /// The task called `id`, in whatever status it is.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn task(&self, id: &Id<Task>) -> Result<Option<TaskRecord>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM tasks WHERE id = $1");
        let rows = self.engine.rows("reading a task", sql, vec![id.into()]).await?;
        rows.first().map(|row| read(row, 0)).transpose()
    }

    /// The task called `id` with its grant, in whatever status they are.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn standing(&self, id: &Id<Task>) -> Result<Option<Standing>, StoreError> {
        Ok(self.read_standing(id).await?.map(|(standing, _)| standing))
    }

    /// The same, with where they stand so.
    pub(crate) async fn read_standing(&self, id: &Id<Task>) -> Result<Option<(Standing, Place)>, StoreError> {
        // One statement, so that the position and both rows are of one moment.
        let sql = format!(
            "SELECT head.position, {}, {}, head.generation FROM tasks JOIN grants ON grants.id = tasks.grant_id JOIN head ON head.id = 1 \
             WHERE tasks.id = $1",
            qualified("tasks", COLUMNS),
            qualified("grants", grants::COLUMNS),
        );
        let rows = self.engine.rows("reading a task and its grant", sql, vec![id.into()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let task = read(row, 1)?.task;
        let place = Place { position: row.position(0)?, generation: row.text(31)? };
        Ok(Some((Standing { as_of: place.position, task, grant: grants::read(row, 17)? }, place)))
    }

    /// Tasks, the oldest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn tasks(&self, filter: &TaskFilter, page: Page) -> Result<Listed<TaskRecord>, StoreError> {
        let status = filter.status.map(|status| Value::word(&status)).transpose()?;
        let (issuer, user) = filter.user.clone().unzip();
        Select::new(COLUMNS, "tasks", page)
            .only("grant_id = $$", filter.grant.as_ref())
            .only("run = $$", filter.run.as_ref())
            .only("tenant = $$", filter.tenant.as_ref())
            .only("grant_id IN (SELECT id FROM grants WHERE user_issuer = $$)", issuer)
            .only("grant_id IN (SELECT id FROM grants WHERE user_id = $$)", user.as_ref())
            .only("status = $$", status)
            .page(&self.engine, "listing tasks", page, |row| read(row, 0))
            .await
    }

    /// Starts a task under a grant.
    ///
    /// # Errors
    /// When there is one of that name, the grant does not hold or does not allow it, its run is another tenant's, or
    /// the database does not answer.
    pub async fn start_task(&self, writer: &Writer, new: NewTask) -> Result<Committed<TaskRecord>, StoreError> {
        let mut writing = match self.write("starting a task", writer, &new).await? {
            Begun::Answered(answer) => return Ok(answer),
            Begun::Open(writing) => writing,
        };
        let id = new.id.clone().map_or_else(|| new_id(writer.now), Ok)?;
        if writing.task(&id).await?.is_some() {
            return Err(StoreError::Conflict(format!("there is a task {id} already")));
        }
        let grant = writing.grant(&new.grant).await?.ok_or_else(|| StoreError::not_found("grant", &new.grant))?;
        new.check(&grant, writer.now)?;
        let run = writing.run(&new).await?;
        writing.may_work(&grant.grant.agent, &new.tenant).await?;
        let task = Task {
            id,
            grant: new.grant,
            run,
            tenant: new.tenant,
            session: new.session,
            use_case: new.use_case,
            initiated_by: new.initiated_by,
            sensitivity: new.sensitivity,
            stage: new.stage,
            presence: new.presence,
            expires_at: new.expires_at,
            status: TaskStatus::Active,
        };
        let record = TaskRecord { task, justification: new.justification, started: writer.now, ended: None };
        writing.put_task(None, &record).await?;
        writing.commit(record).await
    }

    /// Ends a task, as completed or withdrawn, and every token issued for it. One that ended before stays as it is.
    ///
    /// # Errors
    /// When there is none of that name, `status` is no end, or the database does not answer.
    pub async fn end_task(
        &self,
        writer: &Writer,
        id: &Id<Task>,
        status: TaskStatus,
    ) -> Result<Committed<TaskRecord>, StoreError> {
        if status == TaskStatus::Active {
            return Err(StoreError::Invalid("to be active is no end of a task".to_owned()));
        }
        let mut writing = match self.write("ending a task", writer, &(id, status)).await? {
            Begun::Answered(answer) => return Ok(answer),
            Begun::Open(writing) => writing,
        };
        let before = writing.known_task(id).await?;
        if before.task.status != TaskStatus::Active {
            return writing.commit(before).await;
        }
        let mut after = before.clone();
        after.task.status = status;
        after.ended = Some(writer.now);
        writing.put_task(Some(&before), &after).await?;
        writing.commit(after).await
    }

    /// Lets a task go further, or less far. Who may raise it is the caller's to know; the grant's ceiling holds here.
    ///
    /// # Errors
    /// When there is none of that name, it ended, the stage is beyond its grant's, or the database does not answer.
    pub async fn change_stage(
        &self,
        writer: &Writer,
        id: &Id<Task>,
        stage: Stage,
        justification: Option<String>,
    ) -> Result<Committed<TaskRecord>, StoreError> {
        let mut writing = match self.write("changing a task's stage", writer, &(id, stage, &justification)).await? {
            Begun::Answered(answer) => return Ok(answer),
            Begun::Open(writing) => writing,
        };
        let before = writing.known_task(id).await?;
        if before.task.status != TaskStatus::Active || before.task.expires_at <= writer.now {
            return Err(StoreError::Conflict(format!("the task {id} has ended")));
        }
        let grant = &before.task.grant;
        let grant = writing.grant(grant).await?.ok_or_else(|| StoreError::not_found("grant", grant))?;
        within(stage, &grant)?;
        let mut after = before.clone();
        after.task.stage = stage;
        after.justification = justification.or(after.justification);
        writing.put_task(Some(&before), &after).await?;
        writing.commit(after).await
    }
}

impl Writing<'_> {
    /// The task as it stands in this transaction.
    pub(crate) async fn task(&mut self, id: &Id<Task>) -> Result<Option<TaskRecord>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM tasks WHERE id = $1");
        let rows = self.rows(sql, vec![id.into()]).await?;
        rows.first().map(|row| read(row, 0)).transpose()
    }

    async fn known_task(&mut self, id: &Id<Task>) -> Result<TaskRecord, StoreError> {
        self.task(id).await?.ok_or_else(|| StoreError::not_found("task", id))
    }

    /// Ends the active tasks for which `condition` holds, whose placeholders begin at `$2`. What is withdrawn with
    /// them is the caller's to say.
    pub(crate) async fn end_tasks(&mut self, condition: &str, values: Vec<Value>) -> Result<u64, StoreError> {
        let sql = format!("UPDATE tasks SET status = 'withdrawn', ended = $1 WHERE status = 'active' AND {condition}");
        let values = std::iter::once(self.writer.now.into()).chain(values).collect();
        self.execute(sql, values).await
    }

    /// The run of a new task: a run never crosses tenants.
    async fn run(&mut self, new: &NewTask) -> Result<Id<Run>, StoreError> {
        let Some(run) = &new.run else { return new_id(self.writer.now) };
        let sql = "SELECT id FROM tasks WHERE run = $1 AND tenant <> $2 LIMIT 1";
        let rows = self.rows(sql, vec![run.into(), (&new.tenant).into()]).await?;
        match rows.is_empty() {
            true => Ok(run.clone()),
            false => Err(StoreError::Conflict(format!("the run {run} is not of tenant {}", new.tenant))),
        }
    }

    /// Whether `agent` acts, and for `tenant`.
    async fn may_work(&mut self, agent: &Principal, tenant: &Id<Tenant>) -> Result<(), StoreError> {
        let found = self.agent(&agent.issuer, &agent.id).await?;
        let found = found.ok_or_else(|| StoreError::not_found("agent", &agent.id))?.agent;
        if found.status != AgentStatus::Active {
            return Err(StoreError::Conflict(format!("the agent {} is {}", agent.id, found.status.as_str())));
        }
        if !found.tenants.contains(tenant) {
            return Err(StoreError::Conflict(format!("the agent {} is not registered for tenant {tenant}", agent.id)));
        }
        Ok(())
    }

    /// Writes `after` where `before` stood, if they differ, with what follows of it.
    pub(crate) async fn put_task(&mut self, before: Option<&TaskRecord>, after: &TaskRecord) -> Result<(), StoreError> {
        if before == Some(after) {
            return Ok(());
        }
        self.write_task(after).await?;
        let task = &after.task;
        let Some(before) = before.map(|before| &before.task) else {
            self.append(&ChangeKind::TaskStarted(Box::new(task.clone())), Some(&task.tenant)).await?;
            return Ok(());
        };
        if before.status == TaskStatus::Active && task.status != TaskStatus::Active {
            let change = ChangeKind::TaskEnded { id: task.id.clone(), status: task.status };
            self.append(&change, Some(&task.tenant)).await?;
            let cause = if task.status == TaskStatus::Completed { Cause::Ended } else { Cause::Withdrawn };
            let target = Target::Task { id: task.id.clone() };
            self.withdraw(target, cause, Some(&task.tenant)).await?;
            return Ok(());
        }
        if before.stage != task.stage {
            let change = ChangeKind::StageChanged { id: task.id.clone(), from: before.stage, to: task.stage };
            self.append(&change, Some(&task.tenant)).await?;
        } else {
            self.append(&ChangeKind::TaskChanged(Box::new(task.clone())), Some(&task.tenant)).await?;
        }
        if lessened(before, task) {
            // The tenant may be what changed: everybody hears of it.
            self.withdraw(Target::Task { id: task.id.clone() }, Cause::Narrowed, None).await?;
        }
        Ok(())
    }

    async fn write_task(&mut self, record: &TaskRecord) -> Result<(), StoreError> {
        let TaskRecord { task, justification, started, ended } = record;
        let values = vec![
            (&task.id).into(),
            Value::position(self.next()),
            (&task.grant).into(),
            (&task.run).into(),
            (&task.tenant).into(),
            task.session.as_deref().into(),
            task.use_case.as_deref().into(),
            task.initiated_by.as_str().into(),
            justification.as_deref().into(),
            Value::word(&task.sensitivity)?,
            Value::word(&task.stage)?,
            Value::word(&task.presence)?,
            task.expires_at.into(),
            Value::word(&task.status)?,
            started.to_owned().into(),
            ended.to_owned().into(),
        ];
        let sql = "INSERT INTO tasks (id, created, changed, grant_id, run, tenant, session, use_case, initiated_by, \
                   justification, sensitivity, stage, presence, expires, status, started, ended) \
                   VALUES ($1, $2, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) \
                   ON CONFLICT (id) DO UPDATE SET changed = excluded.changed, grant_id = excluded.grant_id, \
                   run = excluded.run, tenant = excluded.tenant, session = excluded.session, \
                   use_case = excluded.use_case, initiated_by = excluded.initiated_by, \
                   justification = excluded.justification, sensitivity = excluded.sensitivity, \
                   stage = excluded.stage, presence = excluded.presence, expires = excluded.expires, \
                   status = excluded.status, ended = excluded.ended";
        self.execute(sql, values).await?;
        Ok(())
    }
}

impl NewTask {
    fn check(&self, grant: &GrantRecord, now: Timestamp) -> Result<(), StoreError> {
        grant.holds()?;
        let Grant { id, expires_at, .. } = &grant.grant;
        if *expires_at <= now {
            return Err(StoreError::Conflict(format!("the grant {id} has expired")));
        }
        if self.expires_at <= now || self.expires_at > *expires_at {
            return Err(StoreError::Invalid(format!("a task under grant {id} ends before {expires_at}")));
        }
        if !grant.permits(self.presence) {
            return Err(StoreError::Invalid(format!("the grant {id} does not permit tasks without the user")));
        }
        within(self.stage, grant)
    }
}

/// Whether a task under `grant` may have `stage`.
fn within(stage: Stage, grant: &GrantRecord) -> Result<(), StoreError> {
    let ceiling = grant.grant.stage;
    match stage <= ceiling {
        true => Ok(()),
        false => Err(StoreError::Invalid(format!(
            "stage {} is beyond grant {}'s {}",
            stage.as_str(),
            grant.grant.id,
            ceiling.as_str()
        ))),
    }
}

/// Whether something that was issued for the task before would not be issued now.
fn lessened(before: &Task, after: &Task) -> bool {
    let same = before.grant == after.grant
        && before.run == after.run
        && before.tenant == after.tenant
        && before.session == after.session
        && before.presence == after.presence
        && before.sensitivity == after.sensitivity;
    !same || after.stage < before.stage || after.expires_at < before.expires_at
}

pub(crate) fn read(row: &Row, from: usize) -> Result<TaskRecord, StoreError> {
    let task = Task {
        id: row.word(from + 1)?,
        grant: row.word(from + 2)?,
        run: row.word(from + 3)?,
        tenant: row.word(from + 4)?,
        session: row.optional(from + 5)?,
        use_case: row.optional(from + 6)?,
        initiated_by: row.text(from + 7)?,
        sensitivity: row.word(from + 9)?,
        stage: row.word(from + 10)?,
        presence: row.word(from + 11)?,
        expires_at: row.moment(from + 12)?,
        status: row.word(from + 13)?,
    };
    Ok(TaskRecord {
        task,
        justification: row.optional(from + 8)?,
        started: row.moment(from + 14)?,
        ended: row.optional_moment(from + 15)?,
    })
}
