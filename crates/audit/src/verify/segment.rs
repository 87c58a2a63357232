//! One segment: its lines, each with its companion values, its heads beside them, and its seal.

use std::path::Path;

use serde_json::{Map, Value};

use super::{
    Broken, Progress, State, VerifyError,
    amended::Amendment,
    amends::{Gap, Wanting},
    files::Reader,
    heads::Heads,
};
use crate::{
    LedgerError, chain,
    heads::Head,
    read::{Lines, Rows},
    record::{Component, kind},
    recovery::Previous,
    segment::{Complete, Extent, Paths, Position, Seal},
    values::{self, Row, VERSION},
};

/// How many records go by between two reports of progress.
const PROGRESS_EVERY: u64 = 4096;

/// The files of one segment, read beside each other.
struct Reading<'a> {
    index: u64,
    paths: Paths,
    sealed: bool,
    lines: Lines,
    rows: Rows,
    heads: Heads<'a>,
    extent: Extent,
    /// The first companion value that is missing, and how many are.
    gap: Option<Gap>,
    /// What was erased of it without a record.
    amendment: Option<Amendment>,
}

pub(super) fn check(
    state: &mut State<'_>,
    from: &Reader<'_>,
    index: u64,
    progress: &mut impl FnMut(Progress),
) -> Result<(), VerifyError> {
    let paths = from.paths(index);
    let mut seal = read_seal(from, &paths, index)?;
    let sealed = seal.is_some();
    // The heads before the lines: there are only ever more lines than those that a head covers.
    let heads = Heads::open(from, &paths.heads, state.key, !sealed).map_err(LedgerError::io(&paths.heads))?;
    if sealed && !heads.are_there() {
        return Err(Broken::new("its heads are missing").of(index, &paths.heads).into());
    }
    let lines = from.open(&paths.lines).map(Lines::of).map_err(LedgerError::io(&paths.lines))?;
    let mut rows = Rows::following(from.open(&paths.values)).map_err(LedgerError::io(&paths.values))?;
    let amendment = state.amends.amended.erased.get(&index).cloned();
    if let Some(amendment) = &amendment {
        rows.watch(amendment.rows);
    }
    if !from.exists(&paths.lines).map_err(LedgerError::io(&paths.lines))? {
        // Retired between the opening of one file and the next.
        return Err(Broken::new("its lines are missing").of(index, &paths.lines).into());
    }
    let (extent, start) = (Extent::default(), state.position.clone());
    let mut reading = Reading { index, paths, sealed, lines, rows, heads, extent, gap: None, amendment };
    reading.lines(state, progress)?;
    if seal.is_none() {
        // Looked for before the seal: a segment is sealed before the next is begun, and both may happen just now.
        let followed = from.exists(&from.paths(index + 1).lines).map_err(LedgerError::io(&reading.paths.lines))?;
        seal = read_seal(from, &reading.paths, index)?;
        if seal.is_some() {
            // Sealed while it was read: what was written until then is read too.
            reading.sealed = true;
            reading.heads.sealed(from, &reading.paths.heads).map_err(LedgerError::io(&reading.paths.heads))?;
            reading.heads_since(state, from, start)?;
            reading.lines(state, progress)?;
        } else if followed {
            let seal = &reading.paths.seal;
            return Err(Broken::new("the seal is missing, and another segment follows").of(index, seal).into());
        }
    }
    reading.end(state)?;
    state.report.segments += 1;
    state.report.heads += reading.heads.count;
    if let Some(seal) = seal {
        reading.seal(state, &seal).map_err(|why| Broken::new(why).of(index, &reading.paths.seal))?;
    }
    progress(Progress { bytes: state.bytes, of: state.total_bytes, records: state.report.records });
    Ok(())
}

fn read_seal(from: &Reader<'_>, paths: &Paths, index: u64) -> Result<Option<Seal>, Broken> {
    from.seal(&paths.seal).map_err(|error| Broken::new(format!("it is no seal: {error}")).of(index, &paths.seal))
}

