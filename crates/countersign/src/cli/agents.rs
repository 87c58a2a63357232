//! `countersign agents`: the inventory, and what takes an agent out of service.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Subcommand;
use model::duration::ConfigDuration;
use serde_json::{Value, json};
use token::{Algorithm, SigningKey, mint};

use crate::{
    environment::Environment,
    failure::{Exit, Failure},
    management::{Session, print, print_list, segment, table},
    output::{Output, Reader},
};

/// Register, list, suspend and decommission agents.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  countersign agents list\n  countersign agents list --overdue --json\n  \
                        countersign agents register support-v2 --owner dana@acme.example --actions orders.read,refunds.create \\\n    \
                        --tenants acme --jwks support-v2.jwks.json\n  \
                        countersign agents suspend support-v2 --reason 'case 311'")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List agents, with the ages of their credentials.
    #[command(after_help = "Example:\n  countersign agents list --status active")]
    List {
        /// Only those in this status: active, suspended or decommissioned.
        #[arg(long)]
        status: Option<String>,
        /// Only those this person is accountable for.
        #[arg(long)]
        owner: Option<String>,
        /// Only those with a credential that is older than it may be.
        #[arg(long)]
        overdue: bool,
        #[command(flatten)]
        session: Session,
    },
    /// Show one agent.
    #[command(after_help = "Example:\n  countersign agents show support-v2 --json")]
    Show {
        /// Its id.
        id: String,
        #[command(flatten)]
        session: Session,
    },
    /// Make a key for an agent whose identity a sidecar holds (`entry: exchanged`), and print its public half for the
    /// registration. A file that is there is read, and never replaced.
    #[command(after_help = "Example:\n  countersign agents key secrets/support-v2.pem > support-v2.jwks.json")]
    Key {
        /// The file of the private key, which only its owner may read.
        file: PathBuf,
    },
    /// Register an agent. Without an accountable person there is none.
    #[command(after_help = "Example:\n  countersign agents register support-v2 --owner dana@acme.example \\\n    \
                            --actions orders.read --tenants acme --jwks support-v2.jwks.json")]
    Register(Box<Register>),
    /// It may not act until it is reinstated. What it was given is withdrawn at once.
    #[command(after_help = "Example:\n  countersign agents suspend support-v2 --reason 'case 311'")]
    Suspend(Step),
    /// It may act again.
    #[command(after_help = "Example:\n  countersign agents reinstate support-v2 --reason 'case 311 closed'")]
    Reinstate(Step),
    /// It never acts again. What it was given is withdrawn at once.
    #[command(after_help = "Example:\n  countersign agents decommission support-v1 --reason 'replaced by v2'")]
    Decommission(Step),
    /// Give an agent another credential, beside those it has for as long as they shall overlap.
    #[command(
        after_help = "Example:\n  countersign agents rotate support-v2 --jwks new.jwks.json --overlap 24h --reason 'yearly'"
    )]
    Rotate {
        /// Its id.
        id: String,
        /// The file with its new public keys (a JWKS).
        #[arg(long, value_name = "FILE")]
        jwks: PathBuf,
        /// How long the credentials it has stay good.
        #[arg(long, value_name = "DURATION", default_value = "24h")]
        overlap: ConfigDuration,
        /// Why, for whoever reads the record.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        session: Session,
    },
}

#[derive(Debug, clap::Args)]
struct Register {
    /// Its id: its OAuth client id.
    id: String,
    /// The accountable person.
    #[arg(long)]
    owner: String,
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// The actions it may do at most.
    #[arg(long, value_name = "ACTION", value_delimiter = ',', required = true)]
    actions: Vec<String>,
    /// The tenants it may work for.
    #[arg(long, value_name = "TENANT", value_delimiter = ',', required = true)]
    tenants: Vec<String>,
    /// The file with its public keys (a JWKS).
    #[arg(long, value_name = "FILE")]
    jwks: PathBuf,
    #[command(flatten)]
    session: Session,
}

#[derive(Debug, clap::Args)]
struct Step {
    /// Its id.
    id: String,
    /// Why, for whoever reads the record.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    session: Session,
}

const ONE: [table::Column<'_>; 9] = [
    ("agent", "/id"),
    ("owner", "/owner"),
    ("description", "/description"),
    ("status", "/status"),
    ("actions", "/actions"),
    ("tenants", "/tenants"),
    ("registered", "/registered_at"),
    ("last seen", "/last_seen_at"),
    ("credentials overdue", "/credentials_overdue"),
];

