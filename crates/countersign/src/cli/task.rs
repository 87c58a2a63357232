//! `countersign task`: work under a grant, started and ended.

use std::process::ExitCode;

use clap::Subcommand;
use model::duration::ConfigDuration;
use serde_json::{Value, json};

use super::grant::set;
use crate::{
    environment::Environment,
    failure::Failure,
    management::{Session, print, print_list, segment, table},
};

/// Start, list and end tasks.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  countersign task start --grant 0198… --stage supervised --justification 'ticket 12847' --expires 2h\n  \
                        countersign task list --status active\n  countersign task end 0198…"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a task under a grant. What goes beyond `observe` needs a justification and a fresh login.
    #[command(after_help = "Example:\n  countersign task start --grant 0198… --presence detached --expires 8h")]
    Start(Box<Start>),
    /// List your tasks; everybody's, if you administer.
    #[command(after_help = "Example:\n  countersign task list --run 0198… --json")]
    List {
        /// Only of this user: ISSUER#ID, an id of your own issuer, or `me`.
        #[arg(long)]
        user: Option<String>,
        /// Only under this grant.
        #[arg(long)]
        grant: Option<String>,
        /// Only of this run.
        #[arg(long)]
        run: Option<String>,
        /// Only of this tenant.
        #[arg(long)]
        tenant: Option<String>,
        /// Only those in this status: active, completed or withdrawn.
        #[arg(long)]
        status: Option<String>,
        #[command(flatten)]
        session: Session,
    },
    /// Show one task.
    #[command(after_help = "Example:\n  countersign task show ticket-12847 --json")]
    Show {
        /// Its id.
        id: String,
        #[command(flatten)]
        session: Session,
    },
    /// End a task, and every token of it.
    #[command(after_help = "Example:\n  countersign task end ticket-12847")]
    End {
        /// Its id.
        id: String,
        /// It is not done, it is taken back.
        #[arg(long)]
        withdrawn: bool,
        /// Why, for whoever reads the record.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        session: Session,
    },
    /// Let a task go further, or less far.
    #[command(
        after_help = "Example:\n  countersign task stage ticket-12847 supervised --justification 'the draft is right'"
    )]
    Stage {
        /// Its id.
        id: String,
        /// observe, draft or supervised.
        stage: String,
        /// Why it has to go further.
        #[arg(long, value_name = "TEXT")]
        justification: Option<String>,
        #[command(flatten)]
        session: Session,
    },
}

#[derive(Debug, clap::Args)]
struct Start {
    /// The grant it is under.
    #[arg(long)]
    grant: String,
    /// Its name; a new one, where nothing is said.
    #[arg(long)]
    id: Option<String>,
    /// The run it belongs to; a new one, where nothing is said.
    #[arg(long)]
    run: Option<String>,
    /// The tenant whose data it touches; yours, where nothing is said.
    #[arg(long)]
    tenant: Option<String>,
    /// The session that it is bound to; the one you are logged in with, where nothing is said.
    #[arg(long)]
    session_id: Option<String>,
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    use_case: Option<String>,
    /// How far it may go: observe, draft or supervised.
    #[arg(long, default_value = "observe")]
    stage: String,
    /// Why it has to go further than `observe`.
    #[arg(long, value_name = "TEXT")]
    justification: Option<String>,
    /// How sensitive its data is: low, medium or high.
    #[arg(long, default_value = "high")]
    sensitivity: String,
    /// Whether you are there: present (bound to your session), detached or owner.
    #[arg(long, default_value = "present")]
    presence: String,
    /// How long it lasts.
    #[arg(long, value_name = "DURATION")]
    expires: ConfigDuration,
    #[command(flatten)]
    session: Session,
}

const ONE: [table::Column<'_>; 15] = [
    ("task", "/id"),
    ("grant", "/grant"),
    ("run", "/run"),
    ("tenant", "/tenant"),
    ("use case", "/use_case"),
    ("stage", "/stage"),
    ("justification", "/justification"),
    ("presence", "/presence"),
    ("session", "/session"),
    ("status", "/status"),
    ("sensitivity", "/sensitivity"),
    ("started by", "/initiated_by"),
    ("started", "/started_at"),
    ("expires", "/expires_at"),
    ("ended", "/ended_at"),
];

pub(super) fn run(args: &Args, environment: &Environment) -> Result<ExitCode, Failure> {
    let (session, shown) = match &args.command {
        Command::List { user, grant, run, tenant, status, session } => {
            let filters = [
                ("user", user.as_deref()),
                ("grant", grant.as_deref()),
                ("run", run.as_deref()),
                ("tenant", tenant.as_deref()),
                ("status", status.as_deref()),
            ];
            let tasks = session.client(environment)?.list("/v1/tasks", "tasks", &filters)?;
            let columns = [
                ("ID", "/id"),
                ("GRANT", "/grant"),
                ("RUN", "/run"),
                ("TENANT", "/tenant"),
                ("STAGE", "/stage"),
                ("PRESENCE", "/presence"),
                ("STATUS", "/status"),
                ("EXPIRES", "/expires_at"),
            ];
            print_list(session.json, &tasks, &columns)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Start(args) => (&args.session, start(args, environment)?),
        Command::Show { id, session } => {
            (session, session.client(environment)?.get(&format!("/v1/tasks/{}", segment(id)))?)
        }
        Command::End { id, withdrawn, reason, session } => {
            let mut body = json!({ "status": if *withdrawn { "withdrawn" } else { "completed" } });
            set(&mut body, "reason", reason.clone().map(Value::from));
            (session, session.client(environment)?.post(&format!("/v1/tasks/{}/end", segment(id)), &body)?)
        }
        Command::Stage { id, stage, justification, session } => {
            let mut body = json!({ "stage": stage });
            set(&mut body, "justification", justification.clone().map(Value::from));
            (session, session.client(environment)?.post(&format!("/v1/tasks/{}/stage", segment(id)), &body)?)
        }
    };
    print(session.json, &shown, |shown| table::lines(&ONE, shown))?;
    Ok(ExitCode::SUCCESS)
}

fn start(args: &Start, environment: &Environment) -> Result<Value, Failure> {
    let mut body = json!({
        "grant": args.grant,
        "stage": args.stage,
        "sensitivity": args.sensitivity,
        "presence": args.presence,
        "expires_in": args.expires.to_string(),
    });
    let optional = [
        ("id", &args.id),
        ("run", &args.run),
        ("tenant", &args.tenant),
        ("session", &args.session_id),
        ("use_case", &args.use_case),
        ("justification", &args.justification),
    ];
    for (name, value) in optional {
        set(&mut body, name, value.clone().map(Value::from));
    }
    args.session.client(environment)?.post("/v1/tasks", &body)
}
