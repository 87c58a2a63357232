//! What a policy is asked where somebody manages (`manage`), version 1: who does what to which thing.

use std::collections::BTreeSet;

use jiff::Timestamp;
use model::{Id, Principal, Tenant, delegation::UserClaims, part::WHOLE};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    InvalidInput, User, engine_value,
    quantity::{moment, nanoseconds},
    schema_of,
};

/// The version of the input's shape. It rises when a member changes its meaning or goes away.
pub const VERSION: u32 = 1;

/// Something that a user does by the management API, or wants to see there.
#[derive(Debug, Clone, Copy)]
pub struct Management<'a> {
    /// The user.
    pub caller: &'a Principal,
    /// What is known of them.
    pub claims: &'a UserClaims,
    /// What they do: `agents.suspend`.
    pub operation: &'a str,
    /// What they do it to.
    pub object: &'a Object,
    /// The moment.
    pub now: Timestamp,
}

/// What something is done to. What is not known of it, or does not hold of such a thing, is null or empty: of a list all
/// but what it is narrowed to.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Object {
    /// The agent that it concerns: itself, or the one of a grant.
    pub agent: Option<Named>,
    /// Its name.
    pub id: Option<String>,
    /// What it is: `agent`, `grant`, `ledger`, `pin`, `sidecar`, `task`, `withdrawal`.
    pub kind: &'static str,
    /// The tenants that it concerns, sorted.
    pub tenants: BTreeSet<Id<Tenant>>,
    /// The user whose it is.
    pub user: Option<Named>,
}

/// A principal by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Named {
    /// Its name at `issuer`.
    pub id: Id<Principal>,
    /// Whose name that is.
    pub issuer: String,
}

/// What a policy sees of it: the document behind `input` of `manage`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Input<'a> {
    /// Who does it.
    caller: Caller<'a>,
    /// The moment, RFC 3339, in UTC. The only clock there is.
    now: String,
    /// The same in nanoseconds since 1970, to compare with `time.parse_rfc3339_ns`.
    now_ns: i64,
    /// What it is done to.
    object: &'a Object,
    /// What is done: `agents.suspend`.
    operation: &'a str,
    /// The version of this shape.
    version: u32,
}

/// The user who manages.
#[derive(Debug, Serialize, JsonSchema)]
struct Caller<'a> {
    /// When they logged in, in seconds since 1970.
    auth_time: Option<i64>,
    /// Who they are.
    #[serde(flatten)]
    user: User<'a>,
}

impl<'a> Input<'a> {
    fn of(management: &Management<'a>) -> Self {
        let Management { caller, claims, operation, object, now } = *management;
        Self {
            caller: Caller { auth_time: claims.auth_time, user: User::of(caller, claims) },
            now: moment(now),
            now_ns: nanoseconds(now),
            object,
            operation,
            version: VERSION,
        }
    }
}

/// The input that `management` is, as the engine's own value.
pub(crate) fn value(management: &Management<'_>) -> Result<regorus::Value, InvalidInput> {
    Input::of(management).serialize(engine_value::ToEngine(&WHOLE))
}

/// The JSON Schema of the input, from the types above.
pub fn schema() -> serde_json::Value {
    schema_of::<Input<'_>>(&format!("Countersign policy input of management, version {VERSION}"))
}

impl From<&Principal> for Named {
    fn from(principal: &Principal) -> Self {
        Self { id: principal.id.clone(), issuer: principal.issuer.clone() }
    }
}