pub(super) fn run(args: &Args, environment: &Environment) -> Result<ExitCode, Failure> {
    let (session, shown) = match &args.command {
        Command::List { status, owner, overdue, session } => {
            list(session, environment, (status.as_deref(), owner.as_deref()), *overdue)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Key { file } => return key(file),
        Command::Show { id, session } => {
            (session, session.client(environment)?.get(&format!("/v1/agents/{}", segment(id)))?)
        }
        Command::Register(args) => (&args.session, register(args, environment)?),
        Command::Suspend(step) => (&step.session, take(step, "suspend", environment)?),
        Command::Reinstate(step) => (&step.session, take(step, "reinstate", environment)?),
        Command::Decommission(step) => (&step.session, take(step, "decommission", environment)?),
        Command::Rotate { id, jwks, overlap, reason, session } => {
            let body = json!({
                "credential": { "jwks": document(jwks)? }, "overlap": overlap.to_string(), "reason": reason,
            });
            let path = format!("/v1/agents/{}/credentials", segment(id));
            (session, session.client(environment)?.post(&path, &body)?)
        }
    };
    print(session.json, &shown, |shown| table::lines(&ONE, shown))?;
    Ok(ExitCode::SUCCESS)
}

fn key(file: &Path) -> Result<ExitCode, Failure> {
    let key = SigningKey::load_or_create(file, Algorithm::EdDsa);
    let key = key.map_err(|error| Failure::because(Exit::Unavailable, "the agent's key", error))?;
    match Output::new().json(&mint::key_set([&key]))? {
        Reader::Listens | Reader::Gone => Ok(ExitCode::SUCCESS),
    }
}

fn list(
    session: &Session,
    environment: &Environment,
    (status, owner): (Option<&str>, Option<&str>),
    overdue: bool,
) -> Result<(), Failure> {
    let filters = [("status", status), ("owner", owner)];
    let mut agents = session.client(environment)?.list("/v1/agents", "agents", &filters)?;
    if overdue {
        agents.retain(|agent| agent.get("credentials_overdue").and_then(Value::as_u64).unwrap_or_default() > 0);
    }
    if !session.json {
        agents.iter_mut().for_each(aged);
    }
    let columns = [
        ("ID", "/id"),
        ("OWNER", "/owner"),
        ("STATUS", "/status"),
        ("TENANTS", "/tenants"),
        ("CREDENTIALS", "/ages"),
        ("LAST SEEN", "/last_seen_at"),
    ];
    print_list(session.json, &agents, &columns)
}

/// Adds the ages of an agent's credentials as people read them: `12d`, `204d OVERDUE`.
fn aged(agent: &mut Value) {
    let credentials = agent.get("credentials").and_then(Value::as_array).cloned().unwrap_or_default();
    let age = |credential: &Value| {
        let days = credential.get("age_seconds").and_then(Value::as_i64).unwrap_or_default() / 86_400;
        let overdue = credential.get("overdue") == Some(&Value::Bool(true));
        format!("{days}d{}", if overdue { " OVERDUE" } else { "" })
    };
    let ages: Vec<_> = credentials.iter().map(age).collect();
    if let Some(members) = agent.as_object_mut() {
        members.insert("ages".to_owned(), json!(ages));
    }
}

fn register(args: &Register, environment: &Environment) -> Result<Value, Failure> {
    let unique = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
    let body = json!({
        "id": args.id,
        "owner": args.owner,
        "description": args.description,
        "actions": unique(&args.actions),
        "tenants": unique(&args.tenants),
        "credentials": [{ "jwks": document(&args.jwks)? }],
    });
    args.session.client(environment)?.post("/v1/agents", &body)
}

fn take(step: &Step, what: &str, environment: &Environment) -> Result<Value, Failure> {
    let path = format!("/v1/agents/{}/{what}", segment(&step.id));
    step.session.client(environment)?.post(&path, &json!({ "reason": step.reason }))
}

/// The JSON in a file.
pub(super) fn document(path: &PathBuf) -> Result<Value, Failure> {
    let shown = path.display();
    let bytes =
        std::fs::read(path).map_err(|error| Failure::because(Exit::Usage, format!("cannot read {shown}"), error))?;
    serde_json::from_slice(&bytes).map_err(|error| Failure::because(Exit::Usage, format!("{shown} is not JSON"), error))
}
