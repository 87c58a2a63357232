//! Withdrawals: what lessens authority, and the one rule by which a delegation falls under one (P5).
//!
//! Positions are places in the authority's change log. "Everything before" compares positions, never clocks.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::{Code, Delegation, Grant, Id, Principal, Task, Tenant, id::Run};

/// The longest issuer, session, instance or `jti` of a target, in bytes.
pub const MAX_NAME_BYTES: usize = 1024;

/// What a withdrawal takes back: everything issued before it that passes through this.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Target {
    /// A person, whoever acts for them.
    User {
        /// Whose name it is.
        #[serde(deserialize_with = "name")]
        issuer: String,
        /// Their name there.
        id: Id<Principal>,
    },
    /// A user's session at their identity provider.
    Session {
        /// The identity provider.
        #[serde(deserialize_with = "name")]
        issuer: String,
        /// Its name there.
        #[serde(deserialize_with = "name")]
        sid: String,
    },
    /// An agent, wherever it stands in a chain.
    Agent {
        /// Whose name it is.
        #[serde(deserialize_with = "name")]
        issuer: String,
        /// Its name there.
        id: Id<Principal>,
    },
    /// One running copy of an agent.
    Instance {
        /// Whose name the agent's is.
        #[serde(deserialize_with = "name")]
        issuer: String,
        /// The agent.
        agent: Id<Principal>,
        /// The copy.
        #[serde(deserialize_with = "name")]
        instance: String,
    },
    /// A piece of work.
    Task {
        /// Its name.
        id: Id<Task>,
    },
    /// All the work of one run.
    Run {
        /// Its name.
        id: Id<Run>,
    },
    /// A user's standing permission.
    Grant {
        /// Its name.
        id: Id<Grant>,
    },
    /// One token, and every token that was made from it.
    Token {
        /// Who signed it.
        #[serde(deserialize_with = "name")]
        issuer: String,
        /// Its `jti`.
        #[serde(deserialize_with = "name")]
        jti: String,
    },
    /// A whole tenant.
    Tenant {
        /// Its name.
        id: Id<Tenant>,
    },
}

/// One withdrawal, as the authority committed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Withdrawal {
    /// Its name.
    pub id: Id<Self>,
    /// What it takes back.
    pub target: Target,
    /// Its place in the change log.
    pub position: u64,
    /// When it was committed.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// Who made it: a principal as people write it, or the part of the authority that did.
    pub by: String,
    /// Why, for people.
    pub reason: Option<String>,
    /// What kind of change it is.
    #[serde(default)]
    pub cause: Cause,
    /// From when on no token can be good any more that was issued before it: it may then be forgotten.
    #[schemars(with = "String")]
    pub until: Timestamp,
}

/// What kind of change a withdrawal is. All are followed alike; what the agent is told differs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Somebody took it back.
    #[default]
    Withdrawn,
    /// Less of it is left; a new token says how much.
    Narrowed,
    /// It came to its end: the work is done, the session is closed.
    Ended,
}

impl Cause {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Withdrawn => "withdrawn",
            Self::Narrowed => "narrowed",
            Self::Ended => "ended",
        }
    }
}

impl Withdrawal {
    /// Whether `delegation` is taken back: it passes through the target, and was issued before this was committed or
    /// does not say when.
    pub fn covers(&self, delegation: &Delegation) -> bool {
        self.is_later_than(delegation.position) && passages(delegation).any(|passage| passage == self.target.borrowed())
    }

    /// Whether a delegation issued at `position` was issued before this was committed. One that does not say was.
    pub fn is_later_than(&self, position: Option<u64>) -> bool {
        position.is_none_or(|position| position < self.position)
    }

    /// What a call is refused with that this one covers.
    pub const fn code(&self) -> Code {
        match (&self.target, self.cause) {
            (Target::Task { .. }, Cause::Ended) => Code::TaskEnded,
            _ => Code::Withdrawn,
        }
    }
}

