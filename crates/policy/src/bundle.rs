//! Policy sources: the Rego files and data documents of one owner, read from a directory.
//!
//! `*.rego` are policies, `*_test.rego` their tests, `data.json`, `data.yaml` and `data.yml` data documents, each
//! under the path of its directory as in an OPA bundle. Names that begin with a dot are passed over, and a
//! symbolic link may only lead to a place inside the directory (that is how Kubernetes mounts a ConfigMap).

mod data;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path as FilePath, PathBuf},
};

use model::{Id, Tool};
use serde::{Deserialize, Serialize};

pub use self::data::Data;
use crate::{LoadError, PolicySource};

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

/// Whether neither a file nor a directory of that name is looked at.
#[must_use]
pub fn is_passed_over(name: &str) -> bool {
    name.starts_with('.')
}

impl PolicySource {
    /// Reads the source's directory; relative paths start at `base`.
    pub fn read(&self, base: &FilePath) -> Result<Source, LoadError> {
        Source::read(&self.name, &base.join(&self.path), self.tools.clone())
    }
}

impl Source {
    /// Reads what lies in `directory`.
    pub fn read(name: &str, directory: &FilePath, tools: Option<BTreeSet<Id<Tool>>>) -> Result<Self, LoadError> {
        let root = fs::canonicalize(directory).map_err(unreadable(directory))?;
        let mut reader = Reader { shown: directory, root, files: 0, source: Self::empty(name, tools) };
        reader.directory(directory, &[])?;
        if reader.source.policies.is_empty() {
            return Err(unfit(directory, "the directory has no Rego policy"));
        }
        Ok(reader.source)
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
            Ok(File { path: path.display().to_string(), text: bounded(path, metadata.len(), MAX_REGO_BYTES)? })
        };
        match kind {
            FileKind::Policy => self.source.policies.push(rego()?),
            FileKind::Test => self.source.tests.push(rego()?),
            FileKind::Data => {
                let text = bounded(path, metadata.len(), MAX_DATA_BYTES)?;
                self.source.data.push(Data::parse(path, name, below, &text)?);
            }
        }
        Ok(())
    }
}

fn bounded(path: &FilePath, bytes: u64, most: u64) -> Result<String, LoadError> {
    if bytes > most {
        return Err(unfit(path, format!("larger than {most} bytes")));
    }
    fs::read_to_string(path).map_err(unreadable(path))
}

fn unreadable(path: &FilePath) -> impl FnOnce(std::io::Error) -> LoadError {
    let path = path.to_owned();
    move |source| LoadError::Read { path, source }
}

fn unfit(path: &FilePath, reason: impl Into<String>) -> LoadError {
    LoadError::Unfit { path: path.to_owned(), reason: reason.into() }
}

#[cfg(test)]
mod tests;
