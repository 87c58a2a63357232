//! The change log: positions, followers, pages.

use std::time::Duration;

use countersign_store::{
    AgentFilter, ChangeKind, GrantFilter, GrantStatus, Page, Store, StoreError, TaskFilter, WithdrawalFilter,
};
use model::{Presence, Stage, registry::TaskStatus};

use crate::{
    crash::every_change,
    place::{Place, SSO, after, agent, furnish, grant, id, later, now, target, task, writer},
};

pub(crate) async fn a_change_has_the_next_position_and_comes_once(place: &Place) {
    let store = place.open().await;
    assert_eq!(store.head().await.unwrap().position, 0);
    assert!(store.changes(0, 10).await.unwrap().changes.is_empty());
    let made = store.withdraw(&writer(), target("task:ticket-1")).await.unwrap();
    assert_eq!((made.position, made.value.position, made.replayed), (1, 1, false));
    let feed = store.changes(0, 10).await.unwrap();
    assert_eq!((feed.head, feed.more, feed.changes.len()), (1, false, 1));
    let change = &feed.changes[0];
    assert_eq!((change.position, change.at, change.by.as_str()), (1, now(), "user:dana@acme"));
    assert_eq!(change.reason.as_deref(), Some("because"));
    assert_eq!(change.kind, ChangeKind::Withdrawal(made.value.clone()));
    assert!(store.changes(1, 10).await.unwrap().changes.is_empty());
    assert_eq!(store.changes(99, 10).await.unwrap().head, 1, "a follower of another database is told the head");
    assert_eq!(store.withdrawal(&made.value.id).await.unwrap(), Some(made.value));
    // Everything to the nanosecond and every character, as it was written.
    let odd = "2026-11-22T15:00:00.123456789Z".parse().unwrap();
    let by = countersign_store::Writer { by: "user:Zoë'; --\u{1F600}".to_owned(), now: odd, ..writer() };
    store.withdraw(&by, target("session:https://sso.example#a'b\"c\\d%_e")).await.unwrap();
    let change = store.changes(1, 1).await.unwrap().changes.remove(0);
    assert_eq!((change.at, change.by), (odd, by.by));
    let nul = countersign_store::Writer { reason: Some("a\0b".to_owned()), ..writer() };
    assert!(matches!(store.withdraw(&nul, target("task:a")).await, Err(StoreError::Invalid(_))));
}

pub(crate) async fn what_was_refused_leaves_nothing_behind(place: &Place) {
    let store = place.open().await;
    furnish(&store).await;
    let head = store.head().await.unwrap();
    let beyond = grant("refunds", "support");
    assert!(matches!(store.create_grant(&writer(), beyond).await, Err(StoreError::Conflict(_))));
    let mut beyond = task("ticket-2", "refunds");
    beyond.stage = Stage::Supervised;
    assert!(matches!(store.start_task(&writer(), beyond).await, Err(StoreError::Invalid(_))));
    assert!(matches!(store.withdraw_grant(&writer(), &id("none")).await, Err(StoreError::NotFound { .. })));
    assert!(matches!(store.register_agent(&writer(), agent("support")).await, Err(StoreError::Conflict(_))));
    assert_eq!(store.head().await.unwrap(), head);
    assert!(store.task(&id("ticket-2")).await.unwrap().is_none());
    // The next position is the next one.
    assert_eq!(store.withdraw(&writer(), target("run:run-9")).await.unwrap().position, head.position + 1);
}

/// How many writers there are at each replica, and how often each writes.
const WRITERS: usize = 6;
const WRITES: usize = 15;

pub(crate) async fn a_follower_of_many_writers_at_two_replicas_skips_no_position(place: &Place) {
    let (one, other) = (place.open().await, place.open().await);
    let mut writers = Vec::new();
    for lane in 0..WRITERS {
        for store in [one.clone(), other.clone()] {
            writers.push(place.tasks.spawn("writer", async move {
                for number in 0..WRITES {
                    store.withdraw(&writer(), target(&format!("task:{lane}-{number}"))).await.unwrap();
                }
            }));
        }
    }
    let expected = u64::try_from(2 * WRITERS * WRITES).unwrap();
    let mut followers = Vec::new();
    for store in [one.clone(), other.clone()] {
        followers.push(place.tasks.spawn("follower", async move { follow(&store, expected).await }));
    }
    for writer in writers {
        writer.join().await.unwrap();
    }
    for follower in followers {
        let seen = follower.join().await.unwrap();
        // Never one that was committed late under a smaller number: what is after `position` comes, once, in order.
        assert_eq!(seen, (1..=expected).collect::<Vec<_>>());
    }
}

async fn follow(store: &Store, until: u64) -> Vec<u64> {
    let mut seen: Vec<u64> = Vec::new();
    let deadline = net::clock::monotonic() + Duration::from_secs(60);
    let mut position = 0;
    while position < until {
        assert!(net::clock::monotonic() < deadline, "at {position} of {until}");
        let feed = store.changes(position, 7).await.unwrap();
        seen.extend(feed.changes.iter().map(|change| change.position));
        // As a follower does: where nothing more is said to come, it stands at the head.
        position = if feed.more { *seen.last().unwrap() } else { feed.head };
    }
    seen
}

pub(crate) async fn a_commit_at_one_replica_wakes_whoever_waits_at_another(place: &Place) {
    let (one, other) = (place.open().await, place.open().await);
    let mut woken = other.woken();
    woken.borrow_and_update();
    let made = one.withdraw(&writer(), target("task:ticket-1")).await.unwrap();
    let waited = woken.wait_for(|position| *position >= made.position);
    tokio::time::timeout(Duration::from_secs(10), waited).await.expect("woken in time").unwrap();
}

