//! What the authority remembers: agents, users' grants and tasks, sidecars, withdrawals, and the tokens that may be
//! used once only, in SQLite or PostgreSQL behind one async interface.
//!
//! Whatever changes is one transaction that also appends to the change log (`writing`, `changes`).

mod agents;
mod changes;
mod digest;
mod engine;
mod error;
mod file;
mod grants;
mod jwk;
mod page;
pub mod remote;
mod schema;
mod sidecars;
mod single_use;
mod tasks;
mod withdrawals;
mod writing;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use model::{Grant, Id, Task};
use net::Tasks;
use secrecy::SecretString;
use tokio::sync::watch;

use self::engine::Engine;

pub use agents::Registration;
pub use changes::{Change, ChangeKind, Feed, Head, MAX_FEED};
pub use error::{OpenError, StoreError};
pub use file::{StoreFile, WrittenAgent, WrittenCredential, WrittenGrant, WrittenPrincipal, WrittenTask};
pub use page::{Listed, MAX_PAGE, Page};
pub use sidecars::{
    Enrolment, JOIN_TOKEN_PREFIX, JoinToken, MadeJoinToken, NewJoinToken, Serves, Sidecar, SidecarKey, SidecarStatus,
};
pub use single_use::{MAX_LIVE_IDS, NotUsable};
pub use withdrawals::WithdrawalFilter;
pub use writing::{Committed, LONGEST_TOKEN, MAX_KEY_BYTES, Writer};

/// Where the state lies.
#[derive(Debug, Clone)]
pub enum Database {
    /// A file of this authority's own.
    Sqlite(PathBuf),
    /// A server, by its URL, which may hold a password.
    Postgres(SecretString),
}

/// The state that the authority issues from. Clones are the same store.
#[derive(Debug, Clone)]
pub struct Store {
    engine: Engine,
    wake: Arc<watch::Sender<u64>>,
    single_use: Arc<single_use::SingleUse>,
    declared: Arc<Declared>,
}

#[derive(Debug, Default)]
struct Declared {
    agents: HashMap<agents::Key, Arc<agents::Record>>,
    grants: HashMap<Id<Grant>, Grant>,
    tasks: HashMap<Id<Task>, Task>,
}

impl Store {
    /// Opens `database`, brings its schema up to date, and looks after it with `tasks` until they end.
    ///
    /// # Errors
    /// When it cannot be used, or a later version of this program has written there.
    pub async fn connect(database: &Database, now: Timestamp, tasks: &Tasks) -> Result<Self, OpenError> {
        let engine = match database {
            Database::Sqlite(path) => engine::sqlite::open(path).await?,
            Database::Postgres(url) => engine::postgres::open(url).await?,
        };
        schema::migrate(&engine, now).await?;
        let wake = Arc::new(watch::channel(0).0);
        let store = Self { engine, wake, single_use: Arc::default(), declared: Arc::default() };
        store.watch(tasks);
        Ok(store)
    }

    /// Reads the file at `path`. Agents that name no issuer are `issuer`'s own; key files are relative to `path`.
    ///
    /// # Errors
    /// When a file cannot be read or is not what it should be, with line and column.
    pub async fn open(path: &Path, issuer: &str) -> Result<Self, OpenError> {
        let unreadable = |cause| OpenError::Unreadable { path: path.to_owned(), cause };
        let text = tokio::fs::read_to_string(path).await.map_err(unreadable)?;
        let written = StoreFile::parse(&text, path)?;
        let (agents, grants, tasks) = written.resolve(path, issuer).await?;
        let database = Database::Sqlite(path.with_extension("db"));
        let store = Self::connect(&database, net::clock::now(), &Tasks::new()).await?;
        Ok(Self { declared: Arc::new(Declared { agents, grants, tasks }), ..store })
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.engine.close().await;
    }
}

#[cfg(test)]
mod tests;
