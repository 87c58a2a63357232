//! Requests from the command line, as files: the directory belongs to the process that writes the ledger, and whoever
//! may write there could as well remove what the request asks to erase.
//!
//! `ID.erase` is asked, `ID.taken` is being worked on and is taken up again after a crash, `ID.answer` is the answer,
//! and `ID.late` waits for the ends of the person's calls that were open.

use std::{
    fs,
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Keeper, erase};
use crate::{
    LedgerError,
    erasure::{Erased, Erasure, ErasureError},
    files, stored,
};

/// Where requests lie, in the ledger's directory.
pub(crate) const DIRECTORY: &str = "requests";

/// The longest request that is read.
const MAX_BYTES: u64 = 64 * 1024;

/// What became of a request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// It was carried out.
    Erased(Erased),
    /// It was not, or not wholly.
    Refused(String),
}

/// Where the request `id` and its answer lie.
pub(crate) fn paths(dir: &Path, id: &str) -> (PathBuf, PathBuf) {
    let requests = dir.join(DIRECTORY);
    (requests.join(format!("{id}.erase")), requests.join(format!("{id}.answer")))
}

/// Removes answers that nobody came for.
pub(super) fn forget_answers(dir: &Path) -> Result<(), LedgerError> {
    let requests = dir.join(DIRECTORY);
    let Ok(entries) = fs::read_dir(&requests) else { return Ok(()) };
    for entry in entries.flatten().map(|entry| entry.path()) {
        if entry.extension().is_some_and(|extension| extension == "answer") {
            stored::remove_if_there(&entry).map_err(LedgerError::io(&entry))?;
        }
    }
    Ok(())
}

/// Carries out what is asked for.
pub(super) fn answer(keeper: &Keeper) -> Result<(), LedgerError> {
    let dir = keeper.dir.join(DIRECTORY);
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(LedgerError::io(&dir)(error)),
    };
    for entry in entries {
        let path = entry.map_err(LedgerError::io(&dir))?.path();
        let Some(id) = path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned) else { continue };
        let taken = dir.join(format!("{id}.taken"));
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("erase") => fs::rename(&path, &taken).map_err(LedgerError::io(&path))?,
            Some("taken") => {}
            _ => continue,
        }
        let answer = match read(&taken) {
            Ok(erasure) => match erase::erase(keeper, &erasure) {
                Ok(erased) => Answer::Erased(erased),
                // Whoever opens the ledger next goes on with it.
                Err(ErasureError::Ledger(LedgerError::Closed)) => return Err(LedgerError::Closed),
                Err(error) => Answer::Refused(error.to_string()),
            },
            Err(why) => Answer::Refused(why),
        };
        let (_, place) = paths(&keeper.dir, &id);
        let text = serde_json::to_vec(&answer).unwrap_or_default();
        files::replace_whole(&place, &text).map_err(LedgerError::io(&place))?;
        stored::remove_if_there(&taken).map_err(LedgerError::io(&taken))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Erasure, String> {
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| format!("not a request: {error}"))
}
