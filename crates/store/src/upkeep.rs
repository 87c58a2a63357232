//! What nobody asks for any more is forgotten: each minute, by one replica at a time, a small batch in each transaction,
//! so that nobody who writes waits for it.
//!
//! Nothing goes that may still refuse something. What was committed is in the ledgers, and stays there.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use net::Tasks;

use crate::{
    Store,
    engine::Value,
    error::StoreError,
    limits, single_use,
    writing::{ANSWERS_KEPT, LONGEST_TOKEN},
};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(60);
/// How far clocks of replicas may be apart: everything is kept for so much longer.
pub(crate) const MARGIN: SignedDuration = SignedDuration::from_hours(1);
/// The most rows that go in one transaction.
const BATCH: usize = 1_000;

/// How long a ledger that nobody writes any more is waited for. One that comes back later says what it lacks.
const RECORDER_KEPT: SignedDuration = SignedDuration::from_hours(24 * 30);
/// How long tasks, grants and join tokens are listed after their end.
const ENDED_KEPT: SignedDuration = SignedDuration::from_hours(24 * 90);
/// How long a session that was withdrawn stays so. Browsers keep nothing for longer that it could go on with.
const SESSION_KEPT: SignedDuration = SignedDuration::from_hours(24 * 400);

const DOING: &str = "forgetting what nobody asks for";

/// What goes, once it is old.
struct Old {
    table: &'static str,
    key: &'static str,
    /// Whether a row is, where `$1` is the moment.
    condition: &'static str,
    before: Timestamp,
}

impl Store {
    /// Forgets what nobody asks for any more, again and again, until `tasks` end. No token that is presented here, to be
    /// exchanged, lives longer than `longest_life`.
    pub fn look_after(&self, longest_life: SignedDuration, tasks: &Tasks) {
        let (store, stop) = (self.clone(), tasks.shutdown_token());
        tasks.repeat("upkeep of the state", EVERY, move || {
            let (store, stop) = (store.clone(), stop.clone());
            async move {
                let forgotten = tokio::select! {
                    () = stop.cancelled() => return,
                    forgotten = store.forget(longest_life, net::clock::now()) => forgotten,
                };
                match forgotten {
                    Ok(Some(rows)) if rows > 0 => tracing::debug!(rows, "forgotten what nobody asks for any more"),
                    Ok(_) => {}
                    Err(error) => tracing::warn!(%error, "what nobody asks for is not forgotten: it will be later"),
                }
            }
        });
    }

    /// Forgets what nobody asks for any more at `now`; how many rows. `None` where a replica did within the last minute.
    ///
    /// # Errors
    /// When the database does not answer. What was forgotten by then is forgotten.
    pub async fn forget(&self, longest_life: SignedDuration, now: Timestamp) -> Result<Option<u64>, StoreError> {
        if !self.is_ours_to_forget(now).await? {
            return Ok(None);
        }
        let mut rows = 0;
        for old in self.old(longest_life, now).await? {
            rows += self.forget_all(&old).await?;
        }
        Ok(Some(rows + self.forget_changes(now).await?))
    }

