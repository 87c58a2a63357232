//! Files of keys that nothing good can be signed with any more are deleted, on record: a private key that is kept can be
//! copied.
//!
//! Which keys those are is in the database, so whether any replica still needs one is known here without asking it.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use audit::{Event, Ledger};
use jiff::Timestamp;
use net::Tasks;
use store::{PublishedKey, Store, StoreError};
use token::SigningKey;

use super::{SigningKeys, file, first_file};
use crate::client::algorithms;

/// Between two looks where nothing that changed asks for one.
const EVERY: Duration = Duration::from_secs(3600);

impl SigningKeys {
    /// Deletes them until the end: at start, when a key changed, and every hour.
    pub(super) fn tidy(self: &Arc<Self>, store: Store, ledger: Ledger, tasks: &Tasks) {
        let (keys, stop) = (Arc::clone(self), tasks.shutdown_token());
        tasks.spawn("files of retired keys", async move {
            // What cannot be deleted is said to be once, and tried again each time.
            let mut said = BTreeSet::new();
            loop {
                if let Err(error) = keys.delete_retired(&store, &ledger, &mut said, net::clock::now()).await {
                    tracing::warn!(%error, "which keys are retired cannot be read");
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = keys.changed.notified() => {}
                    () = tokio::time::sleep(EVERY) => {}
                }
            }
        });
    }

    /// Deletes the files of this folder that hold a key which is retired, or was withdrawn. On record first.
    pub(super) async fn delete_retired(
        &self,
        store: &Store,
        ledger: &Ledger,
        said: &mut BTreeSet<String>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let listed = store.signing_keys().await?.keys;
        for key in listed.iter().filter(|key| self.is_over(key, now)) {
            // Also where another replica deleted the file: nothing here needs what is in memory any more.
            self.held().remove(&key.id);
            let Some(path) = self.path_of(&key.id) else { continue };
            if said.contains(&key.id) || on_record(key, ledger).await {
                said.insert(key.id.clone());
                deleted(&key.id, &path);
            }
        }
        Ok(())
    }

    /// Whether nothing that a key signed can be good, by any replica's clock: they may differ by less than
    /// `publish_ahead`.
    fn is_over(&self, key: &PublishedKey, now: Timestamp) -> bool {
        let retired = key
            .published_until
            .is_some_and(|until| until.checked_add(self.config.publish_ahead.0).is_ok_and(|until| until <= now));
        key.withdrawn.is_some() || (retired && !key.signs(now))
    }

    /// The file here of the key called `id`.
    fn path_of(&self, id: &str) -> Option<PathBuf> {
        let dir = &self.config.dir;
        let firsts = algorithms().into_iter().map(|algorithm| first_file(dir, algorithm));
        // The first of an algorithm is not called after itself: it has to be looked at.
        let first = |path: &PathBuf| path.exists() && SigningKey::load(path).is_ok_and(|key| key.id() == id);
        [file(dir, id)].into_iter().filter(|path| path.exists()).chain(firsts.filter(first)).next()
    }
}

/// Puts on record that the file of `key` goes. Without that it stays.
async fn on_record(key: &PublishedKey, ledger: &Ledger) -> bool {
    let because = if key.withdrawn.is_some() { "withdrawn" } else { "retired" };
    let recorded = ledger.event(Event::KeyDeleted { key_id: key.id.clone(), because }).await;
    if let Err(error) = &recorded {
        tracing::warn!(%error, "the file of a key stays: that it is deleted could not be recorded");
    }
    recorded.is_ok()
}

fn deleted(id: &str, path: &Path) {
    match delete(path) {
        Ok(()) => tracing::info!(id, path = %path.display(), "the file of a key is deleted"),
        Err(error) => tracing::error!(id, path = %path.display(), %error, "the file of a key cannot be deleted"),
    }
}

/// Deletes a file so that it stays so when power fails. One that another replica deleted meanwhile is deleted.
fn delete(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    path.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
}
