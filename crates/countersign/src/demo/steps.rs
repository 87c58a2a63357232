//! What the demo's agents try, and what has to come of it: one row a step.
//!
//! A row says everything that is checked of the answer, so that a step cannot pass for the wrong reason.

use model::Code;

use super::world::{Answer, Call};

/// Whose token a call carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// The support agent's, acting for alice.
    Support,
    /// The helper's, which the support agent let have at most 10.00 USD.
    Helper,
    /// The helper's, for which the support agent asked 200.00 USD while it held 30.00 itself, which is what the
    /// authority gave.
    GreedyHelper,
    /// Alice's own, with no agent in it.
    UserAlone,
    /// The support agent's, after its end.
    Ended,
}

/// What a step has to come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// Forwarded, and answered by the tool with this status.
    Permit(u16),
    /// Refused.
    Deny(Denied),
}

/// How a step has to be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Denied {
    /// The code.
    pub(super) code: Code,
    /// The `limiting_hop`, for a refusal that names one.
    pub(super) limiting_hop: Option<&'static str>,
    /// A policy reason that must be among those given.
    pub(super) reason: Option<&'static str>,
}

/// One step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// Its stable name, in `--json` and in the exit message.
    pub(super) name: &'static str,
    /// What is tried, for a person.
    pub(super) title: &'static str,
    /// Whose token is used.
    pub(super) caller: Caller,
    /// The call.
    pub(super) call: Call,
    /// What has to come of it.
    pub(super) expected: Expected,
}

/// A step that came out otherwise than expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{step}: {what}")]
pub(super) struct Surprise {
    /// The step.
    pub(super) step: &'static str,
    /// What was expected and what came.
    pub(super) what: String,
}

pub(super) const fn get(path: &'static str) -> Call {
    Call { method: "GET", path, body: None }
}

pub(super) const fn post(path: &'static str, body: &'static str) -> Call {
    Call { method: "POST", path, body: Some(body) }
}

pub(super) const fn deny(code: Code) -> Expected {
    Expected::Deny(Denied { code, limiting_hop: None, reason: None })
}

const fn over_the_limit_of(hop: &'static str) -> Expected {
    Expected::Deny(Denied { code: Code::LimitExceeded, limiting_hop: Some(hop), reason: None })
}

