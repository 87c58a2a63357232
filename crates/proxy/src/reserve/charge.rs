//! What one call took, and what becomes of it: spent once the call may have reached the tool, given back to its slice
//! when it provably did not. Dropped without a word it was not sent.
//!
//! Where the authority knows of the charge, a call at another sidecar may go on it: it is given back only once the
//! authority says that none does, and while it is not known what the authority knows, it is spent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use audit::record::{ChargeFate, Charged, ChargedLimit, Outcome};
use model::{Id, id::DecisionMark};
use store::remote::charges::{ChargeRequest, ChargedTo};

use super::{once::Told, slices::Slice};

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
    /// Who tells the authority of it, where it is told.
    told: Option<Told>,
    using: Mutex<Using>,
}

#[derive(Debug)]
struct Using {
    /// How many calls go on that are charged by it.
    calls: usize,
    /// Whether one of them may have reached the tool, or calls elsewhere may go on it.
    kept: bool,
    known: Known,
    parts: Vec<Part>,
}

/// Who knows of a charge.
#[derive(Debug)]
enum Known {
    /// Nobody else.
    Here,
    /// That is being found out.
    Asked,
    /// The authority: a call elsewhere may go on it.
    There,
    /// Perhaps the authority: it did not say.
    Unsaid,
    /// Nobody has to: the same call was charged elsewhere, for this decision.
    Elsewhere(Id<DecisionMark>),
}

/// What was taken of one slice. Dropped it goes back.
#[derive(Debug)]
pub(super) struct Part {
    slice: Option<Arc<Slice>>,
    units: u64,
    limit: ChargedLimit,
}

/// A charge that calls elsewhere may go on, until the authority says that none does. Dropped it is spent.
#[derive(Debug)]
pub(super) struct Bound {
    /// What the authority was told.
    pub(super) request: ChargeRequest,
    parts: Vec<Part>,
}

/// That the authority is asked about a charge. Dropped without an answer, what it knows is not known.
#[derive(Debug)]
#[must_use = "a charge that nobody asks about stays as it is for ever"]
pub(super) struct Asked {
    held: Arc<Held>,
    answered: bool,
}

impl Part {
    pub(super) fn new(slice: &Arc<Slice>, units: u64, limit: ChargedLimit) -> Self {
        Self { slice: Some(Arc::clone(slice)), units, limit }
    }

    pub(super) fn slice(&self) -> Option<&Arc<Slice>> {
        self.slice.as_ref()
    }

    /// What the authority is told of it.
    pub(super) fn told(&self) -> Option<ChargedTo> {
        self.slice().map(|slice| slice.charged(self.units))
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

impl Bound {
    /// Nobody goes on it.
    pub(super) fn give_back(mut self) {
        self.parts.clear();
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.parts.drain(..).for_each(Part::spend);
    }
}

impl Held {
    pub(super) fn new(id: &Id<DecisionMark>, parts: Vec<Part>, told: Option<Told>) -> Arc<Self> {
        let limits = parts.iter().map(|part| part.limit.clone()).collect();
        let known = if told.is_some() { Known::Asked } else { Known::Here };
        let using = Using { calls: 0, kept: false, known, parts };
        Arc::new(Self { id: id.clone(), limits, told, using: Mutex::new(using) })
    }

    /// What was charged elsewhere, for `decision`.
    pub(super) fn elsewhere(decision: Id<DecisionMark>) -> Arc<Self> {
        let using = Using { calls: 0, kept: true, known: Known::Elsewhere(decision.clone()), parts: Vec::new() };
        Arc::new(Self { id: decision, limits: Vec::new(), told: None, using: Mutex::new(using) })
    }

    fn using(&self) -> MutexGuard<'_, Using> {
        self.using.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The charge of one call; `None` where everything went back already.
    pub(super) fn charge(self: &Arc<Self>, repeats: bool) -> Option<Charge> {
        let mut using = self.using();
        let gone = using.calls == 0 && !using.kept && !matches!(using.known, Known::Asked);
        if repeats && gone {
            return None;
        }
        using.calls += 1;
        Some(Charge { held: Some(Arc::clone(self)), repeats, kept: false })
    }

    /// That the authority is asked about it, where it is to be told.
    pub(super) fn asked(self: &Arc<Self>) -> Option<Asked> {
        self.told.as_ref().map(|_| Asked { held: Arc::clone(self), answered: false })
    }

    /// Does with what was taken what is known of it now.
    fn settle(&self, mut using: MutexGuard<'_, Using>) {
        match using.known {
            // The answer says.
            Known::Asked => {}
            Known::Elsewhere(_) => using.parts.clear(),
            _ if using.kept => using.parts.drain(..).for_each(Part::spend),
            _ if using.calls > 0 => {}
            Known::There => {
                let parts = std::mem::take(&mut using.parts);
                drop(using);
                if let Some(told) = self.told.as_ref().filter(|_| !parts.is_empty()) {
                    told.release(Bound { request: told.request.clone(), parts });
                }
            }
            Known::Here | Known::Unsaid => using.parts.clear(),
        }
    }
}

impl Asked {
    /// What the authority is told.
    pub(super) fn request(&self) -> Option<&ChargeRequest> {
        self.held.told.as_ref().map(|told| &told.request)
    }

    /// The authority did not hear of it, and will not.
    pub(super) fn untold(mut self) {
        self.becomes(Known::Here, false);
    }

    /// The authority says that the call was charged for `decision`. Whether that is this one.
    pub(super) fn charged(mut self, decision: &Id<DecisionMark>) -> bool {
        let own = *decision == self.held.id;
        if own {
            self.becomes(Known::There, false);
        } else {
            self.becomes(Known::Elsewhere(decision.clone()), true);
        }
        own
    }

    fn becomes(&mut self, known: Known, kept: bool) {
        self.answered = true;
        let mut using = self.held.using();
        using.known = known;
        using.kept |= kept;
        self.held.settle(using);
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.answered {
            self.becomes(Known::Unsaid, true);
        }
    }
}

impl Charge {
    /// What the record of the decision says of it.
    pub(crate) fn record(&self) -> Option<Charged> {
        let held = self.held.as_ref()?;
        if let Known::Elsewhere(decision) = &held.using().known {
            return Some(Charged { limits: Vec::new(), repeats: Some(decision.clone()) });
        }
        Some(match self.repeats {
            true => Charged { limits: Vec::new(), repeats: Some(held.id.clone()) },
            false => Charged { limits: held.limits.clone(), repeats: None },
        })
    }

    /// The call came to its end: `sent` unless it provably did not reach the tool. Returns what the record of that says.
    pub(crate) fn settle(mut self, sent: bool, outcome: Outcome) -> Option<ChargeFate> {
        let held = self.held.as_ref()?;
        self.kept = sent;
        let stays = !self.repeats && matches!(held.using().known, Known::Unsaid);
        Some(match (sent, outcome) {
            (false, _) if stays => ChargeFate::Kept,
            (false, _) => ChargeFate::Released,
            (true, Outcome::Completed) => ChargeFate::Confirmed,
            (true, _) => ChargeFate::Kept,
        })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        let mut using = held.using();
        using.calls = using.calls.saturating_sub(1);
        using.kept |= self.kept;
        held.settle(using);
    }
}
