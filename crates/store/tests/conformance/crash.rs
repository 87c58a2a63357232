//! What holds when processes are killed in the middle of their writes.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use countersign_store::{Change, ChangeKind, Database, Page, Store, WithdrawalFilter, Writer};
use net::Tasks;
use secrecy::SecretString;

use crate::{
    CHILD,
    place::{Place, now, target, writer},
};

/// How often a process is killed; more by `COUNTERSIGN_TEST_ROUNDS`.
const ROUNDS: usize = 4;

/// What says to a test process that it is to write, and where.
const DATABASE: &str = "COUNTERSIGN_TEST_STORE";
/// What says by which names.
const NAME: &str = "COUNTERSIGN_TEST_STORE_NAME";

fn writes_to(place: &Place, name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", CHILD, "--nocapture", "--test-threads=1"]);
    command.env(DATABASE, place.named()).env(NAME, name).stdout(Stdio::piped());
    command
}

/// Another process: it writes until it is killed, and says each position that was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn this_process_writes_when_it_is_told_to() {
    let (Some(database), Some(name)) = (std::env::var_os(DATABASE), std::env::var_os(NAME)) else { return };
    let database = match database.to_str().unwrap() {
        url if url.starts_with("postgres:") => Database::Postgres(SecretString::from(url)),
        path => Database::Sqlite(PathBuf::from(path)),
    };
    let tasks = Tasks::new();
    let store = match Store::open(&database, now(), &tasks).await {
        Ok(store) => store,
        Err(error) => {
            println!("\nfailed {error}");
            return;
        }
    };
    println!("\nopened");
    let mut writers = Vec::new();
    for lane in 0..4 {
        let (store, name) = (store.clone(), format!("{}-{lane}", name.to_str().unwrap()));
        writers.push(tasks.spawn("writer", async move {
            for number in 0..5_000 {
                let by = Writer { idempotency: Some(format!("{name}-{number}")), ..writer() };
                match store.withdraw(&by, target(&format!("task:{name}-{number}"))).await {
                    Ok(made) => println!("made {} {name}-{number}", made.position),
                    Err(error) => {
                        println!("failed {error}");
                        return;
                    }
                }
            }
        }));
    }
    for writer in writers {
        writer.join().await.ok();
    }
}

/// Positions by name, as `child` says them, until it ends.
fn acknowledged(child: &mut Child, kill_after: usize) -> BTreeMap<String, u64> {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut made = BTreeMap::new();
    while let Some(Ok(line)) = lines.next() {
        let mut words = line.split(' ');
        if let (Some("made"), Some(position), Some(name)) = (words.next(), words.next(), words.next()) {
            made.insert(name.to_owned(), position.parse().unwrap());
        }
        if made.len() == kill_after {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    made
}

pub(crate) async fn nothing_acknowledged_is_lost_when_its_process_is_killed(place: &Place) {
    let rounds = std::env::var_os("COUNTERSIGN_TEST_ROUNDS").and_then(|rounds| rounds.to_str()?.parse().ok());
    let mut made = BTreeMap::new();
    for round in 0..rounds.unwrap_or(ROUNDS) {
        let mut child = writes_to(place, &format!("round-{round}")).spawn().unwrap();
        let after = 20 + 37 * (round % 5);
        made.extend(tokio::task::spawn_blocking(move || acknowledged(&mut child, after)).await.unwrap());
    }
    assert!(made.len() > ROUNDS * 20, "{} were acknowledged", made.len());
    is_whole(&place.open().await, &made).await;
}

/// Every acknowledged write is there, under its position; positions have no gap; nothing is half made.
pub(crate) async fn is_whole(store: &Store, made: &BTreeMap<String, u64>) {
    let changes = every_change(store).await;
    let head = store.head().await.unwrap().position;
    let positions: Vec<u64> = changes.iter().map(|change| change.position).collect();
    assert_eq!(positions, (1..=head).collect::<Vec<_>>(), "every position once");
    let mut withdrawals = BTreeMap::new();
    let mut page = Page { after: 0, limit: 500 };
    loop {
        let listed = store.withdrawals(&WithdrawalFilter::default(), page).await.unwrap();
        withdrawals.extend(listed.items.into_iter().map(|it| (it.target.to_string(), it.position)));
        match listed.next {
            Some(next) => page.after = next,
            None => break,
        }
    }
    let logged: BTreeMap<String, u64> = changes
        .into_iter()
        .filter_map(|change| match change.kind {
            ChangeKind::Withdrawal(withdrawal) => Some((withdrawal.target.to_string(), change.position)),
            _ => None,
        })
        .collect();
    assert_eq!(logged, withdrawals, "the log and the list say the same");
    for (name, position) in made {
        assert_eq!(withdrawals.get(&format!("task:{name}")), Some(position), "{name} was acknowledged");
    }
    // What was acknowledged, and what was not, are both answered as they stand when asked for again.
    for (name, position) in made.iter().take(10) {
        let by = Writer { idempotency: Some(name.clone()), ..writer() };
        let again = store.withdraw(&by, target(&format!("task:{name}"))).await.unwrap();
        assert!(again.replayed && again.position == *position, "{name}");
    }
}

pub(crate) async fn every_change(store: &Store) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    loop {
        let after = changes.last().map_or(0, |last| last.position);
        let feed = store.changes(after, 500).await.unwrap();
        changes.extend(feed.changes);
        if !feed.more {
            return changes;
        }
    }
}

pub(crate) async fn processes_that_start_together_make_one_schema(place: &Place) {
    let children: Vec<Child> = (0..3).map(|name| writes_to(place, &format!("start-{name}")).spawn().unwrap()).collect();
    let mut made = BTreeMap::new();
    for mut child in children {
        made.extend(tokio::task::spawn_blocking(move || acknowledged(&mut child, 10)).await.unwrap());
    }
    assert!(made.len() >= 30, "each of them wrote: {}", made.len());
    is_whole(&place.open().await, &made).await;
}
