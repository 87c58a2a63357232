//! PostgreSQL: one server for several replicas of the authority.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::Engine;
use crate::error::OpenError;

/// How long a question waits for a connection.
const WAIT: Duration = Duration::from_secs(5);
/// Connections of one replica, the one that listens not counted.
const CONNECTIONS: u32 = 8;

/// Connects to the server that `url` names.
pub(crate) async fn open(url: &SecretString) -> Result<Engine, OpenError> {
    // What cannot be read of a URL may be its password: the cause is not quoted.
    let options: PgConnectOptions = url.expose_secret().parse().map_err(|_| OpenError::Url)?;
    let options = options
        .application_name("countersign")
        // A statement that hangs holds the one row that every write needs.
        .options([
            ("statement_timeout", "10s"),
            ("idle_in_transaction_session_timeout", "10s"),
            ("lock_timeout", "5s"),
        ]);
    let database = format!("{}:{}", options.get_host(), options.get_port());
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(WAIT);
    match pool.connect_with(options).await {
        Ok(pool) => Ok(Engine::Postgres(pool)),
        Err(error) => Err(OpenError::Database { database, cause: error.to_string() }),
    }
}
