//! The OTLP receiver and what it wrote down; and a collector that does not behave.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use super::{PATIENCE, process::Part};

/// A running receiver.
pub(crate) struct Otlp {
    part: Part,
    log: PathBuf,
    _directory: tempfile::TempDir,
}

impl Otlp {
    /// Starts one; `None` (said aloud) where it is not installed.
    pub(crate) fn start() -> Option<Self> {
        let home = super::root().join("tests/parts/otlp");
        if !home.join("packages").exists() {
            super::skipped("otlp", "the receiver is not installed: run `.ci/run parts`");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("received.log");
        let mut command = Command::new("python3");
        command.arg(home.join("start.py")).arg("--log").arg(&log);
        let part = Part::start(&mut command, &directory.path().join("stderr"));
        Some(Self { part, log, _directory: directory })
    }

    /// Where to send to, for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.part.port("port"))
    }

    /// Everything received so far, in the receiver's words, without the colours of a terminal.
    pub(crate) fn received(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The items received so far that begin with `heading` (`Span #`, `LogRecord #`).
    pub(crate) fn items(&self, heading: &str) -> Vec<String> {
        let text = self.received();
        let begins = |line: &str| {
            ["Span #", "LogRecord #", "Metric #", "Resource", "Scope"]
                .iter()
                .any(|word| line.trim_start().starts_with(word))
        };
        let mut items: Vec<String> = Vec::new();
        let mut inside = false;
        for line in text.lines() {
            if begins(line) {
                inside = line.trim_start().starts_with(heading);
                if inside {
                    items.push(String::new());
                }
            }
            if let Some(item) = items.last_mut().filter(|_| inside) {
                item.push_str(line);
                item.push('\n');
            }
        }
        items
    }
}

/// What a collector does with whatever it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Reads nothing and says nothing.
    Silent,
    /// Says that it is broken.
    Fails,
    /// Says that it took everything, in bytes that mean nothing, and does not stop.
    Babbles,
    /// Speaks another protocol.
    Garbage,
    /// Sends the request on to another place.
    Redirects(String),
    /// Takes it.
    Takes,
}

/// A collector that does as it is told, and not as it should.
pub(crate) struct Unruly {
    port: u16,
    manner: Arc<Mutex<Manner>>,
}

impl Unruly {
    /// Listens on a port of its own, until the test process ends.
    pub(crate) fn start(manner: Manner) -> Self {
        Self::start_at(0, manner)
    }

    /// Listens on `port`.
    pub(crate) fn start_at(port: u16, manner: Manner) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let manner = Arc::new(Mutex::new(manner));
        let shared = Arc::clone(&manner);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let manner = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &manner));
            }
        });
        Self { port, manner }
    }

    /// Where to send to, for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From the next request on it does this.
    pub(crate) fn now(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }
}

/// Answers one request after another as the manner of the moment wants it; any failure ends the connection.
fn serve(mut stream: TcpStream, manner: &Mutex<Manner>) -> Option<()> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    loop {
        let now = || manner.lock().unwrap_or_else(PoisonError::into_inner).clone();
        while now() == Manner::Silent {
            thread::sleep(std::time::Duration::from_millis(50));
        }
        read_request(&mut stream)?;
        let answer = match now() {
            Manner::Silent => continue,
            Manner::Fails => "HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n".to_owned(),
            Manner::Garbage => "SSH-2.0-OpenSSH_9.9\r\n".to_owned(),
            Manner::Redirects(to) => {
                format!("HTTP/1.1 307 Elsewhere\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
            }
            Manner::Takes => {
                "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n".to_owned()
            }
            Manner::Babbles => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").ok()?;
                loop {
                    stream.write_all(&[0xA5; 4096]).ok()?;
                }
            }
        };
        stream.write_all(answer.as_bytes()).ok()?;
        if !answer.starts_with("HTTP") {
            return None;
        }
    }
}

fn read_request(stream: &mut TcpStream) -> Option<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length:")).map_or(0, |n| n.trim().parse().unwrap());
    std::io::copy(&mut stream.take(length), &mut std::io::sink()).ok()?;
    Some(())
}
