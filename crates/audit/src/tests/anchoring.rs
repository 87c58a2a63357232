//! Heads that were anchored elsewhere: each continues the one before through seals and retirement, and whoever has the
//! ledger's own key cannot rewrite what they cover.

use std::fs;

use aws_lc_rs::signature::Ed25519KeyPair;

use super::*;
use crate::{
    Head, RetentionConfig, VerifyingKey, canonical,
    heads::notes,
    keys,
    segment::{self, HEAD_FILE, Paths, Position, Seal},
    ship::{
        anchor::{Anchor, Claim, NotAnchored},
        anchoring::Source,
    },
    verify::{Broken, Options, VerifyError},
};

/// What a sidecar would say of the newest head in `dir`, where the authority has `anchored`.
fn claim(dir: &Path, anchored: u64) -> (Claim, VerifyingKey) {
    let ledger = dir.join("ledger");
    let note = fs::read_to_string(ledger.join(HEAD_FILE)).unwrap();
    let key = crate::opening::About::read(&ledger).unwrap().unwrap().verifying_key.parse().unwrap();
    let head = Head::verify(&note, &key).unwrap();
    let (after, span) = Source { anchored: Some(anchored), reading: None }.span(&ledger, head.size).unwrap();
    let subtrees = span.written();
    (Claim { ledger: key.to_string(), proof: String::new(), after, subtrees, note }, key)
}

/// The newest head with everything that it covers.
async fn signed(kept: &Kept) -> u64 {
    let pen = kept.ledger.pen();
    blocking(move || pen.sign().unwrap()).await;
    kept.ledger.head().unwrap().size
}

#[tokio::test]
async fn each_head_continues_the_one_that_was_anchored_before_through_seals_and_compression() {
    let dir = tempfile::tempdir().unwrap();
    let small =
        LedgerSettings { segment_max_bytes: 4000, compress_after: Some(Duration::ZERO), ..settings(dir.path()) };
    let kept = try_open(small).await.unwrap();
    let delegation = Arc::new(testing::delegation());
    let (mut anchor, mut notes) = (Anchor::default(), Vec::new());
    for number in 0..12 {
        kept.call(number, &delegation).await;
        let size = signed(&kept).await;
        let (claim, key) = claim(dir.path(), anchor.size());
        let (next, head) = anchor.extended(&claim, &key).unwrap();
        assert_eq!((next.size(), head.size), (size, size));
        notes.push(claim.note);
        anchor = next;
    }
    eventually("a compressed segment", || dir.path().join("ledger/00000002.jsonl.gz").exists()).await;
    // Whoever has nothing yet is told of all at once, and whoever stands in the middle goes on from there.
    for anchored in [0, 1, 7] {
        let (claim, key) = claim(dir.path(), anchored);
        assert_eq!(claim.after, anchored);
        let judged = Anchor::default().extended(&claim, &key);
        assert_eq!(judged.is_ok(), anchored == 0, "{anchored}: {judged:?}");
    }
    kept.close().await;
    let report =
        verify::verify(&dir.path().join("ledger"), &Options { heads: notes, ..Options::default() }, |_| {}).unwrap();
    assert!(report.tail_checked && report.segments > 4);
}

#[tokio::test]
async fn retention_waits_for_what_is_not_anchored() {
    let dir = tempfile::tempdir().unwrap();
    let retention = RetentionConfig { max_age: None, max_bytes: Some(1) };
    let kept = try_open(LedgerSettings { segment_max_bytes: 4000, retention, ..settings(dir.path()) }).await.unwrap();
    kept.ledger.needed_from("anchoring", 0);
    let delegation = Arc::new(testing::delegation());
    for number in 0..8 {
        kept.call(number, &delegation).await;
    }
    let first = || segment::list(&dir.path().join("ledger")).unwrap()[0];
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(first(), 1, "nothing goes");
    let seal = Seal::read(&Paths::new(&dir.path().join("ledger"), 2).seal).unwrap().unwrap();
    kept.ledger.needed_from("anchoring", seal.first_seq + 1);
    eventually("the first segment to be retired", || first() == 2).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(first(), 2, "the second has a line that is needed");
    let (claim, key) = claim(dir.path(), seal.first_seq);
    assert_eq!(claim.after, seal.first_seq, "what is left leads from there");
    assert_eq!(Head::verify(&claim.note, &key).unwrap().size, kept.ledger.head().unwrap().size);
    kept.close().await;
}

