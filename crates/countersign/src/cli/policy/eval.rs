//! `countersign policy eval`: one question, put to policy as a sidecar would.

pub(super) mod question;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use model::Decision;
use policy::{Explainer, RuleTrace, cases::said, engine::Bounds};
use serde_json::json;

use self::question::AskArgs;
use super::{
    sources::SourceArgs,
    test::suite::{catalogue, engine},
};
use crate::{
    environment::Environment,
    failure::{Exit, Failure},
    output::Output,
};

/// The largest policy input, in bytes.
const MAX_INPUT_BYTES: u64 = 1024 * 1024;

/// Put one call to policy, and print the decision with its reasons.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  countersign policy eval --action refunds.create --resource orders/17 \\\n    \
                        --parameter 'amount=20.00 USD' --fact 'order.placed_by=$user' --fact order.status=open\n  \
                        countersign policy eval --case 'policies/orders/orders_cases.yaml#alice refunds her order' --explain\n  \
                        countersign policy eval --input input.json --json")]
pub(crate) struct Args {
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    ask: AskArgs,
    /// A file that holds a whole policy input as JSON (policies/schema/input.json), taken as it is.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["action", "case"])]
    input: Option<PathBuf>,
    /// Say of each rule whether it was true, and where it stopped.
    #[arg(long)]
    explain: bool,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, environment: &Environment) -> Result<ExitCode, Failure> {
    let policies = args.sources.read(environment)?;
    let explainer = || -> Result<Explainer, Failure> {
        Explainer::load(&policies.sources, &catalogue(&policies)?).map_err(Failure::configuration)
    };
    let (decision, traces): (Decision, Option<Vec<RuleTrace>>) = match &args.input {
        Some(path) => {
            let input = read(path)?;
            let decided = explainer()?.decide_json(&input);
            let (decision, traces) =
                decided.map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", path.display())))?;
            (decision, Some(traces))
        }
        None => {
            let question = args.ask.question(policies.catalogue.as_ref())?;
            let decision = engine(&policies, Bounds { remembered: 0, ..Bounds::default() })?.decide(&question);
            let traces = args.explain.then(|| explainer()?.explain(&question).map_err(Failure::configuration));
            (decision, traces.transpose()?)
        }
    };
    let traces = traces.filter(|_| args.explain);
    let mut output = Output::new();
    let _reader = if args.json {
        output.json(&json!({ "decision": decision, "rules": traces }))?
    } else {
        output.write(&for_person(&decision, traces.as_deref().unwrap_or_default()))?
    };
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<String, Failure> {
    let unreadable = |error: std::io::Error| Failure::because(Exit::Unavailable, path.display(), error);
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > MAX_INPUT_BYTES {
        return Err(Failure::new(Exit::Usage, format!("{}: larger than {MAX_INPUT_BYTES} bytes", path.display())));
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

fn for_person(decision: &Decision, traces: &[RuleTrace]) -> String {
    let mut text = format!("{}\n", said(decision));
    for reason in &decision.reasons {
        for words in [&reason.message, &reason.internal].into_iter().flatten() {
            text.push_str(&format!("    {}: {words}\n", reason.code));
        }
    }
    for obligation in &decision.obligations {
        text.push_str(&format!("    {}: {}\n", obligation.code, obligation.duty));
    }
    for trace in traces {
        text.push_str(&format!("{trace}\n"));
    }
    text
}
