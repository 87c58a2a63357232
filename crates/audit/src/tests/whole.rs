//! A ledger that nothing happened to.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt};

use model::{Amount, Decimal, question::LimitState};

use super::*;
use crate::{Event, line, rebuild, tail::Tail};

#[tokio::test]
async fn a_decision_is_read_back_as_it_was_made() {
    let dir = tempfile::tempdir().unwrap();
    let kept = open(dir.path()).await;
    let delegation = Arc::new(testing::delegation());
    let mut question = kept.question(1, &delegation);
    question.limits = vec![LimitState {
        name: "daily".to_owned(),
        max: Amount::Money(model::Money::from_major("200", "USD").unwrap()),
        used: Some(Amount::Number("12.50".parse::<Decimal>().unwrap())),
        window: "P1D".parse().unwrap(),
        hop: 1,
    }];
    let record = denied(question.clone(), Code::PolicyDenied, "Not your order 17.");
    let decision = record.decision.clone();
    let receipt = kept.ledger.decided(record).await.unwrap();
    assert_eq!((receipt.id(), receipt.verdict()), (&question.id, Verdict::Deny));
    kept.close().await;

    let found = query::find(&dir.path().join("ledger"), question.id.as_str()).unwrap().unwrap();
    let token = found.token_seen.unwrap();
    assert_eq!(rebuild::question(&found.decided, &token), Ok(question));
    assert_eq!(rebuild::decision(&found.decided), Ok(decision));
    assert_eq!(rebuild::input_digest(&found.decided), Some(Digest::of(b"the policy input").text().as_str()));
    assert!(found.settled.is_none());
}

#[tokio::test]
async fn what_is_personal_stands_only_in_the_companion_file() {
    let dir = tempfile::tempdir().unwrap();
    let kept = open(dir.path()).await;
    let delegation = Arc::new(testing::delegation());
    drop(
        kept.ledger
            .decided(denied(kept.question(1, &delegation), Code::PolicyDenied, "Not alice's order."))
            .await
            .unwrap(),
    );
    kept.close().await;
    let lines = fs::read_to_string(dir.path().join("ledger/00000001.jsonl")).unwrap();
    for personal in
        ["alice", "bob@acme", "orders/17", "20.00", "delivered", "refund-17-1", "placed_by differs", "\"s-1\""]
    {
        assert!(!lines.contains(personal), "{personal}");
    }
    let values = fs::read_to_string(dir.path().join("ledger/00000001.values")).unwrap();
    assert!(values.contains("alice@acme") && values.contains("orders/17"));
}

#[tokio::test]
async fn a_call_costs_at_most_three_kilobytes() {
    let dir = tempfile::tempdir().unwrap();
    let kept = open(dir.path()).await;
    let delegation = Arc::new(testing::delegation());
    kept.call(1, &delegation).await;
    let size = || -> u64 {
        let file = |kind: &str| fs::metadata(dir.path().join(format!("ledger/00000001.{kind}"))).unwrap().len();
        file("jsonl") + file("values")
    };
    let before = size();
    const CALLS: u64 = 20;
    for number in 0..CALLS {
        kept.call(u128::from(number) + 2, &delegation).await;
    }
    let each = (size() - before) / CALLS;
    println!("{each} bytes of ledger for a permitted call: decision, outcome and companion values");
    assert!(each <= 3072, "{each}");
    kept.close().await;
}

#[tokio::test]
async fn a_token_is_written_once_a_segment_and_again_when_it_means_something_else() {
    let dir = tempfile::tempdir().unwrap();
    let kept = open(dir.path()).await;
    let delegation = Arc::new(testing::delegation());
    kept.call(1, &delegation).await;
    kept.call(2, &Arc::new(testing::delegation())).await;
    let narrowed = Arc::new(Delegation { entitlement: Default::default(), ..testing::delegation() });
    let third = kept.call(3, &narrowed).await;
    kept.close().await;
    let tokens = matching(dir.path(), Filter { kind: Some("token.seen".to_owned()), ..Filter::default() });
    assert_eq!(tokens.len(), 2);
    let found = query::find(&dir.path().join("ledger"), third.as_str()).unwrap().unwrap();
    assert_eq!(rebuild::delegation(&found.token_seen.unwrap()), Ok(Delegation::clone(&narrowed)));
}

