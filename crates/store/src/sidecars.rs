//! Enrolled sidecars: their public keys, what they serve, and what they prove themselves by.

use std::collections::BTreeSet;

use jiff::Timestamp;
use model::{Id, Principal, Tenant, Tool};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::{
    Store,
    changes::ChangeKind,
    engine::{Row, Value},
    error::StoreError,
    join_tokens::Redeemed,
    jwk,
    page::{Listed, Page, Select},
    single_use,
    writing::{Begun, Committed, Writer, Writing, new_id},
};

/// An enrolled sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sidecar {
    /// Its name here: `<authority>/sidecars/<id>` is the `iss` of what it signs.
    pub id: Id<Self>,
    /// Its name for people.
    pub name: String,
    /// Its public keys; several overlap while one replaces the other.
    pub keys: Vec<SidecarKey>,
    /// What it serves, and so may see.
    pub serves: Serves,
    /// When it was enrolled.
    pub enrolled: Timestamp,
    /// What it proved itself by: a join token's id, a SPIFFE ID, a service account.
    pub enrolled_by: String,
    /// Whether it may ask and sign.
    pub status: SidecarStatus,
}

/// One public key of a sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SidecarKey {
    /// Its RFC 7638 thumbprint: the `kid` of what it signs.
    pub id: String,
    /// The key (RFC 7517), public members only.
    pub jwk: serde_json::Value,
    /// Since when.
    pub added: Timestamp,
    /// When it is good no more, where another one replaces it.
    pub retires: Option<Timestamp>,
}

/// What a sidecar serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serves {
    /// The tenants; at least one.
    pub tenants: BTreeSet<Id<Tenant>>,
    /// The tools; all of its tenants' where absent.
    #[serde(default)]
    pub tools: Option<BTreeSet<Id<Tool>>>,
    /// The agents; all of its tenants' where absent.
    #[serde(default)]
    pub agents: Option<BTreeSet<Id<Principal>>>,
}

/// Whether a sidecar may ask and sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SidecarStatus {
    /// It may.
    Enrolled,
    /// It never will again under this id.
    Removed,
}

/// What a sidecar proves itself by.
#[derive(Debug, Clone)]
pub enum Enrolment {
    /// A one-time join token.
    JoinToken(SecretString),
    /// Something the caller has verified.
    Proved {
        /// What, for the record: a SPIFFE ID, a service account.
        by: String,
        /// What the sidecar is to serve.
        serves: Serves,
        /// What enrols one key only: a token that others may have seen.
        once: Option<Evidence>,
    },
}

/// Something that enrols one key, and no other one after it.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// Its own name: a digest of it.
    pub id: String,
    /// When it ends.
    pub until: Timestamp,
}

/// How many sidecars one identity may have enrolled: whoever enrols again and again does not fill the database.
const MAX_OF_ONE_IDENTITY: usize = 1_000;

const SIDECAR: &str = "created, id, name, keys, tenants, tools, agents, enrolled, enrolled_by, status";

impl Store {
    /// Enrols a sidecar called `name` with the public key `jwk`. A sidecar that lost the answer may ask again with
    /// the same token and key.
    ///
    /// # Errors
    /// When the token is not good (which is all that is said), the key is no public key, or the database does not
    /// answer.
    pub async fn enrol(
        &self,
        writer: &Writer,
        enrolment: &Enrolment,
        name: &str,
        jwk: &serde_json::Value,
    ) -> Result<Committed<Sidecar>, StoreError> {
        let key = SidecarKey { id: jwk::thumbprint(jwk)?, jwk: jwk::public(jwk)?, added: writer.now, retires: None };
        if name.is_empty() || name.len() > model::id::MAX_ID_BYTES || name.chars().any(char::is_control) {
            return Err(StoreError::Invalid("a sidecar has a name of at most 256 bytes on one line".to_owned()));
        }
        let request = (name, &key.id);
        let mut writing = match self.write("enrolling a sidecar", writer, &request).await? {
            Begun::Answered(answer) => return Ok(answer),
            Begun::Open(writing) => writing,
        };
        let (serves, by, token) = match enrolment {
            Enrolment::Proved { by, serves, once } => match writing.proved(by, once.as_ref(), name, &key).await? {
                Some(sidecar) => {
                    return Ok(Committed { value: sidecar, position: writing.next() - 1, replayed: true });
                }
                None => (serves.clone(), by.clone(), None),
            },
            Enrolment::JoinToken(secret) => match writing.redeemed(secret, name, &key).await? {
                Redeemed::Before(sidecar) => {
                    return Ok(Committed { value: *sidecar, position: writing.next() - 1, replayed: true });
                }
                Redeemed::Now(token) => (token.serves, format!("join token {}", token.id), Some(token.id)),
            },
        };
        serves.check()?;
        let sidecar = Sidecar {
            id: new_id(writer.now)?,
            name: name.to_owned(),
            keys: vec![key],
            serves,
            enrolled: writer.now,
            enrolled_by: by,
            status: SidecarStatus::Enrolled,
        };
        writing.insert(&sidecar).await?;
        if let Some(token) = token {
            let sql = "UPDATE join_tokens SET used_by = $1 WHERE id = $2";
            writing.execute(sql, vec![(&sidecar.id).into(), (&token).into()]).await?;
        }
        writing.append(&ChangeKind::SidecarEnrolled(sidecar.clone()), None).await?;
        writing.commit(sidecar).await
    }

