//! The last good bundle of each source that is fetched, on disk beside the ledger: what a sidecar starts with while the
//! server is away, and how far its serial may not fall. For the sidecar's own user alone.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use policy::bundle::MAX_ARCHIVE_BYTES;
use serde::{Deserialize, Serialize};

use super::bundles::Taken;
use crate::config::{files, sidecar::SidecarConfig};

/// The largest note that is read, in bytes.
const MAX_NOTE: u64 = 16 * 1024;

/// Where they lie.
#[derive(Debug, Clone)]
pub(super) struct LastGood {
    directory: PathBuf,
}

/// What is known of a bundle beside itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// Where it came from; its ETag means something there alone.
    pub(super) url: String,
    /// What the server calls it.
    pub(super) etag: Option<String>,
    /// Its serial, below which the next one may not fall.
    pub(super) serial: Option<u64>,
    /// The SHA-256 of the bundle with that serial, which may lie on its server alone so far.
    #[serde(default)]
    pub(super) sha256: Option<String>,
    /// When the server last said that it is the one.
    pub(super) confirmed: Timestamp,
}

impl Note {
    /// The bundle that it names.
    pub(super) fn taken(&self) -> Taken {
        Taken { serial: self.serial, sha256: self.sha256.clone() }
    }
}

impl LastGood {
    /// Beside the ledger of `config`.
    pub(super) fn of(config: &SidecarConfig) -> Self {
        let mut name = config.ledger.dir.file_name().unwrap_or_default().to_owned();
        name.push("-bundles");
        Self { directory: config.ledger.dir.with_file_name(name) }
    }

    /// What is known of the bundle of `name`, where that is there and nobody else could write it.
    pub(super) fn note(&self, name: &str) -> Option<Note> {
        let note = self.read(name, &self.note_path(name), MAX_NOTE)?;
        let note = serde_json::from_slice(&note);
        note.inspect_err(|error| tracing::warn!(bundle = name, "what is known of the last good bundle: {error}")).ok()
    }

    /// The last good bundle of `name`, where it is there and nobody else could write it.
    pub(super) fn archive(&self, name: &str) -> Option<Vec<u8>> {
        self.read(name, &self.archive_path(name), u64::try_from(MAX_ARCHIVE_BYTES).unwrap_or(u64::MAX))
    }

    fn read(&self, name: &str, path: &Path, most: u64) -> Option<Vec<u8>> {
        if !path.exists() {
            return None;
        }
        let private = [&self.directory, path].into_iter().try_for_each(files::check_private);
        let read = private.map_err(|error| error.to_string());
        let read = read.and_then(|()| bounded(path, most).map_err(|error| error.to_string()));
        read.inspect_err(|error| tracing::warn!(bundle = name, "the last good bundle cannot be used: {error}")).ok()
    }

    /// Keeps `bytes` as the last good bundle of `name`. The note is written first: between the two, the earlier bundle
    /// is there with a serial that it may not fall below, and none is there with a lower one.
    pub(super) fn keep(&self, name: &str, bytes: &[u8], note: &Note) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        // Until the archive is there, its ETag is nobody's.
        let without = Note { etag: None, ..note.clone() };
        put(&self.note_path(name), &serde_json::to_vec(&without)?)?;
        put(&self.archive_path(name), bytes)?;
        put(&self.note_path(name), &serde_json::to_vec(note)?)
    }

    /// Keeps what is known of the bundle of `name`, which is as it was.
    pub(super) fn confirm(&self, name: &str, note: &Note) -> io::Result<()> {
        put(&self.note_path(name), &serde_json::to_vec(note)?)
    }

    /// The folder that all of it is in.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    fn archive_path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.tar.gz"))
    }

    fn note_path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.json"))
    }
}

/// Puts `bytes` in the place of what is at `path`, for this user alone, whole or not at all.
pub(super) fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let next = path.with_extension("next");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// At most so many bytes of a file.
pub(super) fn bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}
