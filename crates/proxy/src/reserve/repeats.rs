//! Which calls were charged already, as far as this sidecar knows: a call that is sent again under the same idempotency
//! key, and is the same to the last byte, is charged once. What is not remembered the authority is asked about (`once`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::digest::{Context, SHA256};
use jiff::Timestamp;
use model::{Id, id::DecisionMark};

use super::{
    charge::{Asked, Charge, Held, Part},
    once::Told,
};
use crate::{approve::Permit, resolve::CallBody};

/// The most calls that are remembered.
const MAX_REMEMBERED: usize = 65_536;
/// The longest that one is remembered; tools remember keys no longer either.
const LONGEST: Duration = Duration::from_hours(24);

/// How often those are looked for that need not be remembered any more, where there is no room: each look is at all.
const LOOKS: Duration = Duration::from_secs(1);

/// A call under its idempotency key.
pub(super) type Repeat = [u8; 32];

/// The calls that were charged.
#[derive(Debug, Default)]
pub(super) struct Repeats(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    calls: HashMap<Repeat, Remembered>,
    /// When it was last looked for room, by [`net::clock::boottime`].
    looked: Option<Duration>,
}

#[derive(Debug)]
struct Remembered {
    held: Arc<Held>,
    /// By [`net::clock::boottime`].
    until: Duration,
}

impl Repeats {
    /// The charge of a call that was charged before.
    pub(super) fn join(&self, repeat: &Repeat, boottime: Duration) -> Option<Charge> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.calls.get(repeat).filter(|known| boottime < known.until)?.held.charge(true)
    }

    /// The charge of a call that `parts` were taken for. Where the same call was charged meanwhile, it is that charge, and
    /// `parts` go back. Otherwise the authority is to be asked, where `repeat` says who tells it.
    pub(super) fn charge(
        &self,
        id: &Id<DecisionMark>,
        parts: Vec<Part>,
        repeat: Option<(Repeat, Told)>,
        now: Timestamp,
    ) -> (Charge, Option<Asked>) {
        let ends = parts.iter().filter_map(Part::slice).map(|slice| slice.period.ends).min();
        let lasts = ends.and_then(|ends| Duration::try_from(ends.duration_since(now)).ok()).unwrap_or_default();
        let (repeat, told) = repeat.unzip();
        let held = Held::new(id, parts, told);
        // In use before anybody can find it.
        let charge = held.charge(false).unwrap_or_default();
        if let Some(repeat) = repeat {
            let boottime = net::clock::boottime();
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let before = known.calls.get(&repeat).filter(|known| boottime < known.until);
            if let Some(earlier) = before.and_then(|known| known.held.charge(true)) {
                return (earlier, None);
            }
            if known.has_room(boottime) {
                let until = boottime + lasts.min(LONGEST);
                known.calls.insert(repeat, Remembered { held: Arc::clone(&held), until });
            }
        }
        (charge, held.asked())
    }

    /// The charge of a call that was charged elsewhere, for `decision`; which is known for so long.
    pub(super) fn elsewhere(&self, repeat: &Repeat, decision: Id<DecisionMark>, lasts: Duration) -> Option<Charge> {
        let held = Held::elsewhere(decision);
        let boottime = net::clock::boottime();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.has_room(boottime) {
            let until = boottime + lasts.min(LONGEST);
            known.calls.insert(*repeat, Remembered { held: Arc::clone(&held), until });
        }
        held.charge(true)
    }

    /// A call is known for no longer than this from now on.
    pub(super) fn lasts(&self, repeat: &Repeat, lasts: Duration) {
        let until = net::clock::boottime() + lasts;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(remembered) = known.calls.get_mut(repeat) {
            remembered.until = remembered.until.min(until);
        }
    }
}

impl Known {
    /// Whether another call can be remembered.
    fn has_room(&mut self, boottime: Duration) -> bool {
        let full = self.calls.len() >= MAX_REMEMBERED;
        if full && self.looked.is_none_or(|looked| boottime.saturating_sub(looked) >= LOOKS) {
            self.looked = Some(boottime);
            self.calls.retain(|_, known| boottime < known.until);
        }
        self.calls.len() < MAX_REMEMBERED
    }
}

/// What makes a call the same one again: who, under which grant, what, and every byte of it. `None` where it has no key,
/// or its body streams by unseen.
pub(super) fn digest(permit: &Permit<'_>) -> Option<Repeat> {
    let call = permit.call();
    let key = call.idempotency.as_deref()?;
    let CallBody::Read(body) = &call.outgoing.body else { return None };
    let delegation = &permit.question().delegation;
    let parameters = serde_json::to_vec(&call.facts.parameters).ok()?;
    let chain: Vec<String> = delegation.chain.hops().map(|hop| hop.principal.to_string()).collect();
    let issuers: Vec<&str> = delegation.chain.hops().map(|hop| hop.principal.issuer.as_str()).collect();
    let fixed = [
        key.as_bytes(),
        delegation.tenant.as_str().as_bytes(),
        delegation.token.issuer.as_bytes(),
        delegation.grant.as_ref().map(Id::as_str).unwrap_or_default().as_bytes(),
        call.facts.tool.as_str().as_bytes(),
        call.facts.action.as_str().as_bytes(),
        call.outgoing.method.as_str().as_bytes(),
        call.outgoing.path.as_str().as_bytes(),
        call.outgoing.query.as_deref().unwrap_or_default().as_bytes(),
        parameters.as_slice(),
        body.as_ref(),
    ];
    let mut digest = Context::new(&SHA256);
    let parts =
        fixed.into_iter().chain(chain.iter().map(String::as_bytes)).chain(issuers.into_iter().map(str::as_bytes));
    for part in parts {
        digest.update(&(part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finish().as_ref().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_is_no_room_it_is_looked_for_at_most_once_a_second() {
        let held = Held::new(&Id::new("call").unwrap(), Vec::new(), None);
        let mut known = Known::default();
        let second = Duration::from_secs(1);
        for number in 0..MAX_REMEMBERED {
            let mut repeat = [0; 32];
            repeat[..8].copy_from_slice(&number.to_be_bytes());
            assert!(known.has_room(second));
            known.calls.insert(repeat, Remembered { held: Arc::clone(&held), until: 11 * second });
        }
        assert!(!known.has_room(10 * second));
        assert!(!known.has_room(11 * second - Duration::from_nanos(1)), "they are remembered for as long as was said");
        assert!(known.has_room(11 * second), "and the next look makes room");
        assert!(known.calls.is_empty());
    }
}
