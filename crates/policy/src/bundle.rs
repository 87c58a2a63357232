//! Policy sources: the Rego files and data documents of one owner, read from a directory or from a bundle in the format
//! of OPA.
//!
//! `*.rego` are policies, `*_test.rego` their tests, `data.json`, `data.yaml` and `data.yml` data documents, each
//! under the path of its directory as in an OPA bundle. Names that begin with a dot are passed over, and a
//! symbolic link may only lead to a place inside the directory (that is how Kubernetes mounts a ConfigMap).

mod archive;
mod build;
mod canonical;
mod data;
mod directory;
mod manifest;
mod opened;
mod signature;
mod tar;

use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    path::{Path as FilePath, PathBuf},
};

use model::{Id, Tool};
use serde::{Deserialize, Serialize};

pub(crate) use self::data::TextDigest;
pub use self::{
    archive::{MAX_ARCHIVE_BYTES, MAX_RATIO, MAX_UNPACKED_BYTES},
    build::{Making, build},
    data::Data,
    manifest::{Manifest, is_revision},
    opened::{Bundle, Listed, Signature},
    signature::{Algorithm, KeyConfig, Keys, KeysConfig, Signer, SigningKey},
};
use crate::{
    Known, LoadError, PolicySource, catalogue,
    config::SourceKind,
    roots::{ORG, Owner},
};

/// The largest Rego file, in bytes.
pub const MAX_REGO_BYTES: u64 = 512 * 1024;
/// The largest data document, in bytes.
pub const MAX_DATA_BYTES: u64 = 32 * 1024 * 1024;
/// The most values of one data document.
pub const MAX_DATA_VALUES: usize = 1_000_000;
/// The most files of one source.
pub const MAX_FILES: usize = 1_000;
/// The deepest directory below a source's own.
pub const MAX_DIRECTORY_DEPTH: usize = 16;

/// Why what is signed is not taken without keys.
const UNVERIFIED: &str = "it is signed; name whose signature counts in `keys`";

/// One owner's policies, tests and data, and the tools they are for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Source {
    /// `org`, or a team's name.
    pub name: String,
    /// The tools a team decides about; `None` for `org`.
    pub tools: Option<BTreeSet<Id<Tool>>>,
    /// The policies.
    pub policies: Vec<File>,
    /// Their tests, never enforced.
    #[serde(skip)]
    pub tests: Vec<File>,
    /// The data documents.
    pub data: Vec<Data>,
}

/// A Rego file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// How errors name it.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// What a file of a source's directory is, which its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Rego that decides.
    Policy,
    /// Rego that tests, and is never enforced.
    Test,
    /// A data document.
    Data,
}

impl FileKind {
    /// `None` for a file that no source reads.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        if is_passed_over(name) {
            return None;
        }
        if matches!(name, "data.json" | "data.yaml" | "data.yml") {
            return Some(Self::Data);
        }
        let is_rego = FilePath::new(name).extension().is_some_and(|extension| extension == "rego");
        is_rego.then(|| if name.ends_with("_test.rego") { Self::Test } else { Self::Policy })
    }
}

/// The SHA-256 of an archive, as [`Origin::digest`] has it.
#[must_use]
pub fn digest(archive: &[u8]) -> String {
    signature::hexadecimal(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, archive).as_ref())
}

/// Whether a source of policy may have that name: `org`, or a team's.
#[must_use]
pub fn is_source(name: &str) -> bool {
    Owner::of_source(name).is_some()
}

/// Whether a source of the catalogue may have that name: as a team's, with which it shares pins and what is kept of it.
#[must_use]
pub fn is_catalogue_source(name: &str) -> bool {
    is_source(name) && name != ORG
}

/// Whether neither a file nor a directory of that name is looked at.
#[must_use]
pub fn is_passed_over(name: &str) -> bool {
    name.starts_with('.')
}

