//! The other end of the operator's socket: one blocking request.

use std::{io, os::unix::net::UnixStream, path::Path, time::Duration};

use serde_json::Value;

use super::STATUS;
use crate::{
    exchange::{self, Reply},
    failure::{Exit, Failure},
};

/// For each read and write.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest answer that is read.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Asks the sidecar behind `socket` for its state.
pub(crate) fn status(socket: &Path) -> Result<Value, Failure> {
    let reply = exchange(socket).map_err(|error| {
        Failure::because(Exit::Unavailable, format!("no answer from the admin socket {}", socket.display()), error)
    })?;
    let read = match reply.status {
        Some(200) => serde_json::from_str(&reply.body).ok(),
        _ => None,
    };
    read.ok_or_else(|| {
        Failure::new(Exit::Unavailable, format!("{} is no admin socket of countersign's", socket.display()))
    })
}

fn exchange(socket: &Path) -> io::Result<Reply> {
    let reply = exchange::get(UnixStream::connect(socket)?, "localhost", STATUS, MAX_BYTES, PATIENCE)?;
    reply.ok_or_else(|| io::Error::other("it hung up; only the sidecar's own user and root are served"))
}
