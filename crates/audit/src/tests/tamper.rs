//! Tampering without the key: every change up to the last signed head is found, at its place.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::LazyLock};

use proptest::prelude::*;

use super::*;
use crate::verify::{Broken, Options, Report, VerifyError};

/// The files of a ledger of three segments, closed cleanly, with its vkey.
struct Sample {
    files: BTreeMap<String, Vec<u8>>,
    key: crate::VerifyingKey,
    newest: String,
}

static SAMPLE: LazyLock<Sample> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let key = runtime.block_on(async {
        let delegation = Arc::new(testing::delegation());
        let mut key = None;
        for start in 0..3 {
            let kept = open(dir.path()).await;
            for number in 0..3 {
                kept.call(start * 10 + number, &delegation).await;
            }
            key = Some(kept.ledger.verifying_key().clone());
            kept.close().await;
        }
        key.unwrap()
    });
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir.path().join("ledger")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "reserve" {
            files.insert(entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
        }
    }
    let newest = String::from_utf8(files["head"].clone()).unwrap();
    Sample { files, key, newest }
});

struct Copy {
    dir: tempfile::TempDir,
}

impl Copy {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in &SAMPLE.files {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    fn remove_segment(&self, index: u64) {
        for kind in ["jsonl", "values", "heads", "seal"] {
            self.remove(&format!("{index:08}.{kind}"));
        }
    }

    fn lines(&self, name: &str) -> Vec<String> {
        fs::read_to_string(self.path(name)).unwrap().lines().map(str::to_owned).collect()
    }

    fn write_lines(&self, name: &str, lines: &[String]) {
        fs::write(self.path(name), lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }

    fn verify_with(&self, options: &Options) -> Result<Report, Broken> {
        verify::verify(self.dir.path(), options, |_| {}).map_err(|error| match error {
            VerifyError::Broken(broken) => broken,
            VerifyError::Unreadable(error) => panic!("{error}"),
        })
    }

    fn broken(&self) -> Broken {
        self.verify_with(&Options::default()).unwrap_err()
    }
}

#[test]
fn an_untouched_ledger_verifies_and_the_report_says_what_was_not_checked() {
    let report = Copy::new().verify_with(&Options::default()).unwrap();
    assert_eq!((report.segments, report.records, report.lines_after_last_head), (3, 27, 0));
    assert!(!report.key_pinned && !report.tail_checked && report.values > 0 && report.erased == 0);
    let options = Options { key: Some(SAMPLE.key.clone()), heads: vec![SAMPLE.newest.clone()], ..Options::default() };
    let report = Copy::new().verify_with(&options).unwrap();
    assert!(report.key_pinned && report.tail_checked);
    assert_eq!(report.lines_after_outside_head, Some(0));
}

#[test]
fn an_edited_deleted_repeated_or_moved_line_is_found_at_its_place() {
    let name = "00000002.jsonl";
    type Change = fn(&mut Vec<String>);
    let changes: [(Change, u64); 5] = [
        (|lines| lines[2] = lines[2].replace("refunds.create", "refunds.delete"), 4),
        (|lines| drop(lines.remove(3)), 4),
        (|lines| lines.insert(4, lines[3].clone()), 5),
        (|lines| lines.swap(3, 4), 4),
        (|lines| lines.insert(4, lines[4].replace("call.", "fake.")), 6),
    ];
    for (change, line) in changes {
        let copy = Copy::new();
        let mut lines = copy.lines(name);
        change(&mut lines);
        assert_ne!(lines, copy.lines(name));
        copy.write_lines(name, &lines);
        let broken = copy.broken();
        // A head that was signed right after the changed line shows it one line earlier.
        assert_eq!(broken.segment, Some(2));
        assert!(broken.line == Some(line) || broken.line == Some(line - 1), "{broken}");
    }
}

#[test]
fn lines_cut_from_the_end_are_missed_with_and_without_the_seal() {
    let name = "00000003.jsonl";
    for cut in [1, 30] {
        for sealed in [true, false] {
            let copy = Copy::new();
            let bytes = fs::read(copy.path(name)).unwrap();
            let last_line = bytes[..bytes.len() - 1].iter().rposition(|&byte| byte == b'\n').unwrap() + 1;
            let end = if cut == 1 { last_line } else { bytes.len() - cut };
            fs::write(copy.path(name), &bytes[..end]).unwrap();
            if !sealed {
                copy.remove("00000003.seal");
            }
            copy.broken();
        }
    }
}

#[test]
fn a_changed_added_or_removed_companion_value_is_found() {
    let copy = Copy::new();
    let values = fs::read_to_string(copy.path("00000002.values")).unwrap();
    fs::write(copy.path("00000002.values"), values.replacen("alice@acme", "carol@acme", 1)).unwrap();
    assert!(copy.broken().why.contains("/chain"), "{}", copy.broken());

    let copy = Copy::new();
    let mut rows = copy.lines("00000002.values");
    rows.push(rows.last().unwrap().replacen("\"seq\":17", "\"seq\":18", 1));
    copy.write_lines("00000002.values", &rows);
    copy.broken();

    // A row that is gone is no erased one: no erasure on record left the segment as it is.
    let copy = Copy::new();
    let mut rows = copy.lines("00000003.values");
    rows.pop();
    copy.write_lines("00000003.values", &rows);
    let broken = copy.broken();
    assert_eq!((broken.segment, broken.file.as_deref()), (Some(3), Some("00000003.values")));
    assert!(broken.why.contains("no erasure on record") && broken.line.is_some(), "{broken}");
    copy.remove("00000003.seal");
    assert!(copy.broken().why.contains("is missing"));
}

#[test]
fn removed_heads_seals_and_segments_are_missed() {
    let copy = Copy::new();
    let heads = copy.lines("00000001.heads");
    let fewer = &heads[..heads.len() - crate::heads::NOTE_LINES];
    copy.write_lines("00000001.heads", fewer);
    assert_eq!(copy.broken().segment, Some(1));
    for name in ["00000001.seal", "00000001.heads", "head", "ledger.json"] {
        let copy = Copy::new();
        copy.remove(name);
        copy.broken();
    }
    for index in 1..=3 {
        let copy = Copy::new();
        copy.remove_segment(index);
        copy.broken();
    }
}

#[test]
fn a_whole_tail_cut_off_with_its_heads_shows_against_a_head_kept_elsewhere() {
    let copy = Copy::new();
    copy.remove_segment(3);
    let heads = copy.lines("00000002.heads");
    let last = heads[heads.len() - crate::heads::NOTE_LINES..].join("\n");
    fs::write(copy.path("head"), format!("{}\n", last.trim_end())).unwrap();
    let report = copy.verify_with(&Options::default()).unwrap();
    assert!(!report.tail_checked, "nothing inside the ledger can show this");
    let options = Options { key: None, heads: vec![SAMPLE.newest.clone()], ..Options::default() };
    assert!(copy.verify_with(&options).unwrap_err().why.contains("missing"));
}

#[test]
fn a_ledger_signed_by_another_key_shows_when_the_key_is_pinned() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { open(dir.path()).await.close().await });
    let path = dir.path().join("ledger");
    let options = Options { key: Some(SAMPLE.key.clone()), ..Options::default() };
    assert!(matches!(verify::verify(&path, &options, |_| {}), Err(VerifyError::Broken(_))));
    // Its own head does not verify under the key of the sample either.
    let copy = Copy::new();
    fs::copy(path.join("head"), copy.path("head")).unwrap();
    copy.broken();
    let copy = Copy::new();
    fs::copy(path.join("ledger.json"), copy.path("ledger.json")).unwrap();
    copy.broken();
}

