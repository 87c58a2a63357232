//! Sidecars that cannot write their ledgers.

use countersign_store::{Outage, Sidecar, Store};
use model::Id;

use super::limits::sidecar;
use crate::place::{Place, after, later, now};

fn outage(sidecar: &Id<Sidecar>, seconds: i64, why: &str) -> Outage {
    let (sidecar, ledger) = (sidecar.clone(), "0123456789abcdef".to_owned());
    Outage { sidecar, ledger, since: after(seconds), why: why.to_owned(), recorded: false }
}

pub(crate) async fn an_outage_of_a_ledger_is_one_for_as_long_as_it_lasts(place: &Place) {
    let (store, other) = (place.open().await, place.open().await);
    let [one, two] = [sidecar(&store, "one", "acme").await.id, sidecar(&store, "two", "acme").await.id];
    let all = async |store: &Store| store.outages().await.unwrap();
    assert_eq!(store.outage(&one).await.unwrap(), None);
    assert!(!store.ledger_fails(&outage(&one, 0, "no space")).await.unwrap().recorded);
    store.outage_recorded(&one, now()).await.unwrap();
    // It goes on, as another replica hears.
    let known = other.ledger_fails(&outage(&one, 0, "still no space")).await.unwrap();
    assert_eq!((known.recorded, known.why.as_str()), (true, "no space"));
    store.ledger_fails(&outage(&two, 5, "read-only")).await.unwrap();
    assert_eq!(all(&other).await.len(), 2);
    // Another one, though nobody heard of the end of the first.
    assert!(!other.ledger_fails(&outage(&one, 60, "no space")).await.unwrap().recorded);
    other.outage_over(&one, now()).await.unwrap();
    assert_eq!(store.outage(&one).await.unwrap().unwrap().since, after(60), "what began since is not over");
    other.outage_over(&one, after(60)).await.unwrap();
    assert_eq!(store.outage(&one).await.unwrap(), None);
    store.remove_sidecar(&later(70), &two).await.unwrap();
    assert_eq!(all(&store).await, []);
}
