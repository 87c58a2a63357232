//! Pins: a bundle of policy stays at one of its revisions, at every sidecar, until that is taken back or is over. There
//! are few of them, and sidecars are told of all that hold, so that whoever was away needs no history.

use std::collections::BTreeSet;

use jiff::Timestamp;
use model::{Id, Tenant};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Store,
    changes::ChangeKind,
    engine::{Row, Value},
    error::StoreError,
    page::{Listed, Page, Select},
    upkeep,
    writing::{Begun, Committed, Writer, new_id},
};

/// The most that there may be: all of them are in each answer to a sidecar.
pub const MAX_PINS: usize = 200;

/// The most among them that may be for one tenant's sidecars, and for those of all tenants together: what tenants'
/// administrators pin takes no room from each other, nor from what is pinned everywhere.
const MAX_OF_ONE: usize = 20;
const MAX_OF_TENANTS: usize = 150;

/// A bundle that stays at one of its revisions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pin {
    /// Its name.
    pub id: Id<Self>,
    /// Its place in the change log.
    pub position: u64,
    /// The bundle, by the name of its source: `org` or a team's.
    pub bundle: String,
    /// The revision, as the bundle's manifest calls it.
    pub revision: String,
    /// The tenant whose sidecars are meant: those that serve no other one. All sidecars, where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Id<Tenant>>,
    /// When it is over; it has to be taken back, where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub until: Option<Timestamp>,
    /// When it was made.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// By whom.
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A pin to be made, in the place of one of the same bundle for the same sidecars.
#[derive(Debug, Clone, Serialize)]
pub struct NewPin {
    /// The bundle.
    pub bundle: String,
    /// The revision.
    pub revision: String,
    /// The tenant whose sidecars are meant.
    pub tenant: Option<Id<Tenant>>,
    /// When it is over.
    pub until: Option<Timestamp>,
}

impl Pin {
    /// Whether it holds at `now`.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// Whether a sidecar that serves `tenants` is meant. What one tenant's administrator says decides no other's calls.
    pub fn is_for(&self, tenants: &BTreeSet<Id<Tenant>>) -> bool {
        self.tenant.as_ref().is_none_or(|tenant| tenants.iter().all(|served| served == tenant))
    }
}

impl Store {
    /// Keeps a bundle at a revision. Another pin of the bundle for the same sidecars ends.
    ///
    /// # Errors
    /// When there are too many, or the database does not answer.
    pub async fn pin(&self, writer: &Writer, new: NewPin) -> Result<Committed<Pin>, StoreError> {
        let mut writing = match self.write("pinning a bundle", writer, &new).await? {
            Begun::Answered(answer) => return Ok(answer),
            Begun::Open(writing) => writing,
        };
        let NewPin { bundle, revision, tenant, until } = new;
        let whose = tenant.as_ref().map_or("", Id::as_str).to_owned();
        // Those that are over make room too.
        let over = upkeep::before(writer.now, upkeep::MARGIN);
        let sql = "DELETE FROM pins WHERE until < $1 OR (bundle = $2 AND tenant = $3)";
        writing.execute(sql, vec![over.into(), bundle.as_str().into(), whose.as_str().into()]).await?;
        let mut bounds = vec![("SELECT count(*) FROM pins", Vec::new(), MAX_PINS)];
        if tenant.is_some() {
            let own = vec![whose.as_str().into()];
            bounds.push(("SELECT count(*) FROM pins WHERE tenant = $1", own, MAX_OF_ONE));
            bounds.push(("SELECT count(*) FROM pins WHERE tenant <> ''", Vec::new(), MAX_OF_TENANTS));
        }
        for (sql, values, most) in bounds {
            let rows = writing.rows(sql, values).await?;
            let count = rows.first().map_or(Ok(0), |row| row.position(0))?;
            if usize::try_from(count).is_ok_and(|count| count >= most) {
                return Err(StoreError::Conflict(format!(
                    "there are {most} pins: take those back that are not needed"
                )));
            }
        }
        let pin = Pin {
            id: new_id(writer.now)?,
            position: writing.next(),
            bundle,
            revision,
            tenant,
            until,
            at: writer.now,
            by: writer.by.clone(),
            reason: writer.reason.clone(),
        };
        let values = vec![
            (&pin.id).into(),
            Value::position(pin.position),
            pin.bundle.as_str().into(),
            whose.into(),
            pin.until.into(),
            Value::json(&pin)?,
        ];
        let sql = "INSERT INTO pins (id, created, bundle, tenant, until, body) VALUES ($1, $2, $3, $4, $5, $6)";
        writing.execute(sql, values).await?;
        writing.append(&ChangeKind::PolicyPinned(pin.clone()), pin.tenant.as_ref()).await?;
        writing.commit(pin).await
    }

    /// Takes a pin back: sidecars go on to the newest revision.
    ///
    /// # Errors
    /// When there is none of that name, or the database does not answer.
    pub async fn unpin(&self, writer: &Writer, id: &Id<Pin>) -> Result<Committed<Pin>, StoreError> {
        let mut writing = match self.write("taking a pin back", writer, id).await? {
            Begun::Answered(answer) => return Ok(answer),
            Begun::Open(writing) => writing,
        };
        let rows = writing.rows("SELECT created, body FROM pins WHERE id = $1", vec![id.into()]).await?;
        let pin = read(rows.first().ok_or_else(|| StoreError::not_found("pin", id))?)?;
        writing.execute("DELETE FROM pins WHERE id = $1", vec![id.into()]).await?;
        writing.append(&ChangeKind::PolicyUnpinned(pin.clone()), pin.tenant.as_ref()).await?;
        writing.commit(pin).await
    }

    /// The pin called `id`, unless it was taken back.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn pinned(&self, id: &Id<Pin>) -> Result<Option<Pin>, StoreError> {
        let sql = "SELECT created, body FROM pins WHERE id = $1";
        let rows = self.engine.rows("reading a pin", sql, vec![id.into()]).await?;
        rows.first().map(read).transpose()
    }

    /// The pins that hold at `now`, the oldest first; only those of one bundle, where that is said.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn pins(&self, bundle: Option<&str>, now: Timestamp, page: Page) -> Result<Listed<Pin>, StoreError> {
        Select::new("created, body", "pins", page)
            .only("bundle = $$", bundle)
            .only("(until IS NULL OR until > $$)", Some(now))
            .page(&self.engine, "listing pins", page, read)
            .await
    }

    /// Every pin that holds at `now`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn all_pins(&self, now: Timestamp) -> Result<Vec<Pin>, StoreError> {
        Ok(self.pins(None, now, Page { after: 0, limit: MAX_PINS }).await?.items)
    }
}

fn read(row: &Row) -> Result<Pin, StoreError> {
    row.json(1)
}
