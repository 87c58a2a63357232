//! The ledger under faults (DESIGN §6): whatever fails, nothing unrecorded reaches the tool, the sidecar says so, and
//! goes on by itself once the fault is gone.

mod bench;
mod clock;
mod disk;
mod killed;
mod machine;
mod told;

pub(crate) use machine::Steered;
