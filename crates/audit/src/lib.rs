//! The ledger: durable, hash-chained, signed records of every decision (DESIGN §5.4).
//!
//! Writing: [`Ledger`] takes the typed records of [`record`]. Reading: [`query`], [`decisions`], [`tail`], [`mod@line`],
//! [`rebuild`] and [`verify`] need the directory alone, no running process.

mod beside;
mod canonical;
mod chain;
pub mod config;
pub mod decisions;
pub mod erasure;
pub mod error;
pub mod export;
mod files;
pub mod heads;
mod journal;
mod keeper;
mod keys;
pub mod line;
mod log;
mod opening;
pub mod query;
mod read;
pub mod rebuild;
pub mod record;
mod recovery;
mod segment;
pub mod ship;
mod stored;
pub mod tail;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod values;
pub mod verify;
mod writer;

pub use config::{LedgerConfig, LedgerSettings, RetentionConfig};
pub use error::LedgerError;
pub use heads::{Head, VerifyingKey};
pub use log::{AlertObserver, CallsObserver, Ledger, LedgerStats, PATIENCE, Receipt};
pub use opening::ledger_id;
pub use read::Entry;
pub use record::{ActivatedBundle, CallDecided, CallSettled, Event};
pub use ship::{OnLag, ShipConfig};
