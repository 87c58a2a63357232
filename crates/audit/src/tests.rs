//! The ledger as its callers see it: written, closed, crashed, damaged, read again.

mod anchoring;
mod compression;
mod crash;
mod decisions;
mod erasure;
mod export;
mod issuing;
mod large;
mod long;
mod lossless;
mod power;
mod retention;
mod shipping;
mod tamper;
mod whole;

use std::{path::Path, sync::Arc, time::Duration};

use model::{Code, Decision, Delegation, Id, Question, Reason, Refusal, Verdict, catalogue::IdentityMode};

use crate::{
    CallDecided, CallSettled, Ledger, LedgerError, LedgerSettings, chain,
    query::{self, Filter},
    read::Entry,
    record::{Body, Component, Digest, EntryMode, Outcome, Partial, Revisions, Started, Subject, Timings, Trace},
    testing, verify,
};

/// A ledger in a directory of its own, with the tasks its writer runs on.
struct Kept {
    ledger: Ledger,
    tasks: net::Tasks,
}

fn settings(dir: &Path) -> LedgerSettings {
    let started = Started { component: Component::Sidecar, name: "support".to_owned(), version: "0.1.0".to_owned() };
    LedgerSettings {
        head_interval: Duration::from_millis(5),
        keeper_interval: Duration::from_millis(5),
        ..LedgerSettings::new(dir.join("ledger"), started)
    }
}

async fn try_open(settings: LedgerSettings) -> Result<Kept, LedgerError> {
    let tasks = net::Tasks::new();
    Ledger::open(settings, &tasks).await.map(|ledger| Kept { ledger, tasks })
}

async fn open(dir: &Path) -> Kept {
    try_open(settings(dir)).await.unwrap()
}

impl Kept {
    async fn close(self) {
        self.ledger.close().await;
        assert!(self.tasks.drain(Duration::from_secs(30)).await);
    }

    /// Ends as a killed process does: without a record of the stop and without a seal.
    async fn crash(self) {
        drop(self.ledger);
        assert!(self.tasks.drain(Duration::from_secs(30)).await);
    }

    fn question(&self, number: u128, delegation: &Arc<Delegation>) -> Question {
        let id = format!("{}.{}", self.ledger.id(), uuid_at(number));
        testing::question(&id, Arc::clone(delegation))
    }

    /// Records a permitted refund and what became of it.
    async fn call(&self, number: u128, delegation: &Arc<Delegation>) -> Id<model::id::DecisionMark> {
        let receipt = self.ledger.decided(permitted(self.question(number, delegation))).await.unwrap();
        self.ledger.settled(completed(receipt.id())).await.unwrap();
        receipt.id().clone()
    }
}

/// A version 7 id of the time of the tests' run, so that the time in it leads to the record.
fn uuid_at(number: u128) -> uuid::Uuid {
    let milliseconds = u64::try_from(net::clock::now().as_millisecond()).unwrap();
    uuid::Builder::from_unix_timestamp_millis(milliseconds, &(number.to_be_bytes()[6..16].try_into().unwrap()))
        .into_uuid()
}

fn revisions() -> Revisions {
    Revisions {
        policy: Some("n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg".to_owned()),
        catalogue: Some("K5f4nmeOUyO8yLKQdXXFGl5gVEYkmPZwPHHQgAvpLvk".to_owned()),
        config: Some("VbXB0OQdxqBGm_xwAVnpWEpVZ-Dv8pAQZQYpXWTwUMc".to_owned()),
        binary: "0.1.0".to_owned(),
    }
}