/// A target whose parts lie elsewhere: what a chain passes through, without copying it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Passage<'a> {
    /// See [`Target::User`].
    User(&'a str, &'a str),
    /// See [`Target::Session`].
    Session(&'a str, &'a str),
    /// See [`Target::Agent`].
    Agent(&'a str, &'a str),
    /// See [`Target::Instance`].
    Instance(&'a str, &'a str, &'a str),
    /// See [`Target::Task`].
    Task(&'a str),
    /// See [`Target::Run`].
    Run(&'a str),
    /// See [`Target::Grant`].
    Grant(&'a str),
    /// See [`Target::Token`].
    Token(&'a str, &'a str),
    /// See [`Target::Tenant`].
    Tenant(&'a str),
}

/// Everything that `delegation` passes through, any of which may be withdrawn. Some may come twice.
///
/// A `jti` inside the chain does not say who signed that token: it counts for the issuer of the whole and for the
/// issuer of its hop.
pub fn passages(delegation: &Delegation) -> impl Iterator<Item = Passage<'_>> {
    let user = &delegation.chain.user().principal;
    let whole = [
        Some(Passage::Tenant(delegation.tenant.as_str())),
        Some(Passage::User(&user.issuer, user.id.as_str())),
        delegation.session.as_deref().map(|sid| Passage::Session(&user.issuer, sid)),
        delegation.task.id.as_ref().map(|id| Passage::Task(id.as_str())),
        Some(Passage::Run(delegation.run.as_str())),
        delegation.grant.as_ref().map(|id| Passage::Grant(id.as_str())),
        delegation.token.jti.as_deref().map(|jti| Passage::Token(&delegation.token.issuer, jti)),
    ];
    let agents = delegation.chain.agents().flat_map(|hop| {
        let Principal { issuer, id, .. } = &hop.principal;
        let instance = hop.instance.as_deref();
        [
            Some(Passage::Agent(issuer, id.as_str())),
            instance.map(|instance| Passage::Instance(issuer, id.as_str(), instance)),
        ]
    });
    let hops = delegation.chain.hops().flat_map(|hop| {
        let jti = hop.jti.as_deref();
        [
            hop.grant.as_ref().map(|id| Passage::Grant(id.as_str())),
            jti.map(|jti| Passage::Token(&delegation.token.issuer, jti)),
            jti.map(|jti| Passage::Token(&hop.principal.issuer, jti)),
        ]
    });
    whole.into_iter().chain(agents).chain(hops).flatten()
}

impl Target {
    /// The same for comparing with what a chain passes through.
    pub fn borrowed(&self) -> Passage<'_> {
        match self {
            Self::User { issuer, id } => Passage::User(issuer, id.as_str()),
            Self::Session { issuer, sid } => Passage::Session(issuer, sid),
            Self::Agent { issuer, id } => Passage::Agent(issuer, id.as_str()),
            Self::Instance { issuer, agent, instance } => Passage::Instance(issuer, agent.as_str(), instance),
            Self::Task { id } => Passage::Task(id.as_str()),
            Self::Run { id } => Passage::Run(id.as_str()),
            Self::Grant { id } => Passage::Grant(id.as_str()),
            Self::Token { issuer, jti } => Passage::Token(issuer, jti),
            Self::Tenant { id } => Passage::Tenant(id.as_str()),
        }
    }

    /// Its kind, as the text form and metrics have it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::User { .. } => "user",
            Self::Session { .. } => "session",
            Self::Agent { .. } => "agent",
            Self::Instance { .. } => "instance",
            Self::Task { .. } => "task",
            Self::Run { .. } => "run",
            Self::Grant { .. } => "grant",
            Self::Token { .. } => "token",
            Self::Tenant { .. } => "tenant",
        }
    }

    /// Reads the text form. `issuer` is whose name it is where the text does not say: `user:alice`.
    ///
    /// # Errors
    /// When the text is no target, with what would be one.
    pub fn read(text: &str, issuer: Option<&str>) -> Result<Self, InvalidTarget> {
        let (kind, rest) = text.split_once(':').ok_or_else(|| InvalidTarget::Kind(text.to_owned()))?;
        match kind {
            "user" | "session" | "agent" | "token" => Self::read_named(kind, rest, issuer),
            "instance" => Self::read_instance(rest, issuer),
            "task" => Ok(Self::Task { id: id(rest)? }),
            "run" => Ok(Self::Run { id: id(rest)? }),
            "grant" => Ok(Self::Grant { id: id(rest)? }),
            "tenant" => Ok(Self::Tenant { id: id(rest)? }),
            _ => Err(InvalidTarget::Kind(text.to_owned())),
        }
    }

    /// `ISSUER#NAME`, or `NAME`.
    fn read_named(kind: &str, rest: &str, issuer: Option<&str>) -> Result<Self, InvalidTarget> {
        let (issuer, rest) = match rest.split_once('#') {
            Some((issuer, rest)) => (unescaped(issuer), rest),
            None => (issuer.ok_or(InvalidTarget::Issuer)?.to_owned(), rest),
        };
        let issuer = checked(&issuer)?;
        Ok(match kind {
            "user" => Self::User { issuer, id: id(rest)? },
            "agent" => Self::Agent { issuer, id: id(rest)? },
            "session" => Self::Session { issuer, sid: checked(rest)? },
            _ => Self::Token { issuer, jti: checked(rest)? },
        })
    }

    /// `ISSUER#AGENT#INSTANCE`, or `AGENT#INSTANCE`.
    fn read_instance(rest: &str, issuer: Option<&str>) -> Result<Self, InvalidTarget> {
        let (first, rest) = rest.split_once('#').ok_or(InvalidTarget::Instance)?;
        let (issuer, agent, instance) = match rest.split_once('#') {
            Some((agent, instance)) => (unescaped(first), unescaped(agent), instance),
            None => (issuer.ok_or(InvalidTarget::Issuer)?.to_owned(), unescaped(first), rest),
        };
        Ok(Self::Instance { issuer: checked(&issuer)?, agent: id(&agent)?, instance: checked(instance)? })
    }
}

