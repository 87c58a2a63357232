//! The ledger's files and heads: what `verify` passes is what was signed, and nothing on disk makes a reader panic.

use std::{collections::BTreeMap, fs, path::Path, sync::OnceLock};

use audit::{
    Entry, Head, VerifyingKey, line,
    query::{self, Filter},
    rebuild,
    tail::Tail,
    verify::{self, Options},
};

/// A ledger as it was written and signed.
const WHOLE: &[u8] = include_bytes!("../../seeds/ledger/whole");

struct Original {
    key: VerifyingKey,
    entries: Vec<Entry>,
}

/// A key, a line of `---`, and a note. What verifies is of that key.
pub(super) fn head(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (key, note) = text.split_once("\n---\n").unwrap_or((text, ""));
    let Ok(key) = key.parse::<VerifyingKey>() else { return };
    assert_eq!(key.to_string().parse().as_ref(), Ok(&key));
    if let Ok(head) = Head::verify(note, &key) {
        assert_eq!(head.origin, key.name());
        let text = format!("{}\n{}\n{}\n\n", head.origin, head.size, head.root_text());
        assert!(note.starts_with(&text), "a head that is not what was signed: {head:?}");
    }
}

/// Files, each after a line `=== name`. If the key of [`WHOLE`] signed what they are, they are that, as far as heads go.
pub(super) fn ledger(bytes: &[u8]) {
    static ORIGINAL: OnceLock<Original> = OnceLock::new();
    let original = ORIGINAL.get_or_init(Original::read);
    let directory = unpacked(bytes);
    let entries = entries(directory.path());
    for entry in entries.iter().flatten() {
        line::for_person(entry);
        entry.to_json();
        rebuild::decision(entry).ok();
        rebuild::delegation(entry).ok();
        rebuild::question(entry, entry).ok();
        if let Some(id) = entry.text("decision_id") {
            query::find(directory.path(), id).ok();
        }
    }
    if let Ok(mut tail) = Tail::open(directory.path(), 3) {
        while let Ok(Some(_)) = tail.next() {}
    }
    let options = Options { key: Some(original.key.clone()), heads: Vec::new(), ..Options::default() };
    let Ok(report) = verify::verify(directory.path(), &options, |_| {}) else { return };
    let entries = entries.expect("what verifies can be read");
    assert_eq!(entries.len() as u64, report.records);
    for (entry, signed) in entries.iter().zip(&original.entries).take(usize::try_from(report.last_head).unwrap()) {
        let own = |entry: &Entry| (entry.seq, entry.time, entry.kind.clone());
        assert_eq!(own(entry), own(signed));
        assert!(!entry.erased.is_empty() || entry.fields == signed.fields, "{entry:?} is not {signed:?}");
    }
}

impl Original {
    fn read() -> Self {
        let directory = unpacked(WHOLE);
        let about: serde_json::Value =
            serde_json::from_slice(&fs::read(directory.path().join("ledger.json")).unwrap()).unwrap();
        let key: VerifyingKey = about["verifying_key"].as_str().unwrap().parse().unwrap();
        let options = Options { key: Some(key.clone()), heads: Vec::new(), ..Options::default() };
        let report = verify::verify(directory.path(), &options, |_| {}).expect("the seed is a whole ledger");
        assert_eq!(report.lines_after_last_head, 0);
        Self { key, entries: entries(directory.path()).unwrap() }
    }
}

fn entries(directory: &Path) -> Option<Vec<Entry>> {
    query::query(directory, Filter::default()).ok()?.collect::<Result<_, _>>().ok()
}

/// A directory with the files, in memory where there is such a place.
fn unpacked(bytes: &[u8]) -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut current = None;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let name = line.strip_prefix(b"=== ").and_then(|name| std::str::from_utf8(name).ok()).map(str::trim_end);
        if let Some(name) = name.filter(|name| files.len() < 12 && is_file_name(name)) {
            files.entry(name.to_owned()).or_default();
            current = Some(name.to_owned());
        } else if let Some(file) = current.as_ref().and_then(|name| files.get_mut(name)) {
            file.extend_from_slice(line);
        }
    }
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn is_file_name(name: &str) -> bool {
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'.');
    plain && (1..40).contains(&name.len()) && !name.starts_with('.')
}
