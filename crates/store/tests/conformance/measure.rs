//! How long writes and questions take, on both engines: said, never judged. `COUNTERSIGN_TEST_MEASURE=1` runs it.

use std::{pin::Pin, time::Duration};

use countersign_store::Store;

use crate::place::{Place, after, furnish, id, now, target, writer};

/// How many of each.
const COUNT: usize = 400;

fn says(what: &str, mut took: Vec<Duration>, whole: Duration) {
    took.sort_unstable();
    let at = |share: usize| took[took.len() * share / 100];
    let rate = took.len() as f64 / whole.as_secs_f64();
    println!("{what}: p50 {:?}, p99 {:?}, {rate:.0} a second", at(50), at(99));
}

/// `COUNT` times by `lanes` at once.
async fn measure<F: Future<Output = ()> + Send + 'static>(
    place: &Place,
    what: &str,
    lanes: usize,
    work: impl Fn(usize) -> F + Clone + Send + Sync + 'static,
) {
    let began = net::clock::monotonic();
    let mut running = Vec::new();
    for lane in 0..lanes {
        let work = work.clone();
        running.push(place.tasks.spawn("lane", async move {
            let mut took = Vec::new();
            for number in 0..COUNT / lanes {
                let began = net::clock::monotonic();
                work(lane * COUNT + number).await;
                took.push(began.elapsed());
            }
            took
        }));
    }
    let mut took = Vec::new();
    for lane in running {
        took.extend(lane.join().await.unwrap());
    }
    says(&format!("{what}, {lanes} at once"), took, began.elapsed());
}

/// One write, or one question.
type Work = fn(Store, usize) -> Pin<Box<dyn Future<Output = ()> + Send>>;

pub(crate) async fn how_long_writes_and_questions_take(place: &Place) {
    if std::env::var_os("COUNTERSIGN_TEST_MEASURE").is_none() {
        return;
    }
    let store = place.open().await;
    furnish(&store).await;
    let engine = if place.named().starts_with("postgres") { "PostgreSQL" } else { "SQLite" };
    for lanes in [1, 32] {
        let each = |work: Work| {
            let store = store.clone();
            move |number| work(store.clone(), number)
        };
        let withdraw = each(|store, number| {
            Box::pin(async move { drop(store.withdraw(&writer(), target(&format!("task:{number}"))).await.unwrap()) })
        });
        measure(place, &format!("{engine} withdraw"), lanes, withdraw).await;
        let use_once = each(|store, number| {
            let name = uuid_of(number);
            Box::pin(
                async move { store.use_once(&format!("agent-{}", number % 7), &name, after(60), now()).await.unwrap() },
            )
        });
        measure(place, &format!("{engine} use once"), lanes, use_once).await;
        let standing = each(|store, _| Box::pin(async move { drop(store.standing(&id("ticket-1")).await.unwrap()) }));
        measure(place, &format!("{engine} task and grant"), lanes, standing).await;
        let head = each(|store, _| Box::pin(async move { drop(store.head().await.unwrap()) }));
        measure(place, &format!("{engine} head"), lanes, head).await;
    }
}

fn uuid_of(number: usize) -> String {
    format!("{number}-{:?}", net::clock::monotonic())
}
