//! Which actions are only observed, as the ledger and the status tell it: a change of mode is on record before the first
//! call that it is about.

use audit::{
    Event,
    record::{Mode, ModeChanged},
};
use model::{Action, Id};
use proxy::{Observation, Observations};

use crate::admin::status::ObservedStatus;

/// What changes with `after` at the moment `now`, where `before` was in force.
pub(super) fn changes(before: &Observations, after: &Observations, now: jiff::Timestamp) -> Vec<Event> {
    let known = |all: &Observations, action: &Id<Action>| all.iter().any(|(name, _)| name == action);
    let is_new = |(action, observation): &(&Id<Action>, &Observation)| {
        !before.iter().any(|(name, known)| name == *action && known == *observation)
    };
    let mode = |observation: &Observation| if now < observation.until { Mode::Observe } else { Mode::Enforce };
    let begun = after.iter().filter(is_new);
    let begun = begun.map(|(action, observation)| changed(action, observation, mode(observation)));
    let ended = before.iter().filter(|(action, _)| !known(after, action));
    let ended = ended.map(|(action, observation)| changed(action, observation, Mode::Enforce));
    begun.chain(ended).map(Event::ModeChanged).collect()
}

fn changed(action: &Id<Action>, observation: &Observation, mode: Mode) -> ModeChanged {
    let observed = mode == Mode::Observe;
    ModeChanged {
        tool: observation.tool.clone(),
        action: action.clone(),
        mode,
        owner: observed.then(|| observation.owner.clone()),
        until: observed.then_some(observation.until),
    }
}

/// What the status says of them at the moment `now`.
pub(super) fn status(observed: &Observations, now: jiff::Timestamp) -> Vec<ObservedStatus> {
    let one = |(action, observation): (&Id<Action>, &Observation)| ObservedStatus {
        tool: observation.tool.to_string(),
        action: action.to_string(),
        owner: observation.owner.clone(),
        until: observation.until,
        ended: now >= observation.until,
    };
    observed.iter().map(one).collect()
}
