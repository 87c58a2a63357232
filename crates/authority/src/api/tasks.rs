//! `/v1/tasks`: work under a grant, started by a person within its ceilings, and ended. What goes beyond `observe`
//! needs a justification and a fresh login; the lowest stage that serves is the default.

use model::{Id, Presence, Sensitivity, Stage, Task, Tenant, duration::ConfigDuration, id::Run, registry::TaskStatus};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{Committed, GrantRecord, NewTask, TaskFilter, TaskRecord};

use super::{
    Answer, Call,
    body::text,
    caller::Caller,
    grants::ends,
    object,
    page::{answer, page},
    problem::Problem,
};
use crate::Authority;

/// A task to be started.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Starting {
    grant: Id<model::Grant>,
    #[serde(default)]
    id: Option<Id<Task>>,
    #[serde(default)]
    run: Option<Id<Run>>,
    #[serde(default)]
    tenant: Option<Id<Tenant>>,
    /// Another session of the user's than the one they manage in.
    #[serde(default)]
    session: Option<String>,
    #[serde(default)]
    use_case: Option<String>,
    #[serde(default)]
    justification: Option<String>,
    #[serde(default)]
    sensitivity: Sensitivity,
    #[serde(default)]
    stage: Stage,
    #[serde(default)]
    presence: Presence,
    expires_in: ConfigDuration,
}

/// How a task ends.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Ending {
    #[serde(default = "completed")]
    status: TaskStatus,
    #[serde(default)]
    reason: Option<String>,
}

/// How far it may go from now on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Staging {
    stage: Stage,
    #[serde(default)]
    justification: Option<String>,
}

const fn completed() -> TaskStatus {
    TaskStatus::Completed
}

impl Authority {
    /// Starts a task.
    pub(super) async fn start(&self, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&[])?;
        let starting: Starting = call.read()?;
        let tenant = starting.tenant.unwrap_or_else(|| call.caller.tenant.clone());
        let grant = self.store.grant(&starting.grant).await?.ok_or_else(Problem::not_found)?;
        let object = object::task(starting.id.as_ref(), &tenant, &grant.grant);
        call.caller.must_own(&grant.grant.user, &object)?;
        let justification = justified(call, starting.stage, starting.justification)?;
        if tenant != call.caller.tenant && !call.caller.administers(&object) {
            return Err(Problem::not_found());
        }
        self.known_tenants(&[tenant.clone()].into())?;
        let new = NewTask {
            id: starting.id,
            grant: grant.grant.id.clone(),
            run: starting.run,
            tenant,
            session: session(&call.caller, &grant, starting.presence, starting.session)?,
            use_case: starting.use_case.map(|it| text("use_case", &it)).transpose()?,
            initiated_by: call.caller.user.id.to_string(),
            justification,
            sensitivity: starting.sensitivity,
            stage: starting.stage,
            presence: starting.presence,
            expires_at: ends(call.now, starting.expires_in)?,
        };
        let committed = self.store.start_task(&call.writer(None), new).await?;
        self.task_answer(committed).await.map(Answer::for_new)
    }

    /// The tasks: a user's own, or everybody's for an administrator.
    pub(super) async fn tasks(&self, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&["user", "grant", "run", "tenant", "status", "limit", "cursor"])?;
        let status = match call.query.value("status") {
            None => None,
            Some("active") => Some(TaskStatus::Active),
            Some("completed") => Some(TaskStatus::Completed),
            Some("withdrawn") => Some(TaskStatus::Withdrawn),
            Some(_) => return Err(Problem::invalid("`status` has to be `active`, `completed` or `withdrawn`")),
        };
        let filter = TaskFilter {
            grant: id(call, "grant")?,
            run: id(call, "run")?,
            tenant: id(call, "tenant")?,
            user: self.whose("task", call)?,
            status,
        };
        let listed = self.store.tasks(&filter, page(&call.query)?).await?;
        Ok(Answer::ok(answer("tasks", &listed, shown)))
    }

    /// One task.
    pub(super) async fn show_task(&self, id: &str, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&[])?;
        Ok(Answer::ok(shown(&self.own_task(id, &call.caller).await?)))
    }

    /// Ends a task, and every token of it.
    pub(super) async fn end(&self, id: &str, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&[])?;
        let task = self.own_task(id, &call.caller).await?.task;
        let Ending { status, reason } = call.read()?;
        let reason = reason.map(|reason| text("reason", &reason)).transpose()?;
        let committed = self.store.end_task(&call.writer(reason), &task.id, status).await?;
        self.task_answer(committed).await
    }

    /// Lets a task go further, or less far.
    pub(super) async fn stage(&self, id: &str, call: &Call) -> Result<Answer, Problem> {
        call.query.only(&[])?;
        let task = self.own_task(id, &call.caller).await?.task;
        let Staging { stage, justification } = call.read()?;
        let justification = if stage > task.stage { justified(call, stage, justification)? } else { None };
        let writer = call.writer(justification.clone());
        let committed = self.store.change_stage(&writer, &task.id, stage, justification).await?;
        self.task_answer(committed).await
    }

    async fn task_answer(&self, committed: Committed<TaskRecord>) -> Result<Answer, Problem> {
        self.recorded(committed.position).await?;
        Ok(Answer::ok(shown(&committed.value)).replayed(committed.replayed))
    }

    /// The task called `id`, if it is the caller's business.
    pub(super) async fn own_task(&self, id: &str, caller: &Caller) -> Result<TaskRecord, Problem> {
        let id = Id::new(id).map_err(|_| Problem::not_found())?;
        let record = self.store.task(&id).await?.ok_or_else(Problem::not_found)?;
        let grant = self.store.grant(&record.task.grant).await?.ok_or_else(Problem::not_found)?.grant;
        caller.must_own(&grant.user, &object::task(Some(&record.task.id), &record.task.tenant, &grant))?;
        Ok(record)
    }
}

