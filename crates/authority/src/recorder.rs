//! From the change log to the ledger: each committed change has its record, whichever replica made it and whatever
//! happened between its commit and its record. A write is answered when its record is durable.
//!
//! Every authority's ledger holds every change: one that is lost with its disk takes no history with it.

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
                }
            }
        });
    }

    async fn all(&self) -> Result<(), NotRecorded> {
        let mut done = self.done.lock().await;
        while self.some(&mut done).await? {}
        Ok(())
    }

    /// Records the next changes; whether there were any.
    async fn some(&self, done: &mut Done) -> Result<bool, NotRecorded> {
        let feed = self.store.changes(done.position, None, MAX_FEED).await?;
        if feed.generation != done.generation {
            // A restored database: what it holds is recorded under its new name, from the beginning.
            *done = Done { generation: feed.generation, position: 0 };
            return Ok(true);
        }
        for change in &feed.changes {
            self.ledger.event(Event::AuthorityChange(Box::new(record(change, &feed.generation)))).await?;
            done.position = change.position;
        }
        Ok(feed.more)
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
