//! Transaction Tokens (draft-ietf-oauth-transaction-tokens): what an enrolled sidecar tells one tool of one call.
//! Never an access token: another `typ`, another key, one tool as its audience, and a minute at most.

use std::{fmt, path::PathBuf, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use model::{CanonicalPath, Delegation, Hop, Id, Tool, id::DecisionMark};
use serde::Serialize;

use crate::{ActClaims, Compact, KeptKey, MintError, SigningKey, claims::Profile};

/// The `typ` of a Transaction Token, and the last part of its media type.
pub const TRANSACTION_TOKEN_TYPE: &str = "txntoken+jwt";
/// How long one is good for.
pub const TRANSACTION_TOKEN_LIFETIME: SignedDuration = SignedDuration::from_secs(60);

/// Signs what tools are told, in the name of one enrolled sidecar.
pub struct TransactionSigner {
    key: KeptKey,
    name: String,
}

/// The call that a tool is told of.
#[derive(Debug, Clone, Copy)]
pub struct Transaction<'a> {
    /// The decision that let it go.
    pub id: &'a Id<DecisionMark>,
    /// The one tool it is for.
    pub tool: &'a Id<Tool>,
    /// The action that it is, as the catalogue names it.
    pub action: &'a Id<model::Action>,
    /// Its method.
    pub method: &'a str,
    /// The path of the tool's base URL, without a slash at its end.
    pub base: &'a str,
    /// Its path below that.
    pub path: &'a CanonicalPath,
    /// Who acts for whom.
    pub delegation: &'a Delegation,
}

impl TransactionSigner {
    /// Signs with `key`, as the sidecar `id` of `authority` (a URL without a slash at its end).
    pub fn new(key: Arc<SigningKey>, authority: &str, id: &str) -> Self {
        Self { key: KeptKey::new(key), name: format!("{authority}/sidecars/{id}") }
    }

    /// The same, whose key is that of `file` whenever [`Self::look`] looks.
    #[must_use]
    pub fn kept_in(self, file: PathBuf) -> Self {
        Self { key: self.key.kept_in(file), ..self }
    }

    /// Takes the key that is in the file now, where that is another.
    pub fn look(&self, now: Timestamp) {
        self.key.look(now);
    }

    /// What is said of `call`, good for a minute from `now`.
    ///
    /// # Errors
    /// When the cryptography fails.
    pub fn sign(&self, call: &Transaction<'_>, now: Timestamp) -> Result<Compact, MintError> {
        let chain = &call.delegation.chain;
        let issued = now.as_second();
        let claims = Claims {
            iss: &self.name,
            aud: call.tool.as_str(),
            iat: issued,
            exp: issued + TRANSACTION_TOKEN_LIFETIME.as_secs(),
            txn: call.id.as_str(),
            sub: chain.user().principal.id.as_str(),
            scope: call.action.as_str(),
            req_wl: chain.agent().principal.id.as_str(),
            tenant: call.delegation.tenant.as_str(),
            act: ActClaims::of(chain),
            delegation_chain: chain.hops().map(Named::from).collect(),
            tctx: Context { method: call.method, path: [call.base, call.path.as_str()].concat() },
        };
        self.key.current().sign(TRANSACTION_TOKEN_TYPE, &claims)
    }
}

impl fmt::Debug for TransactionSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TransactionSigner({})", self.name)
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
    txn: &'a str,
    sub: &'a str,
    scope: &'a str,
    req_wl: &'a str,
    tenant: &'a str,
    act: Option<ActClaims>,
    delegation_chain: Vec<Named<'a>>,
    tctx: Context<'a>,
}

/// A hop as tools see it: who it was, and nothing of what it held.
#[derive(Serialize)]
struct Named<'a> {
    iss: &'a str,
    sub: &'a str,
    sub_profile: Profile,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
}

impl<'a> From<&'a Hop> for Named<'a> {
    fn from(hop: &'a Hop) -> Self {
        let principal = &hop.principal;
        Self {
            iss: &principal.issuer,
            sub: principal.id.as_str(),
            sub_profile: principal.kind.into(),
            instance: hop.instance.as_deref(),
        }
    }
}

#[derive(Serialize)]
struct Context<'a> {
    method: &'a str,
    path: String,
}

#[cfg(test)]
mod tests;
