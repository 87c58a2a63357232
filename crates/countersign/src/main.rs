//! The `countersign` command: reads the command line, runs one command, and turns its outcome into an exit code.
//!
//! Whatever a command does, telemetry is flushed before the process ends; whatever fails, there is one line on
//! standard error, and the whole chain of causes with `-v`.

mod cli;

mod admin;
mod config;
mod health;
mod run;
mod telemetry;

mod demo;
mod reference;

mod environment;
mod failure;
mod output;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // Before anything is read that nobody else may have.
    if let Err(failure) = run::apart::keep_memory_private() {
        failure.report(false);
        return failure.exit_code();
    }
    net::install_crypto();
    let line = cli::CommandLine::parse();
    let verbose = line.verbose;
    match cli::run(line) {
        Ok(code) => code,
        Err(failure) => {
            failure.report(verbose);
            failure.exit_code()
        }
    }
}
