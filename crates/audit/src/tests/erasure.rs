//! Erasing a person: every record of theirs loses its values, nobody else's does, and the chain says that it was done.

use std::{collections::BTreeSet, fs};

use serde_json::json;

use super::*;
use crate::{
    erasure::{self, Erasure, ErasureError, Person},
    keeper::{compress, erase, late, requests, retire},
    line, rebuild,
    segment::{self, Paths},
    stored::packed,
};

const SSO: &str = "https://sso.example/realms/acme";

fn person(user: &str) -> Person {
    Person { user: user.to_owned(), issuer: None, tenant: None }
}

fn request(user: &str) -> Erasure {
    Erasure::new(person(user), "the data protection officer", "request 17 of 2026").unwrap()
}

fn small(dir: &Path) -> LedgerSettings {
    LedgerSettings { segment_max_bytes: 6000, ..settings(dir) }
}

/// A running ledger of several segments in which alice and bob take turns; their decisions.
async fn of_two(dir: &Path) -> (Kept, Vec<String>, Vec<String>) {
    let kept = try_open(small(dir)).await.unwrap();
    let (alice, bob) = (Arc::new(testing::delegation()), Arc::new(testing::delegation_of("bob@acme", SSO)));
    let (mut of_alice, mut of_bob) = (Vec::new(), Vec::new());
    for number in 0..5 {
        of_alice.push(kept.call(number * 10, &alice).await.to_string());
        of_bob.push(kept.call(number * 10 + 1, &bob).await.to_string());
    }
    assert!(segment::list(&dir.join("ledger")).unwrap().len() > 2);
    (kept, of_alice, of_bob)
}

fn of_user(dir: &Path, user: &str) -> usize {
    matching(dir, Filter { user: Some(user.to_owned()), ..Filter::default() }).len()
}

#[tokio::test]
async fn a_person_is_erased_from_every_segment_and_nobody_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let (kept, of_alice, of_bob) = of_two(dir.path()).await;
    let asked = request("alice@acme");
    let erased = kept.ledger.erase(asked.clone()).await.unwrap();
    assert_eq!(erased.principal.as_ref().map(|principal| principal.id.as_str()), Some("alice@acme"));
    assert!(erased.segments.len() > 2 && erased.records >= 5, "{erased:?}");
    assert_eq!((erased.still_being_written, erased.mentions), (0, 5), "the facts of bob's calls have her id");
    // While the ledger runs, and after.
    for closed in [false, true] {
        let report = verified(dir.path());
        assert_eq!((report.erased, report.unfinished_erasures), (erased.values, 0));
        if !closed {
            kept.call(100, &Arc::new(testing::delegation_of("bob@acme", SSO))).await;
        }
    }
    kept.close().await;
    verified(dir.path());
    assert_eq!(of_user(dir.path(), "alice@acme"), 0);
    assert!(of_user(dir.path(), "bob@acme") >= 5);
    let ledger = dir.path().join("ledger");
    for id in &of_alice {
        let found = query::find(&ledger, id).unwrap().unwrap();
        let Err(rebuild::NotReplayable::Erased { paths }) =
            rebuild::question(&found.decided, &found.token_seen.unwrap())
        else {
            panic!("an erased value was guessed");
        };
        for path in ["/path", "/parameters", "/facts", "/resource", "token.seen/chain"] {
            assert!(paths.contains(&path.to_owned()), "{path} in {paths:?}");
        }
        assert!(line::for_person(&found.decided).contains("user:(erased)"));
    }
    for id in &of_bob {
        let found = query::find(&ledger, id).unwrap().unwrap();
        rebuild::question(&found.decided, &found.token_seen.unwrap()).unwrap();
    }
    // On record: who asked and why, and a commitment that only the salt opens.
    let records: Vec<_> = all(dir.path()).into_iter().filter(|entry| entry.kind == "values.erased").collect();
    assert_eq!(records.len(), erased.segments.len());
    for record in &records {
        assert_eq!(record.text("by"), Some("the data protection officer"));
        assert_eq!(record.text("reason"), Some("request 17 of 2026"));
        assert_eq!(record.text("erasure"), Some(asked.id()));
        assert_eq!(record.text("subject"), Some(asked.subject(erased.principal.as_ref()).unwrap().as_str()));
        assert!(!record.to_json().to_string().contains("alice"));
    }
}

