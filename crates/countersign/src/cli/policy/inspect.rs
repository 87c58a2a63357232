//! `countersign policy inspect`: what is in a bundle, and whose signature it carries.

use std::{path::PathBuf, process::ExitCode};

use policy::bundle::{Algorithm, Bundle, Keys, Listed, Manifest, Signature};
use serde::Serialize;

use super::bundles;
use crate::{
    failure::{Exit, Failure},
    output::Output,
};

/// Say what is in a bundle: its revision, roots and serial, its files and their digests, and whether it is signed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  countersign policy inspect support.tar.gz\n  \
                        countersign policy inspect --key bundles.pub.pem --scope prod --json support.tar.gz")]
pub(crate) struct Args {
    /// The bundle.
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Verify that this key signed it: its public half (PEM).
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The scope that it has to be signed for.
    #[arg(long, requires = "key")]
    scope: Option<String>,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

/// What is said of a bundle.
#[derive(Debug, Serialize)]
struct Inspected<'a> {
    #[serde(flatten)]
    manifest: &'a Manifest,
    sha256: &'a str,
    signature: &'a Signature,
    files: Vec<Listed>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let keys = keys(args)?;
    let bundle = bundles::open(&args.bundle, keys.as_ref())?;
    let mut output = Output::new();
    let _reader = if args.json {
        output.json(&Inspected {
            manifest: bundle.manifest(),
            sha256: bundle.digest(),
            signature: bundle.signature(),
            files: bundle.listed(),
        })?
    } else {
        output.write(&shown(&bundle))?
    };
    Ok(ExitCode::SUCCESS)
}

/// The key to verify with. What it signs with follows from what it is.
fn keys(args: &Args) -> Result<Option<Keys>, Failure> {
    let Some(path) = &args.key else { return Ok(None) };
    let unusable = |error: String| Failure::because(Exit::Configuration, path.display(), error);
    let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
    // Whatever the signature calls its key, it is this one.
    for algorithm in Algorithm::ALL {
        if let Ok(keys) = Keys::only(algorithm, &pem, args.scope.clone()) {
            return Ok(Some(keys));
        }
    }
    Err(unusable("not the PEM of a public key of P-256, Ed25519 or RSA".to_owned()))
}

fn shown(bundle: &Bundle) -> String {
    let manifest = bundle.manifest();
    let or_none = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
    let signature = match bundle.signature() {
        Signature::Absent => "none".to_owned(),
        Signature::Unverified => "there is one, not verified (--key)".to_owned(),
        Signature::Verified(signer) => format!("verified, {}", signer.algorithm.name()),
    };
    let mut text = format!(
        "revision   {}\nserial     {}\nroots      {}\nsha256     {}\nsignature  {signature}\n",
        or_none(&manifest.revision),
        manifest.serial.map_or_else(|| "none".to_owned(), |serial| serial.to_string()),
        or_none(&manifest.roots.clone().unwrap_or_default().join(", ")),
        bundle.digest(),
    );
    for Listed { path, bytes, sha256 } in bundle.listed() {
        // Names come out of the archive, and are shown on a terminal.
        let path: String = path.chars().filter(|c| !c.is_control()).collect();
        text.push_str(&format!("{sha256}  {bytes:>9}  {path}\n"));
    }
    text
}
