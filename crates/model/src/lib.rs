//! The nouns of Countersign (DESIGN §2): plain data with the laws that hold for it.
//!
//! No IO, no async, no clock: what needs the time takes it as an argument. Modules stand in the order a
//! newcomer should read them: who, what, how much, what was decided.

pub mod id;
pub mod principal;

pub mod canonical;
pub mod json;
pub mod nearest;
pub mod part;
pub mod path;

pub mod amount;
pub mod catalogue;
pub mod duration;
pub mod effect;
pub mod parameter;
pub mod template;

pub mod authority;
pub mod limits;
pub mod pattern;

pub mod chain;
pub mod delegation;
pub mod registry;
pub mod withdrawal;

pub mod decision;
pub mod fact;
pub mod obligation;
pub mod question;
pub mod refusal;

pub use amount::{Amount, Decimal, Money};
pub use authority::{Authority, Demand, Element, Scope};
pub use catalogue::{Action, Catalogue, Tool};
pub use chain::{Chain, Hop};
pub use decision::{Decision, Reason, Verdict};
pub use delegation::Delegation;
pub use effect::{Effect, Presence, Sensitivity, Stage};
pub use fact::{FactValue, Facts};
pub use id::{Id, Tenant};
pub use limits::{Limit, Limits};
pub use obligation::{Duty, Obligation};
pub use parameter::{ParameterKind, ParameterValue, Parameters};
pub use part::Part;
pub use path::CanonicalPath;
pub use pattern::Pattern;
pub use principal::{Principal, PrincipalKind};
pub use question::Question;
pub use refusal::{Code, Refusal, Retry};
pub use registry::{Agent, AgentStatus, Grant, Task};
pub use withdrawal::{Target, Withdrawal};