pub(crate) async fn lists_go_on_where_they_ended_and_keep_to_their_filters(place: &Place) {
    let store = place.open().await;
    // In the order in which they were made, whatever their names.
    for name in ["zebra", "Anton", "äther", "support"] {
        let mut new = agent(name);
        if name == "zebra" {
            new.agent.tenants = crate::place::ids(&["acme", "beta"]);
            new.agent.owner = "erin@acme.example".to_owned();
        }
        store.register_agent(&writer(), new).await.unwrap();
    }
    let mut names = Vec::new();
    let mut page = Page { after: 0, limit: 3 };
    loop {
        let listed = store.agents(&AgentFilter::default(), page).await.unwrap();
        assert!(listed.items.len() <= 3);
        names.extend(listed.items.into_iter().map(|it| it.agent.id.to_string()));
        let Some(next) = listed.next else { break };
        page.after = next;
    }
    assert_eq!(names, ["zebra", "Anton", "äther", "support"]);
    let of = |filter: AgentFilter| {
        let store = store.clone();
        async move { store.agents(&filter, Page::default()).await.unwrap().items.len() }
    };
    assert_eq!(of(AgentFilter { tenant: Some(id("beta")), ..AgentFilter::default() }).await, 1);
    assert_eq!(of(AgentFilter { tenant: Some(id("bet")), ..AgentFilter::default() }).await, 0);
    assert_eq!(of(AgentFilter { owner: Some("erin@acme.example".to_owned()), ..AgentFilter::default() }).await, 1);

    for name in ["one", "two", "three"] {
        store.create_grant(&writer(), grant(name, "support")).await.unwrap();
    }
    store.withdraw_grant(&writer(), &id("two")).await.unwrap();
    let filter =
        GrantFilter { user: Some((SSO.to_owned(), id("alice"))), agent: None, status: Some(GrantStatus::Active) };
    let listed = store.grants(&filter, Page::default()).await.unwrap();
    assert_eq!(listed.items.iter().map(|it| it.grant.id.as_str()).collect::<Vec<_>>(), ["one", "three"]);
    let nobody = GrantFilter { user: Some((SSO.to_owned(), id("bob"))), ..GrantFilter::default() };
    assert!(store.grants(&nobody, Page::default()).await.unwrap().items.is_empty());

    for name in ["a", "b", "c"] {
        store.start_task(&writer(), task(name, "one")).await.unwrap();
    }
    store.end_task(&writer(), &id("b"), TaskStatus::Completed).await.unwrap();
    let filter = TaskFilter {
        user: Some((SSO.to_owned(), id("alice"))),
        run: Some(id("run-1")),
        tenant: Some(id("acme")),
        grant: Some(id("one")),
        status: Some(TaskStatus::Active),
    };
    let listed = store.tasks(&filter, Page::default()).await.unwrap();
    assert_eq!(listed.items.iter().map(|it| it.task.id.as_str()).collect::<Vec<_>>(), ["a", "c"]);
    let mut detached = task("d", "one");
    detached.presence = Presence::Detached;
    assert!(matches!(store.start_task(&writer(), detached).await, Err(StoreError::Invalid(_))));

    let filter = WithdrawalFilter { kind: Some("task".to_owned()), ..WithdrawalFilter::default() };
    assert_eq!(store.withdrawals(&filter, Page::default()).await.unwrap().items.len(), 1);
    let filter = WithdrawalFilter { target: Some(target("grant:two")), ..WithdrawalFilter::default() };
    assert_eq!(store.withdrawals(&filter, Page::default()).await.unwrap().items.len(), 1);
    let filter = WithdrawalFilter { in_force: Some(after(25 * 3600)), ..WithdrawalFilter::default() };
    assert!(store.withdrawals(&filter, Page::default()).await.unwrap().items.is_empty());
}

pub(crate) async fn a_sidecar_hears_nothing_of_other_tenants_and_nothing_that_covers_nothing(place: &Place) {
    let store = place.open().await;
    let mut both = agent("support");
    both.agent.tenants = crate::place::ids(&["acme", "beta"]);
    store.register_agent(&writer(), both).await.unwrap();
    store.create_grant(&writer(), grant("refunds", "support")).await.unwrap();
    store.start_task(&writer(), task("of-acme", "refunds")).await.unwrap();
    let mut of_beta = task("of-beta", "refunds");
    (of_beta.tenant, of_beta.run) = (id("beta"), Some(id("run-2")));
    store.start_task(&writer(), of_beta).await.unwrap();
    for name in ["task:of-acme", "task:of-beta", "run:run-2", "tenant:beta", "user:alice", "task:unknown"] {
        store.withdraw(&writer(), target(name)).await.unwrap();
    }
    let heard = async |tenants: Option<&[&str]>, at| {
        let tenants = tenants.map(crate::place::ids);
        let feed = store.followed(0, tenants.as_ref(), 100, at).await.unwrap();
        assert!(!feed.more && feed.head == every_change(&store).await.len() as u64);
        feed.changes.into_iter().map(|withdrawal| withdrawal.target.to_string()).collect::<Vec<_>>()
    };
    let user = format!("user:{}#alice", crate::place::ISSUER);
    assert_eq!(heard(Some(&["acme"]), now()).await, ["task:of-acme", &user, "task:unknown"]);
    assert_eq!(
        heard(Some(&["beta"]), now()).await,
        ["task:of-beta", "run:run-2", "tenant:beta", &user, "task:unknown"]
    );
    assert_eq!(heard(None, now()).await.len(), 6);
    assert!(heard(None, after(25 * 3600 + 1)).await.is_empty());
    store.withdraw(&later(24 * 3600), target("task:late")).await.unwrap();
    assert_eq!(heard(None, after(25 * 3600 + 1)).await, ["task:late"]);
}
