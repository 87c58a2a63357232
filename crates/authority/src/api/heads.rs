//! `/v1/ledger-heads` for enrolled sidecars: their ledgers' signed heads are anchored, each against the one before. What
//! was anchored can no longer be rewritten unnoticed, not by whoever has root where the ledger lies either.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use audit::{
    Event, VerifyingKey,
    record::OtherHistory,
    ship::anchor::{Anchor, Anchored, Claim, NotAnchored, is_proved, ledger_id},
};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use model::Id;
use net::{Body, BoxError};
use opentelemetry::metrics::Counter;
use schemars::{Schema, SchemaGenerator};
use store::{AnchoredHead, KnownLedger, Sidecar, Writer};

use super::{
    body,
    problem::{Code, Problem},
    read,
};
use crate::{Authority, refused::json_response};

/// After an alert about a ledger, as long until the next one about the same.
const QUIET: SignedDuration = SignedDuration::from_hours(1);

/// Ledgers that were found to be others than those whose heads are anchored.
pub(crate) struct Forks {
    known: Mutex<HashMap<Id<KnownLedger>, Fork>>,
    found: Counter<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Fork {
    /// How often in a row.
    seen: u32,
    /// When that was last told.
    told: Option<Timestamp>,
}

impl Forks {
    pub(crate) fn new() -> Self {
        Self {
            known: Mutex::default(),
            found: opentelemetry::global::meter("countersign")
                .u64_counter("countersign_ledger_forks")
                .with_description("Heads of sidecars' ledgers that contradict the anchored one. Should be zero.")
                .build(),
        }
    }

    /// Whether an alert is due. That a ledger is shorter counts from the second time on: a request that was overtaken on
    /// its way says the same, once.
    fn is_due(&self, id: &Id<KnownLedger>, cut: bool, now: Timestamp) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let fork = known.entry(id.clone()).or_default();
        fork.seen = fork.seen.saturating_add(1);
        if cut && fork.seen < 2 {
            return false;
        }
        self.found.add(1, &[]);
        let due = fork.told.is_none_or(|told| now.duration_since(told) >= QUIET);
        if due {
            fork.told = Some(now);
        }
        due
    }

    fn continues(&self, id: &Id<KnownLedger>) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

/// An enrolled sidecar that tells something of itself, and its room for that.
pub(super) struct Teller {
    pub(super) sidecar: Sidecar,
    /// When it came.
    pub(super) now: Timestamp,
    _place: net::Place<Id<Sidecar>>,
}

impl Authority {
    /// Anchors a head.
    pub(super) async fn anchor<B>(&self, headers: &HeaderMap, body: B) -> Result<Response<Body>, Problem>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let teller = self.teller(headers).await?;
        let claim: Claim = body::parse(&read(headers, body).await?)?;
        let (key, mut ledger) = self.spoken_for(&teller, &claim.ledger, &claim.proof).await?;
        let now = teller.now;
        loop {
            let anchor = match &ledger.head {
                None => Anchor::default(),
                Some(head) => Anchor::read(&head.tree).ok_or_else(|| {
                    Problem::unavailable("the anchored head", &format!("the tree of {} cannot be read", ledger.id))
                })?,
            };
            let next = match anchor.extended(&claim, &key) {
                Ok((next, _)) => next,
                Err(refused) => return Err(self.not_anchored(&ledger, &claim, &refused, now).await),
            };
            if next.size() == anchor.size() || self.replaced(&ledger, &next, &claim, now).await? {
                self.api.forks.continues(&ledger.id);
                let answer = serde_json::to_value(Anchored { size: next.size() }).unwrap_or_default();
                return Ok(json_response(StatusCode::OK, &answer));
            }
            // Another replica was told of another head meanwhile; each time round there is one less to wait for.
            ledger = self.store.ledger(&ledger.id).await?.ok_or_else(Problem::not_found)?;
        }
    }

    /// The sidecar that asks, with room for one more thing that it tells.
    pub(super) async fn teller(&self, headers: &HeaderMap) -> Result<Teller, Problem> {
        let now = net::clock::now();
        let sidecar = self.sidecar(headers, now).await?;
        let place = self.api.uplinks.try_take(sidecar.id.clone(), 1).map_err(|full| match full {
            net::Full::Total => Problem::new(Code::Overloaded, "Too many sidecars tell of their ledgers at once."),
            net::Full::Share => Problem::new(Code::TooMany, "Too much of what you tell is under way."),
        })?;
        Ok(Teller { sidecar, now, _place: place })
    }

