//! A real PostgreSQL server on a Unix socket of its own.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

/// A running server, which ends when its standard input does: with this, or with this process.
pub(crate) struct Postgres {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    socket: String,
}

impl Postgres {
    /// Starts one; `None` (said aloud) where it is not installed.
    pub(crate) fn start() -> Option<Self> {
        if !fs::read_dir("/usr/lib/postgresql").is_ok_and(|mut versions| versions.next().is_some()) {
            super::skipped("postgresql", "it is not installed: apt-get install postgresql");
            return None;
        }
        let mut command = Command::new("sh");
        if fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
            // PostgreSQL does not run as root.
            command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "sh"]);
        }
        // As text: that user may not be able to read this folder.
        command.arg("-c").arg(fs::read_to_string(super::root().join("tests/parts/postgres/server.sh")).unwrap());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, mut stdout) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).expect("PostgreSQL says that it is ready");
        let socket = ready["socket"].as_str().unwrap().to_owned();
        Some(Self { child, stdin, stdout, socket })
    }

    /// The URL of its database.
    pub(crate) fn url(&self) -> String {
        format!("postgres://countersign@{}/postgres", self.socket.replace('/', "%2F"))
    }

    /// Has the authority that `config` in `directory` is of keep its state here.
    pub(crate) fn keep(&self, directory: &Path, config: &mut Value) {
        let url = directory.join("url");
        fs::write(&url, self.url()).unwrap();
        fs::set_permissions(&url, fs::Permissions::from_mode(0o600)).unwrap();
        config["authority"]["database"] = json!({"postgres": {"url": {"file": "url"}}});
    }

    /// `crash` (as by a power cut, and up again), `stop`, `start`, `pause` (there, and silent), `resume`, `standby` (a second
    /// server that has whatever is acknowledged), `late` (it gets nothing more) or `failover` (it takes the first one's place);
    /// it is done when this returns.
    pub(crate) fn tell(&mut self, word: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{word}").unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), word);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Not killed: what it started would stay.
        drop(self.stdin.take());
        self.child.wait().ok();
    }
}
