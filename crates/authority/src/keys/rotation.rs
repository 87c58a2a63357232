//! How one signing key takes over from another: by hand, by age, and at start where the folder or the algorithm changed.

use std::{fs, sync::Arc, time::Duration};

use audit::Ledger;
use jiff::{SignedDuration, Timestamp};
use net::Tasks;
use opentelemetry::KeyValue;
use store::{NewSigningKey, PublishedKey, Store, StoreError, Writer};
use token::SigningKey;

use super::{KeysError, SigningKeys, file};

/// Between two looks at the age of the key: a tenth of what it may get, within these bounds.
const LOOKS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// How long after a key should have been replaced it counts as ended: alarms go off a week before the end of anything,
/// and shall not go off for what is replaced in time.
const OVERDUE: SignedDuration = SignedDuration::from_hours(8 * 24);

impl SigningKeys {
    /// Publishes the keys of this folder that are not published yet, and sees to it that one of them signs, or will.
    ///
    /// # Errors
    /// When the database does not answer, or a key cannot be made.
    pub async fn join(&self, store: &Store, now: Timestamp) -> Result<(), KeysError> {
        let listed = store.signing_keys().await?.keys;
        let mut unknown: Vec<_> = {
            let held = self.held();
            held.values().filter(|own| !listed.iter().any(|key| key.id == own.id())).cloned().collect()
        };
        // Of the configured algorithm last: it takes over from the others.
        unknown.sort_by_key(|own| (own.algorithm() == self.algorithm, own.id().to_owned()));
        let mut staying = self.staying(&listed, now);
        for own in unknown {
            let published = self.publish(store, &writer(now, "it lies in the folder of keys"), &own, staying).await?;
            staying = Some(published.id);
        }
        let listed = store.signing_keys().await?.keys;
        let fits = |key: &PublishedKey| {
            let own = self.held().get(&key.id).map(|own| own.algorithm());
            own == Some(self.algorithm) && key.withdrawn.is_none() && key.signs_until.is_none()
        };
        if !listed.iter().any(fits) {
            self.rotate(store, &writer(now, "no key in the folder is for the configured algorithm and signs")).await?;
        }
        self.view(store, (now, u64::MAX), now).await?;
        Ok(())
    }

    /// Makes a key that takes over, after it was published for a while.
    ///
    /// # Errors
    /// When another one takes over already, the key cannot be made or kept, or the database does not answer.
    pub async fn rotate(&self, store: &Store, writer: &Writer) -> Result<PublishedKey, KeysError> {
        let listed = store.signing_keys().await?.keys;
        let key = Arc::new(SigningKey::generate(self.algorithm)?);
        let path = file(&self.config.dir, key.id());
        // Before anybody hears of it: a key that is published and lost would sign nothing.
        key.save(&path)?;
        match self.publish(store, writer, &key, self.staying(&listed, writer.now)).await {
            Ok(published) => {
                self.held().insert(key.id().to_owned(), key);
                Ok(published)
            }
            Err(error) => {
                // Where it is not known whether it was published, it stays.
                if !matches!(error, KeysError::Store(StoreError::Unavailable { .. })) {
                    fs::remove_file(&path).ok();
                }
                Err(error)
            }
        }
    }

    async fn publish(
        &self,
        store: &Store,
        writer: &Writer,
        key: &SigningKey,
        replaces: Option<String>,
    ) -> Result<PublishedKey, KeysError> {
        let new = NewSigningKey {
            jwk: key.public_jwk().clone(),
            ahead: signed(self.config.publish_ahead.0),
            replaces,
            lasts: signed(self.lasts),
        };
        let published = store.publish_signing_key(writer, &new).await?.value;
        let (id, from) = (&published.id, published.signs_from);
        tracing::info!(id, %from, "a signing key is published");
        Ok(published)
    }

    /// The key of this folder that signs on; of several, the one that signs now.
    fn staying(&self, listed: &[PublishedKey], now: Timestamp) -> Option<String> {
        let held = self.held();
        let staying = listed.iter().filter(|key| held.contains_key(&key.id));
        let staying = staying.filter(|key| key.withdrawn.is_none() && key.signs_until.is_none());
        staying.max_by_key(|key| (key.signs(now), key.signs_from)).map(|key| key.id.clone())
    }

    /// Rotates by age until the end, and tells when that is due; and deletes what is over.
    pub(crate) fn keep(self: &Arc<Self>, store: Store, ledger: Ledger, tasks: &Tasks) {
        self.tidy(store.clone(), ledger, tasks);
        let Some(most) = self.config.rotate_every.map(|most| most.0) else { return };
        self.observe(most);
        let (keys, stop) = (Arc::clone(self), tasks.shutdown_token());
        tasks.spawn("age of the signing key", async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep((most / 10).clamp(LOOKS.0, LOOKS.1)) => {}
                }
                if let Err(error) = keys.rotate_when_due(&store, most, net::clock::now()).await {
                    tracing::error!(%error, "the signing key is due and cannot be rotated");
                }
            }
        });
    }

    pub(super) async fn rotate_when_due(&self, store: &Store, most: Duration, now: Timestamp) -> Result<(), KeysError> {
        // Not as last seen: what takes over already is not replaced in its turn.
        let listed = store.signing_keys().await?.keys;
        let staying = self.staying(&listed, now);
        let due = |key: &PublishedKey| Some(&key.id) == staying.as_ref() && ends(key, most) <= now;
        if !listed.iter().any(due) {
            return Ok(());
        }
        match self.rotate(store, &writer(now, "it is as old as `rotate_every`")).await {
            // A replica that shares the folder was first.
            Err(KeysError::Store(StoreError::Conflict(_))) => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// Somebody has to look when it is not done by itself.
    fn observe(self: &Arc<Self>, most: Duration) {
        // Meters live as long as the process, and an authority may end before it.
        let seen = Arc::downgrade(self);
        let _expiry = opentelemetry::global::meter("countersign")
            .i64_observable_gauge("countersign_credential_expiry_timestamp")
            .with_unit("s")
            .with_description("When the first of these certificates ends, in seconds since 1970")
            .with_callback(move |observer| {
                let Some(keys) = seen.upgrade() else { return };
                let Some(own) = keys.signing(net::clock::now()) else { return };
                if let Some(key) = keys.last().keys.iter().find(|key| key.id == own.id()) {
                    let overdue = ends(key, most).checked_add(OVERDUE).unwrap_or(Timestamp::MAX);
                    observer.observe(overdue.as_second(), &[KeyValue::new("kind", "signing_key")]);
                }
            })
            .build();
    }
}

/// When a key has to be another.
fn ends(key: &PublishedKey, most: Duration) -> Timestamp {
    let due = key.signs_from.checked_add(signed(most)).unwrap_or(Timestamp::MAX);
    key.signs_until.map_or(due, |until| until.min(due))
}

fn writer(now: Timestamp, why: &str) -> Writer {
    Writer { by: "authority".to_owned(), reason: Some(why.to_owned()), now, idempotency: None }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
