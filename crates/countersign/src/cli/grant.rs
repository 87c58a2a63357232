//! `countersign grant`: what you let an agent do for you, and taking it back.

use std::{path::PathBuf, process::ExitCode};

use clap::Subcommand;
use model::duration::ConfigDuration;
use serde_json::{Value, json};

use super::agents::document;
use crate::{
    environment::Environment,
    failure::Failure,
    management::{Session, Taking, print, print_list, segment, table},
};

/// Give, list, narrow and withdraw grants.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  countersign grant create --agent support-v2 --details details.json --stage supervised --expires 30d\n  \
                        countersign grant list\n  countersign grant withdraw 0198… --reason 'no longer needed'\n\n\
                        details.json holds `authorization_details`: an array of elements such as\n  \
                        {\"type\": \"urn:countersign:action\", \"actions\": [\"refunds.create\"], \"locations\": [\"orders\"],\n   \
                        \"limits\": {\"amount\": {\"max\": \"50.00\", \"currency\": \"USD\"}}, \"where\": {\"order.placed_by\": \"$user\"}}"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Let an agent do something for you. More than you may do yourself cannot be given.
    #[command(
        after_help = "Example:\n  countersign grant create --agent support-v2 --details details.json --expires 30d"
    )]
    Create(Box<Create>),
    /// List your grants; everybody's, if you administer.
    #[command(after_help = "Example:\n  countersign grant list --status active --json")]
    List {
        /// Only of this user: ISSUER#ID, an id of your own issuer, or `me`.
        #[arg(long)]
        user: Option<String>,
        /// Only for this agent.
        #[arg(long)]
        agent: Option<String>,
        /// Only those in this status: active or withdrawn.
        #[arg(long)]
        status: Option<String>,
        #[command(flatten)]
        session: Session,
    },
    /// Show one grant.
    #[command(after_help = "Example:\n  countersign grant show 0198… --json")]
    Show {
        /// Its id.
        id: String,
        #[command(flatten)]
        session: Session,
    },
    /// Change a grant. What lessens it withdraws what was issued under it before.
    #[command(after_help = "Example:\n  countersign grant change 0198… --stage observe --reason 'only looking'")]
    Change(Box<Change>),
    /// Take a grant back, and end every task under it.
    #[command(after_help = "Example:\n  countersign grant withdraw 0198… --reason 'no longer needed'")]
    Withdraw(Taking),
}

#[derive(Debug, clap::Args)]
struct Create {
    /// The agent.
    #[arg(long)]
    agent: String,
    /// The user it is given for, by an administrator: ISSUER#ID, or an id of your own issuer.
    #[arg(long)]
    user: Option<String>,
    /// The file with `authorization_details` (JSON).
    #[arg(long, value_name = "FILE")]
    details: PathBuf,
    /// The furthest stage of a task under it: observe, draft or supervised.
    #[arg(long, default_value = "observe")]
    stage: String,
    /// Whether tasks may go on without you: detached, owner.
    #[arg(long, value_delimiter = ',')]
    presence: Vec<String>,
    /// How many further agents it may be passed on to.
    #[arg(long, default_value_t = 0)]
    redelegate: usize,
    /// How long it lasts.
    #[arg(long, value_name = "DURATION")]
    expires: ConfigDuration,
    /// Why, for whoever reads the record.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    session: Session,
}

#[derive(Debug, clap::Args)]
struct Change {
    /// Its id.
    id: String,
    /// The file with other `authorization_details` (JSON).
    #[arg(long, value_name = "FILE")]
    details: Option<PathBuf>,
    /// The furthest stage of a task under it.
    #[arg(long)]
    stage: Option<String>,
    /// Whether tasks may go on without you, instead of what was said before: detached, owner; `present` for neither.
    #[arg(long, value_delimiter = ',')]
    presence: Vec<String>,
    /// How many further agents it may be passed on to.
    #[arg(long)]
    redelegate: Option<usize>,
    /// How long it lasts from now on.
    #[arg(long, value_name = "DURATION")]
    expires: Option<ConfigDuration>,
    /// Why, for whoever reads the record.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    session: Session,
}

