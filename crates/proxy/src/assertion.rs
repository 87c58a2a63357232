//! The assertion of `identity: hybrid`: a Transaction Token in `Txn-Token`, beside the credential. It is signed once the
//! decision is on record, for one call and one tool, and is kept nowhere.

use std::sync::Arc;

use audit::record::Outcome;
use http::{HeaderName, HeaderValue};
use model::{Code, Delegation, Refusal, catalogue::IdentityMode};
use token::{Transaction, TransactionSigner};

use crate::{
    admit::Admitted, approve::Permit, config::tools::Upstream, credential::Credential, forward::Unanswered,
    settle::Settlement, snapshot::Snapshot,
};

/// The field that a Transaction Token travels in.
pub(crate) const TXN_TOKEN: HeaderName = HeaderName::from_static("txn-token");

/// What a call will present to the tool, once it is on record.
#[derive(Debug)]
pub(crate) struct Chosen {
    credential: Credential,
    signer: Option<Arc<TransactionSigner>>,
}

/// The stage: the credential for the call's tenant, and what signs the assertion where the tool asks for one.
pub(crate) fn credential(
    permit: &Permit<'_>,
    admitted: &Admitted,
    upstream: &Upstream,
    snapshot: &Snapshot,
) -> Result<Chosen, Box<Refusal>> {
    let credential = upstream.credentials.choose(admitted)?;
    let signer = match permit.call().tool.identity {
        IdentityMode::ServiceAccount => None,
        IdentityMode::Hybrid => Some(snapshot.signer.clone().ok_or_else(|| {
            unavailable().internally("`identity: hybrid`, and the sidecar has no enrolled key".to_owned())
        })?),
    };
    Ok(Chosen { credential, signer })
}

impl Chosen {
    /// Signs what the tool is told of the call that `permit` lets go.
    pub(crate) fn present(
        self,
        permit: &Permit<'_>,
        delegation: &Delegation,
        upstream: &Upstream,
        settlement: &mut Settlement,
    ) -> Result<Credential, Unanswered> {
        let Some(signer) = self.signer else { return Ok(self.credential) };
        let call = permit.call();
        let told = Transaction {
            id: &call.outgoing.arrival.id,
            tool: &call.tool.id,
            action: &call.action.id,
            method: call.outgoing.method.as_str(),
            base: upstream.base.path(),
            path: &call.outgoing.path,
            delegation,
        };
        let field = match signer.sign(&told, net::clock::now()) {
            Ok(compact) => HeaderValue::from_str(compact.expose()).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match field {
            Ok(mut field) => {
                field.set_sensitive(true);
                Ok(self.credential.with_assertion(field))
            }
            Err(error) => {
                settlement.failed(Outcome::NotSent, Code::CredentialUnavailable, false);
                Err(Unanswered { refusal: Box::new(unavailable().internally(error)), sent: false })
            }
        }
    }
}

fn unavailable() -> Refusal {
    Refusal::new(Code::CredentialUnavailable, "The sidecar cannot tell the tool who acts, as the tool is to be told.")
}

#[cfg(test)]
mod tests;
