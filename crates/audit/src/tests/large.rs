//! What is larger than readers take is not written: one record is refused, and the ledger goes on.

use std::fs;

use model::{ParameterKind, ParameterValue};

use super::*;
use crate::{
    Event,
    read::{Lines, MAX_LINE_BYTES},
    writer::readable,
};

/// A refund with a parameter that alone makes its companion row longer than `bytes`.
fn with_text(mut question: Question, bytes: usize) -> Question {
    question.call.parameters.set("note", ParameterKind::String, Some(ParameterValue::String("x".repeat(bytes))));
    question
}

#[tokio::test]
async fn a_record_larger_than_readers_take_is_refused_alone_and_the_ledger_still_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let kept = open(dir.path()).await;
    let delegation = Arc::new(testing::delegation());
    for number in 1..3 {
        let large = with_text(kept.question(number, &delegation), MAX_LINE_BYTES + 1);
        let refused = kept.ledger.decided(permitted(large)).await;
        assert!(matches!(refused, Err(LedgerError::TooLarge(_))), "{refused:?}");
    }
    assert!(kept.ledger.healthy());
    assert_eq!(kept.ledger.stats().failures, 0);
    let after = kept.call(3, &delegation).await;
    kept.close().await;

    let report = verified(dir.path());
    assert_eq!((report.segments, report.open_calls), (1, 0));
    let decided = matching(dir.path(), Filter { kind: Some("call.decided".to_owned()), ..Filter::default() });
    let ids: Vec<_> = decided.iter().filter_map(|entry| entry.text("decision_id")).collect();
    assert_eq!(ids, [after.as_str()]);
    let token = query::find(&dir.path().join("ledger"), after.as_str()).unwrap().unwrap().token_seen;
    assert!(token.is_some(), "the token was written with a record that was refused");
}

#[tokio::test]
async fn a_line_of_its_own_is_held_to_the_same_size() {
    let dir = tempfile::tempdir().unwrap();
    let kept = open(dir.path()).await;
    let event = |bytes: usize| Event::PolicyActivated {
        revision: "x".repeat(bytes),
        packages: Vec::new(),
        kept: None,
        bundles: Vec::new(),
        catalogue: None,
    };
    let refused = kept.ledger.event(event(MAX_LINE_BYTES)).await;
    assert!(matches!(refused, Err(LedgerError::TooLarge(_))), "{refused:?}");
    kept.ledger.event(event(100)).await.unwrap();
    kept.close().await;
    assert_eq!(kinds(&all(dir.path())), ["sidecar.started", "policy.activated", "sidecar.stopped"]);
    verified(dir.path());
}

#[test]
fn the_longest_line_that_is_written_is_the_longest_that_is_read() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (length, fits) in [(MAX_LINE_BYTES, true), (MAX_LINE_BYTES + 1, false)] {
        let line = "x".repeat(length);
        fs::write(file.path(), format!("{line}\n")).unwrap();
        let read = Lines::open(file.path()).unwrap().next();
        assert_eq!(read.is_ok_and(|read| read.is_some()), fits);
        assert_eq!(readable(line).is_ok(), fits);
    }
}
