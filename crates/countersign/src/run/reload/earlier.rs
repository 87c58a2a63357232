//! Bundles that decided earlier, on disk beside the last good ones: what a pin goes back to. Of each source a bounded
//! number, for the sidecar's own user alone; each is verified again before it decides.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use policy::{PolicySource, Source, bundle::Origin};
use serde::{Deserialize, Serialize};

use super::last_good::{bounded, put};
use crate::config::files;

/// How many are kept of one source, and what they may take on the disk. The oldest go first.
const MOST: usize = 10;
const MAX_BYTES: u64 = 128 * 1024 * 1024;
/// The largest note that is read, in bytes.
const MAX_NOTE: u64 = 16 * 1024;
const ARCHIVE: &str = "tar.gz";

/// Where they lie.
#[derive(Debug, Clone)]
pub(super) struct Earlier {
    directory: PathBuf,
}

/// What is known of one without opening it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    revision: String,
    serial: Option<u64>,
    sha256: String,
    bytes: u64,
    /// When it was put here last.
    kept: Timestamp,
}

impl Earlier {
    /// In `directory`, which is made when it is needed.
    pub(super) fn below(directory: &Path) -> Self {
        Self { directory: directory.join("earlier") }
    }

    /// Whether the bundle of `name` that `origin` describes is here.
    pub(super) fn has(&self, name: &str, origin: &Origin) -> bool {
        self.places(name, origin).is_some_and(|(note, archive)| note.exists() && archive.exists())
    }

    /// Keeps the `archive` that `origin` describes. Of the others of `name` the oldest go where there are too many, but
    /// none of the revision `spare`.
    pub(super) fn keep(
        &self,
        name: &str,
        archive: &[u8],
        origin: &Origin,
        spare: Option<&str>,
        now: Timestamp,
    ) -> io::Result<()> {
        let (Some((note_path, path)), Some(sha256)) = (self.places(name, origin), &origin.digest) else {
            return Ok(());
        };
        DirBuilder::new().mode(0o700).recursive(true).create(self.directory.join(name))?;
        let note = Note {
            revision: origin.manifest.revision.clone(),
            serial: origin.manifest.serial,
            sha256: sha256.clone(),
            bytes: archive.len() as u64,
            kept: now,
        };
        put(&path, archive)?;
        put(&note_path, &serde_json::to_vec(&note)?)?;
        self.sweep(name, spare);
        Ok(())
    }

    /// The bundle of `source` that calls itself `revision`, opened as one that came from its server: the one that was
    /// kept last, where there are several.
    ///
    /// # Errors
    /// Says why there is none.
    pub(super) fn open(&self, source: &PolicySource, revision: &str) -> Result<(Source, Origin), String> {
        let keys = source.keys(Path::new("/")).map_err(|error| error.to_string())?;
        let mut why = format!("no bundle that calls itself `{revision}` is kept here, and none came");
        for note in self.notes(&source.name).into_iter().rev().filter(|note| note.revision == revision) {
            let path = self.directory.join(&source.name).join(format!("{}.{ARCHIVE}", note.sha256));
            let opened = private(&path, note.bytes)
                .and_then(|bytes| source.opened(&bytes, keys.as_ref(), &path).map_err(|error| error.to_string()));
            match opened {
                // What decides is what is asked for, whatever its note says.
                Ok((opened, origin)) if origin.manifest.revision == revision => return Ok((opened, origin)),
                Ok(_) => why = format!("{}: it does not call itself `{revision}`", path.display()),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// What is here of `name`, in the order in which it was kept.
    fn notes(&self, name: &str) -> Vec<Note> {
        let entries = fs::read_dir(self.directory.join(name)).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|it| it == "json"));
        let read = |path: PathBuf| serde_json::from_slice(&private(&path, MAX_NOTE).ok()?).ok();
        // Its digest names a file: a note that was tampered with leads nowhere else.
        let plain = |note: &Note| note.sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut notes: Vec<Note> = paths.filter_map(read).filter(plain).collect();
        notes.sort_by(|a, b| (a.kept, &a.sha256).cmp(&(b.kept, &b.sha256)));
        notes
    }

    /// Removes the oldest where there are too many of `name`.
    fn sweep(&self, name: &str, spare: Option<&str>) {
        let notes = self.notes(name);
        let (mut count, mut bytes) = (notes.len(), notes.iter().map(|note| note.bytes).sum::<u64>());
        let newest = notes.last().cloned();
        for note in notes {
            let needed = spare == Some(note.revision.as_str()) || newest.as_ref() == Some(&note);
            if needed || (count <= MOST && bytes <= MAX_BYTES) {
                continue;
            }
            (count, bytes) = (count - 1, bytes.saturating_sub(note.bytes));
            for ending in ["json", ARCHIVE] {
                let path = self.directory.join(name).join(format!("{}.{ending}", note.sha256));
                if let Err(error) = fs::remove_file(&path) {
                    tracing::warn!(%error, path = %path.display(), "an earlier bundle is not removed");
                }
            }
        }
    }

    /// Where the bundle that `origin` describes lies: its note and its archive.
    fn places(&self, name: &str, origin: &Origin) -> Option<(PathBuf, PathBuf)> {
        let digest = origin.digest.as_ref()?;
        let directory = self.directory.join(name);
        Some((directory.join(format!("{digest}.json")), directory.join(format!("{digest}.{ARCHIVE}"))))
    }
}

/// A file that nobody else could write.
fn private(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    path.ancestors().take(3).try_for_each(files::check_private).map_err(|error| error.to_string())?;
    bounded(path, most).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(revision: &str, digest: &str) -> Origin {
        let mut origin = Origin { digest: Some(digest.to_owned()), ..Origin::default() };
        origin.manifest.revision = revision.to_owned();
        origin
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_oldest_go_first_and_what_is_pinned_stays() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let earlier = Earlier::below(folder.path());
        for number in 0..20 {
            let one = origin(&format!("r{number}"), &format!("{number:02x}"));
            earlier.keep("support", b"archive", &one, Some("r1"), at(i64::from(number))).unwrap();
        }
        let revisions: Vec<String> = earlier.notes("support").into_iter().map(|note| note.revision).collect();
        assert_eq!(revisions.len(), MOST, "{revisions:?}");
        assert_eq!((revisions[0].as_str(), revisions[1].as_str()), ("r1", "r11"));
        assert!(earlier.has("support", &origin("r19", "13")) && !earlier.has("support", &origin("r2", "02")));
        // What is put here again is the newest again, and there once.
        earlier.keep("support", b"archive", &origin("r1", "01"), None, at(50)).unwrap();
        let notes = earlier.notes("support");
        assert_eq!((notes.len(), notes.last().unwrap().revision.as_str()), (MOST, "r1"));
    }

    #[test]
    fn what_others_could_write_is_not_here() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let earlier = Earlier::below(folder.path());
        earlier.keep("support", b"archive", &origin("r1", "01"), None, at(1)).unwrap();
        assert_eq!(earlier.notes("support").len(), 1);
        let note = folder.path().join("earlier/support/01.json");
        fs::set_permissions(&note, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        assert!(earlier.notes("support").is_empty());
    }
}
