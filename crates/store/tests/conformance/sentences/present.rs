//! What an agent does for a user who is there: the grant and the task that count are the last ones.

use countersign_store::{NewTask, Store};
use model::{Id, Presence, Principal, PrincipalKind, registry::TaskStatus};

use crate::place::{ISSUER, Place, SSO, agent, furnish, grant, id, task, writer};

fn principal(kind: PrincipalKind, issuer: &str, name: &str) -> Principal {
    Principal { kind, id: id(name), issuer: issuer.to_owned(), tenant: None }
}

/// The last grant of one to another.
async fn last(store: &Store, user: (&str, &str), agent: &str) -> Option<Id<model::Grant>> {
    let user = principal(PrincipalKind::User, user.0, user.1);
    let agent = principal(PrincipalKind::Agent, ISSUER, agent);
    store.last_grant(&user, &agent).await.unwrap().map(|record| record.grant.id)
}

pub(crate) async fn the_grant_that_counts_is_the_last_of_one_user_to_one_agent(place: &Place) {
    let store = place.open().await;
    furnish(&store).await;
    store.register_agent(&writer(), agent("other")).await.unwrap();
    assert_eq!(last(&store, (SSO, "alice"), "support").await, Some(id("refunds")));
    store.create_grant(&writer(), grant("newer", "support")).await.unwrap();
    assert_eq!(last(&store, (SSO, "alice"), "support").await, Some(id("newer")));
    for (user, agent) in [((SSO, "bob"), "support"), ((ISSUER, "alice"), "support"), ((SSO, "alice"), "other")] {
        assert_eq!(last(&store, user, agent).await, None, "{user:?} {agent}");
    }
    store.withdraw_grant(&writer(), &id("newer")).await.unwrap();
    assert_eq!(last(&store, (SSO, "alice"), "support").await, Some(id("refunds")));
}

pub(crate) async fn the_task_that_goes_on_is_the_last_of_that_session(place: &Place) {
    let store = place.open().await;
    furnish(&store).await;
    let start = async |name: &str, session: Option<&str>, change: fn(&mut NewTask)| {
        let mut new = task(name, "refunds");
        new.session = session.map(str::to_owned);
        change(&mut new);
        store.start_task(&writer(), new).await.unwrap();
    };
    let last = async |session: Option<&str>| {
        let task = store.last_present(&id("refunds"), &id("acme"), session).await.unwrap();
        task.map(|task| (task.id.to_string(), task.status))
    };
    let named = |name: &str, status| Some((name.to_owned(), status));
    assert_eq!(last(Some("session-1")).await, named("ticket-1", TaskStatus::Active));
    assert_eq!((last(Some("session-2")).await, last(None).await), (None, None));
    start("second", Some("session-1"), |_| ()).await;
    start("elsewhere", Some("session-2"), |_| ()).await;
    start("nowhere", None, |_| ()).await;
    assert_eq!(last(Some("session-1")).await, named("second", TaskStatus::Active));
    assert_eq!(last(None).await, named("nowhere", TaskStatus::Active));
    assert_eq!(store.last_present(&id("other"), &id("acme"), None).await.unwrap(), None);
    assert_eq!(store.last_present(&id("refunds"), &id("beta"), None).await.unwrap(), None);
    // One that was taken back is still the last.
    store.end_task(&writer(), &id("second"), TaskStatus::Withdrawn).await.unwrap();
    assert_eq!(last(Some("session-1")).await, named("second", TaskStatus::Withdrawn));
    // What goes on without the user is not theirs to go on with.
    let detached = countersign_store::GrantChange { presence: Some(vec![Presence::Detached]), ..Default::default() };
    store.change_grant(&writer(), &id("refunds"), detached).await.unwrap();
    start("detached", None, |new| new.presence = Presence::Detached).await;
    assert_eq!(last(None).await, named("nowhere", TaskStatus::Active));
}
