//! The sidecar: the stages of a call, one file each, in the order a call meets them (DESIGN §4).
//!
//! `handle` is the straight line. Each stage's success is a value that only the stage can make and the next one
//! needs, so that none can be left out.

mod accept;
mod admit;
mod approve;
mod assertion;
mod credential;
mod decide;
mod exchanged;
mod facts;
mod forward;
mod guard;
mod record;
mod reserve;
mod resolve;
mod settle;

mod candidate;
mod fold;
mod handle;
mod headers;
mod metrics;
mod obligations;
mod observe;
mod overload;
mod passthrough;
mod quiet;
mod refuse;
mod sidecar;
mod snapshot;
mod trace;
mod trail;
mod withdrawals;

pub mod config;
pub mod live;

#[cfg(any(test, feature = "bench"))]
#[doc(hidden)]
pub mod bench;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
#[cfg(test)]
mod testing;

pub use candidate::{CandidateParts, CandidateState};
pub use config::tools::{ResolvedTools, ToolsError, describe as describe_tools, resolve as resolve_tools};
pub use exchanged::{ExchangeState, Identities, IdentitiesParts, Identity};
pub use obligations::Reach;
pub use observe::{Observation, Observations};
pub use passthrough::Passthrough;
pub use reserve::{Asking, Charging, Leasing, Limits};
pub use sidecar::{Parts, Sidecar};
pub use snapshot::{Agents, RegisteredTwice, Snapshot, SnapshotParts};
pub use withdrawals::{Following, GoodKeys, News, ViewState, Withdrawals};
