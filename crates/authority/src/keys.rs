//! The authority's signing keys: made on first start, for this user alone, and published as a JWKS.
//!
//! The private keys lie in a folder, which replicas may share or have one each. Which key signs when, and how long each
//! stays published, is in the database, where all replicas see the same (`store::PublishedKey`): a key is published
//! before it signs, and until what it signed has ended.

mod parsed;
mod retired;
mod rotation;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use net::secret::readable_by_others;
use serde::Serialize;
use serde_json::{Value, json};
use store::{PublishedKey, Store, StoreError};
use token::{Algorithm, Compact, InvalidKeySet, KeySet, MintError, SigningKey};

use crate::{
    client::algorithms,
    config::{KeysConfig, SigningAlgorithm},
    refused::Refused,
};

pub(crate) use self::parsed::KeySets;

/// RFC 9068 §2.1.
const TOKEN_TYPE: &str = "at+jwt";
/// For how long what was read is published again without a look at the database.
const KEPT: Duration = Duration::from_secs(1);
/// For how long it is published while the database does not answer: no longer than half of what a key is published
/// ahead, within these bounds, so that no replica hides a key that another one signs with.
const UNHEARD: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));

/// The keys: those that are here to sign with, and those that are published.
pub struct SigningKeys {
    config: KeysConfig,
    algorithm: Algorithm,
    /// How long a key stays published that signs no more.
    lasts: Duration,
    held: Mutex<BTreeMap<String, Arc<SigningKey>>>,
    view: RwLock<Arc<View>>,
    /// When the database last said that the view is whole.
    confirmed: Mutex<Option<Instant>>,
    /// Held by who reads the database, so that there is never more than one.
    reading: tokio::sync::Mutex<()>,
    /// Told when the keys were read anew.
    changed: tokio::sync::Notify,
}

/// All keys, as committed up to a position.
#[derive(Debug)]
pub(crate) struct View {
    /// The life of the database that the position is of, by when it began.
    began: Timestamp,
    position: u64,
    keys: Vec<PublishedKey>,
    jwks: Value,
    set: Arc<KeySet>,
    /// When the first of the published keys is published no more.
    until: Option<Timestamp>,
}

