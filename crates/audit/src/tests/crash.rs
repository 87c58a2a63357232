//! Crashes and failing disks: what was acknowledged is there, what was not is set aside, and it goes on.

use std::{collections::BTreeSet, fs, io::Write};

use super::*;
use crate::writer::outage::MAX_KEPT;

fn append(path: &Path, bytes: &[u8]) {
    fs::OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

#[tokio::test]
async fn after_a_crash_the_ledger_ends_at_a_whole_record_and_open_calls_are_closed_as_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let delegation = Arc::new(testing::delegation());
    let kept = open(dir.path()).await;
    kept.call(1, &delegation).await;
    let open_call = kept.ledger.decided(permitted(kept.question(2, &delegation))).await.unwrap().id().to_string();
    drop(kept.ledger.decided(denied(kept.question(3, &delegation), Code::PolicyDenied, "no")).await.unwrap());
    kept.crash().await;
    let before = all(dir.path()).len() as u64;
    append(&dir.path().join("ledger/00000001.jsonl"), br#"{"action":"refunds.create","#);
    append(
        &dir.path().join("ledger/00000001.values"),
        format!("{{\"seq\":{before},\"values\":{{}}}}\n{{\"seq\":").as_bytes(),
    );

    let kept = open(dir.path()).await;
    let entries = all(dir.path());
    let started = &entries[usize::try_from(before).unwrap()];
    assert_eq!(started.kind, "sidecar.started");
    let previous = &started.fields["previous"];
    assert_eq!((previous["stop"].as_str(), previous["unsettled"].as_u64()), (Some("crashed"), Some(1)));
    assert_eq!((previous["torn_bytes"].as_u64(), previous["head_size"].as_u64()), (Some(27), Some(before)));
    let closed = entries.last().unwrap();
    assert_eq!((closed.text("decision_id"), closed.text("outcome")), (Some(open_call.as_str()), Some("unknown")));
    assert_eq!(fs::read(dir.path().join("ledger/00000001.jsonl.torn")).unwrap().len(), 27);
    kept.close().await;
    assert_eq!(verified(dir.path()).open_calls, 0);

    let kept = open(dir.path()).await;
    let last = all(dir.path()).pop().unwrap();
    assert_eq!(last.fields["previous"]["stop"].as_str(), Some("clean"));
    kept.close().await;
    verified(dir.path());
}

#[tokio::test]
async fn a_call_left_open_in_an_earlier_segment_is_closed_too() {
    let dir = tempfile::tempdir().unwrap();
    let delegation = Arc::new(testing::delegation());
    let kept = try_open(LedgerSettings { segment_max_bytes: 2000, ..settings(dir.path()) }).await.unwrap();
    let first = kept.ledger.decided(permitted(kept.question(1, &delegation))).await.unwrap().id().to_string();
    for number in 2..5 {
        kept.call(number, &delegation).await;
    }
    kept.crash().await;
    open(dir.path()).await.close().await;
    let found = query::find(&dir.path().join("ledger"), &first).unwrap().unwrap();
    assert_eq!(found.settled.unwrap().text("outcome"), Some("unknown"));
    assert_eq!(verified(dir.path()).open_calls, 0);
}

#[tokio::test]
async fn a_segment_whose_first_line_was_torn_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let kept = open(dir.path()).await;
    kept.close().await;
    fs::write(dir.path().join("ledger/00000002.jsonl"), b"{\"a").unwrap();
    fs::write(dir.path().join("ledger/00000002.values"), b"").unwrap();
    let kept = open(dir.path()).await;
    kept.call(1, &Arc::new(testing::delegation())).await;
    kept.close().await;
    assert_eq!(verified(dir.path()).segments, 2);
}

