//! Sidecars that cannot write their ledgers, as they say themselves: their own records say so only once it is over. Off
//! the change log, one row for each sidecar that ever said so.

use jiff::Timestamp;
use model::Id;

use crate::{
    Store,
    engine::{Row, Value},
    error::StoreError,
    sidecars::Sidecar,
};

const DOING: &str = "noting that a sidecar's ledger fails";

/// A sidecar that cannot write its ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// The sidecar.
    pub sidecar: Id<Sidecar>,
    /// The ledger, by the sidecar's word.
    pub ledger: String,
    /// Since when, by the sidecar's clock.
    pub since: Timestamp,
    /// Why, by the sidecar's word.
    pub why: String,
    /// Whether an alert of it is on record.
    pub recorded: bool,
}

const OUTAGE: &str = "sidecar, ledger, since, why, recorded";

impl Store {
    /// Notes an outage, or that it goes on: which is known from when it began. What is known of it now.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn ledger_fails(&self, outage: &Outage) -> Result<Outage, StoreError> {
        let mut transaction = self.engine.begin(DOING).await?;
        let sql = "INSERT INTO ledger_outages (sidecar, ledger, since, why, recorded) VALUES ($1, $2, $3, $4, 0) \
                   ON CONFLICT (sidecar) DO UPDATE SET ledger = excluded.ledger, since = excluded.since, \
                   why = excluded.why, recorded = 0 WHERE ledger_outages.since <> excluded.since";
        let values = vec![
            (&outage.sidecar).into(),
            outage.ledger.as_str().into(),
            outage.since.into(),
            outage.why.as_str().into(),
        ];
        transaction.execute(DOING, sql, values).await?;
        let sql = format!("SELECT {OUTAGE} FROM ledger_outages WHERE sidecar = $1");
        let rows = transaction.rows(DOING, sql, vec![(&outage.sidecar).into()]).await?;
        let known = rows.first().map(read).transpose()?;
        transaction.commit(DOING).await?;
        known.ok_or_else(|| StoreError::Damaged("an outage that was noted is not there".to_owned()))
    }

    /// Notes that an alert of the outage is on record.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn outage_recorded(&self, sidecar: &Id<Sidecar>, since: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE ledger_outages SET recorded = 1 WHERE sidecar = $1 AND since = $2";
        self.note(sql, vec![sidecar.into(), since.into()]).await
    }

    /// Forgets the outage that began at `since`: it is over.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn outage_over(&self, sidecar: &Id<Sidecar>, since: Timestamp) -> Result<(), StoreError> {
        let sql = "DELETE FROM ledger_outages WHERE sidecar = $1 AND since = $2";
        self.note(sql, vec![sidecar.into(), since.into()]).await
    }

    /// The outage of `sidecar`, if there is one.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn outage(&self, sidecar: &Id<Sidecar>) -> Result<Option<Outage>, StoreError> {
        let sql = format!("SELECT {OUTAGE} FROM ledger_outages WHERE sidecar = $1");
        let rows = self.engine.rows("reading an outage", sql, vec![sidecar.into()]).await?;
        rows.first().map(read).transpose()
    }

    /// The outages of enrolled sidecars: there are as many at most as there are sidecars.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn outages(&self) -> Result<Vec<Outage>, StoreError> {
        let sql = format!(
            "SELECT {OUTAGE} FROM ledger_outages WHERE sidecar IN (SELECT id FROM sidecars WHERE status = 'enrolled')"
        );
        let rows = self.engine.rows("reading outages", sql, Vec::new()).await?;
        rows.iter().map(read).collect()
    }

    async fn note(&self, sql: &str, values: Vec<Value>) -> Result<(), StoreError> {
        let mut transaction = self.engine.begin(DOING).await?;
        transaction.execute(DOING, sql, values).await?;
        transaction.commit(DOING).await
    }
}

fn read(row: &Row) -> Result<Outage, StoreError> {
    Ok(Outage {
        sidecar: row.word(0)?,
        ledger: row.text(1)?,
        since: row.moment(2)?,
        why: row.text(3)?,
        recorded: row.integer(4)? == 1,
    })
}
