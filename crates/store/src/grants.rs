//! Users' grants by id: what an agent may do for a user, and until when.

use jiff::Timestamp;
use model::{
    AgentStatus, Authority, Grant, Id, Presence, Principal, PrincipalKind, Stage,
    withdrawal::{Cause, Target},
};
use serde::{Deserialize, Serialize};

use crate::{
    Store,
    changes::ChangeKind,
    engine::{Row, Value},
    error::StoreError,
    page::{Listed, Page, Select},
    writing::{Begun, Committed, Writer, Writing, new_id},
};

pub(crate) const COLUMNS: &str = "created, id, user_issuer, user_id, agent_issuer, agent_id, authority, stage, presence, expires, \
                                  redelegate, status, given, given_by";

/// A grant as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRecord {
    /// The grant.
    pub grant: Grant,
    /// Whether tasks under it may go on without the user, besides those with them there.
    pub presence: Vec<Presence>,
    /// Whether it holds.
    pub status: GrantStatus,
    /// Since when.
    pub given: Timestamp,
    /// Who gave it: the user, or somebody for them.
    pub given_by: String,
}

/// Whether a grant holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GrantStatus {
    /// Until it expires.
    Active,
    /// No more, and never again.
    Withdrawn,
}

/// A grant to be given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewGrant {
    /// Its name; a new one, where absent.
    pub id: Option<Id<Grant>>,
    /// The user who gives it.
    pub user: Principal,
    /// The agent it is for.
    pub agent: Principal,
    /// What the agent may do; clipped by the caller to what the user may.
    pub authority: Authority,
    /// The furthest stage of a task under it.
    pub stage: Stage,
    /// Whether tasks may go on without the user.
    pub presence: Vec<Presence>,
    /// When it ends.
    pub expires_at: Timestamp,
    /// How many further agents it may be passed on to.
    pub redelegate: usize,
}

/// What is to be different of a grant; what is absent stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantChange {
    /// What the agent may do.
    pub authority: Option<Authority>,
    /// The furthest stage of a task under it.
    pub stage: Option<Stage>,
    /// Whether tasks may go on without the user.
    pub presence: Option<Vec<Presence>>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// How many further agents it may be passed on to.
    pub redelegate: Option<usize>,
}

/// Which grants to list.
#[derive(Debug, Clone, Default)]
pub struct GrantFilter {
    /// Only of this user: issuer and id.
    pub user: Option<(String, Id<Principal>)>,
    /// Only for this agent: issuer and id.
    pub agent: Option<(String, Id<Principal>)>,
    /// Only those in this status.
    pub status: Option<GrantStatus>,
}

