//! What is said when a token is refused: one sentence that leaks nothing before the signature, and what had been
//! verified by then, so that the record can name whom it concerns.

use model::{Code, Id, Principal, Refusal, Task, Tenant, id::Run};

/// A token that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// What the agent is told, and the operator.
    pub refusal: Refusal,
    /// What had been verified by then; `None` before the signature was.
    pub seen: Option<Box<Seen>>,
}

/// What a verified signature vouches for, as far as the token could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Who signed.
    pub issuer: String,
    /// SHA-256 of the compact token, base64url.
    pub digest: String,
    /// The token's `jti`.
    pub jti: Option<String>,
    /// The user it names, where their issuer is one of ours.
    pub user: Option<Principal>,
    /// The acting agent it names.
    pub agent: Option<Principal>,
    /// The tenant it names, if its issuer may speak for it.
    pub tenant: Option<Id<Tenant>>,
    /// The run it names.
    pub run: Option<Id<Run>>,
    /// The task it names.
    pub task: Option<Id<Task>>,
    /// The position in its issuer's change log that it names.
    pub position: Option<u64>,
    /// SHA-256 of the client certificate that it is bound to (RFC 8705 §3.1).
    pub bound_to: Option<[u8; 32]>,
}

pub(crate) type Checked<T> = Result<T, Box<Refusal>>;

/// A refusal before the signature is verified: always the same words for whoever presents it.
pub(crate) fn unverified(internal: impl Into<String>) -> Box<Refusal> {
    Box::new(Refusal::new(Code::InvalidToken, "The token is not one that is accepted here.").internally(internal))
}

/// A refusal of a token whose signature was verified: the issuer's word is known, so it may be specific.
pub(crate) fn refuse<T>(code: Code, detail: &str, internal: impl Into<String>) -> Checked<T> {
    Err(Box::new(Refusal::new(code, detail).internally(internal)))
}

#[expect(clippy::boxed_local, reason = "every check hands its refusal on in the box it came in")]
pub(crate) fn unseen(refusal: Box<Refusal>) -> Box<Rejection> {
    Box::new(Rejection { refusal: *refusal, seen: None })
}
