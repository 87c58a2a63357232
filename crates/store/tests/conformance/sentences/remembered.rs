//! What is remembered of agents and tasks: never older than the head that was told.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use countersign_store::{AgentChange, GrantChange, Head, NewTask, Store, StoreError};
use model::{AgentStatus, Grant, Id, Principal, Stage, Task, registry::TaskStatus};

use crate::place::{ISSUER, Place, agent, authority, furnish, grant, id, ids, target, task, writer};

/// Whether `store` finds what is there, whether it remembers it or not.
async fn same(store: &Store, agents: &[&str], tasks: &[&str], after: &str) {
    store.head().await.unwrap();
    for name in agents {
        let (known, there) =
            (store.known_agent(ISSUER, &id(name)).await.unwrap(), store.agent(ISSUER, &id(name)).await);
        let (known, there) = (known.map(|known| (*known).clone()), there.unwrap());
        let shown =
            |it: Option<countersign_store::Registration>| it.map(|it| (it.agent, it.description, it.credentials));
        assert_eq!(shown(known), shown(there), "{name} after {after}");
    }
    for name in tasks {
        let (known, there) = (store.known_standing(&id(name)).await.unwrap(), store.standing(&id(name)).await.unwrap());
        let known = known.map(|known| (known.task.clone(), known.grant.clone()));
        assert_eq!(known, there.map(|there| (there.task, there.grant)), "{name} after {after}");
    }
}

pub(crate) async fn what_is_remembered_is_what_is_there_whatever_changed_it_at_whichever_replica(place: &Place) {
    let stores = [place.open().await, place.open().await];
    let tasks = ["ended", "staged", "withdrawn", "granted", "narrowed", "ran", "sat", "used", "left"];
    let other = |name: &str, grant: &str| NewTask { run: Some(id("run-2")), session: None, ..task(name, grant) };
    stores[0].register_agent(&writer(), agent("support")).await.unwrap();
    for name in ["refunds", "granted", "narrowed"] {
        stores[0].create_grant(&writer(), grant(name, "support")).await.unwrap();
    }
    for name in tasks {
        let new = match name {
            "granted" | "narrowed" => other(name, name),
            "ran" => task(name, "refunds"),
            "sat" => NewTask { run: Some(id("run-3")), session: Some("session-2".to_owned()), ..task(name, "refunds") },
            name => other(name, "refunds"),
        };
        stores[0].start_task(&writer(), new).await.unwrap();
    }
    let (maker, by) = (&stores[0], writer());
    let all_same = async |after: &str| {
        for store in &stores {
            same(store, &["support"], &tasks, after).await;
            // Once more: by now it is remembered.
            same(store, &["support"], &tasks, after).await;
        }
    };
    all_same("the beginning").await;
    let name: Id<Principal> = id("support");
    let narrower = AgentChange { actions: Some(ids(&["orders.read"])), ..AgentChange::default() };
    maker.change_agent(&by, ISSUER, &name, narrower).await.unwrap();
    all_same("an agent was narrowed").await;
    maker.end_task(&by, &id::<Task>("ended"), TaskStatus::Completed).await.unwrap();
    all_same("a task was ended").await;
    maker.change_stage(&by, &id::<Task>("staged"), Stage::Draft, None).await.unwrap();
    all_same("a stage was raised").await;
    let less = GrantChange { authority: Some(authority(&["orders.read"])), ..GrantChange::default() };
    maker.change_grant(&by, &id::<Grant>("narrowed"), less).await.unwrap();
    all_same("a grant was narrowed").await;
    maker.withdraw_grant(&by, &id::<Grant>("granted")).await.unwrap();
    all_same("a grant was withdrawn").await;
    for what in ["task:withdrawn", "run:run-1", "session:https://sso.example#session-2"] {
        maker.withdraw(&by, target(what)).await.unwrap();
        all_same(what).await;
    }
    maker.withdraw(&by, target("agent:support")).await.unwrap();
    all_same("an agent was withdrawn").await;
    maker.begin_generation(&by).await.unwrap();
    all_same("a restore").await;
    for what in ["user:https://sso.example#alice", "tenant:acme"] {
        maker.withdraw(&by, target(what)).await.unwrap();
        all_same(what).await;
    }
    let gone = AgentChange { status: Some(AgentStatus::Decommissioned), ..AgentChange::default() };
    maker.change_agent(&by, ISSUER, &name, gone).await.unwrap();
    all_same("an agent was decommissioned").await;
    // More than is followed.
    for number in 0..300 {
        maker.withdraw(&by, target(&format!("token:{ISSUER}#{number}"))).await.unwrap();
    }
    all_same("a lot of others").await;
}

pub(crate) async fn whoever_has_read_a_head_finds_nothing_older_however_many_change_it(place: &Place) {
    let stores = [place.open().await, place.open().await];
    furnish(&stores[0]).await;
    let (committed, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let change = async |number: u64| {
        let change = AgentChange { description: Some(number.to_string()), ..AgentChange::default() };
        stores[0].change_agent(&writer(), ISSUER, &id("support"), change).await.unwrap();
        committed.store(number, Ordering::SeqCst);
    };
    change(1).await;
    let readers: Vec<_> = (0..6)
        .map(|number| {
            let (store, committed, over) = (stores[number % 2].clone(), Arc::clone(&committed), Arc::clone(&over));
            place.tasks.spawn("reader", async move {
                let mut read = 0_u64;
                while !over.load(Ordering::SeqCst) {
                    let least = committed.load(Ordering::SeqCst);
                    store.head().await.unwrap();
                    let known = store.known_agent(ISSUER, &id("support")).await.unwrap().unwrap();
                    let found: u64 = known.description.as_deref().unwrap().parse().unwrap();
                    assert!(found >= least, "{found} was found, and {least} was there before the head was asked for");
                    read += 1;
                }
                read
            })
        })
        .collect();
    for number in 2..60 {
        change(number).await;
    }
    over.store(true, Ordering::SeqCst);
    for reader in readers {
        assert!(reader.join().await.unwrap() > 0);
    }
    // What has not come as far as was heard is no answer either, as of a server that is the primary no more.
    let fresh = place.open().await;
    let Head { generation, position, .. } = fresh.head().await.unwrap();
    fresh.was_at(&generation, position + 1).await.unwrap_err();
    let found = [
        fresh.known_agent(ISSUER, &id("support")).await.map(drop),
        fresh.known_standing(&id("ticket-1")).await.map(drop),
    ];
    for found in found {
        assert!(matches!(found, Err(StoreError::WentBack { .. })), "{found:?}");
    }
}
