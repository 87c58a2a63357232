//! The tail of a durable decision: calls come at a steady rate for some seconds, while heads are signed and files synced,
//! and each is counted from when it was due, so that a pause counts for all that waited for it.
//!
//! `cargo bench -p countersign-audit --bench tail -- [CALLS A SECOND] [SECONDS] [FOLDER]`

#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]
#![expect(clippy::expect_used, reason = "the sample data is the tests' own")]

#[path = "../src/testing.rs"]
mod testing;

mod sample;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use countersign_audit::{Ledger, LedgerSettings};

const QUANTILES: [(&str, usize); 5] = [("p50", 500), ("p90", 900), ("p99", 990), ("p99.9", 999), ("max", 1000)];

async fn measure(ledger: &Ledger, tasks: &net::Tasks, rate: u32, seconds: u32) -> Vec<Duration> {
    let delegation = Arc::new(testing::delegation());
    let taken = Arc::new(Mutex::new(Vec::new()));
    let start = net::clock::monotonic();
    let mut calls = Vec::new();
    for number in 0..rate * seconds {
        let due = start + Duration::from_secs(1) * number / rate;
        tokio::time::sleep_until(due.into()).await;
        let (ledger, record, taken) = (ledger.clone(), sample::record(ledger, &delegation), Arc::clone(&taken));
        calls.push(tasks.spawn("caller", async move {
            if ledger.decided(record).await.is_ok() {
                let waited = net::clock::monotonic().saturating_duration_since(due);
                taken.lock().unwrap_or_else(PoisonError::into_inner).push(waited);
            }
        }));
    }
    for call in calls {
        assert_eq!(call.join().await, Ok(()));
    }
    let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner).split_off(0);
    taken.sort_unstable();
    taken
}

fn main() {
    // Cargo's own arguments (`--bench`) are not ours.
    let mut given = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let mut number = |usual: u32| given.next().and_then(|text| text.parse().ok()).unwrap_or(usual);
    let (rate, seconds) = (number(2000), number(10));
    let folder = given.next();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("threads");
    let dir = match folder {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir(),
    };
    let dir = dir.expect("a folder");
    let tasks = net::Tasks::new();
    let taken = runtime.block_on(async {
        let settings = LedgerSettings::new(dir.path().join("ledger"), sample::started());
        let ledger = Ledger::open(settings, &tasks).await.expect("a ledger");
        let taken = measure(&ledger, &tasks, rate, seconds).await;
        ledger.close().await;
        taken
    });
    println!("{} of {} calls durable, {rate} a second", taken.len(), rate * seconds);
    for (name, per_mille) in QUANTILES {
        let at = (taken.len() * per_mille / 1000).min(taken.len().saturating_sub(1));
        println!("{name:>6} {:>9.3} ms", taken.get(at).map_or(0.0, |waited| waited.as_secs_f64() * 1000.0));
    }
}
