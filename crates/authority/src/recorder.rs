//! From the change log to the ledger: each committed change has its record, whichever replica made it and whatever
//! happened between its commit and its record. A write is answered when its record is durable.
//!
//! Every authority's ledger holds every change: one that is lost with its disk takes no history with it. The database keeps
//! a change until each ledger has it, and for a month where one is gone: one that comes back later than that, or begins
//! later, says which it lacks.

use std::path::PathBuf;

use audit::{Event, Ledger, LedgerError, query, record::AuthorityChange};
use jiff::{SignedDuration, Timestamp};
use model::{Agent, Grant, Id, Principal, PrincipalKind, Target, Task, Tenant};
use net::Tasks;
use store::{Change, ChangeKind, MAX_FEED, Store, StoreError};
use tokio::sync::Mutex;

use crate::exchange::principal;

/// How far back the ledger is searched for where it stopped, each time further; in the end all of it.
const SEARCHES: [SignedDuration; 3] =
    [SignedDuration::from_hours(1), SignedDuration::from_hours(24), SignedDuration::from_hours(24 * 30)];
/// Before the next attempt, where the ledger or the database did not work.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(500);
/// How often the database is told how far the ledger has come.
const NOTED_EVERY: std::time::Duration = std::time::Duration::from_secs(60);

/// The kind of a record that says which changes are in no record of this ledger.
const MISSED: &str = "changes.missed";

/// Writes the records.
pub(crate) struct Recorder {
    store: Store,
    ledger: Ledger,
    done: Mutex<Done>,
}

/// Up to where the ledger has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Done {
    generation: String,
    position: u64,
}

/// Why there is no record.
#[derive(Debug, thiserror::Error)]
pub enum NotRecorded {
    /// The database does not answer.
    #[error("the change log cannot be read: {0}")]
    Store(#[from] StoreError),
    /// The ledger does not work.
    #[error("the ledger: {0}")]
    Ledger(#[from] LedgerError),
}

impl Recorder {
    /// Goes on where the ledger in `dir` stopped.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub(crate) async fn resume(
        store: Store,
        ledger: Ledger,
        dir: PathBuf,
        now: Timestamp,
    ) -> Result<Self, NotRecorded> {
        let generation = store.head().await?.generation;
        let found = tokio::task::spawn_blocking({
            let generation = generation.clone();
            move || last_recorded(&dir, &generation, now)
        });
        // Where the search itself failed, everything is recorded again rather than something not at all.
        let position = found.await.unwrap_or(Ok(0))?;
        // What is on record was committed: a database that does not have it is another copy.
        store.was_at(&generation, position).await?;
        // Before anything is read: from here on what is missing is kept.
        store.recorded(ledger.id(), (&generation, position), now).await?;
        Ok(Self { store, ledger, done: Mutex::new(Done { generation, position }) })
    }

    /// Records every change up to `position`.
    pub(crate) async fn up_to(&self, position: u64) -> Result<(), NotRecorded> {
        let mut done = self.done.lock().await;
        while done.position < position {
            if !self.some(&mut done).await? {
                break;
            }
        }
        Ok(())
    }

    /// Records what others commit, until the end.
    pub(crate) fn follow(self: &std::sync::Arc<Self>, tasks: &Tasks) {
        let (recorder, stop) = (std::sync::Arc::clone(self), tasks.shutdown_token());
        let mut woken = self.store.woken();
        let mut note = tokio::time::interval(NOTED_EVERY);
        tasks.spawn("change recorder", async move {
            loop {
                if let Err(error) = recorder.all().await {
                    tracing::error!(%error, "committed changes are not on record yet");
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(PAUSE) => continue,
                    }
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    changed = woken.changed() => if changed.is_err() { return },
                    _ = note.tick() => recorder.note().await,
                }
            }
        });
    }

    /// Tells the database what the ledger has, so that it need not keep that for it.
    async fn note(&self) {
        let Done { generation, position } = self.done.lock().await.clone();
        if let Err(error) = self.store.recorded(self.ledger.id(), (&generation, position), net::clock::now()).await {
            tracing::debug!(%error, "the database does not know how far the ledger has come");
        }
    }

    async fn all(&self) -> Result<(), NotRecorded> {
        let mut done = self.done.lock().await;
        while self.some(&mut done).await? {}
        Ok(())
    }