#[tokio::test]
async fn what_one_person_loses_no_second_time_is_lost_and_new_records_of_theirs_can_be_erased_again() {
    let dir = tempfile::tempdir().unwrap();
    let (kept, ..) = of_two(dir.path()).await;
    let first = kept.ledger.erase(request("alice@acme")).await.unwrap();
    let again = kept.ledger.erase(request("alice@acme")).await.unwrap();
    assert_eq!((again.principal, again.records, again.segments.len()), (None, 0, 0));
    kept.call(200, &Arc::new(testing::delegation())).await;
    let new = kept.ledger.erase(request("alice@acme")).await.unwrap();
    assert!(new.records > 0 && new.segments.len() == 1);
    let nobody = kept.ledger.erase(request("nobody@acme")).await.unwrap();
    assert_eq!(nobody.records, 0);
    let bob = kept.ledger.erase(request("bob@acme")).await.unwrap();
    kept.close().await;
    let report = verified(dir.path());
    assert_eq!(report.erased, first.values + new.values + bob.values);
    assert_eq!(report.unfinished_erasures, 0, "a segment that two were erased from is as the second left it");
}

#[tokio::test]
async fn an_id_that_several_people_have_is_not_erased_before_it_is_clear_whose() {
    let dir = tempfile::tempdir().unwrap();
    let kept = open(dir.path()).await;
    kept.call(1, &Arc::new(testing::delegation())).await;
    kept.call(2, &Arc::new(testing::delegation_of("alice@acme", "https://other.example"))).await;
    let refused = kept.ledger.erase(request("alice@acme")).await;
    assert!(matches!(&refused, Err(ErasureError::Ambiguous(all)) if all.len() == 2), "{refused:?}");
    let one = Person { issuer: Some(SSO.to_owned()), tenant: Some("acme".to_owned()), ..person("alice@acme") };
    let erased = kept.ledger.erase(Erasure::new(one, "dpo", "17").unwrap()).await.unwrap();
    assert!(erased.records > 0);
    assert_eq!(of_user(dir.path(), "alice@acme"), 2, "the other one's call and its end");
    for (by, reason) in [("", "17"), ("dpo", " "), ("alice@acme", "17"), ("dpo", "asked by alice@acme")] {
        assert!(Erasure::new(person("alice@acme"), by, reason).is_err(), "{by}, {reason}");
    }
    kept.close().await;
    verified(dir.path());
}

/// Records a permitted refund whose body streams, so that its end says what it was.
async fn begin(kept: &Kept, number: u128, delegation: &Arc<Delegation>) -> Id<model::id::DecisionMark> {
    let decided = CallDecided { body: Body::Unseen, ..permitted(kept.question(number, delegation)) };
    kept.ledger.decided(decided).await.unwrap().id().clone()
}

async fn end(kept: &Kept, id: &Id<model::id::DecisionMark>) {
    let body = Some(Digest::of(b"what streamed"));
    kept.ledger.settled(CallSettled { body, ..completed(id) }).await.unwrap();
}

/// The companion rows there are of the end of `id`.
fn has_end_values(dir: &Path, id: &Id<model::id::DecisionMark>) -> bool {
    let of_end = |entry: &Entry| entry.kind == "call.settled" && entry.text("decision_id") == Some(id.as_str());
    let end = all(dir).into_iter().find(of_end).expect("the call has ended");
    assert_ne!(end.erased.is_empty(), end.fields.get("body").is_none());
    end.fields.contains_key("body")
}

