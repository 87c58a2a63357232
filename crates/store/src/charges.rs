//! Calls under idempotency keys that were charged to cumulative limits: each once, whichever sidecars it comes to.
//!
//! A row is written after what it stands for was taken from a slice, and goes before that is given back. So whoever goes
//! on a row goes on something that is counted: nothing here ever makes a limit be overspent.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use model::{Id, id::DecisionMark};

use crate::{
    Store, digest,
    engine::{Transaction, Value},
    error::StoreError,
    limits,
    remote::charges::{ChargeAnswer, ChargeRequest, ChargeStep},
    sidecars::Sidecar,
};

const DOING: &str = "charging a call once";

/// The longest that a call is known under its key; tools remember keys no longer either.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);
/// The most windows that one call is charged to.
const MAX_LIMITS: usize = 64;
/// The most calls of one sidecar that are known at a time. Others are charged again where they are repeated elsewhere.
const MAX_OF_SIDECAR: i64 = 100_000;
/// How long it is until those of a sidecar are counted again.
const COUNTED: SignedDuration = SignedDuration::from_secs(60);
/// The most sidecars that are counted at a time.
const MAX_COUNTED: usize = 10_000;

/// How many calls of each sidecar are known, as far as this replica has counted.
#[derive(Debug, Default)]
pub(crate) struct Counts(Mutex<HashMap<Id<Sidecar>, Count>>);

#[derive(Debug, Clone, Copy)]
struct Count {
    rows: i64,
    at: Timestamp,
}

/// A question that makes sense.
struct Asked<'a> {
    sidecar: &'a Sidecar,
    request: &'a ChargeRequest,
    /// The call, with everything that it is charged to.
    id: String,
    /// The limits, each by the name of its row.
    windows: Vec<String>,
    until: Timestamp,
}

impl Store {
    /// Does what `sidecar` tells of a call, and says which decision the call was charged for.
    ///
    /// # Errors
    /// When what it says makes no sense, it holds no such slice, a restore lost what was charged, or the database does
    /// not answer.
    pub async fn charge(
        &self,
        sidecar: &Sidecar,
        asked: &ChargeRequest,
        now: Timestamp,
    ) -> Result<ChargeAnswer, StoreError> {
        let asked = check(sidecar, asked, now)?;
        let closed = |_| StoreError::Unavailable { doing: DOING, cause: "it is being closed".to_owned() };
        let _place = self.leasing.acquire().await.map_err(closed)?;
        if asked.request.step == ChargeStep::Charge {
            self.room_for_one(sidecar, now).await?;
        }
        let mut transaction = self.engine.begin(DOING).await?;
        let answer = match asked.request.step {
            ChargeStep::Charge => asked.charge(&mut transaction, now).await?,
            ChargeStep::Repeat => asked.repeat(&mut transaction, now).await?,
            ChargeStep::Release => asked.release(&mut transaction, now).await?,
        };
        transaction.commit(DOING).await?;
        Ok(answer)
    }

    /// A sidecar that charges call after call fills no database.
    async fn room_for_one(&self, sidecar: &Sidecar, now: Timestamp) -> Result<(), StoreError> {
        let rows = match self.charges.one_more(&sidecar.id, now) {
            Some(rows) => rows,
            None => {
                let sql = format!(
                    "SELECT count(*) FROM (SELECT 1 FROM charges WHERE sidecar = $1 LIMIT {MAX_OF_SIDECAR}) AS held"
                );
                let rows = self.engine.rows(DOING, sql, vec![(&sidecar.id).into()]).await?;
                let rows = rows.first().map_or(Ok(0), |row| row.integer(0))?;
                self.charges.counted(&sidecar.id, rows, now);
                rows
            }
        };
        if rows < MAX_OF_SIDECAR {
            return Ok(());
        }
        Err(StoreError::Conflict("the sidecar has charged more calls than are remembered".to_owned()))
    }
}