/// The steps, in order.
pub(super) const STEPS: &[Step] = &[
    Step {
        name: "read_order",
        title: "The agent reads alice's order",
        caller: Caller::Support,
        call: get("/orders/v1/orders/17"),
        expected: Expected::Permit(200),
    },
    Step {
        name: "refund_within_limit",
        title: "It refunds 20 USD of it",
        caller: Caller::Support,
        call: post("/orders/v1/orders/17/refunds", r#"{"amount": "20.00", "currency": "USD"}"#),
        expected: Expected::Permit(201),
    },
    Step {
        name: "refund_over_limit",
        title: "It refunds 80 USD; alice granted 50",
        caller: Caller::Support,
        call: post("/orders/v1/orders/17/refunds", r#"{"amount": "80.00", "currency": "USD"}"#),
        expected: over_the_limit_of("user:alice@acme"),
    },
    Step {
        name: "someone_elses_order",
        title: "It refunds an order that bob placed",
        caller: Caller::Support,
        call: post("/orders/v1/orders/99/refunds", r#"{"amount": "20.00", "currency": "USD"}"#),
        expected: deny(Code::RelationUnproven),
    },
    Step {
        name: "closed_order",
        title: "It refunds an order that is closed, against the team's policy",
        caller: Caller::Support,
        call: post("/orders/v1/orders/18/refunds", r#"{"amount": "20.00", "currency": "USD"}"#),
        expected: Expected::Deny(Denied {
            code: Code::PolicyDenied,
            limiting_hop: None,
            reason: Some("refund_closed_order"),
        }),
    },
    Step {
        name: "helper_within_limit",
        title: "Its helper, given 10 USD of the 50, refunds 8",
        caller: Caller::Helper,
        call: post("/orders/v1/orders/17/refunds", r#"{"amount": "8.00", "currency": "USD"}"#),
        expected: Expected::Permit(201),
    },
    Step {
        name: "helper_over_its_limit",
        title: "The helper refunds 20: its parent may, it may not",
        caller: Caller::Helper,
        call: post("/orders/v1/orders/17/refunds", r#"{"amount": "20.00", "currency": "USD"}"#),
        expected: over_the_limit_of("agent:refunds-helper"),
    },
    Step {
        name: "helper_over_its_parents_limit",
        title: "Its parent, holding 30 itself this time, asked 200 for it; it refunds 40",
        caller: Caller::GreedyHelper,
        call: post("/orders/v1/orders/17/refunds", r#"{"amount": "40.00", "currency": "USD"}"#),
        expected: over_the_limit_of("agent:support-v2"),
    },
    Step {
        name: "user_without_agent",
        title: "Somebody presents alice's own token, with no agent in it",
        caller: Caller::UserAlone,
        call: get("/orders/v1/orders/17"),
        expected: deny(Code::Impersonation),
    },
    Step {
        name: "unmapped_action",
        title: "The agent deletes the order; nobody gave that a name",
        caller: Caller::Support,
        call: Call { method: "DELETE", path: "/orders/v1/orders/17", body: None },
        expected: deny(Code::UnmappedAction),
    },
    Step {
        name: "amount_left_out",
        title: "It asks for a refund and leaves the amount out",
        caller: Caller::Support,
        call: post("/orders/v1/orders/17/refunds", r#"{"currency": "USD"}"#),
        expected: deny(Code::Malformed),
    },
    Step {
        name: "expired_token",
        title: "It reads the order with a token that has ended",
        caller: Caller::Ended,
        call: get("/orders/v1/orders/17"),
        expected: deny(Code::Expired),
    },
];

impl Expected {
    /// `permit` or `deny`.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Permit(_) => "permit",
            Self::Deny(_) => "deny",
        }
    }

    /// The code of an expected refusal.
    pub(super) fn code(self) -> Option<&'static str> {
        match self {
            Self::Permit(_) => None,
            Self::Deny(denied) => Some(denied.code.as_str()),
        }
    }
}

impl Step {
    /// That it came out otherwise.
    pub(super) fn surprise(&self, what: &str) -> Surprise {
        Surprise { step: self.name, what: what.to_owned() }
    }

    /// Whether `answer` is what this step expects, in every part.
    pub(super) fn check(&self, answer: &Answer) -> Result<(), Surprise> {
        let surprise = |what: String| Err(Surprise { step: self.name, what });
        if answer.decision_id.is_none() {
            return surprise(format!("the answer ({}) has no decision id", answer.status));
        }
        match (self.expected, &answer.denial) {
            (Expected::Permit(status), None) if answer.status == status => Ok(()),
            (Expected::Permit(status), None) => {
                surprise(format!("expected {status} from the tool, got {}", answer.status))
            }
            (Expected::Permit(_), Some(denial)) => {
                surprise(format!("expected permit, got {}: {}", denial.code, denial.detail))
            }
            (Expected::Deny(denied), None) => surprise(format!("expected {}, got {}", denied.code, answer.status)),
            (Expected::Deny(denied), Some(_)) => denied.check(answer).or_else(surprise),
        }
    }
}

impl Denied {
    fn check(&self, answer: &Answer) -> Result<(), String> {
        let Some(denial) = &answer.denial else {
            return Err(format!("expected {}, got {}", self.code, answer.status));
        };
        if denial.code != self.code.as_str() || answer.status.as_u16() != self.code.entry().status {
            return Err(format!("expected {}, got {} ({}): {}", self.code, denial.code, answer.status, denial.detail));
        }
        if denial.sent != Some(false) {
            return Err("the refusal does not say that nothing was sent".to_owned());
        }
        let hop = denial.limiting_hop.as_deref();
        if self.limiting_hop.is_some() && hop != self.limiting_hop {
            return Err(format!("expected {:?} as the limiting hop, got {hop:?}", self.limiting_hop));
        }
        let codes: Vec<&str> = denial.reasons.iter().map(|reason| reason.code.as_str()).collect();
        if self.reason.is_some_and(|expected| !codes.contains(&expected)) {
            return Err(format!("expected the reason {:?}, got {codes:?}", self.reason));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use http::StatusCode;
    use serde_json::{Value, json};

    use super::*;

    fn step(name: &str) -> &'static Step {
        STEPS.iter().find(|step| step.name == name).unwrap()
    }

    fn refused(status: u16, document: Value) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            decision_id: Some("ledger.1".to_owned()),
            denial: Some(serde_json::from_value(document).unwrap()),
            body: Value::Null,
            took: Duration::ZERO,
        }
    }

    fn over_limit(hop: &str, sent: bool) -> Answer {
        refused(
            403,
            json!({
                "type": "urn:countersign:denial:limit_exceeded", "code": "limit_exceeded", "sent": sent,
                "limiting_hop": hop,
            }),
        )
    }

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<_> = STEPS.iter().map(|step| step.name).collect();
        assert_eq!(names.len(), STEPS.len());
    }

    #[test]
    fn a_refusal_for_another_reason_is_a_surprise() {
        let step = step("refund_over_limit");
        assert_eq!(step.check(&over_limit("user:alice@acme", false)), Ok(()));
        assert!(step.check(&over_limit("agent:refunds-helper", false)).is_err());
        assert!(step.check(&over_limit("user:alice@acme", true)).is_err());
        let other = json!({"type": "urn:countersign:denial:stage", "code": "stage", "sent": false});
        assert!(step.check(&refused(403, other)).is_err());
    }

    #[test]
    fn a_permit_where_a_refusal_belongs_is_a_surprise_and_the_reverse() {
        let permitted = Answer { denial: None, ..over_limit("agent:support-v2", false) };
        assert!(step("refund_over_limit").check(&permitted).is_err());
        let error = step("read_order").check(&over_limit("agent:support-v2", false)).unwrap_err();
        assert!(error.to_string().starts_with("read_order: expected permit, got limit_exceeded"), "{error}");
    }

    #[test]
    fn an_answer_without_a_decision_id_is_a_surprise() {
        let mut answer = over_limit("agent:support-v2", false);
        answer.decision_id = None;
        assert!(step("refund_over_limit").check(&answer).is_err());
    }
}