fn late_erasures(dir: &Path) -> usize {
    let files = fs::read_dir(dir.join("ledger/requests")).into_iter().flatten();
    files.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|is| is == late::SUFFIX)).count()
}

#[tokio::test]
async fn what_the_end_of_a_call_brings_that_was_open_is_erased_when_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let kept = open(dir.path()).await;
    let (alice, bob) = (Arc::new(testing::delegation()), Arc::new(testing::delegation_of("bob@acme", SSO)));
    let (of_alice, second, of_bob) =
        (begin(&kept, 1, &alice).await, begin(&kept, 2, &alice).await, begin(&kept, 3, &bob).await);
    let erased = kept.ledger.erase(request("alice@acme")).await.unwrap();
    assert_eq!((erased.open_calls, erased.still_being_written, late_erasures(dir.path())), (2, 0, 1));
    end(&kept, &of_alice).await;
    end(&kept, &of_bob).await;
    eventually("the late end to be erased", || !has_end_values(dir.path(), &of_alice)).await;
    assert!(has_end_values(dir.path(), &of_bob));
    assert_eq!(late_erasures(dir.path()), 1, "one call is open still");
    end(&kept, &second).await;
    eventually("nothing to be waited for", || late_erasures(dir.path()) == 0).await;
    assert!(!has_end_values(dir.path(), &second) && has_end_values(dir.path(), &of_bob));
    let records: Vec<_> = all(dir.path()).into_iter().filter(|entry| entry.kind == "values.erased").collect();
    assert!(records.len() > 1 && records.iter().all(|one| one.text("erasure") == Some(&erased.erasure)));
    assert!(records.iter().all(|one| one.text("subject") == records[0].text("subject")));
    kept.close().await;
    assert_eq!(verified(dir.path()).unfinished_erasures, 0);
}

#[tokio::test]
async fn the_late_end_of_one_persons_call_does_not_go_with_another_person() {
    let dir = tempfile::tempdir().unwrap();
    let slow = LedgerSettings { keeper_interval: Duration::from_secs(600), ..settings(dir.path()) };
    let kept = try_open(slow).await.unwrap();
    let (alice, bob) = (Arc::new(testing::delegation()), Arc::new(testing::delegation_of("bob@acme", SSO)));
    let of_alice = begin(&kept, 1, &alice).await;
    let of_bob = kept.call(2, &bob).await;
    kept.ledger.erase(request("alice@acme")).await.unwrap();
    end(&kept, &of_alice).await;
    let found = erasure::look(&dir.path().join("ledger"), &person("bob@acme")).unwrap();
    let bobs: Vec<u64> = all(dir.path())
        .into_iter()
        .filter(|entry| entry.text_at("/user/id") == Some("bob@acme") || entry.kind == "token.seen")
        .filter(|entry| entry.erased.is_empty())
        .map(|entry| entry.seq)
        .collect();
    let seqs: Vec<u64> = found.rows.values().flatten().copied().collect();
    assert_eq!(seqs, bobs, "only what names bob: the decision {of_bob}, and his token");
    // Asked again, she has nothing, and what came late is gone.
    let again = kept.ledger.erase(request("alice@acme")).await.unwrap();
    assert_eq!((again.principal, again.records, again.open_calls), (None, 0, 0));
    eventually("the late end to be erased", || !has_end_values(dir.path(), &of_alice)).await;
    kept.close().await;
    assert_eq!(verified(dir.path()).unfinished_erasures, 0);
}

