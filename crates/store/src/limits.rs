//! Cumulative limits across sidecars: who holds how much of each window. A slice counts as spent from the moment it is
//! leased until its sidecar gives it back, or the window ends: whatever is not known is spent.
//!
//! For each window there is one row that whoever leases holds, so what all slices together hold is never over the
//! maximum that was in force when the last of them was leased.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use model::{
    Authority, Element, Grant, Id, Tenant,
    limits::{Cumulative, Holder, LimitKey, MAX_UNITS, Period},
};

use crate::{
    Store, digest,
    engine::{Transaction, Value},
    error::StoreError,
    grants::{self, GrantStatus},
    remote::limits::{LeaseAnswer, LeaseRequest, MAX_LEASE},
    sidecars::Sidecar,
};

const DOING: &str = "leasing a slice of a limit";

/// How far a sidecar's clock may be from ours: so long before a window starts and after it ended, it may be leased from.
const SKEW: SignedDuration = SignedDuration::from_secs(5);
/// How long a window is remembered after its end.
pub(crate) const KEPT: SignedDuration = SignedDuration::from_hours(24);
/// The most slices that one sidecar may have of one window: it begins a new one with each start.
const MAX_OF_WINDOW: i64 = 1_024;
/// The most slices that one sidecar may have.
const MAX_OF_SIDECAR: i64 = 50_000;
/// The longest that a limit is described by, in bytes.
const MAX_DESCRIBED: usize = 4_096;
/// How many questions of one replica are with the database at a time: those that wait for the same window would keep
/// connections from everybody else.
pub(crate) const LINE: usize = 4;

/// What is known of a lease that is there.
struct Known {
    step: u64,
    amount: u64,
}

/// What all others hold of a window, and what of that they may give back.
struct Others {
    held: u64,
    reserved: u64,
}

impl Store {
    /// Does what `sidecar` asks, as far as there is room: counts what it spent, takes what it gives back, and leases it
    /// more. A question that was overtaken by a later one of the same lease changes nothing.
    ///
    /// # Errors
    /// When the limit is not one that the sidecar can see, what it says of itself cannot be, or the database does not
    /// answer.
    pub async fn lease(
        &self,
        sidecar: &Sidecar,
        asked: &LeaseRequest,
        now: Timestamp,
    ) -> Result<LeaseAnswer, StoreError> {
        let period = check(sidecar, asked, now)?;
        let described = described(&asked.limit)?;
        let closed = |_| StoreError::Unavailable { doing: DOING, cause: "it is being closed".to_owned() };
        let _place = self.leasing.acquire().await.map_err(closed)?;
        let window = window_id(&described);
        let mut transaction = self.engine.begin(DOING).await?;
        let sql = "INSERT INTO limit_windows (id, starts, ends, described) VALUES ($1, $2, $3, $4) \
                   ON CONFLICT (id, starts) DO UPDATE SET ends = excluded.ends";
        let values = vec![window.as_str().into(), period.starts.into(), period.ends.into(), described.into()];
        transaction.execute(DOING, sql, values).await?;
        let max = in_force(&mut transaction, sidecar, asked, now).await?;
        let known = known(&mut transaction, sidecar, asked, &window).await?;
        let others = others(&mut transaction, sidecar, asked, &window, now).await?;
        let longest = asked.seconds.min(MAX_LEASE.as_secs());
        let answer = |amount: u64| LeaseAnswer {
            amount,
            max,
            taken: others.held.saturating_add(amount),
            reserved: others.reserved,
            seconds: longest,
        };
        let granted = match &known {
            Some(known) if asked.step < known.step => {
                return Err(StoreError::Conflict("a later question of this lease was answered already".to_owned()));
            }
            Some(known) if asked.step == known.step => return Ok(answer(known.amount)),
            Some(known) => known.amount,
            None => 0,
        };
        if asked.want > 0 {
            started_whole(&mut transaction, period.starts).await?;
        }
        if asked.hold > granted {
            return Err(StoreError::Conflict("the lease does not hold as much as it would keep".to_owned()));
        }
        let room = max.saturating_sub(others.held).saturating_sub(asked.hold);
        let amount = asked.hold + share(room, asked.need, asked.want);
        if known.is_none() {
            if amount == 0 {
                // Nothing to remember.
                return Ok(answer(0));
            }
            room_for_one(&mut transaction, sidecar, &window, &period).await?;
        }
        let lasts = SignedDuration::from_secs(i64::try_from(longest).unwrap_or_default());
        let expires = now.checked_add(lasts).unwrap_or(now);
        put(&mut transaction, sidecar, asked, (&window, &period), (amount, expires)).await?;
        transaction.commit(DOING).await?;
        Ok(answer(amount))
    }
}

