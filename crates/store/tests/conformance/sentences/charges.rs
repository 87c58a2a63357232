//! Calls under idempotency keys: charged once, whichever sidecar tells of them where, and never free.

use countersign_store::{
    Sidecar, Store, StoreError,
    remote::charges::{ChargeAnswer, ChargeRequest, ChargeStep, ChargedTo},
};
use model::limits::{Holder, LimitKey};

use super::limits::{ask, daily, grant_of, midnight, sidecar};
use crate::{
    engines::count,
    place::{Place, after, id, later, now},
};

const DAY: i64 = 86_400;

fn told(step: ChargeStep, decision: &str, key: u8) -> ChargeRequest {
    ChargeRequest {
        step,
        tenant: id("acme"),
        digest: format!("{key:064x}"),
        decision: id(decision),
        limits: vec![ChargedTo { limit: daily(), starts: midnight(), units: 1_000, lease: Some(id("a")) }],
    }
}

/// Two sidecars, each with a slice of its own.
async fn leased(store: &Store) -> [Sidecar; 2] {
    grant_of(store, "200.00").await;
    let sidecars = [sidecar(store, "one", "acme").await, sidecar(store, "two", "acme").await];
    for sidecar in &sidecars {
        store.lease(sidecar, &ask("a", 1, 0, 5_000), now()).await.unwrap();
    }
    sidecars
}

fn charged(answer: &ChargeAnswer) -> Option<&str> {
    answer.charged.as_ref().map(model::Id::as_str)
}

pub(crate) async fn the_same_call_is_charged_once_whichever_sidecars_it_comes_to(place: &Place) {
    let stores = [place.open().await, place.open().await];
    let sidecars = leased(&stores[0]).await;
    let mut telling = Vec::new();
    for number in 0..24_usize {
        let (store, sidecar) = (stores[number % 2].clone(), sidecars[number / 2 % 2].clone());
        telling.push(place.tasks.spawn("sidecar", async move {
            let told = told(ChargeStep::Charge, &format!("d-{number}"), 1);
            store.charge(&sidecar, &told, now()).await.unwrap().charged.unwrap().to_string()
        }));
    }
    let mut answers = Vec::new();
    for telling in telling {
        answers.push(telling.join().await.unwrap());
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    let charge = async |which: usize, told: ChargeRequest| stores[which].charge(&sidecars[which], &told, now()).await;
    // Told twice it is one; another call is another.
    for _ in 0..2 {
        assert_eq!(charged(&charge(0, told(ChargeStep::Charge, "e-1", 2)).await.unwrap()), Some("e-1"));
    }
    assert_eq!(charged(&charge(1, told(ChargeStep::Repeat, "e-2", 2)).await.unwrap()), Some("e-1"));
    assert_eq!(charged(&charge(1, told(ChargeStep::Repeat, "e-3", 3)).await.unwrap()), None);
    let more = |told: ChargeRequest, units| {
        let limits = told.limits.iter().map(|limit| ChargedTo { units, ..limit.clone() }).collect();
        ChargeRequest { limits, ..told }
    };
    assert_eq!(charged(&charge(1, more(told(ChargeStep::Charge, "e-4", 2), 999)).await.unwrap()), Some("e-4"));
    let elsewhere = ChargeRequest { tenant: id("globex"), ..told(ChargeStep::Charge, "e-5", 2) };
    assert!(matches!(charge(0, elsewhere).await, Err(StoreError::NotFound { .. })));
}

pub(crate) async fn a_charge_is_taken_back_unless_another_call_goes_on_it(place: &Place) {
    let store = place.open().await;
    let sidecars = leased(&store).await;
    let charge = async |which: usize, told: ChargeRequest| store.charge(&sidecars[which], &told, now()).await.unwrap();
    charge(0, told(ChargeStep::Charge, "d-1", 1)).await;
    // Nobody takes back what is another's.
    for told in [told(ChargeStep::Release, "d-1", 1), told(ChargeStep::Release, "d-2", 1)] {
        assert_eq!(charged(&charge(1, told).await), None);
    }
    assert_eq!(charged(&charge(0, told(ChargeStep::Release, "d-2", 1)).await), None);
    assert_eq!(count(place, "SELECT count(*) FROM charges").await, 1);
    for _ in 0..2 {
        assert_eq!(charged(&charge(0, told(ChargeStep::Release, "d-1", 1)).await), None);
    }
    assert_eq!(charged(&charge(1, told(ChargeStep::Charge, "d-3", 1)).await), Some("d-3"));
    // A later word of who charged it before takes nothing from whoever did since.
    assert_eq!(charged(&charge(0, told(ChargeStep::Release, "d-1", 1)).await), None);
    assert_eq!(charged(&charge(0, told(ChargeStep::Charge, "d-4", 1)).await), Some("d-3"));
    assert_eq!(charged(&charge(1, told(ChargeStep::Release, "d-3", 1)).await), Some("d-3"), "d-4 goes on it");
    assert_eq!(charged(&charge(0, told(ChargeStep::Charge, "d-5", 1)).await), Some("d-3"));
}

pub(crate) async fn a_charge_stands_for_something_that_was_leased_and_for_no_longer_than_its_window(place: &Place) {
    let store = place.open().await;
    let sidecars = leased(&store).await;
    let charge = async |told: ChargeRequest, at| store.charge(&sidecars[0], &told, at).await;
    let changed = |change: &dyn Fn(&mut ChargedTo)| {
        let mut told = told(ChargeStep::Charge, "d-1", 1);
        told.limits.iter_mut().for_each(change);
        told
    };
    let holder = Holder::Grant { grant: id("another") };
    for told in [
        changed(&|limit| limit.lease = None),
        changed(&|limit| limit.lease = Some(id("b"))),
        changed(&|limit| limit.units = 5_001),
        changed(&|limit| limit.units = u64::MAX),
        changed(&|limit| limit.limit = LimitKey { holder: holder.clone(), ..daily() }),
        changed(&|limit| limit.limit = LimitKey { name: "weekly".to_owned(), ..daily() }),
        changed(&|limit| limit.starts = now()),
        ChargeRequest { limits: Vec::new(), ..told(ChargeStep::Charge, "d-1", 1) },
        ChargeRequest { digest: "AB".repeat(32), ..told(ChargeStep::Charge, "d-1", 1) },
        ChargeRequest { digest: "ab".to_owned(), ..told(ChargeStep::Charge, "d-1", 1) },
    ] {
        let error = charge(told.clone(), now()).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict(_) | StoreError::Invalid(_)), "{told:?}: {error}");
    }
    assert_eq!(count(place, "SELECT count(*) FROM charges").await, 0);
    let answer = charge(told(ChargeStep::Charge, "d-1", 1), now()).await.unwrap();
    assert_eq!((charged(&answer), answer.seconds), (Some("d-1"), 9 * 3_600));
    let over = charge(told(ChargeStep::Repeat, "d-2", 1), after(9 * 3_600 + 1)).await.unwrap();
    assert_eq!(charged(&over), None, "by a clock that is a little behind");
    let over = charge(told(ChargeStep::Repeat, "d-2", 1), after(9 * 3_600 + 5)).await.unwrap_err();
    assert!(matches!(over, StoreError::Conflict(_)), "{over}");
    // Of a long window, it is known for a day.
    let weekly = LimitKey { window: "P1W".parse().unwrap(), ..daily() };
    let monday = "2026-11-16T00:00:00Z".parse().unwrap();
    let mut asked = ask("w", 1, 0, 5_000);
    (asked.limit.holder, asked.starts) = (issued(), monday);
    asked.limit.window = weekly.window;
    let early = "2026-11-17T00:00:00Z".parse().unwrap();
    store.lease(&sidecars[0], &asked, early).await.unwrap();
    let told = |decision| {
        let to = ChargedTo { limit: asked.limit.clone(), starts: monday, units: 1, lease: Some(id("w")) };
        ChargeRequest { limits: vec![to], ..told(ChargeStep::Charge, decision, 7) }
    };
    let answer = charge(told("w-1"), early).await.unwrap();
    assert_eq!((charged(&answer), answer.seconds), (Some("w-1"), 24 * 3_600));
    let next = early + jiff::SignedDuration::from_secs(DAY);
    assert_eq!(charged(&charge(told("w-2"), next).await.unwrap()), Some("w-2"), "tools forget keys by then");
}

