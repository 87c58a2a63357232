//! Spans (standards §10): one SERVER span a call, one CLIENT span for the tool, and the ids that the record holds.
//! A request's own trace is a claim. Whether a call's spans are kept is asked once, at its start; one that is not
//! kept has its ids, and costs nothing more.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use audit::record::{Timings, Trace};
use http::{HeaderValue, Method, Version};
use jiff::Timestamp;
use model::{CanonicalPath, Code, Delegation, Verdict};
use opentelemetry::{
    Context, KeyValue, Value,
    global::{self, BoxedTracer},
    trace::{
        Link, Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceId, Tracer as _,
    },
};
use uuid::Uuid;

use crate::{
    accept::{Arrival, Incoming},
    config::ClaimedTrace,
    config::tools::Base,
    metrics::STAGES,
    resolve::Recognised,
};

/// The stages that have a span of their own: those in which a call may have to wait, and the decision.
const SHOWN: [&str; 4] = ["admit", "facts", "decide", "record"];

/// Makes the spans of calls.
#[derive(Debug)]
pub(crate) struct Spans {
    tracer: BoxedTracer,
}

/// The ids under which a span is found, and the span where it is kept.
#[derive(Debug, Clone)]
pub(crate) struct Traced {
    kept: Option<Context>,
    ids: Ids,
}

/// W3C ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) trace: TraceId,
    pub(crate) span: SpanId,
    pub(crate) sampled: bool,
}

impl Spans {
    /// For the tracer provider that is global now.
    pub(crate) fn global() -> Self {
        Self { tracer: global::tracer("countersign") }
    }

    /// The span of a call. What it turns out to be is recorded as it is learned.
    pub(crate) fn call(
        &self,
        arrival: &Arrival,
        method: &Method,
        version: Version,
        claimed: Option<&SpanContext>,
        mode: ClaimedTrace,
    ) -> Traced {
        let trusted = claimed.filter(|_| mode == ClaimedTrace::Parent);
        let parent =
            trusted.map_or_else(Context::new, |claimed| Context::new().with_remote_span_context(claimed.clone()));
        let links =
            claimed.filter(|_| mode == ClaimedTrace::Link).map(|claimed| vec![Link::with_context(claimed.clone())]);
        let builder = SpanBuilder { links, ..SpanBuilder::from_name(name(method)).with_kind(SpanKind::Server) };
        let call = self.start(builder, &parent, trusted);
        call.set(|| {
            let mut attributes = vec![
                KeyValue::new("http.request.method", name(method)),
                KeyValue::new("url.scheme", if arrival.peer.secure { "https" } else { "http" }),
                KeyValue::new("network.protocol.version", protocol_version(version)),
                KeyValue::new("gen_ai.operation.name", "execute_tool"),
                KeyValue::new("countersign.decision.id", arrival.id.to_string()),
            ];
            if let Some(address) = arrival.peer.address.ip() {
                attributes.push(KeyValue::new("client.address", address.to_string()));
            }
            attributes
        });
        call
    }

    /// The span of the request to the tool, below the call's.
    pub(crate) fn tool(&self, call: &Traced, method: &Method, base: &Base, path: &CanonicalPath) -> Traced {
        let Some(parent) = &call.kept else {
            return Traced { kept: None, ids: Ids { span: random_span(), ..call.ids } };
        };
        let builder = SpanBuilder::from_name(name(method)).with_kind(SpanKind::Client);
        let tool = self.start(builder, parent, None);
        tool.set(|| {
            let mut attributes = vec![
                KeyValue::new("http.request.method", name(method)),
                KeyValue::new("server.address", base.host().to_owned()),
                KeyValue::new("server.port", i64::from(base.port())),
            ];
            // Without its query: what an agent asks for there is nobody's business.
            if let Ok(url) = base.url(path.as_str(), None) {
                attributes.push(KeyValue::new("url.full", url.to_string()));
            }
            attributes
        });
        tool
    }

    /// The spans of the stages up to now, below the call's. `timings` are in microseconds, one stage after another.
    pub(crate) fn stages(&self, call: &Traced, began: Timestamp, timings: &Timings) {
        let Some(parent) = &call.kept else { return };
        let mut from = SystemTime::from(began);
        for (stage, took) in STAGES.iter().filter_map(|stage| Some((stage, timings.of(stage)?))) {
            let to = from + Duration::from_micros(took);
            if SHOWN.contains(stage) && took > 0 {
                let builder = SpanBuilder::from_name(*stage).with_start_time(from);
                self.tracer.build_with_context(builder, parent).end_with_timestamp(to);
            }
            from = to;
        }
    }

    fn start(&self, builder: SpanBuilder, parent: &Context, trusted: Option<&SpanContext>) -> Traced {
        let span = self.tracer.build_with_context(builder, parent);
        let context = span.span_context();
        // A tracer that makes no spans gives the parent's own ids, or none.
        if !context.is_valid() || parent.span().span_context().span_id() == context.span_id() {
            return Traced { kept: None, ids: Ids::minted(trusted) };
        }
        let ids = Ids { trace: context.trace_id(), span: context.span_id(), sampled: context.is_sampled() };
        Traced { kept: span.is_recording().then(|| parent.with_span(span)), ids }
    }
}