/// Why there are no keys to sign with.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The folder cannot be made or looked at.
    #[error("authority.keys.dir: {}: {cause}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// Others may look into the folder.
    #[error("authority.keys.dir: {}: others may enter it; its mode has to be 0700", .0.display())]
    FolderOpen(PathBuf),
    /// A key cannot be made or loaded.
    #[error("authority.keys: {0}")]
    Key(#[from] MintError),
    /// A key is another than its file is named after.
    #[error("authority.keys: {}: is the {found} key {id}", path.display())]
    Misnamed {
        /// The file.
        path: PathBuf,
        /// What it is for.
        found: Algorithm,
        /// Its thumbprint.
        id: String,
    },
    /// The published set is not one that verifiers take.
    #[error("authority.keys: {0}")]
    Set(#[from] InvalidKeySet),
    /// The database, in which it is said which key signs, does not answer or does not allow it.
    #[error("authority.keys: {0}")]
    Store(#[from] StoreError),
}

impl SigningKeys {
    /// Loads the keys, or makes what is missing. Tokens last `lifetime` at most.
    ///
    /// # Errors
    /// When folder or keys can be read by others, cannot be made, or are not what their names say.
    pub fn open(config: &KeysConfig, lifetime: Duration) -> Result<Self, KeysError> {
        let dir = &config.dir;
        make_folder(dir)?;
        let algorithm = match config.algorithm {
            SigningAlgorithm::Es256 => Algorithm::Es256,
            SigningAlgorithm::EdDsa => Algorithm::EdDsa,
        };
        let mut held = load(dir)?;
        if !held.values().any(|key| key.algorithm() == algorithm) {
            let key = SigningKey::load_or_create(&first_file(dir, algorithm), algorithm)?;
            held.insert(key.id().to_owned(), Arc::new(key));
        }
        Ok(Self {
            config: config.clone(),
            algorithm,
            // With as much as a verifier's clock may be off.
            lasts: lifetime + Duration::from_secs(60),
            held: Mutex::new(held),
            view: RwLock::new(Arc::new(View::nothing()?)),
            confirmed: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
            changed: tokio::sync::Notify::new(),
        })
    }

    /// The published keys (RFC 7517 §5), as last read.
    pub fn jwks(&self) -> Value {
        self.last().jwks.clone()
    }

    /// The keys as of a position or later, in the life of the database that began then.
    ///
    /// # Errors
    /// When that has to be read, and the database does not answer.
    pub(crate) async fn view(
        &self,
        store: &Store,
        place: (Timestamp, u64),
        now: Timestamp,
    ) -> Result<Arc<View>, StoreError> {
        let last = self.last();
        if last.holds(now) && last.is_of(place) {
            return Ok(last);
        }
        let _reading = self.reading.lock().await;
        let last = self.last();
        if last.holds(now) && last.is_of(place) {
            return Ok(last);
        }
        self.read(store, now).await
    }

    /// The keys as of a moment ago; longer ago only while the database does not answer, and never much longer.
    ///
    /// # Errors
    /// When the database has not answered for too long.
    pub(crate) async fn lately(&self, store: &Store, now: Timestamp) -> Result<Arc<View>, StoreError> {
        let asked = net::clock::monotonic();
        let age = self.confirmed().map(|confirmed| asked.saturating_duration_since(confirmed));
        let last = self.last();
        if age.is_some_and(|age| age < KEPT) && last.holds(now) {
            return Ok(last);
        }
        let read = match store.head().await {
            Ok(head) => self.view(store, (head.began, head.position), now).await,
            Err(error) => Err(error),
        };
        let bound = (self.config.publish_ahead.0 / 2).clamp(UNHEARD.0, UNHEARD.1);
        match read {
            Ok(view) => {
                *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked);
                Ok(view)
            }
            Err(_) if age.is_some_and(|age| age < bound) => Ok(self.last()),
            Err(error) => Err(error),
        }
    }

    /// Signs the claims of a token at `now`, as the keys were last seen. One that its readers would refuse for its size
    /// is not issued.
    pub(crate) fn sign(&self, claims: &impl Serialize, now: Timestamp) -> Result<Compact, Refused> {
        let key = self.signing(now).ok_or_else(|| Refused::unavailable("the signing key", &NO_KEY))?;
        let compact = key.sign(TOKEN_TYPE, claims);
        let compact = compact.map_err(|error| Refused::unavailable("the signing key", &error))?;
        if compact.expose().len() > token::MAX_TOKEN_BYTES {
            return Err(Refused::request("the token would be too large: ask for fewer `authorization_details`"));
        }
        Ok(compact)
    }

    /// Whether there is a key to sign with.
    pub(crate) fn can_sign(&self, now: Timestamp) -> bool {
        self.signing(now).is_some()
    }

    /// Of the keys that sign now and are here: one for the configured algorithm, the newest.
    fn signing(&self, now: Timestamp) -> Option<Arc<SigningKey>> {
        let view = self.last();
        let held = self.held();
        let here = view.keys.iter().filter(|key| key.signs(now)).filter_map(|key| Some((key, held.get(&key.id)?)));
        let best = here.max_by_key(|(key, own)| (own.algorithm() == self.algorithm, key.signs_from));
        best.map(|(_, own)| Arc::clone(own))
    }

    async fn read(&self, store: &Store, now: Timestamp) -> Result<Arc<View>, StoreError> {
        let listed = store.signing_keys().await?;
        self.fetch_held(&listed.keys);
        let view = View::new((listed.began, listed.position), listed.keys, now);
        let view = Arc::new(view.map_err(|error| StoreError::Damaged(error.to_string()))?);
        let before = {
            let mut last = self.view.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *last, Arc::clone(&view))
        };
        if before.keys != view.keys {
            self.changed.notify_one();
        }
        Ok(view)
    }

    /// Loads keys that another process put into the folder: the command line, or a replica that shares it.
    fn fetch_held(&self, listed: &[PublishedKey]) {
        for key in listed.iter().filter(|key| key.withdrawn.is_none() && key.signs_until.is_none()) {
            let path = file(&self.config.dir, &key.id);
            if self.held().contains_key(&key.id) || !path.exists() {
                continue;
            }
            match SigningKey::load(&path) {
                Ok(own) if own.id() == key.id => drop(self.held().insert(key.id.clone(), Arc::new(own))),
                Ok(own) => {
                    tracing::error!(path = %path.display(), id = own.id(), "a signing key is not what it is called");
                }
                Err(error) => tracing::error!(%error, "a signing key cannot be used"),
            }
        }
    }

    /// Gives `to` the published keys as last read, to verify our own tokens with. What is read meanwhile is given after
    /// it: nobody puts keys from before a withdrawal in the place of those from after it.
    pub(crate) fn give(&self, to: impl FnOnce(&Arc<KeySet>)) {
        let last = self.view.read().unwrap_or_else(PoisonError::into_inner);
        to(&last.set);
    }

    fn last(&self) -> Arc<View> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<String, Arc<SigningKey>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn confirmed(&self) -> Option<Instant> {
        *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why nothing is signed.
const NO_KEY: &str = "no key of this replica signs now: `countersign authority keys list`";

impl View {
    /// Before anything was read.
    fn nothing() -> Result<Self, InvalidKeySet> {
        // Whatever is asked for is later.
        Self::new((Timestamp::MIN, 0), Vec::new(), Timestamp::MIN)
    }

    fn new(
        (began, position): (Timestamp, u64),
        keys: Vec<PublishedKey>,
        now: Timestamp,
    ) -> Result<Self, InvalidKeySet> {
        let published = || keys.iter().filter(|key| key.is_published(now));
        let jwks = json!({ "keys": published().map(|key| &key.jwk).collect::<Vec<_>>() });
        let set = Arc::new(KeySet::parse(jwks.to_string().as_bytes(), &algorithms())?);
        let until = published().filter_map(|key| key.published_until).min();
        Ok(Self { began, position, keys, jwks, set, until })
    }

    /// Whether there is one, and all that it says is published is so at `now`.
    fn holds(&self, now: Timestamp) -> bool {
        !self.keys.is_empty() && self.until.is_none_or(|until| now < until)
    }

    /// Whether it was read at this position or later. Positions of another life of the database say nothing of this one.
    fn is_of(&self, (began, position): (Timestamp, u64)) -> bool {
        self.began == began && self.position >= position
    }

    /// The published keys (RFC 7517 §5).
    pub(crate) const fn jwks(&self) -> &Value {
        &self.jwks
    }

    /// The same, to verify our own tokens with.
    pub(crate) const fn set(&self) -> &Arc<KeySet> {
        &self.set
    }

    /// The names of the keys whose tokens are good at `now`.
    pub(crate) fn ids(&self, now: Timestamp) -> BTreeSet<String> {
        self.keys.iter().filter(|key| key.is_published(now)).map(|key| key.id.clone()).collect()
    }
}

impl std::fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKeys").field("dir", &self.config.dir).finish_non_exhaustive()
    }
}

