//! What leaves a ledger for its authority (DESIGN §5.4): signed heads, which are anchored there, so that whoever has
//! root where the ledger lies cannot rewrite what they cover; and its segments, which outlive the machine.
//!
//! Wire types are here, because both planes use them. Who asks is a function from above.

use model::duration::ConfigDuration;
use schemars::JsonSchema;
use serde::Deserialize;

pub mod anchor;
pub(crate) mod anchoring;
pub mod chunk;
pub(crate) mod chunks;
pub(crate) mod copy;
pub mod pieces;
pub(crate) mod reading;
pub(crate) mod shelf;
mod shipping;
mod uplink;

pub use anchoring::{Anchoring, Standing};
pub use copy::NotTaken;
pub use shelf::{Shelf, Taken};
pub use shipping::{Backlog, Shipping};
pub use uplink::{Authorise, NotTold, Uplink};

/// Where an authority takes heads.
pub const HEADS_PATH: &str = "/v1/ledger-heads";
/// Where it takes segments, chunk by chunk, and says how far it has them.
pub const SEGMENTS_PATH: &str = "/v1/ledger-segments";
/// Where it is told what to erase of them.
pub const ERASURES_PATH: &str = "/v1/ledger-erasures";

/// Whether a sidecar's ledger is shipped to its authority, and what happens while it is not.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShipConfig {
    /// How old a record may be that is not at the authority yet.
    #[serde(default = "one_minute")]
    pub max_lag: ConfigDuration,
    /// What happens while an older one is not.
    #[serde(default)]
    pub on_lag: OnLag,
}

/// What happens while records are not at the authority for too long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnLag {
    /// It is on record, in the log and in the metrics; calls go on.
    #[default]
    Alert,
    /// Besides, drafts and writes are refused (`ledger_unavailable`) until the authority has caught up.
    RefuseWrites,
}

const fn one_minute() -> ConfigDuration {
    ConfigDuration::seconds(60)
}
