//! The memory of a running sidecar is nobody else's, its own user's other processes among them.

use std::process::{Child, Stdio};

use crate::support::{process, sidecar::Setup, skipped, tool::Tool, world};

/// The sidecar's user, and another. Nobody on the machine has these numbers.
const SIDECAR: u32 = 64_103;
const OTHER: u32 = 64_104;
/// Asks to trace a process (`PTRACE_ATTACH`); exits with 0 where it may.
const TRACE: &str = "import ctypes, sys; sys.exit(ctypes.CDLL(None).ptrace(16, int(sys.argv[1]), 0, 0) != 0)";

#[test]
fn no_core_is_dumped_and_nobody_but_root_looks_into_it() {
    let Some(world) = world() else { return };
    if !process::is_root() {
        return skipped("another user", "only root can run the sidecar as somebody else");
    }
    let Some(tool) = Tool::plain() else { return };
    let mut setup = Setup::new(&world.openid, &tool);
    setup.user = Some(SIDECAR);
    setup.environment.push(("TOOL_KEY".to_owned(), "a-secret-of-the-environment".to_owned()));
    let sidecar = setup.start();
    let id = sidecar.daemon.id();
    let limits = std::fs::read_to_string(format!("/proc/{id}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");

    for user in [SIDECAR, OTHER] {
        for file in ["environ", "maps", "mem", "auxv", "fd", "cwd", "exe"] {
            assert!(!reads(user, id, file), "{user} looks into {file}");
        }
        assert!(!traces(user, id), "{user} traces the sidecar");
    }
    // The same questions of a process that does nothing for itself have answers, for its own user.
    let open = Sleeper::start(SIDECAR);
    for file in ["environ", "maps", "fd", "cwd"] {
        assert!(reads(SIDECAR, open.0.id(), file), "this test could not fail for {file}");
    }
    if !traces(SIDECAR, open.0.id()) {
        println!("processes of one user may not trace each other on this machine, or there is no Python to try");
    }
    assert!(!process::as_user(OTHER, "kill").args(["-9", &id.to_string()]).output().unwrap().status.success());
    assert!(sidecar.is_ready());
}

fn reads(user: u32, process: u32, file: &str) -> bool {
    let path = format!("/proc/{process}/{file}");
    let mut command = match file {
        "fd" | "cwd" => process::as_user(user, "ls"),
        _ => process::as_user(user, "head"),
    };
    if !["fd", "cwd"].contains(&file) {
        command.arg("--bytes=1");
    }
    command.arg(if file == "cwd" { path + "/" } else { path }).output().unwrap().status.success()
}

fn traces(user: u32, process: u32) -> bool {
    process::as_user(user, "python3").args(["-c", TRACE, &process.to_string()]).output().unwrap().status.success()
}

/// A process of `user` that waits.
struct Sleeper(Child);

impl Sleeper {
    fn start(user: u32) -> Self {
        let child =
            process::as_user(user, "cat").env("NOTHING", "here").stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        let sleeper = Self(child.unwrap());
        let path = format!("/proc/{}/comm", sleeper.0.id());
        crate::support::eventually("the program", || (std::fs::read_to_string(&path).ok()? == "cat\n").then_some(()));
        sleeper
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
