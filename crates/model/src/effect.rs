//! What a call does (effect) and how far a task may go (stage), with the few other words a task is described by.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an action does at the tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// It changes nothing.
    Read,
    /// It prepares something that a person still has to send.
    Draft,
    /// It changes something.
    Write,
}

impl Effect {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Draft => "draft",
            Self::Write => "write",
        }
    }
}

/// How far a task may go. The order is the ladder: `Observe < Draft < Supervised`. Where nobody says, the lowest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Only `read`.
    #[default]
    Observe,
    /// `read` and `draft` go; `write` needs approval.
    Draft,
    /// Everything within scope.
    Supervised,
}

/// What a stage says of an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageAnswer {
    /// The stage lets the effect through.
    Goes,
    /// A person has to say yes first.
    NeedsApproval,
    /// The stage does not reach that far.
    Refused,
}

impl Stage {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Draft => "draft",
            Self::Supervised => "supervised",
        }
    }

    /// What this stage says of a call with `effect`.
    pub const fn answer(self, effect: Effect) -> StageAnswer {
        match (self, effect) {
            (Self::Supervised, _) | (_, Effect::Read) | (Self::Draft, Effect::Draft) => StageAnswer::Goes,
            (Self::Draft, Effect::Write) => StageAnswer::NeedsApproval,
            (Self::Observe, Effect::Draft | Effect::Write) => StageAnswer::Refused,
        }
    }
}

/// How sensitive the data of a task is. Where nobody says, `high`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Sensitivity {
    /// Public or harmless.
    Low,
    /// Internal.
    Medium,
    /// Personal, financial or secret; also what an unstated sensitivity counts as.
    #[default]
    High,
}

/// Whether the user is there while the task runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// The user has a live session that the task is bound to.
    #[default]
    Present,
    /// The user started it and left; the grant permits that.
    Detached,
    /// Nobody started it: it runs for its accountable owner.
    Owner,
}