#[tokio::test]
async fn a_ledger_that_lost_lines_which_a_head_covers_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let kept = open(dir.path()).await;
    kept.call(1, &Arc::new(testing::delegation())).await;
    kept.close().await;
    let open_again = || async { try_open(settings(dir.path())).await.map(|_| ()) };
    let path = dir.path().join("ledger/00000001.jsonl");
    let whole = fs::read(&path).unwrap();

    // The last segment, unsealed, is a line short.
    let seal = dir.path().join("ledger/00000001.seal");
    let sealed = fs::read(&seal).unwrap();
    fs::remove_file(&seal).unwrap();
    let cut = whole[..whole.len() - 1].iter().rposition(|&byte| byte == b'\n').unwrap() + 1;
    fs::write(&path, &whole[..cut]).unwrap();
    assert!(matches!(open_again().await, Err(LedgerError::Damaged { .. })));

    // The whole last segment is gone.
    fs::write(&seal, sealed).unwrap();
    fs::write(&path, &whole).unwrap();
    open(dir.path()).await.close().await;
    for kind in ["jsonl", "values", "heads", "seal"] {
        fs::remove_file(dir.path().join(format!("ledger/00000002.{kind}"))).unwrap();
    }
    assert!(matches!(open_again().await, Err(LedgerError::Damaged { .. })));
}

#[tokio::test]
async fn another_key_does_not_go_on_with_a_ledger() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).await.close().await;
    fs::remove_file(dir.path().join("ledger.key")).unwrap();
    assert!(matches!(try_open(settings(dir.path())).await, Err(LedgerError::Key { .. })));
}

/// Waits until the ledger has found by itself that it can be written again.
async fn recovered(ledger: &Ledger) {
    for _ in 0..2000 {
        if ledger.healthy() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the ledger did not recover");
}

#[tokio::test]
async fn a_failed_segment_refuses_calls_is_never_appended_to_again_and_the_ledger_recovers_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let delegation = Arc::new(testing::delegation());
    let kept = open(dir.path()).await;
    kept.call(1, &delegation).await;
    let path = dir.path().join("ledger/00000001.jsonl");
    let away = dir.path().join("ledger/away");
    fs::rename(&path, &away).unwrap();
    for number in 2..4 {
        let refused = kept.ledger.decided(permitted(kept.question(number, &delegation))).await;
        assert!(matches!(refused, Err(LedgerError::Unavailable(_))), "{refused:?}");
        assert!(!kept.ledger.healthy());
    }
    // A write that reached the disk and was never acknowledged.
    append(&away, b"{\"half\":");
    let durable = fs::metadata(&away).unwrap().len() - 8;
    fs::rename(&away, &path).unwrap();
    recovered(&kept.ledger).await;
    kept.call(4, &delegation).await;
    kept.close().await;
    assert_eq!(fs::metadata(&path).unwrap().len(), durable);
    let entries = all(dir.path());
    let alert = entries.iter().find(|entry| entry.kind == "alert.raised").unwrap();
    assert_eq!((alert.segment, alert.fields["refused"].as_u64()), (2, Some(2)));
    let report = verified(dir.path());
    assert_eq!((report.segments, report.open_calls), (2, 0));
}

#[tokio::test]
async fn a_segment_that_cannot_be_begun_refuses_calls_until_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let delegation = Arc::new(testing::delegation());
    let kept = try_open(LedgerSettings { segment_max_bytes: 1, ..settings(dir.path()) }).await.unwrap();
    let obstacle = dir.path().join("ledger/00000002.jsonl");
    fs::create_dir(&obstacle).unwrap();
    let refused = kept.ledger.decided(permitted(kept.question(1, &delegation))).await;
    assert!(matches!(refused, Err(LedgerError::Unavailable(_))), "{refused:?}");
    fs::remove_dir(&obstacle).unwrap();
    recovered(&kept.ledger).await;
    kept.call(2, &delegation).await;
    kept.close().await;
    verified(dir.path());
}

/// Takes the segment away that is being written, so that writing to it fails until it is put back.
struct Outage {
    path: std::path::PathBuf,
    away: std::path::PathBuf,
}

impl Outage {
    /// Begins one; the call with `number` is refused in it.
    async fn begin(kept: &Kept, dir: &Path, number: u128, delegation: &Arc<Delegation>) -> Self {
        let outage = Self { path: dir.join("ledger/00000001.jsonl"), away: dir.join("ledger/away") };
        fs::rename(&outage.path, &outage.away).unwrap();
        let refused = kept.ledger.decided(permitted(kept.question(number, delegation))).await;
        assert!(matches!(refused, Err(LedgerError::Unavailable(_))), "{refused:?}");
        outage
    }

    fn end(self) {
        fs::rename(self.away, self.path).unwrap();
    }
}

