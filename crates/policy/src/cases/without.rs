//! A question with one of its optional parts taken away, as a sidecar would put it then: a leaf is null, a group or a
//! header is not there, a sensitivity or stage that nobody states is the strictest.

use std::sync::Arc;

use model::{Action, Delegation, FactValue, Question, Sensitivity, Stage};

/// Every question that `question` is without one part, by the part's name.
pub(super) fn each(question: &Question, action: Option<&Action>) -> Vec<(String, Question)> {
    let mut found = Removals { question, found: Vec::new() };
    found.user();
    found.agents();
    found.task();
    found.call(action);
    found.found
}

struct Removals<'a> {
    question: &'a Question,
    found: Vec<(String, Question)>,
}

impl Removals<'_> {
    /// The question after `change`, where that changes anything.
    fn question(&mut self, name: &str, change: impl FnOnce(&mut Question)) {
        let mut other = self.question.clone();
        change(&mut other);
        if other != *self.question {
            self.found.push((name.to_owned(), other));
        }
    }

    fn delegation(&mut self, name: &str, change: impl FnOnce(&mut Delegation)) {
        self.question(name, |question| change(Arc::make_mut(&mut question.delegation)));
    }

    fn user(&mut self) {
        let claims = &self.question.delegation.user;
        self.delegation("user.acr", |delegation| delegation.user.acr = None);
        self.delegation("user.tenant", |delegation| {
            with_hops(delegation, |place, hop| {
                if place == 0 {
                    hop.principal.tenant = None;
                }
            });
        });
        for group in &claims.groups {
            let removed = format!("user.groups.{group}");
            self.delegation(&removed, |delegation| delegation.user.groups.retain(|other| other != group));
        }
        for role in &claims.roles {
            let removed = format!("user.roles.{role}");
            self.delegation(&removed, |delegation| delegation.user.roles.retain(|other| other != role));
        }
        for name in claims.attributes.keys() {
            let removed = format!("user.attributes.{name}");
            self.delegation(&removed, |delegation| drop(delegation.user.attributes.remove(name)));
        }
    }

    fn agents(&mut self) {
        self.delegation("agent.instance", |delegation| with_hops(delegation, |_, hop| hop.instance = None));
        self.delegation("delegation.grant_id", |delegation| {
            delegation.grant = None;
            with_hops(delegation, |_, hop| hop.grant = None);
        });
    }

    fn task(&mut self) {
        self.delegation("task.id", |delegation| delegation.task.id = None);
        self.delegation("task.initiated_by", |delegation| delegation.task.initiated_by = None);
        self.delegation("task.presence", |delegation| delegation.task.presence = None);
        self.delegation("task.use_case", |delegation| delegation.task.use_case = None);
        self.delegation("task.sensitivity", |delegation| delegation.task.sensitivity = Sensitivity::default());
        self.delegation("task.stage", |delegation| delegation.task.stage = Stage::default());
    }

    fn call(&mut self, action: Option<&Action>) {
        for (fact, leaves) in &self.question.facts.0 {
            for leaf in leaves.keys() {
                self.question(&format!("facts.{fact}.{leaf}"), |question| {
                    question.facts.0.entry(fact.clone()).or_default().insert(leaf.clone(), FactValue::Null);
                });
            }
        }
        for (name, parameter) in self.question.call.parameters.iter() {
            let declared = action.and_then(|action| action.parameters.get(name));
            if declared.is_none_or(|declared| declared.optional) {
                let removed = format!("action.parameters.{name}");
                self.question(&removed, |question| question.call.parameters.set(name, parameter.kind, None));
            }
        }
        for name in self.question.request.headers.keys() {
            let removed = format!("call.headers.{name}");
            self.question(&removed, |question| drop(question.request.headers.remove(name)));
        }
        for (place, limit) in self.question.limits.iter().enumerate() {
            self.question(&format!("limits.{}.used", limit.name), |question| {
                if let Some(limit) = question.limits.get_mut(place) {
                    limit.used = None;
                }
            });
        }
    }
}

/// Changes every hop, by its place.
fn with_hops(delegation: &mut Delegation, change: impl Fn(usize, &mut model::Hop)) {
    let mut hops: Vec<model::Hop> = delegation.chain.hops().cloned().collect();
    hops.iter_mut().enumerate().for_each(|(place, hop)| change(place, hop));
    // Who they are stays, so that they are still a chain.
    if let Ok(chain) = hops.try_into() {
        delegation.chain = chain;
    }
}
