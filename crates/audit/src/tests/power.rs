//! Power failures while the segment's files are synced and heads are signed beside the writer: the disk may have nothing
//! of what no sync has ended for, and whatever it likes of the rest.

use std::{
    fs,
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    beside::{self, Beside, Worker},
    heads::Head,
    journal::{Entry, Journal},
    recovery,
    segment::{Home, OpenSegment, Paths, Position},
};

/// A segment and its journal, written without the writer, so that what goes on beside is done when the test says so.
struct Desk {
    dir: tempfile::TempDir,
    home: Arc<Home>,
    segment: OpenSegment,
    journal: Journal,
    beside: Beside,
    worker: Worker,
    /// How long lines and rows were when a job was handed over that is not done yet.
    under_way: Option<[u64; 2]>,
    /// How much of lines and rows a sync has ended for.
    durable: [u64; 2],
}

/// What is written at once.
struct Step {
    bytes: usize,
    then: Then,
}

/// What happens after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Nothing,
    /// A head is due.
    Head,
    /// What goes on beside is done.
    Done,
    /// The power fails; what was written last was not acknowledged, and this much of each thousand bytes of it arrived.
    Power(usize),
}

fn home(dir: &Path) -> Home {
    let key = crate::keys::load_or_create(&dir.join("key")).unwrap();
    Home { dir: dir.to_owned(), origin: "test".to_owned(), key }
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Arc::new(home(dir.path()));
        let mut journal = Journal::open(dir.path()).unwrap();
        let start = Position::genesis("test");
        let segment = OpenSegment::create(&home, 1, start, net::clock::monotonic()).unwrap();
        journal.append(&segment.end(), None).unwrap();
        let (beside, worker) = beside::pair(Arc::default(), None);
        Self { dir, home, segment, journal, beside, worker, under_way: None, durable: [0, 0] }
    }

    fn written(&self) -> [u64; 2] {
        [self.segment.extent.line_bytes, self.segment.extent.value_bytes]
    }

    /// Does what was handed over.
    fn done(&mut self) {
        if let Some(durable) = self.under_way.take() {
            assert!(self.worker.next());
            assert!(!self.beside.is_busy().unwrap());
            self.durable = durable;
        }
    }

    fn head(&mut self) {
        self.done();
        let heading = self.segment.heading(&self.home);
        self.segment.hand_over(&mut self.journal, &mut self.beside, Some(heading)).unwrap();
        self.under_way = Some(self.written());
    }

    fn write(&mut self, bytes: usize) {
        let batch = {
            let mut batch = self.segment.batch();
            let (seq, prev) = (batch.position.seq(), chain::encoded(&batch.position.prev));
            let time = "2026-03-14T14:32:01Z";
            let line =
                json!({"v": 1, "seq": seq, "time": time, "kind": "test", "prev": prev, "pad": "x".repeat(bytes)});
            let (line, row) = (format!("{line}\n"), format!("{}\n", json!({"seq": seq, "values": {}})));
            batch.position.push(line.trim_end().as_bytes());
            batch.extent.push(line.len(), time.parse().unwrap());
            batch.extent.value_bytes += row.len() as u64;
            batch.lines = line.into_bytes();
            batch.values = row.into_bytes();
            batch
        };
        let entry = Entry { lines: &batch.lines, values: &batch.values, ..self.segment.end() };
        let (turns, large) = (!self.journal.has_room(&entry), !Journal::takes(&entry));
        if turns {
            // It would wait for that.
            self.done();
        }
        let before = self.written();
        // A head is always due: it comes with each lap that is full.
        self.segment.commit(batch, &mut self.journal, &mut self.beside, Some(&self.home), None).unwrap();
        if large {
            self.durable = self.written();
        } else if turns {
            self.under_way = Some(before);
        }
    }

    /// What a start finds after a power failure; `torn` is the journal as it was then, and `end` where the lines end that
    /// were acknowledged.
    fn power_fails(&self, torn: &[u8], seed: usize, end: &Position) {
        let left = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(self.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, left.path().join(path.file_name().unwrap())).unwrap();
        }
        fs::write(left.path().join("journal"), torn).unwrap();
        let paths = Paths::new(left.path(), 1);
        for (path, durable) in [&paths.lines, &paths.values].into_iter().zip(self.durable) {
            let mut bytes = fs::read(path).unwrap();
            let durable = usize::try_from(durable).unwrap();
            let lost = bytes.len() - durable;
            match seed % 3 {
                0 => bytes.truncate(durable),
                1 => bytes.truncate(durable + lost * 2 / 3),
                _ => bytes[durable + lost / 3..].fill(0),
            }
            fs::write(path, bytes).unwrap();
        }
        // No head speaks of more than what is durable in the segment's own file.
        if let Ok(note) = fs::read_to_string(left.path().join("head")) {
            let head = Head::verify(&note, &self.home.verifying_key()).unwrap();
            let whole = fs::read(&Paths::new(self.dir.path(), 1).lines).unwrap();
            let durable = &whole[..usize::try_from(self.durable[0]).unwrap()];
            assert!(head.size <= durable.iter().filter(|byte| **byte == b'\n').count() as u64);
        }
        let recovered = recovery::recover(&home(left.path())).unwrap();
        assert_eq!(recovered.position, *end, "everything that was acknowledged is there, and nothing else");
    }
}

