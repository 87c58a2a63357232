//! Compressed segments read as they did before, and whatever step is the last before a crash, nothing is lost.

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::{
    keeper::compress::{self, Pace},
    log::Shared,
    rebuild,
    segment::{self, Paths},
    stored::packed,
    tail::Tail,
};

fn pace() -> Pace {
    Pace::new(&Arc::new(Shared::default()))
}

/// A closed ledger of several segments, and a decision in its first one.
async fn several(dir: &Path) -> String {
    let kept = try_open(LedgerSettings { segment_max_bytes: 4000, ..settings(dir) }).await.unwrap();
    let delegation = Arc::new(testing::delegation());
    let first = kept.call(0, &delegation).await;
    for number in 1..6 {
        kept.call(number, &delegation).await;
    }
    kept.close().await;
    first.to_string()
}

/// Compresses every file of every segment of a ledger that nobody writes.
fn compress_all(dir: &Path) {
    let ledger = dir.join("ledger");
    for index in segment::list(&ledger).unwrap() {
        let paths = Paths::new(&ledger, index);
        for path in [&paths.lines, &paths.values, &paths.heads] {
            compress::compress(path, &pace()).unwrap();
            assert!(!path.exists() && packed(path).exists());
        }
    }
}

#[tokio::test]
async fn everything_reads_compressed_segments_as_it_read_them_before() {
    let dir = tempfile::tempdir().unwrap();
    let id = several(dir.path()).await;
    let ledger = dir.path().join("ledger");
    let (before, report) = (all(dir.path()), verified(dir.path()));
    compress_all(dir.path());
    assert_eq!(all(dir.path()), before);
    assert_eq!(verified(dir.path()), report);
    let found = query::find(&ledger, &id).unwrap().unwrap();
    rebuild::question(&found.decided, &found.token_seen.unwrap()).unwrap();
    assert_eq!(found.settled.unwrap().text("outcome"), Some("completed"));
    let mut tail = Tail::open(&ledger, 3).unwrap();
    assert_eq!(tail.next().unwrap().unwrap().seq, before.len() as u64 - 3);

    // And the ledger goes on: the last segment says how it was left.
    open(dir.path()).await.close().await;
    let started = all(dir.path()).into_iter().rfind(|entry| entry.kind == "sidecar.started").unwrap();
    assert_eq!(started.fields["previous"]["stop"].as_str(), Some("clean"));
    verified(dir.path());
}

#[tokio::test]
async fn the_keeper_compresses_sealed_segments_of_a_running_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let compress_after = Some(Duration::ZERO);
    let settings = LedgerSettings { segment_max_bytes: 4000, compress_after, ..settings(dir.path()) };
    let kept = try_open(settings).await.unwrap();
    let delegation = Arc::new(testing::delegation());
    for number in 0..8 {
        kept.call(number, &delegation).await;
    }
    let ledger = dir.path().join("ledger");
    let last = *segment::list(&ledger).unwrap().last().unwrap();
    assert!(last > 3);
    let is_packed =
        |index: u64| !Paths::new(&ledger, index).heads.exists() && packed(&Paths::new(&ledger, index).heads).exists();
    eventually("the sealed segments to be compressed", || (1..last).all(is_packed)).await;
    assert!(Paths::new(&ledger, last).lines.exists(), "the segment that is being written stays as it is");
    verified(dir.path());
    kept.close().await;
    verified(dir.path());
    for entry in fs::read_dir(&ledger).unwrap() {
        use std::os::unix::fs::PermissionsExt;
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
}

#[tokio::test]
async fn whatever_step_of_a_compression_is_the_last_before_a_crash_one_whole_form_is_there() {
    for steps in 0..=3 {
        let dir = tempfile::tempdir().unwrap();
        several(dir.path()).await;
        let before = all(dir.path());
        let paths = Paths::new(&dir.path().join("ledger"), 1);
        for path in [&paths.lines, &paths.values, &paths.heads] {
            compress::pack(path, &pace()).unwrap();
            match steps {
                // In the middle of writing it.
                0 => fs::write(crate::stored::in_making(&packed(path)), b"\x1f\x8b half").unwrap(),
                1 => {}
                _ => compress::take_place(&packed(path)).unwrap(),
            }
            if steps > 2 {
                fs::remove_file(path).unwrap();
            }
        }
        assert_eq!(all(dir.path()), before, "after step {steps}");
        verified(dir.path());
        let kept = open(dir.path()).await;
        eventually("the start to clean up", || {
            let names = fs::read_dir(dir.path().join("ledger")).unwrap();
            let names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            let doubled =
                |name: &String| name.strip_suffix(".gz").is_some_and(|plain| names.iter().any(|other| other == plain));
            !names.iter().any(|name| name.ends_with(".gz.new") || doubled(name))
        })
        .await;
        kept.close().await;
        assert_eq!(all(dir.path())[..before.len()], before, "after step {steps}");
        verified(dir.path());
    }
}

#[tokio::test]
async fn a_compressed_segment_cannot_be_cut_changed_or_exchanged() {
    let dir = tempfile::tempdir().unwrap();
    several(dir.path()).await;
    compress_all(dir.path());
    let path = |index: u64| packed(&Paths::new(&dir.path().join("ledger"), index).lines);
    let (one, two) = (fs::read(path(1)).unwrap(), fs::read(path(2)).unwrap());
    let changes: [(u64, Vec<u8>); 4] = [
        (1, one[..one.len() - 20].to_vec()),
        (1, [one.as_slice(), b"more"].concat()),
        (1, two.clone()),
        (2, [two.as_slice(), one.as_slice()].concat()),
    ];
    for (index, bytes) in changes {
        fs::write(path(index), bytes).unwrap();
        assert_eq!(broken(dir.path()).segment, Some(index));
        fs::write(path(1), &one).unwrap();
        fs::write(path(2), &two).unwrap();
    }
    verified(dir.path());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_is_packed_is_what_was_there(bytes in prop::collection::vec(any::<u8>(), 0..300_000)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, &bytes).unwrap();
        compress::compress(&path, &pace()).unwrap();
        let mut read = Vec::new();
        std::io::Read::read_to_end(&mut crate::stored::open(&path).unwrap(), &mut read).unwrap();
        prop_assert!(read == bytes);
    }
}
