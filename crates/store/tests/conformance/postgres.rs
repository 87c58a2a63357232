//! A real PostgreSQL server, started here on a Unix socket in a folder of its own.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, OnceLock},
};

/// The script that keeps the server, as text: a user that may not enter this folder runs it too.
const SCRIPT: &str = include_str!("../../../../tests/parts/postgres/server.sh");

/// A server that ends when this process does.
pub(crate) struct Server {
    _child: Child,
    talk: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    socket: PathBuf,
    bin: PathBuf,
}

/// The one that all tests of this process share, each with a database of its own.
pub(crate) fn shared() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(Server::start).as_ref()
}

impl Server {
    /// `None`, said aloud, where PostgreSQL is not installed.
    pub(crate) fn start() -> Option<Self> {
        let installed = std::fs::read_dir("/usr/lib/postgresql").is_ok_and(|mut versions| versions.next().is_some());
        if !installed {
            let required = std::env::var_os("COUNTERSIGN_TEST_PARTS_REQUIRED").is_some();
            assert!(!required, "postgresql is required here: apt-get install postgresql");
            println!("SKIPPED postgresql: it is not installed");
            return None;
        }
        let root = is_root();
        let mut command = if root { Command::new("setpriv") } else { Command::new("sh") };
        if root {
            // PostgreSQL does not run as root.
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "sh"]);
        }
        command.arg("-c").arg(SCRIPT).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).expect("the server says that it is ready");
        let path = |member: &str| PathBuf::from(ready[member].as_str().unwrap());
        Some(Self { _child: child, talk: Mutex::new((stdin, stdout)), socket: path("socket"), bin: path("bin") })
    }

    /// Says `word` to the script and waits until it is done.
    pub(crate) fn tell(&self, word: &str) {
        let mut talk = self.talk.lock().unwrap();
        writeln!(talk.0, "{word}").unwrap();
        let mut line = String::new();
        talk.1.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), word);
    }

    pub(crate) fn create_database(&self, name: &str) {
        let made = Command::new(self.bin.join("createdb"))
            .args(["-U", "countersign", "-h"])
            .arg(&self.socket)
            .arg(name)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// Runs `program` of PostgreSQL's own on the database `name`.
    pub(crate) fn run(&self, program: &str, name: &str, arguments: &[&str]) {
        let done = Command::new(self.bin.join(program))
            .args(["-U", "countersign", "-d", name, "-h"])
            .arg(&self.socket)
            .args(arguments)
            .output()
            .unwrap();
        assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
    }

    pub(crate) fn url(&self, database: &str) -> String {
        let socket = self.socket.display().to_string().replace('/', "%2F");
        format!("postgres://countersign@{socket}/{database}")
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}
