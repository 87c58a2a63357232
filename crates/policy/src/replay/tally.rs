//! What a replay found, in bounded memory: two tallies of different records add up to that of all of them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use model::{Action, Code, Decision, Id, Obligation, Reason, Tool, Verdict, id::DecisionMark};
use serde::Serialize;

use super::Asked;

/// How much of what was found is kept by name. What is beyond is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Examples of a group.
    pub examples: usize,
    /// People, and agents, of a group.
    pub names: usize,
    /// Groups: the codes of rules may be computed from what a call says.
    pub groups: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { examples: 3, names: 10_000, groups: 1_000 }
    }
}

/// What would be otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It went, or a person was asked, and it would be refused.
    NewDenial,
    /// It was refused, or a person was asked, and it would go.
    NewPermit,
    /// It went, or was refused, and a person would be asked.
    NewApproval,
    /// It would be refused as well, with another code.
    OtherCode,
    /// The same, with other obligations.
    OtherObligations,
    /// The same, for other reasons.
    OtherReasons,
}

impl Change {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NewDenial => "new_denial",
            Self::NewPermit => "new_permit",
            Self::NewApproval => "new_approval",
            Self::OtherCode => "other_code",
            Self::OtherObligations => "other_obligations",
            Self::OtherReasons => "other_reasons",
        }
    }

    pub(crate) fn between(then: &Decision, now: &Decision) -> Option<Self> {
        if then.verdict != now.verdict {
            return Some(match now.verdict {
                Verdict::Deny => Self::NewDenial,
                Verdict::Permit => Self::NewPermit,
                Verdict::ApprovalRequired => Self::NewApproval,
            });
        }
        if then.code != now.code {
            return Some(Self::OtherCode);
        }
        if !obliges_alike(then, now) {
            return Some(Self::OtherObligations);
        }
        let same = then.reasons.len() == now.reasons.len()
            && then
                .reasons
                .iter()
                .zip(&now.reasons)
                .all(|(then, now)| (&then.code, &then.source) == (&now.code, &now.source));
        (!same && rules(then) != rules(now)).then_some(Self::OtherReasons)
    }
}

/// A rule that spoke.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Rule {
    /// The code it gives.
    pub code: String,
    /// Its package.
    pub source: String,
}

/// Calls that would change alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Group {
    /// How.
    pub change: Change,
    /// The tool.
    pub tool: Id<Tool>,
    /// The action.
    pub action: Id<Action>,
    /// What was answered.
    pub then: Answer,
    /// What would be answered.
    pub now: Answer,
}

/// A decision without what differs from call to call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Answer {
    /// The verdict's word.
    pub decision: &'static str,
    /// The code of a refusal.
    pub code: Option<Code>,
    /// The rules that it came from.
    pub rules: BTreeSet<Rule>,
    /// What it obliges to, with whose that is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub obligations: Vec<String>,
}

/// What there is of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    /// How many calls.
    pub calls: u64,
    /// The people, as the ledger shows them, with how many calls were for each.
    pub people: Names,
    /// The agents that called, likewise.
    pub agents: Names,
    /// Some of the calls, the earliest.
    pub examples: Vec<Example>,
}

/// Names with how often each came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Names {
    /// The names.
    pub counts: BTreeMap<String, u64>,
    /// Calls of others, beyond what is kept by name.
    pub others: u64,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Example {
    /// When it was decided.
    pub time: Timestamp,
    /// The decision's id, for `explain`.
    pub decision_id: Id<DecisionMark>,
    /// What the rules say of it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
}

/// What was found so far.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Tally {
    /// Decisions that policy made and was asked again.
    pub compared: u64,
    /// Of those, how many come out as they did.
    pub unchanged: u64,
    /// Refusals of other stages, by stage.
    pub elsewhere: BTreeMap<String, u64>,
    /// Questions of which values were erased, or that cannot be read, by what is missing.
    pub not_replayable: Missing,
    /// The revisions that decided then, with how often.
    pub revisions: BTreeMap<String, u64>,
    /// Calls that would change, in groups beyond those that are kept.
    pub ungrouped: BTreeMap<Change, u64>,
    /// Calls that would change.
    #[serde(skip)]
    groups: BTreeMap<Group, Found>,
    #[serde(skip)]
    bounds: Bounds,
}

/// Questions that cannot be put again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// How many.
    pub decisions: u64,
    /// By the paths that are gone; those of a record that cannot be read are none.
    pub by_paths: BTreeMap<String, u64>,
}

impl Tally {
    /// Nothing yet.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// The calls that would change, the largest groups of each kind first.
    pub fn groups(&self) -> Vec<(&Group, &Found)> {
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by_key(|(group, found)| (group.change, std::cmp::Reverse(found.calls)));
        groups
    }

    /// How many calls would change in one of `changes`, of these actions; of all, where none is named.
    pub fn changed(&self, changes: &[Change], actions: &BTreeSet<Id<Action>>) -> u64 {
        let counts =
            |group: &&Group| changes.contains(&group.change) && (actions.is_empty() || actions.contains(&group.action));
        let grouped: u64 = self.groups.iter().filter(|(group, _)| counts(group)).map(|(_, found)| found.calls).sum();
        // Which actions they are of is not known any more: they count for each.
        let others: u64 =
            self.ungrouped.iter().filter(|(change, _)| changes.contains(change)).map(|(_, calls)| calls).sum();
        grouped + others
    }