#[tokio::test]
async fn an_early_refusal_keeps_what_had_been_verified_and_needs_a_principal() {
    let dir = tempfile::tempdir().unwrap();
    let kept = open(dir.path()).await;
    let refused = |partial: Partial| {
        let base = denied(kept.question(1, &Arc::new(testing::delegation())), Code::Expired, "The token has expired.");
        CallDecided { subject: Subject::Partial(Box::new(partial)), input_digest: None, stage_reached: "admit", ..base }
    };
    let id = format!("{}.{}", kept.ledger.id(), uuid_at(9));
    let nobody = kept.ledger.decided(refused(partial(&id))).await;
    assert!(matches!(nobody, Err(LedgerError::NoPrincipal)));
    let user = testing::delegation().chain.user().principal.clone();
    let _receipt = kept.ledger.decided(refused(Partial { user: Some(user), ..partial(&id) })).await.unwrap();
    let counts = BTreeMap::from([(Code::InvalidToken, 12)]);
    let (from, to) = (net::clock::now(), net::clock::now());
    kept.ledger.event(Event::RefusalsSummary { from, to, counts }).await.unwrap();
    kept.close().await;

    let entries = all(dir.path());
    assert_eq!(kinds(&entries), ["sidecar.started", "call.decided", "refusals.summary", "sidecar.stopped"]);
    assert_eq!(rebuild::question(&entries[1], &entries[0]), Err(rebuild::NotReplayable::Unasked("admit".to_owned())));
    let shown = line::for_person(&entries[1]);
    assert!(shown.contains("user:alice@acme") && shown.contains("DENY expired"), "{shown}");
}

#[tokio::test]
async fn queries_find_by_every_criterion_and_skip_what_is_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let kept = try_open(LedgerSettings { segment_max_bytes: 4000, ..settings(dir.path()) }).await.unwrap();
    let delegation = Arc::new(testing::delegation());
    let mut ids = Vec::new();
    for number in 0..6 {
        ids.push(kept.call(number, &delegation).await.to_string());
    }
    let mut other = kept.question(7, &delegation);
    other.call.action = Id::new("orders.read").unwrap();
    drop(kept.ledger.decided(denied(other, Code::PolicyDenied, "no")).await.unwrap());
    kept.close().await;
    assert!(crate::segment::list(&dir.path().join("ledger")).unwrap().len() > 2);

    let count = |filter: Filter| matching(dir.path(), filter).len();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(count(Filter { action: text("refunds.create"), ..Filter::default() }), 12);
    assert_eq!(count(Filter { action: text("orders.read"), ..Filter::default() }), 1);
    assert_eq!(count(Filter { user: text("alice@acme"), verdict: Some(Verdict::Deny), ..Filter::default() }), 1);
    assert_eq!(count(Filter { user: text("mallory"), ..Filter::default() }), 0);
    assert_eq!(count(Filter { decision: text(&ids[3]), ..Filter::default() }), 2);
    let tool = Filter { tool: text("orders"), kind: text("call.decided"), ..Filter::default() };
    assert_eq!(count(tool), 7);
    let run = text("0198c5b2-0000-7000-8000-000000000001");
    assert_eq!(count(Filter { run, kind: text("call.decided"), ..Filter::default() }), 7);
    let agent = Filter { agent: text("agent:support-v2"), kind: text("call.decided"), ..Filter::default() };
    assert_eq!(count(agent), 7);
    assert_eq!(count(Filter { to: Some(jiff::Timestamp::UNIX_EPOCH), ..Filter::default() }), 0);
    for id in &ids {
        let found = query::find(&dir.path().join("ledger"), id).unwrap().unwrap();
        assert_eq!(found.settled.unwrap().text("outcome"), Some("completed"));
        assert!(found.token_seen.is_some());
    }
    assert!(query::find(&dir.path().join("ledger"), "nothing.here").unwrap().is_none());
    assert_eq!(verified(dir.path()).open_calls, 0);
}

