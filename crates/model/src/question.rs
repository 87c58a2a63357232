//! Everything a decision depends on, as plain data: what policy is asked, what the ledger keeps, and what a
//! replay puts together again.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Action, Agent, Amount, CanonicalPath, Delegation, Effect, Facts, Id, Parameters, Tool, id::DecisionMark,
    limits::Window,
};

/// One call, as it is decided on. Nothing else enters a decision but the policy itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The decision's id, which is also the call's.
    pub id: Id<DecisionMark>,
    /// The moment of the decision: the only clock that policy sees.
    pub now: Timestamp,
    /// What came in.
    pub request: RequestFacts,
    /// What it was recognised as.
    pub call: Call,
    /// What the token proved.
    pub delegation: Arc<Delegation>,
    /// The calling agent's registration.
    pub agent: Arc<Agent>,
    /// The limits that this call would be charged against, and how they stand.
    pub limits: Vec<LimitState>,
    /// What was read about the resource: every fact that the tool declares, unread leaves null.
    pub facts: Facts,
}

/// The request, as far as policy and the record see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestFacts {
    /// The protocol the agent speaks.
    pub protocol: Protocol,
    /// The HTTP method.
    pub method: String,
    /// The whole canonical path, tool prefix included.
    pub path: CanonicalPath,
    /// The header fields that configuration lists, lower case; never a credential.
    pub headers: BTreeMap<String, String>,
}

/// The protocols an agent may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Plain HTTP.
    Http,
}

/// What a request was recognised as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The tool.
    pub tool: Id<Tool>,
    /// The action.
    pub action: Id<Action>,
    /// What it does.
    pub effect: Effect,
    /// The name of the resource it touches.
    pub resource: String,
    /// Its parameters.
    pub parameters: Parameters,
}

/// A cumulative limit and how it stands before this call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitState {
    /// The limit's name.
    pub name: String,
    /// The most within a window.
    pub max: Amount,
    /// What is used of it; `None` where nobody can say.
    pub used: Option<Amount>,
    /// The window.
    pub window: Window,
    /// The place in the chain of the hop whose limit it is.
    pub hop: usize,
}