/// How the call `id` ended.
fn outcome(dir: &Path, id: &str) -> Option<String> {
    let found = query::find(&dir.join("ledger"), id).unwrap().unwrap();
    found.settled.and_then(|settled| settled.text("outcome").map(str::to_owned))
}

#[tokio::test]
async fn a_call_that_ends_while_the_ledger_is_down_is_settled_once_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let delegation = Arc::new(testing::delegation());
    let kept = open(dir.path()).await;
    let first = kept.ledger.decided(permitted(kept.question(1, &delegation))).await.unwrap();
    let outage = Outage::begin(&kept, dir.path(), 2, &delegation).await;
    let settled = kept.ledger.settled(completed(first.id())).await;
    assert!(matches!(settled, Err(LedgerError::Kept(_))), "{settled:?}");
    outage.end();
    recovered(&kept.ledger).await;
    // While the ledger still runs.
    assert_eq!(outcome(dir.path(), first.id().as_str()).as_deref(), Some("completed"));
    kept.close().await;
    let entries = all(dir.path());
    let alert = entries.iter().find(|entry| entry.kind == "alert.raised").unwrap();
    assert_eq!(alert.fields["refused"].as_u64(), Some(1), "what was kept was not refused");
    assert_eq!(entries.iter().filter(|entry| entry.kind == "call.settled").count(), 1);
    assert_eq!(verified(dir.path()).open_calls, 0);
}

#[tokio::test]
async fn what_was_kept_is_written_at_the_latest_when_the_ledger_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let delegation = Arc::new(testing::delegation());
    let kept = open(dir.path()).await;
    let ended = kept.ledger.decided(permitted(kept.question(1, &delegation))).await.unwrap();
    let hanging = kept.ledger.decided(permitted(kept.question(2, &delegation))).await.unwrap();
    let outage = Outage::begin(&kept, dir.path(), 3, &delegation).await;
    assert!(matches!(kept.ledger.settled(completed(ended.id())).await, Err(LedgerError::Kept(_))));
    outage.end();
    kept.close().await;
    assert_eq!(outcome(dir.path(), ended.id().as_str()).as_deref(), Some("completed"));
    assert_eq!(outcome(dir.path(), hanging.id().as_str()).as_deref(), Some("unknown"));
    assert_eq!(verified(dir.path()).open_calls, 0);
}

#[tokio::test]
async fn an_end_that_nobody_waits_for_is_on_record_also_after_an_outage_and_a_close() {
    let dir = tempfile::tempdir().unwrap();
    let delegation = Arc::new(testing::delegation());
    let kept = open(dir.path()).await;
    let during = kept.ledger.decided(permitted(kept.question(1, &delegation))).await.unwrap();
    let last = kept.ledger.decided(permitted(kept.question(2, &delegation))).await.unwrap();
    let outage = Outage::begin(&kept, dir.path(), 3, &delegation).await;
    assert!(kept.ledger.settle(&completed(during.id())).unwrap());
    outage.end();
    recovered(&kept.ledger).await;
    assert!(kept.ledger.settle(&completed(last.id())).unwrap());
    kept.close().await;
    for id in [during.id(), last.id()] {
        assert_eq!(outcome(dir.path(), id.as_str()).as_deref(), Some("completed"));
    }
    assert_eq!(verified(dir.path()).open_calls, 0);
}

#[tokio::test]
async fn a_full_queue_takes_no_end_that_nobody_waits_for() {
    let dir = tempfile::tempdir().unwrap();
    let delegation = Arc::new(testing::delegation());
    let kept = try_open(LedgerSettings { queue: 1, ..settings(dir.path()) }).await.unwrap();
    let first = kept.ledger.decided(permitted(kept.question(1, &delegation))).await.unwrap();
    let second = kept.ledger.decided(permitted(kept.question(2, &delegation))).await.unwrap();
    // The first holds the one place for as long as it waits for company.
    assert!(kept.ledger.settle(&completed(first.id())).unwrap());
    assert!(!kept.ledger.settle(&completed(second.id())).unwrap());
    kept.ledger.settled(completed(second.id())).await.unwrap();
    kept.close().await;
    assert_eq!(outcome(dir.path(), second.id().as_str()).as_deref(), Some("completed"));
}

