//! The OTLP receiver and what it wrote down.

use std::{path::PathBuf, process::Command};

use super::process::Part;

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
