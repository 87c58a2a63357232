//! Agents by (issuer, id): who is accountable for them, what they may do, and the keys they authenticate with.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use model::{
    Action, Agent, AgentStatus, Id, Principal, Tenant,
    withdrawal::{Cause, Target},
};
use serde::{Deserialize, Serialize};

use crate::{
    Store,
    changes::ChangeKind,
    digest,
    engine::{Row, Value},
    error::StoreError,
    kept::Place,
    page::{Listed, Page, Select, qualified},
    writing::{Begun, Committed, Writer, Writing},
};

/// The largest JWKS of an agent, in bytes.
const MAX_JWKS_BYTES: usize = 64 * 1024;

/// The longest subject of a certificate, in bytes.
const MAX_SUBJECT_BYTES: usize = 1024;

/// How exactly it is known when an agent was last seen: nothing is written for less.
const SEEN_EVERY: SignedDuration = SignedDuration::from_mins(1);

const COLUMNS: &str = "created, issuer, id, owner, description, actions, tenants, status, credentials, registered, \
                       last_seen";

/// A registered agent as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The agent.
    pub agent: Agent,
    /// What it is for.
    pub description: Option<String>,
    /// What it authenticates with; several overlap while one replaces the other.
    pub credentials: Vec<Credential>,
    /// Since when.
    pub registered: Timestamp,
    /// When it last authenticated, to the minute.
    pub last_seen: Option<Timestamp>,
    /// The position of the change log up to which this is known to hold; 0 in answers to writes.
    #[serde(default)]
    pub as_of: u64,
}

/// One way of an agent to show who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Its name, among those of the agent.
    pub id: String,
    /// What it is.
    pub is: CredentialKind,
    /// Since when.
    pub added: Timestamp,
    /// When it is good no more.
    pub retires: Option<Timestamp>,
}

/// What an agent authenticates with. Public keys only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    /// A JWKS (RFC 7517 §5).
    Jwks(serde_json::Value),
    /// The path of a JWKS file, read at each use, so that an agent rotates its key without a restart.
    JwksFile(PathBuf),
    /// The SPIFFE ID in its client certificate (an X.509-SVID); one that ends in `/*` has any one segment there, which says
    /// which instance of the agent it is.
    Spiffe(String),
    /// The subject of its client certificate, as in `CN=support, O=acme`.
    Subject(String),
}

/// An agent to be registered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewAgent {
    /// Who it is, what it may do, for whom, and who is accountable for it.
    pub agent: Agent,
    /// What it is for.
    pub description: Option<String>,
    /// What it authenticates with.
    pub credentials: Vec<CredentialKind>,
}

/// What is to be different of an agent; what is absent stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentChange {
    /// The accountable person.
    pub owner: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// What it may do at most.
    pub actions: Option<BTreeSet<Id<Action>>>,
    /// The tenants it may work for.
    pub tenants: Option<BTreeSet<Id<Tenant>>>,
    /// Whether it may act.
    pub status: Option<AgentStatus>,
}

/// Which agents to list.
#[derive(Debug, Clone, Default)]
pub struct AgentFilter {
    /// Only those in this status.
    pub status: Option<AgentStatus>,
    /// Only those this person is accountable for.
    pub owner: Option<String>,
    /// Only those that may work for this tenant.
    pub tenant: Option<Id<Tenant>>,
}

