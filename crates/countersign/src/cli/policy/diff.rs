//! `countersign policy diff`: where a candidate that is asked beside what decides would have answered otherwise, from the
//! ledger alone.

mod read;
mod text;

use std::{collections::BTreeSet, process::ExitCode};

use audit::record::kind;
use model::{Action, Id};
use policy::replay::{Bounds, Tally};
use serde_json::{Value, json};

use self::read::{Diffs, OfCandidate};
use super::replay::{
    ALL,
    fail_on::{self, FailOn},
};
use crate::{
    cli::{
        audit::{SpanArgs, matching},
        ledger::LedgerPlace,
    },
    environment::Environment,
    failure::{Exit, Failure},
    output::Output,
};

/// Show where a policy candidate would have answered calls otherwise than they were.
///
/// A candidate (`candidate` of a source in the sidecar's `policy`) is asked about the calls as they come, and decides nothing.
/// Its differences are read from the ledger: by action and rule, with how many calls, people and agents they would meet. The
/// candidate that was asked last is shown.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  countersign policy diff --config countersign.yaml --since 7d\n  \
                        countersign policy diff --from ./demo/ledger --action refunds.create\n  \
                        countersign policy diff --from authority --fail-on new-denials:refunds.create --json\n\n\
                        Exits with 1 where --fail-on names something that was found, or nothing was compared.")]
pub(crate) struct Args {
    #[command(flatten)]
    place: LedgerPlace,
    #[command(flatten)]
    span: SpanArgs,
    /// Only these actions.
    #[arg(long, value_name = "ACTION", value_delimiter = ',')]
    action: Vec<Id<Action>>,
    /// Of the candidate of this revision, or what it begins with, instead of the last one.
    #[arg(long, value_name = "REVISION")]
    candidate: Option<String>,
    /// Exit with 1 where calls would change so: `new-denials`, `new-permits`, `new-approvals`, `any-change`, each with
    /// `:ACTION,…` for these actions alone.
    #[arg(long, value_name = "WHAT")]
    fail_on: Vec<FailOn>,
    /// Examples of each change, with --json.
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    limit: usize,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, environment: &Environment) -> Result<ExitCode, Failure> {
    if args.fail_on.iter().any(FailOn::is_not_replayable) {
        return Err(Failure::new(Exit::Usage, "--fail-on: nothing is made again here, so nothing is `not-replayable`"));
    }
    let whence = args.place.whence(environment)?;
    let now = net::clock::now();
    let bounds = Bounds { examples: args.limit.max(1), ..Bounds::default() };
    let mut diffs = Diffs::new(bounds, args.action.iter().cloned().collect());
    for kind in [kind::POLICY_CANDIDATE, kind::POLICY_DIFFERED, kind::POLICY_COMPARED] {
        let filter = audit::query::Filter {
            kind: Some(kind.to_owned()),
            from: args.span.from(now),
            to: args.span.to(now),
            ..audit::query::Filter::default()
        };
        for entry in matching(&whence, filter)? {
            diffs.add(&entry?);
        }
    }
    let found = diffs.take(args.candidate.as_deref());
    if let (None, Some(wanted)) = (&found, &args.candidate) {
        return Err(Failure::new(Exit::Failed, format!("no candidate `{wanted}` is on record in that time")));
    }
    let known = found.as_ref().map(|found| found.actions.keys().collect::<BTreeSet<_>>()).unwrap_or_default();
    let none = Tally::new(bounds);
    let tally = found.as_ref().map_or(&none, |found| &found.tally);
    let failed = fail_on::failed(&args.fail_on, tally, Some(&known), "call was compared");
    let mut output = Output::new();
    let _reader = if args.json {
        output.json(&report(found.as_ref(), diffs.others(), &failed))?
    } else {
        output.write(&text::for_person(found.as_ref(), diffs.others(), &failed))?
    };
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(found: Option<&OfCandidate>, others: usize, failed: &[String]) -> Value {
    let Some(found) = found else {
        return json!({ "candidate": null, "compared": 0, "changed": 0, "changes": [], "failed_on": failed });
    };
    let change = |(group, calls): (_, _)| {
        let mut change = json!(group);
        if let (Value::Object(members), Value::Object(calls)) = (&mut change, json!(calls)) {
            members.extend(calls);
        }
        change
    };
    json!({
        "candidate": found.revision,
        "active": found.active,
        "from": found.from,
        "to": found.to,
        "compared": found.tally.compared,
        "changed": found.tally.changed(&ALL, &BTreeSet::new()),
        "dropped": found.dropped,
        "unrecorded": found.unrecorded,
        "actions": found.actions,
        "changes": found.tally.groups().into_iter().map(change).collect::<Vec<_>>(),
        "ungrouped": found.tally.ungrouped,
        "other_candidates": others,
        "failed_on": failed,
    })
}
