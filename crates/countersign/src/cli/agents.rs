//! `countersign agents`: the inventory, and what takes an agent out of service.

mod credential;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Subcommand;
use model::duration::ConfigDuration;
use serde_json::{Value, json};
use token::{Algorithm, SigningKey, mint};

use self::credential::{Credential, Credentials};
use super::grant::set;
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
                        countersign agents suspend support-v2 --reason 'case 311'\n\n\
                        An agent of another issuer than the authority is written ISSUER#ID.")]
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
        /// Only those that may work for this tenant.
        #[arg(long)]
        tenant: Option<String>,
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
    #[command(after_help = "Examples:\n  countersign agents register support-v2 --owner dana@acme.example \\\n    \
                            --actions orders.read --tenants acme --jwks support-v2.jwks.json\n  \
                            countersign agents register support-v3 --owner dana@acme.example \\\n    \
                            --actions orders.read --tenants acme --spiffe spiffe://acme.example/agent/support")]
    Register(Box<Register>),
    /// Change what stands of an agent. What lessens it withdraws what it was issued before.
    #[command(
        after_help = "Example:\n  countersign agents change support-v2 --actions orders.read --reason 'reads only'"
    )]
    Change(Box<Change>),
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
    Rotate(Box<Rotate>),
    /// Take a credential from an agent at once, and withdraw what it was issued before.
    #[command(after_help = "Example:\n  countersign agents show support-v2\n  \
                      countersign agents remove-credential support-v2 6f1c0d2e9a7b4c35 --reason 'the key was copied'")]
    RemoveCredential {
        /// The agent's id.
        id: String,
        /// The credential's id: `agents show` has it.
        credential: String,
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
    #[command(flatten)]
    credentials: Credentials,
    #[command(flatten)]
    session: Session,
}

#[derive(Debug, clap::Args)]
struct Change {
    /// Its id.
    id: String,
    #[command(flatten)]
    different: Different,
    /// Why, for whoever reads the record.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    session: Session,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Different {
    /// Another accountable person.
    #[arg(long)]
    owner: Option<String>,
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// The actions it may do at most, instead of those before.
    #[arg(long, value_name = "ACTION", value_delimiter = ',')]
    actions: Vec<String>,
    /// The tenants it may work for, instead of those before.
    #[arg(long, value_name = "TENANT", value_delimiter = ',')]
    tenants: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct Rotate {
    /// Its id.
    id: String,
    #[command(flatten)]
    credential: Credential,
    /// How long the credentials it has stay good.
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    overlap: ConfigDuration,
    /// Why, for whoever reads the record.
    #[arg(long, value_name = "TEXT")]
    reason: String,
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

const ONE: [table::Column<'_>; 10] = [
    ("agent", "/id"),
    ("issuer", "/issuer"),
    ("owner", "/owner"),
    ("description", "/description"),
    ("status", "/status"),
    ("actions", "/actions"),
    ("tenants", "/tenants"),
    ("registered", "/registered_at"),
    ("last seen", "/last_seen_at"),
    ("credentials overdue", "/credentials_overdue"),
];

/// Of its credentials.
const CREDENTIALS: [table::Column<'_>; 6] = [
    ("CREDENTIAL", "/id"),
    ("KIND", "/kind"),
    ("NAMES", "/names"),
    ("ADDED", "/added_at"),
    ("RETIRES", "/retires_at"),
    ("OVERDUE", "/overdue"),
];

pub(super) fn run(args: &Args, environment: &Environment) -> Result<ExitCode, Failure> {
    let (session, shown) = match &args.command {
        Command::List { status, owner, tenant, overdue, session } => {
            let filters = [("status", status.as_deref()), ("owner", owner.as_deref()), ("tenant", tenant.as_deref())];
            list(session, environment, &filters, *overdue)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Key { file } => return key(file),
        Command::Show { id, session } => (session, session.client(environment)?.get(&path(id, ""))?),
        Command::Register(args) => (&args.session, register(args, environment)?),
        Command::Change(args) => (&args.session, change(args, environment)?),
        Command::Suspend(step) => (&step.session, take(step, "/suspend", environment)?),
        Command::Reinstate(step) => (&step.session, take(step, "/reinstate", environment)?),
        Command::Decommission(step) => (&step.session, take(step, "/decommission", environment)?),
        Command::Rotate(args) => {
            let Rotate { id, credential, overlap, reason, session } = &**args;
            let body = json!({ "credential": credential.written()?, "overlap": overlap.to_string(), "reason": reason });
            (session, session.client(environment)?.post(&path(id, "/credentials"), &body)?)
        }
        Command::RemoveCredential { id, credential, reason, session } => {
            let path = path(id, &format!("/credentials/{}/remove", segment(credential)));
            (session, session.client(environment)?.post(&path, &json!({ "reason": reason }))?)
        }
    };
    print(session.json, &shown, text)?;
    Ok(ExitCode::SUCCESS)
}

/// An agent for people, with its credentials below it for whoever may see them.
fn text(agent: &Value) -> String {
    let credentials = agent.get("credentials").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let below = match credentials {
        [] => String::new(),
        credentials => format!("\n{}", table::table(&CREDENTIALS, credentials)),
    };
    format!("{}{below}", table::lines(&ONE, agent))
}

/// The path of what is done with an agent: of the authority's own, or of `ISSUER#ID`.
fn path(agent: &str, what: &str) -> String {
    match agent.rsplit_once('#') {
        Some((issuer, id)) => format!("/v1/agents/{}{what}?issuer={}", segment(id), segment(issuer)),
        None => format!("/v1/agents/{}{what}", segment(agent)),
    }
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
    filters: &[(&str, Option<&str>)],
    overdue: bool,
) -> Result<(), Failure> {
    let mut agents = session.client(environment)?.list("/v1/agents", "agents", filters)?;
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

/// Each name once, as the API wants a set.
fn unique(names: &[String]) -> BTreeSet<&String> {
    names.iter().collect()
}

fn register(args: &Register, environment: &Environment) -> Result<Value, Failure> {
    let body = json!({
        "id": args.id,
        "owner": args.owner,
        "description": args.description,
        "actions": unique(&args.actions),
        "tenants": unique(&args.tenants),
        "credentials": args.credentials.written()?,
    });
    args.session.client(environment)?.post("/v1/agents", &body)
}

fn change(args: &Change, environment: &Environment) -> Result<Value, Failure> {
    let Different { owner, description, actions, tenants } = &args.different;
    let mut body = json!({ "reason": args.reason });
    set(&mut body, "owner", owner.clone().map(Value::from));
    set(&mut body, "description", description.clone().map(Value::from));
    for (name, values) in [("actions", actions), ("tenants", tenants)] {
        set(&mut body, name, (!values.is_empty()).then(|| json!(unique(values))));
    }
    args.session.client(environment)?.post(&path(&args.id, "/change"), &body)
}

fn take(step: &Step, what: &str, environment: &Environment) -> Result<Value, Failure> {
    step.session.client(environment)?.post(&path(&step.id, what), &json!({ "reason": step.reason }))
}

/// The JSON in a file.
pub(super) fn document(path: &PathBuf) -> Result<Value, Failure> {
    let shown = path.display();
    let bytes =
        std::fs::read(path).map_err(|error| Failure::because(Exit::Usage, format!("cannot read {shown}"), error))?;
    serde_json::from_slice(&bytes).map_err(|error| Failure::because(Exit::Usage, format!("{shown} is not JSON"), error))
}
