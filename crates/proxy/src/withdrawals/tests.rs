//! The view: nothing is un-withdrawn, whatever the authority says or how much of it; memory has an end.

mod calls;

use model::{
    Id, Target,
    withdrawal::{Cause, passages},
};
use serde_json::json;

use super::*;
use crate::testing;

const ISSUED: Option<u64> = Some(100);

fn now() -> Timestamp {
    "2026-03-14T14:00:00Z".parse().unwrap()
}

fn withdrawal(id: &str, target: &str, position: u64) -> Withdrawal {
    Withdrawal {
        id: Id::new(id).unwrap(),
        target: target.parse().unwrap(),
        position,
        at: now(),
        by: "user:ops@acme".to_owned(),
        reason: Some("lost laptop".to_owned()),
        cause: Cause::Withdrawn,
        until: "2026-03-15T14:00:00Z".parse().unwrap(),
    }
}

fn news(generation: &str, withdrawals: Vec<Withdrawal>) -> News {
    let position = withdrawals.last().map_or(0, |withdrawal| withdrawal.position);
    News {
        generation: generation.to_owned(),
        began: Timestamp::UNIX_EPOCH,
        position,
        withdrawals,
        fresh_as_of: Some(net::clock::boottime()),
        keys: None,
    }
}

fn found(view: &Withdrawals, target: &str, position: Option<u64>) -> bool {
    let target: Target = target.parse().unwrap();
    view.find(std::iter::once(target.borrowed()), position).is_some()
}

#[test]
fn the_view_finds_what_the_rule_covers_and_nothing_else() {
    let delegation = testing::delegation();
    let passed = passages(&delegation).count();
    assert!(passed > 5, "{passed}");
    for target in ["run:run-1", "user:https://sso.example#bob", "tenant:acme", "run:other"] {
        for position in [99, 100, 101] {
            let one = withdrawal("w", target, position);
            let view = Withdrawals::default();
            view.hear(news("g", vec![one.clone()]), now()).unwrap();
            let mut issued = delegation.clone();
            issued.position = ISSUED;
            assert_eq!(view.find(passages(&issued), ISSUED).is_some(), one.covers(&issued), "{target} {position}");
        }
    }
}

#[test]
fn a_later_withdrawal_of_the_same_target_takes_the_place_of_the_one_before() {
    let view = Withdrawals::default();
    view.hear(news("g", vec![withdrawal("w1", "task:t", 50), withdrawal("w2", "task:t", 150)]), now()).unwrap();
    assert_eq!(view.state().held, 1);
    assert!(found(&view, "task:t", ISSUED) && !found(&view, "task:t", Some(150)));
}

#[test]
fn a_token_is_good_as_long_as_the_key_that_signed_it_is() {
    let view = Withdrawals::default();
    let mut delegation = testing::delegation();
    delegation.token.key_id = Some("one".to_owned());
    let looked = |delegation: &Delegation, followed| {
        view.look(delegation, Issued { followed, position: Some(u64::MAX) }).map(|found| found.code)
    };
    let told = |issuer: &str, ids: &[&str]| {
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        let keys = Some(GoodKeys { issuer: issuer.to_owned(), ids });
        view.hear(News { keys, ..news("g", vec![]) }, now()).unwrap();
    };
    let issuer = delegation.token.issuer.clone();
    assert_eq!(looked(&delegation, true), None, "an authority that says nothing of keys");
    told(&issuer, &["one", "two"]);
    assert_eq!(looked(&delegation, true), None);
    told(&issuer, &["two"]);
    assert_eq!((looked(&delegation, true), looked(&delegation, false)), (Some(Code::Withdrawn), None));
    // An answer that does not say takes nothing back.
    view.hear(news("g", vec![]), now()).unwrap();
    assert_eq!(looked(&delegation, true), Some(Code::Withdrawn));
    delegation.token.key_id = None;
    told(&issuer, &[]);
    assert_eq!(looked(&delegation, true), Some(Code::Withdrawn));
    told("https://another.example", &[]);
    assert_eq!(looked(&delegation, true), None, "another issuer's keys say nothing of this one's");
}

#[test]
fn a_restored_authority_un_withdraws_nothing() {
    let view = Withdrawals::default();
    view.hear(news("first", vec![withdrawal("w1", "task:kept", 40), withdrawal("w2", "task:lost", 90)]), now())
        .unwrap();
    assert!(!found(&view, "task:lost", ISSUED), "issued after it");
    // The backup was taken between the two. Its positions say nothing about those of before.
    let mut again = news("second", vec![withdrawal("w1", "task:kept", 40)]);
    again.began = now();
    view.hear(again, now()).unwrap();
    for position in [None, Some(0), ISSUED, Some(u64::MAX)] {
        assert!(found(&view, "task:lost", position), "whoever was withdrawn stays so: {position:?}");
    }
    assert!(
        found(&view, "task:kept", Some(39)) && !found(&view, "task:kept", Some(41)),
        "the authority knows this one"
    );
    let issued = Issued { followed: true, position: ISSUED };
    let mut delegation = testing::delegation();
    delegation.token.issued_at = "2026-03-14T13:59:59Z".parse().unwrap();
    assert_eq!(view.look(&delegation, issued).map(|found| found.code), Some(Code::Withdrawn));
    delegation.token.issued_at = now();
    assert_eq!(view.look(&delegation, issued), None);
    // Back at the first generation, another replica: what was said in between is not forgotten either.
    view.hear(news("first", vec![withdrawal("w3", "task:third", 91)]), now()).unwrap();
    delegation.token.issued_at = "2026-03-14T13:59:59Z".parse().unwrap();
    assert!(view.look(&delegation, issued).is_some() && found(&view, "task:lost", ISSUED));
}

