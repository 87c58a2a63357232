//! What a durable decision costs: alone, and when many callers share an fsync.

#![expect(clippy::expect_used, reason = "the sample data is the tests' own")]

#[path = "../src/testing.rs"]
mod testing;

mod sample;

use std::sync::Arc;

use countersign_audit::{Ledger, LedgerSettings};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn append(criterion: &mut Criterion) {
    let (Ok(runtime), Ok(dir)) = (tokio::runtime::Runtime::new(), tempfile::tempdir()) else { return };
    let settings = LedgerSettings::new(dir.path().join("ledger"), sample::started());
    let tasks = net::Tasks::new();
    let Ok(ledger) = runtime.block_on(Ledger::open(settings, &tasks)) else { return };
    let delegation = Arc::new(testing::delegation());
    let mut group = criterion.benchmark_group("decided");
    for callers in [1_u32, 16, 64] {
        group.throughput(Throughput::Elements(u64::from(callers)));
        group.bench_with_input(BenchmarkId::from_parameter(callers), &callers, |bencher, &callers| {
            bencher.iter(|| {
                runtime.block_on(async {
                    let calls: Vec<_> = (0..callers)
                        .map(|_| {
                            let (ledger, record) = (ledger.clone(), sample::record(&ledger, &delegation));
                            tasks.spawn("caller", async move { ledger.decided(record).await.is_ok() })
                        })
                        .collect();
                    for call in calls {
                        assert_eq!(call.join().await, Ok(true));
                    }
                });
            });
        });
    }
    group.finish();
    runtime.block_on(ledger.close());
}

criterion_group!(benches, append);
criterion_main!(benches);