impl Traced {
    pub(crate) const fn ids(&self) -> &Ids {
        &self.ids
    }

    /// What was asked for, as it was understood.
    pub(crate) fn accepted(&self, incoming: &Incoming) {
        self.set(|| [KeyValue::new("url.path", incoming.path().as_str().to_owned())]);
    }

    /// What the request was recognised as.
    pub(crate) fn recognised(&self, method: &Method, recognised: &Recognised<'_>) {
        let Some(kept) = &self.kept else { return };
        let (tool, action) = (recognised.tool, recognised.action);
        let route = format!("{}{}", tool.at.as_str().trim_end_matches('/'), action.template);
        let span = kept.span();
        span.update_name(format!("{method} {route}"));
        span.set_attribute(KeyValue::new("http.route", route));
        span.set_attribute(KeyValue::new("gen_ai.tool.name", action.id.as_str().to_owned()));
    }

    /// Whose call it is. Never the user: traces go where personal data does not belong.
    pub(crate) fn admitted(&self, delegation: &Delegation) {
        self.set(|| {
            let agent = &delegation.chain.agent().principal.id;
            let mut attributes = vec![
                KeyValue::new("countersign.run.id", delegation.run.to_string()),
                KeyValue::new("gen_ai.agent.id", agent.as_str().to_owned()),
            ];
            if let Some(task) = &delegation.task.id {
                attributes.push(KeyValue::new("countersign.task.id", task.to_string()));
            }
            attributes
        });
    }

    /// What was decided.
    pub(crate) fn decided(&self, verdict: Verdict, code: Option<Code>) {
        self.set(|| {
            let mut attributes = vec![KeyValue::new("countersign.decision", verdict.as_str())];
            if let Some(code) = code {
                attributes.push(KeyValue::new("countersign.denial.code", code.as_str()));
            }
            attributes
        });
    }

    /// The status that was answered. On our own span only a failure of ours, or of the tool, is an error; on the
    /// tool's every status that says so.
    pub(crate) fn answered(&self, status: u16, error_from: u16) {
        self.set(|| [KeyValue::new("http.response.status_code", i64::from(status))]);
        if status >= error_from {
            self.error(|| status.to_string().into());
        }
    }

    /// There was no answer.
    pub(crate) fn failed(&self, error: &'static str) {
        self.error(|| error.into());
    }

    fn error(&self, kind: impl FnOnce() -> Value) {
        if let Some(kept) = &self.kept {
            let span = kept.span();
            span.set_status(Status::error(""));
            span.set_attribute(KeyValue::new("error.type", kind()));
        }
    }

    /// Attributes are made only for a span that is kept.
    fn set<A: IntoIterator<Item = KeyValue>>(&self, attributes: impl FnOnce() -> A) {
        if let Some(kept) = &self.kept {
            kept.span().set_attributes(attributes());
        }
    }
}

impl Ids {
    /// `traceparent`: version 00, ours, with our own sampling decision.
    pub(crate) fn traceparent(&self) -> Option<HeaderValue> {
        let mut text = String::with_capacity(55);
        text.push_str("00-");
        hexadecimal(&mut text, &self.trace.to_bytes());
        text.push('-');
        hexadecimal(&mut text, &self.span.to_bytes());
        text.push_str(if self.sampled { "-01" } else { "-00" });
        HeaderValue::try_from(text).ok()
    }

    /// Both as a record has them.
    pub(crate) fn recorded(&self) -> Trace {
        let text = |bytes: &[u8]| {
            let mut text = String::with_capacity(2 * bytes.len());
            hexadecimal(&mut text, bytes);
            text
        };
        Trace { trace_id: text(&self.trace.to_bytes()), span_id: text(&self.span.to_bytes()) }
    }

    fn minted(parent: Option<&SpanContext>) -> Self {
        let trace = parent.map_or_else(|| TraceId::from_bytes(Uuid::new_v4().into_bytes()), |parent| parent.trace_id());
        Self { trace, span: random_span(), sampled: false }
    }
}

/// Two digits for each byte: what is written for each call needs no formatting machinery.
fn hexadecimal(out: &mut String, bytes: &[u8]) {
    let digit = |half: u8| char::from(if half < 10 { b'0' + half } else { b'a' + half - 10 });
    out.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0x0f)]));
}

/// 64 bits, never all zero: the last of a version-4 UUID begin with its variant.
fn random_span() -> SpanId {
    SpanId::from_bytes(Uuid::new_v4().as_u64_pair().1.to_be_bytes())
}

/// The usual methods without a copy; others are rare.
fn name(method: &Method) -> Cow<'static, str> {
    match *method {
        Method::GET => "GET".into(),
        Method::POST => "POST".into(),
        Method::PUT => "PUT".into(),
        Method::PATCH => "PATCH".into(),
        Method::DELETE => "DELETE".into(),
        _ => method.to_string().into(),
    }
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
