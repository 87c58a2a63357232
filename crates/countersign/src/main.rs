//! The `countersign` command: reads the command line, runs one command, and turns its outcome into an exit code.
//!
//! Whatever a command does, telemetry is flushed before the process ends; whatever fails, there is one line on
//! standard error, and the whole chain of causes with `-v`.

mod cli;

mod admin;
mod config;
mod health;
mod management;
mod run;
mod telemetry;

mod demo;
mod reference;

mod environment;
mod exchange;
mod failure;
mod output;

use std::process::ExitCode;

use clap::Parser;

/// A call is some hundred short-lived allocations on whichever thread it wakes up: the system's allocator spent a
/// fifth of a call's time on them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
