//! The command line: what may be typed, and which file answers for it. One file a command.

mod agents;
mod audit;
mod authority;
mod config;
mod demo;
mod docs;
pub(crate) mod explain;
mod grant;
mod health;
pub(crate) mod ledger;
mod policy;
mod progress;
mod report;
mod revoke;
mod sidecar;
mod sidecars;
mod task;
mod token;
mod tools;
mod trace;
mod trial;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{environment::Environment, failure::Failure, telemetry::console::ConsoleArgs};

pub(crate) use demo::Args as DemoArgs;

/// Every call an AI agent makes to a tool, checked and recorded under two names: the agent that acts and the person
/// it acts for.
#[derive(Debug, Parser)]
#[command(
    name = "countersign",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(after_help = "Start with `countersign demo`. Exit codes: 0 done, 1 a check failed, 2 wrong usage, \
                        69 something needed is unavailable, 78 wrong configuration.")]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    command: Command,
    /// After an error, print its causes too.
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    console: ConsoleArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Sidecar(sidecar::Args),
    Authority(authority::Args),
    Agents(agents::Args),
    Sidecars(sidecars::Args),
    Grant(grant::Args),
    Task(task::Args),
    Revoke(revoke::Args),
    Config(config::Args),
    Policy(policy::Args),
    Audit(audit::Args),
    Explain(explain::Args),
    Report(report::Args),
    Trace(trace::Args),
    Token(token::Args),
    Tools(tools::Args),
    Health(health::Args),
    Docs(docs::Args),
    #[command(name = crate::run::trial::COMMAND)]
    Trial(trial::Args),
}

/// Runs the command that `line` names.
pub(crate) fn run(line: CommandLine) -> Result<ExitCode, Failure> {
    let environment = Environment::read();
    let console = line.console;
    match line.command {
        Command::Demo(args) => demo::run(args, &console, &environment),
        Command::Sidecar(args) => sidecar::run(&args, &console, &environment),
        Command::Authority(args) => authority::run(&args, &console, &environment),
        Command::Agents(args) => agents::run(&args, &environment),
        Command::Sidecars(args) => sidecars::run(&args, &environment),
        Command::Grant(args) => grant::run(&args, &environment),
        Command::Task(args) => task::run(&args, &environment),
        Command::Revoke(args) => revoke::run(&args, &environment),
        Command::Config(args) => config::run(args, &environment),
        Command::Policy(args) => policy::run(&args, &environment),
        Command::Audit(args) => audit::run(args, &environment),
        Command::Explain(args) => explain::run(&args, &environment),
        Command::Report(args) => report::run(&args, &environment),
        Command::Trace(args) => trace::run(&args, &environment),
        Command::Token(args) => token::run(args),
        Command::Tools(args) => tools::run(&args, &environment),
        Command::Health(args) => health::run(&args),
        Command::Docs(args) => docs::run(&args),
        Command::Trial(args) => trial::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_command_shows_an_example() {
        CommandLine::command().debug_assert();
        for command in CommandLine::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("countersign "), "`{}` has no example", command.get_name());
        }
    }
}
