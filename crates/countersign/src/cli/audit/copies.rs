//! The files of a ledger as an authority hands them out of its copy, for a verification here. Nothing of them is written
//! down, and nothing that the authority says is believed: it is verified as a directory is.

use std::{
    io::{self, BufRead, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use audit::{
    ship::pieces::{Copied, Piece},
    verify::{Amended, Files},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    failure::{Exit, Failure},
    management::{Client, segment},
};

/// What stands beside a copy and says what its keeper took away at its own word.
const AMENDED: &str = "amended.json";

/// The copy of one ledger at an authority.
pub(super) struct CopyOf {
    shared: Arc<Shared>,
    segments: Vec<Copied>,
}

struct Shared {
    client: Arc<Client>,
    place: PathBuf,
    /// What could not be fetched: what was found after that is the network's doing.
    failed: Mutex<Option<Failure>>,
}

impl CopyOf {
    /// The copy of `ledger`, of which the segments are asked for.
    pub(super) fn new(client: &Arc<Client>, ledger: &str) -> Result<Self, Failure> {
        let shared = Shared { client: Arc::clone(client), place: PathBuf::from(ledger), failed: Mutex::new(None) };
        Ok(Self { segments: shared.segments()?, shared: Arc::new(shared) })
    }

    /// Whether nothing was shipped.
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// What the authority says that it took away itself.
    pub(super) fn amended(&self) -> Result<Amended, Failure> {
        let mut bytes = Vec::new();
        let read = match self.open(AMENDED) {
            Ok(source) => source.take(MAX_AMENDED_BYTES).read_to_end(&mut bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Amended::default()),
            Err(error) => Err(error),
        };
        if let Some(failure) = self.failed() {
            return Err(failure);
        }
        let strange = |error: &dyn std::fmt::Display| {
            Failure::new(Exit::Unavailable, format!("what the authority says it took away cannot be read: {error}"))
        };
        read.map_err(|error| strange(&error))?;
        serde_json::from_slice(&bytes).map_err(|error| strange(&error))
    }

    /// Why something could not be fetched, where that was so.
    pub(super) fn failed(&self) -> Option<Failure> {
        self.shared.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The most that is read of what an authority says that it took away.
const MAX_AMENDED_BYTES: u64 = 64 * 1024 * 1024;

/// The most that is read of one file: an authority that invents ever more of it does not keep anybody for ever.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024 * 1024;

impl Shared {
    fn segments(&self) -> Result<Vec<Copied>, Failure> {
        let path = format!("/v1/ledgers/{}/segments", segment(&self.place.to_string_lossy()));
        self.client.list(&path, "segments", &[])?.into_iter().map(read).collect()
    }

    /// What there is of the file `name` from `offset` on.
    fn piece(&self, name: &str, offset: u64) -> io::Result<Piece> {
        let ledger = self.place.to_string_lossy();
        let path = format!("/v1/ledgers/{}/files/{}?offset={offset}", segment(&ledger), segment(name));
        self.client.get(&path).and_then(read).map_err(|failure| self.fails(failure))
    }

    fn fails(&self, failure: Failure) -> io::Error {
        let error = io::Error::other(failure.to_string());
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        error
    }
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, Failure> {
    serde_json::from_value(value)
        .map_err(|error| Failure::new(Exit::Unavailable, format!("the authority's answer cannot be read: {error}")))
}

impl Files for CopyOf {
    fn place(&self) -> &Path {
        &self.shared.place
    }

    fn segments(&self) -> io::Result<Vec<u64>> {
        // Anew: some may have been taken away meanwhile.
        let segments = self.shared.segments().map_err(|failure| self.shared.fails(failure))?;
        Ok(segments.iter().map(|copied| copied.segment).collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn BufRead + Send>> {
        let mut pieces = Pieces {
            shared: Arc::clone(&self.shared),
            name: name.to_owned(),
            file: None,
            bytes: Vec::new(),
            read: 0,
            offset: 0,
            ended: false,
        };
        // With its beginning comes whether there is such a file.
        if pieces.fetch()? { Ok(Box::new(pieces)) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        let listed = self.segments.iter().any(|copied| format!("{:08}.jsonl", copied.segment) == name);
        // One that was taken away since is missed when it is opened.
        if listed { Ok(true) } else { self.length(name).map(|length| length.is_some()) }
    }

    fn length(&self, name: &str) -> io::Result<Option<u64>> {
        match self.segments.iter().find(|copied| format!("{:08}.jsonl", copied.segment) == name) {
            Some(copied) => Ok(Some(copied.bytes)),
            None => self.shared.piece(name, u64::MAX >> 11).map(|piece| piece.size),
        }
    }
}

/// One file, fetched as it is read.
struct Pieces {
    shared: Arc<Shared>,
    name: String,
    /// Which file it was at first.
    file: Option<String>,
    bytes: Vec<u8>,
    /// How much of those was read.
    read: usize,
    /// Where the next ones are.
    offset: u64,
    /// Whether that is where the file ended when it was last asked for.
    ended: bool,
}

impl Pieces {
    /// Fetches what comes next. Whether there is such a file.
    fn fetch(&mut self) -> io::Result<bool> {
        let piece = self.shared.piece(&self.name, self.offset)?;
        let bytes = piece.bytes();
        let (Some(_), Some(bytes)) = (piece.size, bytes) else {
            return if self.file.is_none() { Ok(false) } else { Err(self.changed()) };
        };
        if self.file.get_or_insert_with(|| piece.file.clone()) != &piece.file {
            return Err(self.changed());
        }
        self.offset += bytes.len() as u64;
        if self.offset > MAX_FILE_BYTES {
            let line = format!("{} is larger at the authority than {MAX_FILE_BYTES} bytes", self.name);
            return Err(self.shared.fails(Failure::new(Exit::Unavailable, line)));
        }
        self.ended = piece.size.is_some_and(|size| size <= self.offset);
        (self.bytes, self.read) = (bytes, 0);
        Ok(true)
    }

    /// Somebody was erased in it, or it was retired: what was read does not go with what would be.
    fn changed(&self) -> io::Error {
        let line = format!("{} was changed at the authority while it was being verified: verify again", self.name);
        self.shared.fails(Failure::new(Exit::Unavailable, line))
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        // That it ended is said once; whoever reads on wants to know whether it still does.
        if self.read >= self.bytes.len() && !std::mem::take(&mut self.ended) {
            self.fetch()?;
        }
        Ok(self.bytes.get(self.read..).unwrap_or_default())
    }

    fn consume(&mut self, amount: usize) {
        self.read += amount;
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let filled = self.fill_buf()?;
        let count = filled.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), filled.get(..count)) {
            to.copy_from_slice(from);
        }
        self.consume(count);
        Ok(count)
    }
}
