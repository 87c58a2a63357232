//! Child processes that never outlive the test, however it ends.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    time::Instant,
};

use serde_json::Value;

use super::PATIENCE;

/// A part: a process that prints one line of JSON when it is ready and ends when its standard input closes.
pub(crate) struct Part {
    child: Child,
    // The kernel closes it when this process ends, and then the part ends.
    _stdin: ChildStdin,
    /// What the ready line said.
    pub(crate) ready: Value,
}

impl Part {
    /// Starts `command` and waits until it is ready. Its standard error goes to the file `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(log).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdin = child.stdin.take().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (line_read, line) = mpsc::channel();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            let mut text = String::new();
            reader.read_line(&mut text).ok();
            line_read.send(text).ok();
            // Whatever else it says must not block it.
            std::io::copy(&mut reader, &mut std::io::sink()).ok();
        });
        let text = line.recv_timeout(PATIENCE).unwrap_or_default();
        let ready = serde_json::from_str(&text).unwrap_or_else(|_| {
            panic!(
                "{command:?} is not ready, it said {text:?} and {}",
                std::fs::read_to_string(log).unwrap_or_default()
            )
        });
        Self { child, _stdin: stdin, ready }
    }

    /// A port of the ready line.
    pub(crate) fn port(&self, name: &str) -> u16 {
        u16::try_from(self.ready[name].as_u64().unwrap()).unwrap()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A process of the product. It does not watch its standard input, so a small watchman does that for it.
pub(crate) struct Daemon {
    child: Child,
    watchman: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command`, with both its outputs in the file `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let output = File::options().create(true).append(true).open(log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let watchman = Command::new("sh")
            .args(["-c", "read -r _; kill -9 \"$1\" 2> /dev/null", "watchman", &child.id().to_string()])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, watchman, log: log.to_owned() }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it printed so far.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How it ended, where it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Sends it a signal by name (`TERM`).
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Kills it in the middle of whatever it does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it ended by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        super::eventually("the process to end", || self.ended())
    }

    /// The most memory it ever had resident, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // First the watchman: the process id could be somebody else's once ours is gone.
        self.watchman.kill().ok();
        self.watchman.wait().ok();
        self.child.kill().ok();
        self.child.wait().ok();
        assert!(std::thread::panicking() || !self.output().contains("panicked"), "{}", self.output());
    }
}

/// What a command that ends by itself printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The exit code; `None` where a signal ended it.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

impl Ran {
    /// Its standard output, which has to be there: it ended well.
    #[track_caller]
    pub(crate) fn well(self) -> String {
        assert_eq!(self.code, Some(0), "{}\n{}", self.stdout, self.stderr);
        self.stdout
    }

    /// Its standard output as one JSON value a line.
    #[track_caller]
    pub(crate) fn lines(self) -> Vec<Value> {
        let lines = self.well();
        lines.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"))).collect()
    }
}

/// The product's command, in an environment without settings of whoever runs the tests.
pub(crate) fn countersign() -> Command {
    let mut command = Command::new(program());
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// The product. Another build of it, where somebody asks about the one that ships.
fn program() -> OsString {
    std::env::var_os("COUNTERSIGN_TEST_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_countersign").into())
}

/// The same, where no file can grow beyond so many bytes: writing more fails as on a full disk, and comes with a signal
/// that ends a process which does not see to it.
pub(crate) fn limited(bytes: u64) -> Command {
    let mut command = Command::new("sh");
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    // The shell counts in blocks of 512.
    command.args(["-c", "ulimit -S -f \"$0\"; exec \"$@\"", &(bytes / 512).to_string()]);
    command.arg(program());
    command
}

/// Whether this process may become any user, mount file systems and make network namespaces.
pub(crate) fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
}

/// `program` as the user `uid`, with no other rights than that user has. Only root can.
pub(crate) fn as_user(uid: u32, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    // Not our own: what is installed for us alone is nothing to others.
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let id = uid.to_string();
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
    command.arg("--no-new-privs").arg(program);
    command
}

/// The product's command as the user `uid`. Where the repository is nobody else's to look into, from a copy.
pub(crate) fn countersign_as(uid: u32) -> Command {
    static COPY: OnceLock<Option<tempfile::TempDir>> = OnceLock::new();
    let original = program();
    let copy = COPY.get_or_init(|| {
        let reachable = as_user(uid, &original).arg("--version").output().is_ok_and(|ran| ran.status.success());
        if reachable {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(directory.path(), readable).unwrap();
        std::fs::copy(&original, directory.path().join("countersign")).unwrap();
        Some(directory)
    });
    match copy {
        Some(directory) => as_user(uid, directory.path().join("countersign")),
        None => as_user(uid, original),
    }
}

/// Runs `command` to its end, which it has to reach.
pub(crate) fn run(command: &mut Command) -> Ran {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts");
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        stderr.read_to_end(&mut text).ok();
        text
    });
    let watch = Watch::over(child.id());
    let mut text = Vec::new();
    stdout.read_to_end(&mut text).ok();
    let status = child.wait().unwrap();
    watch.end();
    let told = String::from_utf8_lossy(&reader.join().unwrap()).into_owned();
    Ran { code: status.code(), stdout: String::from_utf8_lossy(&text).into_owned(), stderr: told }
}

/// Kills a command that hangs, so that the test fails instead of hanging too.
struct Watch(mpsc::Sender<()>);

impl Watch {
    fn over(id: u32) -> Self {
        let (ended, end) = mpsc::channel::<()>();
        let deadline = Instant::now() + 3 * PATIENCE;
        std::thread::spawn(move || {
            let left = deadline.saturating_duration_since(Instant::now());
            if end.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Timeout) {
                Command::new("kill").args(["-9", &id.to_string()]).status().ok();
            }
        });
        Self(ended)
    }

    fn end(self) {
        self.0.send(()).ok();
    }
}
