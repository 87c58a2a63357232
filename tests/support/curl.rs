//! The agent: the real `curl` command, as a person or a script would use it.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use super::Answer;

/// One call by `curl`.
pub(crate) struct Curl {
    url: String,
    arguments: Vec<String>,
    body: Option<Vec<u8>>,
}

impl Curl {
    /// A `GET` of `url`.
    pub(crate) fn get(url: impl Into<String>) -> Self {
        Self { url: url.into(), arguments: Vec::new(), body: None }
    }

    /// A `POST` of `body` to `url`.
    pub(crate) fn post(url: impl Into<String>, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let call = Self { url: url.into(), arguments: Vec::new(), body: Some(body.into()) };
        call.header("Content-Type", content_type)
    }

    /// With the agent's token.
    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// With a header field.
    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        self.argument("-H").argument(&format!("{name}: {value}"))
    }

    /// With an option of `curl` itself.
    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// The command line so far, for tests that watch a call while it runs.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--path-as-is", "--globoff", "--noproxy", "*", "--max-time", "60"]);
        command.args(&self.arguments);
        if self.body.is_some() {
            command.args(["--data-binary", "@-"]);
        }
        command.arg(&self.url).stderr(Stdio::piped()).stdout(Stdio::piped());
        command.stdin(if self.body.is_some() { Stdio::piped() } else { Stdio::null() });
        command
    }

    /// Sends it; the answer, or what `curl` had to complain about.
    pub(crate) fn attempt(self) -> Result<Answer, String> {
        let mut child = self.command().arg("--include").spawn().expect("curl is installed");
        let stdin = child.stdin.take();
        let body = self.body.unwrap_or_default();
        let writer = std::thread::spawn(move || {
            if let Some(mut stdin) = stdin {
                // Who answers early does not read the rest.
                stdin.write_all(&body).ok();
            }
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(answer(&output.stdout))
    }

    /// Sends it; the answer.
    #[track_caller]
    pub(crate) fn send(self) -> Answer {
        let line = format!("curl {}", self.url);
        self.attempt().unwrap_or_else(|complaint| panic!("{line}: {complaint}"))
    }
}

// `--include` prints interim answers too, each with its own head.
fn answer(output: &[u8]) -> Answer {
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let found = Answer::new(&head, output[end + 4..].to_vec());
    if (100..200).contains(&found.status) { answer(&output[end + 4..]) } else { found }
}
