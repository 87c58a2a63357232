//! The change log: what was committed, by whom and why, in the order of commit.
//!
//! A follower that has everything up to the head it was told has missed nothing: a position is taken while the head
//! row is held, so no smaller one can be committed later. Sidecars follow the withdrawals among it, ledgers all of it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use model::{Agent, Grant, Id, Stage, Task, Tenant, registry::TaskStatus, withdrawal::Withdrawal};
use net::Tasks;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    Store,
    engine::{self, Engine, Row, Value},
    error::StoreError,
    heads::KnownLedger,
    join_tokens::JoinToken,
    pins::Pin,
    sidecars::Sidecar,
    signing_keys::PublishedKey,
    upkeep, withdrawals,
    writing::{Begun, Committed, Writer, uuid},
};

/// The most changes that one question gets.
pub const MAX_FEED: usize = 1000;

/// How often the head is looked at, whatever notifications say.
const POLL: Duration = Duration::from_millis(250);

const DOING: &str = "reading the change log";

/// One committed change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its place; the next one has the next number.
    pub position: u64,
    /// When, by the clock of whoever made it.
    pub at: Timestamp,
    /// Who made it.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
    /// What it was.
    pub kind: ChangeKind,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "of")]
pub enum ChangeKind {
    /// Something was withdrawn or lessened: what sidecars follow.
    #[serde(rename = "withdrawal.created")]
    Withdrawal(Withdrawal),
    /// An agent was registered.
    #[serde(rename = "agent.registered")]
    AgentRegistered(Agent),
    /// An agent's registration, status or credentials are others now.
    #[serde(rename = "agent.changed")]
    AgentChanged(Agent),
    /// A grant was given.
    #[serde(rename = "grant.created")]
    GrantCreated(Box<Grant>),
    /// A grant is another now.
    #[serde(rename = "grant.changed")]
    GrantChanged(Box<Grant>),
    /// A grant holds no more.
    #[serde(rename = "grant.withdrawn")]
    GrantWithdrawn {
        /// Which.
        id: Id<Grant>,
    },
    /// A task began.
    #[serde(rename = "task.started")]
    TaskStarted(Box<Task>),
    /// A task is another now.
    #[serde(rename = "task.changed")]
    TaskChanged(Box<Task>),
    /// A task may go further, or less far, than before.
    #[serde(rename = "stage.changed")]
    StageChanged {
        /// The task.
        id: Id<Task>,
        /// Its stage before.
        from: Stage,
        /// Its stage now.
        to: Stage,
    },
    /// A task ended.
    #[serde(rename = "task.ended")]
    TaskEnded {
        /// Which.
        id: Id<Task>,
        /// How.
        status: TaskStatus,
    },
    /// A join token was made.
    #[serde(rename = "join_token.created")]
    JoinTokenCreated(JoinToken),
    /// A join token is good no more.
    #[serde(rename = "join_token.withdrawn")]
    JoinTokenWithdrawn {
        /// Which.
        id: Id<JoinToken>,
    },
    /// A sidecar was enrolled.
    #[serde(rename = "sidecar.enrolled")]
    SidecarEnrolled(Sidecar),
    /// A sidecar's keys, or what it serves, are others now.
    #[serde(rename = "sidecar.changed")]
    SidecarChanged(Sidecar),
    /// A sidecar may follow and ask no more.
    #[serde(rename = "sidecar.removed")]
    SidecarRemoved {
        /// Which.
        id: Id<Sidecar>,
    },
    /// A sidecar speaks for a ledger.
    #[serde(rename = "ledger.enrolled")]
    LedgerEnrolled {
        /// The ledger.
        id: Id<KnownLedger>,
        /// The sidecar.
        sidecar: Id<Sidecar>,
        /// The key that signs the ledger's heads.
        verifying_key: String,
    },
    /// A signing key of the authority was published.
    #[serde(rename = "key.rotated")]
    KeyRotated {
        /// The key.
        key: Box<PublishedKey>,
        /// The one that it takes over from.
        replaces: Option<String>,
    },
    /// Nothing that a signing key of the authority signed is good any more.
    #[serde(rename = "key.withdrawn")]
    KeyWithdrawn {
        /// Which.
        id: String,
    },
    /// A bundle of policy stays at a revision.
    #[serde(rename = "policy.pinned")]
    PolicyPinned(Pin),
    /// It goes on to the newest again.
    #[serde(rename = "policy.unpinned")]
    PolicyUnpinned(Pin),
    /// The database was restored from a backup.
    #[serde(rename = "generation.began")]
    GenerationBegan {
        /// The new generation.
        generation: String,
        /// The one before.
        before: String,
    },
}

