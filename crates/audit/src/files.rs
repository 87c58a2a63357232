//! File operations that survive a crash: private modes, whole files by rename, directories synced.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use crate::LedgerError;

/// Creates `path` and what is missing above it, private, and makes that durable.
pub(crate) fn create_directory(path: &Path) -> Result<(), LedgerError> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(LedgerError::io(path))?;
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => sync_directory(parent).map_err(LedgerError::io(parent)),
        None => Ok(()),
    }
}

/// Makes the names in `dir` durable.
pub(crate) fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Refuses `path` where anyone but its owner has any right to it.
pub(crate) fn require_private(path: &Path, wanted: u32) -> Result<(), LedgerError> {
    let mode = fs::metadata(path).map_err(LedgerError::io(path))?.mode() & 0o7777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(LedgerError::Permissions { path: path.to_owned(), mode, wanted }) }
}

/// A new private file to append to. An existing one is an error: what is on disk is never overwritten.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)
}

/// Writes `bytes` as the whole of `path`, which must not exist, durably.
pub(crate) fn create_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    sync_parent(path)
}

/// Makes `bytes` the whole of `path`, whatever it was: a reader sees the old or the new, never a part.
pub(crate) fn replace_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = create_new(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    sync_parent(path)
}

/// Lets the disk begin with what was written to `file`, without waiting for it. Only ever makes a later sync shorter.
pub(crate) fn begin_writing(file: &File) {
    // Pages that are dirty are written and stay; those that are clean already nobody needs soon.
    if let Err(error) = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed) {
        tracing::debug!(error = %io::Error::from(error), "the disk was not asked to begin");
    }
}

/// Makes what was written to `path` durable.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_data()
}

pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent()
        .map_or(Ok(()), |parent| sync_directory(if parent.as_os_str().is_empty() { Path::new(".") } else { parent }))
}

/// Which file it is, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub(crate) fn of(metadata: &fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }

    /// Refuses where another file than this one, or none, is found at `path`.
    pub(crate) fn still_at(self, path: &Path) -> io::Result<()> {
        if Self::of(&fs::metadata(path)?) == self {
            Ok(())
        } else {
            Err(io::Error::other(format!("{} was replaced", path.display())))
        }
    }
}

/// Cuts `path` to `length` bytes, durably. What is cut off is kept in a `.torn` file beside it where there is room.
pub(crate) fn cut(path: &Path, length: u64) -> io::Result<u64> {
    let whole = fs::metadata(path)?.len();
    let Some(excess) = whole.checked_sub(length).filter(|excess| *excess > 0) else { return Ok(0) };
    if let Err(error) = set_aside(path, length) {
        tracing::warn!(path = %path.display(), %error, "a torn tail could not be kept");
    }
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(length)?;
    file.sync_all()?;
    Ok(excess)
}

fn set_aside(path: &Path, from: u64) -> io::Result<()> {
    use std::io::{Seek, SeekFrom};
    let mut source = File::open(path)?;
    source.seek(SeekFrom::Start(from))?;
    let mut name = path.as_os_str().to_owned();
    name.push(".torn");
    let mut aside = OpenOptions::new().append(true).create(true).mode(0o600).open(name)?;
    io::copy(&mut source, &mut aside)?;
    aside.sync_all()
}

/// Bytes free on the disk of `dir` for this process; `None` where the system does not say.
pub(crate) fn disk_free(dir: &Path) -> Option<u64> {
    let file = File::open(dir).ok()?;
    let figures = rustix::fs::fstatvfs(&file).ok()?;
    figures.f_bavail.checked_mul(figures.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_is_kept_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        create_whole(&path, b"whole\ntor").unwrap();
        assert_eq!(cut(&path, 6).unwrap(), 3);
        assert_eq!(fs::read(&path).unwrap(), b"whole\n");
        assert_eq!(fs::read(dir.path().join("a.jsonl.torn")).unwrap(), b"tor");
        assert_eq!(cut(&path, 6).unwrap(), 0);
    }

    #[test]
    fn a_file_is_replaced_whole_and_never_created_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("head");
        replace_whole(&path, b"one").unwrap();
        replace_whole(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert!(create_whole(&path, b"three").is_err());
    }
}