    /// The sidecar called `id`, removed or not.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn sidecar(&self, id: &Id<Sidecar>) -> Result<Option<Sidecar>, StoreError> {
        let sql = format!("SELECT {SIDECAR} FROM sidecars WHERE id = $1");
        let rows = self.engine.rows("reading a sidecar", sql, vec![id.into()]).await?;
        rows.first().map(sidecar).transpose()
    }

    /// Sidecars, the oldest first; only those that are `status`, where that is said.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn sidecars(&self, status: Option<SidecarStatus>, page: Page) -> Result<Listed<Sidecar>, StoreError> {
        let status = status.map(|status| Value::word(&status)).transpose()?;
        Select::new(SIDECAR, "sidecars", page)
            .only("status = $$", status)
            .page(&self.engine, "listing sidecars", page, sidecar)
            .await
    }

    /// Gives a sidecar another key; those it has retire at `retires`.
    ///
    /// # Errors
    /// When there is none of that name, the key is no public key, or the database does not answer.
    pub async fn add_sidecar_key(
        &self,
        writer: &Writer,
        id: &Id<Sidecar>,
        jwk: &serde_json::Value,
        retires: Timestamp,
    ) -> Result<Committed<Sidecar>, StoreError> {
        let key = SidecarKey { id: jwk::thumbprint(jwk)?, jwk: jwk::public(jwk)?, added: writer.now, retires: None };
        let mut writing = match self.write("adding a sidecar's key", writer, &(id, &key.id, retires)).await? {
            Begun::Answered(answer) => return Ok(answer),
            Begun::Open(writing) => writing,
        };
        let mut sidecar = writing.enrolled(id).await?;
        if sidecar.keys.iter().any(|had| had.id == key.id) {
            return writing.commit(sidecar).await;
        }
        sidecar.keys.retain(|had| had.retires.is_none_or(|retires| retires > writer.now));
        for had in &mut sidecar.keys {
            had.retires = Some(had.retires.map_or(retires, |before| before.min(retires)));
        }
        sidecar.keys.push(key);
        let sql = "UPDATE sidecars SET keys = $1, changed = $2 WHERE id = $3";
        let values = vec![Value::json(&sidecar.keys)?, Value::position(writing.next()), id.into()];
        writing.execute(sql, values).await?;
        writing.append(&ChangeKind::SidecarChanged(sidecar.clone()), None).await?;
        writing.commit(sidecar).await
    }

    /// Removes a sidecar: it may follow, ask and sign no more.
    ///
    /// # Errors
    /// When there is none of that name, or the database does not answer.
    pub async fn remove_sidecar(&self, writer: &Writer, id: &Id<Sidecar>) -> Result<Committed<Sidecar>, StoreError> {
        let mut writing = match self.write("removing a sidecar", writer, id).await? {
            Begun::Answered(answer) => return Ok(answer),
            Begun::Open(writing) => writing,
        };
        let mut sidecar = writing.enrolled(id).await?;
        sidecar.status = SidecarStatus::Removed;
        let sql = "UPDATE sidecars SET status = $1, changed = $2 WHERE id = $3";
        let values = vec![Value::word(&sidecar.status)?, Value::position(writing.next()), id.into()];
        writing.execute(sql, values).await?;
        writing.append(&ChangeKind::SidecarRemoved { id: id.clone() }, None).await?;
        writing.commit(sidecar).await
    }
}

