//! Where the files of a ledger are when it is verified: in a directory, or with somebody who hands them over piece by
//! piece. Whoever that is, it is the same code that believes nothing of it.

use std::{
    fs,
    io::{self, BufRead, Read},
    path::{Path, PathBuf},
};

use crate::{
    segment::{self, Paths, Seal},
    stored,
};

/// The longest of the files that are read as a whole: a seal, a head, what says whose ledger it is.
const MAX_WHOLE_BYTES: u64 = 64 * 1024 * 1024;

/// The files of one ledger, by their names, compressed or not. Those of a segment that is being written may grow.
pub trait Files {
    /// What they lie in, as people are told of it.
    fn place(&self) -> &Path;

    /// The segments of which there are lines, in order.
    ///
    /// # Errors
    /// When they cannot be listed.
    fn segments(&self) -> io::Result<Vec<u64>>;

    /// The bytes of the file `name`. At its end a later read may find more.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] where there is none, any other when it cannot be read.
    fn open(&self, name: &str) -> io::Result<Box<dyn BufRead + Send>>;

    /// Whether there is a file `name`.
    ///
    /// # Errors
    /// When nobody can tell.
    fn exists(&self, name: &str) -> io::Result<bool>;

    /// How long the file `name` is by now, before it was compressed; nothing where there is none.
    ///
    /// # Errors
    /// When nobody can tell.
    fn length(&self, name: &str) -> io::Result<Option<u64>>;
}

/// A ledger's own directory.
pub(super) struct Directory<'a>(pub(super) &'a Path);

impl Files for Directory<'_> {
    fn place(&self) -> &Path {
        self.0
    }

    fn segments(&self) -> io::Result<Vec<u64>> {
        segment::list(self.0)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn BufRead + Send>> {
        stored::open(&self.0.join(name))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        stored::exists(&self.0.join(name))
    }

    fn length(&self, name: &str) -> io::Result<Option<u64>> {
        let path = self.0.join(name);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            // A compressed segment's own length is in its seal.
            Err(_) if stored::exists(&path)? => Ok(Seal::read(&path.with_extension("seal"))?.map(|it| it.line_bytes)),
            Err(_) => Ok(None),
        }
    }
}

/// The same, asked by the paths that messages name.
pub(super) struct Reader<'a>(pub(super) &'a dyn Files);

impl Reader<'_> {
    pub(super) fn paths(&self, index: u64) -> Paths {
        Paths::new(self.0.place(), index)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.place().join(name)
    }

    pub(super) fn open(&self, path: &Path) -> io::Result<Box<dyn BufRead + Send>> {
        self.0.open(&name(path))
    }

    pub(super) fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.exists(&name(path))
    }

    pub(super) fn length(&self, path: &Path) -> io::Result<Option<u64>> {
        self.0.length(&name(path))
    }

    pub(super) fn segments(&self) -> io::Result<Vec<u64>> {
        self.0.segments()
    }

    /// The whole of a short file; nothing where there is none.
    pub(super) fn whole(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let source = match self.open(path) {
            Ok(source) => source,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        source.take(MAX_WHOLE_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_WHOLE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is longer than any such file"));
        }
        Ok(Some(bytes))
    }

    pub(super) fn seal(&self, path: &Path) -> io::Result<Option<Seal>> {
        self.whole(path)?.map(|bytes| Seal::parse(&bytes)).transpose()
    }
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
