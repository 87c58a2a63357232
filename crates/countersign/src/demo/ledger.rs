//! What the ledger has to hold after the steps, read from its files alone, as an auditor would.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use audit::query::{self, Filter, Found};
use audit::record::{Digest, kind};
use audit::verify::{self, Options, Report, VerifyError};
use audit::{Entry, rebuild};
use model::{Code, Verdict};

use super::steps::{Step, Surprise};
use crate::cli::ledger::unreadable;
use crate::failure::Failure;

/// How many of the last decisions are shown.
const LAST: usize = 8;
/// How long a signed head is waited for.
const HEAD: Duration = Duration::from_secs(3);
/// How often it is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What became of one step: its row, and what the agent was told.
#[derive(Debug, Clone)]
pub(super) struct Decided {
    /// The row.
    pub(super) step: &'static Step,
    /// The decision's id.
    pub(super) id: String,
    /// The code that it was refused with; `None` when it was permitted.
    pub(super) refused: Option<String>,
}

/// Checks that the ledger in `dir` holds every decision as the agent was told of it, and that the exact input that
/// policy saw can be put together again from it. Returns how many inputs were.
pub(super) fn check(dir: &Path, decided: &[Decided]) -> Result<usize, Surprise> {
    let mut rebuilt = 0;
    for Decided { step, id, refused } in decided {
        let surprise = |what: String| Surprise { step: step.name, what };
        let found = query::find(dir, id).map_err(|error| surprise(format!("its record cannot be read: {error}")))?;
        let found = found.ok_or_else(|| surprise(format!("the ledger does not hold its decision {id}")))?;
        check_verdict(refused.as_deref(), &found.decided).map_err(surprise)?;
        rebuilt += usize::from(check_input(&found).map_err(surprise)?);
    }
    Ok(rebuilt)
}

/// Checks that the ledger in `dir` tells of the call `id` that it was cut, and why.
pub(super) fn check_cut(dir: &Path, Decided { step, id, .. }: &Decided) -> Result<(), Surprise> {
    let found = query::find(dir, id).map_err(|error| step.surprise(&format!("its record cannot be read: {error}")))?;
    let settled = found.and_then(|found| found.settled);
    let told = settled.as_ref().map(|entry| (entry.text("outcome"), entry.text("code")));
    if told == Some((Some("cut"), Some(Code::Withdrawn.as_str()))) {
        return Ok(());
    }
    Err(step.surprise(&format!("the ledger does not tell that it was cut, but {told:?}")))
}

/// Verifies the ledger in `dir`, once its last head covers every line. Heads follow the lines within a second.
pub(super) async fn verify(dir: &Path) -> Result<Report, Surprise> {
    let surprise = |error: VerifyError| Surprise { step: "ledger", what: error.to_string() };
    let mut waited = Duration::ZERO;
    loop {
        let report = verify::verify(dir, &Options::default(), |_| {}).map_err(surprise)?;
        if (report.lines_after_last_head == 0 && report.open_calls == 0) || waited >= HEAD {
            return Ok(report);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        waited += LOOK_AGAIN;
    }
}

/// The last decisions in the ledger, as people read them.
pub(super) fn last_lines(dir: &Path) -> Result<Vec<String>, Failure> {
    let mut last = VecDeque::with_capacity(LAST + 1);
    let filter = Filter { kind: Some(kind::CALL_DECIDED.to_owned()), ..Filter::default() };
    for entry in query::query(dir, filter).map_err(unreadable)? {
        last.push_back(audit::line::for_person(&entry.map_err(unreadable)?));
        if last.len() > LAST {
            last.pop_front();
        }
    }
    Ok(last.into())
}

fn check_verdict(refused: Option<&str>, decided: &Entry) -> Result<(), String> {
    let verdict = if refused.is_some() { Verdict::Deny } else { Verdict::Permit };
    let recorded = (decided.text("decision"), decided.text("code"));
    if recorded == (Some(verdict.as_str()), refused) {
        return Ok(());
    }
    Err(format!("the ledger holds {recorded:?}, the agent was told {} {refused:?}", verdict.as_str()))
}

/// Whether policy was asked, and if so, with an input that the records still give byte for byte.
fn check_input(found: &Found) -> Result<bool, String> {
    let Some(expected) = rebuild::input_digest(&found.decided) else { return Ok(false) };
    let token = found.token_seen.as_ref().ok_or("the ledger does not hold the record of its token")?;
    let question = rebuild::question(&found.decided, token).map_err(|error| error.to_string())?;
    let input = policy::input::canonical_json(&question).map_err(|error| error.to_string())?;
    if Digest::of(&input).text() == expected {
        return Ok(true);
    }
    Err("the policy input that the ledger gives is not the one that policy saw".to_owned())
}
