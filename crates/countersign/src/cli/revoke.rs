//! `countersign revoke`: the button that ends it everywhere.

use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::json;

use crate::{
    environment::Environment,
    failure::Failure,
    management::{Session, print, table},
};

/// Take back everything that was issued until now for a user, a session, an agent, a task …
///
/// It holds at every sidecar within the bound that it is configured with (5 s for writes by default, typically under
/// 100 ms), and cuts what streams. You revoke what is yours; administrators revoke anything.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  countersign revoke task ticket-12847 --reason 'closed by the customer'\n  \
                        countersign revoke agent support-v2 --reason 'prompt injection, case 311' --json\n  \
                        countersign revoke user 'https://sso.example/realms/acme#alice' --reason 'left the company'\n\n\
                        Where an ID is unique only at an issuer, write ISSUER#ID. Without ISSUER#, users and sessions \
                        are those of your own identity provider, agents and tokens those of the authority. An instance \
                        is AGENT#INSTANCE.")]
pub(crate) struct Args {
    /// What is revoked.
    kind: Kind,
    /// Its name.
    id: String,
    /// Why, for whoever reads the record.
    #[arg(long, value_name = "TEXT")]
    reason: String,
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
    let client = args.session.client(environment)?;
    let target = format!("{}:{}", args.kind.word(), args.id);
    let made = client.post("/v1/withdrawals", &json!({ "target": target, "reason": args.reason }))?;
    print(args.session.json, &made, |made| {
        let columns = [
            ("withdrawal", "/id"),
            ("target", "/name"),
            ("position", "/position"),
            ("at", "/at"),
            ("reason", "/reason"),
        ];
        table::lines(&columns, made)
    })?;
    Ok(ExitCode::SUCCESS)
}
