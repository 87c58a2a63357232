//! `countersign revoke`: the button that ends it everywhere.

use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::json;

use crate::{
    environment::Environment,
    failure::{Exit, Failure},
    management::{Session, print, print_list, table},
};

/// Take back everything that was issued until now for a user, a session, an agent, a task …
///
/// It holds at every sidecar within the bound that it is configured with (5 s for writes by default, typically under
/// 100 ms), and cuts what streams. You revoke what is yours; administrators revoke anything.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  countersign revoke task ticket-12847 --reason 'closed by the customer'\n  \
                        countersign revoke agent support-v2 --reason 'prompt injection, case 311' --json\n  \
                        countersign revoke user 'https://sso.example/realms/acme#alice' --reason 'left the company'\n  \
                        countersign revoke --list --in-force\n  \
                        countersign revoke --list --target task:ticket-12847\n\n\
                        Where an ID is unique only at an issuer, write ISSUER#ID. Without ISSUER#, users and sessions \
                        are those of your own identity provider, agents and tokens those of the authority. An instance \
                        is AGENT#INSTANCE.")]
pub(crate) struct Args {
    /// What is revoked; with `--list`, only of this kind.
    #[arg(required_unless_present = "list")]
    kind: Option<Kind>,
    /// Its name.
    #[arg(required_unless_present = "list", conflicts_with = "list")]
    id: Option<String>,
    /// Why, for whoever reads the record.
    #[arg(long, value_name = "TEXT", required_unless_present = "list", conflicts_with = "list")]
    reason: Option<String>,
    /// Revoke nothing, and list what was, the oldest first: by its name what is yours, all of it if you administer.
    #[arg(long)]
    list: bool,
    /// List only what took this back, written as in `task:ticket-12847`.
    #[arg(long, value_name = "KIND:ID", requires = "list")]
    target: Option<String>,
    /// List only what may still be in anybody's way.
    #[arg(long, requires = "list")]
    in_force: bool,
    #[command(flatten)]
    session: Session,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// Whatever is done for a person.
    User,
    /// Whatever was begun in a session of theirs.
    Session,
    /// Whatever an agent does, wherever it stands in a chain.
    Agent,
    /// Whatever one running copy of an agent does.
    Instance,
    /// One piece of work.
    Task,
    /// All work of one run.
    Run,
    /// A permission, and all work under it.
    Grant,
    /// One token (its `jti`), and all that was made from it.
    Token,
    /// Whatever is done in a tenant.
    Tenant,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Session => "session",
            Self::Agent => "agent",
            Self::Instance => "instance",
            Self::Task => "task",
            Self::Run => "run",
            Self::Grant => "grant",
            Self::Token => "token",
            Self::Tenant => "tenant",
        }
    }
}

pub(super) fn run(args: &Args, environment: &Environment) -> Result<ExitCode, Failure> {
    match (args.kind, &args.id, &args.reason) {
        (kind, _, _) if args.list => list(args, kind, environment)?,
        (Some(kind), Some(id), Some(reason)) => revoke(&args.session, (kind, id, reason), environment)?,
        _ => return Err(Failure::new(Exit::Usage, "what is to be revoked, and why? Say <KIND>, <ID> and --reason")),
    }
    Ok(ExitCode::SUCCESS)
}

fn list(args: &Args, kind: Option<Kind>, environment: &Environment) -> Result<(), Failure> {
    let filters = [
        ("target", args.target.as_deref()),
        ("kind", kind.map(Kind::word)),
        ("in_force", args.in_force.then_some("true")),
    ];
    let withdrawals = args.session.client(environment)?.list("/v1/withdrawals", "withdrawals", &filters)?;
    let columns = [("POSITION", "/position"), ("AT", "/at"), ("TARGET", "/name"), ("BY", "/by"), ("REASON", "/reason")];
    print_list(args.session.json, &withdrawals, &columns)
}

fn revoke(session: &Session, (kind, id, reason): (Kind, &str, &str), environment: &Environment) -> Result<(), Failure> {
    let target = format!("{}:{id}", kind.word());
    let body = json!({ "target": target, "reason": reason });
    let made = session.client(environment)?.post("/v1/withdrawals", &body)?;
    print(session.json, &made, |made| {
        let columns = [
            ("withdrawal", "/id"),
            ("target", "/name"),
            ("position", "/position"),
            ("at", "/at"),
            ("reason", "/reason"),
        ];
        table::lines(&columns, made)
    })
}
