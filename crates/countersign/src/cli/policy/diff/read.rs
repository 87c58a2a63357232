//! What the ledger holds of candidates, added up for each of them.

use std::collections::{BTreeMap, BTreeSet};

use audit::{
    Entry,
    record::{Compared, kind},
};
use jiff::Timestamp;
use model::{Action, Decision, Id, Principal, Reason, Verdict};
use policy::replay::{Answer, Bounds, Change, Example, Found, Group, Tally};
use serde_json::Value;

use super::super::replay::ALL;

/// The most candidates that are told apart.
const MOST: usize = 200;

/// What there is of every candidate.
pub(super) struct Diffs {
    bounds: Bounds,
    /// Of these actions; of all, where none is named.
    wanted: BTreeSet<Id<Action>>,
    candidates: BTreeMap<String, OfCandidate>,
}

/// What there is of one.
#[derive(Debug, Default)]
pub(super) struct OfCandidate {
    pub(super) revision: String,
    /// The revisions beside which it was asked.
    pub(super) active: BTreeSet<String>,
    pub(super) tally: Tally,
    pub(super) actions: BTreeMap<Id<Action>, Compared>,
    /// Calls of which it was not asked.
    pub(super) dropped: u64,
    /// Differences that no record names.
    pub(super) unrecorded: u64,
    pub(super) from: Option<Timestamp>,
    pub(super) to: Option<Timestamp>,
}

impl Diffs {
    pub(super) fn new(bounds: Bounds, wanted: BTreeSet<Id<Action>>) -> Self {
        Self { bounds, wanted, candidates: BTreeMap::new() }
    }

    /// Adds what one record says. What cannot be read says nothing.
    pub(super) fn add(&mut self, entry: &Entry) {
        match entry.kind.as_str() {
            kind::POLICY_CANDIDATE => {
                if let Some(revision) = entry.text("candidate") {
                    self.candidate(revision, entry);
                }
            }
            kind::POLICY_COMPARED => self.compared(entry),
            kind::POLICY_DIFFERED => drop(self.differed(entry)),
            _ => {}
        }
    }

    fn candidate(&mut self, revision: &str, entry: &Entry) -> Option<&mut OfCandidate> {
        if self.candidates.len() >= MOST && !self.candidates.contains_key(revision) {
            return None;
        }
        let bounds = self.bounds;
        let one = self.candidates.entry(revision.to_owned()).or_insert_with(|| OfCandidate {
            revision: revision.to_owned(),
            tally: Tally::new(bounds),
            ..OfCandidate::default()
        });
        let time = |name| entry.text(name).and_then(|text| text.parse().ok()).unwrap_or(entry.time);
        let (from, to) = (time("from"), time("to"));
        one.from = Some(one.from.map_or(from, |known| known.min(from)));
        one.to = Some(one.to.map_or(to, |known| known.max(to)));
        Some(one)
    }

    fn compared(&mut self, entry: &Entry) {
        let wanted = self.wanted.clone();
        let Some(revision) = entry.text("candidate") else { return };
        let Some(one) = self.candidate(revision, entry) else { return };
        one.active.extend(entry.text("active").map(str::to_owned));
        let number = |name: &str| entry.fields.get(name).and_then(Value::as_u64).unwrap_or_default();
        one.dropped += number("dropped");
        one.unrecorded += number("unrecorded");
        let actions = entry.fields.get("actions").and_then(Value::as_object).into_iter().flatten();
        for (name, counted) in actions {
            let Ok(action) = Id::new(name.as_str()) else { continue };
            if !wanted.is_empty() && !wanted.contains(&action) {
                continue;
            }
            let number = |name: &str| counted.get(name).and_then(Value::as_u64).unwrap_or_default();
            let all = one.actions.entry(action).or_default();
            all.compared += number("compared");
            all.differed += number("differed");
        }
    }

