//! SQLite: a file of the authority's own, durable at every commit.

use std::{
    fs::{DirBuilder, OpenOptions, Permissions},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::Engine;
use crate::error::OpenError;

/// How long a write waits for another process that writes: a backup, a second authority by mistake.
const BUSY: Duration = Duration::from_secs(5);
/// And how long until it is tried again, where SQLite itself does not wait.
const AGAIN: Duration = Duration::from_millis(20);
/// How long a question waits for a connection.
const WAIT: Duration = Duration::from_secs(10);
/// Connections that only read.
const READERS: u32 = 4;

/// Opens the file at `path`, which is made for this user alone where it is not there.
pub(crate) async fn open(path: &Path) -> Result<Engine, OpenError> {
    let unusable = |cause: std::io::Error| OpenError::Unreadable { path: path.to_owned(), cause };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unusable)?;
    }
    // SQLite gives its log and index files the mode of the database.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let mode = std::fs::metadata(path).map_err(unusable)?.permissions().mode();
            if mode & 0o077 != 0 {
                return Err(OpenError::NotPrivate { path: path.to_owned(), mode: mode & 0o777 });
            }
        }
        Err(error) => return Err(unusable(error)),
    }
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(unusable)?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY);
    let cannot =
        |error: sqlx::Error| OpenError::Database { database: path.display().to_string(), cause: error.to_string() };
    // A file does not go away as a server does: no connection is asked whether it is still there.
    let pool = |connections| {
        SqlitePoolOptions::new().max_connections(connections).acquire_timeout(WAIT).test_before_acquire(false)
    };
    // The writer first: it makes the log that readers need to find.
    let begun = net::clock::monotonic();
    let write = loop {
        match pool(1).connect_with(options.clone()).await {
            // Two that begin the log at once are told so without waiting, whatever the time to wait is.
            Err(error) if is_locked(&error) && net::clock::monotonic().duration_since(begun) < BUSY => {
                tokio::time::sleep(AGAIN).await;
            }
            outcome => break outcome.map_err(cannot)?,
        }
    };
    let read = pool(READERS).connect_with(options.pragma("query_only", "ON")).await.map_err(cannot)?;
    Ok(Engine::Sqlite { write, read })
}

/// Whether it is `SQLITE_BUSY`, in whatever form.
fn is_locked(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<i32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
}
