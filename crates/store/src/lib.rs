//! What the authority remembers: agents, users' grants and tasks, sidecars, withdrawals, and the tokens that may be
//! used once only, in SQLite or PostgreSQL behind one async interface.
//!
//! Whatever changes is one transaction that also appends to the change log (`writing`, `changes`).

mod agents;
mod changes;
mod charges;
mod declarations;
mod digest;
mod engine;
mod error;
mod events;
mod file;
mod grants;
mod heads;
mod join_tokens;
mod jwk;
mod kept;
mod limits;
mod outages;
mod page;
mod pins;
mod present;
pub mod remote;
mod schema;
mod seen;
mod sidecars;
mod signing_keys;
mod single_use;
mod tasks;
mod together;
mod upkeep;
mod users;
mod withdrawals;
mod writing;

use std::{path::PathBuf, sync::Arc};

use jiff::Timestamp;
use net::Tasks;
use secrecy::SecretString;
use tokio::sync::{Semaphore, mpsc, watch};

use self::engine::Engine;

pub use agents::{AgentChange, AgentFilter, Credential, CredentialKind, NewAgent, Registration};
pub use changes::{Change, ChangeKind, Feed, Head, MAX_FEED};
pub use error::{OpenError, StoreError};
pub use file::{Declarations, StoreFile, WrittenAgent, WrittenCredential, WrittenGrant, WrittenPrincipal, WrittenTask};
pub use grants::{GrantChange, GrantFilter, GrantRecord, GrantStatus, NewGrant};
pub use heads::{AnchoredHead, KnownLedger, MAX_EARLIER_HEADS};
pub use join_tokens::{JOIN_TOKEN_PREFIX, JoinToken, MadeJoinToken, NewJoinToken};
pub use outages::Outage;
pub use page::{Listed, MAX_PAGE, Page};
pub use pins::{MAX_PINS, NewPin, Pin};
pub use sidecars::{Enrolment, Evidence, Serves, Sidecar, SidecarKey, SidecarStatus};
pub use signing_keys::{NewSigningKey, PublishedKey, SigningKeyList};
pub use single_use::{MAX_LIVE_IDS, NotUsable};
pub use tasks::{NewTask, Standing, TaskFilter, TaskRecord};
pub use users::KnownUser;
pub use withdrawals::WithdrawalFilter;
pub use writing::{Committed, LONGEST_TOKEN, MAX_KEY_BYTES, Writer};

/// How many writes of one replica wait for the head row at a time.
const LINE: usize = 2;

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
    seen: Arc<seen::Seen>,
    /// Questions for the head.
    heads: Arc<together::Together<Head>>,
    kept: Arc<kept::Kept>,
    single_use: Arc<single_use::SingleUse>,
    uses: mpsc::Sender<single_use::Use>,
    /// Who may lease slices of limits at a time.
    leasing: Arc<Semaphore>,
    /// How many calls under idempotency keys each sidecar has charged.
    charges: Arc<charges::Counts>,
    /// Who may stand in line for the head row: those behind them would keep connections from questions.
    line: Arc<Semaphore>,
}

impl Store {
    /// Opens `database`, brings its schema up to date, and looks after it with `tasks` until they end.
    ///
    /// # Errors
    /// When it cannot be used, or a later version of this program has written there.
    pub async fn open(database: &Database, now: Timestamp, tasks: &Tasks) -> Result<Self, OpenError> {
        let engine = match database {
            Database::Sqlite(path) => engine::sqlite::open(path).await?,
            Database::Postgres(url) => engine::postgres::open(url).await?,
        };
        schema::migrate(&engine, now).await?;
        let wake = Arc::new(watch::channel(0).0);
        let (uses, queue) = single_use::queue();
        single_use::keep(engine.clone(), queue, tasks);
        let (leasing, line) = (Arc::new(Semaphore::new(limits::LINE)), Arc::new(Semaphore::new(LINE)));
        let (seen, single_use, charges) = (Arc::default(), Arc::default(), Arc::default());
        let (heads, kept) = (Arc::default(), Arc::default());
        let store = Self { engine, wake, heads, kept, seen, single_use, leasing, charges, uses, line };
        store.watch(tasks);
        Ok(store)
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.engine.close().await;
    }
}

#[cfg(test)]
mod tests;
