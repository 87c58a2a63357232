//! One blocking HTTP request over a connection of this machine, for commands that ask a running process.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::Duration,
};

/// Something to ask over.
pub(crate) trait Connection: Read + Write {
    /// Gives up a read or a write that takes longer.
    fn be_patient(&self, patience: Duration) -> io::Result<()>;
}

impl Connection for UnixStream {
    fn be_patient(&self, patience: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(patience))?;
        self.set_write_timeout(Some(patience))
    }
}

impl Connection for TcpStream {
    fn be_patient(&self, patience: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(patience))?;
        self.set_write_timeout(Some(patience))
    }
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// Its status; `None` where it is no HTTP.
    pub(crate) status: Option<u16>,
    /// What comes after its head.
    pub(crate) body: String,
}

/// Asks for `path`, and reads at most `max_bytes` of the answer; `patience` is for each read and write. `None` where
/// the other side hung up without a word.
pub(crate) fn get(
    mut connection: impl Connection,
    host: &str,
    path: &str,
    max_bytes: u64,
    patience: Duration,
) -> io::Result<Option<Reply>> {
    connection.be_patient(patience)?;
    // HTTP/1.0 keeps the answer in one piece.
    connection.write_all(format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    connection.take(max_bytes).read_to_string(&mut text)?;
    if text.is_empty() {
        return Ok(None);
    }
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
    Ok(Some(Reply { status, body: body.to_owned() }))
}