    /// Records the next changes; whether there were any.
    async fn some(&self, done: &mut Done) -> Result<bool, NotRecorded> {
        let feed = self.store.changes(done.position, MAX_FEED).await?;
        if feed.generation != done.generation {
            // A restored database: what it holds is recorded under its new name, from the beginning.
            *done = Done { generation: feed.generation, position: 0 };
            return Ok(true);
        }
        for change in &feed.changes {
            self.missed(done, change.position - 1).await?;
            self.ledger.event(Event::AuthorityChange(Box::new(record(change, &feed.generation)))).await?;
            done.position = change.position;
        }
        if !feed.more {
            self.missed(done, feed.head).await?;
        }
        Ok(feed.more)
    }

    /// Positions have no gap: those up to `last` that did not come were forgotten. That is on record instead of them.
    async fn missed(&self, done: &mut Done, last: u64) -> Result<(), NotRecorded> {
        if done.position >= last {
            return Ok(());
        }
        let (from, to) = (done.position + 1, last);
        tracing::error!(from, to, "changes are not in this ledger: the database keeps them no more");
        let missed = AuthorityChange {
            kind: MISSED.to_owned(),
            position: last,
            generation: done.generation.clone(),
            at: net::clock::now(),
            by: "the authority".to_owned(),
            reason: Some("the database keeps them no more: they are in ledgers that were there then".to_owned()),
            user: None,
            agent: None,
            tenant: None,
            grant: None,
            task: None,
            run: None,
            change: serde_json::json!({ "from": from, "to": to }),
        };
        self.ledger.event(Event::AuthorityChange(Box::new(missed))).await?;
        done.position = last;
        Ok(())
    }
}

/// The last position of `generation` that the ledger in `dir` has a record of; 0 for none.
fn last_recorded(dir: &std::path::Path, generation: &str, now: Timestamp) -> Result<u64, LedgerError> {
    let froms = SEARCHES.iter().filter_map(|back| now.checked_sub(*back).ok()).map(Some).chain([None]);
    for from in froms {
        let filter = query::Filter { from, ..query::Filter::default() };
        let mut last = None;
        for entry in query::query(dir, filter)? {
            let entry = entry?;
            let position = entry.fields.get("position").and_then(serde_json::Value::as_u64);
            if entry.text("generation") == Some(generation) {
                last = position.max(last);
            }
        }
        if let Some(last) = last {
            return Ok(last);
        }
    }
    Ok(0)
}

/// What a change is about, beside all of it.
#[derive(Default)]
struct About {
    user: Option<Principal>,
    agent: Option<Principal>,
    tenant: Option<Id<Tenant>>,
    grant: Option<Id<Grant>>,
    task: Option<Id<Task>>,
    run: Option<Id<model::id::Run>>,
}

fn record(change: &Change, generation: &str) -> AuthorityChange {
    let About { user, agent, tenant, grant, task, run } = about(&change.kind);
    AuthorityChange {
        kind: change.kind.word().to_owned(),
        position: change.position,
        generation: generation.to_owned(),
        at: change.at,
        by: change.by.clone(),
        reason: change.reason.clone(),
        user,
        agent,
        tenant,
        grant,
        task,
        run,
        change: serde_json::to_value(&change.kind).unwrap_or_default(),
    }
}

fn about(kind: &ChangeKind) -> About {
    let none = About::default();
    match kind {
        ChangeKind::Withdrawal(withdrawal) => target(&withdrawal.target),
        ChangeKind::AgentRegistered(agent) | ChangeKind::AgentChanged(agent) => of_agent(agent),
        ChangeKind::GrantCreated(grant) | ChangeKind::GrantChanged(grant) => of_grant(grant),
        ChangeKind::GrantWithdrawn { id } => About { grant: Some(id.clone()), ..none },
        ChangeKind::TaskStarted(task) | ChangeKind::TaskChanged(task) => of_task(task),
        ChangeKind::StageChanged { id, .. } | ChangeKind::TaskEnded { id, .. } => {
            About { task: Some(id.clone()), ..none }
        }
        ChangeKind::PolicyPinned(pin) | ChangeKind::PolicyUnpinned(pin) => About { tenant: pin.tenant.clone(), ..none },
        ChangeKind::JoinTokenCreated(_)
        | ChangeKind::JoinTokenWithdrawn { .. }
        | ChangeKind::SidecarEnrolled(_)
        | ChangeKind::SidecarChanged(_)
        | ChangeKind::SidecarRemoved { .. }
        | ChangeKind::KeyRotated { .. }
        | ChangeKind::KeyWithdrawn { .. }
        | ChangeKind::LedgerEnrolled { .. }
        | ChangeKind::GenerationBegan { .. } => none,
    }
}

