//! What a pipeline does not let pass: `--fail-on new-denials:refunds.create`.

use std::{collections::BTreeSet, str::FromStr};

use model::{Action, Id};
use policy::replay::{Change, Tally};

/// One `--fail-on`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailOn {
    named: String,
    what: What,
    /// Of these actions; of all, where none is named.
    actions: BTreeSet<Id<Action>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Changes(&'static [Change]),
    NotReplayable,
}

impl FailOn {
    /// The actions that it names.
    pub(crate) fn actions(&self) -> impl Iterator<Item = &Id<Action>> {
        self.actions.iter()
    }

    /// Whether it is about decisions that cannot be made again.
    pub(crate) fn is_not_replayable(&self) -> bool {
        self.what == What::NotReplayable
    }

    /// What of it `tally` has, said for a person.
    fn met(&self, tally: &Tally) -> Option<String> {
        let count = match self.what {
            What::Changes(changes) => tally.changed(changes, &self.actions),
            What::NotReplayable => tally.not_replayable.decisions,
        };
        (count > 0).then(|| format!("{}: {count}", self.named))
    }
}

/// What `tally` has of what is `wanted`, said for a person. What finds nothing because it looked at nothing would let
/// everything pass: then it is said that no `what`. Where only some actions can have been found, they are `known`: one that
/// is not among them is misspelt or did not come by, and shows nothing either.
pub(crate) fn failed(
    wanted: &[FailOn],
    tally: &Tally,
    known: Option<&BTreeSet<&Id<Action>>>,
    what: &str,
) -> Vec<String> {
    let mut failed = Vec::new();
    for wanted in wanted {
        let missing = wanted.actions.iter().filter(|action| known.is_some_and(|known| !known.contains(action)));
        failed.extend(missing.map(|action| format!("no {what} for `{action}`, so nothing is shown")));
        failed.extend(wanted.met(tally));
    }
    if !wanted.is_empty() && tally.compared == 0 {
        failed.push(format!("no {what}, so nothing is shown"));
    }
    failed
}

impl FromStr for FailOn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, actions) = match text.split_once(':') {
            Some((name, actions)) => (name, Some(actions)),
            None => (text, None),
        };
        let what = match name {
            "new-denials" => What::Changes(&[Change::NewDenial]),
            "new-permits" => What::Changes(&[Change::NewPermit]),
            "new-approvals" => What::Changes(&[Change::NewApproval]),
            "any-change" => What::Changes(&super::ALL),
            "not-replayable" if actions.is_none() => What::NotReplayable,
            _ => {
                return Err("it is `new-denials`, `new-permits`, `new-approvals` or `any-change`, each with \
                            `:ACTION,…` or without, or `not-replayable`"
                    .to_owned());
            }
        };
        let action = |name: &str| Id::new(name).map_err(|error| format!("`{name}`: {error}"));
        let actions = actions.into_iter().flat_map(|actions| actions.split(',')).map(action);
        Ok(Self { named: text.to_owned(), what, actions: actions.collect::<Result<_, _>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_a_pipeline_is_named_exactly_or_refused() {
        let parsed: FailOn = "new-denials:refunds.create,orders.read".parse().unwrap();
        assert_eq!(parsed.what, What::Changes(&[Change::NewDenial]));
        assert_eq!(parsed.actions().map(Id::as_str).collect::<Vec<_>>(), ["orders.read", "refunds.create"]);
        assert!("any-change".parse::<FailOn>().unwrap().actions.is_empty());
        for wrong in ["", "denials", "new-denials:", "new-denials:a b", "new-denial", "not-replayable:orders.read"] {
            assert!(wrong.parse::<FailOn>().is_err(), "{wrong:?}");
        }
    }
}