/// Does what root can do who has the ledger's key: changes a record, and signs a ledger that holds together.
fn rewrite(dir: &Path, from: &str, to: &str) {
    let ledger = dir.join("ledger");
    let key = keys::load_or_create(&dir.join("ledger.key")).unwrap();
    let origin = crate::opening::About::read(&ledger).unwrap().unwrap().origin;
    let mut position = Position::genesis(&origin);
    for index in segment::list(&ledger).unwrap() {
        let paths = Paths::new(&ledger, index);
        let mut seal = Seal::read(&paths.seal).unwrap().unwrap();
        let old = fs::read_to_string(&paths.lines).unwrap();
        let sizes: Vec<u64> = notes(&fs::read_to_string(&paths.heads).unwrap())
            .0
            .iter()
            .map(|note| Head::unverified(note).unwrap().size)
            .collect();
        let (mut lines, mut heads, mut sizes) = (String::new(), String::new(), sizes.into_iter().peekable());
        for line in old.lines() {
            let mut record: serde_json::Value = serde_json::from_str(&line.replace(from, to)).unwrap();
            record["prev"] = chain::encoded(&position.prev).into();
            let line = canonical::text(&record).unwrap();
            position.push(line.as_bytes());
            lines.push_str(&line);
            lines.push('\n');
            while sizes.next_if_eq(&position.seq()).is_some() {
                heads.push_str(&note(&origin, &position, &key));
                heads.push('\n');
            }
        }
        fs::write(&paths.lines, &lines).unwrap();
        fs::write(&paths.heads, &heads).unwrap();
        seal.line_bytes = lines.len() as u64;
        seal.last_hash = chain::encoded(&position.prev);
        seal.frontier = position.frontier.written();
        seal.heads_digest = chain::encoded(&chain::sha256(heads.as_bytes()));
        seal.head = note(&origin, &position, &key);
        fs::write(&paths.seal, canonical::text(&seal).unwrap()).unwrap();
    }
    fs::write(ledger.join(HEAD_FILE), note(&origin, &position, &key)).unwrap();
}

fn note(origin: &str, position: &Position, key: &Ed25519KeyPair) -> String {
    Head { origin: origin.to_owned(), size: position.seq(), root: position.frontier.root() }.sign(key)
}

#[tokio::test]
async fn a_ledger_that_was_rewritten_with_its_own_key_is_found_out_by_an_anchored_head() {
    let dir = tempfile::tempdir().unwrap();
    let kept = open(dir.path()).await;
    let delegation = Arc::new(testing::delegation());
    kept.call(1, &delegation).await;
    signed(&kept).await;
    let (first, key) = claim(dir.path(), 0);
    let anchor = Anchor::default().extended(&first, &key).unwrap().0;
    kept.call(2, &delegation).await;
    kept.close().await;
    verified(dir.path());

    rewrite(dir.path(), "refund_within_grant", "always_was_allowed");
    verified(dir.path());
    let options = Options { key: Some(key.clone()), heads: vec![first.note.clone()], ..Options::default() };
    let outcome = verify::verify(&dir.path().join("ledger"), &options, |_| {});
    let Err(VerifyError::Broken(Broken { segment, line, seq, why, .. })) = outcome else { panic!("{outcome:?}") };
    assert_eq!((segment, line, seq), (Some(1), Some(anchor.size()), Some(anchor.size() - 1)), "{why}");
    assert!(why.contains("a head from outside"), "{why}");
    // Nor is any later head of it taken by whoever has the first.
    let (claim, _) = claim(dir.path(), anchor.size());
    let refused = anchor.extended(&claim, &key).unwrap_err();
    assert!(matches!(refused, NotAnchored::Forked { .. }) && refused.is_of_another_history(), "{refused}");
    // What was not rewritten goes on being the same.
    rewrite(dir.path(), "always_was_allowed", "refund_within_grant");
    verify::verify(&dir.path().join("ledger"), &options, |_| {}).unwrap();
}
