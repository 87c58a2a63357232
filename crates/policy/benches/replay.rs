//! What making recorded decisions again costs, with every question evaluated and with those remembered that differ in
//! nothing that the policies read; on one thread, and on two that share the policies.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a bench that cannot be set up has to end")]

mod fixture;

use std::{path::Path, time::Duration};

use countersign_policy::{
    Bounds, Engine, Source,
    replay::{self, Asked, Recorded, Tally, replay},
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use model::Question;

/// Decisions of one thread.
const DECISIONS: u64 = 2_000;

fn engine(remembered: usize) -> Engine {
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies");
    let read = |name: &str, directory: &str, tools| Source::read(name, &policies.join(directory), tools).unwrap();
    let sources = [read("org", "org", None), read("support", "orders", Some([fixture::id("orders")].into()))];
    Engine::load_within(&sources, &fixture::catalogue(&["orders"]), Bounds { remembered, ..Bounds::default() }).unwrap()
}

/// Refunds of other orders and amounts, as a ledger has them one after the other.
fn question(number: u64) -> Question {
    let mut question = fixture::question();
    question.call.resource = format!("orders/{number}");
    question.call.parameters = fixture::amount(&format!("{}.{:02}", number % 40, number % 100), "USD");
    question
}

fn again(engine: &Engine, recorded: &[(Question, model::Decision)]) -> Tally {
    let mut tally = Tally::new(replay::Bounds::default());
    let asked = recorded.iter().map(|(question, then)| {
        let (question, then) = (question.clone(), then.clone());
        Recorded::Asked(Box::new(Asked { question, then, revision: None, observed: false }))
    });
    replay(|question| engine.decide_again(question), asked, &mut tally);
    tally
}

fn replaying(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("replay");
    group.measurement_time(Duration::from_secs(4)).sample_size(10);
    for (name, remembered) in [("evaluated", 0), ("remembered", 4096)] {
        let engine = engine(remembered);
        let recorded: Vec<_> = (0..DECISIONS)
            .map(|number| {
                let question = question(number);
                let then = engine.decide(&question);
                (question, then)
            })
            .collect();
        for threads in [1, 2] {
            group.throughput(Throughput::Elements(DECISIONS * threads));
            group.bench_function(BenchmarkId::new(name, threads), |bencher| {
                bencher.iter(|| {
                    std::thread::scope(|scope| {
                        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| again(&engine, &recorded))).collect();
                        for worker in workers {
                            let tally = worker.join().expect("no thread panics");
                            assert_eq!(tally.unchanged, DECISIONS);
                        }
                    });
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, replaying);
criterion_main!(benches);
