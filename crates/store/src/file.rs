//! The YAML file that declares agents, grants and tasks: how it is written, and what it may not say.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use model::{
    Action, Agent, AgentStatus, Authority, Element, Grant, Id, Presence, Principal, PrincipalKind, Scope, Sensitivity,
    Stage, Task, Tenant, id::Run, registry::TaskStatus,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use crate::{
    agents::{self, CredentialKind, NewAgent},
    error::OpenError,
};

/// The whole file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreFile {
    /// Registered agents.
    #[serde(default)]
    #[schemars(with = "Vec<WrittenAgent>")]
    agents: Vec<Spanned<WrittenAgent>>,
    /// What users allow agents to do.
    #[serde(default)]
    #[schemars(with = "Vec<WrittenGrant>")]
    grants: Vec<Spanned<WrittenGrant>>,
    /// Pieces of work under grants.
    #[serde(default)]
    #[schemars(with = "Vec<WrittenTask>")]
    tasks: Vec<Spanned<WrittenTask>>,
}

/// A registered agent.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WrittenAgent {
    /// Its name: its OAuth `client_id` and the `sub` of its hops.
    id: Id<Principal>,
    /// Whose name it is; this authority's, where absent.
    issuer: Option<String>,
    /// The accountable person. An agent without an owner is not registered.
    owner: String,
    /// What it is for.
    description: Option<String>,
    /// What it may do at most.
    actions: BTreeSet<Id<Action>>,
    /// The tenants it may work for.
    tenants: BTreeSet<Id<Tenant>>,
    /// Whether it may act.
    #[serde(default)]
    status: AgentStatus,
    /// The keys it authenticates with. Several overlap while one replaces the other.
    #[serde(default)]
    credentials: Vec<WrittenCredential>,
}

/// What an agent shows that it is by: public keys, or the name in its client certificate.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WrittenCredential {
    /// A JWKS (RFC 7517 §5) with public keys, written here.
    Jwks(serde_json::Value),
    /// The path of a JWKS file, relative to this one; read again at each use.
    JwksFile(PathBuf),
    /// The SPIFFE ID in its client certificate (an X.509-SVID).
    Spiffe(String),
    /// The subject of its client certificate, as in `CN=support, O=acme`.
    Subject(String),
}

/// A principal by issuer and id.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WrittenPrincipal {
    /// Its `sub` at the issuer.
    id: Id<Principal>,
    /// The issuer; for an agent this authority, where absent.
    issuer: Option<String>,
}

/// A user's standing permission for one agent.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WrittenGrant {
    /// Its name.
    id: Id<Grant>,
    /// The user who gives it.
    user: WrittenPrincipal,
    /// The agent it is for.
    agent: WrittenPrincipal,
    /// The actions by name; all that the elements name, where absent.
    scope: Option<Scope>,
    /// The elements, each of which has to hold a whole call by itself.
    authorization_details: Vec<Element>,
    /// The furthest stage a task under it may have.
    stage: Stage,
    /// When it ends (RFC 3339).
    #[schemars(with = "String")]
    expires: Timestamp,
    /// How many further agents it may be passed on to.
    #[serde(default)]
    redelegate: usize,
    /// Whether tasks may be started under it that go on without the user: `detached`, `owner`.
    #[serde(default)]
    presence: Vec<Presence>,
}

/// One piece of work under a grant.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WrittenTask {
    /// Its name.
    id: Id<Task>,
    /// The grant it is under.
    grant: Id<Grant>,
    /// The run it belongs to.
    run: Id<Run>,
    /// The tenant whose data it touches.
    tenant: Id<Tenant>,
    /// The user's session (`sid`) that it is bound to.
    session: Option<String>,
    /// What it is for.
    use_case: Option<String>,
    /// Who started it.
    initiated_by: String,
    /// How sensitive its data is.
    #[serde(default)]
    sensitivity: Sensitivity,
    /// How far it may go.
    #[serde(default)]
    stage: Stage,
    /// Whether the user is there.
    #[serde(default)]
    presence: Presence,
    /// When it ends by itself (RFC 3339).
    #[schemars(with = "String")]
    expires: Timestamp,
    /// Whether it is still going.
    #[serde(default = "active")]
    status: TaskStatus,
}

const fn active() -> TaskStatus {
    TaskStatus::Active
}

/// An agent's name: issuer and id.
type AgentKey = (String, Id<Principal>);

/// What a file declares, checked.
#[derive(Debug, Clone, Default)]
pub struct Declarations {
    pub(crate) agents: Vec<NewAgent>,
    pub(crate) grants: Vec<DeclaredGrant>,
    pub(crate) tasks: Vec<Task>,
}

/// A grant as it is declared.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, Deserialize)]
pub(crate) struct DeclaredGrant {
    pub(crate) grant: Grant,
    pub(crate) presence: Vec<Presence>,
}

impl Declarations {
    /// Reads the file at `path`. Agents that name no issuer are `issuer`'s own; key files are relative to `path`.
    ///
    /// # Errors
    /// When a file cannot be read or is not what it should be, with line and column.
    pub async fn read(path: &Path, issuer: &str) -> Result<Self, OpenError> {
        let unreadable = |cause| OpenError::Unreadable { path: path.to_owned(), cause };
        let text = tokio::fs::read_to_string(path).await.map_err(unreadable)?;
        StoreFile::parse(&text, path)?.resolve(path, issuer).await
    }
}

