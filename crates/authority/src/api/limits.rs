//! `/v1/limits` and `/v1/charges` for enrolled sidecars: slices of cumulative limits, leased, told to be spent and given
//! back; and which calls under idempotency keys were charged. Off the change log, and on no record here: what calls were
//! charged is in the ledgers of the sidecars.

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use jiff::Timestamp;
use model::{Id, limits::Holder};
use net::{Body, BoxError, Place, Shares};
use schemars::{Schema, SchemaGenerator};
use store::{
    Sidecar, StoreError,
    remote::{charges::ChargeRequest, limits::LeaseRequest},
};

use super::{
    body,
    problem::{Code, Problem},
    quota::Quotas,
    read,
};
use crate::{Authority, refused::json_response};

/// Questions of one kind that go on at once.
const AT_ONCE: usize = 1_024;
/// The most of them of one sidecar.
const EACH_AT_ONCE: usize = 256;
/// Questions for slices of one sidecar in a second, over a while.
const LEASES_PER_SECOND: u32 = 200;
/// The same of calls under idempotency keys, each of which is told.
const CHARGES_PER_SECOND: u32 = 1_000;

/// Room for one kind of questions, apart from everything else.
pub(super) struct Questions {
    under_way: Shares<Id<Sidecar>>,
    quotas: Quotas<Id<Sidecar>>,
}

impl Questions {
    fn new(per_second: u32) -> Self {
        Self { under_way: Shares::new(AT_ONCE, EACH_AT_ONCE), quotas: Quotas::new(per_second) }
    }

    pub(super) fn for_slices() -> Self {
        Self::new(LEASES_PER_SECOND)
    }

    pub(super) fn of_charges() -> Self {
        Self::new(CHARGES_PER_SECOND)
    }

    /// A place for one more of `sidecar`.
    fn take(&self, sidecar: &Sidecar, now: Timestamp) -> Result<Place<Id<Sidecar>>, Problem> {
        let place = self.under_way.try_take(sidecar.id.clone(), 1).map_err(|full| match full {
            net::Full::Total => Problem::new(Code::Overloaded, "Too much is asked of limits at once."),
            net::Full::Share => {
                Problem::new(Code::TooMany, format!("More than {EACH_AT_ONCE} of your questions are under way."))
            }
        })?;
        let quota = self.quotas.take(sidecar.id.clone(), now);
        quota.map_err(|seconds| Problem::new(Code::TooMany, "You ask more often than is allowed.").after(seconds))?;
        Ok(place)
    }
}

/// The body of a question.
pub(super) fn question_schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<LeaseRequest>()
}

/// The body of what is told of a call.
pub(super) fn charge_schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<ChargeRequest>()
}

impl Authority {
    /// Answers a sidecar that asks for a slice.
    pub(super) async fn lease<B>(&self, headers: &HeaderMap, body: B) -> Result<Response<Body>, Problem>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let now = net::clock::now();
        let sidecar = self.sidecar(headers, now).await?;
        let _place = self.api.leases.take(&sidecar, now)?;
        let asked: LeaseRequest = body::parse(&read(headers, body).await?)?;
        if let Holder::Issued { by, .. } = &asked.limit.holder
            && *by == self.settings.issuer
        {
            // What is issued here rests on a grant, whose word counts and not the sidecar's.
            return Err(Problem::invalid("tokens of this authority are under a grant: name it"));
        }
        let answer = self.store.lease(&sidecar, &asked, net::clock::now()).await;
        let answer = answer.map_err(|error| refused(&sidecar, error, "no slice is leased"))?;
        Ok(json_response(StatusCode::OK, &serde_json::to_value(&answer).unwrap_or_default()))
    }

    /// Answers a sidecar that tells of a call under an idempotency key.
    pub(super) async fn charge<B>(&self, headers: &HeaderMap, body: B) -> Result<Response<Body>, Problem>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let now = net::clock::now();
        let sidecar = self.sidecar(headers, now).await?;
        let _place = self.api.charges.take(&sidecar, now)?;
        let asked: ChargeRequest = body::parse(&read(headers, body).await?)?;
        let answer = self.store.charge(&sidecar, &asked, net::clock::now()).await;
        let answer = answer.map_err(|error| refused(&sidecar, error, "a call is not known to be charged"))?;
        Ok(json_response(StatusCode::OK, &serde_json::to_value(&answer).unwrap_or_default()))
    }
}

fn refused(sidecar: &Sidecar, error: StoreError, what: &'static str) -> Problem {
    if !matches!(error, StoreError::Unavailable { .. }) {
        tracing::info!(sidecar = %sidecar.id, %error, "{what}");
    }
    Problem::from(error)
}
