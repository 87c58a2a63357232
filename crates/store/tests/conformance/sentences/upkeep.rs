//! What nobody asks for any more goes, and nothing that may still refuse something.

use countersign_store::{GrantChange, LONGEST_TOKEN, NewJoinToken, Page, Serves, Store, WithdrawalFilter};
use jiff::{SignedDuration, Timestamp};
use model::registry::TaskStatus;

use crate::{
    engines::{count, statement},
    place::{Place, after, agent, furnish, grant, id, ids, later, now, target, task, writer},
};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// Looks for what is old, as often as it takes.
async fn forget(store: &Store, now: Timestamp) {
    store.forget(LONGEST_TOKEN, now).await.unwrap().expect("nobody else does");
}

/// What a sidecar hears that asks from `position` on.
async fn heard(store: &Store, position: u64, now: Timestamp) -> Vec<String> {
    let feed = store.followed(position, None, 500, now).await.unwrap();
    assert!(!feed.more);
    feed.changes.into_iter().map(|withdrawal| withdrawal.target.to_string()).collect()
}

async fn positions(store: &Store) -> Vec<u64> {
    store.changes(0, 500).await.unwrap().changes.into_iter().map(|change| change.position).collect()
}

pub(crate) async fn a_sidecar_that_was_away_misses_nothing_however_much_was_forgotten_meanwhile(place: &Place) {
    let store = place.open().await;
    store.withdraw(&writer(), target("task:known")).await.unwrap();
    let position = store.head().await.unwrap().position;
    for (at, what) in [(0, "task:old"), (2 * HOUR, "task:at-the-edge"), (20 * HOUR, "task:young")] {
        store.withdraw(&later(at), target(what)).await.unwrap();
    }
    // A minute before the second of them may be forgotten, by any clock.
    let back = after(28 * HOUR - 60);
    forget(&store, back).await;
    assert_eq!(heard(&store, position, back).await, ["task:young"]);
    // Of what ended an hour ago by one clock, whoever has another may hear yet.
    assert_eq!(heard(&store, position, after(27 * HOUR)).await, ["task:at-the-edge", "task:young"]);
    assert_eq!(heard(&store, position, after(27 * HOUR + 60)).await, ["task:young"]);
    assert_eq!(store.head().await.unwrap().position, position + 3, "positions go on");
    let listed = store.withdrawals(&WithdrawalFilter::default(), Page::default()).await.unwrap().items;
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!(positions(&store).await, [4]);
    forget(&store, after(28 * HOUR)).await;
    let listed = store.withdrawals(&WithdrawalFilter::default(), Page::default()).await.unwrap().items;
    assert_eq!(listed.len(), 2, "what has ended to the very hour is kept: {listed:?}");
    assert_eq!(store.withdraw(&later(28 * HOUR), target("task:next")).await.unwrap().position, position + 4);
    assert_eq!(heard(&store, 0, after(28 * HOUR)).await, ["task:young", "task:next"]);
}

pub(crate) async fn changes_stay_until_each_ledger_has_them_and_a_month_for_one_that_is_gone(place: &Place) {
    let store = place.open().await;
    let generation = store.head().await.unwrap().generation;
    for number in 0..6 {
        store.withdraw(&writer(), target(&format!("task:{number}"))).await.unwrap();
    }
    store.recorded("one", (&generation, 6), after(2 * DAY)).await.unwrap();
    store.recorded("slow", (&generation, 2), after(2 * DAY)).await.unwrap();
    forget(&store, after(2 * DAY)).await;
    assert_eq!(positions(&store).await, [3, 4, 5, 6]);
    // It has nothing yet of a generation that it has not begun with.
    store.recorded("slow", ("another", 6), after(3 * DAY)).await.unwrap();
    forget(&store, after(3 * DAY)).await;
    assert_eq!(positions(&store).await, [3, 4, 5, 6]);
    store.recorded("slow", (&generation, 4), after(3 * DAY + HOUR)).await.unwrap();
    forget(&store, after(3 * DAY + HOUR)).await;
    assert_eq!(positions(&store).await, [5, 6]);
    store.recorded("one", (&generation, 6), after(33 * DAY)).await.unwrap();
    forget(&store, after(33 * DAY)).await;
    assert_eq!(positions(&store).await, [5, 6], "not a month yet");
    forget(&store, after(33 * DAY + 2 * HOUR)).await;
    assert!(positions(&store).await.is_empty());
}

