//! Where the authority keeps what sidecars ship of their ledgers, and for how long.

use std::path::PathBuf;

use audit::RetentionConfig;
use schemars::JsonSchema;
use serde::Deserialize;

use super::AuthorityConfig;

/// The folder where nothing is said, beside that of the keys.
const FOLDER: &str = "shipped";

/// The copies of sidecars' ledgers.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShippedConfig {
    /// Their folder; `shipped` beside the folder of the keys, where absent. Replicas of one authority share it.
    #[serde(default)]
    pub dir: Option<PathBuf>,
    /// How long they are kept, each ledger for itself. Without it, for ever.
    #[serde(default)]
    pub retention: RetentionConfig,
}

impl AuthorityConfig {
    /// The folder of the copies.
    pub fn shipped_dir(&self) -> PathBuf {
        self.shipped.dir.clone().unwrap_or_else(|| self.keys.dir.with_file_name(FOLDER))
    }
}
