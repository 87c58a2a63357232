//! Agents, grants and tasks: their ceilings, and that whatever lessens them withdraws what was issued before.

use std::slice;

use countersign_store::{
    AgentChange, Change, ChangeKind, CredentialKind, GrantChange, GrantStatus, NewTask, Store, StoreError,
};
use model::{AgentStatus, Stage, registry::TaskStatus, withdrawal::Cause};
use serde_json::json;

use crate::{
    crash::every_change,
    place::{ISSUER, Place, after, agent, authority, furnish, grant, id, ids, later, now, target, task, writer},
};

/// What `write` withdrew, with the cause.
async fn withdrawn<T>(store: &Store, write: impl Future<Output = Result<T, StoreError>>) -> Vec<(String, Cause)> {
    let before = store.head().await.unwrap().position;
    write.await.unwrap();
    let withdrawn = |change: Change| match change.kind {
        ChangeKind::Withdrawal(withdrawal) => Some((withdrawal.target.to_string(), withdrawal.cause)),
        _ => None,
    };
    store.changes(before, 100).await.unwrap().changes.into_iter().filter_map(withdrawn).collect()
}

pub(crate) async fn what_lessens_an_agent_withdraws_it_and_what_widens_does_not(place: &Place) {
    let store = place.open().await;
    store.register_agent(&writer(), agent("support")).await.unwrap();
    let name = id("support");
    let one = (format!("agent:{ISSUER}#support"), Cause::Narrowed);
    let writer = writer();
    let change = |change: AgentChange| store.change_agent(&writer, ISSUER, &name, change);
    let wider =
        AgentChange { actions: Some(ids(&["orders.read", "refunds.create", "orders.list"])), ..AgentChange::default() };
    assert_eq!(withdrawn(&store, change(wider)).await, []);
    let owner = AgentChange { owner: Some("erin".to_owned()), ..AgentChange::default() };
    assert_eq!(withdrawn(&store, change(owner)).await, []);
    let narrower = AgentChange { actions: Some(ids(&["orders.read"])), ..AgentChange::default() };
    assert_eq!(withdrawn(&store, change(narrower)).await, slice::from_ref(&one));
    let elsewhere = AgentChange { tenants: Some(ids(&["beta"])), ..AgentChange::default() };
    assert_eq!(withdrawn(&store, change(elsewhere)).await, slice::from_ref(&one));

    let jwks = |x: &str| CredentialKind::Jwks(json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": x }] }));
    let both = (ISSUER, &name);
    assert_eq!(withdrawn(&store, store.add_credential(&writer, both, jwks("old"), None)).await, []);
    assert_eq!(withdrawn(&store, store.add_credential(&writer, both, jwks("new"), Some(after(60)))).await, []);
    let registration = store.agent(ISSUER, &name).await.unwrap().unwrap();
    assert_eq!(
        (registration.jwks(now()).await.unwrap().len(), registration.jwks(after(60)).await.unwrap().len()),
        (2, 1)
    );
    let old = registration.credentials[0].id.clone();
    assert_eq!(withdrawn(&store, store.remove_credential(&writer, both, &old)).await, slice::from_ref(&one));
    let file = CredentialKind::JwksFile("/etc/passwd".into());
    assert!(matches!(store.add_credential(&writer, both, file, None).await, Err(StoreError::Invalid(_))));

    let status = |status| AgentChange { status: Some(status), ..AgentChange::default() };
    let ended = (one.0.clone(), Cause::Withdrawn);
    assert_eq!(withdrawn(&store, change(status(AgentStatus::Suspended))).await, slice::from_ref(&ended));
    assert_eq!(withdrawn(&store, change(status(AgentStatus::Active))).await, []);
    assert_eq!(withdrawn(&store, change(status(AgentStatus::Decommissioned))).await, [ended]);
    let again = change(status(AgentStatus::Active)).await;
    assert!(matches!(again, Err(StoreError::Conflict(_))), "{again:?}");
    let mut nobodys = agent("nobodys");
    nobodys.agent.owner = " ".to_owned();
    assert!(matches!(store.register_agent(&writer, nobodys).await, Err(StoreError::Invalid(_))));
}

pub(crate) async fn what_lessens_a_grant_withdraws_it_and_what_widens_does_not(place: &Place) {
    let store = place.open().await;
    furnish(&store).await;
    let (writer, name) = (writer(), id("refunds"));
    let change = |change: GrantChange| store.change_grant(&writer, &name, change);
    let one = ("grant:refunds".to_owned(), Cause::Narrowed);
    let changes = [
        (GrantChange { stage: Some(Stage::Supervised), ..GrantChange::default() }, false),
        (GrantChange { expires_at: Some(after(7200)), ..GrantChange::default() }, false),
        (GrantChange { redelegate: Some(2), ..GrantChange::default() }, false),
        (GrantChange { presence: Some(vec![model::Presence::Detached]), ..GrantChange::default() }, false),
        (GrantChange { authority: Some(authority(&["orders.read"])), ..GrantChange::default() }, true),
        (GrantChange { stage: Some(Stage::Observe), ..GrantChange::default() }, true),
        (GrantChange { expires_at: Some(after(3600)), ..GrantChange::default() }, true),
        (GrantChange { redelegate: Some(1), ..GrantChange::default() }, true),
        (GrantChange { presence: Some(Vec::new()), ..GrantChange::default() }, true),
        // Other and more at once is less, too.
        (GrantChange { authority: Some(authority(&["refunds.create"])), ..GrantChange::default() }, true),
    ];
    for (number, (changed, lessens)) in changes.into_iter().enumerate() {
        let expected = if lessens { vec![one.clone()] } else { Vec::new() };
        assert_eq!(withdrawn(&store, change(changed)).await, expected, "change {number}");
    }
    let nothing = GrantChange { authority: Some(authority(&[])), ..GrantChange::default() };
    assert!(matches!(change(nothing).await, Err(StoreError::Invalid(_))));
    let ended = withdrawn(&store, store.withdraw_grant(&writer, &name)).await;
    assert_eq!(ended, [("grant:refunds".to_owned(), Cause::Withdrawn)]);
    assert_eq!(withdrawn(&store, store.withdraw_grant(&writer, &name)).await, [], "once");
    assert_eq!(store.task(&id("ticket-1")).await.unwrap().unwrap().task.status, TaskStatus::Withdrawn);
    assert!(matches!(change(GrantChange::default()).await, Err(StoreError::Conflict(_))));
    assert!(matches!(store.start_task(&writer, task("ticket-2", "refunds")).await, Err(StoreError::Conflict(_))));
}

pub(crate) async fn a_task_keeps_within_its_grant_its_agent_and_its_run(place: &Place) {
    let store = place.open().await;
    furnish(&store).await;
    let standing = store.standing(&id("ticket-1")).await.unwrap().unwrap();
    assert_eq!(standing.as_of, store.head().await.unwrap().position);
    assert_eq!((standing.task.grant.as_str(), standing.grant.grant.id.as_str()), ("refunds", "refunds"));
    assert_eq!(standing.grant, store.grant(&id("refunds")).await.unwrap().unwrap());
    assert_eq!(standing.task, store.task(&id("ticket-1")).await.unwrap().unwrap().task);
    type Mistake = fn(&mut NewTask);
    let changes: [(&str, Mistake); 6] = [
        ("beyond its stage", |task| task.stage = Stage::Supervised),
        ("longer than it", |task| task.expires_at = after(3601)),
        ("ended before it began", |task| task.expires_at = now()),
        ("of a tenant that the agent has not", |task| task.tenant = id("beta")),
        ("without the user", |task| task.presence = model::Presence::Owner),
        ("under no grant", |task| task.grant = id("none")),
    ];
    for (what, change) in changes {
        let mut new = task("ticket-2", "refunds");
        change(&mut new);
        assert!(store.start_task(&writer(), new).await.is_err(), "{what}");
    }
    let mut both = agent("both");
    both.agent.tenants = ids(&["acme", "beta"]);
    store.register_agent(&writer(), both).await.unwrap();
    store.create_grant(&writer(), grant("wide", "both")).await.unwrap();
    let mut crossing = task("ticket-3", "wide");
    crossing.tenant = id("beta");
    assert!(
        matches!(store.start_task(&writer(), crossing).await, Err(StoreError::Conflict(_))),
        "a run crosses tenants"
    );

    let (writer, name) = (writer(), id("ticket-1"));
    let raised = store.change_stage(&writer, &name, Stage::Draft, Some("the customer waits".to_owned()));
    assert_eq!(withdrawn(&store, raised).await, []);
    let beyond = store.change_stage(&writer, &name, Stage::Supervised, None).await;
    assert!(matches!(beyond, Err(StoreError::Invalid(_))));
    let lowered = store.change_stage(&writer, &name, Stage::Observe, None);
    let one = |cause| [("task:ticket-1".to_owned(), cause)];
    assert_eq!(withdrawn(&store, lowered).await, one(Cause::Narrowed));
    let ended = store.end_task(&writer, &name, TaskStatus::Completed);
    assert_eq!(withdrawn(&store, ended).await, one(Cause::Ended));
    let record = store.task(&name).await.unwrap().unwrap();
    assert_eq!((record.ended, record.justification.as_deref()), (Some(now()), Some("the customer waits")));
    assert!(store.change_stage(&writer, &name, Stage::Draft, None).await.is_err());
}

pub(crate) async fn a_withdrawal_ends_what_is_registered(place: &Place) {
    let store = place.open().await;
    furnish(&store).await;
    let targets = [
        "task:ticket".to_owned(),
        "run:run-7".to_owned(),
        "tenant:acme".to_owned(),
        "session:https://sso.example#session-7".to_owned(),
        "user:https://sso.example#alice".to_owned(),
    ];
    for (number, name) in targets.iter().enumerate() {
        let ticket = format!("ticket-{}", number + 10);
        let mut new = task(&ticket, "refunds");
        (new.run, new.session) = (Some(id(&format!("run-{}", number + 6))), Some("session-7".to_owned()));
        store.start_task(&later(1), new).await.unwrap();
        let name = if number == 0 { format!("task:{ticket}") } else { name.clone() };
        store.withdraw(&later(2), target(&name)).await.unwrap();
        let record = store.task(&id(&ticket)).await.unwrap().unwrap();
        assert_eq!((record.task.status, record.ended), (TaskStatus::Withdrawn, Some(after(2))), "{name}");
    }
    store.withdraw(&writer(), target("grant:refunds")).await.unwrap();
    assert_eq!(store.grant(&id("refunds")).await.unwrap().unwrap().status, GrantStatus::Withdrawn);
    store.withdraw(&writer(), target("agent:support")).await.unwrap();
    let registration = store.agent(ISSUER, &id("support")).await.unwrap().unwrap();
    assert_eq!(registration.agent.status, AgentStatus::Suspended);
    assert!(store.create_grant(&writer(), grant("more", "support")).await.is_err());
}

pub(crate) async fn what_ended_never_begins_again(place: &Place) {
    let store = place.open().await;
    furnish(&store).await;
    store.end_task(&writer(), &id("ticket-1"), TaskStatus::Withdrawn).await.unwrap();
    let completed = store.end_task(&writer(), &id("ticket-1"), TaskStatus::Completed).await.unwrap();
    assert_eq!(completed.value.task.status, TaskStatus::Withdrawn);
    assert!(matches!(
        store.end_task(&writer(), &id("ticket-1"), TaskStatus::Active).await,
        Err(StoreError::Invalid(_))
    ));
    assert!(matches!(store.start_task(&writer(), task("ticket-1", "refunds")).await, Err(StoreError::Conflict(_))));
    let registration = store.agent(ISSUER, &id("support")).await.unwrap().unwrap();
    store.agent_seen(&registration, after(5)).await.unwrap();
    let seen = store.agent(ISSUER, &id("support")).await.unwrap().unwrap();
    assert_eq!(seen.last_seen, Some(after(5)));
    store.agent_seen(&seen, after(30)).await.unwrap();
    assert_eq!(store.agent(ISSUER, &id("support")).await.unwrap().unwrap().last_seen, Some(after(5)), "to the minute");
    let changes = every_change(&store).await;
    assert_eq!(changes.last().unwrap().position, store.head().await.unwrap().position);
}
