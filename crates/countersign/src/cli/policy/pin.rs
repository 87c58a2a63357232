//! `countersign policy pin | unpin | pins`: bundles that stay at a revision, at every sidecar, by the authority's word.

use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    environment::Environment,
    failure::{Exit, Failure},
    management::{Session, print, print_list, segment, table},
};

/// Keep a bundle of policy at a revision: every sidecar goes back to it, or stays there.
///
/// A sidecar goes to the revision that it has kept of that bundle, or that its bundle server offers, on record and without
/// a restart; newer ones are fetched and looked at, and wait. One that has not got it goes on with what decides there, takes
/// nothing newer, and says so in its status and in `countersign_policy_pin_unmet`. Another pin of the same bundle, for the
/// same sidecars, ends. Only administrators pin, after a login of the last minutes: an earlier revision may allow more.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  countersign policy pin support 3f2c9aa --reason 'refunds are refused since 4b1d002'\n  \
                        countersign policy pin support 3f2c9aa --until 2026-03-16T09:00:00Z --reason 'until the fix is out'\n  \
                        countersign policy pin org 2026-03-01 --tenant acme --reason 'case 311' --json\n\n\
                        The revision is what the bundle's manifest calls it: `countersign policy inspect` and a sidecar's \
                        status show it."
)]
pub(super) struct PinArgs {
    /// The bundle, by the name of its source in the sidecars' configuration: `org`, or a team's.
    bundle: String,
    /// The revision.
    revision: String,
    /// Why, for whoever reads the record.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// When it is over by itself; without it, somebody has to unpin.
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// Only at sidecars that serve this tenant and no other.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    #[command(flatten)]
    session: Session,
}

/// Let a bundle of policy go on to its newest revision.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  countersign policy unpin support --reason 'fixed in 5e77c01'\n  \
                        countersign policy unpin org --tenant acme --reason 'case 311 is closed'")]
pub(super) struct UnpinArgs {
    /// The bundle.
    bundle: String,
    /// Why, for whoever reads the record.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// The pin that was made for the sidecars of this tenant.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    #[command(flatten)]
    session: Session,
}

/// List the bundles of policy that stay at a revision.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  countersign policy pins\n  countersign policy pins --bundle support --json")]
pub(super) struct PinsArgs {
    /// Only of this bundle.
    #[arg(long, value_name = "BUNDLE")]
    bundle: Option<String>,
    #[command(flatten)]
    session: Session,
}

/// `tenant` is absent where all sidecars are meant, `until` where somebody has to unpin.
const ONE: [table::Column<'_>; 7] = [
    ("pin", "/id"),
    ("bundle", "/bundle"),
    ("revision", "/revision"),
    ("tenant", "/tenant"),
    ("until", "/until"),
    ("position", "/position"),
    ("reason", "/reason"),
];

pub(super) fn pin(args: &PinArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    let body = json!({
        "bundle": args.bundle,
        "revision": args.revision,
        "tenant": args.tenant,
        "until": args.until,
        "reason": args.reason,
    });
    let made = args.session.client(environment)?.post("/v1/pins", &body)?;
    print(args.session.json, &made, |made| table::lines(&ONE, made))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn unpin(args: &UnpinArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    let client = args.session.client(environment)?;
    let pins = client.list("/v1/pins", "pins", &[("bundle", Some(args.bundle.as_str()))])?;
    let tenant = |pin: &Value| pin.get("tenant").and_then(Value::as_str).map(str::to_owned);
    let Some(pin) = pins.iter().find(|pin| tenant(pin) == args.tenant) else {
        let whose = args.tenant.as_ref().map(|tenant| format!(" for the sidecars of {tenant}")).unwrap_or_default();
        return Err(Failure::new(Exit::Failed, format!("`{}` is not pinned{whose}", args.bundle)));
    };
    let id = pin.get("id").and_then(Value::as_str).unwrap_or_default();
    let removed = client.post(&format!("/v1/pins/{}/remove", segment(id)), &json!({ "reason": args.reason }))?;
    print(args.session.json, &removed, |removed| table::lines(&ONE, removed))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn pins(args: &PinsArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    let filters = [("bundle", args.bundle.as_deref())];
    let pins = args.session.client(environment)?.list("/v1/pins", "pins", &filters)?;
    let columns = [
        ("BUNDLE", "/bundle"),
        ("REVISION", "/revision"),
        ("TENANT", "/tenant"),
        ("UNTIL", "/until"),
        ("AT", "/at"),
        ("BY", "/by"),
        ("REASON", "/reason"),
    ];
    print_list(args.session.json, &pins, &columns)?;
    Ok(ExitCode::SUCCESS)
}
