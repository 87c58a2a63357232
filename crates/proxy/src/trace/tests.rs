//! What a listener to spans sees, and what holds where there is none.

use std::sync::OnceLock;

use http::Method;
use opentelemetry::trace::{SpanId, Status, TraceFlags, TraceId};
use opentelemetry::trace::{SpanKind, TraceState, TracerProvider as _};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;
use crate::testing::{arrival, base, delegation};

const CLAIMED: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn claimed() -> SpanContext {
    let trace = TraceId::from_hex(CLAIMED).unwrap();
    let span = SpanId::from_hex("00f067aa0ba902b7").unwrap();
    SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::default())
}

/// A listener for the whole process: whether anybody listens is remembered per place in the code, not per thread.
fn listening() -> &'static (SdkTracerProvider, InMemorySpanExporter) {
    static LISTENING: OnceLock<(SdkTracerProvider, InMemorySpanExporter)> = OnceLock::new();
    LISTENING.get_or_init(|| {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)).unwrap();
        (provider, exporter)
    })
}

/// The spans of a call to a tool, the tool's first.
fn spans(mode: ClaimedTrace) -> (Vec<SpanData>, Ids, Ids) {
    let (provider, exporter) = listening();
    let (call_ids, tool_ids) = {
        let call = Traced::call(&arrival(), &Method::GET, Version::HTTP_11, Some(&claimed()), mode);
        call.admitted(&delegation());
        call.decided(Verdict::Deny, Some(Code::Stage));
        call.answered(403, 500);
        let tool = call.tool(&Method::GET, &base("http://127.0.0.1:1"), "http://127.0.0.1:1/v1");
        tool.answered(403, 400);
        (call.ids().clone(), tool.ids().clone())
    };
    provider.force_flush().unwrap();
    let mut spans = exporter.get_finished_spans().unwrap();
    spans.retain(|span| span.span_context.trace_id().to_string() == call_ids.trace);
    (spans, call_ids, tool_ids)
}

fn attribute(span: &SpanData, name: &str) -> Option<String> {
    span.attributes.iter().find(|pair| pair.key.as_str() == name).map(|pair| pair.value.to_string())
}

#[test]
fn a_claimed_trace_is_linked_and_the_record_has_the_ids_that_were_exported() {
    let (spans, call_ids, tool_ids) = spans(ClaimedTrace::Link);
    let [tool, call] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!((&call.span_kind, &tool.span_kind), (&SpanKind::Server, &SpanKind::Client));
    assert_eq!(call.span_context.trace_id().to_string(), call_ids.trace);
    assert_eq!(call.span_context.span_id().to_string(), call_ids.span);
    assert_ne!(call_ids.trace, CLAIMED);
    assert_eq!(call.links.links[0].span_context.trace_id().to_string(), CLAIMED);
    assert_eq!(tool.parent_span_id, call.span_context.span_id());
    assert_eq!(tool.span_context.span_id().to_string(), tool_ids.span);
    assert_eq!(attribute(call, "countersign.run.id").as_deref(), Some("run-1"));
    assert_eq!(attribute(call, "countersign.denial.code").as_deref(), Some("stage"));
    assert_eq!(attribute(call, "gen_ai.agent.id").as_deref(), Some("helper"));
    assert_eq!(call.status, Status::Unset, "a refusal is no failure of ours");
    assert_ne!(tool.status, Status::Unset);
    let shown = format!("{spans:?}");
    assert!(!shown.contains("alice"), "no user in a trace: {shown}");
}

#[test]
fn a_trusted_trace_is_continued() {
    let (spans, call_ids, _) = spans(ClaimedTrace::Parent);
    assert_eq!(call_ids.trace, CLAIMED);
    assert_eq!(spans[1].parent_span_id.to_string(), "00f067aa0ba902b7");
}

#[test]
fn a_call_has_a_trace_even_where_nobody_listens_and_the_tool_sees_a_child_of_it() {
    let _nobody = tracing::subscriber::set_default(tracing::subscriber::NoSubscriber::default());
    let call = Traced::call(&arrival(), &Method::GET, Version::HTTP_11, None, ClaimedTrace::Link);
    let tool = call.tool(&Method::GET, &base("http://127.0.0.1:1"), "http://127.0.0.1:1/");
    assert_eq!((call.ids().trace.len(), call.ids().span.len()), (32, 16));
    assert_eq!(call.ids().trace, tool.ids().trace);
    assert_ne!(call.ids().span, tool.ids().span);
    let header = tool.ids().traceparent().unwrap();
    assert_eq!(header.to_str().unwrap(), format!("00-{}-{}-00", tool.ids().trace, tool.ids().span));
    let continued = Traced::call(&arrival(), &Method::GET, Version::HTTP_11, Some(&claimed()), ClaimedTrace::Parent);
    assert_eq!(continued.ids().trace, CLAIMED);
}
