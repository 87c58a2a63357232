//! A PostgreSQL server that another one takes over from, at the address of the first: with all that was acknowledged, or
//! without the last of it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use countersign_store::{Database, MAX_FEED, OpenError, Store, StoreError};
use net::Tasks;
use secrecy::SecretString;

use crate::{
    crash::is_whole,
    place::{after, eventually, keyed, later, now, target, writer},
    postgres::Server,
};

/// Its own server with a standby, and two replicas over it.
struct Fleet {
    server: Server,
    database: Database,
    tasks: Tasks,
    one: Store,
    other: Store,
}

impl Fleet {
    async fn start() -> Option<Self> {
        let server = Server::start()?;
        server.create_database("state");
        server.tell("standby");
        let database = Database::Postgres(SecretString::from(server.url("state")));
        let tasks = Tasks::new();
        let one = Store::open(&database, now(), &tasks).await.unwrap();
        let other = Store::open(&database, now(), &tasks).await.unwrap();
        Some(Self { server, database, tasks, one, other })
    }
}

/// Writes until it is asked to stop, each again with its key until it is answered; what was made where.
async fn write(store: Store, lane: usize, stop: Arc<AtomicBool>) -> BTreeMap<String, u64> {
    let mut made = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        let name = format!("{lane}-{}", made.len());
        let position = loop {
            match store.withdraw(&keyed(&name), target(&format!("task:{name}"))).await {
                Ok(done) => break done.position,
                Err(StoreError::Unavailable { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(other) => panic!("{other}"),
            }
        };
        made.insert(name, position);
    }
    made
}

/// Follows until it has `until`, whatever fails in between; every position in the order it came.
async fn follow(store: Store, until: Arc<AtomicBool>) -> Vec<u64> {
    let mut seen: Vec<u64> = Vec::new();
    let mut position = 0;
    loop {
        let last = until.load(Ordering::Relaxed);
        match store.followed(position, None, MAX_FEED, now()).await {
            Ok(feed) => {
                seen.extend(feed.changes.iter().map(|withdrawal| withdrawal.position));
                position = if feed.more { *seen.last().unwrap() } else { feed.head };
                if last && !feed.more {
                    return seen;
                }
            }
            Err(StoreError::Unavailable { .. }) => {}
            Err(other) => panic!("{other}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_takes_over_has_all_that_was_acknowledged_and_replicas_go_on_with_it() {
    let Some(Fleet { server, database, tasks, one, other }) = Fleet::start().await else { return };
    let (stop, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let writers: Vec<_> = [&one, &other, &one]
        .into_iter()
        .enumerate()
        .map(|(lane, store)| tasks.spawn("writer", write(store.clone(), lane, Arc::clone(&stop))))
        .collect();
    let followers: Vec<_> =
        [&one, &other].map(|store| tasks.spawn("follower", follow(store.clone(), Arc::clone(&over)))).into();
    let ahead = async |store: &Store, by: u64| {
        let mut at = None;
        eventually("writes to go", async || match store.head().await {
            Ok(head) => head.position >= *at.get_or_insert(head.position) + by,
            Err(_) => false,
        })
        .await;
    };
    ahead(&one, 30).await;
    server.tell("failover");
    ahead(&one, 30).await;
    ahead(&other, 10).await;
    stop.store(true, Ordering::Relaxed);
    let mut made = BTreeMap::new();
    for writer in writers {
        made.extend(writer.join().await.unwrap());
    }
    over.store(true, Ordering::Relaxed);
    is_whole(&other, &made).await;
    let head = other.head().await.unwrap().position;
    for follower in followers {
        assert_eq!(follower.join().await.unwrap(), (1..=head).collect::<Vec<_>>(), "each once, in order, none missed");
    }
    // It is one of its own by now: what is opened anew finds it.
    assert_eq!(Store::open(&database, now(), &tasks).await.unwrap().head().await.unwrap().position, head);
    tasks.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_lost_the_last_writes_is_believed_by_nobody_until_a_generation_begins() {
    let Some(Fleet { server, database, tasks, one, other }) = Fleet::start().await else { return };
    one.withdraw(&writer(), target("task:kept")).await.unwrap();
    server.tell("late");
    for name in ["lost", "lost-too"] {
        one.withdraw(&writer(), target(&format!("task:{name}"))).await.unwrap();
    }
    // This replica was told of none of it.
    let position = one.head().await.unwrap().position;
    let generation = one.head().await.unwrap().generation;
    other.close().await;
    server.tell("failover");
    let went_back = |error: StoreError| match error {
        StoreError::WentBack { head, position } => (head, position),
        other => panic!("{other}"),
    };
    let mut said = None;
    eventually("the loss to be noticed", async || match one.head().await {
        Ok(head) => panic!("{head:?}"),
        Err(StoreError::Unavailable { .. }) => false,
        Err(error) => {
            said = Some(went_back(error));
            true
        }
    })
    .await;
    assert_eq!((said, position), (Some((1, 3)), 3));
    assert_eq!(went_back(one.withdraw(&writer(), target("task:a")).await.unwrap_err()), (1, 3));

    // Nor by one that never saw what is lost: it is in the database itself.
    let new = Store::open(&database, now(), &tasks).await.unwrap();
    assert_eq!(went_back(new.followed(0, None, 10, now()).await.unwrap_err()), (1, 3));
    assert_eq!(went_back(new.withdraw(&writer(), target("task:a")).await.unwrap_err()), (1, 3));
    new.begin_generation(&later(60)).await.unwrap();
    for (store, position) in [(&one, 2), (&new, 3)] {
        let head = store.head().await.unwrap();
        assert!(head.generation != generation && head.position == position, "{head:?}");
        store.withdraw(&later(61), target("task:lost")).await.unwrap();
    }
    // What a ledger remembers of the generation before says nothing of this one; of this one it does.
    new.was_at(&generation, 3).await.unwrap();
    let generation = new.head().await.unwrap().generation;
    assert_eq!(went_back(new.was_at(&generation, 9).await.unwrap_err()), (4, 9));
    assert!(matches!(one.use_once("support", "a", after(60), now()).await, Ok(())));
    tasks.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_keeps_no_state_and_a_server_that_is_gone_without_a_word_holds_nobody_for_long() {
    let Some(Fleet { server, tasks, one, .. }) = Fleet::start().await else { return };
    let standby = Database::Postgres(SecretString::from(server.url("state").replace("door", "two")));
    let error = Store::open(&standby, now(), &tasks).await.unwrap_err();
    assert!(matches!(&error, OpenError::Unreachable { .. }) && error.to_string().contains("standby"), "{error}");

    // More questions than there are connections are under way when it falls silent.
    server.tell("pause");
    let asked: Vec<_> = (0..12)
        .map(|number| {
            let store = one.clone();
            tasks.spawn("asker", async move {
                match number % 2 {
                    0 => store.withdraw(&writer(), target("task:a")).await.map(drop),
                    _ => store.head().await.map(drop),
                }
            })
        })
        .collect();
    for asked in asked {
        let bounded = tokio::time::timeout(Duration::from_secs(60), asked.join()).await;
        let outcome = bounded.expect("it is bounded").unwrap();
        assert!(matches!(outcome, Err(StoreError::Unavailable { .. })), "{outcome:?}");
    }
    // Its connections are given up, though nobody ever said that they are gone; the address leads elsewhere.
    server.tell("failover");
    eventually("it to go on", async || one.withdraw(&writer(), target("task:b")).await.is_ok()).await;
    tasks.stop();
}
