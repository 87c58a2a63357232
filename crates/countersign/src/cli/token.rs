//! `countersign token inspect`: what a token says, without believing it.

use std::{io::Read, process::ExitCode};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::Subcommand;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    failure::{Exit, Failure},
    output::Output,
};

/// The longest text that is looked at, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// Look at tokens.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  countersign token inspect < token.jwt")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what a token says. Nothing is verified: anybody can write such a token.
    #[command(after_help = "Examples:\n  countersign token inspect < token.jwt\n  \
                            countersign token inspect --json eyJhbGciOi…\n\n\
                            A token on the command line is visible to other users of the machine; prefer standard input.")]
    Inspect {
        /// The compact token; `-` or nothing for standard input.
        token: Option<String>,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(args: Args) -> Result<ExitCode, Failure> {
    let Command::Inspect { token, json } = args.command;
    let compact = match token.filter(|token| token != "-") {
        Some(token) => token,
        None => {
            let mut text = String::new();
            std::io::stdin()
                .take(MAX_BYTES)
                .read_to_string(&mut text)
                .map_err(|error| Failure::because(Exit::Failed, "cannot read standard input", error))?;
            text
        }
    };
    let unverified = Unverified::parse(compact.trim())?;
    let mut output = Output::new();
    let _reader = if json {
        output.json(&json!({ "verified": false, "header": unverified.header, "claims": unverified.claims }))?
    } else {
        output.write(&unverified.for_person(net::clock::now()))?
    };
    Ok(ExitCode::SUCCESS)
}

/// What an unverified token says. Its signature is not kept: with it, the printed text would be a credential.
struct Unverified {
    header: Value,
    claims: Value,
}

impl Unverified {
    fn parse(compact: &str) -> Result<Self, Failure> {
        let wrong = |what: &str| Failure::new(Exit::Failed, format!("not a compact JWT: {what}"));
        let compact = compact.strip_prefix("Bearer ").unwrap_or(compact);
        let mut parts = compact.split('.');
        let (Some(header), Some(claims), Some(_signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong("it has to have three parts with dots between them"));
        };
        let decode = |part: &str, name: &str| {
            let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| wrong(&format!("its {name} is not base64url")))?;
            // Repeated members and rounded numbers are where readers differ; the sidecar refuses them too.
            model::json::Json::parse(&bytes).map_err(|error| wrong(&format!("its {name} is {error}")))?;
            serde_json::from_slice(&bytes).map_err(|error| wrong(&format!("its {name} is not JSON: {error}")))
        };
        Ok(Self { header: decode(header, "header")?, claims: decode(claims, "payload")? })
    }

    fn for_person(&self, now: Timestamp) -> String {
        let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
        let mut text = format!(
            "NOT VERIFIED: anybody can write this.\n\nheader {}\nclaims {}\n",
            pretty(&self.header),
            pretty(&self.claims)
        );
        for (claim, past, future) in [("nbf", "valid since", "valid from"), ("exp", "EXPIRED at", "expires at")] {
            if let Some(at) =
                self.claims.get(claim).and_then(Value::as_i64).and_then(|at| Timestamp::from_second(at).ok())
            {
                text.push_str(&format!("{} {at}\n", if at <= now { past } else { future }));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_labelled_and_holds_no_signature() {
        let compact = format!(
            "{}.{}.c2lnbmF0dXJl",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
            URL_SAFE_NO_PAD.encode(r#"{"sub":"alice","exp":1}"#)
        );
        let text = Unverified::parse(&compact).unwrap().for_person(Timestamp::from_second(2).unwrap());
        assert!(text.starts_with("NOT VERIFIED") && text.contains("alice") && text.contains("EXPIRED at 1970-"));
        assert!(!text.contains("c2lnbmF0dXJl") && !text.contains("signature"), "{text}");
    }

    #[test]
    fn what_is_no_token_is_said_to_be_none_and_is_not_repeated() {
        for text in ["", "secret", "a.b", "!.!.!", "e30.WzE.x", "e30.eyJhIjoxLCJhIjoyfQ.x", "a.b.c.d"] {
            let failure = Unverified::parse(text).err().unwrap().to_string();
            assert!(failure.starts_with("not a compact JWT") && !failure.contains("secret"), "{failure}");
        }
    }
}
