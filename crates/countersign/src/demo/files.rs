//! The demo's directory: real configuration files that a person can read, edit and run, and what the parts keep.
//!
//! The directory is for its owner only (0700, files 0600), because the sidecar runs as the same user here. A
//! directory that is not a demo's is never touched.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::failure::{Exit, Failure};

/// Says that a directory is a demo's, so that a later run may write over it.
const MARKER: &str = ".countersign-demo";

/// The demo's directory, and no other demo's while this is held.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    _lock: File,
}

impl Files {
    /// The directory at `wanted`, new or left by another run of the demo; a new one below `temporary` otherwise.
    pub(super) fn prepare(wanted: Option<&Path>, temporary: &Path) -> Result<Self, Failure> {
        let dir = match wanted {
            Some(dir) => at(dir)?,
            None => fresh(&temporary.join(format!("countersign-demo-{}", uuid::Uuid::now_v7())))?,
        };
        Ok(Self { _lock: lock(&dir)?, dir })
    }

    /// Where `relative` is.
    pub(super) fn path(&self, relative: &str) -> PathBuf {
        self.dir.join(relative)
    }

    /// The directory itself.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes `content` to `relative` whole or not at all, readable by its owner only.
    pub(super) fn write(&self, relative: &str, content: &str) -> Result<PathBuf, Failure> {
        let path = self.path(relative);
        let failed = |error| Failure::because(Exit::Unavailable, format!("cannot write {}", path.display()), error);
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
        }
        // Renamed into place, so that neither a sidecar that reloads nor a shell that reads sees half of it.
        let part = path.with_added_extension("part");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part).map_err(failed)?;
        file.write_all(content.as_bytes()).map_err(failed)?;
        drop(file);
        fs::rename(&part, &path).map_err(failed)?;
        Ok(path)
    }
}

fn at(dir: &Path) -> Result<PathBuf, Failure> {
    let failed = |error| Failure::because(Exit::Unavailable, format!("cannot use {}", dir.display()), error);
    let entries: Vec<_> = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return fresh(dir),
        Err(error) => return Err(failed(error)),
        Ok(entries) => entries.collect::<Result<_, _>>().map_err(failed)?,
    };
    if !entries.is_empty() && !dir.join(MARKER).is_file() {
        let line = format!(
            "{} is not empty and not a demo's directory; name an empty or a new one with --data",
            dir.display()
        );
        return Err(Failure::new(Exit::Usage, line));
    }
    fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(failed)?;
    fs::canonicalize(dir).map_err(failed)
}

/// Fails when it exists: below a shared directory, somebody else might have made it.
fn fresh(dir: &Path) -> Result<PathBuf, Failure> {
    let failed = |error| Failure::because(Exit::Unavailable, format!("cannot make {}", dir.display()), error);
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    DirBuilder::new().mode(0o700).create(dir).map_err(failed)?;
    fs::canonicalize(dir).map_err(failed)
}

/// Marks `dir` as a demo's and as in use: another demo would write its own ports and secrets over this one's.
fn lock(dir: &Path) -> Result<File, Failure> {
    let failed = |error| Failure::because(Exit::Unavailable, format!("cannot use {}", dir.display()), error);
    let marker = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(dir.join(MARKER));
    let marker = marker.map_err(failed)?;
    match marker.try_lock() {
        Ok(()) => Ok(marker),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::new(Exit::Unavailable, format!("{} is in use by another demo", dir.display())))
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// `path` as a shell takes it for one word.
pub(super) fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// `template` with each `{{name}}` replaced by its value.
///
/// # Errors
/// When a name of the template has no value: a file with a hole in it must not be written.
pub(super) fn filled(template: &str, values: &[(&str, &str)]) -> Result<String, Failure> {
    let mut text = template.to_owned();
    for (name, value) in values {
        text = text.replace(&format!("{{{{{name}}}}}"), value);
    }
    match text.split_once("{{") {
        None => Ok(text),
        Some((_, rest)) => {
            let name = rest.split_once("}}").map_or(rest, |(name, _)| name);
            Err(Failure::new(Exit::Failed, format!("the demo's configuration has no value for `{name}`")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn everything_is_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::prepare(Some(&folder.path().join("a/b")), folder.path()).unwrap();
        let secret = files.write("secrets/orders", "s").unwrap();
        assert_eq!((mode(files.dir()), mode(&files.path("secrets")), mode(&secret)), (0o700, 0o700, 0o600));
    }

    #[test]
    fn a_directory_that_is_not_a_demos_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.txt"), "years of work").unwrap();
        let before = mode(folder.path());
        assert!(Files::prepare(Some(folder.path()), Path::new("/nowhere")).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(mode(folder.path()), before);
    }

    #[test]
    fn a_demos_directory_can_be_used_again() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let files = Files::prepare(Some(folder.path()), Path::new("/nowhere")).unwrap();
            files.write("ledger/segment", "x").unwrap();
        }
    }

    #[test]
    fn two_demos_at_once_do_not_share_a_directory() {
        let folder = tempfile::tempdir().unwrap();
        let first = Files::prepare(Some(folder.path()), Path::new("/nowhere")).unwrap();
        let second = Files::prepare(Some(folder.path()), Path::new("/nowhere")).unwrap_err();
        assert!(second.to_string().contains("in use"), "{second}");
        drop(first);
        assert!(Files::prepare(Some(folder.path()), Path::new("/nowhere")).is_ok());
    }

    #[test]
    fn each_demo_has_a_directory_of_its_own_unless_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let one = Files::prepare(None, folder.path()).unwrap();
        let other = Files::prepare(None, folder.path()).unwrap();
        assert_ne!(one.dir(), other.dir());
    }

    #[test]
    fn a_path_is_one_word_for_the_shell_whatever_is_in_it() {
        assert_eq!(shell_word(Path::new("/tmp/demo-1/a.b")), "/tmp/demo-1/a.b");
        assert_eq!(shell_word(Path::new("/tmp/my demo/it's")), r"'/tmp/my demo/it'\''s'");
        assert_eq!(shell_word(Path::new("/tmp/$(reboot)")), "'/tmp/$(reboot)'");
    }

    #[test]
    fn a_template_with_a_hole_is_refused() {
        assert_eq!(filled("tcp: {{a}}, again {{a}}", &[("a", "1")]).unwrap(), "tcp: 1, again 1");
        assert!(filled("tcp: {{b}}", &[("a", "1")]).unwrap_err().to_string().contains("`b`"));
    }
}