#[test]
fn a_companion_row_that_is_no_longer_whole_does_not_pass_for_an_erased_one() {
    let copy = Copy::new();
    let path = copy.path("00000002.values");
    let mut bytes = fs::read(&path).unwrap();
    bytes.pop();
    fs::write(&path, bytes).unwrap();
    assert!(copy.broken().why.contains("not whole"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_flipped_bit_of_any_line_is_found(segment in 1..=3_u64, place in any::<prop::sample::Index>(), bit in 0..8_u8, sealed in any::<bool>()) {
        let copy = Copy::new();
        let path = copy.path(&format!("{segment:08}.jsonl"));
        let mut bytes = fs::read(&path).unwrap();
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        fs::write(&path, bytes).unwrap();
        if !sealed && segment == 3 {
            copy.remove("00000003.seal");
        }
        prop_assert!(copy.verify_with(&Options::default()).is_err());
    }

    #[test]
    fn any_flipped_bit_of_a_companion_value_is_found(place in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let copy = Copy::new();
        let path = copy.path("00000002.values");
        let mut bytes = fs::read(&path).unwrap();
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        let unchanged_meaning = serde_json::Deserializer::from_slice(&bytes).into_iter::<serde_json::Value>().collect::<Result<Vec<_>, _>>().ok()
            == serde_json::Deserializer::from_slice(&SAMPLE.files["00000002.values"]).into_iter::<serde_json::Value>().collect::<Result<Vec<_>, _>>().ok();
        fs::write(&path, bytes).unwrap();
        prop_assert!(unchanged_meaning || copy.verify_with(&Options::default()).is_err());
    }
}
