//! What can go wrong with the store, in words that say whether asking again would help.

use std::path::PathBuf;

/// Why the store could not be opened, or its declarations not be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file cannot be read or made.
    #[error("cannot use {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// The file with declarations is not what it should be.
    #[error("{}:{line}:{column}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, from 1; 0 where the parser does not know.
        line: u64,
        /// The column, from 1; 0 where the parser does not know.
        column: u64,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// Others on the machine could read or change the database.
    #[error("{} is open to other users (mode {mode:o}): nobody but its owner may read or write it (mode 600)", path.display())]
    NotPrivate {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The URL of a PostgreSQL server is none. It is not quoted: it may hold a password.
    #[error("the database's URL cannot be read: write postgres://USER@HOST:PORT/DATABASE")]
    Url,
    /// Whoever is between here and the server could read and change the state.
    #[error("the database {database} is on another machine: its URL has to say `sslmode=verify-full`")]
    Plaintext {
        /// Which one.
        database: String,
    },
    /// The database does not answer, or not as it should.
    #[error("the database {database} cannot be used: {cause}")]
    Database {
        /// Which one, without user or password.
        database: String,
        /// What it said.
        cause: String,
    },
    /// The database does not answer now, and may later.
    #[error("the database {database} does not answer: {cause}")]
    Unreachable {
        /// Which one, without user or password.
        database: String,
        /// What was heard of it.
        cause: String,
    },
    /// A later version of this program has written there.
    #[error(
        "the database has schema {found}, this program knows {known}: run the later version, or restore a backup made before it"
    )]
    Newer {
        /// What the database has.
        found: i64,
        /// The latest this program knows.
        known: i64,
    },
    /// What is declared contradicts what the database holds.
    #[error("the declarations cannot be applied: {0}")]
    Declarations(#[source] StoreError),
}

/// Why a question could not be answered or a change not be made. Whoever asked has to refuse.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database does not answer now: gone, locked, full. For a write that was being committed it is not known
    /// whether it holds; asked again with the same idempotency key it is made once.
    #[error("the database is not available ({doing}): {cause}")]
    Unavailable {
        /// What was being done.
        doing: &'static str,
        /// What the database said; no statement and no value of it.
        cause: String,
    },
    /// What stands there does not allow it: it exists already, was used up, or has ended.
    #[error("{0}")]
    Conflict(String),
    /// It cannot be meant: a stage beyond the grant's, a set without members.
    #[error("{0}")]
    Invalid(String),
    /// There is nothing of that name.
    #[error("there is no {what} {id}")]
    NotFound {
        /// What kind of thing.
        what: &'static str,
        /// The name.
        id: String,
    },
    /// The idempotency key has been used for another request.
    #[error("the idempotency key was used for another request before")]
    OtherRequest,
    /// The database lacks what it had acknowledged: it is an older copy, or a standby that lagged. Nothing may rest on it
    /// until a person has begun a new generation.
    #[error(
        "the database is at position {head} and was at {position}: what was committed since is lost. Begin a new \
         generation with `countersign authority restored`"
    )]
    WentBack {
        /// Where it is now.
        head: u64,
        /// Where it was.
        position: u64,
    },
    /// What the database holds cannot be read. Nothing may rest on it.
    #[error("the database holds what cannot be read: {0}")]
    Damaged(String),
    /// An agent's keys lie in a file that cannot be read (any more), or is no JWKS.
    #[error("the keys of agent {agent} in {} cannot be used: {cause}", path.display())]
    Keys {
        /// The agent's id.
        agent: String,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
}

impl StoreError {
    /// What `sqlx` says, without the statement and without values.
    pub(crate) fn of(doing: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |error| match &error {
            sqlx::Error::Database(database) if database.is_unique_violation() => {
                Self::Conflict(format!("{doing}: it is there already"))
            }
            sqlx::Error::Database(database) => Self::Unavailable { doing, cause: database.message().to_owned() },
            sqlx::Error::PoolTimedOut => {
                Self::Unavailable { doing, cause: "no connection became free in time".to_owned() }
            }
            _ => Self::Unavailable { doing, cause: error.to_string() },
        }
    }

    pub(crate) fn unreadable(error: impl std::fmt::Display) -> Self {
        Self::Damaged(error.to_string())
    }

    pub(crate) fn unwritable(error: impl std::fmt::Display) -> Self {
        Self::Invalid(format!("it cannot be written: {error}"))
    }

    pub(crate) fn not_found(what: &'static str, id: impl std::fmt::Display) -> Self {
        Self::NotFound { what, id: id.to_string() }
    }
}
