//! The fuzz targets' bodies. Those in `targets/` are shared with the stable tests; `config` needs the source of the
//! binary, which no other crate can use, and is here only.

pub mod config;
#[path = "../../crates/countersign/src/environment.rs"]
#[expect(dead_code, reason = "read by a parser that is under test, or used by the binary only")]
mod environment;
#[path = "targets/mod.rs"]
mod targets;

/// Calls the body of `target` with `bytes`.
///
/// # Panics
/// Where a law does not hold: that is a finding.
pub fn run(target: &str, bytes: &[u8]) {
    let (_, body) = targets::TARGETS.iter().find(|(name, _)| *name == target).expect("a known target");
    body(bytes);
}
