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
    pub(crate) fn met(&self, tally: &Tally) -> Option<String> {
        let count = match self.what {
            What::Changes(changes) => tally.changed(changes, &self.actions),
            What::NotReplayable => tally.not_replayable.decisions,
        };
        (count > 0).then(|| format!("{}: {count}", self.named))
    }
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
