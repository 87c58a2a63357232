//! Bundles as one file: a gzipped tar, unpacked in memory within bounds that hold whatever it claims of itself.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    ops::Range,
};

use flate2::{Compression, GzBuilder, bufread::GzDecoder};

use super::tar;

/// The largest archive, in bytes.
pub const MAX_ARCHIVE_BYTES: usize = 32 * 1024 * 1024;
/// The most that one unpacks to, in bytes.
pub const MAX_UNPACKED_BYTES: usize = 64 * 1024 * 1024;
/// How many times its own size it may unpack to, once that is more than `FREE_BYTES`. Rego and data come to ten or
/// twenty, and what is made to fill memory to a thousand.
pub const MAX_RATIO: usize = 200;
/// What any archive may unpack to, in bytes.
const FREE_BYTES: usize = 1024 * 1024;

/// The files of an archive.
pub(super) struct Archive {
    unpacked: Vec<u8>,
    files: BTreeMap<String, Range<usize>>,
}

impl Archive {
    /// Unpacks `archive`.
    pub(super) fn read(archive: &[u8]) -> Result<Self, String> {
        if archive.len() > MAX_ARCHIVE_BYTES {
            return Err(format!("it is larger than {MAX_ARCHIVE_BYTES} bytes"));
        }
        let most = archive.len().saturating_mul(MAX_RATIO).clamp(FREE_BYTES, MAX_UNPACKED_BYTES);
        let mut unpacked = Vec::new();
        let mut decoder = GzDecoder::new(archive);
        // One byte more than may be: then there is too much.
        let bounded = decoder.by_ref().take(u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1));
        { bounded }.read_to_end(&mut unpacked).map_err(|error| format!("it is no gzip, or damaged: {error}"))?;
        if unpacked.len() > most {
            return Err(format!("it unpacks to more than {most} bytes"));
        }
        if !decoder.into_inner().is_empty() {
            return Err("something follows its end".to_owned());
        }
        let files = tar::index(&unpacked)?;
        Ok(Self { unpacked, files })
    }

    /// Of `files` that nobody packed.
    pub(super) fn of<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<Self, String> {
        let unpacked = tar::write(files)?;
        if unpacked.len() > MAX_UNPACKED_BYTES {
            return Err(format!("together the files are larger than {MAX_UNPACKED_BYTES} bytes"));
        }
        let files = tar::index(&unpacked)?;
        Ok(Self { unpacked, files })
    }

    /// All of it as it was unpacked.
    pub(super) fn unpacked(&self) -> &[u8] {
        &self.unpacked
    }

    /// Each file by its path, in order.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(name, range)| (name.as_str(), self.unpacked.get(range.clone()).unwrap_or_default()))
    }

    /// The file at `path`.
    pub(super) fn file(&self, path: &str) -> Option<&[u8]> {
        self.unpacked.get(self.files.get(path)?.clone())
    }
}

/// `files` as an archive: the same files are the same bytes.
pub(super) fn write<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<Vec<u8>, String> {
    let unpacked = tar::write(files)?;
    if unpacked.len() > MAX_UNPACKED_BYTES {
        return Err(format!("together the files are larger than {MAX_UNPACKED_BYTES} bytes"));
    }
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    let written = encoder.write_all(&unpacked).and_then(|()| encoder.finish()).map_err(|error| error.to_string())?;
    if written.len() > MAX_ARCHIVE_BYTES || unpacked.len() > FREE_BYTES.max(written.len().saturating_mul(MAX_RATIO)) {
        return Err(format!(
            "the archive would not be taken: at most {MAX_ARCHIVE_BYTES} bytes, unpacked at most {MAX_RATIO} times as much"
        ));
    }
    Ok(written)
}
