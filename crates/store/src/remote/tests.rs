//! What a follower takes and what it does not: order, restores, lies, and more than fits one answer.

use model::{Id, Target, withdrawal::Cause};

use super::*;

fn listed(position: u64) -> Listed {
    let withdrawal = Withdrawal {
        id: Id::new(&format!("w-{position}")).unwrap(),
        target: Target::Task { id: Id::new("t").unwrap() },
        position,
        at: Timestamp::UNIX_EPOCH,
        by: "user:ops".to_owned(),
        reason: None,
        cause: Cause::Withdrawn,
        until: Timestamp::UNIX_EPOCH,
    };
    Listed { position, withdrawal }
}

fn answer(generation: &str, head: u64, positions: &[u64], more: bool) -> Answer {
    Answer {
        generation: generation.to_owned(),
        began: Timestamp::UNIX_EPOCH,
        head,
        changes: positions.iter().map(|position| listed(*position)).collect(),
        more,
        keys: None,
        pins: None,
    }
}

const fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_question_reads_as_it_was_written() {
    for (after, wait) in [(0, Duration::ZERO), (17, Duration::from_millis(1500)), (u64::MAX, MAX_WAIT)] {
        let question = Question { after, wait };
        assert_eq!(Question::parse(Some(&question.query())), Ok(question));
    }
    assert_eq!(Question::parse(None), Ok(Question { after: 0, wait: Duration::ZERO }));
    assert_eq!(Question::parse(Some("wait=3600&after=2")), Ok(Question { after: 2, wait: MAX_WAIT }));
    for bad in
        ["after=-1", "after=x", "after=", "wait=inf", "wait=1e9", "wait=..", "after=1&after=2", "tenant=a", "after"]
    {
        assert!(Question::parse(Some(bad)).is_err(), "{bad}");
    }
    let long = format!("wait={}", "9".repeat(400));
    assert_eq!(Question::parse(Some(&long)), Ok(Question { after: 0, wait: MAX_WAIT }), "too much is the most");
}

#[test]
fn an_answer_moves_the_position_to_the_head_and_says_as_of_when() {
    let mut cursor = Cursor::default();
    let heard = cursor.take(answer("g", 9, &[3, 7], false), at(1)).unwrap();
    assert_eq!((heard.position, heard.fresh_as_of, heard.withdrawals.len()), (9, Some(at(1)), 2));
    let heard = cursor.take(answer("g", 9, &[], false), at(2)).unwrap();
    assert_eq!((cursor.position(), heard.fresh_as_of), (9, Some(at(2))));
}

#[test]
fn while_more_comes_than_fits_the_first_question_counts() {
    let mut cursor = Cursor::default();
    assert_eq!(cursor.take(answer("g", 4, &[1, 2], true), at(1)).unwrap().fresh_as_of, None);
    assert_eq!(cursor.position(), 2);
    // More was committed meanwhile, and the head of the first question is reached.
    assert_eq!(cursor.take(answer("g", 8, &[3, 4], true), at(2)).unwrap().fresh_as_of, Some(at(1)));
    assert_eq!(cursor.take(answer("g", 8, &[5, 6], true), at(3)).unwrap().fresh_as_of, None);
    assert_eq!(cursor.take(answer("g", 8, &[7, 8], false), at(4)).unwrap().fresh_as_of, Some(at(4)));
}

#[test]
fn what_goes_backwards_or_contradicts_itself_changes_nothing() {
    let mut cursor = Cursor::default();
    cursor.take(answer("g", 5, &[5], false), at(1)).unwrap();
    let before = cursor.clone();
    let mut lying = answer("g", 9, &[7], false);
    lying.changes[0].withdrawal.position = 2;
    for answer in [
        answer("g", 9, &[5], false),
        answer("g", 9, &[8, 7], false),
        answer("g", 9, &[7, 7], false),
        answer("g", 9, &[10], false),
        answer("g", 9, &[], true),
        lying,
    ] {
        assert!(matches!(cursor.take(answer, at(2)), Err(NotHeard::Malformed(_))));
    }
    assert_eq!(cursor, before);
}

#[test]
fn an_authority_that_went_back_does_not_look_fresh_and_is_asked_for_everything_once_it_is_as_far_again() {
    let mut cursor = Cursor::default();
    cursor.take(answer("g", 5, &[3, 5], false), at(1)).unwrap();
    for _ in 0..2 {
        let back = cursor.take(answer("g", 4, &[4], false), at(2));
        assert_eq!(back, Err(NotHeard::Backwards { head: 4, position: 5 }));
        assert_eq!(cursor.position(), 0);
    }
    // What stands at 4 and 5 now is not what stood there before.
    let heard = cursor.take(answer("g", 6, &[3, 4, 5], true), at(3)).unwrap();
    assert_eq!((heard.withdrawals.len(), heard.fresh_as_of, cursor.position()), (3, None, 5));
    let heard = cursor.take(answer("g", 6, &[6], false), at(4)).unwrap();
    assert_eq!((heard.withdrawals.len(), heard.fresh_as_of, cursor.position()), (1, Some(at(4)), 6));
}

#[test]
fn another_generation_is_asked_for_from_its_beginning() {
    let mut cursor = Cursor::default();
    cursor.take(answer("first", 50, &[40], false), at(1)).unwrap();
    // Asked after 50: the restored database has more than that by now, and what is before 50 is missing here.
    let heard = cursor.take(answer("second", 60, &[55], false), at(2)).unwrap();
    assert_eq!((heard.generation.as_str(), heard.fresh_as_of, heard.withdrawals.len()), ("second", None, 0));
    assert_eq!(cursor.position(), 0);
    let heard = cursor.take(answer("second", 60, &[7, 55], false), at(3)).unwrap();
    assert_eq!((heard.position, heard.fresh_as_of, heard.withdrawals.len()), (60, Some(at(3)), 2));
}