    fn differed(&mut self, entry: &Entry) -> Option<()> {
        let ((_, then), (mut reasons, now)) = (answer(entry, "active")?, answer(entry, "candidate")?);
        let group = Group {
            change: ALL.into_iter().find(|change: &Change| entry.text("change") == Some(change.as_str()))?,
            tool: Id::new(entry.text("tool")?).ok()?,
            action: Id::new(entry.text("action")?).ok()?,
            then,
            now,
        };
        if !self.wanted.is_empty() && !self.wanted.contains(&group.action) {
            return None;
        }
        let calls = entry.fields.get("count").and_then(Value::as_u64).unwrap_or(1);
        let mut found = Found { calls, ..Found::default() };
        for (name, names) in [("user", &mut found.people), ("agent", &mut found.agents)] {
            let principal = entry.fields.get(name).cloned().and_then(|value| serde_json::from_value(value).ok());
            match principal.map(|principal: Principal| principal.to_string()) {
                Some(name) => drop(names.counts.insert(name, calls)),
                // Of those that are counted together, and of whoever was erased, nobody is named.
                None => names.others += calls,
            }
        }
        words(&mut reasons, entry);
        let said = reasons.iter().find_map(|reason| reason.message.clone().or_else(|| reason.internal.clone()));
        let id = entry.text("decision_id").or_else(|| entry.text("first"))?;
        let time = entry.text("from").and_then(|time| time.parse().ok()).unwrap_or(entry.time);
        found.examples.push(Example { time, decision_id: Id::new(id).ok()?, said });
        let revision = entry.text_at("/candidate/revision")?.to_owned();
        let one = self.candidate(&revision, entry)?;
        one.active.extend(entry.text_at("/active/revision").map(str::to_owned));
        one.tally.add(group, found);
        Some(())
    }

    /// Takes out what there is of the candidate whose revision begins with `wanted`; without that, of the one that was asked last.
    pub(super) fn take(&mut self, wanted: Option<&str>) -> Option<OfCandidate> {
        let candidates = self.candidates.iter();
        let revision = match wanted {
            Some(wanted) => candidates.map(|(revision, _)| revision).find(|revision| revision.starts_with(wanted)),
            None => candidates.max_by_key(|(_, one)| one.to).map(|(revision, _)| revision),
        };
        let revision = revision.cloned()?;
        let mut one = self.candidates.remove(&revision)?;
        for (group, found) in one.tally.groups() {
            let known = one.actions.entry(group.action.clone()).or_default();
            // What was compared is summed up up to a minute later.
            known.compared = known.compared.max(found.calls);
        }
        let sum = |of: fn(&Compared) -> u64| one.actions.values().map(of).sum::<u64>();
        one.tally.compared = sum(|one| one.compared);
        one.tally.unchanged = one.tally.compared.saturating_sub(sum(|one| one.differed));
        Some(one)
    }

    /// How many there are besides the one that was taken out.
    pub(super) fn others(&self) -> usize {
        self.candidates.len()
    }
}

/// The answer in the member `name`, and its reasons without their words.
fn answer(entry: &Entry, name: &str) -> Option<(Vec<Reason>, Answer)> {
    let mut members = entry.fields.get(name)?.as_object()?.clone();
    let mut member = |name: &str| members.remove(name).unwrap_or_default();
    let verdict: Verdict = serde_json::from_value(member("decision")).ok()?;
    let code = serde_json::from_value(member("code")).ok()?;
    let reasons: Vec<Reason> = serde_json::from_value(member("reasons")).ok()?;
    let obligations = member("obligations");
    let obligation = |one: &Value| {
        let part = |name: &str| one.get(name).and_then(Value::as_str).unwrap_or("?");
        format!("{} {} ({})", part("duty"), part("code"), part("source"))
    };
    let obligations = obligations.as_array().into_iter().flatten().map(obligation).collect();
    let decision = Decision { verdict, code, reasons: reasons.clone(), obligations: Vec::new() };
    Some((reasons, Answer { obligations, ..Answer::of(&decision) }))
}

