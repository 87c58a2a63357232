//! PostgreSQL: one server for several replicas of the authority.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    ConnectOptions, Connection, Executor, PgConnection, PgPool, Postgres, Row, Transaction,
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

/// How long an answer is waited for. A server gives up by itself before: one that is silent for longer has gone without a
/// word, or cannot make a commit safe on its standby.
const SILENT: Duration = Duration::from_secs(12);
/// How long a connection is asked whether it is there, after another one was silent.
const ALIVE: Duration = Duration::from_secs(3);
/// For how long after that each one is asked.
const SUSPECT: Duration = Duration::from_secs(120);

const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// A server, by its address: after a failover that is another one, which is found there.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(super) pool: PgPool,
    pub(super) silence: Silence,
}

/// A transaction that writes.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) transaction: Transaction<'static, Postgres>,
    pub(super) silence: Silence,
}

/// When the server was last silent. The connections that it left are given up then, where else each would be waited for
/// until the system does, a quarter of an hour later.
#[derive(Debug, Clone, Default)]
pub(super) struct Silence(Arc<Mutex<Option<Instant>>>);

impl Server {
    pub(super) async fn begin(&self) -> Result<Session, sqlx::Error> {
        let transaction = self.silence.bounded(self.pool.begin_with(BEGIN)).await?;
        Ok(Session { transaction, silence: self.silence.clone() })
    }
}

impl Silence {
    /// What `asking` brings, or that it brings nothing. Apart from whoever waits, which this would make a large future of.
    pub(super) fn bounded<'a, T: Send + 'a>(
        &'a self,
        asking: impl Future<Output = Result<T, sqlx::Error>> + Send + 'a,
    ) -> Pin<Box<dyn Future<Output = Result<T, sqlx::Error>> + Send + 'a>> {
        Box::pin(async move {
            // Noted before the question is dropped, and its connection with it.
            let noted = async {
                tokio::time::sleep(SILENT).await;
                *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(net::clock::monotonic());
            };
            tokio::select! {
                biased;
                outcome = asking => outcome,
                () = noted => Err(sqlx::Error::Io(std::io::Error::new(
                    std::io::ErrorKind::TimedOut,
                    format!("the server said nothing for {SILENT:?}"),
                ))),
            }
        })
    }

    fn is_recent(&self) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| net::clock::monotonic().duration_since(last) < SUSPECT)
    }
}

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
            // Of statements that are a transaction each: one that has to wait for another goes on after it.
            ("default_transaction_isolation", "read committed"),
        ]);
    let database = format!("{}:{}", options.get_host(), options.get_port());
    let verified = matches!(options.get_ssl_mode(), PgSslMode::VerifyFull);
    if !verified && !is_local(&options) {
        return Err(OpenError::Plaintext { database });
    }
    let unreachable = |cause: String| OpenError::Unreachable { database: database.clone(), cause };
    let unusable = |cause: String| OpenError::Database { database: database.clone(), cause };
    let failed =
        |error: sqlx::Error| if passes(&error) { unreachable(error.to_string()) } else { unusable(error.to_string()) };
    let first = async {
        let mut connection = options.connect().await?;
        let unfit = unfit(&mut connection).await?;
        connection.close().await?;
        Ok(unfit)
    };
    let first = tokio::time::timeout(WAIT, first).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
    match first.map_err(failed)? {
        None => {}
        Some(unfit @ Unfit::Standby) => return Err(unreachable(unfit.to_string())),
        Some(unfit @ Unfit::Careless) => return Err(unusable(unfit.to_string())),
    }
    let silence = Silence::default();
    let suspected = silence.clone();
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(WAIT)
        .after_connect(|connection, _| {
            Box::pin(async move {
                match unfit(connection).await? {
                    None => Ok(()),
                    Some(unfit) => Err(sqlx::Error::Configuration(Box::new(unfit))),
                }
            })
        })
        .after_release(move |connection, _| {
            let suspected = suspected.is_recent();
            Box::pin(async move {
                if !suspected {
                    return Ok(true);
                }
                let gone = |_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
                tokio::time::timeout(ALIVE, connection.ping()).await.map_err(gone)?.map(|()| true)
            })
        })
        .connect_lazy_with(options);
    Ok(Engine::Postgres(Server { pool, silence }))
}

/// Why a server cannot keep the state, though it answers.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    /// It may lag, and what it says would look fresh.
    #[error("it is a standby, or read-only: the address has to be that of the primary")]
    Standby,
    /// What is acknowledged has to be durable.
    #[error("its `synchronous_commit` is off, so that what it acknowledges could be lost: set it to `on`")]
    Careless,
}

/// Asked of each new connection: behind the same address there may be another server after a failover.
async fn unfit(connection: &mut PgConnection) -> Result<Option<Unfit>, sqlx::Error> {
    let sql = "SELECT current_setting('transaction_read_only'), current_setting('synchronous_commit')";
    let row = connection.fetch_one(sql).await?;
    let is = |column: usize, word: &str| row.try_get::<String, _>(column).is_ok_and(|setting| setting == word);
    Ok(if is(0, "on") {
        Some(Unfit::Standby)
    } else if is(1, "off") {
        Some(Unfit::Careless)
    } else {
        None
    })
}

/// Tells every position that this server says was committed. A hint only: what is said while the connection is down,
/// or behind a pooler that hands connections on, is not heard.
pub(crate) async fn listen(server: Server, told: impl Fn(u64)) {
    loop {
        if let Err(error) = hear(&server.pool, &told).await {
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
