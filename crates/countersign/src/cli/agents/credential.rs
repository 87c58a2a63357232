//! What an agent authenticates with, as it is said on the command line: keys in a file, or the name in its client
//! certificate.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::document;
use crate::failure::Failure;

/// One or more credentials.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(super) struct Credentials {
    /// A file with its public keys (a JWKS). A key with its certificate (`x5c`) is also taken on connections with that
    /// certificate.
    #[arg(long, value_name = "FILE")]
    jwks: Vec<PathBuf>,
    /// The SPIFFE ID in its client certificate: spiffe://acme.example/agent/support
    #[arg(long, value_name = "ID")]
    spiffe: Vec<String>,
    /// The subject of its client certificate: 'CN=support-v2, O=acme'
    #[arg(long, value_name = "NAME")]
    subject: Vec<String>,
}

impl Credentials {
    /// As the API takes them.
    pub(super) fn written(&self) -> Result<Vec<Value>, Failure> {
        let jwks = self.jwks.iter().map(|path| Ok(json!({ "jwks": document(path)? })));
        let spiffe = self.spiffe.iter().map(|id| Ok(json!({ "spiffe": id })));
        let subject = self.subject.iter().map(|name| Ok(json!({ "subject": name })));
        jwks.chain(spiffe).chain(subject).collect()
    }
}

/// Exactly one credential.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Credential {
    /// The file with its new public keys (a JWKS).
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,
    /// The SPIFFE ID in its client certificate.
    #[arg(long, value_name = "ID")]
    spiffe: Option<String>,
    /// The subject of its client certificate: 'CN=support-v2, O=acme'
    #[arg(long, value_name = "NAME")]
    subject: Option<String>,
}

impl Credential {
    /// As the API takes it.
    pub(super) fn written(&self) -> Result<Value, Failure> {
        Ok(match (&self.jwks, &self.spiffe) {
            (Some(path), _) => json!({ "jwks": document(path)? }),
            (None, Some(id)) => json!({ "spiffe": id }),
            (None, None) => json!({ "subject": self.subject }),
        })
    }
}
