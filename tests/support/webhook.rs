//! Where alerts and notices are told: what was posted, one after the other.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    thread,
};

use serde_json::Value;

use super::PATIENCE;

/// What was posted to it.
pub(crate) struct Posted {
    /// The request's head.
    pub(crate) head: String,
    pub(crate) body: Value,
}

/// Listens on loopback and thanks for everything: its URL, and what it was told. Its thread ends with the process.
pub(crate) fn webhook() -> (String, mpsc::Receiver<Posted>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/told", listener.local_addr().unwrap());
    let (told, posted) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (head, body) = taken(&stream);
            stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").ok();
            // Whoever listened may have gone.
            told.send(Posted { head, body: serde_json::from_slice(&body).unwrap() }).ok();
        }
    });
    (url, posted)
}

/// Head and body of the one request on `stream`.
pub(crate) fn taken(stream: &TcpStream) -> (String, Vec<u8>) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut reader, mut head) = (BufReader::new(stream), String::new());
    while reader.read_line(&mut head).unwrap() > 2 {}
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.expect("the request has a length")];
    reader.read_exact(&mut body).unwrap();
    (head, body)
}