impl Store {
    /// The grant called `id`, in whatever status it is.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn grant(&self, id: &Id<Grant>) -> Result<Option<GrantRecord>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM grants WHERE id = $1");
        let rows = self.engine.rows("reading a grant", sql, vec![id.into()]).await?;
        rows.first().map(|row| read(row, 0)).transpose()
    }

    /// Grants, the oldest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn grants(&self, filter: &GrantFilter, page: Page) -> Result<Listed<GrantRecord>, StoreError> {
        let status = filter.status.map(|status| Value::word(&status)).transpose()?;
        let part = |of: &Option<(String, Id<Principal>)>| of.clone().unzip();
        let ((user_issuer, user), (agent_issuer, agent)) = (part(&filter.user), part(&filter.agent));
        Select::new(COLUMNS, "grants", page)
            .only("user_issuer = $$", user_issuer)
            .only("user_id = $$", user.as_ref())
            .only("agent_issuer = $$", agent_issuer)
            .only("agent_id = $$", agent.as_ref())
            .only("status = $$", status)
            .page(&self.engine, "listing grants", page, |row| read(row, 0))
            .await
    }

    /// Gives a grant.
    ///
    /// # Errors
    /// When there is one of that name, its agent is not there or does not act, it allows nothing, has ended, or the
    /// database does not answer.
    pub async fn create_grant(&self, writer: &Writer, new: NewGrant) -> Result<Committed<GrantRecord>, StoreError> {
        let mut writing = match self.write("giving a grant", writer, &new).await? {
            Begun::Answered(answer) => return Ok(answer),
            Begun::Open(writing) => writing,
        };
        let NewGrant { id, user, agent, authority, stage, presence, expires_at, redelegate } = new;
        let id = id.map_or_else(|| new_id(writer.now), Ok)?;
        if writing.grant(&id).await?.is_some() {
            return Err(StoreError::Conflict(format!("there is a grant {id} already")));
        }
        let registered = writing.agent(&agent.issuer, &agent.id).await?;
        let registered = registered.ok_or_else(|| StoreError::not_found("agent", &agent.id))?;
        if registered.agent.status != AgentStatus::Active {
            let status = registered.agent.status.as_str();
            return Err(StoreError::Conflict(format!("the agent {} is {status}", agent.id)));
        }
        let grant = Grant { id, user, agent, authority, stage, expires_at, redelegate };
        let (given, given_by) = (writer.now, writer.by.clone());
        let record = GrantRecord { grant, presence, status: GrantStatus::Active, given, given_by };
        record.check(writer.now)?;
        writing.put_grant(None, &record).await?;
        writing.commit(record).await
    }

    /// Changes a grant. What lessens it also withdraws everything issued under it before.
    ///
    /// # Errors
    /// When there is none of that name, it was withdrawn, the change cannot be meant, or the database does not answer.
    pub async fn change_grant(
        &self,
        writer: &Writer,
        id: &Id<Grant>,
        change: GrantChange,
    ) -> Result<Committed<GrantRecord>, StoreError> {
        let mut writing = match self.write("changing a grant", writer, &(id, &change)).await? {
            Begun::Answered(answer) => return Ok(answer),
            Begun::Open(writing) => writing,
        };
        let before = writing.grant(id).await?.ok_or_else(|| StoreError::not_found("grant", id))?;
        before.holds()?;
        let after = change.apply(&before);
        after.check(writer.now)?;
        writing.put_grant(Some(&before), &after).await?;
        writing.commit(after).await
    }

    /// Withdraws a grant and ends every task under it. One that was withdrawn before stays so.
    ///
    /// # Errors
    /// When there is none of that name, or the database does not answer.
    pub async fn withdraw_grant(&self, writer: &Writer, id: &Id<Grant>) -> Result<Committed<GrantRecord>, StoreError> {
        let mut writing = match self.write("withdrawing a grant", writer, id).await? {
            Begun::Answered(answer) => return Ok(answer),
            Begun::Open(writing) => writing,
        };
        let before = writing.grant(id).await?.ok_or_else(|| StoreError::not_found("grant", id))?;
        let after = GrantRecord { status: GrantStatus::Withdrawn, ..before.clone() };
        writing.put_grant(Some(&before), &after).await?;
        writing.commit(after).await
    }
}

impl Writing<'_> {
    /// The grant as it stands in this transaction.
    pub(crate) async fn grant(&mut self, id: &Id<Grant>) -> Result<Option<GrantRecord>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM grants WHERE id = $1");
        let rows = self.rows(sql, vec![id.into()]).await?;
        rows.first().map(|row| read(row, 0)).transpose()
    }

    /// Writes `after` where `before` stood, if they differ, with what follows of it.
    pub(crate) async fn put_grant(
        &mut self,
        before: Option<&GrantRecord>,
        after: &GrantRecord,
    ) -> Result<(), StoreError> {
        if before == Some(after) {
            return Ok(());
        }
        let GrantRecord { grant, presence, status, given, given_by } = after;
        let values = vec![
            (&grant.id).into(),
            Value::position(self.next()),
            grant.user.issuer.as_str().into(),
            (&grant.user.id).into(),
            grant.agent.issuer.as_str().into(),
            (&grant.agent.id).into(),
            Value::json(&grant.authority)?,
            Value::word(&grant.stage)?,
            Value::json(presence)?,
            grant.expires_at.into(),
            Value::Integer(i64::try_from(grant.redelegate).map_err(StoreError::unwritable)?),
            Value::word(status)?,
            given.to_owned().into(),
            given_by.as_str().into(),
        ];
        let sql = "INSERT INTO grants (id, created, changed, user_issuer, user_id, agent_issuer, agent_id, authority, \
                   stage, presence, expires, redelegate, status, given, given_by) \
                   VALUES ($1, $2, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) \
                   ON CONFLICT (id) DO UPDATE SET changed = excluded.changed, user_issuer = excluded.user_issuer, \
                   user_id = excluded.user_id, agent_issuer = excluded.agent_issuer, agent_id = excluded.agent_id, \
                   authority = excluded.authority, stage = excluded.stage, presence = excluded.presence, \
                   expires = excluded.expires, redelegate = excluded.redelegate, status = excluded.status";
        self.execute(sql, values).await?;
        let Some(before) = before else {
            self.append(&ChangeKind::GrantCreated(Box::new(grant.clone())), None).await?;
            return Ok(());
        };
        if *status == GrantStatus::Withdrawn {
            self.end_tasks("grant_id = $2", vec![(&grant.id).into()]).await?;
            self.append(&ChangeKind::GrantWithdrawn { id: grant.id.clone() }, None).await?;
            self.withdraw(Target::Grant { id: grant.id.clone() }, Cause::Withdrawn, None).await?;
        } else {
            self.append(&ChangeKind::GrantChanged(Box::new(grant.clone())), None).await?;
            if after.is_less_than(before) {
                self.withdraw(Target::Grant { id: grant.id.clone() }, Cause::Narrowed, None).await?;
            }
        }
        Ok(())
    }
}

