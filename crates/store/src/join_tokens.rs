//! The one-time tokens that sidecars join by: made, taken back, redeemed. Their secrets are nowhere.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use model::Id;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::{
    Store,
    changes::ChangeKind,
    digest,
    engine::{Row, Value},
    error::StoreError,
    page::{Listed, Page, Select},
    sidecars::{Serves, Sidecar, SidecarKey},
    writing::{Begun, Committed, Writer, Writing, new_id},
};

/// What every join token begins with, so that one that was leaked is found.
pub const JOIN_TOKEN_PREFIX: &str = "countersign-join-";

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
}

/// What a join token is good for.
pub(crate) enum Redeemed {
    Now(JoinToken),
    /// The same sidecar asks again.
    Before(Box<Sidecar>),
}

impl Writing<'_> {
    /// What the token is good for, for a sidecar with this name and key.
    pub(crate) async fn redeemed(
        &mut self,
        secret: &SecretString,
        name: &str,
        key: &SidecarKey,
    ) -> Result<Redeemed, StoreError> {
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
}

/// 256 random bits: too many to be guessed, so that a plain digest is all that has to be kept.
fn secret() -> Result<SecretString, StoreError> {
    let mut bytes = [0; 32];
    let no_random = |_| StoreError::Unavailable { doing: "making a secret", cause: "no random numbers".to_owned() };
    aws_lc_rs::rand::fill(&mut bytes).map_err(no_random)?;
    Ok(SecretString::from(format!("{JOIN_TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
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