fn make_folder(dir: &Path) -> Result<(), KeysError> {
    let failed = |cause| KeysError::Folder { path: dir.to_owned(), cause };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    if readable_by_others(dir).map_err(failed)? {
        return Err(KeysError::FolderOpen(dir.to_owned()));
    }
    Ok(())
}

/// Where the first key of an algorithm lies.
fn first_file(dir: &Path, algorithm: Algorithm) -> PathBuf {
    dir.join(format!("{}.pem", algorithm.as_str().to_ascii_lowercase()))
}

/// Where a key lies that was made later.
fn file(dir: &Path, id: &str) -> PathBuf {
    dir.join(format!("{id}.pem"))
}

/// Every key of ours in the folder: those that are called after an algorithm or after their thumbprint.
fn load(dir: &Path) -> Result<BTreeMap<String, Arc<SigningKey>>, KeysError> {
    let failed = |cause| KeysError::Folder { path: dir.to_owned(), cause };
    let mut held = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let named = algorithms().into_iter().find(|it| path == first_file(dir, *it));
        // A SHA-256 in base64url.
        let later = stem.len() == 43 && path.extension().is_some_and(|extension| extension == "pem");
        if named.is_none() && !later {
            continue;
        }
        let key = SigningKey::load(&path)?;
        let right = named.map_or(key.id() == stem, |algorithm| key.algorithm() == algorithm);
        if !right {
            return Err(KeysError::Misnamed { found: key.algorithm(), id: key.id().to_owned(), path });
        }
        held.insert(key.id().to_owned(), Arc::new(key));
    }
    Ok(held)
}

#[cfg(test)]
mod tests;
