//! What policy is asked where a token is about to be issued (`delegate`), as it is recorded: whole, and beside the line,
//! because it names the user, who started the task, the agent's owner and single resources.

use jiff::Timestamp;
use model::{
    Agent, Authority, Hop, Id, Tenant,
    delegation::{TaskClaims, UserClaims},
    id::Run,
    registry::Grant,
};
use serde::{Deserialize, Serialize};

/// Everything that is asked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuing {
    /// Everybody who holds what is passed on, the user first. Whoever passes it on is the last.
    pub chain: Vec<Hop>,
    /// Whom it is for.
    pub to: Agent,
    /// What it would allow: what was asked for, within everything that limits it but policy.
    pub requested: Authority,
    /// The task.
    pub task: TaskClaims,
    /// The run.
    pub run: Id<Run>,
    /// The grant.
    pub grant: Grant,
    /// What is known of the user.
    pub user: UserClaims,
    /// The tenant.
    pub tenant: Id<Tenant>,
    /// When it would end.
    pub expires_at: Timestamp,
    /// The moment.
    pub now: Timestamp,
}

/// The same as it is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrittenIssuing {
    chain: Vec<Hop>,
    to: Agent,
    requested: Authority,
    task: TaskClaims,
    run: Id<Run>,
    grant: Grant,
    user: UserClaims,
    /// Text, because an issuer may send what JSON cannot carry exactly. In `user` it is null.
    auth_time: Option<String>,
    tenant: Id<Tenant>,
    expires_at: Timestamp,
    now: Timestamp,
}

impl From<&Issuing> for WrittenIssuing {
    fn from(issuing: &Issuing) -> Self {
        let Issuing { chain, to, requested, task, run, grant, user, tenant, expires_at, now } = issuing.clone();
        let auth_time = user.auth_time.map(|seconds| seconds.to_string());
        let user = UserClaims { auth_time: None, ..user };
        Self { chain, to, requested, task, run, grant, user, auth_time, tenant, expires_at, now }
    }
}

impl WrittenIssuing {
    pub(crate) fn read(self) -> Result<Issuing, String> {
        let Self { chain, to, requested, task, run, grant, user, auth_time, tenant, expires_at, now } = self;
        let auth_time = auth_time.map(|text| text.parse()).transpose().map_err(|_| "auth_time".to_owned())?;
        let user = UserClaims { auth_time, ..user };
        Ok(Issuing { chain, to, requested, task, run, grant, user, tenant, expires_at, now })
    }
}
