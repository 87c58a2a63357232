//! `countersign policy replay`: the decisions of a ledger made again by other policies, before those decide anything.

pub(super) mod fail_on;
mod in_order;
pub(in crate::cli) mod issuing;
mod read;
mod text;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
};

use model::{Action, Id};
use policy::{
    Engine, Source, Steering,
    engine::Bounds,
    replay::{self, Change, Tally},
};
use proxy::Reach;
use serde_json::{Value, json};

use self::{
    fail_on::FailOn,
    read::{Candidate, Span, Way},
};
use super::sources::{Policies, SourceArgs};
use crate::{
    cli::{
        audit::SpanArgs,
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
/// stages refused stays refused, and questions of which values were erased are counted, never guessed. Of an authority's
/// ledger it is the tokens that are asked for again (`delegate`): what each would hold.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  countersign policy replay --config countersign.yaml --since 7d\n  \
                        countersign policy replay org=policies/org support=policies/orders:orders \\\n    \
                        --catalogue countersign.yaml --from ./demo/ledger\n  \
                        countersign policy replay --fail-on new-denials:refunds.create,orders.read\n  \
                        countersign policy replay --fail-on any-change --json\n  \
                        countersign policy replay --config authority.yaml --fail-on new-denials\n\n\
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
    #[command(flatten)]
    span: SpanArgs,
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
    /// How many threads decide. Without it, as many as there are cores; what comes out is the same.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=16))]
    threads: Option<u8>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, environment: &Environment) -> Result<ExitCode, Failure> {
    let config = args.sources.config().map(PathBuf::from);
    let place = LedgerPlace::at(args.from.clone(), config, args.elsewhere.clone());
    let whence = place.whence(environment)?;
    let policies = args.sources.read(environment)?;
    let now = net::clock::now();
    let span =
        Span { from: args.span.from(now), to: args.span.to(now), actions: args.action.iter().cloned().collect() };
    let bounds = replay::Bounds { examples: args.limit, ..replay::Bounds::default() };
    if let Whence::Directory(directory) = &whence
        && issuing::is_authoritys(directory)?
    {
        return tokens(args, directory, &policies.sources, &span, bounds);
    }
    let ledger = match &whence {
        Whence::Directory(directory) => Some(directory.as_path()),
        Whence::Authority(_) => None,
    };
    let candidate = Candidate {
        engine: candidate(policies, ledger, args)?,
        reach: args.sources.sidecar(environment)?.map(|config| {
            let channels = config.notices.keys().cloned().collect();
            Reach::new(config.listen.agent, channels)
        }),
    };
    let way = Way { bounds, threads: args.threads.map(usize::from), quiet: args.json };
    let tally = match &whence {
        Whence::Directory(directory) => read::directory(directory, &candidate, &span, way)?,
        Whence::Authority(remote) => read::authority(remote, &candidate, &span, way)?,
    };
    let failed = fail_on::failed(&args.fail_on, &tally, None, "decision was made again");
    let Candidate { engine, .. } = &candidate;
    let policy = Asked { revision: engine.revision(), bundles: engine.bundles(), about: "call" };
    told(args, &policy, &tally, &failed)
}

/// What an authority's ledger has: tokens that it issued or refused.
fn tokens(
    args: &Args,
    directory: &Path,
    sources: &[Source],
    span: &Span,
    bounds: replay::Bounds,
) -> Result<ExitCode, Failure> {
    let silent = |source: &&Source| source.tools.as_ref().is_some_and(BTreeSet::is_empty);
    if let Some(Source { name, .. }) = sources.iter().find(silent) {
        let line = format!("which tools does `{name}` speak for? Say {name}=DIR:TOOL,…, or --catalogue FILE");
        return Err(Failure::new(Exit::Usage, line));
    }
    let steering = Steering::load(sources).map_err(Failure::configuration)?;
    let named: Vec<_> = args.fail_on.iter().flat_map(FailOn::actions).collect();
    let mut seen = BTreeSet::new();
    let tally = issuing::directory(directory, &steering, span, bounds, &named, &mut seen)?;
    let failed = fail_on::failed(&args.fail_on, &tally, Some(&seen), "token was asked for again");
    let policy = Asked { revision: steering.revision(), bundles: steering.bundles(), about: "token" };
    told(args, &policy, &tally, &failed)
}

fn told(args: &Args, policy: &Asked<'_>, tally: &Tally, failed: &[String]) -> Result<ExitCode, Failure> {
    let mut output = Output::new();
    let _reader = if args.json {
        output.json(&report(policy, tally, failed))?
    } else {
        output.write(&text::for_person(policy, tally, failed))?
    };
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Which policies were asked again, and about what.
struct Asked<'a> {
    revision: &'a str,
    bundles: &'a [String],
    /// `call` or `token`.
    about: &'static str,
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

fn report(policy: &Asked<'_>, tally: &Tally, failed: &[String]) -> Value {
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
        "policy": { "revision": policy.revision, "bundles": policy.bundles },
        "about": policy.about,
        "changed": changed(tally),
        "changes": changes,
        "failed_on": failed,
    });
    if let (Value::Object(members), Value::Object(counted)) = (&mut report, json!(tally)) {
        members.extend(counted);
    }
    report
}
