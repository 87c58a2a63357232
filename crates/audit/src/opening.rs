//! What opening a ledger takes: its directory is private and nobody else's, its key is the one that it was begun with, and
//! what a crash left is mended.

use std::{
    fs::{self, File},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::signature::Ed25519KeyPair;
use serde::{Deserialize, Serialize};

use crate::{
    LedgerError, LedgerSettings, VerifyingKey, beside::Beside, canonical::Unrecordable, files, keys, log::Shared,
    recovery, segment::Home, values::VERSION, writer::Writer,
};

/// The file that says which ledger a directory holds.
pub(crate) const ABOUT_FILE: &str = "ledger.json";
const LOCK_FILE: &str = "lock";
pub(crate) const RESERVE_FILE: &str = "reserve";

/// Random bytes of a ledger's id.
const ID_BYTES: usize = 8;

/// What `ledger.json` says. Not secret, and trusted for nothing that a pinned key could say better.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct About {
    pub(crate) v: u64,
    pub(crate) id: String,
    /// The name heads are signed under.
    pub(crate) origin: String,
    /// The vkey of the key that signs them.
    pub(crate) verifying_key: String,
}

impl About {
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>, LedgerError> {
        let path = dir.join(ABOUT_FILE);
        match fs::read(&path) {
            Ok(bytes) => Self::parse(&bytes).map(Some).map_err(|error| LedgerError::damaged(&path, error.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LedgerError::io(&path)(error)),
        }
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

/// The id of the ledger in `dir`, by its own word.
///
/// # Errors
/// When there is none, or it does not say.
pub fn ledger_id(dir: &Path) -> Result<String, LedgerError> {
    let missing = || LedgerError::damaged(dir, format!("{ABOUT_FILE}, which says whose ledger it is, is missing"));
    About::read(dir)?.map(|about| about.id).ok_or_else(missing)
}

type Begun = (Writer, File, String, PathBuf, Ed25519KeyPair);

/// Everything that opening does, on the writer's thread because it blocks.
pub(crate) fn begin(settings: LedgerSettings, shared: Arc<Shared>, beside: Beside) -> Result<Begun, LedgerError> {
    let dir = settings.dir.clone();
    files::create_directory(&dir)?;
    files::require_private(&dir, 0o700)?;
    let lock = lock(&dir)?;
    let key = keys::load_or_create(&settings.key)?;
    let about = about(&dir, &settings, &key)?;
    // The writer has its own; this one says who speaks for the ledger.
    let signer = keys::load_or_create(&settings.key)?;
    reserve(&dir.join(RESERVE_FILE), settings.reserve_bytes);
    let home = Home { dir: dir.clone(), origin: about.origin, key };
    let recovered = recovery::recover(&home)?;
    let writer = Writer::begin(home, settings, &about.id, recovered, shared, beside)?;
    Ok((writer, lock, about.id, dir, signer))
}

/// One writer a directory: the lock is the file's, and ends with the process however that ends.
fn lock(dir: &Path) -> Result<File, LedgerError> {
    let path = dir.join(LOCK_FILE);
    let file = File::options().create(true).append(true).mode(0o600).open(&path).map_err(LedgerError::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(LedgerError::Locked(dir.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(LedgerError::io(&path)(error)),
    }
}

/// Which ledger this is, decided at its first start; the key must be the one it was begun with.
fn about(dir: &Path, settings: &LedgerSettings, key: &Ed25519KeyPair) -> Result<About, LedgerError> {
    if let Some(about) = About::read(dir)? {
        let own = VerifyingKey::of(&about.origin, key).to_string();
        if own == about.verifying_key {
            return Ok(about);
        }
        let why = format!("the ledger in {} was begun with the key {}", dir.display(), about.verifying_key);
        return Err(LedgerError::Key { path: settings.key.clone(), why });
    }
    let mut bytes = [0; ID_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| LedgerError::from(Unrecordable::Salt))?;
    let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let origin = format!("countersign/ledger/{id}");
    let verifying_key = VerifyingKey::of(&origin, key).to_string();
    let about = About { v: VERSION, id, origin, verifying_key };
    let text = crate::canonical::text(&about)?;
    let path = dir.join(ABOUT_FILE);
    files::replace_whole(&path, format!("{text}\n").as_bytes()).map_err(LedgerError::io(&path))?;
    Ok(about)
}

/// Keeps `bytes` of the disk, given up when a full disk would keep the ledger from stopping cleanly. Without it the
/// ledger still works.
fn reserve(path: &Path, bytes: u64) {
    let made = File::options().create(true).append(true).mode(0o600).open(path).and_then(|file| {
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes.max(1)).map_err(Into::into)
    });
    if let Err(error) = made {
        tracing::warn!(path = %path.display(), %error, "no disk reserve could be kept");
    }
}
