//! What reading decisions back costs, with the questions they answered put together again: one segment, one thread.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "the sample data is the tests' own")]

#[path = "../src/testing.rs"]
mod testing;

mod sample;

use std::sync::Arc;

use countersign_audit::{
    Ledger, LedgerSettings,
    decisions::{Batches, segments},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// How many are in the segment.
const DECISIONS: u64 = 4_000;

async fn write(ledger: &Ledger, tasks: &net::Tasks) {
    let delegation = Arc::new(testing::delegation());
    let writing: Vec<_> = (0..DECISIONS)
        .map(|_| {
            let (ledger, record) = (ledger.clone(), sample::record(ledger, &delegation));
            tasks.spawn("caller", async move { ledger.decided(record).await.is_ok() })
        })
        .collect();
    for call in writing {
        assert_eq!(call.join().await, Ok(true));
    }
}

fn reading(criterion: &mut Criterion) {
    let (runtime, dir) = (tokio::runtime::Runtime::new().unwrap(), tempfile::tempdir().unwrap());
    let settings = LedgerSettings::new(dir.path().join("ledger"), sample::started());
    let tasks = net::Tasks::new();
    runtime.block_on(async {
        let ledger = Ledger::open(settings, &tasks).await.expect("a new ledger opens");
        write(&ledger, &tasks).await;
        ledger.close().await;
    });
    let ledger = dir.path().join("ledger");
    let all = segments(&ledger, None, None).unwrap();
    let mut group = criterion.benchmark_group("decisions");
    group.throughput(Throughput::Elements(DECISIONS)).sample_size(10);
    group.bench_function("read", |bencher| {
        bencher.iter(|| {
            let mut batches = Batches::of(&ledger, &all);
            let next = || batches.next_batch().expect("it can be read");
            let read = std::iter::from_fn(next).map(|batch| {
                batch.decided().filter(|decided| decided.as_ref().is_ok_and(|decided| decided.question.is_ok())).count()
            });
            assert_eq!(read.sum::<usize>() as u64, DECISIONS);
        });
    });
    group.finish();
}

criterion_group!(benches, reading);
criterion_main!(benches);