/// Where the policies of a source came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// What they say of themselves.
    pub manifest: Manifest,
    /// The SHA-256 of the bundle's archive, or of the files of a signed directory as a tar; `None` where they are a
    /// directory that nobody signed.
    pub digest: Option<String>,
    /// Who signed them.
    pub signer: Option<Signer>,
    /// The serial that they went back from, where they did.
    pub rolled_back: Option<u64>,
    /// The pin that they are kept by, where they are.
    pub pinned: Option<String>,
    /// Whether they are policies at all.
    pub kind: SourceKind,
}

impl PolicySource {
    /// Reads the source's directory or bundle; relative paths start at `base`.
    pub fn read(&self, base: &FilePath) -> Result<Source, LoadError> {
        self.open(base).map(|(source, _)| source)
    }

    /// The same, and where it came from. A bundle has to be signed where there are `keys`, and there have to be where
    /// it is signed.
    pub fn open(&self, base: &FilePath) -> Result<(Source, Origin), LoadError> {
        self.open_knowing(base, &Known::default())
    }

    /// The same. A document that is `known` by its very bytes is not read again.
    pub fn open_knowing(&self, base: &FilePath, known: &Known) -> Result<(Source, Origin), LoadError> {
        if let Some(bundle) = &self.bundle {
            let reason = format!("is fetched from {} by whoever decides by it; name a file that holds it", bundle.url);
            return Err(LoadError::Source { name: self.name.clone(), reason });
        }
        if self.path.as_os_str().is_empty() {
            let reason = "needs `path` or `bundle`".to_owned();
            return Err(LoadError::Source { name: self.name.clone(), reason });
        }
        let path = base.join(&self.path);
        let keys = self.keys(base)?;
        if path.is_dir() {
            return self.unpacked(&path, keys.as_ref(), known);
        }
        self.opened_knowing(&archive(&path)?, keys.as_ref(), &path, known)
    }

    /// The same of a directory, whose files are those of a bundle where it is signed.
    fn unpacked(&self, path: &FilePath, keys: Option<&Keys>, known: &Known) -> Result<(Source, Origin), LoadError> {
        if let Some(keys) = keys {
            return self.described(&directory::signed(path, keys, known.clone())?, path);
        }
        if directory::is_signed(path) {
            return Err(unfit(path, UNVERIFIED));
        }
        let before = directory::stamps(path);
        let read = match self.kind {
            SourceKind::Policy => Source::declared_knowing(&self.name, path, self.tools.clone(), known),
            SourceKind::Catalogue => catalogue::read(&self.name, path, self.tools.as_ref()),
        };
        // Half of one state and half of another may well load.
        if directory::stamps(path) != before {
            return Err(unfit(path, "it changed while it was read"));
        }
        let (source, manifest) = read?;
        Ok((source, Origin { manifest, kind: self.kind, ..Origin::default() }))
    }

    /// The same of the archive `bytes`, which errors name `shown`.
    pub fn opened(&self, bytes: &[u8], keys: Option<&Keys>, shown: &FilePath) -> Result<(Source, Origin), LoadError> {
        self.opened_knowing(bytes, keys, shown, &Known::default())
    }

    /// The same. A document that is `known` by its very bytes is not read again.
    pub fn opened_knowing(
        &self,
        bytes: &[u8],
        keys: Option<&Keys>,
        shown: &FilePath,
        known: &Known,
    ) -> Result<(Source, Origin), LoadError> {
        let bundle = Bundle::open_knowing(bytes, keys, known.clone()).map_err(|error| unfit(shown, error))?;
        self.described(&bundle, shown)
    }

    fn described(&self, bundle: &Bundle, shown: &FilePath) -> Result<(Source, Origin), LoadError> {
        let signer = match bundle.signature() {
            Signature::Absent => None,
            Signature::Verified(signer) => Some(signer.clone()),
            Signature::Unverified => return Err(unfit(shown, UNVERIFIED)),
        };
        let source = match self.kind {
            SourceKind::Policy => bundle.source(&self.name, self.tools.clone(), shown)?,
            SourceKind::Catalogue => bundle.catalogue(&self.name, self.tools.as_ref(), shown)?,
        };
        let (manifest, digest) = (bundle.manifest().clone(), Some(bundle.digest().to_owned()));
        Ok((source, Origin { manifest, digest, signer, kind: self.kind, ..Origin::default() }))
    }

