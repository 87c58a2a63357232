//! `countersign policy replay`: the decisions of a ledger made again by other policies, before those decide anything.

pub(super) mod fail_on;
mod read;
mod text;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
};

use model::{Action, Id};
use policy::{
    Engine,
    engine::Bounds,
    replay::{self, Change, Tally},
};
use serde_json::{Value, json};

use self::{fail_on::FailOn, read::Span};
use super::sources::{Policies, SourceArgs};
use crate::{
    cli::{
        audit::{Moment, moment},
        ledger::{LedgerPlace, Whence},
    },
    environment::Environment,
    failure::{Exit, Failure},
    management::Elsewhere,
    output::Output,
    run::kept::Kept,
};

/// How many different decisions are remembered: calls of one kind are asked for again and again.
const REMEMBERED: usize = 256 * 1024;

/// Make the decisions of a ledger again by other policies, and say what would change.
///
/// Each question is put together from its record and asked again; nothing is sent and nothing is written. What other
/// stages refused stays refused, and questions of which values were erased are counted, never guessed. Tokens that an
/// authority issued are not asked again: their records do not hold all that policy was asked with.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  countersign policy replay --config countersign.yaml --since 7d\n  \
                        countersign policy replay org=policies/org support=policies/orders:orders \\\n    \
                        --catalogue countersign.yaml --from ./demo/ledger\n  \
                        countersign policy replay --fail-on new-denials:refunds.create,orders.read\n  \
                        countersign policy replay --fail-on any-change --json\n\n\
                        Exits with 1 where --fail-on names something that was found, or nothing was compared.")]
pub(crate) struct Args {
    #[command(flatten)]
    sources: SourceArgs,
    /// The ledger's directory, or `authority` for what sidecars shipped there. Without it, the ledger that the
    /// configuration names.
    #[arg(long, visible_alias = "ledger", value_name = "DIR", env = "COUNTERSIGN_LEDGER")]
    from: Option<PathBuf>,
    #[command(flatten)]
    elsewhere: Elsewhere,
    /// What was decided from this time on: `2026-11-22T14:00:00Z`, `2026-11-22`, or `7d` ago.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Moment>,
    /// What was decided before this time.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Moment>,
    /// Only these actions.
    #[arg(long, value_name = "ACTION", value_delimiter = ',')]
    action: Vec<Id<Action>>,
    /// Exit with 1 where calls would change so: `new-denials`, `new-permits`, `new-approvals`, `any-change`, each with
    /// `:ACTION,…` for these actions alone; or `not-replayable`, where a decision could not be made again.
    #[arg(long, value_name = "WHAT")]
    fail_on: Vec<FailOn>,
    /// Examples of each change.
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    limit: usize,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, environment: &Environment) -> Result<ExitCode, Failure> {
    let config = args.sources.config().map(PathBuf::from);
    let place = LedgerPlace::at(args.from.clone(), config, args.elsewhere.clone());
    let whence = place.whence(environment)?;
    let ledger = match &whence {
        Whence::Directory(directory) => Some(directory.as_path()),
        Whence::Authority(_) => None,
    };
    let engine = candidate(args.sources.read(environment)?, ledger, args)?;
    let now = net::clock::now();
    let span = Span {
        from: args.since.and_then(|since| since.timestamp(now)),
        to: args.until.and_then(|until| until.timestamp(now)),
        actions: args.action.iter().cloned().collect(),
    };
    let bounds = replay::Bounds { examples: args.limit, ..replay::Bounds::default() };
    let tally = match &whence {
        Whence::Directory(directory) => read::directory(directory, &engine, &span, bounds, args.json)?,
        Whence::Authority(remote) => read::authority(remote, &engine, &span, bounds, args.json)?,
    };
    let mut failed: Vec<String> = args.fail_on.iter().filter_map(|wanted| wanted.met(&tally)).collect();
    // What finds nothing because it looked at nothing would let everything pass.
    if !args.fail_on.is_empty() && tally.compared == 0 {
        failed.push("no decision was made again, so nothing is shown".to_owned());
    }
    let mut output = Output::new();
    let _reader = if args.json {
        output.json(&report(&engine, &tally, &failed))?
    } else {
        output.write(&text::for_person(&engine, &tally, &failed))?
    };
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The policies that are asked now. Where nobody says which tools and actions there are, and which of them a team
/// decides about, it is as when the ledger's policies last came into force.
fn candidate(policies: Policies, ledger: Option<&Path>, args: &Args) -> Result<Engine, Failure> {
    let Policies { mut sources, catalogue } = policies;
    let catalogue = match (catalogue, ledger.map(Kept::newest).transpose().map_err(Failure::configuration)?.flatten()) {
        (Some(catalogue), _) => catalogue,
        (None, Some(kept)) => {
            for source in sources.iter_mut().filter(|source| source.tools.as_ref().is_some_and(BTreeSet::is_empty)) {
                let known = kept.sources.iter().find(|known| known.name == source.name);
                source.tools = known.map_or(source.tools.take(), |known| known.tools.clone());
            }
            kept.catalogue().map_err(Failure::configuration)?
        }
        (None, None) => {
            return Err(Failure::new(
                Exit::Usage,
                "which tools and actions are there? Say --catalogue FILE, the sidecar's configuration",
            ));
        }
    };
    let known: BTreeSet<&Id<Action>> =
        catalogue.tools().iter().flat_map(|tool| tool.actions.iter().map(|action| &action.id)).collect();
    let failing = args.fail_on.iter().flat_map(FailOn::actions).map(|action| ("--fail-on", action));
    let named = failing.chain(args.action.iter().map(|action| ("--action", action)));
    for (option, action) in named {
        if !known.contains(action) {
            return Err(Failure::new(Exit::Usage, format!("{option}: no tool has the action `{action}`")));
        }
    }
    let bounds = Bounds { remembered: REMEMBERED, ..Bounds::default() };
    Engine::load_within(&sources, &catalogue, bounds).map_err(Failure::configuration)
}

/// Every kind of change.
pub(super) const ALL: [Change; 6] = [
    Change::NewDenial,
    Change::NewPermit,
    Change::NewApproval,
    Change::OtherCode,
    Change::OtherObligations,
    Change::OtherReasons,
];

fn changed(tally: &Tally) -> u64 {
    tally.changed(&ALL, &BTreeSet::new())
}

fn report(engine: &Engine, tally: &Tally, failed: &[String]) -> Value {
    let changes: Vec<Value> = tally
        .groups()
        .into_iter()
        .map(|(group, found)| {
            let mut change = json!(group);
            if let (Value::Object(members), Value::Object(found)) = (&mut change, json!(found)) {
                members.extend(found);
            }
            change
        })
        .collect();
    let mut report = json!({
        "policy": { "revision": engine.revision(), "bundles": engine.bundles() },
        "changed": changed(tally),
        "changes": changes,
        "failed_on": failed,
    });
    if let (Value::Object(members), Value::Object(counted)) = (&mut report, json!(tally)) {
        members.extend(counted);
    }
    report
}