fn permitted(question: Question) -> CallDecided {
    let reason = Reason {
        code: "refund_within_grant".to_owned(),
        message: None,
        internal: None,
        retry: None,
        source: "countersign.teams.support".to_owned(),
    };
    CallDecided {
        subject: Subject::Question(Arc::new(question)),
        decision: Decision { verdict: Verdict::Permit, code: None, reasons: vec![reason], obligations: Vec::new() },
        refusal: None,
        stage_reached: "record",
        trace: Some(Trace {
            trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".to_owned(),
            span_id: "00f067aa0ba902b7".to_owned(),
        }),
        input_digest: Some(Digest::of(b"the policy input")),
        body: Body::Read(Digest::of(br#"{"amount":"20.00","currency":"USD"}"#)),
        revisions: revisions(),
        identity_mode: Some(IdentityMode::ServiceAccount),
        charge: None,
        entry: EntryMode::Delegated,
        observed: None,
        timings: ["accept", "admit", "resolve", "guard", "facts", "decide", "approve", "reserve", "credential"]
            .into_iter()
            .zip(17..)
            .collect(),
    }
}

fn denied(question: Question, code: Code, detail: &str) -> CallDecided {
    let mut record = permitted(question);
    record.decision = Decision {
        verdict: Verdict::Deny,
        code: Some(code),
        reasons: vec![Reason {
            code: "not_your_order".to_owned(),
            message: Some("Refunds only on orders the user placed.".to_owned()),
            internal: Some("placed_by differs".to_owned()),
            retry: None,
            source: "countersign.teams.support".to_owned(),
        }],
        obligations: Vec::new(),
    };
    record.refusal = Some(Box::new(Refusal::new(code, detail)));
    record.stage_reached = "decide";
    record
}

fn completed(id: &Id<model::id::DecisionMark>) -> CallSettled {
    CallSettled {
        id: id.clone(),
        outcome: Outcome::Completed,
        status: Some(201),
        code: None,
        sent: true,
        charge: None,
        altered: None,
        withheld: None,
        request_bytes: 35,
        response_bytes: 512,
        body: None,
        timings: Timings::from([("forward", 812), ("settle", 9)]),
    }
}

fn partial(id: &str) -> Partial {
    Partial {
        id: Id::new(id).unwrap(),
        now: net::clock::now(),
        delegation: None,
        user: None,
        agent: None,
        tenant: None,
        run: None,
        task: None,
        request: None,
        tool: None,
        action: None,
        effect: None,
        resource: None,
        parameters: None,
        registration: None,
    }
}

/// What `verify` says of a ledger that holds together.
fn verified(dir: &Path) -> verify::Report {
    verify::verify(&dir.join("ledger"), &verify::Options::default(), |_| {}).unwrap()
}

/// What `verify` says of one that does not.
fn broken(dir: &Path) -> verify::Broken {
    match verify::verify(&dir.join("ledger"), &verify::Options::default(), |_| {}) {
        Err(verify::VerifyError::Broken(broken)) => broken,
        other => panic!("{other:?}"),
    }
}

/// Waits until the keeper has come to it.
async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..4000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited in vain for {what}");
}

/// Does blocking work where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    net::Tasks::new().spawn_blocking("a test's work", work).join().await.unwrap()
}

/// A line that follows the lines of the segment at `path`, as anyone can write it who may write there.
fn append_forged(path: &Path, mut record: serde_json::Value) {
    let text = std::fs::read_to_string(path).unwrap();
    let last = text.lines().next_back().unwrap();
    let before: serde_json::Value = serde_json::from_str(last).unwrap();
    record["prev"] = chain::encoded(&chain::sha256(last.as_bytes())).into();
    record["seq"] = (before["seq"].as_u64().unwrap() + 1).into();
    record["time"] = before["time"].clone();
    record["v"] = 1.into();
    std::fs::write(path, format!("{text}{record}\n")).unwrap();
}

fn all(dir: &Path) -> Vec<Entry> {
    matching(dir, Filter::default())
}

fn matching(dir: &Path, filter: Filter) -> Vec<Entry> {
    query::query(&dir.join("ledger"), filter).unwrap().collect::<Result<_, _>>().unwrap()
}

fn kinds(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.kind.as_str()).collect()
}
