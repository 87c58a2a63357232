//! The other end of the operator's socket: one blocking request.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde_json::Value;

use super::STATUS;
use crate::failure::{Exit, Failure};

/// For each read and write.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest answer that is read.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Asks the sidecar behind `socket` for its state.
pub(crate) fn status(socket: &Path) -> Result<Value, Failure> {
    let text = exchange(socket).map_err(|error| {
        Failure::because(Exit::Unavailable, format!("no answer from the admin socket {}", socket.display()), error)
    })?;
    let strange =
        || Failure::new(Exit::Unavailable, format!("{} is no admin socket of countersign's", socket.display()));
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(strange)?;
    if head.split(' ').nth(1) != Some("200") {
        return Err(strange());
    }
    serde_json::from_str(body).map_err(|_| strange())
}

fn exchange(socket: &Path) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // HTTP/1.0 keeps the answer in one piece.
    stream.write_all(format!("GET {STATUS} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.take(MAX_BYTES).read_to_string(&mut text)?;
    if text.is_empty() {
        return Err(io::Error::other("it hung up; only the sidecar's own user and root are served"));
    }
    Ok(text)
}
