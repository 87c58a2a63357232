//! A ledger of many segments, written by many callers at once while the keeper compresses behind them: what it costs,
//! and that it is whole. `COUNTERSIGN_LONG_LEDGER=CALLS,DIR` writes a longer one and leaves it there.

use std::{fs, path::PathBuf};

use super::*;
use crate::{
    erasure::{Erasure, Person},
    segment::{self, Paths},
    stored::{self, packed},
};

const CALLS: u128 = 2000;
const CALLERS: u128 = 200;

#[expect(clippy::disallowed_methods, reason = "a test reads its own switch")]
fn asked_for() -> Option<(u128, PathBuf)> {
    let given = std::env::var("COUNTERSIGN_LONG_LEDGER").ok()?;
    let (calls, dir) = given.split_once(',')?;
    Some((calls.parse().unwrap(), PathBuf::from(dir)))
}

/// Bytes on the disk of what belongs to segments, and how many of them are compressed.
fn sizes(ledger: &Path) -> (u64, u64) {
    let (mut bytes, mut compressed) = (0, 0);
    for index in segment::list(ledger).unwrap() {
        let paths = Paths::new(ledger, index);
        bytes += [&paths.lines, &paths.values, &paths.heads, &paths.seal]
            .map(|path| stored::bytes_on_disk(path))
            .iter()
            .sum::<u64>();
        compressed += u64::from(packed(&paths.lines).exists());
    }
    (bytes, compressed)
}

async fn write(kept: &Kept, calls: u128) {
    let tasks = net::Tasks::new();
    let people: Vec<_> = (0..20)
        .map(|person| testing::delegation_of(&format!("user-{person}@acme"), "https://sso.example"))
        .map(Arc::new)
        .collect();
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let records: Vec<_> = (0..calls / CALLERS)
                .map(|number| {
                    let person = &people[usize::try_from((caller + number) % 20).unwrap()];
                    kept.question(caller * calls + number, person)
                })
                .collect();
            let ledger = kept.ledger.clone();
            tasks.spawn("caller", async move {
                for question in records {
                    let receipt = ledger.decided(permitted(question)).await.unwrap();
                    ledger.settled(completed(receipt.id())).await.unwrap();
                }
            })
        })
        .collect();
    for caller in callers {
        caller.join().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_ledger_is_compressed_behind_its_writers_and_is_whole() {
    let own = tempfile::tempdir().unwrap();
    let (calls, dir) = asked_for().unwrap_or((CALLS, own.path().to_owned()));
    let long = calls > CALLS;
    let settings = LedgerSettings {
        segment_max_bytes: if long { 64 << 20 } else { 1 << 20 },
        head_interval: Duration::from_secs(1),
        compress_after: if long { None } else { Some(Duration::ZERO) },
        ..settings(&dir)
    };
    let ledger = dir.join("ledger");
    let kept = try_open(settings).await.unwrap();
    write(&kept, calls).await;
    if !long {
        eventually("compression", || sizes(&ledger).1 > 1).await;
    }
    kept.close().await;
    let (bytes, compressed) = sizes(&ledger);
    println!("{} bytes of ledger a call, {compressed} segments compressed", bytes / u64::try_from(calls).unwrap());
    let before = net::clock::monotonic();
    let report = verified(&dir);
    println!("{} records verified in {:?}", report.records, before.elapsed());
    assert_eq!(u128::from(report.records), calls * 2 + 2 + tokens(&dir));
    assert_eq!(report.open_calls, 0);

    let kept = try_open(super::settings(&dir)).await.unwrap();
    let person = Person { user: "user-7@acme".to_owned(), issuer: None, tenant: None };
    let before = net::clock::monotonic();
    let erased = kept.ledger.erase(Erasure::new(person, "dpo", "17").unwrap()).await.unwrap();
    println!("{} records of one person erased in {:?}", erased.records, before.elapsed());
    assert!(u128::from(erased.records) >= calls / 20);
    kept.close().await;
    assert_eq!(verified(&dir).erased, erased.values);
    assert!(
        fs::read_dir(&ledger)
            .unwrap()
            .flatten()
            .all(|entry| entry.path().extension().is_none_or(|ending| ending != "new"))
    );
}

/// How many records of tokens there are: one a segment for each person.
fn tokens(dir: &Path) -> u128 {
    let kind = Some("token.seen".to_owned());
    matching(dir, Filter { kind, ..Filter::default() }).len() as u128
}
