//! Retention: the oldest segments go after a signed record says so, and nothing else may be missing.

use std::fs;

use model::duration::ConfigDuration;
use serde_json::json;

use super::*;
use crate::{
    RetentionConfig,
    keeper::retire,
    segment::{self, Paths},
    verify::{Options, VerifyError},
};

fn small(dir: &Path) -> LedgerSettings {
    LedgerSettings { segment_max_bytes: 4000, ..settings(dir) }
}

fn first_segment(dir: &Path) -> u64 {
    segment::list(&dir.join("ledger")).unwrap()[0]
}

/// A running ledger of several segments.
async fn several(dir: &Path) -> Kept {
    let kept = try_open(small(dir)).await.unwrap();
    calls(&kept, 6).await;
    assert!(segment::list(&dir.join("ledger")).unwrap().len() > 3);
    kept
}

async fn calls(kept: &Kept, count: u128) {
    let delegation = Arc::new(testing::delegation());
    let from = u128::from(kept.ledger.stats().records) * 1000;
    for number in 0..count {
        kept.call(from + number, &delegation).await;
    }
}

/// Retires `index`, as far as `steps` say.
async fn retire(kept: &Kept, dir: &Path, index: u64, steps: usize) {
    let (ledger, pen) = (dir.join("ledger"), kept.ledger.pen());
    blocking(move || {
        if steps > 0 {
            retire::mark(&ledger, index).unwrap();
        }
        if steps > 1 {
            retire::put_on_record(&ledger, index, "max_age", &pen).unwrap();
        }
        if steps > 2 {
            fs::remove_file(Paths::new(&ledger, index).lines).unwrap();
        }
        if steps > 3 {
            retire::remove(&ledger, index).unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_ledger_is_kept_below_its_size_and_what_is_left_verifies_from_the_retirement_on() {
    let dir = tempfile::tempdir().unwrap();
    let retention = RetentionConfig { max_age: None, max_bytes: Some(60_000) };
    let kept = try_open(LedgerSettings { retention, ..small(dir.path()) }).await.unwrap();
    let first = kept.call(1, &Arc::new(testing::delegation())).await;
    let newest = dir.path().join("ledger/head");
    eventually("a head", || newest.exists()).await;
    let head = fs::read_to_string(&newest).unwrap();
    calls(&kept, 40).await;
    let bytes = || -> u64 {
        let files = fs::read_dir(dir.path().join("ledger")).unwrap().map(|entry| entry.unwrap());
        let kept = files.filter(|entry| entry.file_name() != "reserve" && entry.file_name() != "journal");
        kept.map(|entry| entry.metadata().map_or(0, |metadata| metadata.len())).sum()
    };
    eventually("enough segments to be retired", || bytes() < 62_000).await;
    kept.close().await;

    let report = verified(dir.path());
    assert!(report.retired_segments >= 3 && report.retired_records > 0, "{report:?}");
    assert_eq!(report.retired_segments + 1, first_segment(dir.path()));
    assert_eq!((report.open_calls, report.unfinished_erasures), (0, 0));
    let entries = all(dir.path());
    assert_eq!(entries[0].seq, report.retired_records);
    let retired: Vec<_> = entries.iter().filter(|entry| entry.kind == "segment.retired").collect();
    assert!(retired.iter().all(|entry| entry.text("because") == Some("max_bytes")));
    assert!(query::find(&dir.path().join("ledger"), first.as_str()).unwrap().is_none());

    // A head that was kept elsewhere and covers only what was retired proves nothing any more, and the report says so.
    let options = Options { heads: vec![head], ..Options::default() };
    let report = verify::verify(&dir.path().join("ledger"), &options, |_| {}).unwrap();
    assert_eq!((report.tail_checked, report.outside_heads_before_the_first_record), (false, 1));
    let kept = try_open(small(dir.path())).await.unwrap();
    calls(&kept, 2).await;
    kept.close().await;
    verified(dir.path());
}

#[tokio::test]
async fn old_segments_go_by_age_and_the_one_that_is_being_written_stays() {
    let dir = tempfile::tempdir().unwrap();
    let retention = RetentionConfig { max_age: Some(ConfigDuration::milliseconds(0)), max_bytes: None };
    let kept = try_open(LedgerSettings { retention, ..small(dir.path()) }).await.unwrap();
    calls(&kept, 6).await;
    eventually("all sealed segments to be retired", || segment::list(&dir.path().join("ledger")).unwrap().len() == 1)
        .await;
    calls(&kept, 1).await;
    kept.crash().await;
    // Nothing is left but the segment that was being written, and it is begun after.
    verified(dir.path());
    let kept = try_open(small(dir.path())).await.unwrap();
    calls(&kept, 3).await;
    kept.close().await;
    assert!(verified(dir.path()).retired_segments > 2);
}

#[tokio::test]
async fn whatever_step_of_a_retirement_is_the_last_before_a_crash_the_next_start_finishes_it_or_leaves_the_segment() {
    for steps in 0..=4 {
        let dir = tempfile::tempdir().unwrap();
        let kept = several(dir.path()).await;
        for retired in 1..=2 {
            // The first one wholly, so that the ledger begins after a retired one already.
            retire(&kept, dir.path(), retired, if retired == 1 { 4 } else { steps }).await;
        }
        kept.crash().await;
        let between = verified(dir.path());
        assert_eq!(between.retired_segments, if steps > 2 { 2 } else { 1 }, "after step {steps}");
        let kept = try_open(small(dir.path())).await.unwrap();
        let ledger = dir.path().join("ledger");
        let first = if steps > 1 { 3 } else { 2 };
        eventually("the start to finish", || {
            segment::list_with(&ledger, &[".retiring"]).unwrap().is_empty() && first_segment(dir.path()) == first
        })
        .await;
        calls(&kept, 1).await;
        kept.close().await;
        assert_eq!(verified(dir.path()).retired_segments, first - 1, "after step {steps}");
        let records = all(dir.path()).iter().filter(|entry| entry.kind == "segment.retired").count();
        assert_eq!(records, if steps > 1 { 2 } else { 1 }, "one record each");
        for index in 1..first {
            let paths = Paths::new(&ledger, index);
            assert!(!paths.values.exists() && !paths.heads.exists(), "nothing is left of segment {index}");
            assert_eq!(paths.seal.exists(), index + 1 == first);
        }
    }
}

#[tokio::test]
async fn a_segment_that_is_missing_without_a_signed_record_of_it_is_missed() {
    let remove = |dir: &Path, index: u64, and_seal: bool| {
        let paths = Paths::new(&dir.join("ledger"), index);
        for path in [&paths.lines, &paths.values, &paths.heads] {
            fs::remove_file(path).unwrap();
        }
        if and_seal {
            fs::remove_file(paths.seal).unwrap();
        }
    };
    // The first, with and without its seal.
    for and_seal in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        several(dir.path()).await.close().await;
        remove(dir.path(), 1, and_seal);
        let broken = broken(dir.path());
        assert!(broken.why.contains("segment 1 is missing"), "{broken}");
    }
    // One more than was retired.
    let dir = tempfile::tempdir().unwrap();
    let kept = several(dir.path()).await;
    retire(&kept, dir.path(), 1, 4).await;
    kept.close().await;
    verified(dir.path());
    remove(dir.path(), 2, false);
    assert!(broken(dir.path()).why.contains("no record says"), "{}", broken(dir.path()));
    // One in the middle.
    let dir = tempfile::tempdir().unwrap();
    several(dir.path()).await.close().await;
    remove(dir.path(), 2, false);
    assert!(broken(dir.path()).why.contains("segment 2 is missing"));
}

#[tokio::test]
async fn a_record_of_a_retirement_counts_only_where_a_head_covers_it() {
    let dir = tempfile::tempdir().unwrap();
    let kept = several(dir.path()).await;
    kept.crash().await;
    let ledger = dir.path().join("ledger");
    let last = *segment::list(&ledger).unwrap().last().unwrap();
    let seal: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(Paths::new(&ledger, 1).seal).unwrap()).unwrap();
    let mut head = seal["head"].as_str().unwrap().lines().skip(1);
    let (size, root) = (head.next().unwrap().parse::<u64>().unwrap(), head.next().unwrap());
    let record = json!({
        "kind": "segment.retired", "segment": 1, "first_seq": 0, "records": seal["records"],
        "head": {"size": size, "root": root}, "because": "max_age",
    });
    append_forged(&Paths::new(&ledger, last).lines, record);
    verified(dir.path());
    let paths = Paths::new(&ledger, 1);
    for path in [&paths.lines, &paths.values, &paths.heads] {
        fs::remove_file(path).unwrap();
    }
    assert!(broken(dir.path()).why.contains("is not covered by a signed head"), "{}", broken(dir.path()));
}

#[tokio::test]
async fn the_seal_that_a_ledger_begins_at_cannot_be_changed() {
    let dir = tempfile::tempdir().unwrap();
    let kept = several(dir.path()).await;
    retire(&kept, dir.path(), 1, 4).await;
    kept.close().await;
    let path = Paths::new(&dir.path().join("ledger"), 1).seal;
    let whole = fs::read_to_string(&path).unwrap();
    let seal: serde_json::Value = serde_json::from_str(&whole).unwrap();
    let changes = [
        ("last_hash", json!(chain::encoded(&[7; 32]))),
        ("segment", json!(2)),
        ("first_seq", json!(1)),
        ("head", json!(seal["head"].as_str().unwrap().replacen('\n', "\n1", 1))),
    ];
    for (member, value) in changes {
        let mut changed = seal.clone();
        changed[member] = value;
        fs::write(&path, changed.to_string()).unwrap();
        broken(dir.path());
    }
    fs::write(&path, whole).unwrap();
    verified(dir.path());
}

#[tokio::test]
async fn a_segment_is_sealed_when_it_is_old_enough_though_nothing_more_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let settings = LedgerSettings { segment_max_age: Duration::from_millis(50), ..settings(dir.path()) };
    let kept = try_open(settings).await.unwrap();
    let seal = Paths::new(&dir.path().join("ledger"), 1).seal;
    eventually("the segment to be sealed", || seal.exists()).await;
    kept.crash().await;
    assert_eq!(segment::list(&dir.path().join("ledger")).unwrap(), [1], "nothing was written, so nothing was begun");
    verified(dir.path());
}

#[tokio::test]
async fn verifying_while_segments_are_retired_says_so_or_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let retention = RetentionConfig { max_age: None, max_bytes: Some(30_000) };
    let kept = try_open(LedgerSettings { retention, ..small(dir.path()) }).await.unwrap();
    let ledger = dir.path().join("ledger");
    let verifier = net::Tasks::new();
    let path = ledger.clone();
    let verdicts = verifier.spawn_blocking("verifier", move || {
        (0..40).map(|_| verify::verify(&path, &Options::default(), |_| {}).map(|_| ())).collect::<Vec<_>>()
    });
    calls(&kept, 60).await;
    for verdict in verdicts.join().await.unwrap() {
        assert!(!matches!(verdict, Err(VerifyError::Broken(_))), "{verdict:?}");
    }
    kept.close().await;
    verified(dir.path());
}

