//! What may be missing because a record says so: segments that were retired, and companion values that were erased.
//! A record counts only where a signed head covers it: anyone who can write can add lines after the last head.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Amended, Broken, Report, VerifyError, broken, files::Reader};
use crate::{
    LedgerError, VerifyingKey,
    heads::Head,
    record::{ErasedValues, RetiredSegment, kind},
    segment::Position,
};

/// Companion values that are not there.
#[derive(Debug)]
pub(super) struct Gap {
    /// Where the first one should be.
    pub(super) line: u64,
    pub(super) seq: u64,
    pub(super) name: String,
    /// How many are missing in the segment.
    pub(super) values: u64,
}

/// A segment that wants some of its companion values.
#[derive(Debug)]
pub(super) struct Wanting {
    pub(super) gap: Gap,
    /// The hash of the rows that are there.
    pub(super) digest: String,
}

/// An erasure on record.
#[derive(Debug)]
struct Erasure {
    seq: u64,
    digest: String,
}

/// What is missing, and what says that it may.
#[derive(Debug, Default)]
pub(super) struct Amends {
    /// By segment.
    pub(super) wanting: BTreeMap<u64, Wanting>,
    erasures: BTreeMap<u64, Vec<Erasure>>,
    /// The last segment that was retired, and its head.
    retired: Option<(u64, Head)>,
    /// The record that says so.
    retired_by: Option<u64>,
    /// What no record has to say.
    pub(super) amended: Amended,
}

/// Where a ledger begins whose first segment is `first`.
pub(super) struct Beginning {
    pub(super) position: Position,
    pub(super) open: std::collections::BTreeSet<String>,
    retired: Option<(u64, Head)>,
}

impl Beginning {
    /// With its first line, or after the last segment that was retired, of which the seal was kept.
    pub(super) fn find(from: &Reader<'_>, first: u64, key: &VerifyingKey) -> Result<Self, VerifyError> {
        let Some(before) = first.checked_sub(1).filter(|before| *before > 0) else {
            let position = Position::genesis(key.name());
            return Ok(Self { position, open: Default::default(), retired: None });
        };
        let path = from.paths(before).seal;
        let wrong = |why: String| VerifyError::from(Broken::new(why).of(before, &path));
        let seal = from.seal(&path).map_err(|error| wrong(format!("it is no seal: {error}")))?;
        let Some(seal) = seal else {
            return Err(
                broken(format!("{} missing, and with them the seal that the rest begins at", up_to(before))).into()
            );
        };
        let head = Head::verify(&seal.head, key).map_err(|error| wrong(format!("its head: {error}")))?;
        let position = seal.position().filter(|position| {
            seal.segment == before && position.seq() == head.size && position.frontier.root() == head.root
        });
        let position = position.ok_or_else(|| wrong("the seal contradicts its own head".to_owned()))?;
        Ok(Self { position, open: seal.open, retired: Some((before, head)) })
    }
}

fn up_to(segment: u64) -> String {
    if segment == 1 { "segment 1 is".to_owned() } else { format!("segments 1 to {segment} are") }
}

impl Amends {
    pub(super) fn after(beginning: &Beginning) -> Self {
        Self { retired: beginning.retired.clone(), ..Self::default() }
    }

    /// Takes note of what the record `seq` says may be missing.
    pub(super) fn read(&mut self, fields: &Map<String, Value>, seq: u64) -> Result<(), String> {
        let unreadable = |error: serde_json::Error| format!("the record cannot be read: {error}");
        let record = Value::Object(fields.clone());
        if fields.get("kind").and_then(Value::as_str) == Some(kind::VALUES_ERASED) {
            let erased: ErasedValues = serde_json::from_value(record).map_err(unreadable)?;
            let erasure = Erasure { seq, digest: erased.kept.digest };
            self.erasures.entry(erased.segment).or_default().push(erasure);
            return Ok(());
        }
        let record: RetiredSegment = serde_json::from_value(record).map_err(unreadable)?;
        if let Some((segment, head)) = &self.retired
            && record.segment == *segment
            && (record.head.size, &record.head.root) == (head.size, &head.root_text())
        {
            self.retired_by.get_or_insert(seq);
        }
        Ok(())
    }

    /// Whether everything that is missing may be, by records below `signed`, the size of the last head.
    pub(super) fn account(mut self, signed: u64, report: &mut Report, from: &Reader<'_>) -> Result<(), VerifyError> {
        if let Some((segment, head)) = &self.retired {
            let why = match self.retired_by {
                Some(seq) if seq < signed => None,
                _ if *segment <= self.amended.retired => {
                    report.retired_by_keeper = true;
                    None
                }
                Some(seq) => {
                    Some(format!("and record {seq}, by which they were retired, is not covered by a signed head"))
                }
                None => Some("and no record says that they were retired".to_owned()),
            };
            if let Some(why) = why {
                return Err(broken(format!("{} missing, {why}", up_to(*segment))).into());
            }
            report.retired_segments = *segment;
            report.retired_records = head.size;
        }
        for (segment, erasures) in &mut self.erasures {
            erasures.retain(|erasure| erasure.seq < signed);
            let Some(newest) = erasures.last() else { continue };
            // A segment that went with everything in it has nothing left to be erased.
            if self.retired.as_ref().is_some_and(|(last, _)| segment <= last)
                || self.amended.erased.contains_key(segment)
            {
                continue;
            }
            if self.wanting.get(segment).is_none_or(|wanting| wanting.digest != newest.digest) {
                report.unfinished_erasures += 1;
            }
        }
        for (segment, Wanting { gap, digest }) in self.wanting {
            let on_record = self.erasures.get(&segment).is_some_and(|all| all.iter().any(|one| one.digest == digest));
            if !on_record {
                let why = format!(
                    "{} companion values of this segment are missing, the first of them {}, and no erasure on record \
                     left what is there",
                    gap.values, gap.name
                );
                let path = from.paths(segment).values;
                return Err(Broken::new(why).of(segment, &path).at(gap.line, gap.seq).into());
            }
            report.erased += gap.values;
        }
        Ok(())
    }
}

/// Whether the segment `index` was retired while it was being looked at.
pub(super) fn retired_meanwhile(from: &Reader<'_>, index: u64) -> Result<bool, LedgerError> {
    let first = from.segments().map_err(LedgerError::io(from.0.place()))?.first().copied();
    Ok(first.is_some_and(|first| first > index))
}