pub(crate) async fn who_was_withdrawn_stays_so_and_what_was_said_twice_is_kept_once(place: &Place) {
    let store = place.open().await;
    let user = "user:https://sso.example#alice";
    for what in [user, "session:https://sso.example#s", "agent:support", "tenant:acme"] {
        store.withdraw(&writer(), target(what)).await.unwrap();
    }
    for what in ["run:r", "grant:g", "instance:support#pod", "token:t", "task:t"] {
        store.withdraw(&writer(), target(what)).await.unwrap();
    }
    store.withdraw(&later(HOUR), target(user)).await.unwrap();
    let kept = async |store: &Store| {
        let listed = store.withdrawals(&WithdrawalFilter::default(), Page::default()).await.unwrap();
        listed.items.into_iter().map(|it| (it.target.kind(), it.position)).collect::<Vec<_>>()
    };
    assert_eq!(kept(&store).await.len(), 10);
    // An exchange may bring a token that lives for two days.
    let long = SignedDuration::from_hours(48);
    store.forget(long, after(2 * DAY)).await.unwrap().unwrap();
    let lasting = [("user", 1), ("session", 2), ("agent", 3), ("tenant", 4), ("instance", 7)];
    assert_eq!(kept(&store).await, [&lasting[..], &[("token", 8), ("user", 10)]].concat());
    store.forget(long, after(3 * DAY)).await.unwrap().unwrap();
    store.withdraw(&later(3 * DAY), target(user)).await.unwrap();
    assert_eq!(kept(&store).await, [("session", 2), ("agent", 3), ("tenant", 4), ("instance", 7), ("user", 11)]);
    forget(&store, after(399 * DAY)).await;
    assert_eq!(kept(&store).await.len(), 5);
    forget(&store, after(402 * DAY)).await;
    assert_eq!(kept(&store).await, [("agent", 3), ("tenant", 4), ("instance", 7), ("user", 11)]);
}

pub(crate) async fn one_replica_at_a_time_forgets_and_does_it_in_small_steps(place: &Place) {
    let (one, other) = (place.open().await, place.open().await);
    let many = "INSERT INTO used (space, id, until) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
                WHERE i < 2500) SELECT 'many', 'name-' || i, '2026-01-01T00:00:00.000000000Z' FROM n";
    statement(place, many).await;
    one.use_once("support", "young", after(60), now()).await.unwrap();
    assert_eq!(one.forget(LONGEST_TOKEN, now()).await.unwrap(), Some(0), "it is only said that they will go");
    assert_eq!(other.forget(LONGEST_TOKEN, after(10)).await.unwrap(), None);
    assert_eq!(count(place, "SELECT count(*) FROM used").await, 2501);
    assert_eq!(other.forget(LONGEST_TOKEN, after(60)).await.unwrap(), Some(2500));
    assert_eq!(count(place, "SELECT count(*) FROM used").await, 1);
    assert_eq!(one.forget(LONGEST_TOKEN, after(61)).await.unwrap(), None);
    // A clock that was far ahead keeps nobody from it for long.
    assert!(other.forget(LONGEST_TOKEN, after(3 * HOUR)).await.unwrap().is_some());
    assert!(one.forget(LONGEST_TOKEN, after(120)).await.unwrap().is_some());
}