fn run(steps: &[Step], seed: usize) {
    let mut desk = Desk::new();
    let journal = |desk: &Desk| fs::read(desk.dir.path().join("journal")).unwrap();
    for step in steps {
        let before = match step.then {
            Then::Power(_) => Some((journal(&desk), desk.segment.position.clone())),
            Then::Nothing | Then::Head | Then::Done => None,
        };
        desk.write(step.bytes);
        match (step.then, before) {
            (Then::Power(arrived), Some((before, acknowledged))) => {
                let after = journal(&desk);
                desk.power_fails(&after, seed, &desk.segment.position);
                desk.power_fails(&torn(&before, after, arrived), seed, &acknowledged);
            }
            (Then::Head, _) => desk.head(),
            (Then::Done, _) => desk.done(),
            (Then::Nothing | Then::Power(_), _) => {}
        }
    }
}

/// A journal of which only the first part of its last change arrived: `arrived` of a thousand bytes, and never all.
fn torn(before: &[u8], mut after: Vec<u8>, arrived: usize) -> Vec<u8> {
    let same = after.chunks(4096).zip(before.chunks(4096)).take_while(|(after, before)| after == before).count();
    let differs = |at: &usize| before.get(*at) != after.get(*at);
    let from = (same * 4096..after.len()).find(differs).unwrap();
    // An entry of the lap whose place this one takes may go on behind it.
    let to = (from..after.len()).rev().find(differs).unwrap() + 1;
    let arrived = from + (to - from) * arrived / 1000;
    for (at, byte) in after.iter_mut().enumerate().take(to).skip(arrived) {
        *byte = before.get(at).copied().unwrap_or_default();
    }
    after
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![3 => 1_usize..2_000, 4 => 300_000_usize..1_500_000, 1 => 4_190_000_usize..4_200_000];
    let then = prop_oneof![
        4 => Just(Then::Nothing),
        2 => Just(Then::Head),
        2 => Just(Then::Done),
        2 => (0_usize..1000).prop_map(Then::Power),
    ];
    (bytes, then).prop_map(|(bytes, then)| Step { bytes, then })
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.bytes, self.then)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 40, ..ProptestConfig::default() })]
    #[test]
    fn wherever_the_power_fails_everything_acknowledged_is_there_and_no_head_is_ahead(
        steps in prop::collection::vec(step(), 4..14), seed in 0_usize..3
    ) {
        run(&steps, seed);
    }
}

#[test]
fn a_third_lap_waits_until_the_first_is_synced() {
    let mut desk = Desk::new();
    for _ in 0..2 {
        desk.write(3_000_000);
    }
    assert!(desk.under_way.is_some(), "the first lap is full, and not synced");
    let Desk { mut segment, mut journal, mut beside, worker, .. } = desk;
    let begun = Arc::new(AtomicBool::new(false));
    let may = Arc::clone(&begun);
    let third = thread::spawn(move || {
        let mut batch = segment.batch();
        batch.lines = vec![b'x'; 3_000_000];
        batch.extent.line_bytes += 3_000_000;
        segment.commit(batch, &mut journal, &mut beside, None, None).unwrap();
        assert!(may.load(Ordering::Acquire), "it did not wait");
        (segment, journal, beside)
    });
    // Long enough for it to go wrong; where it does not, any time will do.
    thread::sleep(Duration::from_millis(50));
    begun.store(true, Ordering::Release);
    assert!(worker.next());
    drop(third.join().unwrap());
}