    /// The keys of which one has to have signed the bundle; relative paths start at `base`.
    pub fn keys(&self, base: &FilePath) -> Result<Option<Keys>, LoadError> {
        let Some(configured) = &self.keys else { return Ok(None) };
        let mut keys = Keys::default();
        for (name, key) in configured {
            let path = base.join(&key.file);
            let pem = bounded(&path, MAX_REGO_BYTES)?;
            let added = keys.add(name, key.algorithm, pem.as_bytes(), key.scope.clone());
            added.map_err(|error| unfit(&path, error))?;
        }
        Ok(Some(keys))
    }
}

impl Source {
    /// Reads what lies in the directory or bundle at `path`. A bundle's signature is not looked at.
    pub fn read(name: &str, path: &FilePath, tools: Option<BTreeSet<Id<Tool>>>) -> Result<Self, LoadError> {
        if path.is_file() {
            let bundle = Bundle::open(&archive(path)?, None).map_err(|error| unfit(path, error))?;
            return bundle.source(name, tools, path);
        }
        Self::read_declared(name, path, tools).map(|(source, _)| source)
    }

    /// Reads the catalogue that lies in the directory or bundle at `path`.
    pub(crate) fn catalogue_at(path: &FilePath) -> Result<Self, LoadError> {
        if path.is_file() {
            let bundle = Bundle::open(&archive(path)?, None).map_err(|error| unfit(path, error))?;
            return bundle.catalogue("", None, path);
        }
        catalogue::read("", path, None).map(|(source, _)| source)
    }

    /// Reads what lies in `directory`, and its `.manifest`, where it has one.
    fn read_declared(
        name: &str,
        directory: &FilePath,
        tools: Option<BTreeSet<Id<Tool>>>,
    ) -> Result<(Self, Manifest), LoadError> {
        Self::declared_knowing(name, directory, tools, &Known::default())
    }

    /// The same. A document that is `known` by its very bytes is not read again.
    fn declared_knowing(
        name: &str,
        directory: &FilePath,
        tools: Option<BTreeSet<Id<Tool>>>,
        known: &Known,
    ) -> Result<(Self, Manifest), LoadError> {
        let (source, manifest) = Self::gathered_knowing(name, directory, tools, known)?;
        if source.policies.is_empty() {
            return Err(unfit(directory, "the directory has no Rego policy"));
        }
        opened::own(&manifest, name).map_err(|error| unfit(directory, error))?;
        Ok((source, manifest))
    }

    /// The files in `directory`, whatever they are, and its `.manifest`, where it has one.
    pub(crate) fn gathered(
        name: &str,
        directory: &FilePath,
        tools: Option<BTreeSet<Id<Tool>>>,
    ) -> Result<(Self, Manifest), LoadError> {
        Self::gathered_knowing(name, directory, tools, &Known::default())
    }

    fn gathered_knowing(
        name: &str,
        directory: &FilePath,
        tools: Option<BTreeSet<Id<Tool>>>,
        known: &Known,
    ) -> Result<(Self, Manifest), LoadError> {
        let root = fs::canonicalize(directory).map_err(unreadable(directory))?;
        let mut reader = Reader { shown: directory, root, files: 0, source: Self::empty(name, tools), known };
        reader.directory(directory, &[])?;
        let place = directory.join(manifest::NAME);
        if !place.is_file() {
            return Ok((reader.source, Manifest::default()));
        }
        let manifest = Manifest::parse(bounded(&place, MAX_REGO_BYTES)?.as_bytes());
        Ok((reader.source, manifest.map_err(|error| unfit(directory, error))?))
    }

