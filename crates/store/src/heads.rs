//! The ledgers of enrolled sidecars, and their heads that are anchored here: the newest of each, and some before it.
//!
//! Which ledgers there are is a change like any other. A head takes no position: one comes from each sidecar each
//! second, and a follower has no use for it.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use model::{Id, Tenant};
use serde::{Deserialize, Serialize};

use crate::{
    Store,
    changes::ChangeKind,
    engine::{Row, Value},
    error::StoreError,
    page::{Listed, Page, Select},
    sidecars::Sidecar,
    writing::{Begun, Committed, Writer},
};

/// How many ledgers one sidecar may speak for: each life of a machine may have begun one.
const MAX_LEDGERS: i64 = 1000;
/// How many earlier heads of a ledger are kept.
pub const MAX_EARLIER_HEADS: usize = 500;
/// How far apart these are at least.
const APART: SignedDuration = SignedDuration::from_mins(1);

const LEDGER: &str = "created, id, sidecar, tenants, verifying_key, enrolled, size, tree, note, anchored";
const ANCHORING: &str = "anchoring a head";

/// A ledger of an enrolled sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownLedger {
    /// Its own id.
    pub id: Id<Self>,
    /// The sidecar that speaks for it.
    pub sidecar: Id<Sidecar>,
    /// The tenants whose records it may hold: all that a sidecar served which spoke for it, also once it serves them no
    /// more. What is written stays theirs.
    pub tenants: BTreeSet<Id<Tenant>>,
    /// The key that signs its heads.
    pub verifying_key: String,
    /// Since when.
    pub enrolled: Timestamp,
    /// The newest head; absent before the first.
    pub head: Option<AnchoredHead>,
}

/// A head that was verified here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnchoredHead {
    /// How many lines it covers.
    pub size: u64,
    /// What the next head is judged by.
    pub tree: String,
    /// The signed note.
    pub note: String,
    /// When it was anchored.
    pub at: Timestamp,
}

impl Store {
    /// Takes note that `sidecar` speaks for the ledger `id`, whose heads are signed by `verifying_key`. Whoever asks has
    /// verified that the key says so itself.
    ///
    /// # Errors
    /// When the ledger is known by another key, or the database does not answer.
    pub async fn enrol_ledger(
        &self,
        writer: &Writer,
        id: &Id<KnownLedger>,
        sidecar: &Sidecar,
        verifying_key: &str,
    ) -> Result<Committed<KnownLedger>, StoreError> {
        let request = (id, &sidecar.id, verifying_key);
        let mut writing = match self.write("enrolling a ledger", writer, &request).await? {
            Begun::Answered(answer) => return Ok(answer),
            Begun::Open(writing) => writing,
        };
        let rows = writing.rows(format!("SELECT {LEDGER} FROM ledgers WHERE id = $1"), vec![id.into()]).await?;
        let known = rows.first().map(ledger).transpose()?;
        // What was recorded for a tenant stays in it, whomever the sidecar serves by now.
        let before = known.iter().flat_map(|known| &known.tenants);
        let ledger = KnownLedger {
            id: id.clone(),
            sidecar: sidecar.id.clone(),
            tenants: before.chain(&sidecar.serves.tenants).cloned().collect(),
            verifying_key: verifying_key.to_owned(),
            enrolled: writer.now,
            head: known.as_ref().and_then(|known| known.head.clone()),
        };
        match known {
            Some(known) if known.verifying_key != verifying_key => {
                return Err(StoreError::Conflict(format!("the ledger {id} is known by another key")));
            }
            Some(known) if (&known.sidecar, &known.tenants) == (&ledger.sidecar, &ledger.tenants) => {
                return writing.commit(known).await;
            }
            Some(_) => {
                let sql = "UPDATE ledgers SET sidecar = $1, tenants = $2, enrolled = $3, changed = $4 WHERE id = $5";
                let (tenants, position) = (Value::json(&ledger.tenants)?, Value::position(writing.next()));
                writing
                    .execute(sql, vec![(&ledger.sidecar).into(), tenants, writer.now.into(), position, id.into()])
                    .await?;
            }
            None => {
                let sql = "SELECT count(*) FROM ledgers WHERE sidecar = $1";
                let rows = writing.rows(sql, vec![(&sidecar.id).into()]).await?;
                if rows.first().map_or(Ok(0), |row| row.integer(0))? >= MAX_LEDGERS {
                    return Err(StoreError::Conflict(format!("sidecar {} speaks for too many ledgers", sidecar.id)));
                }
                let sql = "INSERT INTO ledgers (id, created, changed, sidecar, tenants, verifying_key, enrolled, size, tree) \
                           VALUES ($1, $2, $2, $3, $4, $5, $6, 0, '')";
                let values = vec![
                    id.into(),
                    Value::position(writing.next()),
                    (&ledger.sidecar).into(),
                    Value::json(&ledger.tenants)?,
                    verifying_key.into(),
                    writer.now.into(),
                ];
                writing.execute(sql, values).await?;
            }
        }
        let change = ChangeKind::LedgerEnrolled {
            id: id.clone(),
            sidecar: sidecar.id.clone(),
            verifying_key: verifying_key.to_owned(),
        };
        writing.append(&change, None).await?;
        writing.commit(ledger).await
    }

