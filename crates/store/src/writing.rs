//! How anything is changed: one transaction that holds the head row from its first statement, so that changes have
//! positions in the order they are committed in, and without gaps.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use model::{
    Id, Tenant,
    withdrawal::{Cause, Target, Withdrawal},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    Store,
    changes::ChangeKind,
    digest,
    engine::{Transaction, Value, postgres::CHANNEL},
    error::StoreError,
    upkeep,
};

/// The longest life of a token that any sidecar accepts: after it, a withdrawal covers nothing any more.
pub const LONGEST_TOKEN: SignedDuration = SignedDuration::from_hours(24);

/// The longest idempotency key, in bytes.
pub const MAX_KEY_BYTES: usize = 256;

/// How long an answer is kept for whoever asks again.
pub(crate) const ANSWERS_KEPT: SignedDuration = SignedDuration::from_hours(24);

/// Who changes something, why and when.
#[derive(Debug, Clone)]
pub struct Writer {
    /// A principal as people write it, or the part of the authority that does it.
    pub by: String,
    /// Why, for people.
    pub reason: Option<String>,
    /// The moment.
    pub now: Timestamp,
    /// The same key with the same request gets the first answer again, for a day. Keys of different writers are
    /// different keys.
    pub idempotency: Option<String>,
}

/// Something that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed<T> {
    /// What came of it.
    pub value: T,
    /// The position of the last change it made; of the head, where there was nothing to change.
    pub position: u64,
    /// Whether this is the answer to an earlier, equal request.
    pub replayed: bool,
}

/// A change that is being made, or the answer that was given before.
pub(crate) enum Begun<'a, T> {
    Answered(Committed<T>),
    Open(Writing<'a>),
}

/// A transaction that holds the head row. Dropped without a commit it leaves nothing behind.
pub(crate) struct Writing<'a> {
    // Before the place in the line: fields are dropped in this order.
    pub(crate) transaction: Transaction,
    place: OwnedSemaphorePermit,
    pub(crate) writer: &'a Writer,
    store: &'a Store,
    doing: &'static str,
    /// The digest of the request, where the writer gave a key.
    request: Option<(String, String)>,
    /// The generation that it is part of.
    pub(crate) generation: String,
    /// The position that was taken with the lock.
    first: u64,
    /// The position of the next change.
    next: u64,
}

impl Store {
    /// Begins `doing` what `request` asks for, in a database that has all it ever had.
    pub(crate) async fn write<'a, T: DeserializeOwned>(
        &'a self,
        doing: &'static str,
        writer: &'a Writer,
        request: &impl Serialize,
    ) -> Result<Begun<'a, T>, StoreError> {
        let known = self.seen.known();
        let (writing, lost) = self.begin(doing, writer, request).await?;
        let head = writing.first - 1;
        let beyond = if lost > 0 { Some(lost) } else { known.beyond(&writing.generation, head) };
        match beyond {
            None => writing.answered().await,
            Some(beyond) => {
                let generation = writing.generation.clone();
                drop(writing);
                Err(self.went_back(&generation, head, beyond).await)
            }
        }
    }

    /// The same in any database: only what says that this one counts from now on.
    pub(crate) async fn write_whatever<'a, T: DeserializeOwned>(
        &'a self,
        doing: &'static str,
        writer: &'a Writer,
        request: &impl Serialize,
    ) -> Result<Begun<'a, T>, StoreError> {
        self.begin(doing, writer, request).await?.0.answered().await
    }

    /// Holds the head row; what it says was lost comes with that.
    async fn begin<'a>(
        &'a self,
        doing: &'static str,
        writer: &'a Writer,
        request: &impl Serialize,
    ) -> Result<(Writing<'a>, u64), StoreError> {
        let request = match &writer.idempotency {
            None => None,
            Some(key) if key.is_empty() || key.len() > MAX_KEY_BYTES => {
                return Err(StoreError::Invalid(format!("an idempotency key has 1 to {MAX_KEY_BYTES} bytes")));
            }
            Some(key) => {
                let request = serde_json::to_vec(&(doing, request)).map_err(StoreError::unwritable)?;
                Some((key.clone(), digest::hex(&request)))
            }
        };
        let closed = |_| StoreError::Unavailable { doing, cause: "it is being closed".to_owned() };
        let place = Arc::clone(&self.line).acquire_owned().await.map_err(closed)?;
        let mut transaction = self.engine.begin(doing).await?;
        let sql = "UPDATE head SET position = position + 1 WHERE id = 1 RETURNING position, generation, lost";
        let rows = transaction.rows(doing, sql, Vec::new()).await?;
        let row = rows.first().ok_or_else(|| StoreError::Damaged("it has no head".to_owned()))?;
        let (first, generation, lost) = (row.position(0)?, row.text(1)?, row.position(2)?);
        let writing =
            Writing { transaction, place, writer, store: self, doing, request, generation, first, next: first };
        Ok((writing, lost))
    }
}

