//! Checking one segment: each line against the one before, each companion value against its commitment, each head
//! and the seal against what the lines give.

use std::{fs, io, path::Path};

use serde_json::{Map, Value};

use super::{Broken, Progress, State, VerifyError};
use crate::{
    LedgerError, chain,
    heads::{self, Head},
    read::{Lines, Rows},
    record::kind,
    recovery::Previous,
    segment::{Extent, Paths, Seal},
    values::{self, Row, VERSION},
};

/// How many records go by between two reports of progress.
const PROGRESS_EVERY: u64 = 4096;

pub(super) fn check(
    state: &mut State<'_>,
    dir: &Path,
    index: u64,
    last: bool,
    progress: &mut impl FnMut(Progress),
) -> Result<(), VerifyError> {
    let paths = Paths::new(dir, index);
    let at = |why: String| Broken { segment: Some(index), line: None, seq: None, why };
    let seal = Seal::read(&paths.seal).map_err(|error| at(format!("the seal: {error}")))?;
    if seal.is_none() && !last {
        return Err(at("the seal is missing".to_owned()).into());
    }
    let heads = read_heads(state, &paths, seal.is_some()).map_err(at)?;
    let sealed = seal.is_some();
    let extent = check_lines(state, &paths, index, sealed, progress)?;
    state.report.segments += 1;
    state.report.heads += heads.count;
    if let Some(seal) = seal {
        check_seal(state, &seal, index, &extent, &heads).map_err(at)?;
    }
    Ok(())
}

struct Heads {
    count: u64,
    digest: String,
}

/// Verifies the segment's heads and notes which roots they demand.
fn read_heads(state: &mut State<'_>, paths: &Paths, sealed: bool) -> Result<Heads, String> {
    let bytes = match fs::read(&paths.heads) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !sealed => Vec::new(),
        Err(error) => return Err(format!("the heads: {error}")),
    };
    let text = String::from_utf8_lossy(&bytes);
    let (notes, whole) = heads::notes(&text);
    if sealed && whole != text.len() {
        return Err("the heads: the last one is not whole".to_owned());
    }
    let mut size = state.position.seq();
    for note in &notes {
        let head = Head::verify(note, state.key).map_err(|error| format!("the heads: {error}"))?;
        if head.size < size {
            return Err("the heads: they go backwards".to_owned());
        }
        size = head.size;
        if size == state.position.seq() {
            return Err("the heads: one is of the segment before".to_owned());
        }
        state.expect(&head, "a head");
    }
    Ok(Heads { count: notes.len() as u64, digest: chain::encoded(&chain::sha256(&bytes)) })
}

fn check_lines(
    state: &mut State<'_>,
    paths: &Paths,
    index: u64,
    sealed: bool,
    progress: &mut impl FnMut(Progress),
) -> Result<Extent, VerifyError> {
    let mut lines = Lines::open(&paths.lines).map_err(LedgerError::io(&paths.lines))?;
    let mut rows = Rows::open(&paths.values).map_err(LedgerError::io(&paths.values))?;
    let mut extent = Extent::default();
    loop {
        let (line_number, seq) = (extent.records + 1, state.position.seq());
        let at = |why: String| Broken { segment: Some(index), line: Some(line_number), seq: Some(seq), why };
        let Some(line) = lines.next().map_err(|error| at(error.to_string()))? else { break };
        let fields = members(&line).map_err(at)?;
        check_line(state, &line, &fields, &mut extent).map_err(at)?;
        let row = rows.of_exactly(seq).map_err(|error| at(format!("the companion values: {error}")))?;
        check_values(state, &fields, row, sealed).map_err(at)?;
        state.compare_heads().map_err(at)?;
        state.bytes += line.len() as u64 + 1;
        state.report.records += 1;
        if state.report.records.is_multiple_of(PROGRESS_EVERY) {
            progress(Progress { bytes: state.bytes, of: state.total_bytes, records: state.report.records });
        }
    }
    let at = |why: &str| Broken { segment: Some(index), line: None, seq: None, why: why.to_owned() };
    if lines.unfinished() > 0 && sealed {
        return Err(at("its last line is not whole").into());
    }
    state.report.torn_bytes += lines.unfinished() as u64;
    // The rows of records that are just being written are there before their lines.
    let left = rows.next().map_err(|error| at(&format!("the companion values: {error}")))?;
    if sealed && left.is_some() {
        return Err(at("there are companion values of a record that it does not hold").into());
    }
    if sealed && rows.unfinished() > 0 {
        return Err(at("its last companion row is not whole").into());
    }
    progress(Progress { bytes: state.bytes, of: state.total_bytes, records: state.report.records });
    Ok(extent)
}

