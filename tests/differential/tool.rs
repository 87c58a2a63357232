//! The tool that takes nothing on trust: a socket, and a log of every byte that came out of it.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use super::wire::{self, Received};

/// A running raw tool. Its threads end with the process.
pub(super) struct RawTool {
    port: u16,
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    requests: Vec<Received>,
    /// By connection.
    bytes: Vec<Vec<u8>>,
}

impl RawTool {
    /// Listens on loopback.
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let log = Arc::new(Mutex::new(Log::default()));
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let log = Arc::clone(&kept);
                std::thread::spawn(move || serve(stream, &log));
            }
        });
        Self { port, log }
    }

    /// Its base URL.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Everything that reached it, in the order in which it was whole.
    pub(super) fn received(&self) -> Vec<Received> {
        self.log.lock().unwrap().requests.clone()
    }

    /// Where one of `secrets` is in the bytes that it read.
    pub(super) fn anywhere(&self, secrets: &[&str]) -> Vec<String> {
        let log = self.log.lock().unwrap();
        let holds = |bytes: &&Vec<u8>| {
            secrets.iter().any(|secret| bytes.windows(secret.len()).any(|window| window == secret.as_bytes()))
        };
        log.bytes.iter().filter(holds).map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Log>) {
    let connection = {
        let mut log = log.lock().unwrap();
        log.bytes.push(Vec::new());
        log.bytes.len() - 1
    };
    let mut waiting = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = stream.read(&mut buffer).unwrap_or(0);
        log.lock().unwrap().bytes[connection].extend_from_slice(&buffer[..read]);
        waiting.extend_from_slice(&buffer[..read]);
        loop {
            match wire::request(&waiting) {
                Ok(Some((request, length))) => {
                    waiting.drain(..length);
                    log.lock().unwrap().requests.push(request);
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
                    stream.write_all(answer).ok();
                }
                Ok(None) => break,
                Err(fault) => {
                    log.lock().unwrap().requests.push(Received::faulty(&waiting, &fault));
                    return;
                }
            }
        }
        if read == 0 {
            if !waiting.is_empty() {
                log.lock().unwrap().requests.push(Received::faulty(&waiting, "broken off"));
            }
            return;
        }
    }
}