    /// A refusal that no policy could have changed.
    pub fn elsewhere(&mut self, stage: String) {
        *self.elsewhere.entry(stage).or_default() += 1;
    }

    /// A question that cannot be put again, because what is at `paths` is missing.
    pub fn not_replayable(&mut self, mut paths: Vec<String>) {
        paths.sort();
        self.not_replayable.decisions += 1;
        *self.not_replayable.by_paths.entry(paths.join(", ")).or_default() += 1;
    }

    pub(super) fn compared(&mut self, asked: &Asked, now: &Decision) {
        let change = Change::between(&asked.then, now);
        self.asked_again(asked.revision.as_deref(), change.is_none());
        let Some(change) = change else { return };
        let (question, chain) = (&asked.question, &asked.question.delegation.chain);
        let group = Group {
            change,
            tool: question.call.tool.clone(),
            action: question.call.action.clone(),
            then: Answer::of(&asked.then),
            now: Answer::of(now),
        };
        let mut found = Found { calls: 1, ..Found::default() };
        found.people.add(chain.user().principal.to_string(), 1, self.bounds.names);
        found.agents.add(chain.agent().principal.to_string(), 1, self.bounds.names);
        let said = now.reasons.iter().find_map(|reason| reason.message.clone().or_else(|| reason.internal.clone()));
        if self.bounds.examples > 0 {
            found.examples.push(Example { time: question.now, decision_id: question.id.clone(), said });
        }
        self.add(group, found);
    }

    /// One more that was decided by `revision` and was asked again.
    pub(super) fn asked_again(&mut self, revision: Option<&str>, unchanged: bool) {
        self.compared += 1;
        self.unchanged += u64::from(unchanged);
        if let Some(revision) = revision {
            match self.revisions.get_mut(revision) {
                Some(count) => *count += 1,
                None => drop(self.revisions.insert(revision.to_owned(), 1)),
            }
        }
    }

    pub(super) const fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Calls that would change alike.
    pub fn add(&mut self, group: Group, found: Found) {
        let room = self.groups.len() < self.bounds.groups;
        match self.groups.get_mut(&group) {
            Some(known) => known.merge(found, self.bounds),
            None if room => drop(self.groups.insert(group, found)),
            None => *self.ungrouped.entry(group.change).or_default() += found.calls,
        }
    }

    /// Adds what was found of other records.
    pub fn merge(&mut self, other: Self) {
        self.compared += other.compared;
        self.unchanged += other.unchanged;
        self.not_replayable.decisions += other.not_replayable.decisions;
        sum(&mut self.elsewhere, other.elsewhere);
        sum(&mut self.not_replayable.by_paths, other.not_replayable.by_paths);
        sum(&mut self.revisions, other.revisions);
        sum(&mut self.ungrouped, other.ungrouped);
        for (group, found) in other.groups {
            self.add(group, found);
        }
    }
}

fn sum<Key: Ord>(into: &mut BTreeMap<Key, u64>, from: BTreeMap<Key, u64>) {
    for (key, count) in from {
        *into.entry(key).or_default() += count;
    }
}

impl Answer {
    /// What `decision` says.
    pub fn of(decision: &Decision) -> Self {
        let obligation = |one: &Obligation| format!("{} ({})", one.duty, one.source);
        Self {
            decision: decision.verdict.as_str(),
            code: decision.code,
            rules: rules(decision),
            obligations: decision.obligations.iter().map(obligation).collect(),
        }
    }
}

/// Whether both oblige to the same, by the same rules.
fn obliges_alike(then: &Decision, now: &Decision) -> bool {
    let same = |(then, now): (&Obligation, &Obligation)| {
        (&then.code, &then.source, &then.duty) == (&now.code, &now.source, &now.duty)
    };
    then.obligations.len() == now.obligations.len() && then.obligations.iter().zip(&now.obligations).all(same)
}

fn rules(decision: &Decision) -> BTreeSet<Rule> {
    let rule = |reason: &Reason| Rule { code: reason.code.clone(), source: reason.source.clone() };
    decision.reasons.iter().map(rule).collect()
}

impl Found {
    fn merge(&mut self, other: Self, bounds: Bounds) {
        self.calls += other.calls;
        self.people.merge(other.people, bounds.names);
        self.agents.merge(other.agents, bounds.names);
        self.examples.extend(other.examples);
        self.examples.sort();
        self.examples.truncate(bounds.examples);
    }
}

impl Names {
    pub(super) fn add(&mut self, name: String, count: u64, most: usize) {
        let room = self.counts.len() < most;
        match self.counts.get_mut(&name) {
            Some(known) => *known += count,
            None if room => drop(self.counts.insert(name, count)),
            None => self.others += count,
        }
    }

    fn merge(&mut self, other: Self, most: usize) {
        self.others += other.others;
        for (name, count) in other.counts {
            self.add(name, count, most);
        }
    }
}
