//! A call that was passed through (DESIGN §4, rung 0): it went with the agent's own credential, on nobody's verified word.
//! What was only said of who calls stands apart from what was verified, and beside the line.

use jiff::Timestamp;
use model::{Id, Principal};
use serde::Serialize;

use super::Partial;
use crate::{canonical::Unrecordable, values::Draft};

/// What was known of a call that was passed through. Its `partial` names nobody.
#[derive(Debug, Clone)]
pub struct Passed {
    /// What the call is about, as far as it was recognised.
    pub partial: Partial,
    /// Who answers for it that calls are passed through.
    pub owner: String,
    /// When that ends.
    pub until: Timestamp,
    /// What kind of credential of its own the agent sent in `Authorization`.
    pub credential: OwnCredential,
    /// Who sent it, where the connection proves that.
    pub connection: Option<Connection>,
    /// What was said of who calls. Nobody verified it.
    pub asserted: Asserted,
}

/// The scheme of `Authorization`. Never what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnCredential {
    /// There is no such field. One of another name may hold a key.
    None,
    /// `Bearer`
    Bearer,
    /// `Basic`
    Basic,
    /// Another one.
    Other,
}

/// Who is at the other end of a connection, by the word of the kernel or of TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Connection {
    /// The user, by number, of the process at the other end of a Unix socket.
    Uid(u32),
    /// The SPIFFE ID in the client certificate.
    Spiffe(String),
    /// The subject of the client certificate.
    Subject(String),
    /// A client certificate that names nobody: its SHA-256, base64url.
    Certificate(String),
}

/// What was said of who calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Asserted {
    /// The agent, by the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<Id<Principal>>,
    /// The user, by a header field of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

#[derive(Serialize)]
struct WrittenPassed<'a> {
    owner: &'a str,
    until: Timestamp,
    credential: OwnCredential,
    /// Whether no action was found for it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unmapped: bool,
}

/// The members that only such a call has.
pub(super) fn members(draft: &mut Draft, passed: &Passed) -> Result<(), Unrecordable> {
    let Passed { partial, owner, until, credential, connection, asserted } = passed;
    let (until, credential, unmapped) = (*until, *credential, partial.action.is_none());
    draft.plain("passthrough", &WrittenPassed { owner, until, credential, unmapped })?;
    if let Some(connection) = connection {
        draft.personal("connection", connection)?;
    }
    if *asserted == Asserted::default() { Ok(()) } else { draft.personal("asserted", asserted) }
}