impl Store {
    /// The agent that `issuer` calls `id`, in whatever status it is.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn agent(&self, issuer: &str, id: &Id<Principal>) -> Result<Option<Registration>, StoreError> {
        Ok(self.read_agent(issuer, id).await?.map(|(registration, _)| registration))
    }

    /// The same, with where it stands so.
    pub(crate) async fn read_agent(
        &self,
        issuer: &str,
        id: &Id<Principal>,
    ) -> Result<Option<(Registration, Place)>, StoreError> {
        // One statement, so that the position and the row are of one moment.
        let sql = format!(
            "SELECT {}, head.position, head.generation FROM agents JOIN head ON head.id = 1 \
             WHERE agents.issuer = $1 AND agents.id = $2",
            qualified("agents", COLUMNS)
        );
        let rows = self.engine.rows("reading an agent", sql, vec![issuer.into(), id.into()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let place = Place { position: row.position(11)?, generation: row.text(12)? };
        Ok(Some((Registration { as_of: place.position, ..read(row)? }, place)))
    }

    /// Agents, the oldest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn agents(&self, filter: &AgentFilter, page: Page) -> Result<Listed<Registration>, StoreError> {
        let status = filter.status.map(|status| Value::word(&status)).transpose()?;
        // As JSON: the quotes belong to the name.
        let tenant = filter.tenant.as_ref().map(Value::json).transpose()?;
        Select::new(COLUMNS, "agents", page)
            .only("status = $$", status)
            .only("owner = $$", filter.owner.as_deref())
            .only("replace(tenants, $$, '') <> tenants", tenant)
            .page(&self.engine, "listing agents", page, read)
            .await
    }

    /// Registers an agent.
    ///
    /// # Errors
    /// When there is one of that name, it has no owner, a credential is none, or the database does not answer.
    pub async fn register_agent(&self, writer: &Writer, new: NewAgent) -> Result<Committed<Registration>, StoreError> {
        check(&new.agent, &new.credentials)?;
        let mut writing = match self.write("registering an agent", writer, &new).await? {
            Begun::Answered(answer) => return Ok(answer),
            Begun::Open(writing) => writing,
        };
        let Agent { id, issuer, .. } = &new.agent;
        if writing.agent(issuer, id).await?.is_some() {
            return Err(StoreError::Conflict(format!("agent {id} of {issuer} is registered already")));
        }
        let registration = new.registration(writer.now)?;
        writing.put_agent(None, &registration).await?;
        writing.commit(registration).await
    }

    /// Changes a registration. What lessens it also withdraws everything issued before.
    ///
    /// # Errors
    /// When there is none of that name, it is decommissioned, the change cannot be meant, or the database does not
    /// answer.
    pub async fn change_agent(
        &self,
        writer: &Writer,
        issuer: &str,
        id: &Id<Principal>,
        change: AgentChange,
    ) -> Result<Committed<Registration>, StoreError> {
        let mut writing = match self.write("changing an agent", writer, &(issuer, id, &change)).await? {
            Begun::Answered(answer) => return Ok(answer),
            Begun::Open(writing) => writing,
        };
        let before = writing.changeable(issuer, id).await?;
        let mut after = before.clone();
        let AgentChange { owner, description, actions, tenants, status } = change;
        after.description = description.or(after.description);
        let agent = &mut after.agent;
        agent.owner = owner.unwrap_or_else(|| agent.owner.clone());
        agent.actions = actions.unwrap_or_else(|| agent.actions.clone());
        agent.tenants = tenants.unwrap_or_else(|| agent.tenants.clone());
        agent.status = status.unwrap_or(agent.status);
        check(agent, &[])?;
        writing.put_agent(Some(&before), &after).await?;
        writing.commit(after).await
    }

    /// Gives an agent another credential. Those it has retire at `retires`, where that is said.
    ///
    /// # Errors
    /// When there is none of that name, it is decommissioned, the credential is none, or the database does not answer.
    pub async fn add_credential(
        &self,
        writer: &Writer,
        (issuer, id): (&str, &Id<Principal>),
        credential: CredentialKind,
        retires: Option<Timestamp>,
    ) -> Result<Committed<Registration>, StoreError> {
        credential.check()?;
        let mut writing = match self.write("adding a credential", writer, &(issuer, id, &credential, retires)).await? {
            Begun::Answered(answer) => return Ok(answer),
            Begun::Open(writing) => writing,
        };
        let before = writing.changeable(issuer, id).await?;
        let mut after = before.clone();
        let credential = Credential::new(credential, writer.now)?;
        after.credentials.retain(|had| had.id != credential.id);
        if let Some(retires) = retires {
            for had in &mut after.credentials {
                had.retires = Some(had.retires.map_or(retires, |earlier| earlier.min(retires)));
            }
        }
        after.credentials.push(credential);
        writing.put_agent(Some(&before), &after).await?;
        writing.commit(after).await
    }

    /// Takes a credential away at once, and withdraws everything issued to the agent before.
    ///
    /// # Errors
    /// When there is none of that name, or the database does not answer.
    pub async fn remove_credential(
        &self,
        writer: &Writer,
        (issuer, id): (&str, &Id<Principal>),
        credential: &str,
    ) -> Result<Committed<Registration>, StoreError> {
        let mut writing = match self.write("removing a credential", writer, &(issuer, id, credential)).await? {
            Begun::Answered(answer) => return Ok(answer),
            Begun::Open(writing) => writing,
        };
        let before = writing.changeable(issuer, id).await?;
        let mut after = before.clone();
        after.credentials.retain(|had| had.id != credential);
        if after.credentials.len() == before.credentials.len() {
            return Err(StoreError::not_found("credential", credential));
        }
        writing.put_agent(Some(&before), &after).await?;
        writing.commit(after).await
    }

    /// Notes that an agent authenticated, at most once a minute. Off the change log.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn agent_seen(&self, registration: &Registration, now: Timestamp) -> Result<(), StoreError> {
        if registration.last_seen.is_some_and(|seen| now.duration_since(seen) < SEEN_EVERY) {
            return Ok(());
        }
        // Before it is: others need not.
        self.kept.seen(registration, now);
        let doing = "noting when an agent was seen";
        let mut transaction = self.engine.begin(doing).await?;
        let Agent { issuer, id, .. } = &registration.agent;
        let sql = "UPDATE agents SET last_seen = $1 WHERE issuer = $2 AND id = $3";
        transaction.execute(doing, sql, vec![now.into(), issuer.as_str().into(), id.into()]).await?;
        transaction.commit(doing).await
    }
}

