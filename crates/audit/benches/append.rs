//! What a durable decision costs: alone, and when many callers share an fsync.

#![expect(clippy::expect_used, reason = "the sample data is the tests' own")]

#[path = "../src/testing.rs"]
mod testing;

use std::sync::Arc;

use countersign_audit::{
    CallDecided, Ledger, LedgerSettings,
    record::{Body, Component, Digest, EntryMode, Mode, Revisions, Started, Subject, Timings},
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use model::{Decision, Delegation, Verdict, catalogue::IdentityMode};

fn record(ledger: &Ledger, delegation: &Arc<Delegation>) -> CallDecided {
    let id = format!("{}.0198c5b2-7d5e-7c30-9f3e-0a1b2c3d4e5f", ledger.id());
    CallDecided {
        subject: Subject::Question(Arc::new(testing::question(&id, Arc::clone(delegation)))),
        decision: Decision { verdict: Verdict::Permit, code: None, reasons: Vec::new() },
        refusal: None,
        stage_reached: "record",
        trace: None,
        input_digest: Some(Digest::of(b"input")),
        body: Body::Unseen,
        revisions: Revisions::default(),
        identity_mode: Some(IdentityMode::ServiceAccount),
        charge: None,
        entry: EntryMode::Delegated,
        mode: Mode::Enforce,
        timings: Timings::from([("decide", 80)]),
    }
}

fn append(criterion: &mut Criterion) {
    let (Ok(runtime), Ok(dir)) = (tokio::runtime::Runtime::new(), tempfile::tempdir()) else { return };
    let started = Started { component: Component::Sidecar, name: "bench".to_owned(), version: "0".to_owned() };
    let settings = LedgerSettings::new(dir.path().join("ledger"), started);
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
                            let (ledger, record) = (ledger.clone(), record(&ledger, &delegation));
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
