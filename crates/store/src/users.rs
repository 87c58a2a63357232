//! What identity providers last said of users: their groups and roles, as the tokens had them that users showed here.
//!
//! Work goes on for hours without its user; what they may do themselves still bounds it, as it was last known. Off the
//! change log: it is read at each issuance, and nothing follows it.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use model::{Id, Principal, Tenant, delegation::UserClaims};

use crate::{Store, engine::Value, error::StoreError};

/// How exactly it is known when a user was last seen: nothing is written for less.
const SEEN_EVERY: SignedDuration = SignedDuration::from_mins(1);

/// A user as last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownUser {
    /// What their identity provider said of them.
    pub claims: UserClaims,
    /// When the token was issued that said it.
    pub as_of: Timestamp,
}

impl Store {
    /// What was last known of the user that `issuer` calls `id`, in `tenant`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn known_user(
        &self,
        issuer: &str,
        id: &Id<Principal>,
        tenant: &Id<Tenant>,
    ) -> Result<Option<KnownUser>, StoreError> {
        let sql = "SELECT claims, as_of FROM users WHERE issuer = $1 AND id = $2 AND tenant = $3";
        let rows = self.engine.rows("reading a user", sql, vec![issuer.into(), id.into(), tenant.into()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(KnownUser { claims: row.json(0)?, as_of: row.moment(1)? }))
    }

    /// What was last known of the user that `issuer` calls `id`, in each of their tenants.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn known_in_tenants(&self, issuer: &str, id: &Id<Principal>) -> Result<Vec<KnownUser>, StoreError> {
        let sql = "SELECT claims, as_of FROM users WHERE issuer = $1 AND id = $2 ORDER BY tenant";
        let rows = self.engine.rows("reading a user", sql, vec![issuer.into(), id.into()]).await?;
        rows.iter().map(|row| Ok(KnownUser { claims: row.json(0)?, as_of: row.moment(1)? })).collect()
    }

    /// The users of `issuer` whose `attribute` was last `value`, in any of their tenants; case is not looked at. `most` of
    /// them at most. Looks at every user of the issuer.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn users_with(
        &self,
        issuer: &str,
        (attribute, value): (&str, &str),
        most: usize,
    ) -> Result<BTreeSet<Id<Principal>>, StoreError> {
        // As JSON: the quotes belong to the text. What merely has it somewhere is sorted out below. Also as it is written,
        // because engines do not agree about the case of letters beyond ASCII.
        let text = |value: &str| serde_json::to_string(value).map_err(StoreError::unwritable);
        let (lower, exact) = (text(&value.to_ascii_lowercase())?, text(value)?);
        let sql = "SELECT id, claims FROM users WHERE issuer = $1 AND \
                   (replace(lower(claims), $2, '') <> lower(claims) OR replace(claims, $3, '') <> claims)";
        let values = vec![issuer.into(), lower.as_str().into(), exact.as_str().into()];
        let rows = self.engine.rows("looking for users", sql, values).await?;
        let mut found = BTreeSet::new();
        for row in &rows {
            let claims: UserClaims = row.json(1)?;
            if claims.attributes.get(attribute).is_some_and(|is| is.eq_ignore_ascii_case(value)) {
                found.insert(row.word(0)?);
            }
            if found.len() >= most {
                break;
            }
        }
        Ok(found)
    }

    /// Notes what a verified token, issued at `as_of`, says of `user`. An older token changes nothing; one that says the
    /// same is noted at most once a minute.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn user_seen(
        &self,
        user: &Principal,
        tenant: &Id<Tenant>,
        claims: &UserClaims,
        as_of: Timestamp,
    ) -> Result<(), StoreError> {
        let known = self.known_user(&user.issuer, &user.id, tenant).await?;
        let nothing_new = |known: &KnownUser| {
            let since = as_of.duration_since(known.as_of);
            since < SignedDuration::ZERO || (known.claims == *claims && since < SEEN_EVERY)
        };
        if known.as_ref().is_some_and(nothing_new) {
            return Ok(());
        }
        let doing = "noting what is known of a user";
        let mut transaction = self.engine.begin(doing).await?;
        let sql = "INSERT INTO users (issuer, id, tenant, claims, as_of) VALUES ($1, $2, $3, $4, $5) \
                   ON CONFLICT (issuer, id, tenant) DO UPDATE SET claims = excluded.claims, as_of = excluded.as_of \
                   WHERE users.as_of <= excluded.as_of";
        let values =
            vec![user.issuer.as_str().into(), (&user.id).into(), tenant.into(), Value::json(claims)?, as_of.into()];
        transaction.execute(doing, sql, values).await?;
        transaction.commit(doing).await
    }
}