fn issued() -> Holder {
    Holder::Issued {
        by: "https://other.example".to_owned(),
        user_issuer: "https://sso.example".to_owned(),
        user: id("alice"),
        issuer: "https://other.example".to_owned(),
        id: id("support"),
        tenant: id("acme"),
    }
}

pub(crate) async fn what_was_charged_before_a_restore_is_not_taken_for_paid(place: &Place) {
    let store = place.open().await;
    let sidecars = leased(&store).await;
    store.charge(&sidecars[0], &told(ChargeStep::Charge, "d-1", 1), now()).await.unwrap();
    store.begin_generation(&later(60)).await.unwrap();
    for (sidecar, told) in [
        // It may have been given back since the backup.
        (&sidecars[1], told(ChargeStep::Charge, "d-2", 1)),
        (&sidecars[1], told(ChargeStep::Repeat, "d-2", 1)),
        // Somebody may have gone on it since the backup, or on what the backup has not.
        (&sidecars[0], told(ChargeStep::Release, "d-1", 1)),
        (&sidecars[0], told(ChargeStep::Release, "d-3", 1)),
    ] {
        let error = store.charge(sidecar, &told, after(61)).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict(_)), "{error}");
    }
}

pub(crate) async fn charges_go_a_day_after_their_window(place: &Place) {
    let store = place.open().await;
    let sidecars = leased(&store).await;
    store.charge(&sidecars[0], &told(ChargeStep::Charge, "d-1", 1), now()).await.unwrap();
    let longest = countersign_store::LONGEST_TOKEN;
    store.forget(longest, after(33 * 3_600)).await.unwrap().unwrap();
    assert_eq!(count(place, "SELECT count(*) FROM charges").await, 1);
    store.forget(longest, after(33 * 3_600 + 60)).await.unwrap().unwrap();
    assert_eq!(count(place, "SELECT count(*) FROM charges").await, 0);
}
