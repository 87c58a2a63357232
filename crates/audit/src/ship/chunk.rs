//! A piece of a ledger on its way to the authority: lines of one segment with their companion rows, in the end the
//! segment's heads and its seal, all byte for byte as they stand in the ledger's files. One line of JSON says how long
//! each part is; the parts follow.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// The media type of a chunk.
pub const CHUNK_TYPE: &str = "application/vnd.countersign.ledger-chunk";

/// What a chunk aims at, in bytes of lines and rows, or of heads. A single record may be larger.
pub(crate) const TARGET_BYTES: usize = 512 * 1024;

/// The largest chunk that is read: one line and one row of the largest size, and what stands before them.
pub const MAX_CHUNK_BYTES: usize = 2 * crate::read::MAX_LINE_BYTES + TARGET_BYTES + 64 * 1024;

/// The longest first line.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// What stands before the parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    ledger: String,
    proof: String,
    segment: u64,
    first: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base: Option<String>,
    lines: usize,
    values: usize,
    heads_at: u64,
    heads: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seal: Option<String>,
}

/// A piece of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The vkey of the ledger.
    pub ledger: String,
    /// The ledger key's word that whoever sends this may speak for the ledger.
    pub proof: String,
    /// The segment.
    pub segment: u64,
    /// The number of its first line; where it has none, of the line that would follow.
    pub first: u64,
    /// The seal of the segment before, where the ledger begins with this one because those before were retired.
    pub base: Option<String>,
    /// Whole lines.
    pub lines: Bytes,
    /// Their companion rows.
    pub values: Bytes,
    /// How many bytes of the segment's heads were sent before.
    pub heads_at: u64,
    /// Bytes of its heads.
    pub heads: Bytes,
    /// The newest signed head, where it covers exactly the lines up to the end of this chunk.
    pub head: Option<String>,
    /// Its seal, where it has one and everything else was sent with this.
    pub seal: Option<String>,
}

/// Bytes that are no chunk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no chunk of a ledger: {0}")]
pub struct NoChunk(&'static str);

impl Chunk {
    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.heads.is_empty() && self.seal.is_none()
    }

    /// The number of the line after its last.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.lines.iter().filter(|byte| **byte == b'\n').count() as u64
    }

    /// As it is sent.
    ///
    /// # Errors
    /// When its header cannot be written, which it can.
    pub fn written(&self) -> Result<Bytes, serde_json::Error> {
        let header = Header {
            ledger: self.ledger.clone(),
            proof: self.proof.clone(),
            segment: self.segment,
            first: self.first,
            base: self.base.clone(),
            lines: self.lines.len(),
            values: self.values.len(),
            heads_at: self.heads_at,
            heads: self.heads.len(),
            head: self.head.clone(),
            seal: self.seal.clone(),
        };
        let mut bytes = BytesMut::from(serde_json::to_vec(&header)?.as_slice());
        bytes.extend_from_slice(b"\n");
        for part in [&self.lines, &self.values, &self.heads] {
            bytes.extend_from_slice(part);
        }
        Ok(bytes.freeze())
    }

    /// What was sent.
    ///
    /// # Errors
    /// When it is no chunk.
    pub fn read(bytes: &Bytes) -> Result<Self, NoChunk> {
        let end = bytes.iter().take(MAX_HEADER_BYTES).position(|byte| *byte == b'\n');
        let end = end.ok_or(NoChunk("its first line does not end"))?;
        let mut rest = bytes.clone();
        let header = rest.split_to(end);
        let header: Header = serde_json::from_slice(&header).map_err(|_| NoChunk("its first line is no header"))?;
        let _newline = rest.split_to(1);
        let mut part = |length: usize| {
            if length <= rest.len() { Ok(rest.split_to(length)) } else { Err(NoChunk("it is shorter than it says")) }
        };
        let (lines, values, heads) = (part(header.lines)?, part(header.values)?, part(header.heads)?);
        if !rest.is_empty() {
            return Err(NoChunk("it is longer than it says"));
        }
        let Header { ledger, proof, segment, first, base, heads_at, head, seal, .. } = header;
        Ok(Self { ledger, proof, segment, first, base, lines, values, heads_at, heads, head, seal })
    }
}

/// How far a copy of a ledger reaches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stand {
    /// The last segment that there is something of; 0 for none.
    pub segment: u64,
    /// Whether that is complete: the next one follows.
    pub sealed: bool,
    /// The number of the next line.
    pub next: u64,
    /// Bytes of heads of the segment.
    pub heads: u64,
    /// Segments of which the ledger says that values were erased, and which still have them in the copy.
    #[serde(default)]
    pub erase: Vec<u64>,
}

/// Which companion rows of a segment are left, so that a copy of it can be made to have no others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The vkey of the ledger.
    pub ledger: String,
    /// The ledger key's word that whoever sends this may speak for the ledger.
    pub proof: String,
    /// The segment.
    pub segment: u64,
    /// The records whose rows are left: ranges, first and last included.
    pub rows: Vec<(u64, u64)>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunk() -> Chunk {
        Chunk {
            ledger: "key".to_owned(),
            proof: "proof".to_owned(),
            segment: 3,
            first: 17,
            base: None,
            lines: Bytes::from_static(b"{\"seq\":17}\n"),
            values: Bytes::new(),
            heads_at: 0,
            heads: Bytes::from_static(b"\xE2\x80\x94\n\n"),
            head: None,
            seal: Some("{}".to_owned()),
        }
    }

    #[test]
    fn a_chunk_reads_as_it_was_written_and_nothing_that_was_cut_or_added_does() {
        let written = chunk().written().unwrap();
        assert_eq!(Chunk::read(&written), Ok(chunk()));
        for length in 0..written.len() {
            assert!(Chunk::read(&written.slice(..length)).is_err(), "{length}");
        }
        let mut longer = written.to_vec();
        longer.push(b'\n');
        assert!(Chunk::read(&longer.into()).is_err());
        let lying = br#"{"ledger":"","proof":"","segment":1,"first":0,"lines":18446744073709551615,"values":1,"heads_at":0,"heads":1}"#;
        assert!(Chunk::read(&[lying.as_slice(), b"\nx"].concat().into()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange_to_be_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            drop(Chunk::read(&bytes.into()));
        }
    }
}
