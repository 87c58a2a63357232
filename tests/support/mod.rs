//! What the behaviour tests share: the real parts, the sidecar under test, the agent's `curl`, and waiting with a
//! deadline instead of sleeping.

pub(crate) mod authority;
pub(crate) mod changes;
pub(crate) mod curl;
pub(crate) mod front;
pub(crate) mod http;
pub(crate) mod joining;
pub(crate) mod openid;
pub(crate) mod otlp;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod sidecar;
pub(crate) mod tool;
pub(crate) mod webhook;
pub(crate) mod world;

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

pub(crate) use curl::Curl;
pub(crate) use http::Answer;
pub(crate) use sidecar::Sidecar;
pub(crate) use world::{World, world};

/// Far more than anything here takes, because the machine may be busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Says that a test did not run and why; where the parts are required, that is a failure.
pub(crate) fn skipped(name: &str, reason: &str) {
    assert!(std::env::var_os("COUNTERSIGN_TEST_PARTS_REQUIRED").is_none(), "{name} is required here: {reason}");
    println!("SKIPPED {name}: {reason}");
}

/// Asks again until `ask` has an answer.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A word that no other test uses: it marks the requests of one call, so that tests can share a tool.
pub(crate) fn mark() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("mark-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A loopback port that nobody has. Taken from below the range of outgoing connections, so that none of those takes it
/// before the process that it is meant for.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let offset = std::process::id().wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        let port = u16::try_from(20_000 + offset).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// SHA-256 in lower-case hexadecimal, as the tool's log has it.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
