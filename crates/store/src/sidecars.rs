//! Enrolled sidecars: their public keys, what they serve, and the one-time tokens they join by.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use model::{Id, Principal, Tenant, Tool};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::{
    Store,
    changes::ChangeKind,
    digest,
    engine::{Row, Value},
    error::StoreError,
    jwk,
    page::{Listed, Page, Select},
    single_use,
    writing::{Begun, Committed, Writer, Writing, new_id},
};

/// What every join token begins with, so that one that was leaked is found.
pub const JOIN_TOKEN_PREFIX: &str = "countersign-join-";

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

/// A one-time token that a sidecar may join by. The secret itself is not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// Its name.
    pub id: Id<Self>,
    /// The name that the sidecar has to have, where it was said.
    pub name: Option<String>,
    /// What the sidecar will serve.
    pub serves: Serves,
    /// Who made it.
    pub made_by: String,
    /// When it ends.
    pub expires: Timestamp,
    /// The sidecar that joined by it.
    pub used_by: Option<Id<Sidecar>>,
    /// When it was taken back.
    pub withdrawn: Option<Timestamp>,
}

/// A join token to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewJoinToken {
    /// The name that the sidecar has to have; any, where absent.
    #[serde(default)]
    pub name: Option<String>,
    /// What the sidecar will serve.
    pub serves: Serves,
    /// When it ends.
    pub expires: Timestamp,
}

/// A join token that was made just now, or the first answer again.
#[derive(Debug)]
pub struct MadeJoinToken {
    /// The token.
    pub token: JoinToken,
    /// The secret, this once. An answer that is given again has none: nobody knows it any more.
    pub secret: Option<SecretString>,
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
const TOKEN: &str = "created, id, name, tenants, tools, agents, made_by, expires, used_by, withdrawn";

impl Store {
    /// Makes a token by which one sidecar may join. Only its digest is kept.
    ///
    /// # Errors
    /// When it would serve nothing, has ended already, or the database does not answer.
    pub async fn create_join_token(
        &self,
        writer: &Writer,
        new: NewJoinToken,
    ) -> Result<Committed<MadeJoinToken>, StoreError> {
        new.serves.check()?;
        if new.expires <= writer.now {
            return Err(StoreError::Invalid("the join token would have ended already".to_owned()));
        }
        let mut writing = match self.write::<JoinToken>("making a join token", writer, &new).await? {
            Begun::Answered(Committed { value: token, position, replayed }) => {
                return Ok(Committed { value: MadeJoinToken { token, secret: None }, position, replayed });
            }
            Begun::Open(writing) => writing,
        };
        let secret = secret()?;
        let token = JoinToken {
            id: new_id(writer.now)?,
            name: new.name,
            serves: new.serves,
            made_by: writer.by.clone(),
            expires: new.expires,
            used_by: None,
            withdrawn: None,
        };
        let values = vec![
            (&token.id).into(),
            Value::position(writing.next()),
            digest::hex(secret.expose_secret().as_bytes()).into(),
            token.name.as_deref().into(),
            Value::json(&token.serves.tenants)?,
            Value::optional_json(token.serves.tools.as_ref())?,
            Value::optional_json(token.serves.agents.as_ref())?,
            token.made_by.as_str().into(),
            token.expires.into(),
        ];
        let sql = "INSERT INTO join_tokens (id, created, digest, name, tenants, tools, agents, made_by, expires) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        writing.execute(sql, values).await?;
        writing.append(&ChangeKind::JoinTokenCreated(token.clone()), None).await?;
        let Committed { value: token, position, replayed } = writing.commit(token).await?;
        Ok(Committed { value: MadeJoinToken { token, secret: Some(secret) }, position, replayed })
    }

