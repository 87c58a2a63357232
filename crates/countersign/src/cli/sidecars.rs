//! `countersign sidecars`: which sidecars follow this authority, and how one more comes to it.

pub(super) mod enrol;

use std::{fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, path::PathBuf, process::ExitCode};

use clap::Subcommand;
use model::duration::ConfigDuration;
use serde_json::{Value, json};

use crate::{
    environment::Environment,
    failure::{Exit, Failure},
    management::{Session, Taking, print, print_list, segment, table},
};

/// Invite, list and remove sidecars.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  countersign sidecars invite --name support --tenants acme --out join.token\n  \
                        countersign sidecar enrol --authority https://countersign.example --token join.token --dir /etc/countersign/enrolled\n  \
                        countersign sidecars list")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a token that one sidecar may enrol with, once. It is shown this once and kept nowhere.
    #[command(
        after_help = "Example:\n  countersign sidecars invite --name support --tenants acme --expires 1h --out join.token"
    )]
    Invite(Invite),
    /// List the enrolled sidecars.
    #[command(after_help = "Example:\n  countersign sidecars list --json")]
    List {
        /// Only those in this status: enrolled or removed.
        #[arg(long)]
        status: Option<String>,
        #[command(flatten)]
        session: Session,
    },
    /// Show one sidecar.
    #[command(after_help = "Example:\n  countersign sidecars show 0198…")]
    Show {
        /// Its id.
        id: String,
        #[command(flatten)]
        session: Session,
    },
    /// Remove a sidecar: it is told nothing any more, and refuses every call once its view is too old.
    #[command(after_help = "Example:\n  countersign sidecars remove 0198… --reason 'the pod was replaced'")]
    Remove(Taking),
}

#[derive(Debug, clap::Args)]
struct Invite {
    /// What the sidecar shall be called.
    #[arg(long)]
    name: Option<String>,
    /// The tenants it serves; it is told of nothing else.
    #[arg(long, value_name = "TENANT", value_delimiter = ',', required = true)]
    tenants: Vec<String>,
    /// The tools it serves; all, where none is named.
    #[arg(long, value_name = "TOOL", value_delimiter = ',')]
    tools: Vec<String>,
    /// The agents it serves; all, where none is named.
    #[arg(long, value_name = "AGENT", value_delimiter = ',')]
    agents: Vec<String>,
    /// How long the token is good.
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    expires: ConfigDuration,
    /// Write the token into this new file, for your eyes only, instead of printing it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    session: Session,
}

/// `tools` and `agents` are absent where it serves all of them.
const ONE: [table::Column<'_>; 10] = [
    ("sidecar", "/id"),
    ("name", "/name"),
    ("status", "/status"),
    ("tenants", "/tenants"),
    ("tools", "/tools"),
    ("agents", "/agents"),
    ("enrolled", "/enrolled_at"),
    ("enrolled by", "/enrolled_by"),
    ("no ledger since", "/ledger_unavailable_since"),
    ("because", "/ledger_unavailable_why"),
];

pub(super) fn run(args: &Args, environment: &Environment) -> Result<ExitCode, Failure> {
    match &args.command {
        Command::Invite(args) => invite(args, environment)?,
        Command::List { status, session } => {
            let filters = [("status", status.as_deref())];
            let sidecars = session.client(environment)?.list("/v1/sidecars", "sidecars", &filters)?;
            let columns = [
                ("ID", "/id"),
                ("NAME", "/name"),
                ("STATUS", "/status"),
                ("TENANTS", "/tenants"),
                ("TOOLS", "/tools"),
                ("AGENTS", "/agents"),
                ("ENROLLED", "/enrolled_at"),
                ("NO LEDGER SINCE", "/ledger_unavailable_since"),
            ];
            print_list(session.json, &sidecars, &columns)?;
        }
        Command::Show { id, session } => {
            let shown = session.client(environment)?.get(&format!("/v1/sidecars/{}", segment(id)))?;
            print(session.json, &shown, |shown| table::lines(&ONE, shown))?;
        }
        Command::Remove(Taking { id, reason, session }) => {
            let path = format!("/v1/sidecars/{}/remove", segment(id));
            let removed = session.client(environment)?.post(&path, &json!({ "reason": reason }))?;
            print(session.json, &removed, |removed| table::lines(&ONE, removed))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn invite(args: &Invite, environment: &Environment) -> Result<(), Failure> {
    let some = |names: &[String]| if names.is_empty() { Value::Null } else { json!(names) };
    let body = json!({
        "name": args.name,
        "tenants": args.tenants,
        "tools": some(&args.tools),
        "agents": some(&args.agents),
        "expires_in": args.expires.to_string(),
    });
    let client = args.session.client(environment)?;
    // Before the token exists: one that nobody could keep would be lost.
    let file = match &args.out {
        None => None,
        Some(path) => Some(
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
                .map_err(|error| Failure::because(Exit::Usage, format!("--out: {}", path.display()), error))?,
        ),
    };
    let mut made = client.post("/v1/sidecars", &body)?;
    if let Some(mut file) = file {
        let token = made.get_mut("token").map(Value::take).unwrap_or_default();
        writeln!(file, "{}", token.as_str().unwrap_or_default())
            .and_then(|()| file.sync_all())
            .map_err(|error| Failure::because(Exit::Failed, "cannot write the token", error))?;
    }
    print(args.session.json, &made, |made| {
        table::lines(&[("invitation", "/id"), ("token", "/token"), ("expires", "/expires_at")], made)
    })
}
