//! `countersign sidecar enrol`: a sidecar makes its key and joins its authority with it, once.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use secrecy::ExposeSecret;
use serde_json::{Value, json};
use token::{Algorithm, SigningKey, prove_possession};

use crate::{
    failure::{Exit, Failure},
    management::{Place, print, secret, table},
};

/// Make this sidecar's key and join an authority with it, by a token that `countersign sidecars invite` made.
///
/// The key is made here and stays here, for this user alone. Where the answer was lost, the same command with the same
/// token and folder finishes what was begun.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  countersign sidecar enrol --authority https://countersign.example \\\n    \
                        --token join.token --dir /var/lib/countersign/enrolled --name support\n\n\
                        Then, in the sidecar's configuration:\n  authority:\n    url: https://countersign.example\n    \
                        credential: { key: /var/lib/countersign/enrolled/sidecar.pem, id: … }")]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    /// The file with the join token; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    token: PathBuf,
    /// The folder for the key and what was learned; made if it is not there.
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// What the sidecar is called; the host's name, where nothing is said.
    #[arg(long, env = "COUNTERSIGN_SIDECAR_NAME")]
    name: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let client = args.place.client()?;
    let token = secret(&args.token)?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => host()?,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&args.dir)
        .map_err(|error| Failure::because(Exit::Configuration, args.dir.display(), error))?;
    // Kept before it is shown to anybody: an answer that is lost must not leave a key that nobody has.
    let path = args.dir.join("sidecar.pem");
    let key = SigningKey::load_or_create(&path, Algorithm::EdDsa).map_err(Failure::configuration)?;
    let mut enrolled = client.post_anew("/v1/sidecars/enrol", || {
        // A proof is good once, so that an attempt whose answer was lost needs another.
        let proof = prove_possession(&key, token.expose_secret().as_bytes(), client.url(), net::clock::now());
        let proof = proof.map_err(|error| Failure::because(Exit::Unavailable, "the key cannot sign", error))?;
        Ok(json!({
            "token": token.expose_secret(), "name": name, "jwk": key.public_jwk(), "proof": proof.expose(),
        }))
    })?;
    if let Some(members) = enrolled.as_object_mut() {
        members.insert("key".to_owned(), json!(path));
        members.insert("url".to_owned(), json!(client.url()));
    }
    keep(&args.dir.join("sidecar.json"), &enrolled)?;
    print(args.json, &enrolled, |enrolled| {
        let said = |name: &str| table::clean(enrolled.get(name).and_then(Value::as_str).unwrap_or_default());
        format!(
            "enrolled as {}\n\nin the sidecar's configuration:\n\nauthority:\n  url: {}\n  credential: {{ key: {}, id: {} }}\n",
            said("name"),
            said("url"),
            path.display(),
            said("id")
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

/// This machine's name.
fn host() -> Result<String, Failure> {
    let named = fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    named
        .filter(|name| !name.is_empty())
        .ok_or_else(|| Failure::new(Exit::Usage, "this machine has no name: say what the sidecar is called (--name)"))
}

fn keep(path: &Path, enrolled: &Value) -> Result<(), Failure> {
    fs::write(path, format!("{enrolled:#}\n"))
        .map_err(|error| Failure::because(Exit::Failed, format!("cannot write {}", path.display()), error))
}