/// How much of `room` one that needs `need` gets: nothing where that does not fit, and beyond it at most half of what is
/// left, so that the last of a limit is not all in one place.
fn share(room: u64, need: u64, want: u64) -> u64 {
    let Some(left) = room.checked_sub(need) else { return 0 };
    need + want.saturating_sub(need).min(left / 2)
}

/// Whether what is asked makes sense, is this sidecar's business, and is about a window of now.
fn check(sidecar: &Sidecar, asked: &LeaseRequest, now: Timestamp) -> Result<Period, StoreError> {
    let invalid = |why: &str| Err(StoreError::Invalid(why.to_owned()));
    may_see(sidecar, &asked.tenant, &asked.limit)?;
    let sums = asked.hold.checked_add(asked.want);
    if asked.spent > asked.hold || asked.need > asked.want || sums.is_none_or(|sum| sum > MAX_UNITS) {
        return invalid(
            "the amounts have to be `spent` <= `hold`, `need` <= `want`, and together no more than can be counted",
        );
    }
    if asked.max > MAX_UNITS || asked.step > MAX_UNITS || asked.step == 0 {
        return invalid("`max` and `step` have to be numbers that can be kept, and `step` begins at 1");
    }
    let period = asked.limit.window.at(asked.starts);
    is_now(&period, asked.starts, now)?;
    Ok(period)
}

/// Whether a sidecar may say anything of `limit` for `tenant`.
pub(crate) fn may_see(sidecar: &Sidecar, tenant: &Id<Tenant>, limit: &LimitKey) -> Result<(), StoreError> {
    let of_another = matches!(&limit.holder, Holder::Issued { tenant: of, .. } if of != tenant);
    if of_another || !sidecar.serves.tenants.contains(tenant) {
        return Err(nothing());
    }
    Ok(())
}

/// Whether `period` begins at `starts`, and is now by a clock that is not far from ours.
pub(crate) fn is_now(period: &Period, starts: Timestamp, now: Timestamp) -> Result<(), StoreError> {
    let early = period.starts.checked_sub(SKEW).unwrap_or(Timestamp::MIN);
    let late = period.ends.checked_add(SKEW).unwrap_or(Timestamp::MAX);
    if period.starts != starts || now < early || late <= now {
        return Err(StoreError::Conflict(format!("the window that starts at {starts} is not now")));
    }
    Ok(())
}

/// The limit as text, always the same.
pub(crate) fn described(limit: &LimitKey) -> Result<String, StoreError> {
    let described = serde_json::to_string(limit).map_err(StoreError::unwritable)?;
    if described.len() > MAX_DESCRIBED {
        return Err(StoreError::Invalid("the limit's names are too long".to_owned()));
    }
    Ok(described)
}

/// What the rows of a limit's windows are called.
pub(crate) fn window_id(described: &str) -> String {
    digest::hex(described.as_bytes())
}

