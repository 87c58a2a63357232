//! Policy sources: whatever somebody puts in the directory that policies are read from, or sends as a bundle.

use std::{
    fs,
    path::{Path, PathBuf},
};

use model::Catalogue;
use policy::{
    Engine, Severity, Source,
    bundle::{Algorithm, Bundle, Keys, MAX_UNPACKED_BYTES, Signature},
};

const POLICY: &str = "package countersign.org\n\ndeny contains {\"code\": \"x\"} if data.countersign.org.most > 3\n";

/// Whose signature counts: nobody here has the other half of it (RFC 8032 §7.1, test 1).
const KEY: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
-----END PUBLIC KEY-----
";

thread_local! {
    static DIRECTORY: tempfile::TempDir = tempfile::tempdir().expect("a directory");
}

/// `r` and a policy, `j` and a data document in JSON, `y` and one in YAML; `g` and a bundle, `t` and the tar in one, `s` and
/// its signatures. Nothing makes the loader or the check panic,
/// what the check finds no error in is loaded, and what is loaded is loaded again as the same.
pub(super) fn bundle(bytes: &[u8]) {
    let Some((kind, text)) = bytes.split_first() else { return };
    match kind {
        b'g' => return archive(text),
        b't' => return archive(&gzipped(text)),
        b's' => {
            return archive(&gzipped(
                &[entry(".signatures.json", text), entry("a.rego", POLICY.as_bytes()), vec![0; 1024]].concat(),
            ));
        }
        _ => {}
    }
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
    let checked = policy::check(std::slice::from_ref(&source), Some(&Catalogue::default()));
    let sound = checked.is_ok_and(|found| found.iter().all(|problem| problem.severity == Severity::Warning));
    assert!(!sound || load().is_ok(), "what has no error loads");
    match (load(), load()) {
        (Ok(one), Ok(other)) => assert_eq!(one.revision(), other.revision()),
        (Err(one), Err(other)) => {
            assert_eq!(one.to_string(), other.to_string());
            assert!(one.to_string().len() < 64 * 1024, "{} bytes to say what is wrong", one.to_string().len());
        }
        (one, other) => panic!("loaded once and refused once: {one:?} {other:?}"),
    }
}

/// A bundle is opened or refused, and always the same way; it holds no more than it may and nothing outside itself; and
/// no signature that was not made with the key is taken for one.
fn archive(bytes: &[u8]) {
    let mut keys = Keys::default();
    keys.add("k", Algorithm::EdDsa, KEY.as_bytes(), None).expect("a key");
    assert!(Bundle::open(bytes, Some(&keys)).is_err(), "a signature without its key");
    let (one, other) = (Bundle::open(bytes, None), Bundle::open(bytes, None));
    let (Ok(one), Ok(other)) = (&one, &other) else {
        assert_eq!(one.err(), other.err());
        return;
    };
    assert!(!matches!(one.signature(), Signature::Verified(_)));
    let listed = one.listed();
    assert_eq!(listed, other.listed());
    assert!(listed.iter().map(|file| file.bytes).sum::<usize>() <= MAX_UNPACKED_BYTES);
    for file in &listed {
        let parts = || file.path.split('/');
        assert!(!parts().any(|part| matches!(part, "" | "." | "..")), "{}", file.path);
    }
    let shown = Path::new("b.tar.gz");
    match (one.source("org", None, shown), other.source("org", None, shown)) {
        (Ok(one), Ok(other)) => assert_eq!(one.policies, other.policies),
        (Err(one), Err(other)) => assert_eq!(one.to_string(), other.to_string()),
        (one, other) => panic!("read once and refused once: {one:?} {other:?}"),
    }
}

/// An entry of a tar.
fn entry(name: &str, content: &[u8]) -> Vec<u8> {
    let mut entry = vec![0; 512];
    entry[..name.len()].copy_from_slice(name.as_bytes());
    entry[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    entry[148..156].copy_from_slice(b"        ");
    entry[156] = b'0';
    let sum: u32 = entry.iter().map(|byte| u32::from(*byte)).sum();
    entry[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    entry.extend_from_slice(content);
    entry.resize(entry.len().next_multiple_of(512), 0);
    entry
}

/// `bytes` as a gzip that does not compress (RFC 1951 §3.2.4, RFC 1952).
fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    for block in bytes.chunks(0xffff) {
        let length = u16::try_from(block.len()).expect("a block");
        out.push(0);
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.extend([1, 0, 0, 0xff, 0xff]);
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(sum & 1));
        }
    }
    out.extend((!sum).to_le_bytes());
    out.extend(u32::try_from(bytes.len()).expect("not so much").to_le_bytes());
    out
}