#[tokio::test]
async fn a_late_end_is_erased_by_the_next_start_too_and_none_is_waited_for_that_cannot_come() {
    let dir = tempfile::tempdir().unwrap();
    let slow = || LedgerSettings { keeper_interval: Duration::from_secs(600), ..settings(dir.path()) };
    let kept = try_open(slow()).await.unwrap();
    let alice = Arc::new(testing::delegation());
    let (ends, never) = (begin(&kept, 1, &alice).await, begin(&kept, 2, &alice).await);
    let erased = kept.ledger.erase(request("alice@acme")).await.unwrap();
    assert_eq!(erased.open_calls, 2);
    end(&kept, &ends).await;
    assert!(has_end_values(dir.path(), &ends));
    kept.crash().await;
    let kept = open(dir.path()).await;
    eventually("nothing to be waited for", || late_erasures(dir.path()) == 0).await;
    assert!(!has_end_values(dir.path(), &ends));
    let closed = all(dir.path()).into_iter().filter(|entry| entry.text("outcome") == Some("unknown")).count();
    assert_eq!(closed, 1, "the other one, {never}, was closed when the ledger was opened");
    kept.close().await;
    assert_eq!(verified(dir.path()).unfinished_erasures, 0);
}

#[tokio::test]
async fn an_erasure_that_failed_in_between_leaves_no_end_of_which_nobody_knows_whose_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let kept = open(dir.path()).await;
    let alice = Arc::new(testing::delegation());
    let call = begin(&kept, 1, &alice).await;
    let pen = kept.ledger.pen();
    blocking(move || pen.seal().unwrap()).await;
    end(&kept, &call).await;
    // Where the rest of the second segment would be written.
    let obstacle = dir.path().join("ledger/00000002.values.new");
    fs::create_dir(&obstacle).unwrap();
    let failed = kept.ledger.erase(request("alice@acme")).await;
    assert!(matches!(failed, Err(ErasureError::Ledger(LedgerError::Io { .. }))), "{failed:?}");
    fs::remove_dir(&obstacle).unwrap();
    let erased = kept.ledger.erase(request("alice@acme")).await.unwrap();
    assert_eq!(erased.segments, [1, 2]);
    assert!(!has_end_values(dir.path(), &call));
    kept.close().await;
    assert_eq!(verified(dir.path()).unfinished_erasures, 0);
}

#[tokio::test]
async fn an_erasure_that_names_nobody_says_so() {
    let asked = Erasure::new(person(""), "the data protection officer", "request 17");
    assert!(matches!(asked, Err(ErasureError::Missing("user"))), "{asked:?}");
}

#[tokio::test]
async fn people_are_erased_from_compressed_segments_too() {
    let dir = tempfile::tempdir().unwrap();
    let (kept, ..) = of_two(dir.path()).await;
    let ledger = dir.path().join("ledger");
    let paths = Paths::new(&ledger, 1);
    let pace = compress::Pace::new(&Arc::default());
    compress::compress(&paths.values, &pace).unwrap();
    // Of the second one, a crash left both forms.
    compress::pack(&Paths::new(&ledger, 2).values, &pace).unwrap();
    compress::take_place(&packed(&Paths::new(&ledger, 2).values)).unwrap();
    fs::write(ledger.join("00000002.values.torn"), "{\"seq\":99,\"values\":{\"/user\":\"alice@acme\"}}").unwrap();
    kept.ledger.erase(request("alice@acme")).await.unwrap();
    kept.ledger.erase(request("bob@acme")).await.unwrap();
    assert!(!paths.values.exists() && packed(&paths.values).exists());
    kept.close().await;
    assert_eq!(verified(dir.path()).unfinished_erasures, 0);
    assert_eq!(of_user(dir.path(), "alice@acme") + of_user(dir.path(), "bob@acme"), 0);
    for entry in fs::read_dir(&ledger).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = Vec::new();
        if path.extension().is_some_and(|extension| extension == "gz") {
            std::io::Read::read_to_end(&mut crate::stored::open(&path.with_extension("")).unwrap(), &mut bytes)
                .unwrap();
        } else {
            bytes = fs::read(&path).unwrap_or_default();
        }
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("alice@acme") && !text.contains("bob@acme"), "{}", path.display());
    }
}