/// The maximum that is in force: of a grant's limit what the grant says now, whatever the sidecar says.
async fn in_force(
    transaction: &mut Transaction,
    sidecar: &Sidecar,
    asked: &LeaseRequest,
    now: Timestamp,
) -> Result<u64, StoreError> {
    match &asked.limit.holder {
        Holder::Grant { grant } => {
            let own = granted(transaction, sidecar, asked, grant, now).await?;
            let own = own.ok_or_else(|| StoreError::Conflict("the grant has no such limit any more".to_owned()))?;
            // A token from before it was raised says less, and that holds for its calls.
            Ok(own.min(asked.max))
        }
        Holder::Agent { grant, .. } => {
            let own = granted(transaction, sidecar, asked, grant, now).await?;
            Ok(own.map_or(asked.max, |own| own.min(asked.max)))
        }
        Holder::Issued { .. } => Ok(asked.max),
    }
}

/// The lowest maximum of the limit in the grant's elements, where it has one; refused where the sidecar could not have
/// seen a token under the grant.
async fn granted(
    transaction: &mut Transaction,
    sidecar: &Sidecar,
    asked: &LeaseRequest,
    id: &Id<Grant>,
    now: Timestamp,
) -> Result<Option<u64>, StoreError> {
    let sql = format!("SELECT {} FROM grants WHERE id = $1", grants::COLUMNS);
    let rows = transaction.rows(DOING, sql, vec![id.into()]).await?;
    let record = rows.first().map(|row| grants::read(row, 0)).transpose()?.ok_or_else(nothing)?;
    let Grant { agent, authority, expires_at, redelegate, .. } = &record.grant;
    let serves = &sidecar.serves;
    let sql = "SELECT tenants FROM agents WHERE issuer = $1 AND id = $2";
    let rows = transaction.rows(DOING, sql, vec![agent.issuer.as_str().into(), (&agent.id).into()]).await?;
    let tenants: BTreeSet<Id<Tenant>> = rows.first().map(|row| row.json(0)).transpose()?.unwrap_or_default();
    let serves_agent = *redelegate > 0 || serves.agents.as_ref().is_none_or(|agents| agents.contains(&agent.id));
    let tools = &serves.tools;
    let serves_tool = |element: &Element| tools.as_ref().is_none_or(|tools| !tools.is_disjoint(&element.locations));
    if !tenants.contains(&asked.tenant) || !serves_agent || !authority.elements.iter().any(serves_tool) {
        return Err(nothing());
    }
    if record.status != GrantStatus::Active || *expires_at <= now {
        return Err(StoreError::Conflict("the grant holds no more".to_owned()));
    }
    Ok(lowest(authority, &asked.limit))
}

/// The lowest maximum that `authority` gives the limit `key`.
fn lowest(authority: &Authority, key: &LimitKey) -> Option<u64> {
    let same = |limit: &&Cumulative| {
        limit.sum == key.sum && limit.window == key.window && limit.max.currency() == key.currency.as_deref()
    };
    let elements = authority.elements.iter();
    let limits = elements.flat_map(|element| element.limits.cumulative());
    limits.filter(|(name, _)| *name == key.name).map(|(_, limit)| limit).filter(same).map(Cumulative::ceiling).min()
}

