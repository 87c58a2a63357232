//! Which actions are only observed, and which tools' calls are passed through, as the ledger and the status tell it: a change of mode is on record before the first
//! call that it is about.

use std::collections::BTreeSet;

use audit::{
    Event,
    record::{Mode, ModeChanged},
};
use model::{Action, Id, Tool};
use proxy::{Observation, Observations, Passthrough, config::UnmappedConfig};

use crate::admin::status::{ObservedStatus, PassthroughStatus};

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
    begun.chain(ended).chain(passed(before, after, now)).map(Event::ModeChanged).collect()
}

/// The same of whole tools.
fn passed(before: &Observations, after: &Observations, now: jiff::Timestamp) -> Vec<ModeChanged> {
    let is_in = |all: &Observations, tool: &Id<Tool>, like: Option<&Passthrough>| {
        all.passed().any(|(name, known)| name == tool && like.is_none_or(|like| like == known))
    };
    let one = |tool: &Id<Tool>, passthrough: Option<&Passthrough>| ModeChanged {
        tool: tool.clone(),
        action: None,
        mode: if passthrough.is_some() { Mode::Passthrough } else { Mode::Enforce },
        owner: passthrough.map(|passthrough| passthrough.owner.clone()),
        until: passthrough.map(|passthrough| passthrough.until),
        except: passthrough.map(|passthrough| passthrough.except.clone()).unwrap_or_default(),
    };
    let begun = after.passed().filter(|(tool, passthrough)| !is_in(before, tool, Some(passthrough)));
    let begun = begun.map(|(tool, passthrough)| one(tool, Some(passthrough).filter(|one| now < one.until)));
    let ended = before.passed().filter(|(tool, _)| !is_in(after, tool, None)).map(|(tool, _)| one(tool, None));
    begun.chain(ended).collect()
}

fn changed(action: &Id<Action>, observation: &Observation, mode: Mode) -> ModeChanged {
    let observed = mode == Mode::Observe;
    ModeChanged {
        tool: observation.tool.clone(),
        action: Some(action.clone()),
        mode,
        owner: observed.then(|| observation.owner.clone()),
        until: observed.then_some(observation.until),
        except: BTreeSet::new(),
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
        rung: Mode::Observe.rung(),
    };
    observed.iter().map(one).collect()
}

/// The same of the tools whose calls are passed through.
pub(super) fn passing(observed: &Observations, now: jiff::Timestamp) -> Vec<PassthroughStatus> {
    let one = |(tool, passthrough): (&Id<Tool>, &Passthrough)| PassthroughStatus {
        tool: tool.to_string(),
        owner: passthrough.owner.clone(),
        until: passthrough.until,
        ended: now >= passthrough.until,
        rung: Mode::Passthrough.rung(),
        agent: passthrough.agent.as_ref().map(ToString::to_string),
        except: passthrough.except.iter().map(ToString::to_string).collect(),
        unmapped: passthrough.unmapped == UnmappedConfig::Pass,
    };
    observed.passed().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passing(until: &str) -> Observations {
        let tool = serde_json::json!({
            "at": "/orders", "upstream": "https://orders.example", "credential": "none",
            "passthrough": { "owner": "dana@acme.example", "until": until },
        });
        let tools = [(Id::new("orders").unwrap(), serde_json::from_value(tool).unwrap())].into();
        proxy::resolve_tools(&tools, &[Id::new("acme").unwrap()].into(), &|_| None).unwrap().observed
    }

    #[test]
    fn a_tool_that_is_passed_through_is_told_once_and_so_is_its_end() {
        let (none, over) = (Observations::default(), passing("2026-01-01T00:00:00Z"));
        let at = |now: &str| now.parse().unwrap();
        let told = |before: &Observations, after: &Observations, now: &str| -> Vec<(Mode, bool)> {
            let changes = changes(before, after, at(now)).into_iter();
            let change = |event| match event {
                Event::ModeChanged(changed) => (changed.mode, changed.owner.is_some() && changed.action.is_none()),
                other => panic!("{other:?}"),
            };
            changes.map(change).collect()
        };
        assert_eq!(told(&none, &over, "2025-12-31T00:00:00Z"), [(Mode::Passthrough, true)]);
        assert_eq!(told(&over, &over, "2025-12-31T00:00:00Z"), []);
        assert_eq!(told(&over, &none, "2025-12-31T00:00:00Z"), [(Mode::Enforce, false)]);
        assert_eq!(told(&none, &over, "2026-01-01T00:00:00Z"), [(Mode::Enforce, false)]);
        let status = super::passing(&over, at("2026-01-01T00:00:00Z"));
        assert!(matches!(&status[..], [one] if one.ended && one.rung == 0 && one.tool == "orders"), "{status:?}");
    }
}