impl Asked<'_> {
    /// Writes it down, where it is new.
    async fn charge(&self, transaction: &mut Transaction, now: Timestamp) -> Result<ChargeAnswer, StoreError> {
        self.of_known_windows(transaction).await?;
        self.holds_slices(transaction).await?;
        let sql = "INSERT INTO charges (id, sidecar, decision, repeated, until) VALUES ($1, $2, $3, 0, $4) \
                   ON CONFLICT (id) DO UPDATE SET sidecar = excluded.sidecar, decision = excluded.decision, \
                   repeated = 0, until = excluded.until WHERE charges.until <= $5";
        let values = vec![
            self.id.as_str().into(),
            (&self.sidecar.id).into(),
            (&self.request.decision).into(),
            self.until.into(),
            now.into(),
        ];
        if transaction.execute(DOING, sql, values).await? == 1 {
            return Ok(answer(Some(self.request.decision.clone()), self.until, now));
        }
        self.repeat(transaction, now).await
    }

    /// Goes on what is written, where something is. Its own is its own, however often it is told.
    async fn repeat(&self, transaction: &mut Transaction, now: Timestamp) -> Result<ChargeAnswer, StoreError> {
        self.of_known_windows(transaction).await?;
        let sql = "UPDATE charges SET repeated = 1 WHERE id = $1 AND until > $2 AND repeated = 0 \
                   AND NOT (sidecar = $3 AND decision = $4)";
        let mine: [Value; 2] = [(&self.sidecar.id).into(), (&self.request.decision).into()];
        let values = [self.id.as_str().into(), now.into()].into_iter().chain(mine).collect();
        transaction.execute(DOING, sql, values).await?;
        let sql = "SELECT decision, until FROM charges WHERE id = $1 AND until > $2";
        let rows = transaction.rows(DOING, sql, vec![self.id.as_str().into(), now.into()]).await?;
        let Some(row) = rows.first() else { return Ok(answer(None, now, now)) };
        let decision: Id<DecisionMark> = row.word(0)?;
        Ok(answer(Some(decision), row.moment(1)?, now))
    }

    /// Takes it away, unless another call goes on it. What is not there, nobody goes on, but where a restore took it away.
    async fn release(&self, transaction: &mut Transaction, now: Timestamp) -> Result<ChargeAnswer, StoreError> {
        self.of_known_windows(transaction).await?;
        let own = || -> Vec<Value> {
            vec![self.id.as_str().into(), (&self.sidecar.id).into(), (&self.request.decision).into()]
        };
        let sql = "DELETE FROM charges WHERE id = $1 AND sidecar = $2 AND decision = $3 AND repeated = 0";
        if transaction.execute(DOING, sql, own()).await? == 1 {
            return Ok(answer(None, now, now));
        }
        let sql = "SELECT until FROM charges WHERE id = $1 AND sidecar = $2 AND decision = $3";
        let rows = transaction.rows(DOING, sql, own()).await?;
        match rows.first() {
            Some(row) => Ok(answer(Some(self.request.decision.clone()), row.moment(0)?, now)),
            None => Ok(answer(None, now, now)),
        }
    }

    /// What was charged before a restore, what was released and who went on it is not known.
    async fn of_known_windows(&self, transaction: &mut Transaction) -> Result<(), StoreError> {
        let earliest = self.request.limits.iter().map(|charged| charged.starts).min().unwrap_or(Timestamp::MIN);
        limits::started_whole(transaction, earliest).await
    }

    /// Only what is taken from a slice of the sidecar's own stands for something that is counted.
    async fn holds_slices(&self, transaction: &mut Transaction) -> Result<(), StoreError> {
        for (charged, window) in self.request.limits.iter().zip(&self.windows) {
            let sql = "SELECT 1 FROM limit_leases WHERE sidecar = $1 AND id = $2 AND limit_id = $3 AND starts = $4 \
                       AND amount >= $5";
            let lease = charged.lease.as_ref().ok_or_else(|| invalid("what is charged is taken from a `lease`"))?;
            let values = vec![
                (&self.sidecar.id).into(),
                lease.into(),
                window.as_str().into(),
                charged.starts.into(),
                Value::position(charged.units),
            ];
            if transaction.rows(DOING, sql, values).await?.is_empty() {
                return Err(StoreError::Conflict("the sidecar holds no slice that it could be taken from".to_owned()));
            }
        }
        Ok(())
    }
}