#[test]
fn what_no_token_can_be_good_for_any_more_is_forgotten() {
    let view = Withdrawals::default();
    view.hear(news("g", vec![withdrawal("w", "task:t", 150)]), now()).unwrap();
    let almost = "2026-03-15T13:59:59Z".parse().unwrap();
    view.hear(news("g", vec![]), almost).unwrap();
    assert!(found(&view, "task:t", ISSUED));
    view.hear(news("g", vec![]), "2026-03-15T14:01:00Z".parse().unwrap()).unwrap();
    assert!(!found(&view, "task:t", ISSUED));
    assert!(!view.any.load(Ordering::Acquire), "and a call asks nothing again");
}

#[test]
fn a_flood_is_held_as_everything_before_and_refuses_more_never_less() {
    let view = Withdrawals::default();
    for batch in 0..70 {
        let some = (1..=1000).map(|n| batch * 1000 + n);
        let some = some.map(|n| withdrawal(&format!("w{n}"), &format!("task:t{n}"), n)).collect();
        view.hear(news("g", some), now()).unwrap();
    }
    let held = view.state().held;
    assert!(held < 40_000, "{held}");
    for n in [1, 2, 20_000, 45_000, 70_000] {
        let target = format!("task:t{n}");
        assert!(found(&view, &target, None) && found(&view, &target, Some(n - 1)), "{n}");
    }
    assert!(found(&view, "task:innocent", Some(1)), "from before the flood");
    assert!(!found(&view, "task:innocent", Some(69_000)), "a new token is good");
    assert!(!found(&view, "task:t70000", Some(70_000)));
}

#[test]
fn more_lost_than_can_be_remembered_makes_the_view_old_and_not_forgetful() {
    let view = Withdrawals::default();
    let first = (1..=60_000).map(|n| withdrawal(&format!("a{n}"), &format!("task:a{n}"), n)).collect();
    view.hear(news("a", first), now()).unwrap();
    let half = (1..=30_000).map(|n| withdrawal(&format!("b{n}"), &format!("task:b{n}"), n)).collect();
    view.hear(news("b", half), now()).unwrap();
    assert_eq!(view.state().held, 90_000);
    let refused = view.hear(news("c", vec![withdrawal("w", "task:new", 1)]), now());
    assert!(refused.unwrap_err().contains("earlier generations"));
    assert!(found(&view, "task:a1", ISSUED) && found(&view, "task:b1", Some(0)) && !found(&view, "task:new", None));
    let tomorrow = "2026-03-15T14:01:00Z".parse().unwrap();
    view.hear(news("c", vec![]), tomorrow).unwrap();
    assert_eq!(view.state().held, 0, "and it comes to an end by itself");
}

#[test]
fn a_view_is_as_old_as_the_last_question_that_was_answered_whole() {
    let view = Withdrawals::default();
    assert_eq!((view.staleness(), view.caught_up()), (None, false));
    let mut first = news("g", vec![withdrawal("w", "task:t", 1)]);
    first.fresh_as_of = None;
    view.hear(first, now()).unwrap();
    assert!(!view.caught_up(), "more is to come");
    view.hear(news("g", vec![]), now()).unwrap();
    assert!(view.caught_up());
    let as_of = view.fresh_as_of.load(Ordering::Acquire);
    let mut older = news("g", vec![]);
    older.fresh_as_of = Some(Duration::from_nanos(1));
    view.hear(older, now()).unwrap();
    assert_eq!(view.fresh_as_of.load(Ordering::Acquire), as_of, "an older answer makes nothing younger or older");
    view.fail("connection refused".to_owned());
    assert_eq!(view.state().failing.as_deref(), Some("connection refused"));
}

#[test]
fn an_issuer_that_is_not_followed_has_no_position_here() {
    let following = Following {
        read: Duration::from_secs(60),
        write: Duration::from_secs(5),
        issuers: ["https://followed.example".to_owned()].into(),
    };
    assert_eq!(Issued::new(&following, "https://followed.example", Some(7)).position, Some(7));
    assert_eq!(Issued::new(&following, "https://other.example", Some(7)), Issued { followed: false, position: None });
    assert_eq!(json!(Code::AuthorityStale), "authority_stale");
}
