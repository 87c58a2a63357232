//! The other end of the health listener: one blocking request, as an exec probe makes it.

use std::{
    fs, io,
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use http::HeaderMap;
use net::{ClientOptions, FetchRequest, HttpClient, Roots, UrlTrust};

use crate::{
    exchange::{self, Reply},
    failure::{Exit, Failure},
};

/// For connecting, and for each read and write. Probes are made often and should fail fast.
const PATIENCE: Duration = Duration::from_secs(2);
/// The largest answer that is read.
const MAX_BYTES: u32 = 256 * 1024;

/// What the listener answered.
pub(crate) struct Answer {
    /// Whether it said yes.
    pub(crate) ok: bool,
    /// What it said.
    pub(crate) body: String,
}

impl Answer {
    /// The answer in a word.
    pub(crate) const fn word(&self) -> &'static str {
        if self.ok { "ok" } else { "not ok" }
    }
}

/// Asks the health listener at `address` for `path`.
pub(crate) fn ask(address: SocketAddr, path: &str) -> Result<Answer, Failure> {
    let reply = exchange(address, path)
        .map_err(|error| Failure::because(Exit::Unavailable, format!("no answer from {address}"), error))?;
    answer(address, reply.status, &reply.body)
}

/// The same over TLS, believing a certificate for that address that one of the `authorities` (a PEM file) signed.
pub(crate) fn ask_over_tls(address: SocketAddr, path: &str, authorities: &Path) -> Result<Answer, Failure> {
    let pem = fs::read(authorities)
        .map_err(|error| Failure::because(Exit::Configuration, authorities.display().to_string(), error))?;
    let tls = net::client_config(Roots::Pem(pem)).map_err(Failure::configuration)?;
    let client = HttpClient::new(ClientOptions::new(tls, UrlTrust::Operator));
    let unavailable =
        |error: &dyn std::fmt::Display| Failure::new(Exit::Unavailable, format!("no answer from {address}: {error}"));
    let url = format!("https://{address}{path}").parse().map_err(|error: http::uri::InvalidUri| unavailable(&error))?;
    let request =
        FetchRequest { url, headers: HeaderMap::new(), deadline: 2 * PATIENCE, max_bytes: MAX_BYTES as usize };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| unavailable(&error))?;
    let fetched = runtime.block_on(net::fetch(&client, request)).map_err(|error| unavailable(&error))?;
    answer(address, Some(fetched.status.as_u16()), &String::from_utf8_lossy(&fetched.body))
}

fn answer(address: SocketAddr, status: Option<u16>, body: &str) -> Result<Answer, Failure> {
    match status {
        Some(200) => Ok(Answer { ok: true, body: body.trim_end().to_owned() }),
        Some(503) => Ok(Answer { ok: false, body: body.trim_end().to_owned() }),
        _ => Err(Failure::new(Exit::Unavailable, format!("{address} is no health listener of countersign's"))),
    }
}

fn exchange(address: SocketAddr, path: &str) -> io::Result<Reply> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    let reply = exchange::get(stream, &address.to_string(), path, MAX_BYTES.into(), PATIENCE)?;
    Ok(reply.unwrap_or(Reply { status: None, body: String::new() }))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    use super::*;

    fn answering(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 256];
            let read = stream.read(&mut request).unwrap();
            assert!(request[..read].starts_with(b"GET /readyz HTTP/1.0\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn a_probe_tells_ready_not_ready_and_something_else_apart() {
        assert!(ask(answering("HTTP/1.0 200 OK\r\n\r\n{}\n"), "/readyz").unwrap().ok);
        let not = ask(answering("HTTP/1.0 503 Service Unavailable\r\n\r\n{\"ready\":false}\n"), "/readyz").unwrap();
        assert!(!not.ok && not.body == "{\"ready\":false}");
        assert!(ask(answering("SSH-2.0-OpenSSH\r\n"), "/readyz").is_err());
    }

    #[test]
    fn nobody_there_is_unavailable() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let failure = ask(address, "/livez").err().unwrap();
        assert_eq!(failure.exit_code(), std::process::ExitCode::from(69));
    }
}