impl Writing<'_> {
    /// The sidecar that was enrolled with the same proof and key before. A key that was removed does not come back.
    async fn proved(
        &mut self,
        by: &str,
        once: Option<&Evidence>,
        name: &str,
        key: &SidecarKey,
    ) -> Result<Option<Sidecar>, StoreError> {
        let sql = format!("SELECT {SIDECAR} FROM sidecars WHERE enrolled_by = $1");
        let of_one = self.rows(sql, vec![by.into()]).await?;
        let of_one = of_one.iter().map(sidecar).collect::<Result<Vec<_>, _>>()?;
        if let Some(before) = of_one.iter().find(|it| it.keys.iter().any(|had| had.id == key.id)) {
            return match before.status {
                SidecarStatus::Enrolled if before.name == name => Ok(Some(before.clone())),
                SidecarStatus::Enrolled => {
                    Err(StoreError::Conflict("the key has joined under another name".to_owned()))
                }
                SidecarStatus::Removed => Err(StoreError::Conflict("the sidecar with this key was removed".to_owned())),
            };
        }
        if of_one.iter().filter(|it| it.status == SidecarStatus::Enrolled).count() >= MAX_OF_ONE_IDENTITY {
            return Err(StoreError::Conflict(format!(
                "{by} has {MAX_OF_ONE_IDENTITY} sidecars: remove those that are gone"
            )));
        }
        if let Some(Evidence { id, until }) = once
            && !single_use::insert_one(&mut self.transaction, "enrolment", id, *until).await?
        {
            return Err(StoreError::Conflict("what it proves itself by has enrolled another key".to_owned()));
        }
        Ok(None)
    }

    /// The sidecar called `id`, unless it was removed.
    pub(crate) async fn enrolled(&mut self, id: &Id<Sidecar>) -> Result<Sidecar, StoreError> {
        let sql = format!("SELECT {SIDECAR} FROM sidecars WHERE id = $1");
        let rows = self.rows(sql, vec![id.into()]).await?;
        let sidecar = sidecar(rows.first().ok_or_else(|| StoreError::not_found("sidecar", id))?)?;
        match sidecar.status {
            SidecarStatus::Enrolled => Ok(sidecar),
            SidecarStatus::Removed => Err(StoreError::Conflict(format!("the sidecar {id} was removed"))),
        }
    }

    async fn insert(&mut self, sidecar: &Sidecar) -> Result<(), StoreError> {
        let position = Value::position(self.next());
        let values = vec![
            (&sidecar.id).into(),
            position,
            sidecar.name.as_str().into(),
            Value::json(&sidecar.keys)?,
            Value::json(&sidecar.serves.tenants)?,
            Value::optional_json(sidecar.serves.tools.as_ref())?,
            Value::optional_json(sidecar.serves.agents.as_ref())?,
            sidecar.enrolled.into(),
            sidecar.enrolled_by.as_str().into(),
            Value::word(&sidecar.status)?,
        ];
        let sql = "INSERT INTO sidecars (id, created, changed, name, keys, tenants, tools, agents, enrolled, \
                   enrolled_by, status) VALUES ($1, $2, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        self.execute(sql, values).await?;
        Ok(())
    }
}

impl Serves {
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        if self.tenants.is_empty() {
            return Err(StoreError::Invalid("a sidecar serves at least one tenant".to_owned()));
        }
        Ok(())
    }
}

impl Sidecar {
    /// The key called `id`, if it is good at `now`.
    pub fn key(&self, id: &str, now: Timestamp) -> Option<&SidecarKey> {
        self.keys.iter().find(|key| key.id == id && key.retires.is_none_or(|retires| now < retires))
    }
}

fn sidecar(row: &Row) -> Result<Sidecar, StoreError> {
    Ok(Sidecar {
        id: row.word(1)?,
        name: row.text(2)?,
        keys: row.json(3)?,
        serves: Serves { tenants: row.json(4)?, tools: row.optional_json(5)?, agents: row.optional_json(6)? },
        enrolled: row.moment(7)?,
        enrolled_by: row.text(8)?,
        status: row.word(9)?,
    })
}