#[tokio::test]
async fn whatever_step_of_an_erasure_is_the_last_before_a_crash_the_ledger_verifies_and_it_can_be_done_again() {
    for steps in 1..=3 {
        let dir = tempfile::tempdir().unwrap();
        let (kept, ..) = of_two(dir.path()).await;
        let (ledger, pen) = (dir.path().join("ledger"), kept.ledger.pen());
        blocking(move || {
            let asked = request("alice@acme");
            let found = erasure::look(&ledger, &asked.person).unwrap();
            let rewritten = erase::rewrite(&ledger, 1, &found.rows[&1]).unwrap();
            if steps > 1 {
                erase::put_on_record(&pen, &asked, "subject", 1, &rewritten).unwrap();
            }
            if steps > 2 {
                compress::take_place(&rewritten.path).unwrap();
            }
        })
        .await;
        kept.crash().await;
        let between = verified(dir.path());
        assert_eq!((between.erased > 0, between.unfinished_erasures), (steps == 3, u64::from(steps == 2)));
        let kept = try_open(small(dir.path())).await.unwrap();
        kept.ledger.erase(request("alice@acme")).await.unwrap();
        kept.close().await;
        let report = verified(dir.path());
        assert_eq!(report.unfinished_erasures, 0, "after step {steps}");
        assert_eq!(of_user(dir.path(), "alice@acme"), 0);
        assert!(!dir.path().join("ledger/00000001.values.new").exists());
    }
}

#[tokio::test]
async fn a_row_that_no_erasure_took_is_missed_even_in_a_segment_that_somebody_was_erased_from() {
    let dir = tempfile::tempdir().unwrap();
    let (kept, ..) = of_two(dir.path()).await;
    kept.ledger.erase(request("alice@acme")).await.unwrap();
    kept.close().await;
    let path = Paths::new(&dir.path().join("ledger"), 1).values;
    let text = fs::read_to_string(&path).unwrap();
    let fewer: String = text.split_inclusive('\n').skip(1).collect();
    fs::write(&path, fewer).unwrap();
    let broken = broken(dir.path());
    assert_eq!((broken.segment, broken.file.as_deref()), (Some(1), Some("00000001.values")));
    assert!(broken.why.contains("no erasure on record"), "{broken}");
}

#[tokio::test]
async fn a_record_of_an_erasure_counts_only_where_a_head_covers_it() {
    let dir = tempfile::tempdir().unwrap();
    let (kept, ..) = of_two(dir.path()).await;
    kept.crash().await;
    let ledger = dir.path().join("ledger");
    let last = *segment::list(&ledger).unwrap().last().unwrap();
    let values = Paths::new(&ledger, 1).values;
    fs::write(&values, "").unwrap();
    let digest = chain::encoded(&chain::sha256(b""));
    let record = json!({
        "kind": "values.erased", "erasure": "x", "segment": 1, "records": 9, "values": 9, "subject": "x", "by": "x",
        "reason": "x", "kept": {"rows": 0, "digest": digest},
    });
    append_forged(&Paths::new(&ledger, last).lines, record);
    assert!(broken(dir.path()).why.contains("no erasure on record"), "{}", broken(dir.path()));
}

#[tokio::test]
async fn a_request_that_the_end_of_the_process_interrupts_is_no_refused_one() {
    let dir = tempfile::tempdir().unwrap();
    let (kept, ..) = of_two(dir.path()).await;
    let stopping = std::sync::atomic::AtomicBool::new(true);
    let ledger = dir.path().join("ledger");
    let looked = erasure::look_until(&ledger, &person("alice@acme"), &stopping);
    assert!(matches!(looked, Err(LedgerError::Closed)));
    let asked = erasure::ask(&ledger, &request("alice@acme")).unwrap();
    kept.close().await;
    // Carried out just before the end, or by the next start.
    let kept = try_open(small(dir.path())).await.unwrap();
    eventually("the person to be erased", || of_user(dir.path(), "alice@acme") == 0).await;
    assert!(!matches!(asked.answer(), Ok(Some(Err(_)))));
    kept.close().await;
    verified(dir.path());
}

