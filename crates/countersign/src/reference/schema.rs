//! The published JSON Schemas: of the configuration files, and of what policy is asked.

use serde_json::Value;

use crate::config::{authority::AuthorityConfig, schema, sidecar::SidecarConfig};

/// Of the sidecar's configuration.
pub(crate) fn sidecar() -> String {
    pretty(&schema::of::<SidecarConfig>("urn:countersign:schema:sidecar"))
}

/// Of the authority's configuration.
pub(crate) fn authority() -> String {
    pretty(&schema::of::<AuthorityConfig>("urn:countersign:schema:authority"))
}

/// Of the authority's file of agents, grants and tasks.
pub(crate) fn store() -> String {
    pretty(&schema::of::<store::StoreFile>("urn:countersign:schema:store"))
}

/// Of policy's input.
pub(crate) fn policy_input() -> String {
    pretty(&policy::input::schema())
}

/// Of what policy is asked before a token is issued.
pub(crate) fn policy_exchange() -> String {
    pretty(&policy::input::exchange::schema())
}

/// Of what policy is asked where somebody manages.
pub(crate) fn policy_management() -> String {
    pretty(&policy::input::management::schema())
}

fn pretty(value: &Value) -> String {
    // A `Value` has nothing that could fail to be written.
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}
