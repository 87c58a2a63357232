//! Late ends: a person who is erased may have calls that are open. What their ends bring is taken out when it comes, by
//! the same erasure: afterwards nobody could say any more whose these calls were.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use model::Principal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Keeper, erase, requests};
use crate::{
    LedgerError,
    erasure::{Erasure, Found},
    files,
    read::{Lines, Rows},
    record::kind,
    segment::{self, Paths, Seal},
    stored,
};

/// The end of the name of a file of this kind, in the directory of requests.
pub(crate) const SUFFIX: &str = "late";

/// An erasure that waits for the ends of calls. It names the person, and is gone with the last of them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Late {
    erasure: Erasure,
    principal: Principal,
    /// The calls that are waited for.
    open: BTreeSet<String>,
    /// The last segment that was sealed when they were looked for.
    after: u64,
}

/// What there is of the ends that are waited for.
#[derive(Default)]
struct Ends {
    /// The calls that ended.
    ended: BTreeSet<String>,
    /// The records of their ends that have companion values, by segment.
    rows: BTreeMap<u64, BTreeSet<u64>>,
    /// Whether one of these is in the segment that is being written.
    unsealed: bool,
    /// The last sealed segment.
    after: u64,
}

/// Keeps in mind, durably and before anything goes, which calls of the erased person are open; how many.
pub(super) fn expect(dir: &Path, erasure: &Erasure, principal: &Principal, found: &Found) -> Result<u64, LedgerError> {
    let path = place(dir, erasure.id());
    // Those of an erasure that was interrupted: the beginnings of its calls may be gone.
    let known = read(&path)?;
    let after = known.as_ref().map_or(found.sealed, |late| late.after.min(found.sealed));
    let mut open = known.map(|late| late.open).unwrap_or_default();
    open.extend(found.open.iter().cloned());
    let waiting = open.len() as u64;
    if waiting > 0 {
        let late = Late { erasure: erasure.clone(), principal: principal.clone(), open, after };
        files::create_directory(&dir.join(requests::DIRECTORY))?;
        write(&path, &late)?;
    }
    Ok(waiting)
}

/// Takes out what the ends that were waited for have brought.
pub(crate) fn finish(keeper: &Keeper) -> Result<(), LedgerError> {
    let requests = keeper.dir.join(requests::DIRECTORY);
    let entries = match fs::read_dir(&requests) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(LedgerError::io(&requests)(error)),
    };
    let mut outcome = Ok(());
    for entry in entries {
        let path = entry.map_err(LedgerError::io(&requests))?.path();
        if path.extension().is_none_or(|extension| extension != SUFFIX) {
            continue;
        }
        match read(&path).and_then(|late| late.map_or(Ok(()), |late| take_out(keeper, &path, late))) {
            Ok(()) => {}
            Err(LedgerError::Closed) => return Err(LedgerError::Closed),
            // One that cannot be done now keeps no other waiting.
            Err(error) => outcome = Err(error),
        }
    }
    outcome
}

fn take_out(keeper: &Keeper, path: &Path, mut late: Late) -> Result<(), LedgerError> {
    let ends = look(keeper, &late)?;
    if ends.unsealed {
        keeper.pen.seal()?;
    }
    let mut values = 0;
    for (segment, seqs) in &ends.rows {
        values += erase::take_out(keeper, &late.erasure, Some(&late.principal), *segment, seqs)?.values;
    }
    if values > 0 {
        tracing::info!(erasure = late.erasure.id(), values, "what late ends of an erased person's calls brought went");
    }
    let before = (late.open.len(), late.after);
    late.open.retain(|decision| !ends.ended.contains(decision));
    late.after = ends.after;
    if late.open.is_empty() {
        stored::remove_if_there(path).map_err(LedgerError::io(path))
    } else if before == (late.open.len(), late.after) {
        Ok(())
    } else {
        write(path, &late)
    }
}

fn look(keeper: &Keeper, late: &Late) -> Result<Ends, LedgerError> {
    let mut ends = Ends { after: late.after, ..Ends::default() };
    let mut last = None;
    for index in segment::list(&keeper.dir).map_err(LedgerError::io(&keeper.dir))? {
        if index <= late.after {
            continue;
        }
        let paths = Paths::new(&keeper.dir, index);
        let seal = Seal::read(&paths.seal).map_err(LedgerError::io(&paths.seal))?;
        ends.read(keeper, late, index, &paths, seal.is_some())?;
        if let Some(seal) = seal {
            ends.after = index;
            last = Some(seal);
        }
    }
    if let Some(seal) = last {
        // What is not open by now has ended, be it in a segment that was retired since.
        ends.ended.extend(late.open.difference(&seal.open).cloned());
    }
    Ok(ends)
}

impl Ends {
    fn read(
        &mut self,
        keeper: &Keeper,
        late: &Late,
        index: u64,
        paths: &Paths,
        sealed: bool,
    ) -> Result<(), LedgerError> {
        let mut lines = Lines::open(&paths.lines).map_err(LedgerError::io(&paths.lines))?;
        let mut rows = Rows::open(&paths.values).map_err(LedgerError::io(&paths.values))?;
        while let Some(line) = lines.next().map_err(LedgerError::io(&paths.lines))? {
            if keeper.shared.stopping.load(Ordering::Acquire) {
                return Err(LedgerError::Closed);
            }
            let record: Value =
                serde_json::from_slice(&line).map_err(|error| LedgerError::damaged(&paths.lines, error.to_string()))?;
            let text = |name: &str| record.get(name).and_then(Value::as_str).unwrap_or_default();
            if text("kind") != kind::CALL_SETTLED || !late.open.contains(text("decision_id")) {
                continue;
            }
            self.ended.insert(text("decision_id").to_owned());
            let seq = record.get("seq").and_then(Value::as_u64).unwrap_or_default();
            if rows.of(seq).map_err(LedgerError::io(&paths.values))?.is_some() {
                self.rows.entry(index).or_default().insert(seq);
                self.unsealed |= !sealed;
            }
        }
        Ok(())
    }
}

fn place(dir: &Path, id: &str) -> PathBuf {
    dir.join(requests::DIRECTORY).join(format!("{id}.{SUFFIX}"))
}

fn read(path: &Path) -> Result<Option<Late>, LedgerError> {
    match fs::read(path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).map_err(|error| LedgerError::damaged(path, error.to_string()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LedgerError::io(path)(error)),
    }
}

fn write(path: &Path, late: &Late) -> Result<(), LedgerError> {
    let text = serde_json::to_vec(late).map_err(|error| LedgerError::Unrecordable(error.to_string()))?;
    files::replace_whole(path, &text).map_err(LedgerError::io(path))
}