#[tokio::test]
async fn a_call_that_nobody_settled_is_closed_as_unknown_before_the_record_of_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let delegation = Arc::new(testing::delegation());
    let kept = open(dir.path()).await;
    kept.call(1, &delegation).await;
    let hanging = kept.ledger.decided(permitted(kept.question(2, &delegation))).await.unwrap();
    kept.close().await;
    let entries = all(dir.path());
    assert!(kinds(&entries).ends_with(&["call.settled", "sidecar.stopped"]), "{:?}", kinds(&entries));
    assert_eq!(outcome(dir.path(), hanging.id().as_str()).as_deref(), Some("unknown"));
    assert_eq!(verified(dir.path()).open_calls, 0);
    // The next start finds nothing open.
    open(dir.path()).await.close().await;
    let started = all(dir.path()).into_iter().rfind(|entry| entry.kind == "sidecar.started").unwrap();
    assert_eq!(started.fields["previous"]["unsettled"].as_u64(), Some(0));
}

#[tokio::test]
async fn only_so_many_ends_of_calls_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let delegation = Arc::new(testing::delegation());
    let kept = open(dir.path()).await;
    let _outage = Outage::begin(&kept, dir.path(), 1, &delegation).await;
    // At once: the end of a call waits a moment for company.
    let tasks = net::Tasks::new();
    let settle = |number: usize| {
        let (ledger, id) = (kept.ledger.clone(), kept.question(number as u128, &delegation).id);
        tasks.spawn("an end", async move { ledger.settled(completed(&id)).await })
    };
    let ends: Vec<_> = (0..MAX_KEPT).map(settle).collect();
    for end in ends {
        assert!(matches!(end.join().await.unwrap(), Err(LedgerError::Kept(_))));
    }
    assert!(matches!(settle(MAX_KEPT).join().await.unwrap(), Err(LedgerError::Unavailable(_))));
    kept.crash().await;
}

/// What a power failure leaves of files that were not synced: the bytes that were synced, and of the rest whatever
/// the disk had come to.
pub(super) fn lose_power(dir: &Path, from: [u64; 2], seed: u64) {
    for (file, from) in ["ledger/00000001.jsonl", "ledger/00000001.values"].into_iter().zip(from) {
        let path = dir.join(file);
        let mut bytes = fs::read(&path).unwrap();
        let synced = usize::try_from(from).unwrap();
        let unsynced = bytes.len() - synced;
        match seed % 3 {
            0 => bytes.truncate(synced),
            1 => bytes.truncate(synced + unsynced * 2 / 3),
            _ => bytes[synced + unsynced / 3..].fill(0),
        }
        fs::write(&path, bytes).unwrap();
    }
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_power_failure_that_takes_what_was_not_synced() {
    for seed in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let delegation = Arc::new(testing::delegation());
        // No head is signed meanwhile, so nothing is synced but the journal.
        let settings = LedgerSettings { head_interval: Duration::from_secs(3600), ..settings(dir.path()) };
        let kept = try_open(settings).await.unwrap();
        let mut receipts = Vec::new();
        for number in 0..20 {
            receipts.push(kept.ledger.decided(permitted(kept.question(number, &delegation))).await.unwrap());
        }
        kept.crash().await;
        lose_power(dir.path(), [0, 0], seed);
        open(dir.path()).await.close().await;
        for receipt in &receipts {
            let found = query::find(&dir.path().join("ledger"), receipt.id().as_str()).unwrap().unwrap();
            assert_eq!(found.settled.unwrap().text("outcome"), Some("unknown"));
        }
        assert_eq!(verified(dir.path()).open_calls, 0);
    }
}

