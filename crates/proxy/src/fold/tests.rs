//! Loops of refusals: the first ones have records, the others a summary, and memory has an end.

use std::time::Duration;

use model::{Code, PrincipalKind};

use super::*;
use crate::testing::{arrival, delegation, principal};

fn trail() -> Trail {
    let mut trail = Trail::new(arrival());
    trail.delegation = Some(Arc::new(delegation()));
    trail
}

fn of_user(user: &str) -> Trail {
    let mut trail = Trail::new(arrival());
    trail.seen = Some(Box::new(token::Seen {
        issuer: "https://issuer.example".into(),
        digest: "d".into(),
        jti: None,
        user: Some(principal(PrincipalKind::User, user)),
        agent: None,
        tenant: None,
        run: None,
        task: None,
        position: None,
        bound_to: None,
    }));
    trail
}

#[test]
fn the_first_of_a_kind_are_recorded_and_the_others_folded_until_the_window_is_over() {
    let folding = Folding::new(3);
    let start = net::clock::monotonic();
    let trails: Vec<Trail> = (0..5).map(|_| trail()).collect();
    let fates: Vec<Fate> = trails.iter().map(|trail| folding.fate(trail, Code::PolicyDenied, start)).collect();
    assert_eq!(fates, [Fate::Recorded, Fate::Recorded, Fate::Recorded, Fate::Folded, Fate::Folded]);
    assert_eq!(folding.fate(&trail(), Code::Stage, start), Fate::Recorded, "another code is another kind");

    let folded = folding.take(start);
    let [folded] = folded.as_slice() else { panic!("{folded:?}") };
    assert_eq!((folded.count, folded.code), (2, Code::PolicyDenied));
    assert_eq!((&folded.first, folded.like.as_ref()), (&trails[3].arrival.id, Some(&trails[2].arrival.id)));
    assert_eq!(folded.user, Some(principal(PrincipalKind::User, "alice")));
    assert_eq!(folded.agent, Some(principal(PrincipalKind::Agent, "helper")));
    assert!(folding.take(start).is_empty(), "a summary is written once");

    assert_eq!(folding.fate(&trail(), Code::PolicyDenied, start + WINDOW / 2), Fate::Folded);
    assert_eq!(folding.fate(&trail(), Code::PolicyDenied, start + WINDOW), Fate::Recorded);
    assert_eq!(folding.take(start + WINDOW)[0].count, 1, "what was folded before is not lost");
}

#[test]
fn many_kinds_of_one_agent_have_an_end_too() {
    let folding = Folding::new(1);
    let now = net::clock::monotonic();
    let recorded = Code::ALL.iter().filter(|code| folding.fate(&trail(), **code, now) == Fate::Recorded).count();
    assert_eq!(recorded, 10);
    let rest = folding.take(now);
    assert_eq!(rest.len(), Code::ALL.len() - 10);
    assert!(rest.iter().all(|folded| folded.like.is_none() && folded.count == 1));
}

#[test]
fn a_loop_of_one_kind_takes_nothing_of_what_the_others_have() {
    let folding = Folding::new(2);
    let now = net::clock::monotonic();
    for round in 0..1000 {
        let fate = folding.fate(&trail(), Code::Stage, now);
        assert_eq!(fate, if round < 2 { Fate::Recorded } else { Fate::Folded });
    }
    assert_eq!(folding.fate(&trail(), Code::UnknownTool, now), Fate::Recorded);
}

#[test]
fn somebody_elses_refusals_are_not_folded_with_them_and_nobodys_not_at_all() {
    let folding = Folding::new(1);
    let now = net::clock::monotonic();
    assert_eq!(folding.fate(&trail(), Code::Stage, now), Fate::Recorded);
    assert_eq!(folding.fate(&trail(), Code::Stage, now), Fate::Folded);
    assert_eq!(folding.fate(&of_user("bob"), Code::Stage, now), Fate::Recorded);
    for _ in 0..10 {
        assert_eq!(folding.fate(&Trail::new(arrival()), Code::InvalidToken, now), Fate::Counted);
    }
}

#[test]
fn kinds_without_number_take_no_memory_without_end() {
    let folding = Folding::new(1);
    let now = net::clock::monotonic();
    for user in 0..MAX_KINDS {
        let fate = folding.fate(&of_user(&format!("user-{user}")), Code::Stage, now);
        assert_eq!(fate, if user < 10 { Fate::Recorded } else { Fate::Folded });
    }
    assert_eq!(folding.fate(&of_user("one-more"), Code::Stage, now), Fate::Counted);
    folding.take(now + WINDOW);
    let left = folding.state();
    assert_eq!(left.kinds.len() + left.agents.len(), 0);
    drop(left);
    assert_eq!(folding.fate(&of_user("one-more"), Code::Stage, now + WINDOW), Fate::Recorded);
}

#[test]
fn what_the_ledger_did_not_take_is_in_the_next_summary() {
    let folding = Folding::new(1);
    let now = net::clock::monotonic();
    let first = [trail(), trail()];
    for trail in &first {
        folding.fate(trail, Code::Stage, now);
    }
    let folded = folding.take(now).pop().unwrap();
    folding.fate(&trail(), Code::Stage, now + Duration::from_secs(1));
    folding.put_back(&folded, now + Duration::from_secs(1));
    let again = folding.take(now + Duration::from_secs(2)).pop().unwrap();
    assert_eq!((again.count, &again.first), (2, &first[1].arrival.id));
}
