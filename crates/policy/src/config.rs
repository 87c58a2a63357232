//! The `policy` section of a sidecar's configuration: where the packages come from and which tools they are for.

use std::{collections::BTreeSet, path::PathBuf};

use model::{Id, Tool};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::bundle::KeysConfig;

/// One source of policy.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicySource {
    /// Whose policy it is. `org` is the platform team's: package `countersign.org`, for every call, may deny but
    /// never allow. Any other name is a team's: package `countersign.teams.<name>`, for the tools in `for`.
    pub name: String,
    /// The directory that holds the Rego files and data documents, or a bundle of them (`.tar.gz`); relative paths start
    /// at the configuration file.
    pub path: PathBuf,
    /// Whose signature the bundle has to carry. A bundle that is signed needs them, and a directory cannot have them.
    #[serde(default)]
    pub keys: Option<KeysConfig>,
    /// The tools that the team decides about. Required for a team, not allowed for `org`.
    #[serde(default, rename = "for")]
    pub tools: Option<BTreeSet<Id<Tool>>>,
}
