//! The decisions of a ledger, read segment by segment for whoever decides them again.

use std::collections::BTreeSet;

use super::*;
use crate::{
    decisions::{self, Batches},
    erasure::{Erasure, Person},
    rebuild::{self, NotReplayable},
};

fn all(dir: &Path) -> Vec<decisions::Decided> {
    let segments = decisions::segments(dir, None, None).unwrap();
    assert!(segments.len() > 2, "{segments:?}");
    let (mut found, mut bytes) = (Vec::new(), 0);
    let mut batches = Batches::of(dir, &segments);
    while let Some(batch) = batches.next_batch().unwrap() {
        bytes += batch.bytes();
        let decided: Vec<_> = batch.decided().map(Result::unwrap).collect();
        assert_eq!(decided.len(), batch.len());
        found.extend(decided);
    }
    assert_eq!(bytes, segments.iter().map(|segment| segment.bytes).sum::<u64>(), "what progress is told by");
    found
}

#[tokio::test]
async fn every_decision_comes_once_with_the_question_that_explain_puts_together() {
    let dir = tempfile::tempdir().unwrap();
    let kept = try_open(LedgerSettings { segment_max_bytes: 6000, ..settings(dir.path()) }).await.unwrap();
    let (alice, bob) = (
        Arc::new(testing::delegation()),
        Arc::new(testing::delegation_of("bob@acme", "https://sso.example/realms/acme")),
    );
    let mut ids = BTreeSet::new();
    for number in 0..5 {
        ids.insert(kept.call(number * 10, &alice).await);
        ids.insert(kept.call(number * 10 + 1, &bob).await);
    }
    kept.close().await;
    let ledger = dir.path().join("ledger");
    let mut seen = BTreeSet::new();
    for decided in all(&ledger) {
        let question = decided.question.unwrap();
        let found = query::find(&ledger, question.id.as_str()).unwrap().unwrap();
        assert_eq!(rebuild::question(&found.decided, &found.token_seen.unwrap()).unwrap(), question);
        assert!(seen.insert(question.id));
    }
    assert_eq!(seen, ids);
}

#[tokio::test]
async fn an_erased_decision_says_which_values_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let kept = try_open(LedgerSettings { segment_max_bytes: 6000, ..settings(dir.path()) }).await.unwrap();
    let (alice, bob) = (
        Arc::new(testing::delegation()),
        Arc::new(testing::delegation_of("bob@acme", "https://sso.example/realms/acme")),
    );
    for number in 0..5 {
        kept.call(number * 10, &alice).await;
        kept.call(number * 10 + 1, &bob).await;
    }
    let person = Person { user: "alice@acme".to_owned(), issuer: None, tenant: None };
    kept.ledger
        .erase(Erasure::new(person, "the data protection officer", "request 17 of 2026").unwrap())
        .await
        .unwrap();
    kept.close().await;
    let (mut whole, mut erased) = (0, 0);
    for decided in all(&dir.path().join("ledger")) {
        match decided.question {
            Ok(question) => {
                assert_eq!(question.delegation.chain.user().principal.id.as_str(), "bob@acme");
                whole += 1;
            }
            Err(NotReplayable::Erased { paths }) => {
                assert!(paths.iter().any(|path| path == "/resource"), "{paths:?}");
                erased += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((whole, erased), (5, 5));
}

#[test]
fn a_record_is_what_it_says_itself_not_what_something_within_it_is_called() {
    let dir = tempfile::tempdir().unwrap();
    let line = |seq: u64, kind: &str, within: &str| {
        let time = "2026-03-14T14:30:00Z";
        serde_json::json!({ "v": 1, "seq": seq, "time": time, "kind": kind, "in": { "kind": within } }).to_string()
            + "\n"
    };
    let lines = [line(0, "call.decided", "token.seen"), line(1, "policy.compared", "call.decided")];
    std::fs::write(dir.path().join("00000001.jsonl"), lines.concat()).unwrap();
    let mut batches = Batches::of(dir.path(), &decisions::segments(dir.path(), None, None).unwrap());
    let batch = batches.next_batch().unwrap().unwrap();
    let decided: Vec<u64> = batch.decided().map(|decided| decided.unwrap().entry.seq).collect();
    assert_eq!(decided, [0]);
}
