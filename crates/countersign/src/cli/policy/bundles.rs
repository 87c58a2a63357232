//! Bundles as the commands on them read, write and name them.

use std::{io::Write, path::Path};

use policy::bundle::{Bundle, Keys, MAX_ARCHIVE_BYTES};

use crate::failure::{Exit, Failure};

/// Opens the bundle at `path`.
pub(super) fn open(path: &Path, keys: Option<&Keys>) -> Result<Bundle, Failure> {
    let unreadable = |error| Failure::because(Exit::Unavailable, path.display(), error);
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Failure::new(Exit::Usage, format!("{}: not a file; `policy build` makes one", path.display())));
    }
    if usize::try_from(metadata.len()).is_ok_and(|bytes| bytes > MAX_ARCHIVE_BYTES) {
        let line = format!("{}: larger than {MAX_ARCHIVE_BYTES} bytes", path.display());
        return Err(Failure::new(Exit::Failed, line));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    Bundle::open(&bytes, keys).map_err(|error| Failure::because(Exit::Failed, path.display(), error))
}

/// Writes `archive` to `path`, at once or not at all.
pub(super) fn write(path: &Path, archive: &[u8]) -> Result<(), Failure> {
    let unwritable = |error| Failure::because(Exit::Unavailable, path.display(), error);
    let mut next = path.as_os_str().to_owned();
    next.push(".next");
    let next = Path::new(&next);
    let mut file = std::fs::File::create(next).map_err(unwritable)?;
    file.write_all(archive).and_then(|()| file.sync_all()).map_err(unwritable)?;
    std::fs::rename(next, path).map_err(unwritable)
}

/// One line about the bundle that was written to `path`.
pub(super) fn line(path: &Path, bundle: &Bundle) -> String {
    let manifest = bundle.manifest();
    let serial = manifest.serial.map(|serial| format!(" serial {serial}")).unwrap_or_default();
    format!("{}: revision {}{serial}, sha256 {}", path.display(), manifest.revision, bundle.digest())
}