const ONE: [table::Column<'_>; 13] = [
    ("grant", "/id"),
    ("user", "/user/id"),
    ("agent", "/agent/id"),
    ("actions", "/scope"),
    ("stage", "/stage"),
    ("presence", "/presence"),
    ("redelegate", "/redelegate"),
    ("status", "/status"),
    ("expires", "/expires_at"),
    ("given by", "/given_by"),
    ("left out: the user may not do it themselves", "/clipped"),
    ("what they may do was last seen", "/entitlement_as_of"),
    ("clipped at each exchange: the user was not seen here yet", "/clipped_at_exchange"),
];

/// Of what it lets the agent do: each line by itself.
const ELEMENTS: [table::Column<'_>; 5] =
    [("MAY", "/actions"), ("AT", "/locations"), ("ON", "/identifier"), ("LIMITS", "/limits"), ("WHERE", "/where")];

pub(super) fn run(args: &Args, environment: &Environment) -> Result<ExitCode, Failure> {
    let (session, shown) = match &args.command {
        Command::List { user, agent, status, session } => {
            let filters = [("user", user.as_deref()), ("agent", agent.as_deref()), ("status", status.as_deref())];
            let grants = session.client(environment)?.list("/v1/grants", "grants", &filters)?;
            let columns = [
                ("ID", "/id"),
                ("USER", "/user/id"),
                ("AGENT", "/agent/id"),
                ("ACTIONS", "/scope"),
                ("STAGE", "/stage"),
                ("STATUS", "/status"),
                ("EXPIRES", "/expires_at"),
            ];
            print_list(session.json, &grants, &columns)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Create(args) => (&args.session, create(args, environment)?),
        Command::Show { id, session } => {
            (session, session.client(environment)?.get(&format!("/v1/grants/{}", segment(id)))?)
        }
        Command::Change(args) => (&args.session, change(args, environment)?),
        Command::Withdraw(Taking { id, reason, session }) => {
            let path = format!("/v1/grants/{}/withdraw", segment(id));
            (session, session.client(environment)?.post(&path, &json!({ "reason": reason }))?)
        }
    };
    print(session.json, &shown, text)?;
    Ok(ExitCode::SUCCESS)
}

/// A grant for people, with what it lets an agent do below it.
fn text(grant: &Value) -> String {
    let elements = grant.get("authorization_details").and_then(Value::as_array);
    let elements = elements.map(Vec::as_slice).unwrap_or_default();
    format!("{}\n{}", table::lines(&ONE, grant), table::table(&ELEMENTS, elements))
}

fn create(args: &Create, environment: &Environment) -> Result<Value, Failure> {
    let mut body = json!({
        "agent": named(&args.agent),
        "authorization_details": document(&args.details)?,
        "stage": args.stage,
        "presence": args.presence,
        "redelegate": args.redelegate,
        "expires_in": args.expires.to_string(),
    });
    set(&mut body, "user", args.user.as_deref().map(named));
    set(&mut body, "reason", args.reason.clone().map(Value::from));
    args.session.client(environment)?.post("/v1/grants", &body)
}

fn change(args: &Change, environment: &Environment) -> Result<Value, Failure> {
    let mut body = json!({ "reason": args.reason });
    set(&mut body, "authorization_details", args.details.as_ref().map(document).transpose()?);
    set(&mut body, "stage", args.stage.clone().map(Value::from));
    set(&mut body, "presence", (!args.presence.is_empty()).then(|| json!(args.presence)));
    set(&mut body, "redelegate", args.redelegate.map(Value::from));
    set(&mut body, "expires_in", args.expires.map(|expires| expires.to_string().into()));
    args.session.client(environment)?.post(&format!("/v1/grants/{}/change", segment(&args.id)), &body)
}

/// `ISSUER#ID` as both, `ID` as itself.
fn named(text: &str) -> Value {
    match text.rsplit_once('#') {
        Some((issuer, id)) => json!({ "issuer": issuer, "id": id }),
        None => json!(text),
    }
}

/// Adds a member, where there is a value.
pub(super) fn set(body: &mut Value, name: &str, value: Option<Value>) {
    if let (Some(members), Some(value)) = (body.as_object_mut(), value) {
        members.insert(name.to_owned(), value);
    }
}
