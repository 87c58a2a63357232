//! A tool of raw bytes, which says what no server that means well would say, and counts what reached it.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};

use super::odd;
use crate::support::{PATIENCE, Sidecar, World, sidecar::Setup};

/// A running raw tool. Its threads end with the process.
pub(super) struct RawTool {
    port: u16,
    heads: Heads,
}

/// The heads of requests, with the number of their connection.
type Heads = Arc<Mutex<Vec<(usize, String)>>>;

/// One connection, from the tool's side.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    /// Which one it is, from 0.
    number: usize,
    heads: Heads,
}

impl RawTool {
    /// Listens on loopback; `talk` gets each connection, in a thread of its own.
    pub(super) fn start(talk: impl Fn(&mut Connection) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (kept, talk) = (Arc::clone(&heads), Arc::new(talk));
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_write_timeout(Some(PATIENCE)).unwrap();
                let (heads, talk) = (Arc::clone(&kept), Arc::clone(&talk));
                std::thread::spawn(move || talk(&mut Connection { stream, number, heads }));
            }
        });
        Self { port, heads }
    }

    /// The first lines of the requests that reached it.
    pub(super) fn requests(&self) -> Vec<String> {
        self.heads().iter().map(|(_, head)| head.lines().next().unwrap_or_default().to_owned()).collect()
    }

    /// The heads of the requests that reached it, with the number of their connection.
    pub(super) fn heads(&self) -> Vec<(usize, String)> {
        self.heads.lock().unwrap().clone()
    }

    /// A sidecar in front of it. A head has two seconds to come.
    pub(super) fn sidecar(&self, world: &World) -> Sidecar {
        self.sidecar_with(world, |_| {})
    }

    /// The same with its configuration changed.
    pub(super) fn sidecar_with(&self, world: &World, change: impl FnOnce(&mut Value)) -> Sidecar {
        let upstream = format!("http://127.0.0.1:{}", self.port);
        let setup = Setup::new(&world.openid, &world.tool).with(odd).with(|config| {
            config["tools"]["orders"]["upstream"] = json!(upstream);
            config["tools"]["orders"]["timeout"] = json!("2s");
        });
        let mut setup = setup.with(change);
        setup.environment.push(("OTHERS_SECRET".to_owned(), "the-others-credential".to_owned()));
        setup.start()
    }
}

impl Connection {
    /// The next request with its body, where that has a length; `None` where the sidecar is gone.
    pub(super) fn request(&mut self) -> Option<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if self.stream.read(&mut byte).unwrap_or(0) == 0 {
                return None;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        self.stream.read_exact(&mut body).ok()?;
        self.heads.lock().unwrap().push((self.number, head.clone()));
        Some(head)
    }

    /// Says bytes as they are.
    pub(super) fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).ok();
        self.stream.flush().ok();
    }

    /// Whether the sidecar hung up within so many milliseconds.
    pub(super) fn hung_up_within(&mut self, milliseconds: u64) -> bool {
        self.stream.set_read_timeout(Some(Duration::from_millis(milliseconds))).unwrap();
        let hung_up = matches!(self.stream.read(&mut [0]), Ok(0));
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        hung_up
    }

    /// A moment in which what was said can arrive.
    pub(super) fn pause(&self, milliseconds: u64) {
        std::thread::sleep(Duration::from_millis(milliseconds));
    }

    pub(super) fn close(&mut self) {
        self.stream.shutdown(Shutdown::Both).ok();
    }
}

/// An answer of 200 with a length.
pub(super) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}
