//! The authority's signing keys as all replicas see them: public parts only, each with the time it signs in and how long
//! it stays published. The private parts lie in replicas' own folders.
//!
//! A key is published for a while before it signs, so that whoever verifies has it by then; and after it signed for the
//! last time, until what it signed has ended.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    Store,
    changes::{ChangeKind, Head},
    engine::{Row, Value},
    error::StoreError,
    jwk,
    writing::{Begun, Committed, Writer, Writing},
};

/// One signing key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedKey {
    /// Its RFC 7638 thumbprint: the `kid` of what it signs.
    pub id: String,
    /// The key (RFC 7517), public members only.
    pub jwk: serde_json::Value,
    /// Since when it is published.
    pub published: Timestamp,
    /// From when it signs.
    pub signs_from: Timestamp,
    /// When another one takes over; absent, as long as none does.
    pub signs_until: Option<Timestamp>,
    /// When it is published no more.
    pub published_until: Option<Timestamp>,
    /// When it was withdrawn: nothing that it signed is good since.
    pub withdrawn: Option<Timestamp>,
}

/// A key to be published.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewSigningKey {
    /// The key (RFC 7517), public members only.
    pub jwk: serde_json::Value,
    /// How long it is published before it signs. Where no key signs now, it signs at once.
    pub ahead: SignedDuration,
    /// The key that it takes over from, by its id.
    pub replaces: Option<String>,
    /// How long that one stays published after it signed for the last time.
    pub lasts: SignedDuration,
}

/// All signing keys, as committed up to a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKeyList {
    /// The position, read before the keys.
    pub position: u64,
    /// When the generation began that the position is of.
    pub began: Timestamp,
    /// The keys, the oldest first.
    pub keys: Vec<PublishedKey>,
}

const KEY: &str = "id, jwk, published, signs_from, signs_until, published_until, withdrawn";

impl PublishedKey {
    /// Whether it may sign at `now`.
    pub fn signs(&self, now: Timestamp) -> bool {
        self.withdrawn.is_none() && self.signs_from <= now && self.signs_until.is_none_or(|until| now < until)
    }

    /// Whether it is published at `now`.
    pub fn is_published(&self, now: Timestamp) -> bool {
        self.withdrawn.is_none() && self.published_until.is_none_or(|until| now < until)
    }

    /// Whether it signs and nothing takes over from it yet.
    fn stays(&self) -> bool {
        self.withdrawn.is_none() && self.signs_until.is_none()
    }
}