#[tokio::test]
async fn more_than_a_lap_of_the_journal_is_as_durable() {
    let dir = tempfile::tempdir().unwrap();
    let delegation = Arc::new(testing::delegation());
    let settings = LedgerSettings { head_interval: Duration::from_secs(3600), ..settings(dir.path()) };
    let kept = try_open(settings).await.unwrap();
    let mut ids = Vec::new();
    // All that wait share one entry: many at once are much of a lap.
    for round in 0..8 {
        let tasks = net::Tasks::new();
        let calls = (0..400).map(|number| {
            let (ledger, question) = (kept.ledger.clone(), kept.question(round * 1000 + number, &delegation));
            tasks.spawn("a call", async move { ledger.decided(permitted(question)).await.unwrap() })
        });
        for call in calls.collect::<Vec<_>>() {
            ids.push(call.join().await.unwrap().id().clone());
        }
    }
    kept.crash().await;
    let whole = fs::metadata(dir.path().join("ledger/00000001.jsonl")).unwrap().len();
    assert!(whole > 3 * 1024 * 1024, "{whole}");
    open(dir.path()).await.close().await;
    let entries = all(dir.path());
    let on_record: BTreeSet<_> = entries.iter().filter_map(|entry| entry.text("decision_id")).collect();
    assert!(ids.iter().all(|id| on_record.contains(id.as_str())));
    assert_eq!(verified(dir.path()).open_calls, 0);
}

#[tokio::test]
async fn nothing_of_a_call_is_left_in_the_journal_once_somebody_was_erased_or_the_ledger_was_closed() {
    use crate::erasure::{Erasure, Person};
    let dir = tempfile::tempdir().unwrap();
    let delegation = Arc::new(testing::delegation());
    let settings = LedgerSettings { head_interval: Duration::from_secs(3600), ..settings(dir.path()) };
    let kept = try_open(settings).await.unwrap();
    let path = b"\"/path\"";
    let in_journal = || fs::read(dir.path().join("ledger/journal")).unwrap().windows(path.len()).any(|at| at == path);
    kept.call(1, &delegation).await;
    assert!(in_journal());
    for _ in 0..2 {
        let alice = Person { user: "alice@acme".to_owned(), issuer: None, tenant: None };
        kept.ledger.erase(Erasure::new(alice, "the data protection officer", "request 17").unwrap()).await.unwrap();
        assert!(!in_journal());
    }
    let last = kept.ledger.decided(permitted(kept.question(2, &delegation))).await.unwrap();
    assert!(in_journal());
    kept.close().await;
    assert!(!in_journal());
    assert_eq!(outcome(dir.path(), last.id().as_str()).as_deref(), Some("unknown"));
    verified(dir.path());
}

#[tokio::test]
async fn a_journal_that_is_lost_when_no_segment_is_open_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let delegation = Arc::new(testing::delegation());
    let kept = try_open(LedgerSettings { segment_max_bytes: 1, ..settings(dir.path()) }).await.unwrap();
    kept.call(1, &delegation).await;
    fs::remove_file(dir.path().join("ledger/journal")).unwrap();
    // The full segment is sealed, and it is the next that cannot be begun.
    let refused = kept.ledger.decided(permitted(kept.question(2, &delegation))).await;
    assert!(matches!(refused, Err(LedgerError::Unavailable(_))), "{refused:?}");
    recovered(&kept.ledger).await;
    kept.call(3, &delegation).await;
    kept.close().await;
    assert_eq!(verified(dir.path()).open_calls, 0);
}

#[tokio::test]
async fn an_outage_is_told_once_as_it_begins() {
    let dir = tempfile::tempdir().unwrap();
    let delegation = Arc::new(testing::delegation());
    let kept = open(dir.path()).await;
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    kept.ledger.tell_alerts(Arc::new(move |alert| heard.lock().unwrap().push(alert)));
    kept.call(1, &delegation).await;
    for round in 0..2 {
        let outage =
            Outage { path: dir.path().join(format!("ledger/{:08}.jsonl", round + 1)), away: dir.path().join("away") };
        fs::rename(&outage.path, &outage.away).unwrap();
        for number in 2..5 {
            assert!(kept.ledger.decided(permitted(kept.question(number, &delegation))).await.is_err());
        }
        {
            let told = told.lock().unwrap();
            assert_eq!(told.len(), round + 1, "as it begins, and once: {told:?}");
            assert_eq!(told[round]["alert"], "ledger_unavailable");
            assert!(told[round]["since"].is_string() && !told[round]["why"].as_str().unwrap().is_empty());
        }
        outage.end();
        recovered(&kept.ledger).await;
        assert_eq!(told.lock().unwrap().len(), round + 1, "what is on record afterwards says no more");
    }
    kept.close().await;
    assert_eq!(kinds(&all(dir.path())).iter().filter(|kind| **kind == "alert.raised").count(), 2);
}
