//! Erasing: for each sealed segment the rows that stay are written anew, what becomes of the segment is put on record,
//! and then the new file takes the old one's place.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use model::Principal;

use super::{
    Keeper,
    compress::{discard, has_room_beside, take_place},
    late,
};
use crate::{
    LedgerError, chain,
    chain::Hashing,
    erasure::{Erased, Erasure, ErasureError, look_until},
    files,
    log::Pen,
    read::Lines,
    record::{self, ErasedValues, KeptRows},
    segment::Paths,
    stored::{self, in_making, packed},
    values::Row,
};

pub(crate) fn erase(keeper: &Keeper, erasure: &Erasure) -> Result<Erased, ErasureError> {
    erasure.check()?;
    keeper.pen.seal()?;
    let found = look_until(&keeper.dir, &erasure.person, &keeper.shared.stopping)?;
    let (_, still_being_written) = found.records();
    let open_calls = match found.principal()? {
        Some(principal) => late::expect(&keeper.dir, erasure, principal, &found)?,
        None => 0,
    };
    let mut erased = Erased {
        erasure: erasure.id().to_owned(),
        principal: found.principal()?.cloned(),
        records: 0,
        values: 0,
        segments: Vec::new(),
        still_being_written,
        open_calls,
        mentions: found.mentions,
    };
    // The newest first: that a call was the person's is seen by its beginning, so that goes after its end, whatever
    // comes between.
    for (segment, seqs) in found.rows.iter().rev().filter(|(segment, _)| !found.unsealed.contains(segment)) {
        let rewritten = take_out(keeper, erasure, erased.principal.as_ref(), *segment, seqs)?;
        erased.records += rewritten.records;
        erased.values += rewritten.values;
        erased.segments.insert(0, *segment);
    }
    remove_torn_rows(&keeper.dir)?;
    tracing::info!(erasure = erased.erasure, records = erased.records, values = erased.values, "a person was erased");
    Ok(erased)
}

/// Takes the rows of the records `seqs` out of `segment`, which is sealed, and puts that on record first.
pub(super) fn take_out(
    keeper: &Keeper,
    erasure: &Erasure,
    principal: Option<&Principal>,
    segment: u64,
    seqs: &BTreeSet<u64>,
) -> Result<Rewritten, LedgerError> {
    let rewritten = rewrite(&keeper.dir, segment, seqs)?;
    put_on_record(&keeper.pen, erasure, &erasure.subject(principal)?, segment, &rewritten)?;
    take_place(&rewritten.path).map_err(LedgerError::io(&rewritten.path))?;
    Ok(rewritten)
}

/// The companion rows of a segment as they are to be.
pub(crate) struct Rewritten {
    /// Which file it is to replace.
    pub(crate) path: PathBuf,
    pub(crate) records: u64,
    pub(super) values: u64,
    pub(crate) kept: KeptRows,
}

/// Writes the rows of `segment` without those of the records `seqs` beside the file that holds them, durably.
pub(crate) fn rewrite(dir: &Path, segment: u64, seqs: &BTreeSet<u64>) -> Result<Rewritten, LedgerError> {
    let plain = Paths::new(dir, segment).values;
    let path = if plain.exists() { plain.clone() } else { packed(&plain) };
    rewrite_rows(&plain, &path, seqs).map_err(LedgerError::io(&path))
}

fn rewrite_rows(plain: &Path, path: &Path, seqs: &BTreeSet<u64>) -> io::Result<Rewritten> {
    if path == plain {
        // Half of an interrupted compression would keep what is erased.
        stored::remove_if_there(&packed(plain))?;
    }
    let target = in_making(path);
    stored::remove_if_there(&target)?;
    has_room_beside(path)?;
    let (records, values, kept) =
        copy_without(&target, plain, path != plain, seqs).inspect_err(|_| discard(&target))?;
    Ok(Rewritten { path: path.to_owned(), records, values, kept })
}

fn copy_without(target: &Path, plain: &Path, packed: bool, seqs: &BTreeSet<u64>) -> io::Result<(u64, u64, KeptRows)> {
    let mut copy = Copy::create(target, packed)?;
    let (mut lines, mut hashing) = (Lines::open(plain)?, Hashing::new());
    let (mut records, mut values, mut rows) = (0, 0, 0);
    while let Some(line) = lines.next()? {
        let row: Row = serde_json::from_slice(&line)?;
        if seqs.contains(&row.seq) {
            records += 1;
            values += row.values.len() as u64;
            continue;
        }
        for part in [line.as_slice(), b"\n"] {
            copy.write(part)?;
            hashing.update(part);
        }
        rows += 1;
    }
    copy.finish()?;
    Ok((records, values, KeptRows { rows, digest: chain::encoded(&hashing.finish()) }))
}

/// A file in the form of the one it is to replace.
enum Copy {
    Plain(io::BufWriter<File>),
    Packed(Box<GzEncoder<File>>),
}

impl Copy {
    fn create(path: &Path, packed: bool) -> io::Result<Self> {
        let file = files::create_new(path)?;
        Ok(if packed {
            Self::Packed(Box::new(GzEncoder::new(file, Compression::fast())))
        } else {
            Self::Plain(io::BufWriter::new(file))
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.write_all(bytes),
            Self::Packed(encoder) => encoder.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all(),
            Self::Packed(encoder) => encoder.finish()?.sync_all(),
        }
    }
}

/// The record of what becomes of one segment, durable and covered by a signed head.
pub(crate) fn put_on_record(
    pen: &Pen,
    erasure: &Erasure,
    subject: &str,
    segment: u64,
    rewritten: &Rewritten,
) -> Result<(), LedgerError> {
    let erased = ErasedValues {
        erasure: erasure.id().to_owned(),
        segment,
        records: rewritten.records,
        values: rewritten.values,
        kept: rewritten.kept.clone(),
        subject: subject.to_owned(),
        by: erasure.by.clone(),
        reason: erasure.reason.clone(),
    };
    pen.append(record::erased(&erased)?)?;
    pen.sign()
}

/// Rows that a crash cut off have no record, so nobody can say whose they are.
fn remove_torn_rows(dir: &Path) -> Result<(), LedgerError> {
    for entry in fs::read_dir(dir).map_err(LedgerError::io(dir))? {
        let path = entry.map_err(LedgerError::io(dir))?.path();
        if path.to_string_lossy().ends_with(".values.torn") {
            fs::remove_file(&path).map_err(LedgerError::io(&path))?;
        }
    }
    Ok(())
}