impl Store {
    /// All signing keys, those that are published no more too.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn signing_keys(&self) -> Result<SigningKeyList, StoreError> {
        let Head { position, began, .. } = self.head().await?;
        let sql = format!("SELECT {KEY} FROM signing_keys ORDER BY created");
        let rows = self.engine.rows("reading the signing keys", sql, Vec::new()).await?;
        Ok(SigningKeyList { position, began, keys: rows.iter().map(key).collect::<Result<_, _>>()? })
    }

    /// Publishes a key, to sign after `ahead`. One that is there already changes nothing.
    ///
    /// # Errors
    /// When the key that it replaces is being replaced already or is not there, the key is no public key, or the
    /// database does not answer.
    pub async fn publish_signing_key(
        &self,
        writer: &Writer,
        new: &NewSigningKey,
    ) -> Result<Committed<PublishedKey>, StoreError> {
        let id = jwk::thumbprint(&new.jwk)?;
        let public = jwk::public(&new.jwk)?;
        let mut writing = match self.write("publishing a signing key", writer, new).await? {
            Begun::Answered(answer) => return Ok(answer),
            Begun::Open(writing) => writing,
        };
        let known = writing.signing_keys().await?;
        if let Some(known) = known.iter().find(|key| key.id == id) {
            let known = known.clone();
            return writing.commit(known).await;
        }
        let now = writer.now;
        let signing = known.iter().any(|key| key.signs(now));
        let signs_from = if signing { now.checked_add(new.ahead).unwrap_or(Timestamp::MAX) } else { now };
        if let Some(replaced) = &new.replaces {
            let before = known.iter().find(|key| key.id == *replaced);
            let before = before.ok_or_else(|| StoreError::not_found("signing key", replaced))?;
            if !before.stays() {
                return Err(StoreError::Conflict(format!("the signing key {replaced} is being replaced already")));
            }
            let published_until = signs_from.checked_add(new.lasts).unwrap_or(Timestamp::MAX);
            let sql = "UPDATE signing_keys SET signs_until = $1, published_until = $2 WHERE id = $3";
            writing.execute(sql, vec![signs_from.into(), published_until.into(), replaced.as_str().into()]).await?;
        }
        let key = PublishedKey {
            id,
            jwk: public,
            published: now,
            signs_from,
            signs_until: None,
            published_until: None,
            withdrawn: None,
        };
        let values = vec![
            key.id.as_str().into(),
            Value::position(writing.next()),
            Value::json(&key.jwk)?,
            key.published.into(),
            key.signs_from.into(),
        ];
        let sql = "INSERT INTO signing_keys (id, created, jwk, published, signs_from) VALUES ($1, $2, $3, $4, $5)";
        writing.execute(sql, values).await?;
        let change = ChangeKind::KeyRotated { key: Box::new(key.clone()), replaces: new.replaces.clone() };
        writing.append(&change, None).await?;
        writing.commit(key).await
    }

    /// Withdraws a signing key: it signs no more, and nothing that it signed is good from now on.
    ///
    /// # Errors
    /// When there is none of that name, or the database does not answer.
    pub async fn withdraw_signing_key(&self, writer: &Writer, id: &str) -> Result<Committed<PublishedKey>, StoreError> {
        let mut writing = match self.write("withdrawing a signing key", writer, &id).await? {
            Begun::Answered(answer) => return Ok(answer),
            Begun::Open(writing) => writing,
        };
        let known = writing.signing_keys().await?;
        let mut key =
            known.into_iter().find(|key| key.id == id).ok_or_else(|| StoreError::not_found("signing key", id))?;
        if key.withdrawn.is_none() {
            key.withdrawn = Some(writer.now);
            let sql = "UPDATE signing_keys SET withdrawn = $1 WHERE id = $2";
            writing.execute(sql, vec![writer.now.into(), id.into()]).await?;
            writing.succeed(writer.now, id).await?;
            writing.append(&ChangeKind::KeyWithdrawn { id: id.to_owned() }, None).await?;
        }
        writing.commit(key).await
    }
}

impl Writing<'_> {
    /// Where nothing signs now, the key that would have next does.
    async fn succeed(&mut self, now: Timestamp, withdrawn: &str) -> Result<(), StoreError> {
        let known = self.signing_keys().await?;
        let next = known.iter().filter(|key| key.id != withdrawn && key.is_published(now) && key.signs_from > now);
        let next = next.min_by_key(|key| key.signs_from);
        if let (Some(next), false) = (next, known.iter().any(|key| key.signs(now))) {
            let sql = "UPDATE signing_keys SET signs_from = $1 WHERE id = $2";
            self.execute(sql, vec![now.into(), next.id.as_str().into()]).await?;
        }
        Ok(())
    }

    async fn signing_keys(&mut self) -> Result<Vec<PublishedKey>, StoreError> {
        let sql = format!("SELECT {KEY} FROM signing_keys ORDER BY created");
        self.rows(sql, Vec::new()).await?.iter().map(key).collect()
    }
}

fn key(row: &Row) -> Result<PublishedKey, StoreError> {
    Ok(PublishedKey {
        id: row.text(0)?,
        jwk: row.json(1)?,
        published: row.moment(2)?,
        signs_from: row.moment(3)?,
        signs_until: row.optional_moment(4)?,
        published_until: row.optional_moment(5)?,
        withdrawn: row.optional_moment(6)?,
    })
}
