//! Plain HTTP/1.1 over a socket: to steer the parts, and to say to the sidecar what no well-behaved client would.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use serde_json::Value;

use super::PATIENCE;

/// An answer, whoever gave it.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// The fields in their order, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// The body, without any transfer coding.
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// From the bytes of a head (status line and fields) and a body.
    pub(crate) fn new(head: &str, body: Vec<u8>) -> Self {
        let mut lines = head.lines();
        let status_line = lines.next().unwrap_or_default();
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Self { status: status.unwrap_or_else(|| panic!("not a status line: {status_line:?}")), headers, body }
    }

    /// The first field of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("status {}, not JSON: {}", self.status, self.text()))
    }

    /// The code of a refusal, having checked that it is one and is formed as promised.
    #[track_caller]
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{} {}", self.status, self.text());
        let problem = self.json();
        let code = problem["code"].as_str().unwrap().to_owned();
        assert_eq!(problem["type"], format!("urn:countersign:denial:{code}"));
        assert_eq!(problem["status"], self.status);
        assert!(
            problem["title"].is_string() && problem["detail"].is_string() && problem["retry"].is_string(),
            "{problem}"
        );
        code
    }

    /// The decision's id, which every answer to a request that parsed carries.
    #[track_caller]
    pub(crate) fn decision_id(&self) -> String {
        let id = self.header("countersign-decision-id");
        id.unwrap_or_else(|| panic!("no decision id: {} {:?} {}", self.status, self.headers, self.text())).to_owned()
    }

    /// Asserts status and code of a refusal.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) -> &Self {
        assert_eq!((self.status, self.code().as_str()), (status, code), "{}", self.text());
        self
    }

    /// Asserts that the call went through with `status`.
    #[track_caller]
    pub(crate) fn went(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{:?} {}", self.headers, self.text());
        self
    }
}

/// Sends `request` as it stands, byte for byte, and reads until the other side closes or `PATIENCE` is over.
pub(crate) fn raw(port: u16, request: &[u8]) -> Vec<u8> {
    let mut stream = connect(port);
    // A server may refuse, and close, before it has read everything.
    stream.write_all(request).ok();
    stream.flush().ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    answer
}

/// A connection that gives up in the end.
pub(crate) fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads one answer from the bytes of a connection that was closed after it; `None` where there is none.
pub(crate) fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let rest = &bytes[end + 4..];
    let answer = Answer::new(&head, Vec::new());
    if (100..200).contains(&answer.status) {
        return parse(rest);
    }
    let body = match (answer.header("transfer-encoding"), answer.header("content-length")) {
        (Some("chunked"), _) => unchunked(rest),
        (_, Some(length)) => rest[..rest.len().min(length.parse().unwrap())].to_vec(),
        _ => rest.to_vec(),
    };
    Some(Answer { body, ..answer })
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(String::from_utf8_lossy(&rest[..end]).trim(), 16).unwrap_or(0);
        if size == 0 || rest.len() < end + 2 + size {
            break;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = rest.get(end + 2 + size + 2..).unwrap_or_default();
    }
    body
}

/// One well-formed request on a connection of its own.
pub(crate) fn request(port: u16, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    let answer = raw(port, &[text.as_bytes(), body].concat());
    parse(&answer).unwrap_or_else(|| panic!("no answer to {method} {path}: {:?}", String::from_utf8_lossy(&answer)))
}

/// The same without a body.
pub(crate) fn get(port: u16, path: &str) -> Answer {
    request(port, "GET", path, &[], b"")
}

/// Posts a form, as OAuth's endpoints want it.
pub(crate) fn post_form(port: u16, path: &str, headers: &[(&str, &str)], fields: &[(&str, &str)]) -> Answer {
    let form = fields.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect::<Vec<_>>();
    let headers = [headers, &[("content-type", "application/x-www-form-urlencoded")]].concat();
    request(port, "POST", path, &headers, form.join("&").as_bytes())
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