/// The files of a ledger whose first segment is sealed while it is read: its heads and its seal are not there at first.
struct SealedMeanwhile<'a> {
    dir: &'a Path,
    not_yet: std::sync::Mutex<Vec<&'static str>>,
}

impl verify::Files for SealedMeanwhile<'_> {
    fn place(&self) -> &Path {
        self.dir
    }

    fn segments(&self) -> std::io::Result<Vec<u64>> {
        segment::list(self.dir)
    }

    fn open(&self, name: &str) -> std::io::Result<Box<dyn std::io::BufRead + Send>> {
        let mut not_yet = self.not_yet.lock().unwrap();
        if let Some(at) = not_yet.iter().position(|late| *late == name) {
            not_yet.remove(at);
            return Err(std::io::ErrorKind::NotFound.into());
        }
        crate::stored::open(&self.dir.join(name))
    }

    fn exists(&self, name: &str) -> std::io::Result<bool> {
        crate::stored::exists(&self.dir.join(name))
    }

    fn length(&self, name: &str) -> std::io::Result<Option<u64>> {
        let late = self.not_yet.lock().unwrap().contains(&name);
        Ok(fs::metadata(self.dir.join(name)).ok().filter(|_| !late).map(|metadata| metadata.len()))
    }
}

#[tokio::test]
async fn heads_that_are_signed_while_a_segment_is_read_and_sealed_are_compared_with_the_lines_that_went_by() {
    let dir = tempfile::tempdir().unwrap();
    let kept = try_open(settings(dir.path())).await.unwrap();
    for _ in 0..3 {
        calls(&kept, 2).await;
        let pen = kept.ledger.pen();
        blocking(move || pen.sign().unwrap()).await;
    }
    kept.close().await;
    let ledger = dir.path().join("ledger");
    let verified = || {
        let not_yet = std::sync::Mutex::new(vec!["00000001.seal", "00000001.heads"]);
        verify::verify_files(&SealedMeanwhile { dir: &ledger, not_yet }, &Options::default(), |_| {})
    };
    assert_eq!(verified().unwrap(), verify::verify(&ledger, &Options::default(), |_| {}).unwrap());
    let heads = ledger.join("00000001.heads");
    let whole = fs::read_to_string(&heads).unwrap();
    let mut lines: Vec<&str> = whole.split_inclusive('\n').collect();
    // The second head in the place of the first.
    lines.rotate_left(crate::heads::NOTE_LINES);
    fs::write(&heads, lines.concat()).unwrap();
    assert!(matches!(verified(), Err(VerifyError::Broken(_))));
}
