//! The tool behind the sidecar, and the log of exactly what reached it.

use std::{path::PathBuf, process::Command};

use serde_json::Value;

use super::process::Part;

/// A running tool.
pub(crate) struct Tool {
    part: Part,
    log: PathBuf,
    _directory: tempfile::TempDir,
}

impl Tool {
    /// Over TLS, under a certificate authority of its own; `None` (said aloud) without Node.js.
    pub(crate) fn secure() -> Option<Self> {
        Self::start(&[], true)
    }

    /// Over TLS as `arguments` say (see the part's own head): another certificate, one version of HTTP only.
    pub(crate) fn secured(arguments: &[&str]) -> Option<Self> {
        Self::start(arguments, true)
    }

    /// Over plain HTTP/1.1.
    pub(crate) fn plain() -> Option<Self> {
        Self::start(&[], false)
    }

    /// In clear text, over HTTP/2 and nothing else.
    pub(crate) fn plain_http2() -> Option<Self> {
        Self::start(&["--http", "2"], false)
    }

    fn start(arguments: &[&str], secure: bool) -> Option<Self> {
        if Command::new("node").arg("--version").output().is_err() {
            super::skipped("tool", "Node.js is not installed");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("requests.jsonl");
        std::fs::write(&log, "").unwrap();
        let mut command = Command::new("node");
        command.arg(super::root().join("tests/parts/tool/server.mjs")).arg("--log").arg(&log).args(arguments);
        if secure {
            command.arg("--tls").arg(directory.path().join("tls"));
        } else {
            command.arg("--plain");
        }
        let part = Part::start(&mut command, &directory.path().join("stderr"));
        Some(Self { part, log, _directory: directory })
    }

    /// Its base URL.
    pub(crate) fn url(&self) -> &str {
        self.part.ready["url"].as_str().unwrap()
    }

    /// The file of the certificate authority to trust, for one that was started over TLS.
    pub(crate) fn certificate_authority(&self) -> Option<&str> {
        self.part.ready["ca"].as_str()
    }

    /// Every request so far.
    pub(crate) fn requests(&self) -> Vec<Value> {
        self.logged().into_iter().filter(|line| line["headers"].is_array()).collect()
    }

    /// Every line of its log so far: requests, and what it has to say of answers.
    pub(crate) fn logged(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap();
        // The last line may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The requests that carry `mark` in their `X-Mark` field.
    pub(crate) fn marked(&self, mark: &str) -> Vec<Value> {
        self.requests().into_iter().filter(|request| values(request, "x-mark").contains(&mark.to_owned())).collect()
    }
}

/// The values of a header field of a logged request.
pub(crate) fn values(request: &Value, name: &str) -> Vec<String> {
    let pairs = request["headers"].as_array().unwrap();
    let named = pairs.iter().filter(|pair| pair[0].as_str().unwrap().eq_ignore_ascii_case(name));
    named.map(|pair| pair[1].as_str().unwrap().to_owned()).collect()
}
