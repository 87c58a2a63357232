//! What Rego says: the versioned input, the packages and who may write in them, the checks a policy has to pass
//! before it may decide, and the decision itself (DESIGN §5.2). No clock; the only IO is reading policy files when they are
//! loaded and asking servers for bundles (`refresh`), the only state the decisions an engine remembers.
//!
//! The engine is regorus's interpreter with strict builtin errors. Its bytecode VM swallows errors inside rule
//! bodies and must never decide.

pub mod bundle;
pub mod candidate;
pub mod cases;
pub mod catalogue;
pub mod config;
pub mod coverage;
pub mod engine;
pub mod input;
pub mod library;
pub mod refresh;
pub mod replay;
pub mod test;

mod check;
mod decide;
mod dispatch;
mod error;
mod member;
mod obligation;
mod roots;
mod steering;

#[cfg(test)]
#[path = "../benches/fixture.rs"]
mod fixture;

pub use bundle::Source;
pub use check::check;
pub use config::PolicySource;
pub use coverage::{Explainer, RuleTrace, explained, explained_issuing};
pub use engine::{Bounds, Engine, Known, Written};
pub use error::{End, LoadError, Problem, Severity};
pub use steering::{Ruling, Steering};
