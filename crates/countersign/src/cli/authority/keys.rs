//! `countersign authority keys`: which keys sign, one that takes over from another, and one that is good no more.

use std::{path::PathBuf, process::ExitCode};

use clap::Subcommand;
use serde_json::{Value, json};
use store::{PublishedKey, Writer};

use crate::{
    config::{authority::AuthorityConfig, document::Document},
    environment::Environment,
    failure::{Exit, Failure},
    management::{print, print_list, table},
    run::{self, authority::Keys},
    telemetry::console::ConsoleArgs,
};

/// List, rotate and withdraw the keys that sign tokens. On the authority's own machine, as its user; it may be running.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  countersign authority keys list --config authority.yaml\n  \
                        countersign authority keys rotate --config authority.yaml --by dana@acme.example --reason 'every quarter'\n  \
                        countersign authority keys withdraw KEY --config authority.yaml --by dana@acme.example --reason 'it was copied'")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the keys, the oldest first.
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Make a key that takes over, once it was published for as long as the configuration says (`publish_ahead`).
    Rotate {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        why: Why,
    },
    /// Withdraw a key: whatever it signed is refused from now on, at every sidecar that follows. Where no other one
    /// signs, another is made and signs at once.
    Withdraw {
        /// Its id (`kid`).
        key: String,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        why: Why,
    },
}

#[derive(Debug, clap::Args)]
struct Place {
    /// The configuration file of the authority.
    #[arg(short, long, value_name = "FILE", env = "COUNTERSIGN_AUTHORITY_CONFIG")]
    config: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Why {
    /// Who says so, for the record.
    #[arg(long, value_name = "NAME")]
    by: String,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

impl Why {
    fn writer(&self) -> Writer {
        let (by, reason) = (self.by.clone(), Some(self.reason.clone()));
        Writer { by, reason, now: net::clock::now(), idempotency: None }
    }
}

pub(super) fn run(args: &Args, console: &ConsoleArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    let (Command::List { place } | Command::Rotate { place, .. } | Command::Withdraw { place, .. }) = &args.command;
    let document = Document::<AuthorityConfig>::read(&place.config, environment).map_err(Failure::configuration)?;
    run::process(console, environment, "warn", "countersign-authority", |process| async {
        let keys = Keys::open(document, process).await?;
        let done = carry_out(args, &keys, place.json).await;
        keys.close().await;
        done.map(|()| ExitCode::SUCCESS)
    })
}

async fn carry_out(args: &Args, keys: &Keys, as_json: bool) -> Result<(), Failure> {
    let refused = |error: &dyn std::error::Error| Failure::new(Exit::Failed, error.to_string());
    match &args.command {
        Command::List { .. } => {
            let listed = keys.store.signing_keys().await.map_err(|error| refused(&error))?.keys;
            let shown: Vec<_> = listed.iter().map(shown).collect();
            let columns = [
                ("KEY", "/kid"),
                ("ALGORITHM", "/algorithm"),
                ("STATE", "/state"),
                ("SIGNS FROM", "/signs_from"),
                ("SIGNS UNTIL", "/signs_until"),
                ("PUBLISHED UNTIL", "/published_until"),
            ];
            print_list(as_json, &shown, &columns)
        }
        Command::Rotate { why, .. } => {
            let made = keys.signing.rotate(&keys.store, &why.writer()).await.map_err(|error| refused(&error))?;
            show(as_json, &made)
        }
        Command::Withdraw { key, why, .. } => {
            let withdrawn = keys.store.withdraw_signing_key(&why.writer(), key).await;
            let withdrawn = withdrawn.map_err(|error| refused(&error))?.value;
            // Where nothing signs any more, a new key does at once.
            keys.signing.join(&keys.store, net::clock::now()).await.map_err(|error| refused(&error))?;
            show(as_json, &withdrawn)
        }
    }
}

fn show(as_json: bool, key: &PublishedKey) -> Result<(), Failure> {
    let columns = [("key", "/kid"), ("state", "/state"), ("signs from", "/signs_from")];
    print(as_json, &shown(key), |key| table::lines(&columns, key))
}

fn shown(key: &PublishedKey) -> Value {
    let now = net::clock::now();
    let state = match key {
        PublishedKey { withdrawn: Some(_), .. } => "withdrawn",
        key if key.signs(now) => "signs",
        key if !key.is_published(now) => "retired",
        key if key.signs_from > now => "published",
        _ => "retiring",
    };
    json!({
        "kid": key.id,
        "algorithm": key.jwk.get("alg"),
        "state": state,
        "published_at": key.published,
        "signs_from": key.signs_from,
        "signs_until": key.signs_until,
        "published_until": key.published_until,
        "withdrawn_at": key.withdrawn,
    })
}
