//! The record that benches append.

use std::sync::Arc;

use countersign_audit::{
    CallDecided, Ledger,
    record::{Body, Component, Digest, EntryMode, Revisions, Started, Subject, Timings},
};
use model::{Decision, Delegation, Verdict, catalogue::IdentityMode};

use crate::testing;

/// A permitted refund.
pub(crate) fn record(ledger: &Ledger, delegation: &Arc<Delegation>) -> CallDecided {
    let id = format!("{}.0198c5b2-7d5e-7c30-9f3e-0a1b2c3d4e5f", ledger.id());
    CallDecided {
        subject: Subject::Question(Arc::new(testing::question(&id, Arc::clone(delegation)))),
        decision: Decision { verdict: Verdict::Permit, code: None, reasons: Vec::new(), obligations: Vec::new() },
        refusal: None,
        stage_reached: "record",
        trace: None,
        input_digest: Some(Digest::of(b"input")),
        body: Body::Unseen,
        revisions: Revisions::default(),
        identity_mode: Some(IdentityMode::ServiceAccount),
        charge: None,
        entry: EntryMode::Delegated,
        observed: None,
        timings: Timings::from([("decide", 80)]),
    }
}

/// Who opens the ledger.
pub(crate) fn started() -> Started {
    Started { component: Component::Sidecar, name: "bench".to_owned(), version: "0".to_owned() }
}