/// Whether what is told makes sense, is this sidecar's business, and is about windows of now.
fn check<'a>(sidecar: &'a Sidecar, request: &'a ChargeRequest, now: Timestamp) -> Result<Asked<'a>, StoreError> {
    let hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if request.digest.len() != 64 || !request.digest.bytes().all(hexadecimal) {
        return Err(invalid("`digest` is 64 digits of a hexadecimal number, in lower case"));
    }
    if request.limits.is_empty() || request.limits.len() > MAX_LIMITS {
        return Err(invalid("a call is charged to at least one limit, and to 64 at most"));
    }
    let mut until = now.checked_add(LONGEST).unwrap_or(Timestamp::MAX);
    let mut windows = Vec::with_capacity(request.limits.len());
    let mut parts = Vec::with_capacity(request.limits.len());
    for charged in &request.limits {
        limits::may_see(sidecar, &request.tenant, &charged.limit)?;
        if charged.units > model::limits::MAX_UNITS {
            return Err(invalid("`units` has to be a number that can be kept"));
        }
        let period = charged.limit.window.at(charged.starts);
        if request.step != ChargeStep::Release {
            limits::is_now(&period, charged.starts, now)?;
        }
        until = until.min(period.ends);
        let window = limits::window_id(&limits::described(&charged.limit)?);
        parts.push(format!("{window} {} {}", charged.starts, charged.units));
        windows.push(window);
    }
    // In whichever order a sidecar looks at them.
    parts.sort_unstable();
    let call = format!("{}\n{}\n{}", request.tenant, request.digest, parts.join("\n"));
    Ok(Asked { sidecar, request, id: digest::hex(call.as_bytes()), windows, until })
}

fn invalid(why: &str) -> StoreError {
    StoreError::Invalid(why.to_owned())
}

fn answer(charged: Option<Id<DecisionMark>>, until: Timestamp, now: Timestamp) -> ChargeAnswer {
    let seconds = u64::try_from(until.duration_since(now).as_secs()).unwrap_or_default();
    ChargeAnswer { charged, seconds }
}

impl Counts {
    /// How many there were, before one more; `None` where they have to be counted.
    fn one_more(&self, sidecar: &Id<Sidecar>, now: Timestamp) -> Option<i64> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = known.get_mut(sidecar).filter(|count| now.duration_since(count.at).abs() < COUNTED)?;
        let rows = count.rows;
        count.rows = rows.saturating_add(1);
        Some(rows)
    }

    fn counted(&self, sidecar: &Id<Sidecar>, rows: i64, now: Timestamp) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_COUNTED {
            known.retain(|_, count| now.duration_since(count.at).abs() < COUNTED);
        }
        if known.len() < MAX_COUNTED {
            known.insert(sidecar.clone(), Count { rows: rows.saturating_add(1), at: now });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_a_sidecar_are_counted_once_a_minute() {
        let counts = Counts::default();
        let (sidecar, at) = (Id::new("one").unwrap(), |second| Timestamp::from_second(second).unwrap());
        assert_eq!(counts.one_more(&sidecar, at(0)), None);
        counts.counted(&sidecar, 7, at(0));
        assert_eq!(counts.one_more(&sidecar, at(1)), Some(8));
        assert_eq!(counts.one_more(&sidecar, at(59)), Some(9));
        assert_eq!(counts.one_more(&sidecar, at(60)), None);
        assert_eq!(counts.one_more(&sidecar, at(-60)), None, "also where a clock stepped back");
    }
}