/// What follows on a position: changes, or the withdrawals among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed<T> {
    /// Which database this is: another one after a restore.
    pub generation: String,
    /// When the generation began.
    pub began: Timestamp,
    /// The last committed position, read before the changes.
    pub head: u64,
    /// What there is of them, in order.
    pub changes: Vec<T>,
    /// Whether more follow on the last of them, up to `head`. Where not, the follower stands at `head`.
    pub more: bool,
}

/// The last committed position, and of which database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The position.
    pub position: u64,
    /// Which database this is.
    pub generation: String,
    /// When the generation began.
    pub began: Timestamp,
}

impl ChangeKind {
    /// Its name, as the ledger has it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Withdrawal(_) => "withdrawal.created",
            Self::AgentRegistered(_) => "agent.registered",
            Self::AgentChanged(_) => "agent.changed",
            Self::GrantCreated(_) => "grant.created",
            Self::GrantChanged(_) => "grant.changed",
            Self::GrantWithdrawn { .. } => "grant.withdrawn",
            Self::TaskStarted(_) => "task.started",
            Self::TaskChanged(_) => "task.changed",
            Self::StageChanged { .. } => "stage.changed",
            Self::TaskEnded { .. } => "task.ended",
            Self::JoinTokenCreated(_) => "join_token.created",
            Self::JoinTokenWithdrawn { .. } => "join_token.withdrawn",
            Self::SidecarEnrolled(_) => "sidecar.enrolled",
            Self::SidecarChanged(_) => "sidecar.changed",
            Self::SidecarRemoved { .. } => "sidecar.removed",
            Self::LedgerEnrolled { .. } => "ledger.enrolled",
            Self::KeyRotated { .. } => "key.rotated",
            Self::KeyWithdrawn { .. } => "key.withdrawn",
            Self::PolicyPinned(_) => "policy.pinned",
            Self::PolicyUnpinned(_) => "policy.unpinned",
            Self::GenerationBegan { .. } => "generation.began",
        }
    }
}

impl Store {
    /// The head as committed now.
    ///
    /// # Errors
    /// When the database does not answer, or lacks what it had before.
    pub async fn head(&self) -> Result<Head, StoreError> {
        self.heads.ask(async || self.read_head().await).await.map(Arc::unwrap_or_clone)
    }

    async fn read_head(&self) -> Result<Head, StoreError> {
        // Before it is asked: what is committed meanwhile need not be in the answer.
        let known = self.seen.known();
        let sql = "SELECT position, generation, began, lost FROM head WHERE id = 1";
        let rows = self.engine.rows(DOING, sql, Vec::new()).await?;
        let row = rows.first().ok_or_else(|| StoreError::Damaged("it has no head".to_owned()))?;
        let head = Head { position: row.position(0)?, generation: row.text(1)?, began: row.moment(2)? };
        self.has_all(&known, &head, row.position(3)?).await?;
        self.seen.note(&head.generation, head.position);
        self.kept.reach(&self.engine, &head).await;
        Ok(head)
    }

