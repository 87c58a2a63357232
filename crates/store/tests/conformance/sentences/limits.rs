//! Cumulative limits: what all slices of a window hold is never over its maximum, whoever asks where, and whatever
//! happens to those who hold them.

use countersign_store::{
    Enrolment, GrantChange, Serves, Sidecar, Store, StoreError,
    remote::limits::{LeaseAnswer, LeaseRequest},
};
use jiff::Timestamp;
use model::{
    Authority,
    limits::{Holder, LimitKey, MAX_UNITS},
};
use serde_json::json;

use crate::place::{Place, after, agent, authority, grant, id, ids, later, now, writer};

const DAY: i64 = 86_400;

/// An agent, and a grant for it that allows refunds of `max` USD a day.
pub(super) async fn grant_of(store: &Store, max: &str) {
    store.register_agent(&writer(), agent("support")).await.unwrap();
    let mut given = grant("refunds", "support");
    given.authority = of(max);
    given.expires_at = after(30 * DAY);
    store.create_grant(&writer(), given).await.unwrap();
}

fn of(max: &str) -> Authority {
    let mut authority = authority(&["orders.read", "refunds.create"]);
    let limit = json!({ "sum": "amount", "max": max, "currency": "USD", "window": "P1D" });
    authority.elements[0].limits = serde_json::from_value(json!({ "daily": limit })).unwrap();
    authority
}

pub(super) async fn sidecar(store: &Store, name: &str, tenant: &str) -> Sidecar {
    let serves = Serves { tenants: ids(&[tenant]), tools: None, agents: None };
    let proved = Enrolment::Proved { by: format!("spiffe://acme.example/{name}"), serves, once: None };
    let key = json!({ "kty": "OKP", "crv": "Ed25519", "x": name });
    store.enrol(&writer(), &proved, name, &key).await.unwrap().value
}

pub(super) fn daily() -> LimitKey {
    LimitKey {
        holder: Holder::Grant { grant: id("refunds") },
        name: "daily".to_owned(),
        sum: Some("amount".to_owned()),
        currency: Some("USD".to_owned()),
        window: "P1D".parse().unwrap(),
    }
}

pub(super) fn midnight() -> Timestamp {
    "2026-11-22T00:00:00Z".parse().unwrap()
}

/// `hold` and `spent` are the same: everything else is given back.
pub(super) fn ask(lease: &str, step: u64, hold: u64, need: u64) -> LeaseRequest {
    LeaseRequest {
        tenant: id("acme"),
        limit: daily(),
        max: 999_999_999,
        starts: midnight(),
        lease: id(lease),
        step,
        spent: hold,
        hold,
        need,
        want: need,
        seconds: 30,
    }
}

fn amounts(answer: &LeaseAnswer) -> (u64, u64, u64, u64) {
    (answer.amount, answer.max, answer.taken, answer.reserved)
}

pub(crate) async fn two_replicas_never_lease_more_than_a_limit_holds(place: &Place) {
    let stores = [place.open().await, place.open().await];
    grant_of(&stores[0], "200.00").await;
    let mut leasing = Vec::new();
    for number in 0..48_usize {
        let store = stores[number % 2].clone();
        let sidecar = sidecar(&store, &format!("sidecar-{number}"), "acme").await;
        leasing.push(place.tasks.spawn("sidecar", async move {
            let asked = LeaseRequest { want: 3_000, ..ask("lease", 1, 0, 700) };
            store.lease(&sidecar, &asked, now()).await.unwrap()
        }));
    }
    let (mut held, mut served) = (0, 0);
    for leasing in leasing {
        let answer = leasing.join().await.unwrap();
        assert!(answer.amount == 0 || answer.amount >= 700, "all that is needed, or nothing");
        assert!(answer.taken <= 20_000 && answer.max == 20_000, "the grant's word, not the sidecar's");
        held += answer.amount;
        served += u64::from(answer.amount > 0);
    }
    assert!(held <= 20_000 && held > 20_000 - 700, "{held}");
    assert!(served > 7, "the last of it is not all in one place: {served}");
}

