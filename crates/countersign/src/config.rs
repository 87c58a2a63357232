//! Configuration: one YAML file a process. Read here, made of the sections that the crates declare, and turned
//! into running parts by `run`.

pub(crate) mod document;
pub(crate) mod expansion;
mod reading;

pub(crate) mod alerts;
pub(crate) mod authority;
pub(crate) mod sidecar;

pub(crate) mod files;
pub(crate) mod schema;