impl Writing<'_> {
    /// The agent as it stands in this transaction.
    pub(crate) async fn agent(&mut self, issuer: &str, id: &Id<Principal>) -> Result<Option<Registration>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM agents WHERE issuer = $1 AND id = $2");
        let rows = self.rows(sql, vec![issuer.into(), id.into()]).await?;
        rows.first().map(read).transpose()
    }

    async fn changeable(&mut self, issuer: &str, id: &Id<Principal>) -> Result<Registration, StoreError> {
        let found = self.agent(issuer, id).await?.ok_or_else(|| StoreError::not_found("agent", id))?;
        match found.agent.status {
            AgentStatus::Active | AgentStatus::Suspended => Ok(found),
            AgentStatus::Decommissioned => {
                Err(StoreError::Conflict(format!("the agent {id} is decommissioned: nothing changes it any more")))
            }
        }
    }

    /// Writes `after` where `before` stood, if they differ, with what follows of it.
    pub(crate) async fn put_agent(
        &mut self,
        before: Option<&Registration>,
        after: &Registration,
    ) -> Result<(), StoreError> {
        if before == Some(after) {
            return Ok(());
        }
        let Registration { agent, description, credentials, registered, .. } = after;
        let values = vec![
            agent.issuer.as_str().into(),
            (&agent.id).into(),
            Value::position(self.next()),
            registered.to_owned().into(),
            agent.owner.as_str().into(),
            description.as_deref().into(),
            Value::json(&agent.actions)?,
            Value::json(&agent.tenants)?,
            Value::word(&agent.status)?,
            Value::json(credentials)?,
        ];
        let sql = "INSERT INTO agents (issuer, id, created, changed, registered, owner, description, actions, tenants, \
                   status, credentials) VALUES ($1, $2, $3, $3, $4, $5, $6, $7, $8, $9, $10) \
                   ON CONFLICT (issuer, id) DO UPDATE SET changed = excluded.changed, owner = excluded.owner, \
                   description = excluded.description, actions = excluded.actions, tenants = excluded.tenants, \
                   status = excluded.status, credentials = excluded.credentials";
        self.execute(sql, values).await?;
        let Some(before) = before else {
            self.append(&ChangeKind::AgentRegistered(agent.clone()), None).await?;
            return Ok(());
        };
        self.append(&ChangeKind::AgentChanged(agent.clone()), None).await?;
        if let Some(cause) = lessened(before, after) {
            let target = Target::Agent { issuer: agent.issuer.clone(), id: agent.id.clone() };
            self.withdraw(target, cause, None).await?;
        }
        Ok(())
    }
}

/// Whether `after` allows less than `before` in any way.
fn lessened(before: &Registration, after: &Registration) -> Option<Cause> {
    let (was, is) = (&before.agent, &after.agent);
    if was.status == AgentStatus::Active && is.status != AgentStatus::Active
        || is.status == AgentStatus::Decommissioned && was.status != AgentStatus::Decommissioned
    {
        return Some(Cause::Withdrawn);
    }
    let gone = before.credentials.iter().any(|had| after.credentials.iter().all(|has| has.id != had.id));
    let narrower = !was.actions.is_subset(&is.actions) || !was.tenants.is_subset(&is.tenants);
    (narrower || gone).then_some(Cause::Narrowed)
}

fn check(agent: &Agent, credentials: &[CredentialKind]) -> Result<(), StoreError> {
    if agent.owner.trim().is_empty() {
        return Err(StoreError::Invalid(format!("agent {} has no owner", agent.id)));
    }
    if agent.actions.is_empty() || agent.tenants.is_empty() {
        return Err(StoreError::Invalid(format!("agent {} has no actions, or no tenants", agent.id)));
    }
    credentials.iter().try_for_each(CredentialKind::check)
}