/// Adds the words of a candidate's reasons, where they were not erased.
fn words(reasons: &mut [Reason], entry: &Entry) {
    let explained = entry.fields.get("explanation").and_then(Value::as_array).into_iter().flatten();
    for (reason, words) in reasons.iter_mut().zip(explained) {
        let word = |name: &str| words.get(name).and_then(Value::as_str).map(str::to_owned);
        (reason.message, reason.internal) = (word("message"), word("internal"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(kind: &str, time: &str, fields: &Value) -> Entry {
        Entry {
            segment: 1,
            seq: 1,
            time: time.parse().unwrap(),
            kind: kind.to_owned(),
            fields: fields.as_object().unwrap().clone(),
            erased: Vec::new(),
        }
    }

    fn differed(candidate: &str, time: &str, more: &Value) -> Entry {
        let answer = |revision: &str, decision: &str, code: Option<&str>, rule: &str| {
            let reasons = json!([{"code": rule, "source": "countersign.teams.support"}]);
            let mut answer = json!({"revision": revision, "decision": decision, "reasons": reasons});
            if let Some(code) = code {
                answer["code"] = json!(code);
            }
            answer
        };
        let mut fields = json!({
            "change": "new_denial", "tool": "orders", "action": "refunds.create",
            "active": answer("one", "permit", None, "covered"),
            "candidate": answer(candidate, "deny", Some("policy_denied"), "too_late"),
        });
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry(kind::POLICY_DIFFERED, time, &fields)
    }

    fn user(id: &str) -> Value {
        json!({"kind": "user", "id": id, "issuer": "https://sso.example", "tenant": "acme"})
    }

    #[test]
    fn differences_are_added_up_by_rule_and_those_counted_together_name_nobody() {
        let mut diffs = Diffs::new(Bounds::default(), BTreeSet::new());
        let at = "2026-11-22T10:00:00Z";
        diffs.add(&differed("two", at, &json!({"decision_id": "L.1", "user": user("alice"), "agent": user("a")})));
        diffs.add(&differed("two", at, &json!({"decision_id": "L.2", "user": user("bob"), "agent": user("a")})));
        let more = json!({"count": 40, "from": at, "to": "2026-11-22T10:01:00Z", "first": "L.3"});
        diffs.add(&differed("two", "2026-11-22T10:02:00Z", &more));
        diffs.add(&differed("older", "2026-11-21T10:02:00Z", &more));
        let actions = json!({
            "refunds.create": {"compared": 60, "differed": 42}, "orders.read": {"compared": 100, "differed": 0}
        });
        let compared = json!({
            "candidate": "two", "active": "one", "from": at, "to": "2026-11-22T10:01:00Z", "dropped": 3,
            "actions": actions,
        });
        diffs.add(&entry(kind::POLICY_COMPARED, "2026-11-22T10:01:00Z", &compared));
        let found = diffs.take(None).unwrap();
        assert_eq!((found.revision.as_str(), diffs.others()), ("two", 1));
        assert_eq!((found.tally.compared, found.tally.unchanged, found.dropped), (160, 118, 3));
        let groups = found.tally.groups();
        assert_eq!(groups.len(), 1, "{groups:?}");
        let (group, calls) = groups[0];
        assert_eq!((group.change, calls.calls), (Change::NewDenial, 42));
        assert_eq!((calls.people.counts.len(), calls.people.others), (2, 40));
        assert_eq!(calls.agents.counts.len(), 1);
    }

    #[test]
    fn only_the_wanted_action_and_candidate_count() {
        let wanted = BTreeSet::from([Id::new("orders.read").unwrap()]);
        let mut diffs = Diffs::new(Bounds::default(), wanted);
        diffs.add(&differed("two", "2026-11-22T10:00:00Z", &json!({"decision_id": "L.1"})));
        assert!(diffs.take(None).is_none());
        let compared = json!({"candidate": "three", "actions": {"refunds.create": {"compared": 9, "differed": 1}}});
        diffs.add(&entry(kind::POLICY_COMPARED, "2026-11-22T10:00:00Z", &compared));
        assert!(diffs.take(Some("tw")).is_none());
        assert_eq!(diffs.take(Some("th")).unwrap().tally.compared, 0);
    }
}