#[tokio::test]
async fn the_process_that_writes_the_ledger_answers_requests_in_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (kept, ..) = of_two(dir.path()).await;
    let ledger = dir.path().join("ledger");
    let asked = erasure::ask(&ledger, &request("alice@acme")).unwrap();
    let mut answer = None;
    eventually("the answer", || {
        answer = asked.answer().unwrap();
        answer.is_some()
    })
    .await;
    assert!(answer.unwrap().unwrap().records > 0);
    assert_eq!(of_user(dir.path(), "alice@acme"), 0);
    // What is no request is refused, and does not stay.
    let (path, refusal) = requests::paths(&ledger, "nonsense");
    fs::write(path, "{\"person\": 1}").unwrap();
    eventually("the refusal", || refusal.exists()).await;
    assert!(fs::read_to_string(&refusal).unwrap().contains("refused"));
    fs::remove_file(refusal).unwrap();
    kept.crash().await;
    // One that was taken up when the process died is carried out by the next.
    let (path, answer) = requests::paths(&ledger, "again");
    fs::write(path.with_extension("taken"), serde_json::to_string(&request("bob@acme")).unwrap()).unwrap();
    let kept = try_open(small(dir.path())).await.unwrap();
    eventually("the answer", || answer.exists()).await;
    assert_eq!(of_user(dir.path(), "bob@acme"), 0);
    kept.close().await;
    let left: BTreeSet<_> = fs::read_dir(ledger.join("requests")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, BTreeSet::from([answer]));
    verified(dir.path());
}

#[tokio::test]
async fn the_end_of_a_call_whose_beginning_was_retired_goes_with_whoever_is_erased() {
    let dir = tempfile::tempdir().unwrap();
    let kept = try_open(small(dir.path())).await.unwrap();
    let (alice, bob) = (Arc::new(testing::delegation()), Arc::new(testing::delegation_of("bob@acme", SSO)));
    let long = kept.ledger.decided(permitted(kept.question(1, &alice))).await.unwrap();
    for number in 1..5 {
        kept.call(number * 10, &bob).await;
    }
    let (ledger, pen) = (dir.path().join("ledger"), kept.ledger.pen());
    blocking(move || {
        retire::mark(&ledger, 1).unwrap();
        retire::put_on_record(&ledger, 1, "max_age", &pen).unwrap();
        retire::remove(&ledger, 1).unwrap();
    })
    .await;
    let with_body = |id| CallSettled { body: Some(Digest::of(b"what was sent")), ..completed(id) };
    kept.ledger.settled(with_body(long.id())).await.unwrap();
    let other = kept.ledger.decided(permitted(kept.question(100, &bob))).await.unwrap();
    kept.ledger.settled(with_body(other.id())).await.unwrap();

    let end = |id: &str| {
        let ends = |entry: &Entry| entry.kind == "call.settled" && entry.text("decision_id") == Some(id);
        all(dir.path()).into_iter().find(ends).unwrap()
    };
    assert!(end(long.id().as_str()).text("body").is_some());
    let found = erasure::look(&dir.path().join("ledger"), &person("alice@acme")).unwrap();
    assert_eq!((found.principals.len(), found.unclaimed), (0, 1), "nothing that is left says whose it is");
    let erased = kept.ledger.erase(request("alice@acme")).await.unwrap();
    assert_eq!((erased.records, erased.values, erased.principal), (1, 1, None));
    assert_eq!(end(long.id().as_str()).erased, ["/body"]);
    assert!(end(other.id().as_str()).text("body").is_some(), "what is another's stays");
    let report = verified(dir.path());
    assert_eq!((report.erased, report.unfinished_erasures), (1, 0));
    kept.close().await;
}