    /// The ledger of the key `text`, for which the teller speaks: from now on where it is new, or where another sidecar
    /// did before, or this one for fewer tenants.
    pub(super) async fn spoken_for(
        &self,
        Teller { sidecar, now, .. }: &Teller,
        text: &str,
        proof: &str,
    ) -> Result<(VerifyingKey, KnownLedger), Problem> {
        let key: VerifyingKey = text.parse().map_err(|_| Problem::invalid("`ledger` is no verifying key"))?;
        let id = ledger_id(&key).and_then(|id| Id::new(id).ok());
        let id = id.ok_or_else(|| Problem::invalid("`ledger` is not the key of a ledger"))?;
        let text = key.to_string();
        let known = self.store.ledger(&id).await?;
        if let Some(known) = known.filter(|known| {
            let same = (&known.sidecar, &known.verifying_key) == (&sidecar.id, &text);
            same && known.tenants.is_superset(&sidecar.serves.tenants)
        }) {
            return Ok((key, known));
        }
        let name = format!("{}{}", self.sidecar_prefix(), sidecar.id);
        if !is_proved(proof, &key, &name) {
            return Err(Problem::forbidden("The ledger's key does not say that you speak for it."));
        }
        let writer = Writer { by: format!("sidecar:{}", sidecar.name), reason: None, now: *now, idempotency: None };
        let enrolled = self.store.enrol_ledger(&writer, &id, sidecar, &text).await?;
        self.recorded(enrolled.position).await?;
        Ok((key, enrolled.value))
    }

    async fn replaced(
        &self,
        ledger: &KnownLedger,
        next: &Anchor,
        claim: &Claim,
        now: Timestamp,
    ) -> Result<bool, Problem> {
        let tree = next.written().map_err(|error| Problem::unavailable("the anchored head", &error))?;
        let head = AnchoredHead { size: next.size(), tree, note: claim.note.clone(), at: now };
        let before = ledger.head.as_ref().map_or(0, |head| head.size);
        Ok(self.store.anchor(&ledger.id, before, &head).await?)
    }

    /// What is answered, and, where the ledger is another one than it was, put on record.
    async fn not_anchored(
        &self,
        ledger: &KnownLedger,
        claim: &Claim,
        refused: &NotAnchored,
        now: Timestamp,
    ) -> Problem {
        match refused {
            NotAnchored::Head(_) | NotAnchored::Malformed(_) => return Problem::invalid(refused.to_string()),
            NotAnchored::Elsewhere(_) => {}
            NotAnchored::Shrunk { .. } | NotAnchored::Forked { .. } => {
                let cut = matches!(refused, NotAnchored::Shrunk { .. });
                if let Err(problem) = self.alert(ledger, &claim.note, cut, now).await {
                    return problem;
                }
            }
        }
        let anchored = ledger.head.as_ref().map_or(0, |head| head.size);
        Problem::new(Code::Conflict, refused.to_string()).with("anchored", anchored)
    }

    /// Says that a ledger is not the one whose head is anchored, where it was not said lately.
    pub(super) async fn alert(
        &self,
        ledger: &KnownLedger,
        found: &str,
        cut: bool,
        now: Timestamp,
    ) -> Result<(), Problem> {
        if !self.api.forks.is_due(&ledger.id, cut, now) {
            return Ok(());
        }
        tracing::error!(ledger = %ledger.id, sidecar = %ledger.sidecar, cut, "a sidecar's ledger is not the one it was");
        let other = OtherHistory {
            ledger: ledger.id.to_string(),
            sidecar: ledger.sidecar.to_string(),
            cut,
            anchored: ledger.head.as_ref().map(|head| head.note.clone()).unwrap_or_default(),
            found: found.to_owned(),
        };
        let recorded = self.ledger.event(Event::OtherHistory(Box::new(other))).await;
        recorded.map_err(|error| Problem::unavailable("the ledger", &error))
    }
}

/// What the body may be.
pub(super) fn claim_schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<Claim>()
}
