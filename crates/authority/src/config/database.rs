//! Where the authority keeps its state.

use std::path::PathBuf;

use net::{SecretSource, secret::SecretError};
use schemars::JsonSchema;
use serde::Deserialize;
use store::Database;

use super::AuthorityConfig;

/// The file of the state where nothing is said, beside the folder of the keys.
const FILE: &str = "authority.db";

/// Where agents, grants, tasks, sidecars and withdrawals are kept.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DatabaseConfig {
    /// An SQLite file of this authority's own, made on first start for this user alone.
    Sqlite(PathBuf),
    /// A PostgreSQL server, which several replicas of the authority may share.
    Postgres(PostgresConfig),
}

/// A PostgreSQL server.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// Where its URL lies: `postgres://USER:PASSWORD@HOST:PORT/DATABASE`. Anywhere but on this machine it is spoken to
    /// over TLS alone, with a certificate that names the host.
    pub url: SecretSource,
}

impl AuthorityConfig {
    /// The file of the state, where it is one.
    pub fn database_file(&self) -> Option<PathBuf> {
        match &self.database {
            None => Some(self.keys.dir.with_file_name(FILE)),
            Some(DatabaseConfig::Sqlite(path)) => Some(path.clone()),
            Some(DatabaseConfig::Postgres(_)) => None,
        }
    }

    /// Where the state is; `env` looks up environment variables.
    ///
    /// # Errors
    /// When the server's URL cannot be read.
    pub fn database(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<Database, SecretError> {
        match &self.database {
            Some(DatabaseConfig::Postgres(server)) => server.url.load(env).map(Database::Postgres),
            None | Some(DatabaseConfig::Sqlite(_)) => {
                Ok(Database::Sqlite(self.database_file().unwrap_or_else(|| FILE.into())))
            }
        }
    }
}
