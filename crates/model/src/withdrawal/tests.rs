//! The law of withdrawal: monotone in position, blind to what a chain does not pass through, one text for one target.

use proptest::prelude::*;

use super::*;
use crate::{
    Authority, Chain, Hop, PrincipalKind, Sensitivity, Stage,
    chain::Evidence,
    delegation::{Sender, TaskClaims, TokenFacts, UserClaims},
};

const SSO: &str = "https://sso.example";
const AUTHORITY: &str = "https://countersign.example";

fn hop(kind: PrincipalKind, issuer: &str, id: &str) -> Hop {
    let principal = Principal { kind, id: Id::new(id).unwrap(), issuer: issuer.to_owned(), tenant: None };
    Hop { principal, instance: None, jti: None, grant: None, authority: None, evidence: Evidence::DelegationChain }
}

/// alice at the identity provider, `planner` of which `planner-1` runs, then `worker`.
fn delegation(position: Option<u64>) -> Delegation {
    let mut planner = hop(PrincipalKind::Agent, AUTHORITY, "planner");
    planner.instance = Some("planner-1".to_owned());
    planner.jti = Some("jti-parent".to_owned());
    planner.grant = Some(Id::new("g-parent").unwrap());
    let hops = vec![hop(PrincipalKind::User, SSO, "alice"), planner, hop(PrincipalKind::Agent, AUTHORITY, "worker")];
    Delegation {
        token: TokenFacts {
            digest: "d".to_owned(),
            issuer: AUTHORITY.to_owned(),
            jti: Some("jti-own".to_owned()),
            client_id: None,
            key_id: None,
            algorithm: "ES256".to_owned(),
            issued_at: Timestamp::UNIX_EPOCH,
            expires_at: Timestamp::UNIX_EPOCH,
        },
        chain: Chain::new(hops, 8).unwrap(),
        authority: Authority::default(),
        authority_assumed: false,
        user: UserClaims::default(),
        entitlement: [].into(),
        tenant: Id::new("acme").unwrap(),
        grant: Some(Id::new("g-own").unwrap()),
        run: Id::new("run-1").unwrap(),
        run_derived: false,
        task: TaskClaims {
            id: Some(Id::new("ticket-1").unwrap()),
            use_case: None,
            initiated_by: None,
            sensitivity: Sensitivity::Low,
            stage: Stage::Observe,
            presence: None,
        },
        session: Some("s-1".to_owned()),
        position,
        sender: Sender::Bearer,
    }
}

fn withdrawal(target: Target, position: u64) -> Withdrawal {
    Withdrawal {
        id: Id::new("w-1").unwrap(),
        target,
        position,
        at: Timestamp::UNIX_EPOCH,
        by: "user:ops@acme".to_owned(),
        reason: None,
        cause: Cause::Withdrawn,
        until: Timestamp::UNIX_EPOCH,
    }
}

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

const PASSED: [&str; 14] = [
    "user:https://sso.example#alice",
    "session:https://sso.example#s-1",
    "agent:https://countersign.example#planner",
    "agent:https://countersign.example#worker",
    "instance:https://countersign.example#planner#planner-1",
    "task:ticket-1",
    "run:run-1",
    "grant:g-own",
    "grant:g-parent",
    "token:https://countersign.example#jti-own",
    "token:https://countersign.example#jti-parent",
    "tenant:acme",
    "task:ticket-1",
    "run:run-1",
];

const NOT_PASSED: [&str; 15] = [
    "user:https://sso.example#bob",
    "user:https://other.example#alice",
    "user:https://countersign.example#planner",
    "agent:https://sso.example#alice",
    "agent:https://other.example#worker",
    "session:https://countersign.example#s-1",
    "session:https://sso.example#s-2",
    "instance:https://countersign.example#worker#planner-1",
    "instance:https://countersign.example#planner#planner-2",
    "task:run-1",
    "run:ticket-1",
    "grant:ticket-1",
    "token:https://other.example#jti-own",
    "token:https://countersign.example#jti-other",
    "tenant:other",
];

#[test]
fn whatever_a_chain_passes_through_takes_it_back_and_nothing_else_does() {
    for text in PASSED {
        assert!(withdrawal(target(text), 10).covers(&delegation(Some(9))), "{text}");
        assert!(withdrawal(target(text), 10).covers(&delegation(None)), "{text}");
        assert!(!withdrawal(target(text), 10).covers(&delegation(Some(10))), "{text}");
    }
    for text in NOT_PASSED {
        assert!(!withdrawal(target(text), u64::MAX).covers(&delegation(None)), "{text}");
    }
}