#[test]
fn under_load_a_head_that_is_due_is_signed_with_each_lap_that_is_full() {
    let mut desk = Desk::new();
    for lap in 0..3 {
        desk.write(3_000_000);
        let newest = fs::read_to_string(desk.dir.path().join("head")).ok();
        let signed = newest.map(|note| Head::verify(&note, &desk.home.verifying_key()).unwrap().size);
        assert_eq!(signed, (lap > 1).then_some(1), "what was written before the lap was full, once that is synced");
    }
    desk.done();
    let newest = fs::read_to_string(desk.dir.path().join("head")).unwrap();
    assert_eq!(Head::verify(&newest, &desk.home.verifying_key()).unwrap().size, 2);
}

/// Holds up what goes on beside the writer.
struct Gate {
    closed: Arc<Mutex<()>>,
    settings: LedgerSettings,
}

fn gated(dir: &Path) -> Gate {
    let closed = Arc::new(Mutex::new(()));
    let (writer, gate) = (OnceLock::new(), Arc::clone(&closed));
    // The first fsync is the writer's.
    let observer = move |_| {
        let here = thread::current().id();
        if *writer.get_or_init(|| here) != here {
            drop(gate.lock().unwrap());
        }
    };
    Gate { closed, settings: LedgerSettings { fsync_observer: Some(Arc::new(observer)), ..settings(dir) } }
}

#[tokio::test]
#[expect(
    clippy::await_holding_lock,
    reason = "the gate stays closed meanwhile, and only a thread of its own waits there"
)]
async fn what_waits_to_be_synced_beside_the_writer_outlives_a_power_failure() {
    for seed in 0..3 {
        let (dir, left) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let delegation = Arc::new(testing::delegation());
        let Gate { closed, settings } = gated(dir.path());
        let kept = try_open(settings).await.unwrap();
        kept.call(1, &delegation).await;
        let newest = || kept.ledger.head().map_or(0, |head| head.size);
        eventually("a head", || newest() > 0).await;
        let held = closed.lock().unwrap();
        let mut receipts = Vec::new();
        for number in 2..80 {
            // What hangs for too long refuses: on a machine that is so slow, fewer records have to do.
            let Ok(receipt) = kept.ledger.decided(permitted(kept.question(number, &delegation))).await else { break };
            receipts.push(receipt);
        }
        let signed = newest();
        fs::create_dir_all(left.path().join("ledger")).unwrap();
        fs::copy(dir.path().join("ledger.key"), left.path().join("ledger.key")).unwrap();
        for entry in fs::read_dir(dir.path().join("ledger")).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::copy(&path, left.path().join("ledger").join(path.file_name().unwrap())).unwrap();
            }
        }
        drop(held);
        kept.close().await;
        let lines = fs::read_to_string(left.path().join("ledger/00000001.jsonl")).unwrap();
        let covered = lines.split_inclusive('\n').take(usize::try_from(signed).unwrap()).map(str::len).sum::<usize>();
        let values = recovery::value_bytes_below(&left.path().join("ledger/00000001.values"), signed).unwrap();
        assert!(covered < lines.len(), "more was acknowledged than a head could be signed for");
        crash::lose_power(left.path(), [covered as u64, values], seed);
        fs::set_permissions(left.path().join("ledger"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        open(left.path()).await.close().await;
        for receipt in &receipts {
            assert!(query::find(&left.path().join("ledger"), receipt.id().as_str()).unwrap().is_some());
        }
        assert!(verified(left.path()).records > receipts.len() as u64);
        verified(dir.path());
    }
}

#[tokio::test]
async fn a_head_that_cannot_be_signed_beside_refuses_calls_until_it_can_and_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let delegation = Arc::new(testing::delegation());
    let kept = open(dir.path()).await;
    let first = kept.call(1, &delegation).await;
    // Where the new head would be written, before it takes the place of the one that is there.
    let obstacle = dir.path().join("ledger/head.new");
    let mut calls = vec![first];
    for number in 2.. {
        if fs::create_dir(&obstacle).is_ok() || obstacle.is_dir() {
            match kept.ledger.decided(permitted(kept.question(number, &delegation))).await {
                Ok(receipt) => calls.push(receipt.id().clone()),
                Err(_) => break,
            }
        }
    }
    assert!(!kept.ledger.healthy());
    fs::remove_dir(&obstacle).unwrap();
    eventually("the ledger to be written again", || kept.ledger.healthy()).await;
    calls.push(kept.call(1_000_000, &delegation).await);
    kept.close().await;
    for id in &calls {
        assert!(query::find(&dir.path().join("ledger"), id.as_str()).unwrap().is_some());
    }
    assert_eq!(verified(dir.path()).open_calls, 0);
}
