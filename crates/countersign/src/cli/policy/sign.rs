//! `countersign policy sign`: puts a signature over every file into a bundle.

use std::{path::PathBuf, process::ExitCode};

use policy::bundle::{Bundle, SigningKey};
use secrecy::{ExposeSecret, SecretString};

use super::bundles;
use crate::{
    config::files,
    failure::{Exit, Failure},
    output::Output,
};

/// Sign a bundle, as `opa sign` does: with ES256, EdDSA or RS256, which the key says, over the SHA-256 of every file.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  openssl genpkey -algorithm ed25519 -out bundles.pem && chmod 600 bundles.pem\n  \
                  openssl pkey -in bundles.pem -pubout -out bundles.pub.pem\n  \
                  countersign policy sign --key bundles.pem --key-id platform-2026 --scope prod support.tar.gz")]
pub(crate) struct Args {
    /// The bundle.
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// The private key (PKCS#8, PEM), which nobody else may read.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The name that sidecars know the key by. One that knows a single key needs none.
    #[arg(long, value_name = "NAME")]
    key_id: Option<String>,
    /// What the signature is for: sidecars take it only where their configuration says the same.
    #[arg(long)]
    scope: Option<String>,
    /// The file to write instead of the bundle itself.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    files::check_private(&args.key).map_err(Failure::configuration)?;
    let pem: SecretString = std::fs::read_to_string(&args.key)
        .map_err(|error| Failure::because(Exit::Configuration, args.key.display(), error))?
        .into();
    let key = SigningKey::parse(pem.expose_secret().as_bytes())
        .map_err(|error| Failure::because(Exit::Configuration, args.key.display(), error))?;
    let bundle = bundles::open(&args.bundle, None)?;
    let signed = bundle
        .sign(&key, args.key_id.as_deref(), args.scope.as_deref())
        .map_err(|error| Failure::because(Exit::Failed, args.bundle.display(), error))?;
    let signed_bundle = Bundle::open(&signed, None).map_err(|error| Failure::new(Exit::Failed, error))?;
    let output = args.output.as_ref().unwrap_or(&args.bundle);
    bundles::write(output, &signed)?;
    let line = format!("{}, signed with {}", bundles::line(output, &signed_bundle), key.algorithm().name());
    let _reader = Output::new().line(&line)?;
    Ok(ExitCode::SUCCESS)
}
