//! What a call was charged against cumulative limits, and what became of that.

use jiff::Timestamp;
use model::Amount;
use serde::{Deserialize, Serialize};

use super::call::WrittenAmount;

/// What a call was charged, before it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charged {
    /// Limit by limit. None where the call repeats one that was charged.
    pub limits: Vec<ChargedLimit>,
    /// The decision whose charge this one's is, by its idempotency key.
    pub repeats: Option<model::Id<model::id::DecisionMark>>,
}

/// What was charged to one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChargedLimit {
    /// The limit's name.
    pub name: String,
    /// The place in the chain of the hop whose limit it is.
    pub hop: usize,
    /// How much.
    pub amount: Amount,
    /// When the window starts that it is charged to.
    pub starts: Timestamp,
    /// The lease that it was taken from.
    pub lease: String,
}

/// What became of a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChargeFate {
    /// The tool answered: it is spent.
    Confirmed,
    /// The call provably did not reach the tool: it was given back.
    Released,
    /// The call may have reached the tool: it counts as spent.
    Kept,
}

#[derive(Debug, Serialize)]
pub(super) struct WrittenCharge<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    limits: Vec<WrittenChargedLimit<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repeats: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct WrittenChargedLimit<'a> {
    name: &'a str,
    hop: u32,
    amount: WrittenAmount,
    starts: &'a Timestamp,
    lease: &'a str,
}

impl<'a> From<&'a Charged> for WrittenCharge<'a> {
    fn from(charged: &'a Charged) -> Self {
        let limits = charged.limits.iter().map(|limit| WrittenChargedLimit {
            name: &limit.name,
            hop: u32::try_from(limit.hop).unwrap_or(u32::MAX),
            amount: WrittenAmount::from(&limit.amount),
            starts: &limit.starts,
            lease: &limit.lease,
        });
        Self { limits: limits.collect(), repeats: charged.repeats.as_ref().map(model::Id::as_str) }
    }
}