    /// Notes that the ledger `id` has every change of `generation` up to `position`, so that those after it are kept.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn recorded(
        &self,
        id: &str,
        (generation, position): (&str, u64),
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let doing = "noting how far a ledger has come";
        let mut transaction = self.engine.begin(doing).await?;
        let sql = "INSERT INTO recorders (id, generation, position, seen) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO \
                   UPDATE SET generation = excluded.generation, position = excluded.position, seen = excluded.seen";
        let values = vec![id.into(), generation.into(), Value::position(position), now.into()];
        transaction.execute(doing, sql, values).await?;
        transaction.commit(doing).await
    }

    /// Whether no other replica does it now. A clock that is far ahead keeps nobody from it.
    async fn is_ours_to_forget(&self, now: Timestamp) -> Result<bool, StoreError> {
        // A little less than the pause, so that whoever did it last is not always a moment too early.
        let pause = SignedDuration::try_from(EVERY).unwrap_or_default() - SignedDuration::from_secs(5);
        let sql = "UPDATE upkeep SET at = $1 WHERE id = 1 AND (at <= $2 OR at > $3)";
        let values = vec![now.into(), before(now, pause).into(), now.checked_add(MARGIN).unwrap_or(now).into()];
        Ok(self.change(sql, values).await? == 1)
    }

    /// What is old at `now`.
    async fn old(&self, longest_life: SignedDuration, now: Timestamp) -> Result<Vec<Old>, StoreError> {
        let names = self.forget_names(now).await?;
        // Twice the margin: a follower asks by a clock that may be behind, and is told with a margin itself.
        let margin = MARGIN + MARGIN;
        let covers_nothing = before(now, margin);
        // As long as the token that was withdrawn may come to be exchanged; `until` is a day after it was.
        let tokens = before(now, margin + (longest_life - LONGEST_TOKEN).max(SignedDuration::ZERO));
        let ended = before(now, ENDED_KEPT);
        let limits = before(now, limits::KEPT);
        Ok(vec![
            Old { table: "used", key: "space, id", condition: "until < $1", before: names },
            Old {
                table: "answers",
                key: "made_by, idempotency",
                condition: "at < $1",
                before: before(now, ANSWERS_KEPT + MARGIN),
            },
            Old { table: "limit_leases", key: "sidecar, id", condition: "ends < $1", before: limits },
            Old { table: "limit_windows", key: "id, starts", condition: "ends < $1", before: limits },
            Old { table: "charges", key: "id", condition: "until < $1", before: limits },
            // What these were is registered as ended. Users, agents, instances and tenants stay withdrawn for whatever is older.
            Old {
                table: "withdrawals",
                key: "id",
                condition: "kind IN ('task', 'run', 'grant') AND until < $1",
                before: covers_nothing,
            },
            Old { table: "withdrawals", key: "id", condition: "kind = 'token' AND until < $1", before: tokens },
            Old {
                table: "withdrawals",
                key: "id",
                condition: "kind = 'session' AND until < $1",
                before: before(now, SESSION_KEPT),
            },
            Old { table: "tasks", key: "id", condition: OLD_TASKS, before: ended },
            Old { table: "grants", key: "id", condition: OLD_GRANTS, before: ended },
            Old { table: "join_tokens", key: "id", condition: "expires < $1", before: ended },
            Old { table: "recorders", key: "id", condition: "seen < $1", before: before(now, RECORDER_KEPT) },
        ])
    }

    /// Takes no name any more that ended an hour ago. What ended before that of the last time may go: whoever asked
    /// before it was said has been answered, so no question that is under way meets a gap.
    async fn forget_names(&self, now: Timestamp) -> Result<Timestamp, StoreError> {
        let last = single_use::forgotten(&self.engine).await?;
        let sql = "UPDATE forgotten SET until = $1 WHERE id = 1 AND until < $1";
        self.change(sql, vec![before(now, MARGIN).into()]).await?;
        Ok(last)
    }

    async fn forget_all(&self, old: &Old) -> Result<u64, StoreError> {
        let Old { table, key, condition, before } = old;
        let sql =
            format!("DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {condition} LIMIT {BATCH})");
        let mut rows = 0;
        loop {
            let gone = self.change(&sql, vec![(*before).into()]).await?;
            rows += gone;
            if gone < BATCH as u64 {
                return Ok(rows);
            }
        }
    }

    /// Changes go from the beginning of the log, up to the first that is young or that a ledger has not yet.
    async fn forget_changes(&self, now: Timestamp) -> Result<u64, StoreError> {
        let young = before(now, LONGEST_TOKEN + MARGIN);
        // Of a clock that was far ahead: it keeps nothing behind it.
        let wrong = now.checked_add(MARGIN).unwrap_or(Timestamp::MAX);
        // A ledger that has not begun with this generation has nothing of it.
        let sql = "SELECT coalesce((SELECT min(CASE WHEN recorders.generation = head.generation \
                   THEN recorders.position ELSE 0 END) FROM recorders), head.position) FROM head WHERE id = 1";
        let rows = self.engine.rows(DOING, sql, Vec::new()).await?;
        let recorded = rows.first().map(|row| row.integer(0)).transpose()?.unwrap_or_default();
        let (mut gone, mut last) = (0, 0);
        loop {
            let sql = format!(
                "SELECT position, at FROM changes WHERE position > $1 AND position <= $2 ORDER BY position LIMIT {BATCH}"
            );
            let rows = self.engine.rows(DOING, sql, vec![Value::position(last), Value::Integer(recorded)]).await?;
            let (all, before) = (rows.len() == BATCH, last);
            for row in rows {
                let at = row.moment(1)?;
                if young <= at && at <= wrong {
                    break;
                }
                last = row.position(0)?;
            }
            if last == before {
                return Ok(gone);
            }
            gone += self.change("DELETE FROM changes WHERE position <= $1", vec![Value::position(last)]).await?;
            if !all {
                return Ok(gone);
            }
        }
    }

    /// One statement in a transaction of its own.
    async fn change(&self, sql: &str, values: Vec<Value>) -> Result<u64, StoreError> {
        let mut transaction = self.engine.begin(DOING).await?;
        let rows = transaction.execute(DOING, sql, values).await?;
        if rows > 0 {
            transaction.commit(DOING).await?;
        }
        Ok(rows)
    }
}

/// A task that somebody took back stays for as long as its grant: its agent does not begin it again by itself. What is
/// declared stays, so that its file brings nothing back.
const OLD_TASKS: &str = "expires < $1 AND NOT (status = 'withdrawn' AND EXISTS (SELECT 1 FROM grants WHERE \
     grants.id = tasks.grant_id AND grants.expires >= $1)) \
     AND NOT EXISTS (SELECT 1 FROM declared WHERE kind = 'task' AND name = tasks.id)";

/// The last grant of a user to an agent counts, also where it has ended: it stays while an older one has not.
const OLD_GRANTS: &str = "expires < $1 AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.grant_id = grants.id) \
     AND NOT EXISTS (SELECT 1 FROM grants AS others WHERE others.user_issuer = grants.user_issuer \
     AND others.user_id = grants.user_id AND others.agent_issuer = grants.agent_issuer \
     AND others.agent_id = grants.agent_id AND others.expires >= $1) \
     AND NOT EXISTS (SELECT 1 FROM declared WHERE kind = 'grant' AND name = grants.id)";

/// The moment that is `by` before `now`.
pub(crate) fn before(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.checked_sub(by).unwrap_or(Timestamp::MIN)
}