#[test]
fn only_the_end_of_a_task_is_called_so() {
    let of = |text: &str, cause| Withdrawal { cause, ..withdrawal(target(text), 1) }.code();
    assert_eq!(of("task:t", Cause::Ended), Code::TaskEnded);
    assert_eq!(of("task:t", Cause::Withdrawn), Code::Withdrawn);
    assert_eq!(of("session:https://sso.example#s", Cause::Ended), Code::Withdrawn);
}

#[test]
fn a_target_is_written_as_a_tagged_object_and_nothing_else_is_one() {
    let task = serde_json::json!({"kind": "task", "id": "ticket-1"});
    assert_eq!(serde_json::to_value(target("task:ticket-1")).unwrap(), task);
    assert_eq!(serde_json::from_value::<Target>(task).unwrap(), target("task:ticket-1"));
    for bad in [
        serde_json::json!({"kind": "task"}),
        serde_json::json!({"kind": "everything"}),
        serde_json::json!({"kind": "task", "id": "a b"}),
        serde_json::json!({"kind": "task", "id": "a", "issuer": "b"}),
        serde_json::json!({"kind": "session", "issuer": "", "sid": "a"}),
        serde_json::json!({"kind": "session", "issuer": "a", "sid": "a\nb"}),
        serde_json::json!({"kind": "token", "issuer": "a", "jti": "x".repeat(MAX_NAME_BYTES + 1)}),
    ] {
        assert!(serde_json::from_value::<Target>(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn a_name_without_an_issuer_takes_the_one_at_hand() {
    assert_eq!(Target::read("user:alice", Some(SSO)), Ok(target("user:https://sso.example#alice")));
    assert_eq!(Target::read("instance:planner#p-1", Some(AUTHORITY)).unwrap().to_string(), {
        "instance:https://countersign.example#planner#p-1"
    });
    assert_eq!("user:alice".parse::<Target>(), Err(InvalidTarget::Issuer));
    assert_eq!("instance:planner".parse::<Target>(), Err(InvalidTarget::Instance));
    for text in ["", "task", "tasks:a", "task:", "task:a b", "user:#alice", "session:https://sso.example#"] {
        assert!(text.parse::<Target>().is_err(), "{text}");
    }
}

fn names() -> impl Strategy<Value = String> {
    "[a-z#%:/@235\\.-]{1,12}"
}

fn targets() -> impl Strategy<Value = Target> {
    (0..9, names(), names(), names()).prop_map(|(kind, first, second, third)| match kind {
        0 => Target::User { issuer: first, id: Id::new(&second).unwrap() },
        1 => Target::Session { issuer: first, sid: second },
        2 => Target::Agent { issuer: first, id: Id::new(&second).unwrap() },
        3 => Target::Instance { issuer: first, agent: Id::new(&second).unwrap(), instance: third },
        4 => Target::Task { id: Id::new(&first).unwrap() },
        5 => Target::Run { id: Id::new(&first).unwrap() },
        6 => Target::Grant { id: Id::new(&first).unwrap() },
        7 => Target::Token { issuer: first, jti: second },
        _ => Target::Tenant { id: Id::new(&first).unwrap() },
    })
}

proptest! {
    #[test]
    fn a_later_withdrawal_covers_no_less_and_a_later_token_is_covered_no_more(
        text in prop::sample::select(&PASSED[..]),
        issued in prop::option::of(0_u64..50),
        at in 0_u64..50,
        later in 0_u64..50,
    ) {
        let covered = withdrawal(target(text), at).covers(&delegation(issued));
        if covered {
            prop_assert!(withdrawal(target(text), at + later).covers(&delegation(issued)));
        } else {
            prop_assert!(!withdrawal(target(text), at).covers(&delegation(issued.map(|issued| issued + later))));
        }
        prop_assert_eq!(covered, issued.is_none_or(|issued| issued < at));
    }

    #[test]
    fn a_chain_that_does_not_pass_through_the_target_is_never_covered(target in targets(), at in any::<u64>()) {
        let delegation = delegation(None);
        let passed = PASSED.iter().any(|text| text.parse::<Target>().unwrap() == target);
        prop_assert_eq!(withdrawal(target, at).covers(&delegation), passed);
    }

    #[test]
    fn what_is_printed_is_read_again_as_the_same_target(target in targets()) {
        prop_assert_eq!(&target.to_string().parse::<Target>().unwrap(), &target);
        let json = serde_json::to_string(&target).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Target>(&json).unwrap(), &target);
    }

    #[test]
    fn no_text_makes_the_reader_fail_otherwise_than_with_an_answer(text in "\\PC{0,40}") {
        if let Ok(target) = text.parse::<Target>() {
            prop_assert_eq!(&target.to_string().parse::<Target>().unwrap(), &target);
        }
    }
}
