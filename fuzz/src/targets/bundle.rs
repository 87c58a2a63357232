//! Policy sources: whatever somebody puts in the directory that policies are read from.

use std::{fs, path::PathBuf};

use model::Catalogue;
use policy::{Engine, Source};

const POLICY: &str = "package countersign.org\n\ndeny contains {\"code\": \"x\"} if data.countersign.org.most > 3\n";

thread_local! {
    static DIRECTORY: tempfile::TempDir = tempfile::tempdir().expect("a directory");
}

/// `r` and a policy, `j` and a data document in JSON, `y` and one in YAML. Nothing makes the loader panic, and what is
/// loaded is loaded again as the same.
pub(super) fn bundle(bytes: &[u8]) {
    let Some((kind, text)) = bytes.split_first() else { return };
    let (policy, data) = match kind {
        b'r' => (text, None),
        b'j' => (POLICY.as_bytes(), Some("data.json")),
        b'y' => (POLICY.as_bytes(), Some("data.yaml")),
        _ => return,
    };
    let source = DIRECTORY.with(|directory| {
        let place = |name: &str| -> PathBuf { directory.path().join(name) };
        for name in ["data.json", "data.yaml"] {
            fs::remove_file(place(name)).ok();
        }
        fs::write(place("a.rego"), policy).expect("it is written");
        if let Some(name) = data {
            fs::write(place(name), text).expect("it is written");
        }
        Source::read("org", directory.path(), None)
    });
    let Ok(source) = source else { return };
    let load = || Engine::load(std::slice::from_ref(&source), &Catalogue::default());
    match (load(), load()) {
        (Ok(one), Ok(other)) => assert_eq!(one.revision(), other.revision()),
        (Err(one), Err(other)) => {
            assert_eq!(one.to_string(), other.to_string());
            assert!(one.to_string().len() < 64 * 1024, "{} bytes to say what is wrong", one.to_string().len());
        }
        (one, other) => panic!("loaded once and refused once: {one:?} {other:?}"),
    }
}
