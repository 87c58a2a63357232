//! What one call took, and what becomes of it: spent once the call may have reached the tool, given back to its slice
//! when it provably did not. Dropped without a word it was not sent.

use std::sync::{Arc, Mutex, PoisonError};

use audit::record::{ChargeFate, Charged, ChargedLimit, Outcome};
use model::{Id, id::DecisionMark};

use super::slices::Slice;

/// What a call is charged; mostly nothing.
#[derive(Debug, Default)]
pub(crate) struct Charge {
    held: Option<Arc<Held>>,
    /// Whether another call with the same idempotency key was charged.
    repeats: bool,
    kept: bool,
}

/// What was taken together, for one call and whoever repeats it.
#[derive(Debug)]
pub(super) struct Held {
    /// The call that it was taken for.
    id: Id<DecisionMark>,
    limits: Vec<ChargedLimit>,
    using: Mutex<Using>,
}

#[derive(Debug)]
struct Using {
    /// How many calls go on that are charged by it.
    calls: usize,
    /// Whether one of them may have reached the tool.
    kept: bool,
    parts: Vec<Part>,
}

/// What was taken of one slice. Dropped it goes back.
#[derive(Debug)]
pub(super) struct Part {
    slice: Option<Arc<Slice>>,
    units: u64,
    limit: ChargedLimit,
}

impl Part {
    pub(super) fn new(slice: &Arc<Slice>, units: u64, limit: ChargedLimit) -> Self {
        Self { slice: Some(Arc::clone(slice)), units, limit }
    }

    pub(super) fn slice(&self) -> Option<&Arc<Slice>> {
        self.slice.as_ref()
    }

    /// It is spent, for good.
    fn spend(mut self) {
        self.slice = None;
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(slice) = self.slice.take() {
            slice.release(self.units);
        }
    }
}

impl Held {
    pub(super) fn new(id: &Id<DecisionMark>, parts: Vec<Part>) -> Arc<Self> {
        let limits = parts.iter().map(|part| part.limit.clone()).collect();
        Arc::new(Self { id: id.clone(), limits, using: Mutex::new(Using { calls: 0, kept: false, parts }) })
    }

    /// The charge of one call; `None` where everything went back already.
    pub(super) fn charge(self: &Arc<Self>, repeats: bool) -> Option<Charge> {
        let mut using = self.using.lock().unwrap_or_else(PoisonError::into_inner);
        if repeats && using.calls == 0 && !using.kept {
            return None;
        }
        using.calls += 1;
        Some(Charge { held: Some(Arc::clone(self)), repeats, kept: false })
    }
}

impl Charge {
    /// What the record of the decision says of it.
    pub(crate) fn record(&self) -> Option<Charged> {
        let held = self.held.as_ref()?;
        Some(match self.repeats {
            true => Charged { limits: Vec::new(), repeats: Some(held.id.clone()) },
            false => Charged { limits: held.limits.clone(), repeats: None },
        })
    }

    /// The call came to its end: `sent` unless it provably did not reach the tool. Returns what the record of that says.
    pub(crate) fn settle(mut self, sent: bool, outcome: Outcome) -> Option<ChargeFate> {
        self.held.as_ref()?;
        self.kept = sent;
        Some(match (sent, outcome) {
            (false, _) => ChargeFate::Released,
            (true, Outcome::Completed) => ChargeFate::Confirmed,
            (true, _) => ChargeFate::Kept,
        })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        let mut using = held.using.lock().unwrap_or_else(PoisonError::into_inner);
        using.calls = using.calls.saturating_sub(1);
        using.kept |= self.kept;
        if using.kept {
            using.parts.drain(..).for_each(Part::spend);
        } else if using.calls == 0 {
            using.parts.clear();
        }
    }
}