fn of_agent(agent: &Agent) -> About {
    About { agent: Some(principal(agent)), ..About::default() }
}

fn of_grant(grant: &Grant) -> About {
    let (user, agent) = (Some(grant.user.clone()), Some(grant.agent.clone()));
    About { user, agent, grant: Some(grant.id.clone()), ..About::default() }
}

fn of_task(task: &Task) -> About {
    About {
        tenant: Some(task.tenant.clone()),
        grant: Some(task.grant.clone()),
        task: Some(task.id.clone()),
        run: Some(task.run.clone()),
        ..About::default()
    }
}

fn target(target: &Target) -> About {
    let none = About::default();
    let named = |kind, issuer: &str, id: &Id<Principal>| {
        Some(Principal { kind, id: id.clone(), issuer: issuer.to_owned(), tenant: None })
    };
    match target {
        Target::User { issuer, id } => About { user: named(PrincipalKind::User, issuer, id), ..none },
        Target::Agent { issuer, id } | Target::Instance { issuer, agent: id, .. } => {
            About { agent: named(PrincipalKind::Agent, issuer, id), ..none }
        }
        Target::Task { id } => About { task: Some(id.clone()), ..none },
        Target::Run { id } => About { run: Some(id.clone()), ..none },
        Target::Grant { id } => About { grant: Some(id.clone()), ..none },
        Target::Tenant { id } => About { tenant: Some(id.clone()), ..none },
        Target::Session { .. } | Target::Token { .. } => none,
    }
}

#[cfg(test)]
mod tests {
    use audit::{Entry, LedgerSettings, record};
    use store::{Database, LONGEST_TOKEN, Writer};

    use super::*;

    /// Kind, first and last position of each record about changes.
    fn recorded(dir: &std::path::Path) -> Vec<(String, u64)> {
        let all = query::query(dir, query::Filter::default()).unwrap().map(Result::unwrap);
        let position = |entry: &Entry| entry.fields.get("position").and_then(serde_json::Value::as_u64);
        all.filter_map(|entry| Some((entry.kind.clone(), position(&entry)?))).collect()
    }

    #[tokio::test]
    async fn a_ledger_that_comes_too_late_for_some_changes_says_so_and_one_that_is_known_lacks_none() {
        let folder = tempfile::tempdir().unwrap();
        let tasks = Tasks::new();
        let now = net::clock::now();
        let database = Database::Sqlite(folder.path().join("authority.db"));
        let store = Store::open(&database, now, &tasks).await.unwrap();
        let withdraw = async |days: i64, name: &str| {
            let at = now - SignedDuration::from_hours(24 * days);
            let writer = Writer { by: "user:dana".to_owned(), reason: None, now: at, idempotency: None };
            store.withdraw(&writer, Target::read(&format!("task:{name}"), None).unwrap()).await.unwrap().position
        };
        for name in ["a", "b", "c"] {
            withdraw(60, name).await;
        }
        store.forget(LONGEST_TOKEN, now).await.unwrap().unwrap();
        let last = withdraw(0, "d").await;

        let dir = folder.path().join("ledger");
        let started = record::Started {
            component: record::Component::Authority,
            name: "test".to_owned(),
            version: "0".to_owned(),
        };
        let ledger = Ledger::open(LedgerSettings::new(dir.clone(), started), &tasks).await.unwrap();
        let resume = async || Recorder::resume(store.clone(), ledger.clone(), dir.clone(), now).await.unwrap();
        let recorder = resume().await;
        recorder.up_to(last).await.unwrap();
        let (missed, withdrawn) = ((MISSED.to_owned(), 3), ("withdrawal.created".to_owned(), 4));
        assert_eq!(recorded(&dir), [missed.clone(), withdrawn.clone()]);
        recorder.note().await;

        // It is away while some are made and grow old: they are kept for it.
        for name in ["e", "f"] {
            withdraw(20, name).await;
        }
        let rows = store.forget(LONGEST_TOKEN, now + SignedDuration::from_mins(2)).await.unwrap();
        assert!(rows.is_some());
        let recorder = resume().await;
        recorder.up_to(6).await.unwrap();
        let later = [5, 6].map(|position| ("withdrawal.created".to_owned(), position));
        assert_eq!(recorded(&dir), [&[missed, withdrawn][..], &later].concat());
        tasks.stop();
    }
}
