//! What a decision costs with the demo's policies: the input alone, and the whole of `decide`.

#![expect(clippy::unwrap_used, reason = "a bench that cannot set itself up has nothing to measure")]

use std::{hint::black_box, path::Path};

use countersign_policy::{Engine, Source, input};
use criterion::{Criterion, criterion_group, criterion_main};

mod fixture;

fn decide(criterion: &mut Criterion) {
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies");
    let read = |name: &str, directory: &str, tools: Option<&str>| {
        Source::read(name, &policies.join(directory), tools.map(|tool| [fixture::id(tool)].into())).unwrap()
    };
    let sources = [read("org", "org", None), read("support", "orders", Some("orders"))];
    let engine = Engine::load(&sources, &fixture::catalogue(&["orders"])).unwrap();
    let question = fixture::question();
    criterion.bench_function("input", |bencher| bencher.iter(|| input::value(black_box(&question))));
    criterion.bench_function("canonical_json", |bencher| bencher.iter(|| input::canonical_json(black_box(&question))));
    criterion.bench_function("decide", |bencher| bencher.iter(|| engine.decide(black_box(&question))));
}

criterion_group!(benches, decide);
criterion_main!(benches);