impl Reading<'_> {
    /// Checks the lines up to the end of the file.
    fn lines(&mut self, state: &mut State<'_>, progress: &mut impl FnMut(Progress)) -> Result<(), VerifyError> {
        self.compare_heads(state)?;
        loop {
            let (number, seq) = (self.extent.records + 1, state.position.seq());
            let (index, paths) = (self.index, self.paths.clone());
            let at = |path: &Path, why: String| Broken::new(why).of(index, path).at(number, seq);
            let Some(line) = self.lines.next().map_err(|error| at(&paths.lines, error.to_string()))? else { break };
            let fields = members(&line).map_err(|why| at(&paths.lines, why))?;
            self.line(state, &line, &fields).map_err(|why| at(&paths.lines, why))?;
            let row = self.rows.of_exactly(seq).map_err(|error| at(&paths.values, error.to_string()))?;
            self.values(state, &fields, row, seq).map_err(|why| at(&paths.values, why))?;
            state.compare_heads().map_err(|why| at(&paths.lines, why))?;
            self.compare_heads(state)?;
            state.bytes += line.len() as u64 + 1;
            state.report.records += 1;
            if state.report.records.is_multiple_of(PROGRESS_EVERY) {
                progress(Progress { bytes: state.bytes, of: state.total_bytes, records: state.report.records });
            }
        }
        Ok(())
    }

    /// The heads that cover exactly the lines so far must have their root.
    fn compare_heads(&mut self, state: &mut State<'_>) -> Result<(), Broken> {
        let size = state.position.seq();
        loop {
            let number = self.extent.records;
            let wrong = |why: String| Broken::new(why).of(self.index, &self.paths.heads);
            let Some(head) = self.heads.peek().map_err(wrong)? else { return Ok(()) };
            if head.size > size {
                return Ok(());
            }
            let why = if head.size < size {
                format!("a head over {} lines stands where one over {size} or more has to", head.size)
            } else if number == 0 {
                format!("a head over {size} lines is of the segment before")
            } else if head.root != state.position.frontier.root() {
                let why = format!("the lines up to here are not those that a head over {size} lines was signed for");
                return Err(Broken::new(why).of(self.index, &self.paths.lines).at(number, size - 1));
            } else {
                state.signed_up_to(size);
                self.heads.take();
                continue;
            };
            return Err(wrong(why));
        }
    }

    /// Compares the heads that were signed since it was opened, over lines that had gone by: those are read again from
    /// `start` for them.
    fn heads_since(&mut self, state: &mut State<'_>, from: &Reader<'_>, start: Position) -> Result<(), VerifyError> {
        let path = self.paths.lines.clone();
        let mut lines = from.open(&path).map(Lines::of).map_err(LedgerError::io(&path))?;
        let read = std::mem::take(&mut self.extent.records);
        let now = std::mem::replace(&mut state.position, start);
        loop {
            self.compare_heads(state)?;
            if self.extent.records == read {
                break;
            }
            let Some(line) = lines.next().map_err(LedgerError::io(&path))? else { break };
            state.position.push(&line);
            self.extent.records += 1;
        }
        if state.position != now {
            return Err(Broken::new("its lines changed while they were read").of(self.index, &path).into());
        }
        Ok(())
    }

    /// What may stand after the last whole line, row and head.
    fn end(&mut self, state: &mut State<'_>) -> Result<(), Broken> {
        let broken = |why: &str, path: &Path| Err(Broken::new(why).of(self.index, path));
        let lines = state.position.seq();
        if let Some(head) = self.heads.peek().map_err(|why| Broken::new(why).of(self.index, &self.paths.heads))? {
            let why = format!("a head covers {} lines, there are {lines}: lines at its end are missing", head.size);
            return Err(Broken::new(why).of(self.index, &self.paths.lines));
        }
        // The rows of records that are just being written are there before their lines.
        let left =
            self.rows.next().map_err(|error| Broken::new(error.to_string()).of(self.index, &self.paths.values))?;
        if self.sealed {
            if self.lines.unfinished() > 0 {
                return broken("its last line is not whole", &self.paths.lines);
            }
            if left.is_some() {
                return broken("there are companion values of a record that it does not hold", &self.paths.values);
            }
            if self.rows.unfinished() > 0 {
                return broken("its last companion row is not whole", &self.paths.values);
            }
            if self.heads.unfinished() {
                return broken("its last head is not whole", &self.paths.heads);
            }
        }
        state.report.torn_bytes += self.lines.unfinished() as u64;
        if let Some(amendment) = &self.amendment
            && self.rows.watched().map(|digest| chain::encoded(&digest)) != Some(amendment.digest.clone())
        {
            return broken("its companion rows are not those that an erasure left", &self.paths.values);
        }
        if let Some(gap) = self.gap.take() {
            let digest = chain::encoded(&self.rows.digest());
            state.amends.wanting.insert(self.index, Wanting { gap, digest });
        }
        Ok(())
    }

    /// The line's own members against the line before, and what it says of calls, starts and amends.
    fn line(&mut self, state: &mut State<'_>, line: &[u8], fields: &Map<String, Value>) -> Result<(), String> {
        let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
        let version = fields.get("v").and_then(Value::as_u64);
        if version != Some(VERSION) {
            return Err(format!("the record is of another version: `v` is {VERSION}"));
        }
        let seq = state.position.seq();
        match fields.get("seq").and_then(Value::as_u64) {
            Some(found) if found == seq => {}
            Some(found) => return Err(format!("the record has the number {found}, and {seq} has to stand here")),
            None => return Err(format!("the record has no number, and {seq} has to stand here")),
        }
        if chain::decoded(text("prev")) != Some(state.position.prev) {
            return Err(format!(
                "the record does not follow the line before, one of the two was changed: `prev` is {:?}, and the line \
                 before has the hash {:?}",
                text("prev"),
                chain::encoded(&state.position.prev)
            ));
        }
        let time = text("time").parse().map_err(|_| "the record has no time".to_owned())?;
        match text("kind") {
            kind::CALL_DECIDED if text("decision") == "permit" => {
                state.open.insert(text("decision_id").to_owned());
            }
            kind::CALL_SETTLED => {
                state.open.remove(text("decision_id"));
            }
            kind::SEGMENT_RETIRED | kind::VALUES_ERASED => state.amends.read(fields, seq)?,
            // Not every kind that is named so: a task is started, too.
            other if Component::ALL.iter().any(|it| it.started() == other) => {
                check_start(state, fields.get("previous"))?;
            }
            _ => {}
        }
        state.position.push(line);
        self.extent.push(line.len() + 1, time);
        Ok(())
    }

    /// Each commitment is opened by its value; or the value is gone, which only a sealed segment allows, and only where
    /// a record says so.
    fn values(
        &mut self,
        state: &mut State<'_>,
        fields: &Map<String, Value>,
        row: Option<Row>,
        seq: u64,
    ) -> Result<(), String> {
        let mut values = row.map(|row| row.values).unwrap_or_default();
        for (name, member) in fields {
            let Some(expected) = values::committed(member) else { continue };
            match values.remove(&format!("/{name}")) {
                Some(value) if value.matches(expected) => state.report.values += 1,
                Some(_) => return Err(format!("the companion value /{name} is not the one that was recorded")),
                None if self.amendment.as_ref().is_some_and(|amendment| seq < amendment.before) => {
                    state.report.erased += 1;
                    state.report.erased_by_keeper += 1;
                }
                None => {
                    let first = || Gap { line: self.extent.records, seq, name: format!("/{name}"), values: 0 };
                    self.gap.get_or_insert_with(first).values += 1;
                    if !self.sealed {
                        return Err(format!("the companion value /{name} is missing"));
                    }
                }
            }
        }
        match values.keys().next() {
            Some(extra) => Err(format!("there is a companion value {extra} that the record does not have")),
            None => Ok(()),
        }
    }

    fn seal(&self, state: &State<'_>, seal: &Seal) -> Result<(), String> {
        let head = Head::verify(&seal.head, state.key).map_err(|error| format!("its head: {error}"))?;
        let (index, extent, heads) = (self.index, &self.extent, (self.heads.count, self.heads.digest()));
        let by = Complete { index, extent, position: &state.position, open: &state.open, heads };
        match seal.contradicted(&head, &by) {
            Some("head") => Err("its head is not over the lines up to the segment's end".to_owned()),
            Some(what) => Err(format!("the seal contradicts the segment: its {what}")),
            None => Ok(()),
        }
    }
}

fn members(line: &[u8]) -> Result<Map<String, Value>, String> {
    serde_json::from_slice(line).map_err(|error| format!("the line is not a record: {error}"))
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
