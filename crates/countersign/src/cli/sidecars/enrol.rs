//! `countersign sidecar enrol`: a sidecar makes its key and joins its authority with it, once.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use net::{ClientTls, ClientTlsConfig, SecretSource};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use token::{Algorithm, SigningKey, prove_possession};

use crate::{
    failure::{Exit, Failure},
    management::{Place, print, secret, table},
};

/// Make this sidecar's key and join an authority with it: by a token that `countersign sidecars invite` made, by a
/// Kubernetes service account, or by an X.509-SVID.
///
/// The key is made here and stays here, for this user alone. Where the answer was lost, the same command with the same
/// folder finishes what was begun.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  countersign sidecar enrol --authority https://countersign.example \\\n    \
                        --token join.token --dir /var/lib/countersign/enrolled --name support\n\n\
                        Then, in the sidecar's configuration:\n  authority:\n    url: https://countersign.example\n    \
                        credential: { key: /var/lib/countersign/enrolled/sidecar.pem, id: … }")]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    by: By,
    /// The private key of `--certificate`, in PEM.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    certificate_key: Option<PathBuf>,
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

/// What the sidecar joins by.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct By {
    /// The file with the join token; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// The file with the projected token of the pod's service account.
    #[arg(long, value_name = "FILE")]
    service_account_token: Option<PathBuf>,
    /// The PEM file of the X.509-SVID to show, with the intermediate certificates after it.
    #[arg(long, value_name = "FILE", requires = "certificate_key")]
    certificate: Option<PathBuf>,
}

/// What is sent to join by, and what the proof goes with.
struct Evidence {
    member: Option<&'static str>,
    secret: SecretString,
}

impl By {
    fn evidence(&self) -> Result<Evidence, Failure> {
        if let Some(path) = &self.token {
            return Ok(Evidence { member: Some("token"), secret: secret(path)? });
        }
        if let Some(path) = &self.service_account_token {
            return Ok(Evidence { member: Some("service_account_token"), secret: secret(path)? });
        }
        let path = self.certificate.as_ref().ok_or_else(|| Failure::new(Exit::Usage, "say what to join by"))?;
        let unusable = |error: &dyn std::fmt::Display| {
            Failure::new(Exit::Configuration, format!("--certificate: {}: {error}", path.display()))
        };
        let pem = fs::read(path).map_err(|error| unusable(&error))?;
        let leaf = net::tls::first_certificate(&pem).map_err(|error| unusable(&error))?;
        let thumbprint = URL_SAFE_NO_PAD.encode(leaf.x5t_s256);
        Ok(Evidence { member: None, secret: SecretString::from(thumbprint) })
    }

    /// The certificate that the connection shows.
    fn shown(&self, key: Option<&PathBuf>) -> Result<Option<ClientTls>, Failure> {
        let Some(certificate) = self.certificate.clone() else { return Ok(None) };
        let key = key.cloned().map(SecretSource::File);
        let config = ClientTlsConfig { certificate: Some(certificate), key, authorities: None };
        ClientTls::load(config, &|_| None).map(Some).map_err(Failure::configuration)
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let client = args.place.client_with(args.by.shown(args.certificate_key.as_ref())?)?;
    let Evidence { member, secret } = args.by.evidence()?;
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
        let proof = prove_possession(&key, secret.expose_secret().as_bytes(), client.url(), net::clock::now());
        let proof = proof.map_err(|error| Failure::because(Exit::Unavailable, "the key cannot sign", error))?;
        let mut body = json!({ "name": name, "jwk": key.public_jwk(), "proof": proof.expose() });
        if let (Some(member), Some(members)) = (member, body.as_object_mut()) {
            members.insert(member.to_owned(), secret.expose_secret().into());
        }
        Ok(body)
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
