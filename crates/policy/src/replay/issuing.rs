//! Tokens that an authority issued or refused, under other policies: for each tool and action that was asked for, whether the
//! token holds it and whether it would.

use std::collections::BTreeSet;

use model::{Action, Authority, Code, Decision, Id, Reason, Tool, Verdict, id::DecisionMark};

use super::{Answer, Change, Example, Found, Group, Tally};
use crate::{Steering, input::exchange::Issuance};

/// A token that was asked for, and what became of it.
#[derive(Debug)]
pub struct Issued<'a> {
    /// What policy was asked, or would have been.
    pub asked: Issuance<'a>,
    /// What the token was issued with; nothing where it was refused.
    pub authority: &'a Authority,
    /// What spoke for it then.
    pub reasons: Vec<Reason>,
    /// What spoke against all or some of it then.
    pub withheld: Vec<Reason>,
    /// The revision of the policies that were asked then; `None` where there were none.
    pub revision: Option<String>,
    /// What `explain` finds it by.
    pub id: Id<DecisionMark>,
}

/// Asks `steering` about what was asked then. A token that holds some of it otherwise counts as one that changes, once for
/// each action at each tool; of all actions, where none is `wanted`.
pub fn replay_issuing(steering: &Steering, issued: &Issued<'_>, wanted: &BTreeSet<Id<Action>>, tally: &mut Tally) {
    let ruling = steering.delegate(&issued.asked);
    let (said, not) = (ruling.reasons, ruling.withheld);
    let held = each(issued.authority);
    let mut changes = Vec::new();
    let wanted = |action: &Id<Action>| wanted.is_empty() || wanted.contains(action);
    for (tool, action) in each(issued.asked.requested).into_iter().filter(|(_, action)| wanted(action)) {
        let then = decision(held.contains(&(tool, action)), &issued.reasons, &issued.withheld);
        let now = decision(ruling.tools.contains(tool), &said, &not);
        if let Some(change) = Change::between(&then, &now) {
            let group = Group {
                change,
                tool: tool.clone(),
                action: action.clone(),
                then: Answer::of(&then),
                now: Answer::of(&now),
            };
            changes.push((group, now));
        }
    }
    tally.asked_again(issued.revision.as_deref(), changes.is_empty());
    let chain = &issued.asked.chain;
    for (group, now) in changes {
        let mut found = Found { calls: 1, ..Found::default() };
        let bounds = tally.bounds();
        found.people.add(chain.first().map_or_else(String::new, |user| user.principal.to_string()), 1, bounds.names);
        found.agents.add(format!("agent:{}", issued.asked.to.id), 1, bounds.names);
        if bounds.examples > 0 {
            let said = now.reasons.iter().find_map(|reason| reason.message.clone().or_else(|| reason.internal.clone()));
            found.examples.push(Example { time: issued.asked.now, decision_id: issued.id.clone(), said });
        }
        tally.add(group, found);
    }
}

/// Every action at every tool that `authority` holds.
fn each(authority: &Authority) -> BTreeSet<(&Id<Tool>, &Id<Action>)> {
    let mut all = BTreeSet::new();
    for element in authority.elements.iter() {
        for tool in &element.locations {
            all.extend(element.actions.iter().map(|action| (tool, action)));
        }
    }
    all
}

/// What it comes to for one action at one tool.
fn decision(holds: bool, reasons: &[Reason], withheld: &[Reason]) -> Decision {
    if holds {
        return Decision { verdict: Verdict::Permit, code: None, reasons: reasons.to_vec(), obligations: Vec::new() };
    }
    let (code, reasons) = (Some(Code::PolicyNoAllow), withheld.to_vec());
    Decision { verdict: Verdict::Deny, code, reasons, obligations: Vec::new() }
}