impl NewAgent {
    pub(crate) fn registration(self, now: Timestamp) -> Result<Registration, StoreError> {
        let Self { agent, description, credentials } = self;
        let credentials = credentials.into_iter().map(|it| Credential::new(it, now)).collect::<Result<_, _>>()?;
        Ok(Registration { agent, description, credentials, registered: now, last_seen: None, as_of: 0 })
    }
}

impl Registration {
    /// The JWKS documents (RFC 7517 §5) whose keys it authenticates with at `now`, as JSON text.
    ///
    /// # Errors
    /// When a file cannot be read or is no JWKS.
    pub async fn jwks(&self, now: Timestamp) -> Result<Vec<String>, StoreError> {
        let mut documents = Vec::with_capacity(self.credentials.len());
        for credential in self.credentials.iter().filter(|it| it.retires.is_none_or(|retires| now < retires)) {
            match &credential.is {
                CredentialKind::Jwks(jwks) => documents.push(jwks.to_string()),
                CredentialKind::JwksFile(path) => {
                    documents.push(read_jwks(path).await.map_err(|cause| StoreError::Keys {
                        agent: self.agent.id.to_string(),
                        path: path.clone(),
                        cause,
                    })?);
                }
                CredentialKind::Spiffe(_) | CredentialKind::Subject(_) => {}
            }
        }
        Ok(documents)
    }
}

impl Credential {
    /// Named by what it is: the same key twice is one credential.
    pub(crate) fn new(is: CredentialKind, now: Timestamp) -> Result<Self, StoreError> {
        let text = serde_json::to_vec(&is).map_err(StoreError::unwritable)?;
        let mut id = digest::hex(&text);
        id.truncate(16);
        Ok(Self { id, is, added: now, retires: None })
    }
}

impl CredentialKind {
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match self {
            Self::Jwks(jwks) => check_jwks(jwks).map_err(StoreError::Invalid),
            // Only declarations, which an operator writes, name files.
            Self::JwksFile(_) => Err(StoreError::Invalid("a file can be named in declarations only".to_owned())),
            Self::Spiffe(id) if net::peer::is_spiffe_id(id.strip_suffix("/*").unwrap_or(id)) => Ok(()),
            Self::Spiffe(_) => Err(StoreError::Invalid(
                "a SPIFFE ID is spiffe://TRUST-DOMAIN/PATH, and one for several instances ends in /*".to_owned(),
            )),
            Self::Subject(name) if name.contains('=') && name.len() <= MAX_SUBJECT_BYTES => Ok(()),
            Self::Subject(_) => Err(StoreError::Invalid("a subject is written as in `CN=support, O=acme`".to_owned())),
        }
    }
}

/// A JWKS file's text, checked.
pub(crate) async fn read_jwks(path: &Path) -> Result<String, String> {
    let bytes = tokio::fs::read(path).await.map_err(|error| error.to_string())?;
    if bytes.len() > MAX_JWKS_BYTES {
        return Err(format!("it is larger than {MAX_JWKS_BYTES} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    let json = model::json::Json::parse(text.as_bytes()).map_err(|error| error.to_string())?;
    check_jwks(&json.to_serde())?;
    Ok(text)
}

/// Whether `jwks` is a set of public keys. A private key in a registration is a leak that somebody has to hear of.
pub(crate) fn check_jwks(jwks: &serde_json::Value) -> Result<(), String> {
    let keys =
        jwks.get("keys").and_then(serde_json::Value::as_array).ok_or("a JWKS is an object with an array `keys`")?;
    if keys.is_empty() {
        return Err("the JWKS has no keys".to_owned());
    }
    for key in keys {
        if key.get("kty").and_then(serde_json::Value::as_str).is_none() {
            return Err("a key of the JWKS has no `kty`".to_owned());
        }
        if ["d", "k", "p", "q"].iter().any(|secret| key.get(secret).is_some()) {
            return Err("the JWKS holds a private or shared key: register the public key only".to_owned());
        }
    }
    Ok(())
}

fn read(row: &Row) -> Result<Registration, StoreError> {
    let agent = Agent {
        issuer: row.text(1)?,
        id: row.word(2)?,
        owner: row.text(3)?,
        actions: row.json(5)?,
        tenants: row.json(6)?,
        status: row.word(7)?,
    };
    Ok(Registration {
        agent,
        description: row.optional(4)?,
        credentials: row.json(8)?,
        registered: row.moment(9)?,
        last_seen: row.optional_moment(10)?,
        as_of: 0,
    })
}