pub(crate) async fn what_is_given_back_is_there_for_others_and_what_is_not_is_spent(place: &Place) {
    let (store, other) = (place.open().await, place.open().await);
    grant_of(&store, "200.00").await;
    let [one, two] = [sidecar(&store, "one", "acme").await, sidecar(&store, "two", "acme").await];
    let first = store.lease(&one, &ask("a", 1, 0, 15_000), now()).await.unwrap();
    assert_eq!(amounts(&first), (15_000, 20_000, 15_000, 0));
    let refused = other.lease(&two, &ask("b", 1, 0, 6_000), now()).await.unwrap();
    assert_eq!(amounts(&refused), (0, 20_000, 15_000, 15_000), "it may come back");
    // Its time is over and nothing was heard: it is spent.
    let refused = other.lease(&two, &ask("b", 1, 0, 6_000), after(31)).await.unwrap();
    assert_eq!(amounts(&refused), (0, 20_000, 15_000, 0));
    // It comes back after all, and says what it spent.
    let given = store.lease(&one, &ask("a", 2, 4_000, 0), after(40)).await.unwrap();
    assert_eq!(amounts(&given), (4_000, 20_000, 4_000, 0));
    let served = other.lease(&two, &ask("b", 1, 0, 16_000), after(41)).await.unwrap();
    assert_eq!(amounts(&served), (16_000, 20_000, 20_000, 0));
    assert_eq!(store.lease(&one, &ask("a", 3, 4_000, 1), after(42)).await.unwrap().amount, 4_000);
    // Tomorrow is another day, a few seconds before it for those whose clock is ahead.
    let tomorrow = LeaseRequest { starts: midnight() + jiff::SignedDuration::from_secs(DAY), ..ask("c", 1, 0, 20_000) };
    let early = store.lease(&one, &tomorrow, after(3 * 3600)).await.unwrap_err();
    assert!(matches!(early, StoreError::Conflict(_)), "{early}");
    assert_eq!(store.lease(&one, &tomorrow, after(9 * 3600 - 4)).await.unwrap().amount, 20_000);
    let late = store.lease(&two, &ask("b", 2, 16_000, 1), after(9 * 3600 + 5)).await.unwrap_err();
    assert!(matches!(late, StoreError::Conflict(_)), "{late}");
}

pub(crate) async fn a_question_that_comes_again_or_too_late_changes_nothing(place: &Place) {
    let store = place.open().await;
    grant_of(&store, "200.00").await;
    let [one, two] = [sidecar(&store, "one", "acme").await, sidecar(&store, "two", "acme").await];
    let lease = async |sidecar: &Sidecar, asked: LeaseRequest| store.lease(sidecar, &asked, now()).await;
    lease(&one, ask("a", 1, 0, 10_000)).await.unwrap();
    assert_eq!(lease(&one, ask("a", 1, 0, 10_000)).await.unwrap().amount, 10_000, "the same answer again");
    assert_eq!(lease(&one, ask("a", 3, 2_000, 5_000)).await.unwrap().amount, 7_000);
    let overtaken = lease(&one, ask("a", 2, 0, 0)).await.unwrap_err();
    assert!(matches!(overtaken, StoreError::Conflict(_)), "{overtaken}");
    assert_eq!(lease(&one, ask("a", 3, 0, 0)).await.unwrap().amount, 7_000, "a confirmation that is replayed");
    // Somebody else's lease of the same name is somebody else's.
    let more = lease(&two, ask("a", 4, 7_000, 0)).await.unwrap_err();
    assert!(matches!(more, StoreError::Conflict(_)), "{more}");
    assert_eq!(amounts(&lease(&two, ask("a", 1, 0, 1_000)).await.unwrap()), (1_000, 20_000, 8_000, 5_000));
    // What nobody can hold.
    for asked in [
        ask("a", 9, 7_001, 0),
        LeaseRequest { spent: 7_001, ..ask("a", 9, 7_000, 0) },
        LeaseRequest { need: 5, want: 4, ..ask("a", 9, 0, 0) },
        LeaseRequest { want: MAX_UNITS, ..ask("a", 9, 7_000, 1) },
        LeaseRequest { want: u64::MAX, ..ask("a", 9, 0, 1) },
        LeaseRequest { max: u64::MAX, ..ask("a", 9, 0, 1) },
        LeaseRequest { step: u64::MAX, ..ask("a", 9, 0, 1) },
        LeaseRequest { step: 0, ..ask("b", 9, 0, 1) },
        LeaseRequest { starts: now(), ..ask("b", 1, 0, 1) },
        LeaseRequest { starts: Timestamp::MIN, ..ask("b", 1, 0, 1) },
        LeaseRequest { starts: Timestamp::MAX, ..ask("b", 1, 0, 1) },
    ] {
        let error = lease(&one, asked.clone()).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict(_) | StoreError::Invalid(_)), "{asked:?}: {error}");
    }
    assert_eq!(amounts(&lease(&one, ask("a", 10, 2_000, 0)).await.unwrap()), (2_000, 20_000, 3_000, 1_000));
}

