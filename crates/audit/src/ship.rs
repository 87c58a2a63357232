//! What leaves a ledger for its authority (DESIGN §5.4): signed heads, which are anchored there, so that whoever has
//! root where the ledger lies cannot rewrite what they cover; and its segments, which outlive the machine.
//!
//! Wire types are here, because both planes use them. Who asks is a function from above.

pub mod anchor;
pub(crate) mod anchoring;
mod reading;
mod uplink;

pub use anchoring::{Anchoring, Standing};
pub use uplink::{Authorise, NotTold, Uplink};

/// Where an authority takes heads.
pub const HEADS_PATH: &str = "/v1/ledger-heads";
