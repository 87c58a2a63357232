//! Agents by (issuer, id), with the keys they authenticate with.
//!
//! Keys in a file are read anew at each question, so that an agent rotates its key without a restart.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use model::{Agent, Id, Principal};

use crate::{Store, StoreError};

/// An agent's identity: issuer and id.
pub(crate) type Key = (String, Id<Principal>);

/// The largest JWKS of an agent, in bytes.
const MAX_JWKS_BYTES: usize = 64 * 1024;

/// What is registered of an agent.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) agent: Agent,
    pub(crate) description: Option<String>,
    pub(crate) credentials: Vec<Credential>,
}

/// Where an agent's keys are.
#[derive(Debug)]
pub(crate) enum Credential {
    /// Here, as JSON.
    Inline(String),
    /// In a file, read when asked for.
    File(PathBuf),
}

/// A registered agent as it stands now.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The agent.
    pub agent: Agent,
    /// What it is for.
    pub description: Option<String>,
    /// The JWKS documents (RFC 7517 §5) whose keys it authenticates with, as JSON text. Public keys only.
    pub jwks: Vec<String>,
}

impl Store {
    /// The agent that `issuer` calls `id`, in whatever status it is.
    ///
    /// # Errors
    /// When its keys cannot be read.
    pub async fn agent(&self, issuer: &str, id: &Id<Principal>) -> Result<Option<Registration>, StoreError> {
        let Some(record) = self.declared.agents.get(&(issuer.to_owned(), id.clone())) else { return Ok(None) };
        let record = Arc::clone(record);
        let mut jwks = Vec::with_capacity(record.credentials.len());
        for credential in &record.credentials {
            jwks.push(match credential {
                Credential::Inline(json) => json.clone(),
                Credential::File(path) => read_jwks(path).await.map_err(|cause| StoreError::Keys {
                    agent: id.to_string(),
                    path: path.clone(),
                    cause,
                })?,
            });
        }
        Ok(Some(Registration { agent: record.agent.clone(), description: record.description.clone(), jwks }))
    }
}

/// A JWKS file's text, checked.
pub(crate) async fn read_jwks(path: &Path) -> Result<String, String> {
    let bytes = tokio::fs::read(path).await.map_err(|error| error.to_string())?;
    if bytes.len() > MAX_JWKS_BYTES {
        return Err(format!("it is larger than {MAX_JWKS_BYTES} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    let json = model::json::Json::parse(text.as_bytes()).map_err(|error| error.to_string())?;
    check_jwks(&json.to_serde())?;
    Ok(text)
}

/// Whether `jwks` is a set of public keys. A private key in a registration is a leak that somebody has to hear of.
pub(crate) fn check_jwks(jwks: &serde_json::Value) -> Result<(), String> {
    let keys =
        jwks.get("keys").and_then(serde_json::Value::as_array).ok_or("a JWKS is an object with an array `keys`")?;
    if keys.is_empty() {
        return Err("the JWKS has no keys".to_owned());
    }
    for key in keys {
        if key.get("kty").and_then(serde_json::Value::as_str).is_none() {
            return Err("a key of the JWKS has no `kty`".to_owned());
        }
        if ["d", "k", "p", "q"].iter().any(|secret| key.get(secret).is_some()) {
            return Err("the JWKS holds a private or shared key: register the public key only".to_owned());
        }
    }
    Ok(())
}
