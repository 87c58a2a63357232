//! `/v1/limits` for enrolled sidecars: slices of cumulative limits, leased, told to be spent and given back. Off the
//! change log, and on no record here: what calls were charged is in the ledgers of the sidecars.

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use model::limits::Holder;
use net::{Body, BoxError};
use schemars::{Schema, SchemaGenerator};
use store::{StoreError, remote::limits::LeaseRequest};

use super::{
    body,
    problem::{Code, Problem},
    read,
};
use crate::{Authority, refused::json_response};

/// Questions that go on at once.
pub(super) const AT_ONCE: usize = 1_024;
/// The most of them of one sidecar.
pub(super) const EACH_AT_ONCE: usize = 256;
/// Questions of one sidecar in a second, over a while.
pub(super) const PER_SECOND: u32 = 200;

/// The body of a question.
pub(super) fn question_schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<LeaseRequest>()
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
        let _place = self.api.leasing.try_take(sidecar.id.clone(), 1).map_err(|full| match full {
            net::Full::Total => Problem::new(Code::Overloaded, "Too many slices are asked for at once."),
            net::Full::Share => {
                Problem::new(Code::TooMany, format!("More than {EACH_AT_ONCE} of your questions are under way."))
            }
        })?;
        self.api
            .leases
            .take(sidecar.id.clone(), now)
            .map_err(|seconds| Problem::new(Code::TooMany, "You ask more often than is allowed.").after(seconds))?;
        let asked: LeaseRequest = body::parse(&read(headers, body).await?)?;
        if let Holder::Issued { by, .. } = &asked.limit.holder
            && *by == self.settings.issuer
        {
            // What is issued here rests on a grant, whose word counts and not the sidecar's.
            return Err(Problem::invalid("tokens of this authority are under a grant: name it"));
        }
        let answer = self.store.lease(&sidecar, &asked, net::clock::now()).await.map_err(|error| {
            if !matches!(error, StoreError::Unavailable { .. }) {
                tracing::info!(sidecar = %sidecar.id, %error, "no slice is leased");
            }
            Problem::from(error)
        })?;
        Ok(json_response(StatusCode::OK, &serde_json::to_value(&answer).unwrap_or_default()))
    }
}