impl<'a> Writing<'a> {
    /// Looks for an earlier answer. Nobody else can give one now: the head row is ours.
    async fn answered<T: DeserializeOwned>(mut self) -> Result<Begun<'a, T>, StoreError> {
        let Some((key, request)) = &self.request else { return Ok(Begun::Open(self)) };
        let sql = "SELECT request, position, value FROM answers WHERE made_by = $1 AND idempotency = $2 AND at > $3";
        let oldest = upkeep::before(self.writer.now, ANSWERS_KEPT);
        let values = vec![self.writer.by.as_str().into(), key.as_str().into(), oldest.into()];
        let rows = self.transaction.rows(self.doing, sql, values).await?;
        let Some(row) = rows.first() else { return Ok(Begun::Open(self)) };
        if row.text(0)? != *request {
            return Err(StoreError::OtherRequest);
        }
        Ok(Begun::Answered(Committed { value: row.json(2)?, position: row.position(1)?, replayed: true }))
    }

    pub(crate) async fn execute(&mut self, sql: impl Into<String>, values: Vec<Value>) -> Result<u64, StoreError> {
        self.transaction.execute(self.doing, sql, values).await
    }

    pub(crate) async fn rows(
        &mut self,
        sql: impl Into<String>,
        values: Vec<Value>,
    ) -> Result<Vec<crate::engine::Row>, StoreError> {
        self.transaction.rows(self.doing, sql, values).await
    }

    /// The position that the next change will have.
    pub(crate) const fn next(&self) -> u64 {
        self.next
    }

    /// Adds `kind` to the change log; `tenant` where it concerns only one.
    pub(crate) async fn append(&mut self, kind: &ChangeKind, tenant: Option<&Id<Tenant>>) -> Result<u64, StoreError> {
        let position = self.next;
        if position > self.first {
            self.execute("UPDATE head SET position = position + 1 WHERE id = 1", Vec::new()).await?;
        }
        let until = match kind {
            ChangeKind::Withdrawal(withdrawal) => Some(withdrawal.until),
            _ => None,
        };
        let values = vec![
            Value::position(position),
            self.writer.now.into(),
            self.writer.by.as_str().into(),
            self.writer.reason.as_deref().into(),
            kind.word().into(),
            tenant.map(Id::as_str).into(),
            until.into(),
            Value::json(kind)?,
        ];
        let sql = "INSERT INTO changes (position, at, made_by, reason, kind, tenant, until, body) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        self.execute(sql, values).await?;
        self.next += 1;
        Ok(position)
    }

    /// Withdraws `target`: whatever was issued before passes no sidecar any more.
    pub(crate) async fn withdraw(
        &mut self,
        target: Target,
        cause: Cause,
        tenant: Option<&Id<Tenant>>,
    ) -> Result<Withdrawal, StoreError> {
        let now = self.writer.now;
        let withdrawal = Withdrawal {
            id: new_id(now)?,
            position: self.next,
            at: now,
            by: self.writer.by.clone(),
            reason: self.writer.reason.clone(),
            cause,
            until: now.checked_add(LONGEST_TOKEN).unwrap_or(Timestamp::MAX),
            target,
        };
        let values = vec![
            (&withdrawal.id).into(),
            Value::position(withdrawal.position),
            withdrawal.target.kind().into(),
            withdrawal.target.to_string().into(),
            tenant.map(Id::as_str).into(),
            withdrawal.until.into(),
            Value::json(&withdrawal)?,
        ];
        let lasts = matches!(
            withdrawal.target,
            Target::User { .. }
                | Target::Session { .. }
                | Target::Agent { .. }
                | Target::Instance { .. }
                | Target::Tenant { .. }
        );
        if lasts && cause != Cause::Narrowed {
            // It says all that those before it said which cover no token any more.
            let sql = "DELETE FROM withdrawals WHERE target = $1 AND until < $2";
            let old = upkeep::before(now, upkeep::MARGIN);
            self.execute(sql, vec![withdrawal.target.to_string().into(), old.into()]).await?;
        }
        let sql = "INSERT INTO withdrawals (id, created, kind, target, tenant, until, body) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7)";
        self.execute(sql, values).await?;
        self.append(&ChangeKind::Withdrawal(withdrawal.clone()), tenant).await?;
        Ok(withdrawal)
    }

    /// Makes it durable and wakes whoever follows.
    pub(crate) async fn commit<T: Serialize>(mut self, value: T) -> Result<Committed<T>, StoreError> {
        if self.next == self.first {
            // There was nothing to change: no position is taken.
            return Ok(Committed { value, position: self.first - 1, replayed: false });
        }
        let position = self.next - 1;
        self.remember(position, &value).await?;
        if let Transaction::Postgres(_) = self.transaction {
            let sql = "SELECT pg_notify($1, $2)::text";
            self.rows(sql, vec![CHANNEL.into(), position.to_string().into()]).await?;
        }
        self.transaction.commit(self.doing).await?;
        drop(self.place);
        self.store.seen.note(&self.generation, position);
        self.store.wake(position);
        Ok(Committed { value, position, replayed: false })
    }

    async fn remember<T: Serialize>(&mut self, position: u64, value: &T) -> Result<(), StoreError> {
        let Some((key, request)) = self.request.take() else { return Ok(()) };
        let values = vec![
            self.writer.by.as_str().into(),
            key.into(),
            request.into(),
            Value::position(position),
            Value::json(value)?,
            self.writer.now.into(),
        ];
        // One that is there is too old to be given again.
        let sql = "INSERT INTO answers (made_by, idempotency, request, position, value, at) \
                   VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (made_by, idempotency) DO UPDATE SET \
                   request = excluded.request, position = excluded.position, value = excluded.value, at = excluded.at";
        self.execute(sql, values).await?;
        Ok(())
    }
}

/// A new name: unique, and in the order of time.
pub(crate) fn new_id<Of>(now: Timestamp) -> Result<Id<Of>, StoreError> {
    Id::new(&uuid(now)).map_err(StoreError::unwritable)
}

/// Text that nothing else has (RFC 9562 version 7).
pub(crate) fn uuid(now: Timestamp) -> String {
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let nanoseconds = u32::try_from(now.subsec_nanosecond()).unwrap_or_default();
    uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanoseconds)).to_string()
}
