//! The trust model (DESIGN §1): the agent is hostile and on the same machine, and the sidecar is kept apart from it.

mod admin;
mod agent;
mod egress;
mod memory;
mod ready;
mod secrets;
mod start;
