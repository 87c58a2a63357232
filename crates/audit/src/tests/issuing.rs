//! What policy was asked of a token comes back exactly, or says what is missing.

use super::*;
use crate::{
    Event,
    erasure::{Erasure, Person},
    rebuild::{self, Issued, NotReplayable},
    record::{Issuing, PolicyRuling, TokenIssued, TokenRefused},
};

fn issuing() -> Issuing {
    let delegation = testing::delegation();
    let question = testing::question("L.0198c5b2-7d5e-7c30-9f3e-0a1b2c3d4e5f", Arc::new(delegation.clone()));
    let (user, agent) = (delegation.chain.user(), delegation.chain.agent());
    Issuing {
        chain: vec![user.clone()],
        to: (*question.agent).clone(),
        requested: delegation.authority.clone(),
        task: delegation.task.clone(),
        run: delegation.run.clone(),
        grant: model::Grant {
            id: Id::new("grant-support").unwrap(),
            user: user.principal.clone(),
            agent: agent.principal.clone(),
            authority: delegation.authority.clone(),
            stage: model::Stage::Supervised,
            expires_at: "2026-04-01T00:00:00Z".parse().unwrap(),
            redelegate: 2,
        },
        user: delegation.user.clone(),
        tenant: delegation.tenant.clone(),
        expires_at: delegation.token.expires_at,
        now: "2026-03-14T14:30:00.123456789Z".parse().unwrap(),
    }
}

fn reason(code: &str, message: Option<&str>) -> Reason {
    Reason {
        code: code.to_owned(),
        message: message.map(str::to_owned),
        internal: None,
        retry: None,
        source: "countersign.org".to_owned(),
    }
}

fn ruling() -> PolicyRuling {
    PolicyRuling {
        revision: "one".to_owned(),
        reasons: vec![reason("in_hours", None)],
        withheld: vec![reason("no_crm", Some("Not the CRM."))],
    }
}

fn issued(asked: Option<Issuing>) -> Event {
    let delegation = testing::delegation();
    Event::TokenIssued(Box::new(TokenIssued {
        digest: "digest".to_owned(),
        jti: "jti-1".to_owned(),
        client_id: "support-v2".to_owned(),
        audience: "urn:example:countersign:support".to_owned(),
        user: delegation.chain.user().principal.clone(),
        agents: delegation.chain.agents().map(|hop| hop.principal.clone()).collect(),
        authority: delegation.authority.clone(),
        narrowed: false,
        subject_digest: None,
        grant: delegation.grant.clone(),
        task: delegation.task.id.clone(),
        run: delegation.run.clone(),
        tenant: delegation.tenant.clone(),
        expires_at: delegation.token.expires_at,
        policy: asked.is_some().then(ruling),
        asked: asked.map(Box::new),
    }))
}

fn refused(asked: Option<Issuing>) -> Event {
    Event::TokenRefused(Box::new(TokenRefused {
        agent: testing::delegation().chain.agent().principal.clone(),
        error: "access_denied",
        description: "no".to_owned(),
        policy: asked.is_some().then(ruling),
        asked: asked.map(Box::new),
    }))
}

fn entries(dir: &Path) -> Vec<Entry> {
    let all = query::query(&dir.join("ledger"), Filter::default()).unwrap().map(Result::unwrap);
    all.filter(rebuild::is_about_issuing).collect()
}

#[tokio::test]
async fn what_was_asked_of_a_token_comes_back_exactly_and_what_is_not_there_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let kept = open(dir.path()).await;
    for event in [issued(Some(issuing())), refused(Some(issuing())), issued(None), refused(None)] {
        kept.ledger.event(event).await.unwrap();
    }
    kept.close().await;
    let entries = entries(dir.path());
    let [first, second, old, early] = &entries[..] else { panic!("{entries:?}") };
    for entry in [first, second] {
        assert_eq!(rebuild::issuing(entry).unwrap(), issuing());
        assert_eq!(rebuild::issued(entry).unwrap().policy, Some(ruling()));
        assert_eq!((entry.text("tenant"), entry.text_at("/user/id")), (Some("acme"), Some("alice@acme")));
    }
    assert_eq!(rebuild::issued(first).unwrap().authority, issuing().requested);
    assert_eq!(rebuild::issued(second).unwrap().authority, model::Authority::default());
    assert_eq!(rebuild::issuing(old), Err(NotReplayable::Absent { paths: vec!["/asked".to_owned()] }));
    assert_eq!(rebuild::issued(old), Ok(Issued { authority: issuing().requested, policy: None }));
    assert_eq!(rebuild::issuing(early), Err(NotReplayable::Unasked("exchange".to_owned())));
    // Whom it was for, and what, lies beside the line.
    let lines = std::fs::read_to_string(dir.path().join("ledger/00000001.jsonl")).unwrap();
    for personal in ["alice@acme", "orders/*", "bob@acme", "urn:mfa"] {
        assert!(!lines.contains(personal), "{personal}");
    }
    for id in ["jti-1", "seq:1"] {
        let found = query::find_issued(&dir.path().join("ledger"), id).unwrap();
        assert!(found.is_some_and(|found| rebuild::is_about_issuing(&found)), "{id}");
    }
    assert!(query::find_issued(&dir.path().join("ledger"), "seq:0").unwrap().is_none(), "that is the start");
}

#[tokio::test]
async fn who_is_erased_is_erased_from_what_was_asked_for_them_also_where_it_was_refused() {
    let dir = tempfile::tempdir().unwrap();
    let kept = try_open(LedgerSettings { segment_max_bytes: 2000, ..settings(dir.path()) }).await.unwrap();
    for event in [issued(Some(issuing())), refused(Some(issuing())), refused(None), refused(None)] {
        kept.ledger.event(event).await.unwrap();
    }
    let person = Person { user: "alice@acme".to_owned(), issuer: None, tenant: None };
    let erasure = Erasure::new(person, "the data protection officer", "request 18 of 2026").unwrap();
    kept.ledger.erase(erasure).await.unwrap();
    kept.close().await;
    let erased = entries(dir.path());
    for entry in &erased[..2] {
        assert_eq!(rebuild::issuing(entry), Err(NotReplayable::Erased { paths: vec!["/asked".to_owned()] }));
    }
    for file in std::fs::read_dir(dir.path().join("ledger")).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read(&path).unwrap_or_default();
        assert!(!text.windows(10).any(|part| part == b"alice@acme"), "{}", path.display());
    }
}
