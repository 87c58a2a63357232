//! What is missing in an authority's copy of a ledger at the authority's own word, which no record of the ledger has:
//! segments that it keeps no longer, and people who were erased there.

use std::{collections::BTreeMap, fs, io::ErrorKind, path::Path};

use serde::{Deserialize, Serialize};

use crate::LedgerError;

/// Where that stands beside a copy.
pub(crate) const FILE: &str = "amended.json";

/// What may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amended {
    /// The last segment that was taken away; 0 for none.
    #[serde(default)]
    pub(crate) retired: u64,
    /// By segment, what was erased of it.
    #[serde(default)]
    pub(crate) erased: BTreeMap<u64, Amendment>,
}

/// Companion rows of a segment that were erased: so many are left at its beginning, with that digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Amendment {
    pub(crate) rows: u64,
    pub(crate) digest: String,
    /// Only values of records below this one.
    pub(crate) before: u64,
}

impl Amended {
    /// What stands beside the copy in `dir`. To be asked only where the copy is one's own: anybody may write a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(dir: &Path) -> Result<Self, LedgerError> {
        let path = dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| LedgerError::damaged(&path, error.to_string())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(LedgerError::io(&path)(error)),
        }
    }
}