fn members(line: &[u8]) -> Result<Map<String, Value>, String> {
    serde_json::from_slice(line).map_err(|error| format!("the line is not a record: {error}"))
}

/// The line's own members against the line before, and what it says of calls and starts.
fn check_line(
    state: &mut State<'_>,
    line: &[u8],
    fields: &Map<String, Value>,
    extent: &mut Extent,
) -> Result<(), String> {
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    if fields.get("v").and_then(Value::as_u64) != Some(VERSION) {
        return Err("the record is of another version".to_owned());
    }
    if fields.get("seq").and_then(Value::as_u64) != Some(state.position.seq()) {
        return Err(format!("the record does not have the number {}", state.position.seq()));
    }
    if chain::decoded(text("prev")) != Some(state.position.prev) {
        return Err("the record does not follow the line before: one of the two was changed".to_owned());
    }
    let time = text("time").parse().map_err(|_| "the record has no time".to_owned())?;
    match text("kind") {
        kind::CALL_DECIDED if text("decision") == "permit" => {
            state.open.insert(text("decision_id").to_owned());
        }
        kind::CALL_SETTLED => {
            state.open.remove(text("decision_id"));
        }
        other if other.ends_with(".started") => check_start(state, fields.get("previous"))?,
        _ => {}
    }
    state.position.push(line);
    extent.push(line.len() + 1, time);
    Ok(())
}

/// The record of a start names the head before it.
fn check_start(state: &State<'_>, previous: Option<&Value>) -> Result<(), String> {
    let previous: Previous = serde_json::from_value(previous.cloned().unwrap_or_default())
        .map_err(|error| format!("the record of the start: {error}"))?;
    let seq = state.position.seq();
    let head = Head { origin: state.key.name().to_owned(), size: seq, root: state.position.frontier.root() };
    let expected = if seq == 0 { (None, None) } else { (Some(seq), Some(head.root_text())) };
    if (previous.head_size, previous.head_root) == expected {
        Ok(())
    } else {
        Err("the record of the start names another head than the lines before it give".to_owned())
    }
}

/// Each commitment is opened by its value, or its value was erased, which only a sealed segment allows.
fn check_values(
    state: &mut State<'_>,
    fields: &Map<String, Value>,
    row: Option<Row>,
    sealed: bool,
) -> Result<(), String> {
    let mut values = row.map(|row| row.values).unwrap_or_default();
    for (name, member) in fields {
        let Some(expected) = values::committed(member) else { continue };
        match values.remove(&format!("/{name}")) {
            Some(value) if value.matches(expected) => state.report.values += 1,
            Some(_) => return Err(format!("the companion value /{name} is not the one that was recorded")),
            None if sealed => state.report.erased += 1,
            None => return Err(format!("the companion value /{name} is missing")),
        }
    }
    match values.keys().next() {
        Some(extra) => Err(format!("there is a companion value {extra} that the record does not have")),
        None => Ok(()),
    }
}

fn check_seal(state: &State<'_>, seal: &Seal, index: u64, extent: &Extent, heads: &Heads) -> Result<(), String> {
    let head = Head::verify(&seal.head, state.key).map_err(|error| format!("the seal's head: {error}"))?;
    if (head.size, head.root) != (state.position.seq(), state.position.frontier.root()) {
        return Err("the seal's head is not over the lines up to its end".to_owned());
    }
    let difference = [
        ("its segment", (seal.v, seal.segment) == (VERSION, index)),
        ("its first record", seal.first_seq.checked_add(extent.records) == Some(state.position.seq())),
        ("its records", seal.records == extent.records),
        ("its bytes", seal.line_bytes == extent.line_bytes),
        ("its times", seal.earliest.zip(seal.latest) == extent.times),
        ("its last line", seal.last_hash == chain::encoded(&state.position.prev)),
        ("its frontier", seal.frontier == state.position.frontier.written()),
        ("its open calls", seal.open == state.open),
        ("its heads", seal.heads == heads.count && seal.heads_digest == heads.digest),
    ];
    match difference.iter().find(|(_, same)| !same) {
        Some((what, _)) => Err(format!("the seal contradicts the segment: {what}")),
        None => Ok(()),
    }
}