impl GrantRecord {
    /// Whether something that `other` allows is not allowed by this one.
    pub fn is_less_than(&self, other: &Self) -> bool {
        let (own, others) = (&self.grant, &other.grant);
        !others.authority.within(&own.authority)
            || own.stage < others.stage
            || own.expires_at < others.expires_at
            || own.redelegate < others.redelegate
            || other.presence.iter().any(|presence| !self.presence.contains(presence))
            || !own.user.is(&others.user)
            || !own.agent.is(&others.agent)
    }

    /// Whether `presence` is possible for a task under it.
    pub fn permits(&self, presence: Presence) -> bool {
        presence == Presence::Present || self.presence.contains(&presence)
    }

    pub(crate) fn holds(&self) -> Result<(), StoreError> {
        match self.status {
            GrantStatus::Active => Ok(()),
            GrantStatus::Withdrawn => Err(StoreError::Conflict(format!("the grant {} was withdrawn", self.grant.id))),
        }
    }

    fn check(&self, now: Timestamp) -> Result<(), StoreError> {
        let Grant { id, authority, expires_at, .. } = &self.grant;
        if authority.is_empty() {
            return Err(StoreError::Invalid(format!("grant {id} allows nothing")));
        }
        if *expires_at <= now {
            return Err(StoreError::Invalid(format!("grant {id} would have ended already")));
        }
        Ok(())
    }
}

impl GrantChange {
    /// What `before` becomes.
    pub fn apply(self, before: &GrantRecord) -> GrantRecord {
        let mut after = before.clone();
        let grant = &mut after.grant;
        grant.authority = self.authority.unwrap_or_else(|| grant.authority.clone());
        grant.stage = self.stage.unwrap_or(grant.stage);
        grant.expires_at = self.expires_at.unwrap_or(grant.expires_at);
        grant.redelegate = self.redelegate.unwrap_or(grant.redelegate);
        after.presence = self.presence.unwrap_or(after.presence);
        after
    }
}

/// Reads a grant whose columns begin at `from`.
pub(crate) fn read(row: &Row, from: usize) -> Result<GrantRecord, StoreError> {
    let principal = |kind, issuer, id| -> Result<Principal, StoreError> {
        Ok(Principal { kind, id: row.word(from + id)?, issuer: row.text(from + issuer)?, tenant: None })
    };
    let grant = Grant {
        id: row.word(from + 1)?,
        user: principal(PrincipalKind::User, 2, 3)?,
        agent: principal(PrincipalKind::Agent, 4, 5)?,
        authority: row.json(from + 6)?,
        stage: row.word(from + 7)?,
        expires_at: row.moment(from + 9)?,
        redelegate: usize::try_from(row.integer(from + 10)?).map_err(StoreError::unreadable)?,
    };
    Ok(GrantRecord {
        grant,
        presence: row.json(from + 8)?,
        status: row.word(from + 11)?,
        given: row.moment(from + 12)?,
        given_by: row.text(from + 13)?,
    })
}