    /// The ledger called `id`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn ledger(&self, id: &Id<KnownLedger>) -> Result<Option<KnownLedger>, StoreError> {
        let sql = format!("SELECT {LEDGER} FROM ledgers WHERE id = $1");
        let rows = self.engine.rows("reading a ledger", sql, vec![id.into()]).await?;
        rows.first().map(ledger).transpose()
    }

    /// The ledgers, the oldest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn ledgers(&self, page: Page) -> Result<Listed<KnownLedger>, StoreError> {
        Select::new(LEDGER, "ledgers", page).page(&self.engine, "listing ledgers", page, ledger).await
    }

    /// Makes `head` the newest of the ledger `id`, whose newest covers `before` lines; false where it is another one by
    /// now, and nothing is changed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn anchor(&self, id: &Id<KnownLedger>, before: u64, head: &AnchoredHead) -> Result<bool, StoreError> {
        let mut transaction = self.engine.begin(ANCHORING).await?;
        let sql = "UPDATE ledgers SET size = $1, tree = $2, note = $3, anchored = $4 WHERE id = $5 AND size = $6";
        let values = vec![
            Value::position(head.size),
            head.tree.as_str().into(),
            head.note.as_str().into(),
            head.at.into(),
            id.into(),
            Value::position(before),
        ];
        if transaction.execute(ANCHORING, sql, values).await? != 1 {
            return Ok(false);
        }
        let sql = "INSERT INTO ledger_heads (ledger, size, note, anchored) SELECT $1, $2, $3, $4 WHERE NOT EXISTS \
                   (SELECT 1 FROM ledger_heads WHERE ledger = $1 AND anchored > $5) ON CONFLICT (ledger, size) DO NOTHING";
        let recent = head.at.checked_sub(APART).unwrap_or(Timestamp::MIN);
        let values =
            vec![id.into(), Value::position(head.size), head.note.as_str().into(), head.at.into(), recent.into()];
        if transaction.execute(ANCHORING, sql, values).await? == 1 {
            let sql = format!(
                "DELETE FROM ledger_heads WHERE ledger = $1 AND size < (SELECT min(kept.size) FROM (SELECT size FROM \
                 ledger_heads WHERE ledger = $1 ORDER BY size DESC LIMIT {MAX_EARLIER_HEADS}) AS kept)"
            );
            transaction.execute(ANCHORING, sql, vec![id.into()]).await?;
        }
        transaction.commit(ANCHORING).await?;
        Ok(true)
    }

    /// Signed notes of the ledger `id`, the oldest first and the newest last; each was verified against the one before.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn ledger_heads(&self, id: &Id<KnownLedger>) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT size, note FROM ledger_heads WHERE ledger = $1 UNION \
                   SELECT size, note FROM ledgers WHERE id = $1 AND note IS NOT NULL ORDER BY size";
        let rows = self.engine.rows("reading a ledger's heads", sql, vec![id.into()]).await?;
        rows.iter().map(|row| row.text(1)).collect()
    }
}

fn ledger(row: &Row) -> Result<KnownLedger, StoreError> {
    let head = match (row.optional(8)?, row.optional_moment(9)?) {
        (Some(note), Some(at)) => Some(AnchoredHead { size: row.position(6)?, tree: row.text(7)?, note, at }),
        _ => None,
    };
    Ok(KnownLedger {
        id: row.word(1)?,
        sidecar: row.word(2)?,
        tenants: row.json(3)?,
        verifying_key: row.text(4)?,
        enrolled: row.moment(5)?,
        head,
    })
}