/// Why text is no target.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum InvalidTarget {
    /// It does not begin with a kind.
    #[error(
        "`{0}` is nothing that can be withdrawn: write `task:ID`, `run:ID`, `grant:ID`, `tenant:ID`, or with an issuer `user:ISSUER#ID`, `agent:ISSUER#ID`, `session:ISSUER#SID`, `token:ISSUER#JTI`, `instance:ISSUER#AGENT#INSTANCE`"
    )]
    Kind(String),
    /// It does not say whose name it is.
    #[error("an issuer is missing: write `ISSUER#` before the name")]
    Issuer,
    /// An instance without its agent.
    #[error("an instance is written `instance:ISSUER#AGENT#INSTANCE`")]
    Instance,
    /// The name is none.
    #[error("{0}")]
    Id(#[from] crate::id::InvalidId),
    /// An issuer, session, instance or `jti` that is none.
    #[error("a name has 1 to {MAX_NAME_BYTES} bytes and no control characters")]
    Name,
}

impl fmt::Display for Target {
    /// `task:ticket-12847`, `user:https://sso.example#alice`, `instance:https://a.example#support#pod-3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.kind())?;
        match self.borrowed() {
            Passage::Task(id) | Passage::Run(id) | Passage::Grant(id) | Passage::Tenant(id) => f.write_str(id),
            Passage::User(issuer, name)
            | Passage::Session(issuer, name)
            | Passage::Agent(issuer, name)
            | Passage::Token(issuer, name) => write!(f, "{}#{name}", escaped(issuer)),
            Passage::Instance(issuer, agent, instance) => {
                write!(f, "{}#{}#{instance}", escaped(issuer), escaped(agent))
            }
        }
    }
}

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        Self::read(text, None)
    }
}

fn id<Of>(text: &str) -> Result<Id<Of>, InvalidTarget> {
    Ok(Id::new(text)?)
}

fn checked(text: &str) -> Result<String, InvalidTarget> {
    let good = !text.is_empty() && text.len() <= MAX_NAME_BYTES && !text.chars().any(char::is_control);
    good.then(|| text.to_owned()).ok_or(InvalidTarget::Name)
}

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

/// `#` as `%23`, and a `%` that would be read as the beginning of that, or of itself, as `%25`: an issuer's URL
/// with other escapes stays as people know it.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        match c {
            '#' => out.push_str("%23"),
            '%' if rest.starts_with("%23") || rest.starts_with("%25") => out.push_str("%25"),
            c => out.push(c),
        }
        rest = rest.strip_prefix(c).unwrap_or_default();
    }
    out
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (plain, after) = match (rest.strip_prefix("%23"), rest.strip_prefix("%25")) {
            (Some(after), _) => ('#', after),
            (_, Some(after)) => ('%', after),
            (None, None) => (c, rest.strip_prefix(c).unwrap_or_default()),
        };
        out.push(plain);
        rest = after;
    }
    out
}

#[cfg(test)]
mod tests;
