//! A database for one test, and the small things that every test says.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use countersign_store::{Database, NewAgent, NewGrant, NewTask, Store, Writer};
use jiff::{SignedDuration, Timestamp};
use model::{Agent, AgentStatus, Authority, Id, Presence, Principal, PrincipalKind, Sensitivity, Stage};
use net::Tasks;
use secrecy::SecretString;

use crate::postgres;

pub(crate) const ISSUER: &str = "https://countersign.example";
pub(crate) const SSO: &str = "https://sso.example";

/// A database of its own.
pub(crate) struct Place {
    pub(crate) database: Database,
    pub(crate) tasks: Tasks,
    pub(crate) folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::Sqlite(folder.path().join("authority.db"));
        Self { database, tasks: Tasks::new(), folder }
    }

    /// `None`, said aloud, where there is no PostgreSQL.
    pub(crate) async fn postgres() -> Option<Self> {
        let server = postgres::shared()?;
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        server.create_database(&name);
        let database = Database::Postgres(SecretString::from(server.url(&name)));
        Some(Self { database, tasks: Tasks::new(), folder: tempfile::tempdir().unwrap() })
    }

    /// One replica's store.
    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.database, now(), &self.tasks).await.unwrap()
    }

    /// How another process says which database it is.
    pub(crate) fn named(&self) -> String {
        use secrecy::ExposeSecret;
        match &self.database {
            Database::Sqlite(path) => path.display().to_string(),
            Database::Postgres(url) => url.expose_secret().to_owned(),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

/// The hour of every test.
pub(crate) fn now() -> Timestamp {
    "2026-11-22T15:00:00Z".parse().unwrap()
}

pub(crate) fn after(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

pub(crate) fn writer() -> Writer {
    Writer { by: "user:dana@acme".to_owned(), reason: Some("because".to_owned()), now: now(), idempotency: None }
}

pub(crate) fn keyed(key: &str) -> Writer {
    Writer { idempotency: Some(key.to_owned()), ..writer() }
}

pub(crate) fn later(seconds: i64) -> Writer {
    Writer { now: after(seconds), ..writer() }
}

pub(crate) fn id<Of>(text: &str) -> Id<Of> {
    Id::new(text).unwrap()
}

pub(crate) fn ids<Of>(names: &[&str]) -> BTreeSet<Id<Of>> {
    names.iter().map(|name| id(name)).collect()
}

pub(crate) fn target(text: &str) -> model::withdrawal::Target {
    model::withdrawal::Target::read(text, Some(ISSUER)).unwrap()
}

pub(crate) fn agent(name: &str) -> NewAgent {
    let agent = Agent {
        id: id(name),
        issuer: ISSUER.to_owned(),
        owner: "dana@acme.example".to_owned(),
        actions: ids(&["orders.read", "refunds.create"]),
        tenants: ids(&["acme"]),
        status: AgentStatus::Active,
    };
    NewAgent { agent, description: None, credentials: Vec::new() }
}

pub(crate) fn authority(actions: &[&str]) -> Authority {
    serde_json::from_value(serde_json::json!({
        "scope": actions,
        "elements": [{ "type": "urn:countersign:action", "actions": actions, "locations": ["orders"] }],
    }))
    .unwrap()
}

pub(crate) fn grant(name: &str, agent: &str) -> NewGrant {
    let principal =
        |kind, issuer: &str, name| Principal { kind, id: id(name), issuer: issuer.to_owned(), tenant: None };
    NewGrant {
        id: Some(id(name)),
        user: principal(PrincipalKind::User, SSO, "alice"),
        agent: principal(PrincipalKind::Agent, ISSUER, agent),
        authority: authority(&["orders.read", "refunds.create"]),
        stage: Stage::Draft,
        presence: Vec::new(),
        expires_at: after(3600),
        redelegate: 0,
    }
}

pub(crate) fn task(name: &str, grant: &str) -> NewTask {
    NewTask {
        id: Some(id(name)),
        grant: id(grant),
        run: Some(id("run-1")),
        tenant: id("acme"),
        session: Some("session-1".to_owned()),
        use_case: None,
        initiated_by: "alice".to_owned(),
        justification: None,
        sensitivity: Sensitivity::High,
        stage: Stage::Observe,
        presence: Presence::Present,
        expires_at: after(1800),
    }
}

/// An agent, a grant for it and a task under that.
pub(crate) async fn furnish(store: &Store) {
    store.register_agent(&writer(), agent("support")).await.unwrap();
    store.create_grant(&writer(), grant("refunds", "support")).await.unwrap();
    store.start_task(&writer(), task("ticket-1", "refunds")).await.unwrap();
}

/// Waits for `done`, which has to become true.
pub(crate) async fn eventually(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let deadline = net::clock::monotonic() + Duration::from_secs(30);
    while !done().await {
        assert!(net::clock::monotonic() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
