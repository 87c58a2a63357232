//! A case from a decision in a ledger: what policy was asked then, and what it said.

use std::path::Path;

use audit::{query::find, rebuild};
use model::{Code, Decision, Verdict};
use policy::cases;

use crate::{
    cli::ledger::unreadable,
    failure::{Exit, Failure},
};

/// Where editors find what may stand in such a file; relative to a directory of policies.
const SCHEMA: &str = "../schema/cases.json";
/// What policy says.
const OF_POLICY: [Code; 4] = [Code::PolicyDenied, Code::PolicyNoAllow, Code::ApprovalRequired, Code::ObligationUnknown];

/// The file of cases that holds the decision `id`.
pub(super) fn written(id: &str, ledger: &Path) -> Result<String, Failure> {
    let failed = |line: String| Failure::new(Exit::Failed, line);
    let found = find(ledger, id).map_err(unreadable)?;
    let found = found.ok_or_else(|| failed(format!("the ledger at {} has no decision `{id}`", ledger.display())))?;
    let token = found.token_seen.as_ref();
    let token = token.ok_or_else(|| failed(format!("`{id}` was refused before its token was known")))?;
    let rebuilt = |error: rebuild::NotReplayable| failed(format!("`{id}`: {error}"));
    let question = rebuild::question(&found.decided, token).map_err(rebuilt)?;
    let decision = rebuild::decision(&found.decided).map_err(rebuilt)?;
    // A limit that policy set, and not one that somebody holds.
    let limited = found.decided.text("stage_reached") == Some("decide");
    let says = |code: Code| OF_POLICY.contains(&code) || (limited && code == Code::LimitExceeded);
    if let Some(code) = decision.code.filter(|code| !says(*code)) {
        return Err(failed(format!("`{id}` was refused with `{}`, which policy does not say", code.as_str())));
    }
    let decision = said_by_policy(decision);
    let name = format!("{} {} as decided in {id}", question.call.action, question.call.resource);
    let head = format!(
        "# yaml-language-server: $schema={SCHEMA}\n# What was decided on {}. It names people as the ledger does.\n",
        question.now
    );
    Ok(head + &cases::written(&name, &question, &decision))
}

/// Where the task's stage asked for approval, policy had permitted: its reasons are those that allow.
fn said_by_policy(mut decision: Decision) -> Decision {
    if decision.verdict == Verdict::ApprovalRequired && decision.reasons.iter().all(|reason| reason.retry.is_none()) {
        decision.verdict = Verdict::Permit;
        decision.code = None;
    }
    decision
}
