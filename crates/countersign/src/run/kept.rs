//! The policies that decided, kept in the ledger's directory for as long as a record may cite them: a decision is then
//! made again from that directory alone. Each is found by its revision, which is a digest over everything in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufReader, BufWriter, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use audit::query::Filter;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use jiff::Timestamp;
use model::{Catalogue, Id, Tenant, Tool};
use net::Desk;
use policy::Source;
use proxy::{config::ToolConfig, resolve_tools};
use serde::{Deserialize, Serialize};

use super::trial::without_credentials;

/// Where they lie in the ledger's directory.
const DIRECTORY: &str = "policies";
const ENDING: &str = ".json.gz";
/// The largest that is kept, in bytes before it is compressed. Policies with more data are not kept, and their records
/// say so.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// What all of them may take on the disk, and how many there may be. The oldest go first.
const MAX_DISK_BYTES: u64 = 256 * 1024 * 1024;
const MAX_KEPT: usize = 1_000;

/// Policies with what they decide about.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Kept {
    revision: String,
    /// The version of the program that decided by them: its library and its engine are part of the revision.
    pub(crate) binary: String,
    catalogue: String,
    tenants: BTreeSet<Id<Tenant>>,
    tools: BTreeMap<Id<Tool>, ToolConfig>,
    pub(crate) sources: Vec<Source>,
}

/// Keeps the policies that decide from now on with the ledger at `ledger`, before the first decision by them; whether
/// they are kept. They decide all the same where they are not: the record of their coming into force says so.
pub(super) async fn keep(kept: &Kept, ledger: &Path, desk: &Desk) -> bool {
    let (kept, ledger) = (kept.clone(), ledger.to_owned());
    let keeping = desk.run("keep policies", move || {
        let first = audit::query::query(&ledger, Filter::default()).ok().and_then(|mut entries| entries.next()?.ok());
        kept.keep(&ledger, net::clock::now(), first.map(|entry| entry.time))
    });
    match keeping.join().await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the policies are not kept with the ledger: decisions by them cannot be made again from it");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "the policies are not kept with the ledger");
            false
        }
    }
}

