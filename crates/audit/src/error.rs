//! Why the ledger cannot be opened or written, in words that name the file and what to do.

use std::{io, path::PathBuf};

use crate::canonical::Unrecordable;

/// Why the ledger cannot be opened, or a record not written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// The record is not durable and the call may not go. Passes by itself once the disk is back.
    #[error("the ledger cannot be written: {0}")]
    Unavailable(String),
    /// What became of a call is not durable yet: the writer keeps it, and writes it as soon as it can write again, at
    /// the latest when the ledger is closed.
    #[error("the ledger cannot be written: {0}; the record is kept until it can")]
    Kept(String),
    /// The ledger was closed.
    #[error("the ledger is closed")]
    Closed,
    /// The record names no verified principal; such refusals are counted, not recorded.
    #[error("a refusal without a verified principal is counted, not recorded")]
    NoPrincipal,
    /// The record has a value that cannot be written exactly.
    #[error("the record cannot be written exactly: {0}")]
    Unrecordable(String),
    /// The record is larger than what is read back. It will be so again: only a smaller record can be written.
    #[error("the record is too large: {0}")]
    TooLarge(String),
    /// Another process writes this ledger.
    #[error("{0} is in use by another process: one directory has one writer")]
    Locked(PathBuf),
    /// Others may read or write the ledger or its key.
    #[error("{path} may be read or written by others (mode {mode:o}); it must be private: chmod {wanted:o} {path}")]
    Permissions {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they have to be.
        wanted: u32,
    },
    /// The ledger's key is not usable, or is not the key the ledger was begun with.
    #[error("the ledger key {path} is not usable: {why}")]
    Key {
        /// The key's file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// What is on disk is not what was written: appending to it would sign a forgery.
    #[error(
        "the ledger is damaged at {path}: {why}; look into it with `countersign audit verify`, and move the directory aside to begin a new ledger"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file operation failed while the ledger was opened.
    #[error("{path}: {why}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
}

impl LedgerError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::Io { path, why: error.to_string() }
    }

    pub(crate) fn damaged(path: impl Into<PathBuf>, why: impl Into<String>) -> Self {
        Self::Damaged { path: path.into(), why: why.into() }
    }
}

impl From<Unrecordable> for LedgerError {
    fn from(error: Unrecordable) -> Self {
        match error {
            Unrecordable::TooLarge { .. } => Self::TooLarge(error.to_string()),
            Unrecordable::Value(_) | Unrecordable::Salt => Self::Unrecordable(error.to_string()),
        }
    }
}
