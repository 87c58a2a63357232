//! One file of a segment, as it was written or compressed: `NAME`, or `NAME.gz` in its place.
//!
//! Where both are there, a crash came between making the one and removing the other, and `NAME` counts.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, BufRead, BufReader, ErrorKind},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;

const BUFFER: usize = 64 * 1024;

/// The bytes of a stored file, whichever form it has.
pub(crate) type Source = Box<dyn BufRead + Send>;

/// The name of the compressed form.
pub(crate) fn packed(path: &Path) -> PathBuf {
    with_suffix(path, ".gz")
}

/// The name of a form that is being made, which no reader looks at.
pub(crate) fn in_making(path: &Path) -> PathBuf {
    with_suffix(path, ".new")
}

/// What a crash cut off, kept for whoever looks into it.
pub(crate) fn torn(path: &Path) -> PathBuf {
    with_suffix(path, ".torn")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Opens `path` for reading.
pub(crate) fn open(path: &Path) -> io::Result<Source> {
    match File::open(path) {
        Ok(file) => Ok(Box::new(BufReader::with_capacity(BUFFER, file))),
        // In this order: a file is compressed under a reader's eyes, never the other way round.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let file = File::open(packed(path))?;
            let decoder = MultiGzDecoder::new(BufReader::with_capacity(BUFFER, file));
            Ok(Box::new(BufReader::with_capacity(BUFFER, decoder)))
        }
        Err(error) => Err(error),
    }
}

/// Whether it is there, in either form.
pub(crate) fn exists(path: &Path) -> io::Result<bool> {
    Ok(path.try_exists()? || packed(path).try_exists()?)
}

/// Whether it is there in its compressed form only.
pub(crate) fn is_packed(path: &Path) -> io::Result<bool> {
    Ok(!path.try_exists()? && packed(path).try_exists()?)
}

/// The bytes it takes on the disk.
pub(crate) fn bytes_on_disk(path: &Path) -> u64 {
    let length = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    length(path) + length(&packed(path))
}

/// Removes it in every form.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    for path in [path, &packed(path), &in_making(path), &in_making(&packed(path)), &torn(path)] {
        remove_if_there(path)?;
    }
    Ok(())
}

pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
