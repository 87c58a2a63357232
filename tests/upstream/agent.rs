//! An agent that is Node.js, and says everything about the answers it gets, over either version of HTTP.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

/// Does `requests` one after the other (see the part's own head); the answers in their order.
pub(super) fn agent(requests: &[Value]) -> Vec<Value> {
    let mut child = Command::new("node")
        .arg(crate::support::root().join("tests/parts/agent/agent.mjs"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(json!(requests).to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let answers: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), requests.len(), "an agent that gave up: {answers:?}");
    answers
}

/// Where and how the agent calls.
#[derive(Clone, Copy)]
pub(super) struct Caller<'a> {
    /// The sidecar's origin.
    pub(super) origin: &'a str,
    /// `1` or `2`.
    pub(super) http: &'a str,
    /// The authority of the sidecar's certificate, where it has one.
    pub(super) authority: Option<&'a str>,
    pub(super) token: &'a str,
}

impl Caller<'_> {
    /// A call of the tool's odd answer `name`; `more` adds to the request.
    pub(super) fn odd(&self, method: &str, name: &str, more: &Value) -> Value {
        let mut request = json!({
            "url": format!("{}/orders/v1/odd/{name}", self.origin),
            "http": self.http,
            "method": method,
            "headers": {"authorization": format!("Bearer {}", self.token)},
        });
        if let Some(authority) = self.authority {
            request["ca"] = json!(authority);
        }
        for (name, value) in more.as_object().into_iter().flatten() {
            if name == "headers" {
                for (field, value) in value.as_object().unwrap() {
                    request["headers"][field] = value.clone();
                }
            } else {
                request[name] = value.clone();
            }
        }
        request
    }
}