pub(crate) async fn what_has_ended_is_listed_for_a_season_and_brings_nothing_back_when_it_goes(place: &Place) {
    let store = place.open().await;
    store.register_agent(&writer(), agent("support")).await.unwrap();
    let mut long = grant("long", "support");
    long.expires_at = after(200 * DAY);
    store.create_grant(&writer(), long).await.unwrap();
    // The one that counts, because it came later.
    store.create_grant(&writer(), grant("short", "support")).await.unwrap();
    for (name, grant) in [("done", "long"), ("taken-back", "long"), ("of-short", "short")] {
        store.start_task(&writer(), task(name, grant)).await.unwrap();
    }
    store.end_task(&writer(), &id("done"), TaskStatus::Completed).await.unwrap();
    store.end_task(&writer(), &id("taken-back"), TaskStatus::Withdrawn).await.unwrap();
    let serves = Serves { tenants: ids(&["acme"]), tools: None, agents: None };
    let token = NewJoinToken { name: None, serves, expires: after(600) };
    store.create_join_token(&writer(), token).await.unwrap();
    statement(place, "INSERT INTO declared (kind, name, body) VALUES ('task', 'done', '{}')").await;

    forget(&store, after(89 * DAY)).await;
    assert!(store.task(&id("of-short")).await.unwrap().is_some());
    assert_eq!(store.join_tokens(Page::default()).await.unwrap().items.len(), 1);
    forget(&store, after(91 * DAY)).await;
    let tasks = async |name: &str| store.task(&id(name)).await.unwrap().is_some();
    assert!(!tasks("of-short").await);
    assert!(tasks("taken-back").await, "its agent does not begin it again by itself");
    assert!(tasks("done").await, "the file that declares it brings nothing back");
    assert!(store.grant(&id("short")).await.unwrap().is_some(), "the grant before it does not count again");
    assert!(store.join_tokens(Page::default()).await.unwrap().items.is_empty());
    statement(place, "DELETE FROM declared").await;
    forget(&store, after(291 * DAY)).await;
    assert!(!tasks("taken-back").await && !tasks("done").await);
    for name in ["short", "long"] {
        assert!(store.grant(&id(name)).await.unwrap().is_none(), "{name}");
    }
    assert!(store.agent(crate::place::ISSUER, &id("support")).await.unwrap().is_some());
}

pub(crate) async fn answers_and_windows_of_limits_go_a_day_after_they_are_of_use(place: &Place) {
    let store = place.open().await;
    furnish(&store).await;
    store.withdraw(&crate::place::keyed("key"), target("task:a")).await.unwrap();
    let leases = "INSERT INTO limit_leases (sidecar, id, limit_id, starts, ends, step, amount, spent, expires) VALUES \
                  ('s', 'l', 'w', '2026-11-21T00:00:00.000000000Z', '2026-11-22T00:00:00.000000000Z', 1, 1, 1, 'x')";
    statement(place, leases).await;
    let windows = "INSERT INTO limit_windows (id, starts, ends, described) VALUES \
                   ('w', '2026-11-21T00:00:00.000000000Z', '2026-11-22T00:00:00.000000000Z', '')";
    statement(place, windows).await;
    let all = "SELECT (SELECT count(*) FROM answers) + (SELECT count(*) FROM limit_leases) \
               + (SELECT count(*) FROM limit_windows)";
    assert_eq!(count(place, all).await, 3);
    forget(&store, after(8 * HOUR)).await;
    assert_eq!(count(place, all).await, 3);
    forget(&store, after(10 * HOUR)).await;
    assert_eq!(count(place, all).await, 1, "the window ended at midnight");
    // Asked again a day later it is made anew, and its answer takes the place of the old one.
    let again = countersign_store::Writer { now: after(24 * HOUR + 1), ..crate::place::keyed("key") };
    assert!(!store.withdraw(&again, target("task:a")).await.unwrap().replayed);
    assert!(store.withdraw(&again, target("task:a")).await.unwrap().replayed);
    forget(&store, after(50 * HOUR)).await;
    assert_eq!(count(place, all).await, 0);
    // A grant that was changed meanwhile stands where it stood.
    let extended = GrantChange { expires_at: Some(after(300 * DAY)), ..GrantChange::default() };
    store.change_grant(&later(50 * HOUR), &id("refunds"), extended).await.unwrap();
    forget(&store, after(200 * DAY)).await;
    assert!(store.grant(&id("refunds")).await.unwrap().is_some());
}