/// Why policies could not be kept, or not be read again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeptError {
    /// They are too much.
    #[error("the policies with their data are larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// The disk does not give or take them.
    #[error("{}: {cause}", path.display())]
    Disk {
        /// What was being written or read.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// What was kept is not what this version reads.
    #[error("{}: cannot be read: {why}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

impl Kept {
    /// The policies of `sources` as they decide from now on about the calls of `tools`.
    pub(crate) fn new(
        revision: &str,
        catalogue: &Catalogue,
        tools: &BTreeMap<Id<Tool>, ToolConfig>,
        tenants: &BTreeSet<Id<Tenant>>,
        sources: Vec<Source>,
    ) -> Self {
        Self {
            revision: revision.to_owned(),
            binary: env!("CARGO_PKG_VERSION").to_owned(),
            catalogue: catalogue.revision().to_owned(),
            tenants: tenants.clone(),
            tools: tools.iter().map(|(id, tool)| (id.clone(), without_credentials(tool))).collect(),
            sources,
        }
    }

    /// Keeps them in the ledger at `ledger`, and lets those go that no record of it can cite any more: those that were
    /// followed by others before `earliest`, the time of its first record.
    ///
    /// # Errors
    /// Where they are too large, or the disk does not take them.
    pub(crate) fn keep(&self, ledger: &Path, now: Timestamp, earliest: Option<Timestamp>) -> Result<(), KeptError> {
        let directory = ledger.join(DIRECTORY);
        let disk = |path: &Path| {
            let path = path.to_owned();
            move |cause| KeptError::Disk { path, cause }
        };
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(disk(&directory)(error)),
            Ok(()) | Err(_) => {}
        }
        let path = directory.join(format!("{}{ENDING}", self.revision));
        if !path.exists() {
            self.write(&path)?;
        }
        let begun = SystemTime::from(now);
        File::open(&path).and_then(|file| file.set_modified(begun)).map_err(disk(&path))?;
        File::open(&directory).and_then(|file| file.sync_all()).map_err(disk(&directory))?;
        sweep(&directory, earliest).map_err(disk(&directory))
    }

    fn write(&self, path: &Path) -> Result<(), KeptError> {
        let beside = path.with_extension("gz.new");
        let written = self.write_whole(&beside).and_then(|()| fs::rename(&beside, path));
        written.map_err(|cause| {
            // It is written over by the next attempt, if it cannot be removed now.
            fs::remove_file(&beside).ok();
            match cause.kind() {
                io::ErrorKind::FileTooLarge => KeptError::TooLarge,
                _ => KeptError::Disk { path: path.to_owned(), cause },
            }
        })
    }

    fn write_whole(&self, path: &Path) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        let packed = GzEncoder::new(BufWriter::new(file), Compression::fast());
        let mut bounded = Bounded { inner: packed, left: MAX_BYTES };
        serde_json::to_writer(&mut bounded, self).map_err(io::Error::from)?;
        let mut buffered = bounded.inner.finish()?;
        buffered.flush()?;
        buffered.get_ref().sync_all()
    }

    /// The policies of the revision that were kept in the ledger at `ledger`; `None` where there are none.
    ///
    /// # Errors
    /// Where what was kept cannot be read.
    pub(crate) fn of(ledger: &Path, revision: &str) -> Result<Option<Self>, KeptError> {
        // A revision names a file: what a record says must not lead anywhere else.
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if revision.is_empty() || !revision.chars().all(is_name) {
            return Ok(None);
        }
        let path = ledger.join(DIRECTORY).join(format!("{revision}{ENDING}"));
        match File::open(&path) {
            Ok(file) => Self::read(&path, file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(KeptError::Disk { path, cause }),
        }
    }

    /// Those that came into force last.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub(crate) fn newest(ledger: &Path) -> Result<Option<Self>, KeptError> {
        let directory = ledger.join(DIRECTORY);
        let newest = match all(&directory) {
            Ok(all) => all.into_iter().next_back(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(cause) => return Err(KeptError::Disk { path: directory, cause }),
        };
        let Some(One { path, .. }) = newest else { return Ok(None) };
        let file = File::open(&path).map_err(|cause| KeptError::Disk { path: path.clone(), cause })?;
        Self::read(&path, file).map(Some)
    }

    fn read(path: &Path, file: File) -> Result<Self, KeptError> {
        let bounded = GzDecoder::new(BufReader::new(file)).take(MAX_BYTES);
        serde_json::from_reader(BufReader::new(bounded))
            .map_err(|error| KeptError::Unreadable { path: path.to_owned(), why: error.to_string() })
    }

    /// The tools and actions that they decided about.
    ///
    /// # Errors
    /// Where this version would not load such tools.
    pub(crate) fn catalogue(&self) -> Result<Catalogue, Box<dyn std::error::Error + Send + Sync>> {
        let tools = resolve_tools(&self.tools, &self.tenants, &|_| None)?;
        Ok(Catalogue::new(tools.catalogue.tools().to_vec(), self.catalogue.clone())?)
    }
}

/// One of those that are kept.
struct One {
    begun: SystemTime,
    bytes: u64,
    path: PathBuf,
}

/// All of them, in the order in which they last came into force.
fn all(directory: &Path) -> io::Result<Vec<One>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let metadata = fs::metadata(&path)?;
        if path.to_string_lossy().ends_with(ENDING) {
            all.push(One { begun: metadata.modified()?, bytes: metadata.len(), path });
        }
    }
    all.sort_by(|a, b| (a.begun, &a.path).cmp(&(b.begun, &b.path)));
    Ok(all)
}

/// Removes what no record cites any more, and the oldest where there is too much.
fn sweep(directory: &Path, earliest: Option<Timestamp>) -> io::Result<()> {
    let all = all(directory)?;
    let mut bytes: u64 = all.iter().map(|one| one.bytes).sum();
    let mut count = all.len();
    let earliest = earliest.map(SystemTime::from);
    for (one, next) in all.iter().zip(all.iter().skip(1)) {
        // What decided until the next one came: before the first record that there is.
        let uncited = earliest.is_some_and(|earliest| next.begun < earliest);
        if uncited || count > MAX_KEPT || bytes > MAX_DISK_BYTES {
            fs::remove_file(&one.path)?;
            bytes = bytes.saturating_sub(one.bytes);
            count -= 1;
        }
    }
    Ok(())
}

/// Takes so many bytes and no more.
struct Bounded<W> {
    inner: W,
    left: u64,
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len() as u64;
        self.left = self.left.checked_sub(length).ok_or(io::ErrorKind::FileTooLarge)?;
        self.inner.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests;