    /// Takes a join token back, unless it was used.
    ///
    /// # Errors
    /// When there is none of that name, it was used, or the database does not answer.
    pub async fn withdraw_join_token(
        &self,
        writer: &Writer,
        id: &Id<JoinToken>,
    ) -> Result<Committed<JoinToken>, StoreError> {
        let mut writing = match self.write("taking a join token back", writer, id).await? {
            Begun::Answered(answer) => return Ok(answer),
            Begun::Open(writing) => writing,
        };
        let sql = format!("SELECT {TOKEN} FROM join_tokens WHERE id = $1");
        let rows = writing.rows(sql, vec![id.into()]).await?;
        let row = rows.first().ok_or_else(|| StoreError::not_found("join token", id))?;
        let mut token = join_token(row)?;
        if let Some(sidecar) = &token.used_by {
            return Err(StoreError::Conflict(format!("sidecar {sidecar} has joined by it: remove the sidecar")));
        }
        if token.withdrawn.is_none() {
            token.withdrawn = Some(writer.now);
            let sql = "UPDATE join_tokens SET withdrawn = $1 WHERE id = $2";
            writing.execute(sql, vec![writer.now.into(), id.into()]).await?;
            writing.append(&ChangeKind::JoinTokenWithdrawn { id: id.clone() }, None).await?;
        }
        writing.commit(token).await
    }

    /// Join tokens, the oldest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn join_tokens(&self, page: Page) -> Result<Listed<JoinToken>, StoreError> {
        Select::new(TOKEN, "join_tokens", page).page(&self.engine, "listing join tokens", page, join_token).await
    }

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

/// What a join token is good for.
enum Redeemed {
    Now(JoinToken),
    /// The same sidecar asks again.
    Before(Box<Sidecar>),
}

impl Writing<'_> {
    async fn redeemed(&mut self, secret: &SecretString, name: &str, key: &SidecarKey) -> Result<Redeemed, StoreError> {
        // One answer for all that is wrong with a token: whoever tries some learns nothing.
        let not_good = || StoreError::Conflict("the join token is not good: unknown, used, or ended".to_owned());
        let sql = format!("SELECT {TOKEN} FROM join_tokens WHERE digest = $1");
        let rows = self.rows(sql, vec![digest::hex(secret.expose_secret().as_bytes()).into()]).await?;
        let token = join_token(rows.first().ok_or_else(not_good)?)?;
        if token.name.as_deref().is_some_and(|expected| expected != name) {
            return Err(not_good());
        }
        if let Some(id) = &token.used_by {
            let sidecar = self.enrolled(id).await.map_err(|_| not_good())?;
            let same = sidecar.name == name && sidecar.keys.iter().any(|had| had.id == key.id);
            return if same { Ok(Redeemed::Before(Box::new(sidecar))) } else { Err(not_good()) };
        }
        if token.withdrawn.is_some() || token.expires <= self.writer.now {
            return Err(not_good());
        }
        Ok(Redeemed::Now(token))
    }

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

    async fn enrolled(&mut self, id: &Id<Sidecar>) -> Result<Sidecar, StoreError> {
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
    fn check(&self) -> Result<(), StoreError> {
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

/// 256 random bits: too many to be guessed, so that a plain digest is all that has to be kept.
fn secret() -> Result<SecretString, StoreError> {
    let mut bytes = [0; 32];
    let no_random = |_| StoreError::Unavailable { doing: "making a secret", cause: "no random numbers".to_owned() };
    aws_lc_rs::rand::fill(&mut bytes).map_err(no_random)?;
    Ok(SecretString::from(format!("{JOIN_TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
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

fn join_token(row: &Row) -> Result<JoinToken, StoreError> {
    Ok(JoinToken {
        id: row.word(1)?,
        name: row.optional(2)?,
        serves: Serves { tenants: row.json(3)?, tools: row.optional_json(4)?, agents: row.optional_json(5)? },
        made_by: row.text(6)?,
        expires: row.moment(7)?,
        used_by: row.optional(8)?.map(|id| Id::new(&id)).transpose().map_err(StoreError::unreadable)?,
        withdrawn: row.optional_moment(9)?,
    })
}