async fn known(
    transaction: &mut Transaction,
    sidecar: &Sidecar,
    asked: &LeaseRequest,
    window: &str,
) -> Result<Option<Known>, StoreError> {
    let sql = "SELECT step, amount, limit_id, starts FROM limit_leases WHERE sidecar = $1 AND id = $2";
    let rows = transaction.rows(DOING, sql, vec![(&sidecar.id).into(), (&asked.lease).into()]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    if row.text(2)? != window || row.moment(3)? != asked.starts {
        return Err(StoreError::Conflict("the lease is of another window".to_owned()));
    }
    Ok(Some(Known { step: row.position(0)?, amount: row.position(1)? }))
}

async fn others(
    transaction: &mut Transaction,
    sidecar: &Sidecar,
    asked: &LeaseRequest,
    window: &str,
    now: Timestamp,
) -> Result<Others, StoreError> {
    let sql = "SELECT CAST(coalesce(sum(amount), 0) AS bigint), \
               CAST(coalesce(sum(CASE WHEN expires > $3 THEN amount - spent ELSE 0 END), 0) AS bigint) \
               FROM limit_leases WHERE limit_id = $1 AND starts = $2 AND NOT (sidecar = $4 AND id = $5)";
    let values = vec![window.into(), asked.starts.into(), now.into(), (&sidecar.id).into(), (&asked.lease).into()];
    let rows = transaction.rows(DOING, sql, values).await?;
    let row = rows.first().ok_or_else(|| StoreError::Damaged("a sum has no row".to_owned()))?;
    Ok(Others { held: row.position(0)?, reserved: row.position(1)? })
}

/// What was leased of a window before a restore is not known: nobody can say how much of it is left.
pub(crate) async fn started_whole(transaction: &mut Transaction, starts: Timestamp) -> Result<(), StoreError> {
    let sql = "SELECT began FROM head WHERE restored = 1";
    let rows = transaction.rows(DOING, sql, Vec::new()).await?;
    match rows.first() {
        Some(row) if starts < row.moment(0)? => Err(StoreError::Conflict(
            "the state was restored within this window: what was spent of it is not known".to_owned(),
        )),
        _ => Ok(()),
    }
}

/// A sidecar that begins slice after slice fills no database.
async fn room_for_one(
    transaction: &mut Transaction,
    sidecar: &Sidecar,
    window: &str,
    period: &Period,
) -> Result<(), StoreError> {
    let sql = "SELECT count(*) FROM limit_leases WHERE limit_id = $1 AND starts = $2 AND sidecar = $3";
    let values = vec![window.into(), period.starts.into(), (&sidecar.id).into()];
    let of_window = count(transaction, sql.to_owned(), values).await?;
    let sql =
        format!("SELECT count(*) FROM (SELECT 1 FROM limit_leases WHERE sidecar = $1 LIMIT {MAX_OF_SIDECAR}) AS held");
    let of_sidecar = count(transaction, sql, vec![(&sidecar.id).into()]).await?;
    if of_window >= MAX_OF_WINDOW || of_sidecar >= MAX_OF_SIDECAR {
        return Err(StoreError::Conflict("the sidecar has more slices than it may".to_owned()));
    }
    Ok(())
}

async fn count(transaction: &mut Transaction, sql: String, values: Vec<Value>) -> Result<i64, StoreError> {
    let rows = transaction.rows(DOING, sql, values).await?;
    rows.first().map_or(Ok(0), |row| row.integer(0))
}

async fn put(
    transaction: &mut Transaction,
    sidecar: &Sidecar,
    asked: &LeaseRequest,
    (window, period): (&str, &Period),
    (amount, expires): (u64, Timestamp),
) -> Result<(), StoreError> {
    let sql = "INSERT INTO limit_leases (sidecar, id, limit_id, starts, ends, step, amount, spent, expires) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
               ON CONFLICT (sidecar, id) DO UPDATE SET step = excluded.step, amount = excluded.amount, \
               spent = excluded.spent, expires = excluded.expires";
    let values = vec![
        (&sidecar.id).into(),
        (&asked.lease).into(),
        window.into(),
        period.starts.into(),
        period.ends.into(),
        Value::position(asked.step),
        Value::position(amount),
        Value::position(asked.spent),
        expires.into(),
    ];
    transaction.execute(DOING, sql, values).await.map(drop)
}

/// The same for what is not there and for what is somebody else's, so that names cannot be tried.
fn nothing() -> StoreError {
    StoreError::not_found("limit", "of that name that this sidecar serves")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_limit_is_not_all_in_one_place_and_nobody_gets_less_than_they_need() {
        assert_eq!(share(100, 10, 30), 30);
        assert_eq!(share(100, 10, 300), 55);
        assert_eq!(share(10, 10, 30), 10);
        assert_eq!(share(9, 10, 30), 0);
        assert_eq!(share(0, 0, 0), 0);
        assert_eq!(share(1, 0, 5), 0);
    }
}
