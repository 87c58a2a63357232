//! Agents, users' grants and tasks behind one async interface, and the tokens that may be used once only.
//!
//! What stands registered comes from one YAML file, read at start; callers see async functions that can fail,
//! so that a database can take the file's place without moving them.

mod agents;
mod file;
mod grants;
mod single_use;
mod tasks;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use model::{Grant, Id, Task};

pub use agents::Registration;
pub use file::{StoreFile, WrittenAgent, WrittenCredential, WrittenGrant, WrittenPrincipal, WrittenTask};
pub use single_use::{MAX_LIVE_IDS, NotUsable};

/// The registered state that the authority issues from. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Store {
    agents: HashMap<agents::Key, Arc<agents::Record>>,
    grants: HashMap<Id<Grant>, Grant>,
    tasks: HashMap<Id<Task>, Task>,
    single_use: single_use::SingleUse,
}

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// The file is not what it should be.
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
}

/// Why a question could not be answered. Whoever asked has to refuse.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
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

impl Store {
    /// Reads the file at `path`. Agents that name no issuer are `issuer`'s own; key files are relative to `path`.
    ///
    /// # Errors
    /// When a file cannot be read or is not what it should be, with line and column.
    pub async fn open(path: &Path, issuer: &str) -> Result<Self, OpenError> {
        let unreadable = |cause| OpenError::Unreadable { path: path.to_owned(), cause };
        let text = tokio::fs::read_to_string(path).await.map_err(unreadable)?;
        let written = StoreFile::parse(&text, path)?;
        let (agents, grants, tasks) = written.resolve(path, issuer).await?;
        Ok(Self { agents, grants, tasks, single_use: single_use::SingleUse::default() })
    }
}

#[cfg(test)]
mod tests;
