//! A candidate beside the policies that decide: what it says of a question that they answered, and whether that is
//! another answer. It is compared as a replay compares, so that both find the same.

use model::{Decision, Question};

use crate::{
    Engine,
    replay::{Answer, Change, Group, effective},
};

/// What a candidate would have answered otherwise.
#[derive(Debug, Clone)]
pub struct Difference {
    /// What is otherwise, of which action: differences that are alike are of one group.
    pub group: Group,
    /// What was decided, as it came to for the call.
    pub then: Decision,
    /// What the candidate says, likewise.
    pub now: Decision,
}

/// Asks `candidate` what was decided `then`, about a call that a person is asked about whatever policy says, where it is
/// `by_stage`. `None` where both say the same.
pub fn compare(candidate: &Engine, question: &Question, then: Decision, by_stage: bool) -> Option<Difference> {
    let (then, now) = (effective(then, by_stage), effective(candidate.decide(question), by_stage));
    let change = Change::between(&then, &now)?;
    let group = Group {
        change,
        tool: question.call.tool.clone(),
        action: question.call.action.clone(),
        then: Answer::of(&then),
        now: Answer::of(&now),
    };
    Some(Difference { group, then, now })
}

#[cfg(test)]
mod tests {
    use model::{Code, Verdict};

    use super::*;
    use crate::{engine, fixture};

    fn engine(rules: &str) -> Engine {
        let source =
            engine::tests::source("support", &["orders"], &format!("package countersign.teams.support\n{rules}\n"));
        let bounds = engine::Bounds { budget: std::time::Duration::from_secs(600), ..engine::Bounds::default() };
        Engine::load_within(&[source], &fixture::catalogue(&["orders"]), bounds).unwrap()
    }

    #[test]
    fn what_is_said_alike_is_no_difference_and_everything_else_is_one() {
        let question = fixture::question();
        let open = engine("allow contains {\"code\": \"all\"}");
        let then = || open.decide(&question);
        assert!(compare(&open, &question, then(), false).is_none());
        let of = |rules: &str| compare(&engine(rules), &question, then(), false).unwrap().group.change;
        assert_eq!(of("allow contains {\"code\": \"all\"}\ndeny contains {\"code\": \"no\"}"), Change::NewDenial);
        assert_eq!(of("allow contains {\"code\": \"other\"}"), Change::OtherReasons);
        let asked = "allow contains {\"code\": \"all\"}\napproval contains {\"code\": \"ask\"}";
        assert_eq!(of(asked), Change::NewApproval);
        let closed = engine("deny contains {\"code\": \"no\"}");
        let found = compare(&open, &question, closed.decide(&question), false).unwrap();
        assert_eq!((found.group.change, found.then.code), (Change::NewPermit, Some(Code::PolicyDenied)));
    }

    #[test]
    fn where_the_stage_asks_a_person_it_asks_under_both() {
        let question = fixture::question();
        let open = engine("allow contains {\"code\": \"all\"}");
        let closed = engine("deny contains {\"code\": \"no\"}");
        assert!(compare(&open, &question, open.decide(&question), true).is_none());
        let found = compare(&closed, &question, open.decide(&question), true).unwrap();
        assert_eq!((found.then.verdict, found.now.verdict), (Verdict::ApprovalRequired, Verdict::Deny));
        let found = compare(&open, &question, closed.decide(&question), true).unwrap();
        assert_eq!((found.group.change, found.now.verdict), (Change::NewApproval, Verdict::ApprovalRequired));
    }
}