pub(crate) async fn a_limit_that_a_sidecar_could_not_see_is_not_there(place: &Place) {
    let store = place.open().await;
    grant_of(&store, "200.00").await;
    let [own, foreign] = [sidecar(&store, "one", "acme").await, sidecar(&store, "two", "globex").await];
    let limited = Sidecar { serves: Serves { tools: Some(ids(&["mail"])), ..own.serves.clone() }, ..own.clone() };
    let agents = Sidecar { serves: Serves { agents: Some(ids(&["billing"])), ..own.serves.clone() }, ..own.clone() };
    let of_tenant = |tenant: &str| LeaseRequest { tenant: id(tenant), ..ask("a", 1, 0, 1) };
    let of_grant = |name: &str| {
        let limit = LimitKey { holder: Holder::Grant { grant: id(name) }, ..daily() };
        LeaseRequest { limit, ..ask("a", 1, 0, 1) }
    };
    let issued = |tenant: &str| {
        let holder = Holder::Issued {
            by: "https://other.example".to_owned(),
            user_issuer: "https://sso.example".to_owned(),
            user: id("alice"),
            issuer: "https://other.example".to_owned(),
            id: id("support"),
            tenant: id(tenant),
        };
        LeaseRequest { limit: LimitKey { holder, ..daily() }, max: 500, ..ask("a", 1, 0, 1) }
    };
    for (sidecar, asked) in [
        (&foreign, of_tenant("acme")),
        (&foreign, of_tenant("globex")),
        (&own, of_tenant("globex")),
        (&own, of_grant("another")),
        (&own, issued("globex")),
        (&limited, of_tenant("acme")),
        (&agents, of_tenant("acme")),
    ] {
        let error = store.lease(sidecar, &asked, now()).await.unwrap_err();
        assert!(matches!(error, StoreError::NotFound { .. }), "{asked:?}: {error}");
    }
    let unknown = LeaseRequest { limit: LimitKey { name: "weekly".to_owned(), ..daily() }, ..ask("a", 1, 0, 1) };
    assert!(matches!(store.lease(&own, &unknown, now()).await, Err(StoreError::Conflict(_))));
    // What another issuer's tokens limit is counted on the sidecar's word, and no further than that.
    assert_eq!(store.lease(&own, &issued("acme"), now()).await.unwrap().max, 500);
    let beyond = LeaseRequest { step: 2, need: 500, want: 500, hold: 1, spent: 1, ..issued("acme") };
    assert_eq!(store.lease(&own, &beyond, now()).await.unwrap().amount, 1);
}

pub(crate) async fn a_limit_that_was_lowered_holds_from_the_next_lease_on(place: &Place) {
    let store = place.open().await;
    grant_of(&store, "200.00").await;
    let [one, two] = [sidecar(&store, "one", "acme").await, sidecar(&store, "two", "acme").await];
    store.lease(&one, &ask("a", 1, 0, 12_000), now()).await.unwrap();
    let narrowed = GrantChange { authority: Some(of("100.00")), ..GrantChange::default() };
    store.change_grant(&later(1), &id("refunds"), narrowed).await.unwrap();
    let refused = store.lease(&two, &ask("b", 1, 0, 100), after(2)).await.unwrap();
    assert_eq!(amounts(&refused), (0, 10_000, 12_000, 12_000));
    // It keeps what it may have spent, and gets nothing more.
    let kept = store.lease(&one, &ask("a", 2, 9_000, 2_000), after(3)).await.unwrap();
    assert_eq!(amounts(&kept), (9_000, 10_000, 9_000, 0));
    assert_eq!(store.lease(&two, &ask("b", 1, 0, 1_000), after(4)).await.unwrap().amount, 1_000);
    // An agent under it that was given less has a sum of its own, never with more than the grant holds.
    let holder = Holder::Agent { grant: id("refunds"), issuer: "https://a.example".to_owned(), id: id("helper") };
    let agents = LeaseRequest { limit: LimitKey { holder, ..daily() }, ..ask("c", 1, 0, 1) };
    assert_eq!(store.lease(&one, &agents, after(4)).await.unwrap().max, 10_000);
    let own = LeaseRequest { max: 50, step: 2, ..agents };
    assert_eq!(store.lease(&one, &own, after(4)).await.unwrap().max, 50);
    store.withdraw_grant(&later(5), &id("refunds")).await.unwrap();
    let ended = store.lease(&one, &ask("a", 3, 9_000, 1), after(6)).await.unwrap_err();
    assert!(matches!(ended, StoreError::Conflict(_)), "{ended}");
}

pub(crate) async fn what_was_spent_before_a_restore_is_not_taken_for_left(place: &Place) {
    let store = place.open().await;
    grant_of(&store, "200.00").await;
    let one = sidecar(&store, "one", "acme").await;
    store.lease(&one, &ask("a", 1, 0, 100), now()).await.unwrap();
    store.begin_generation(&later(60)).await.unwrap();
    let unknown = store.lease(&one, &ask("b", 1, 0, 100), after(61)).await.unwrap_err();
    assert!(matches!(unknown, StoreError::Conflict(_)), "{unknown}");
    // Nor for whoever holds a slice: what others took since the backup is not known.
    let more = store.lease(&one, &ask("a", 2, 50, 1), after(62)).await.unwrap_err();
    assert!(matches!(more, StoreError::Conflict(_)), "{more}");
    assert_eq!(store.lease(&one, &ask("a", 2, 50, 0), after(62)).await.unwrap().amount, 50);
    let tomorrow = LeaseRequest { starts: midnight() + jiff::SignedDuration::from_secs(DAY), ..ask("c", 1, 0, 100) };
    assert_eq!(store.lease(&one, &tomorrow, after(9 * 3600)).await.unwrap().amount, 100);
}