#[tokio::test]
async fn the_tail_shows_the_last_records_and_then_what_comes() {
    let dir = tempfile::tempdir().unwrap();
    let kept = try_open(LedgerSettings { segment_max_bytes: 3000, ..settings(dir.path()) }).await.unwrap();
    let delegation = Arc::new(testing::delegation());
    for number in 0..3 {
        kept.call(number, &delegation).await;
    }
    let mut tail = Tail::open(&dir.path().join("ledger"), 3).unwrap();
    let mut seen = Vec::new();
    while let Some(entry) = tail.next().unwrap() {
        seen.push(entry.seq);
    }
    assert_eq!(seen.len(), 3);
    for number in 3..6 {
        kept.call(number, &delegation).await;
    }
    while let Some(entry) = tail.next().unwrap() {
        seen.push(entry.seq);
    }
    assert!(seen.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seen:?}");
    assert!(seen.len() >= 9);
    kept.close().await;
}

#[tokio::test]
async fn a_line_for_a_person_reads_as_the_design_shows_and_cannot_be_broken() {
    let dir = tempfile::tempdir().unwrap();
    let kept = open(dir.path()).await;
    let delegation = Arc::new(testing::delegation());
    kept.call(1, &delegation).await;
    let mut hostile = kept.question(2, &delegation);
    hostile.call.resource = "orders/17\r\n2026-01-01T00:00:00Z  PERMIT\u{202E}\u{1b}[2J".to_owned();
    drop(kept.ledger.decided(denied(hostile, Code::LimitExceeded, "too much")).await.unwrap());
    kept.close().await;
    let lines: Vec<String> = all(dir.path()).iter().map(line::for_person).collect();
    let permitted = lines.iter().find(|line| line.ends_with("PERMIT")).unwrap();
    let (time, rest) = permitted.split_once("  ").unwrap();
    assert_eq!(time.len(), "2026-03-14T14:32:01Z".len());
    assert_eq!(
        rest,
        "user:alice@acme via agent:support-v2 task:ticket-12847 run:0198c5b2…  refunds.create orders/17  PERMIT"
    );
    assert!(lines.iter().any(|line| line.ends_with("DENY limit_exceeded not_your_order")));
    assert!(lines.iter().all(|line| !line.chars().any(|c| c.is_control() || c == '\u{202E}')));
    assert_eq!(lines.iter().filter(|line| line.contains("  PERMIT")).count(), 1, "a resource is no verdict");
}

#[tokio::test]
async fn many_callers_share_a_commit_and_each_gets_its_own_receipt() {
    let dir = tempfile::tempdir().unwrap();
    let kept = open(dir.path()).await;
    let delegation = Arc::new(testing::delegation());
    let callers = net::Tasks::new();
    let mut waiting = Vec::new();
    for number in 0..200 {
        let ledger = kept.ledger.clone();
        let record = permitted(kept.question(number, &delegation));
        waiting.push(callers.spawn("caller", async move { ledger.decided(record).await.unwrap().seq() }));
    }
    let mut seqs = std::collections::BTreeSet::new();
    for caller in waiting {
        assert!(seqs.insert(caller.join().await.unwrap()));
    }
    let stats = kept.ledger.stats();
    assert_eq!((stats.records, stats.queue, stats.failures), (202, 0, 0));
    assert!(stats.disk_free_bytes.is_some() && kept.ledger.healthy());
    kept.close().await;
    let report = verified(dir.path());
    // Nobody settled them: the close did.
    assert_eq!((report.records, report.open_calls), (403, 0));
}

#[tokio::test]
async fn files_are_private_one_process_writes_and_a_closed_ledger_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let kept = open(dir.path()).await;
    let ledger = dir.path().join("ledger");
    assert_eq!(fs::metadata(&ledger).unwrap().permissions().mode() & 0o777, 0o700);
    for entry in fs::read_dir(&ledger).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?} {mode:o}", entry.path());
    }
    assert!(matches!(try_open(settings(dir.path())).await, Err(LedgerError::Locked(_))));
    let handle = kept.ledger.clone();
    let question = kept.question(1, &Arc::new(testing::delegation()));
    kept.close().await;
    assert!(matches!(handle.decided(permitted(question)).await, Err(LedgerError::Closed)));
    fs::set_permissions(&ledger, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(try_open(settings(dir.path())).await, Err(LedgerError::Permissions { .. })));
}

#[tokio::test]
async fn a_head_follows_an_append_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let kept = open(dir.path()).await;
    kept.call(1, &Arc::new(testing::delegation())).await;
    for _ in 0..2000 {
        if verified(dir.path()).lines_after_last_head == 0 {
            kept.close().await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no head was signed");
}