    /// Begins a new generation, as after a restore: what was committed between the backup and now is lost, so no token
    /// issued before is good any more, and no join token from then can be used.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn begin_generation(&self, writer: &Writer) -> Result<Committed<Head>, StoreError> {
        let mut writing = match self.write_whatever::<Head>("beginning a generation", writer, &()).await? {
            Begun::Answered(answer) => return Ok(answer),
            Begun::Open(writing) => writing,
        };
        let before = writing.generation.clone();
        let generation = uuid(writer.now);
        let sql = "UPDATE head SET generation = $1, began = $2, restored = 1, lost = 0 WHERE id = 1";
        writing.execute(sql, vec![generation.as_str().into(), writer.now.into()]).await?;
        writing.generation.clone_from(&generation);
        let sql = "UPDATE join_tokens SET withdrawn = $1 WHERE used_by IS NULL AND withdrawn IS NULL";
        writing.execute(sql, vec![writer.now.into()]).await?;
        // Answers to requests that were made good since the backup would be given for what is not there.
        writing.execute("DELETE FROM answers", Vec::new()).await?;
        let change = ChangeKind::GenerationBegan { generation: generation.clone(), before };
        let position = writing.append(&change, None).await?;
        writing.commit(Head { position, generation, began: writer.now }).await
    }

    /// At most `limit` of the changes after position `after`. They have no gap, but for what is so old that it was
    /// forgotten: a ledger that [`Store::recorded`] knows lacks nothing, unless it was away for a month.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn changes(&self, after: u64, limit: usize) -> Result<Feed<Change>, StoreError> {
        let sql = "SELECT position, at, made_by, reason, body FROM changes WHERE position > $1 AND position <= $2";
        self.feed(after, limit, ("position", sql.to_owned()), Vec::new(), Change::read).await
    }

    /// The withdrawals after position `after` that cover something at `now` or later, by whichever clock: those that concern one of
    /// `tenants` and those that concern no single tenant, or all of them. What is forgotten covers nothing any more, so
    /// whoever was away for however long misses none.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn followed(
        &self,
        after: u64,
        tenants: Option<&BTreeSet<Id<Tenant>>>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Feed<Withdrawal>, StoreError> {
        let mut sql =
            "SELECT created, body FROM withdrawals WHERE created > $1 AND created <= $2 AND until >= $3".to_owned();
        // A follower whose clock is behind still takes what has ended here.
        let mut further: Vec<Value> = vec![upkeep::before(now, upkeep::MARGIN).into()];
        if let Some(tenants) = tenants {
            sql.push_str(" AND (tenant IS NULL");
            for tenant in tenants {
                further.push(tenant.into());
                sql.push_str(&format!(" OR tenant = ${}", further.len() + 2));
            }
            sql.push(')');
        }
        self.feed(after, limit, ("created", sql), further, withdrawals::read).await
    }

    /// What `question` brings between `after` and the head, in the order of the column that is its position.
    async fn feed<T>(
        &self,
        after: u64,
        limit: usize,
        (position, question): (&str, String),
        further: Vec<Value>,
        read: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Feed<T>, StoreError> {
        // First the head, then the rows up to it: whatever is committed up to a head that was seen can be seen too.
        let Head { position: head, generation, began } = self.head().await?;
        let mut feed = Feed { generation, began, head, changes: Vec::new(), more: false };
        if head <= after {
            return Ok(feed);
        }
        let limit = limit.clamp(1, MAX_FEED);
        let values = [Value::position(after), Value::position(head)].into_iter().chain(further).collect();
        // One more than asked for tells whether there are more.
        let sql = format!("{question} ORDER BY {position} LIMIT {}", limit + 1);
        let rows = self.engine.rows(DOING, sql, values).await?;
        feed.more = rows.len() > limit;
        feed.changes = rows.iter().take(limit).map(read).collect::<Result<_, _>>()?;
        Ok(feed)
    }

    /// Tells that something was committed, here or by another replica. A hint only: whoever is woken reads the
    /// database, and whoever is not woken asks at their own pace.
    pub fn woken(&self) -> watch::Receiver<u64> {
        self.wake.subscribe()
    }

    pub(crate) fn wake(&self, position: u64) {
        self.wake.send_if_modified(|last| {
            let later = position > *last;
            *last = position.max(*last);
            later
        });
    }

    /// Looks at the head every now and then, and whenever a PostgreSQL server tells of a commit, so that what other
    /// replicas commit wakes followers here.
    pub(crate) fn watch(&self, tasks: &Tasks) {
        if let Engine::Postgres(server) = &self.engine {
            let (store, server, stop) = (self.clone(), server.clone(), tasks.shutdown_token());
            let told = move |position| store.wake(position);
            tasks.spawn("change log notifications", async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = engine::postgres::listen(server, told) => {}
                }
            });
        }
        let store = self.clone();
        tasks.repeat("change log poll", POLL, move || {
            let store = store.clone();
            async move {
                match store.head().await {
                    Ok(head) => store.wake(head.position),
                    Err(error) => tracing::debug!(%error, "the head of the change log cannot be read"),
                }
            }
        });
    }
}

impl Change {
    fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            position: row.position(0)?,
            at: row.moment(1)?,
            by: row.text(2)?,
            reason: row.optional(3)?,
            kind: row.json(4)?,
        })
    }
}
