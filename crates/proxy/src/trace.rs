//! Spans (standards §10): one SERVER span a call, one CLIENT span for the tool, and the ids that the record holds.
//! A request's own trace is a claim; where nobody listens to spans, ids are still minted, so that a record always
//! has a trace.

use http::{HeaderValue, Method, Version};
use model::{Code, Delegation, Verdict};
use opentelemetry::{
    Context,
    trace::{SpanContext, TraceContextExt as _},
};
use tracing::{Span, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use uuid::Uuid;

use crate::{accept::Arrival, config::ClaimedTrace, config::tools::Base, resolve::Recognised};

/// A span, and the ids under which it is found.
#[derive(Debug, Clone)]
pub(crate) struct Traced {
    span: Span,
    ids: Ids,
}

/// W3C ids, lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) trace: String,
    pub(crate) span: String,
    pub(crate) sampled: bool,
}

impl Traced {
    /// The span of a call. What it turns out to be is recorded as it is learned.
    pub(crate) fn call(
        arrival: &Arrival,
        method: &Method,
        version: Version,
        claimed: Option<&SpanContext>,
        mode: ClaimedTrace,
    ) -> Self {
        let span = tracing::info_span!(
            target: "countersign",
            parent: None,
            "call",
            otel.name = method.as_str(),
            otel.kind = "server",
            otel.status_code = Empty,
            http.request.method = method.as_str(),
            http.route = Empty,
            http.response.status_code = Empty,
            url.path = Empty,
            url.scheme = if arrival.peer.secure { "https" } else { "http" },
            network.protocol.version = protocol_version(version),
            client.address = arrival.peer.address.ip().map(tracing::field::display),
            error.type = Empty,
            gen_ai.operation.name = "execute_tool",
            gen_ai.agent.id = Empty,
            gen_ai.tool.name = Empty,
            countersign.decision.id = %arrival.id,
            countersign.run.id = Empty,
            countersign.task.id = Empty,
            countersign.decision = Empty,
            countersign.denial.code = Empty,
        );
        match claimed {
            Some(claimed) if mode == ClaimedTrace::Parent => {
                let parent = Context::new().with_remote_span_context(claimed.clone());
                if span.set_parent(parent).is_err() {
                    tracing::trace!("nobody listens to spans");
                }
            }
            Some(claimed) => span.add_link(claimed.clone()),
            None => {}
        }
        let ids = Ids::of(&span).unwrap_or_else(|| Ids::minted(claimed.filter(|_| mode == ClaimedTrace::Parent)));
        Self { span, ids }
    }

    /// The span of the request to the tool.
    pub(crate) fn tool(&self, method: &Method, base: &Base, url: &str) -> Self {
        let span = tracing::info_span!(
            target: "countersign",
            parent: &self.span,
            "tool",
            otel.name = method.as_str(),
            otel.kind = "client",
            otel.status_code = Empty,
            http.request.method = method.as_str(),
            http.response.status_code = Empty,
            server.address = base.host(),
            server.port = base.port(),
            url.full = url,
            error.type = Empty,
        );
        let ids = Ids::of(&span).unwrap_or_else(|| self.ids.child());
        Self { span, ids }
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    pub(crate) fn ids(&self) -> &Ids {
        &self.ids
    }

    /// What the request was recognised as.
    pub(crate) fn recognised(&self, method: &Method, recognised: &Recognised<'_>) {
        let (tool, action) = (recognised.tool, recognised.action);
        let route = format!("{}{}", tool.at.as_str().trim_end_matches('/'), action.template);
        self.span.record("otel.name", format!("{method} {route}"));
        self.span.record("http.route", route);
        self.span.record("gen_ai.tool.name", action.id.as_str());
    }

    /// Whose call it is. Never the user: traces go where personal data does not belong.
    pub(crate) fn admitted(&self, delegation: &Delegation) {
        self.span.record("countersign.run.id", delegation.run.as_str());
        if let Some(task) = &delegation.task.id {
            self.span.record("countersign.task.id", task.as_str());
        }
        self.span.record("gen_ai.agent.id", delegation.chain.agent().principal.id.as_str());
    }

    /// What was decided.
    pub(crate) fn decided(&self, verdict: Verdict, code: Option<Code>) {
        self.span.record("countersign.decision", verdict.as_str());
        if let Some(code) = code {
            self.span.record("countersign.denial.code", code.as_str());
        }
    }

    /// The status that was answered. On our own span only a failure of ours, or of the tool, is an error; on the
    /// tool's every status that says so.
    pub(crate) fn answered(&self, status: u16, error_from: u16) {
        self.span.record("http.response.status_code", i64::from(status));
        if status >= error_from {
            self.span.record("otel.status_code", "ERROR");
            self.span.record("error.type", status.to_string());
        }
    }

    /// There was no answer.
    pub(crate) fn failed(&self, error: &str) {
        self.span.record("otel.status_code", "ERROR");
        self.span.record("error.type", error);
    }
}

impl Ids {
    /// `traceparent`: version 00, ours, with our own sampling decision.
    pub(crate) fn traceparent(&self) -> Option<HeaderValue> {
        let flags = if self.sampled { "01" } else { "00" };
        HeaderValue::try_from(format!("00-{}-{}-{flags}", self.trace, self.span)).ok()
    }

    fn of(span: &Span) -> Option<Self> {
        let context = span.context();
        let ids = context.span().span_context().clone();
        ids.is_valid().then(|| Self {
            trace: ids.trace_id().to_string(),
            span: ids.span_id().to_string(),
            sampled: ids.is_sampled(),
        })
    }

    fn minted(parent: Option<&SpanContext>) -> Self {
        let trace = parent.map_or_else(|| Uuid::new_v4().simple().to_string(), |parent| parent.trace_id().to_string());
        Self { trace, span: random_span(), sampled: false }
    }

    fn child(&self) -> Self {
        Self { trace: self.trace.clone(), span: random_span(), sampled: self.sampled }
    }
}

/// 64 bits, never all zero: a version-4 UUID has its version digit among the first sixteen.
fn random_span() -> String {
    Uuid::new_v4().simple().to_string().chars().take(16).collect()
}

const fn protocol_version(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}

#[cfg(test)]
mod tests;