    fn empty(name: &str, tools: Option<BTreeSet<Id<Tool>>>) -> Self {
        Self { name: name.to_owned(), tools, policies: Vec::new(), tests: Vec::new(), data: Vec::new() }
    }
}

struct Reader<'a> {
    shown: &'a FilePath,
    root: PathBuf,
    files: usize,
    source: Source,
    known: &'a Known,
}

impl Reader<'_> {
    fn directory(&mut self, directory: &FilePath, below: &[String]) -> Result<(), LoadError> {
        if below.len() > MAX_DIRECTORY_DEPTH {
            return Err(unfit(directory, format!("more than {MAX_DIRECTORY_DEPTH} directories deep")));
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(directory).map_err(unreadable(directory))? {
            let entry = entry.map_err(unreadable(directory))?;
            let name = entry.file_name().into_string().map_err(|_| unfit(&entry.path(), "the name is not UTF-8"))?;
            names.push(name);
        }
        names.sort();
        for name in names.into_iter().filter(|name| !is_passed_over(name)) {
            self.entry(&directory.join(&name), &name, below)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &FilePath, name: &str, below: &[String]) -> Result<(), LoadError> {
        let linked = fs::symlink_metadata(path).map_err(unreadable(path))?.is_symlink();
        let metadata = fs::metadata(path).map_err(unreadable(path))?;
        if linked && !fs::canonicalize(path).map_err(unreadable(path))?.starts_with(&self.root) {
            return Err(unfit(path, "the symbolic link leads out of the source's directory"));
        }
        if metadata.is_dir() {
            if linked {
                return Err(unfit(path, "a directory may not be a symbolic link"));
            }
            let mut below = below.to_vec();
            below.push(name.to_owned());
            return self.directory(path, &below);
        }
        let Some(kind) = FileKind::of(name) else { return Ok(()) };
        if !metadata.is_file() {
            return Err(unfit(path, "not a regular file"));
        }
        self.files += 1;
        if self.files > MAX_FILES {
            return Err(unfit(self.shown, format!("more than {MAX_FILES} files")));
        }
        let rego = || -> Result<File, LoadError> {
            Ok(File { path: path.display().to_string(), text: bounded(path, MAX_REGO_BYTES)? })
        };
        match kind {
            FileKind::Policy => self.source.policies.push(rego()?),
            FileKind::Test => self.source.tests.push(rego()?),
            FileKind::Data => {
                let text = bounded(path, MAX_DATA_BYTES)?;
                self.source.data.push(Data::parse(path, name, below, text, self.known)?);
            }
        }
        Ok(())
    }
}

/// The bytes of a bundle's file.
fn archive(path: &FilePath) -> Result<Vec<u8>, LoadError> {
    bytes(path, u64::try_from(MAX_ARCHIVE_BYTES).unwrap_or(u64::MAX))
}

fn bounded(path: &FilePath, most: u64) -> Result<String, LoadError> {
    String::from_utf8(bytes(path, most)?).map_err(|error| unfit(path, error.to_string()))
}

fn bytes(path: &FilePath, most: u64) -> Result<Vec<u8>, LoadError> {
    let mut bytes = Vec::new();
    if !fs::metadata(path).map_err(unreadable(path))?.is_file() {
        return Err(unfit(path, "not a regular file"));
    }
    let file = fs::File::open(path).map_err(unreadable(path))?;
    file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable(path))?;
    if u64::try_from(bytes.len()).is_ok_and(|bytes| bytes > most) {
        return Err(unfit(path, format!("larger than {most} bytes")));
    }
    Ok(bytes)
}

fn unreadable(path: &FilePath) -> impl FnOnce(std::io::Error) -> LoadError {
    let path = path.to_owned();
    move |source| LoadError::Read { path, source }
}

pub(crate) fn unfit(path: &FilePath, reason: impl Into<String>) -> LoadError {
    LoadError::Unfit { path: path.to_owned(), reason: reason.into() }
}

#[cfg(test)]
mod tests;
