//! PostgreSQL: one server for several replicas of the authority.

use std::{net::IpAddr, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    Executor, PgPool, Row,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions, PgSslMode},
};

use super::Engine;
use crate::error::OpenError;

/// How long a question waits for a connection.
const WAIT: Duration = Duration::from_secs(5);
/// Connections of one replica, the one that listens not counted.
const CONNECTIONS: u32 = 8;

/// After how long a lost listener listens again.
const AGAIN: Duration = Duration::from_secs(1);
/// The channel of notifications.
pub(crate) const CHANNEL: &str = "countersign";

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
    let verified = matches!(options.get_ssl_mode(), PgSslMode::VerifyFull);
    if !verified && !is_local(&options) {
        return Err(OpenError::Plaintext { database });
    }
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(WAIT);
    let unusable = |cause: String| OpenError::Database { database: database.clone(), cause };
    let pool = pool.connect_with(options).await.map_err(|error| {
        let cause = error.to_string();
        if passes(&error) { OpenError::Unreachable { database: database.clone(), cause } } else { unusable(cause) }
    })?;
    let row = pool.fetch_one("SHOW synchronous_commit").await.map_err(|error| unusable(error.to_string()))?;
    if row.try_get::<String, _>(0).is_ok_and(|setting| setting == "off") {
        let why = "its `synchronous_commit` is off, so that what it acknowledges could be lost: set it to `on`";
        return Err(unusable(why.to_owned()));
    }
    Ok(Engine::Postgres(pool))
}

/// Tells every position that this server says was committed. A hint only: what is said while the connection is down,
/// or behind a pooler that hands connections on, is not heard.
pub(crate) async fn listen(pool: PgPool, told: impl Fn(u64)) {
    loop {
        if let Err(error) = hear(&pool, &told).await {
            tracing::debug!(%error, "the database's notifications are not heard; the head is looked at all the same");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn hear(pool: &PgPool, told: &impl Fn(u64)) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    loop {
        if let Ok(position) = listener.recv().await?.payload().parse() {
            told(position);
        }
    }
}

/// Whether the server may be there later: it is not reached, starts, stops, or has no connection left. What is wrong
/// with the name, the password or the database stays wrong.
fn passes(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => true,
        sqlx::Error::Database(said) => {
            said.code().is_some_and(|code| code.starts_with("57P") || code.starts_with("53"))
        }
        _ => false,
    }
}

/// Whether what is said to the server stays on this machine.
fn is_local(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    let socket = options.get_socket().is_some() || host.starts_with('/');
    socket || host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
