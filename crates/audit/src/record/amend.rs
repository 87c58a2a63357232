//! What was taken out of the ledger, and by whose word: `segment.retired` and `values.erased`. `verify` reads them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::kind;
use crate::{canonical::Unrecordable, values::Draft};

/// A segment that retention takes away: its place, and the head over everything up to its end.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RetiredSegment {
    pub(crate) segment: u64,
    pub(crate) first_seq: u64,
    pub(crate) records: u64,
    pub(crate) earliest: Option<Timestamp>,
    pub(crate) latest: Option<Timestamp>,
    pub(crate) head: WrittenHead,
    /// The setting that asked for it: `max_age` or `max_bytes`.
    pub(crate) because: String,
}

/// So many lines have this root.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WrittenHead {
    pub(crate) size: u64,
    /// base64, as in a signed head.
    pub(crate) root: String,
}

/// Companion values of one person that were taken out of one segment.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ErasedValues {
    /// The same for every segment of one erasure.
    pub(crate) erasure: String,
    pub(crate) segment: u64,
    /// How many records lost values, and how many values.
    pub(crate) records: u64,
    pub(crate) values: u64,
    /// What was left. Not which rows went: such a list would tie the person's records together for ever.
    pub(crate) kept: KeptRows,
    /// base64url(SHA-256(salt || canonical principal)); only whoever asked has the salt.
    pub(crate) subject: String,
    /// Who asked for it, by their own word.
    pub(crate) by: String,
    /// Why, by theirs.
    pub(crate) reason: String,
}

/// The companion rows of a segment after an erasure.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct KeptRows {
    pub(crate) rows: u64,
    /// base64url SHA-256 of the rows, each with its newline.
    pub(crate) digest: String,
}

/// Something that an authority took away from its copy of a sidecar's ledger.
#[derive(Debug, Clone)]
pub struct CopyChanged {
    /// The ledger's id.
    pub ledger: String,
    /// The segment.
    pub segment: u64,
    /// How many records lost their values, or were taken away with the whole segment.
    pub records: u64,
    /// The digest of the companion rows that are left, where it was an erasure.
    pub left: Option<String>,
    /// At whose word: the ledger's own record, a setting, or somebody's.
    pub by: String,
    /// Why, by theirs.
    pub reason: Option<String>,
}

pub(crate) fn copy_changed(changed: &CopyChanged) -> Result<Draft, Unrecordable> {
    let mut draft = Draft::new(if changed.left.is_some() { kind::COPY_ERASED } else { kind::COPY_RETIRED })?;
    draft.plain("ledger", &changed.ledger)?;
    draft.plain("segment", &changed.segment)?;
    draft.plain("records", &changed.records)?;
    draft.optional("left", changed.left.as_ref())?;
    draft.plain("by", &changed.by)?;
    draft.optional("reason", changed.reason.as_ref())?;
    Ok(draft)
}

pub(crate) fn retired(segment: &RetiredSegment) -> Result<Draft, Unrecordable> {
    let mut draft = Draft::new(kind::SEGMENT_RETIRED)?;
    draft.plain("segment", &segment.segment)?;
    draft.plain("first_seq", &segment.first_seq)?;
    draft.plain("records", &segment.records)?;
    draft.optional("earliest", segment.earliest.as_ref())?;
    draft.optional("latest", segment.latest.as_ref())?;
    draft.plain("head", &segment.head)?;
    draft.plain("because", &segment.because)?;
    Ok(draft)
}

pub(crate) fn erased(erased: &ErasedValues) -> Result<Draft, Unrecordable> {
    let mut draft = Draft::new(kind::VALUES_ERASED)?;
    draft.plain("erasure", &erased.erasure)?;
    draft.plain("segment", &erased.segment)?;
    draft.plain("records", &erased.records)?;
    draft.plain("values", &erased.values)?;
    draft.plain("kept", &erased.kept)?;
    draft.plain("subject", &erased.subject)?;
    draft.plain("by", &erased.by)?;
    draft.plain("reason", &erased.reason)?;
    Ok(draft)
}