/// Beyond `observe` a person has to say why, and to have logged in just now.
fn justified(call: &Call, stage: Stage, justification: Option<String>) -> Result<Option<String>, Problem> {
    let justification = justification.map(|it| text("justification", &it)).transpose()?;
    if stage > Stage::Observe {
        call.caller.must_be_fresh(call.now)?;
        if justification.is_none() {
            return Err(Problem::invalid(format!("the stage `{}` needs a `justification`", stage.as_str())));
        }
    }
    Ok(justification)
}

/// The session that a task with the user there is bound to.
fn session(
    caller: &Caller,
    grant: &GrantRecord,
    presence: Presence,
    named: Option<String>,
) -> Result<Option<String>, Problem> {
    match presence {
        Presence::Present if !grant.grant.user.is(&caller.user) => {
            Err(Problem::invalid("a task with the user there is started by that user: start it `detached`"))
        }
        Presence::Present => named.or_else(|| caller.session.clone()).map(Some).ok_or_else(|| {
            Problem::invalid("your token has no session (`sid`) that the task could be bound to: start it `detached`")
        }),
        Presence::Detached | Presence::Owner if named.is_some() => {
            Err(Problem::invalid("only a task with the user there is bound to a session"))
        }
        Presence::Detached | Presence::Owner => Ok(None),
    }
}

fn id<Of>(call: &Call, name: &str) -> Result<Option<Id<Of>>, Problem> {
    let id = call.query.value(name).map(Id::new).transpose();
    id.map_err(|error| Problem::invalid(format!("`{name}`: {error}")))
}

fn shown(record: &TaskRecord) -> Value {
    let TaskRecord { task, justification, started, ended } = record;
    json!({
        "id": task.id,
        "grant": task.grant,
        "run": task.run,
        "tenant": task.tenant,
        "session": task.session,
        "use_case": task.use_case,
        "initiated_by": task.initiated_by,
        "justification": justification,
        "sensitivity": task.sensitivity,
        "stage": task.stage,
        "presence": task.presence,
        "status": task.status,
        "expires_at": task.expires_at,
        "started_at": started,
        "ended_at": ended,
    })
}

/// What the body may be.
pub(super) fn starting_schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<Starting>()
}

/// What the body may be.
pub(super) fn ending_schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<Ending>()
}

/// What the body may be.
pub(super) fn staging_schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<Staging>()
}