impl StoreFile {
    /// Parses `text`; `path` is only for messages.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, OpenError> {
        // Snippets would put file content, which might be a key pasted by mistake, into logs.
        let options = serde_saphyr::options! { with_snippet: false };
        serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let location = error.location().unwrap_or(Location::UNKNOWN);
            let text = error.without_snippet().to_string();
            let problem = text.rsplit_once(" at line ").map_or(text.as_str(), |(problem, _)| problem);
            invalid(path, location, problem.to_owned())
        })
    }

    /// Checks that everything named exists, once, and builds what the store keeps.
    pub(crate) async fn resolve(self, path: &Path, issuer: &str) -> Result<Declarations, OpenError> {
        let mut declared = Declarations::default();
        let mut agents = HashSet::new();
        for Spanned { value, defined, .. } in self.agents {
            let new = value.resolve(path, issuer).await.map_err(|problem| invalid(path, defined, problem))?;
            let key = (new.agent.issuer.clone(), new.agent.id.clone());
            if !agents.insert(key.clone()) {
                return Err(invalid(path, defined, format!("agent {} of {} is registered twice", key.1, key.0)));
            }
            declared.agents.push(new);
        }
        let mut grants = HashMap::new();
        for Spanned { value, defined, .. } in self.grants {
            let new = value.resolve(issuer, &agents).map_err(|problem| invalid(path, defined, problem))?;
            let id = new.grant.id.clone();
            if grants.insert(id.clone(), new.grant.clone()).is_some() {
                return Err(invalid(path, defined, format!("grant {id} is there twice")));
            }
            declared.grants.push(new);
        }
        let mut tasks = HashSet::new();
        for Spanned { value, defined, .. } in self.tasks {
            let task = value.resolve(&grants).map_err(|problem| invalid(path, defined, problem))?;
            if !tasks.insert(task.id.clone()) {
                return Err(invalid(path, defined, format!("task {} is there twice", task.id)));
            }
            declared.tasks.push(task);
        }
        Ok(declared)
    }
}

fn invalid(path: &Path, at: Location, problem: String) -> OpenError {
    OpenError::Invalid { path: path.to_owned(), line: at.line(), column: at.column(), problem }
}

fn checked(agent: &Id<Principal>, credential: CredentialKind) -> Result<CredentialKind, String> {
    credential.check().map_err(|problem| format!("agent {agent}: {problem}"))?;
    Ok(credential)
}

impl WrittenAgent {
    async fn resolve(self, path: &Path, issuer: &str) -> Result<NewAgent, String> {
        let Self { id, issuer: own, owner, description, actions, tenants, status, credentials: written } = self;
        if owner.trim().is_empty() {
            return Err(format!("agent {id} has no owner"));
        }
        let mut credentials = Vec::with_capacity(written.len());
        for credential in written {
            credentials.push(match credential {
                WrittenCredential::Jwks(jwks) => {
                    agents::check_jwks(&jwks).map_err(|problem| format!("agent {id}: {problem}"))?;
                    CredentialKind::Jwks(jwks)
                }
                WrittenCredential::JwksFile(file) => {
                    let file = path.parent().map_or_else(|| file.clone(), |folder| folder.join(&file));
                    agents::read_jwks(&file)
                        .await
                        .map_err(|problem| format!("agent {id}: {}: {problem}", file.display()))?;
                    CredentialKind::JwksFile(file)
                }
                WrittenCredential::Spiffe(name) => checked(&id, CredentialKind::Spiffe(name))?,
                WrittenCredential::Subject(name) => checked(&id, CredentialKind::Subject(name))?,
            });
        }
        let issuer = own.unwrap_or_else(|| issuer.to_owned());
        Ok(NewAgent { agent: Agent { id, issuer, owner, actions, tenants, status }, description, credentials })
    }
}

impl WrittenGrant {
    fn resolve(self, own: &str, agents: &HashSet<AgentKey>) -> Result<DeclaredGrant, String> {
        let id = self.id;
        let user = self.user.issuer.ok_or_else(|| format!("grant {id}: a user has an issuer"))?;
        let user = Principal { kind: PrincipalKind::User, id: self.user.id, issuer: user, tenant: None };
        let agent = (self.agent.issuer.unwrap_or_else(|| own.to_owned()), self.agent.id);
        if !agents.contains(&agent) {
            return Err(format!("grant {id}: agent {} of {} is not registered", agent.1, agent.0));
        }
        let elements = self.authorization_details;
        let named = || elements.iter().flat_map(|element| element.actions.iter().cloned()).collect();
        let authority = Authority { scope: self.scope.unwrap_or_else(named), elements: elements.into() };
        if authority.is_empty() {
            return Err(format!("grant {id} allows nothing: it has no `authorization_details`, or an empty `scope`"));
        }
        let agent = Principal { kind: PrincipalKind::Agent, id: agent.1, issuer: agent.0, tenant: None };
        let (stage, redelegate) = (self.stage, self.redelegate);
        let grant = Grant { id, user, agent, authority, stage, expires_at: self.expires, redelegate };
        Ok(DeclaredGrant { grant, presence: self.presence })
    }
}

impl WrittenTask {
    fn resolve(self, grants: &HashMap<Id<Grant>, Grant>) -> Result<Task, String> {
        let grant =
            grants.get(&self.grant).ok_or_else(|| format!("task {}: there is no grant {}", self.id, self.grant))?;
        if self.stage > grant.stage {
            let (own, ceiling) = (self.stage.as_str(), grant.stage.as_str());
            return Err(format!("task {}: stage {own} is beyond grant {}'s {ceiling}", self.id, grant.id));
        }
        Ok(Task {
            id: self.id,
            grant: self.grant,
            run: self.run,
            tenant: self.tenant,
            session: self.session,
            use_case: self.use_case,
            initiated_by: self.initiated_by,
            sensitivity: self.sensitivity,
            stage: self.stage,
            presence: self.presence,
            expires_at: self.expires,
            status: self.status,
        })
    }
}
