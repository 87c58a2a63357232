//! What an authority hands out of a copy, for whoever verifies it elsewhere: its files as they lie there, piece by piece,
//! and what they are called. Nobody has to believe it: `verify::Files` is read by the same code wherever it comes from.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::Shelf;
use crate::{
    LedgerError,
    opening::ABOUT_FILE,
    segment::{self, HEAD_FILE, Paths},
    verify::amended,
};

/// The most bytes of a file in one piece.
pub const MAX_PIECE_BYTES: usize = 1024 * 1024;

/// Files beside the segments that a verification asks for. No other is handed out.
const BESIDE: [&str; 3] = [ABOUT_FILE, HEAD_FILE, amended::FILE];
/// Those of a segment.
const OF_A_SEGMENT: [&str; 4] = ["jsonl", "values", "heads", "seal"];

/// A part of a file of a copy, from some place on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// How long the file is by now, in bytes; absent where there is none of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Which file it is: another one, where another took its place.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// What it holds from that place on, base64; nothing at its end.
    #[serde(default)]
    bytes: String,
}

impl Piece {
    /// The bytes; nothing where they are not base64.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.bytes).ok()
    }
}

/// A segment of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Its number.
    pub segment: u64,
    /// How long its lines are by now, in bytes.
    pub bytes: u64,
}

impl Shelf {
    /// The segments of the copy of the ledger `id` that come after `after`, at most `limit`; and the last of them, where
    /// others follow.
    ///
    /// # Errors
    /// When the copy cannot be read.
    pub fn segments(&self, id: &str, after: u64, limit: usize) -> Result<(Vec<Copied>, Option<u64>), LedgerError> {
        let Some(dir) = self.directory(id) else { return Ok((Vec::new(), None)) };
        let mut indexes = segment::list(&dir).map_err(LedgerError::io(&dir))?;
        indexes.retain(|index| *index > after);
        let more = indexes.len() > limit;
        indexes.truncate(limit);
        let next = indexes.last().copied().filter(|_| more);
        let bytes = |index| fs::metadata(Paths::new(&dir, index).lines).map_or(0, |metadata| metadata.len());
        Ok((indexes.into_iter().map(|segment| Copied { segment, bytes: bytes(segment) }).collect(), next))
    }

    /// What the file `name` of the copy of the ledger `id` holds from `from` on; `None` where no file is handed out under
    /// that name.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn piece(&self, id: &str, name: &str, from: u64) -> Result<Option<Piece>, LedgerError> {
        if !is_handed_out(name) {
            return Ok(None);
        }
        let Some(dir) = self.directory(id) else { return Ok(Some(Piece::default())) };
        let path = dir.join(name);
        read(&path, from).map(Some).map_err(LedgerError::io(path))
    }
}

fn is_handed_out(name: &str) -> bool {
    let of_a_segment = || {
        let (digits, kind) = name.split_once('.')?;
        let written = digits.parse::<u64>().ok().filter(|index| format!("{index:08}") == digits);
        (written.is_some() && OF_A_SEGMENT.contains(&kind)).then_some(())
    };
    BESIDE.contains(&name) || of_a_segment().is_some()
}

fn read(path: &Path, from: u64) -> io::Result<Piece> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Piece::default()),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    let left = metadata.len().saturating_sub(from);
    let mut bytes = vec![0; usize::try_from(left).unwrap_or(MAX_PIECE_BYTES).min(MAX_PIECE_BYTES)];
    // Files of a copy only grow; where one is cut after all, a piece of it is shorter.
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, from + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    Ok(Piece { size: Some(metadata.len()), file: metadata.ino().to_string(), bytes: STANDARD.encode(bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_handed_out_piece_by_piece_and_none_that_a_verification_does_not_ask_for() {
        let folder = tempfile::tempdir().unwrap();
        let (shelf, id) = (Shelf::new(folder.path().to_owned()), "0123456789abcdef");
        assert_eq!(shelf.piece(id, "head", 0).unwrap(), Some(Piece::default()), "there is no such copy");
        let dir = folder.path().join(id);
        fs::create_dir(&dir).unwrap();
        let whole: Vec<u8> = (0..MAX_PIECE_BYTES + 10).map(|at| u8::try_from(at % 251).unwrap()).collect();
        fs::write(dir.join("00000001.jsonl"), &whole).unwrap();
        let piece = |from| shelf.piece(id, "00000001.jsonl", from).unwrap().unwrap();
        let (first, second, end) = (piece(0), piece(MAX_PIECE_BYTES as u64), piece(whole.len() as u64));
        assert_eq!([first.bytes().unwrap(), second.bytes().unwrap()].concat(), whole);
        assert_eq!((end.bytes().unwrap(), piece(u64::MAX).bytes().unwrap()), (Vec::new(), Vec::new()));
        assert!(first.file == end.file && end.size == Some(whole.len() as u64));
        fs::write(dir.join("another"), "x").unwrap();
        fs::rename(dir.join("another"), dir.join("00000001.jsonl")).unwrap();
        assert_ne!(piece(0).file, first.file, "another took its place");

        for name in ["lock", "erasures.json", "journal", "../lock", "00000001.jsonl/..", "1.jsonl", "00000001.torn", ""]
        {
            fs::write(dir.join("lock"), "x").unwrap();
            assert_eq!(shelf.piece(id, name, 0).unwrap(), None, "{name}");
        }
        assert_eq!(shelf.piece("../0123456789abcd", "head", 0).unwrap(), Some(Piece::default()));
        for index in [2, 3, 10] {
            fs::write(dir.join(format!("{index:08}.jsonl")), "abc").unwrap();
        }
        let copied = |segment, bytes| Copied { segment, bytes };
        assert_eq!(shelf.segments(id, 0, 2).unwrap(), (vec![copied(1, 1), copied(2, 3)], Some(2)));
        assert_eq!(shelf.segments(id, 2, 2).unwrap(), (vec![copied(3, 3), copied(10, 3)], None));
        assert_eq!(shelf.segments("fedcba9876543210", 0, 2).unwrap(), (Vec::new(), None));
    }
}
