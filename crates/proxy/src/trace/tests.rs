//! What a collector of spans sees, and what holds where there is none.

use http::Method;
use opentelemetry::trace::{TraceFlags, TraceState, TracerProvider as _, noop::NoopTracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracerProvider, SpanData};

use super::*;
use crate::testing::{arrival, base, delegation};

const CLAIMED: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn claimed() -> SpanContext {
    let trace = TraceId::from_hex(CLAIMED).unwrap();
    let span = SpanId::from_hex("00f067aa0ba902b7").unwrap();
    SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::default())
}

fn collected(sampler: Sampler) -> (Spans, InMemorySpanExporter) {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_sampler(sampler).with_simple_exporter(exporter.clone()).build();
    (Spans { tracer: BoxedTracer::new(Box::new(provider.tracer("test"))) }, exporter)
}

fn nobody() -> Spans {
    Spans { tracer: BoxedTracer::new(Box::new(NoopTracerProvider::new().tracer("test"))) }
}

/// The ids of a call that is refused, and of its request to the tool.
fn call(spans: &Spans, mode: ClaimedTrace) -> (Ids, Ids) {
    let call = spans.call(&arrival(), &Method::GET, Version::HTTP_11, Some(&claimed()), mode);
    call.admitted(&delegation());
    call.decided(Verdict::Deny, Some(Code::Stage));
    call.answered(403, 500);
    let tool = spans.tool(&call, &Method::GET, &base("http://127.0.0.1:1"), &CanonicalPath::parse("/v1").unwrap());
    tool.answered(403, 400);
    (*call.ids(), *tool.ids())
}

fn attribute(span: &SpanData, name: &str) -> Option<String> {
    span.attributes.iter().find(|pair| pair.key.as_str() == name).map(|pair| pair.value.to_string())
}

#[test]
fn a_claimed_trace_is_linked_and_the_record_has_the_ids_that_were_exported() {
    let (spans, exporter) = collected(Sampler::AlwaysOn);
    let (call_ids, tool_ids) = call(&spans, ClaimedTrace::Link);
    let spans = exporter.get_finished_spans().unwrap();
    let [tool, call] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!((&call.span_kind, &tool.span_kind), (&SpanKind::Server, &SpanKind::Client));
    assert_eq!((call.span_context.trace_id(), call.span_context.span_id()), (call_ids.trace, call_ids.span));
    assert_ne!(call_ids.trace.to_string(), CLAIMED);
    assert_eq!(call.links.links[0].span_context.trace_id().to_string(), CLAIMED);
    assert_eq!(tool.parent_span_id, call.span_context.span_id());
    assert_eq!((tool.span_context.trace_id(), tool.span_context.span_id()), (tool_ids.trace, tool_ids.span));
    assert!(call_ids.sampled && tool_ids.sampled);
    assert_eq!(attribute(call, "countersign.run.id").as_deref(), Some("run-1"));
    assert_eq!(attribute(call, "countersign.denial.code").as_deref(), Some("stage"));
    assert_eq!(attribute(call, "gen_ai.agent.id").as_deref(), Some("helper"));
    assert_eq!(call.status, Status::Unset, "a refusal is no failure of ours");
    assert_ne!(tool.status, Status::Unset);
    assert_eq!(attribute(tool, "url.full").as_deref(), Some("http://127.0.0.1:1/v1"));
    let shown = format!("{spans:?}");
    assert!(!shown.contains("alice"), "no user in a trace: {shown}");
}

#[test]
fn the_stages_that_a_call_can_wait_in_are_spans_one_after_another() {
    let (spans, exporter) = collected(Sampler::AlwaysOn);
    let began = Timestamp::UNIX_EPOCH;
    let timings = Timings::from([("accept", 10), ("admit", 20), ("facts", 0), ("decide", 30), ("record", 400)]);
    let call = spans.call(&arrival(), &Method::GET, Version::HTTP_11, None, ClaimedTrace::Link);
    spans.stages(&call, began, &timings);
    let seen: Vec<_> = exporter
        .get_finished_spans()
        .unwrap()
        .iter()
        .map(|span| {
            assert_eq!((span.parent_span_id, span.span_kind.clone()), (call.ids().span, SpanKind::Internal));
            let after = |time: SystemTime| time.duration_since(began.into()).unwrap().as_micros();
            (span.name.to_string(), after(span.start_time), after(span.end_time))
        })
        .collect();
    assert_eq!(seen, [("admit".to_owned(), 10, 30), ("decide".to_owned(), 30, 60), ("record".to_owned(), 60, 460)]);
}

#[test]
fn a_trusted_trace_is_continued() {
    let (spans, exporter) = collected(Sampler::AlwaysOn);
    let (call_ids, tool_ids) = call(&spans, ClaimedTrace::Parent);
    assert_eq!((call_ids.trace, tool_ids.trace), (claimed().trace_id(), claimed().trace_id()));
    let spans = exporter.get_finished_spans().unwrap();
    assert_eq!(spans[1].parent_span_id.to_string(), "00f067aa0ba902b7");
}

#[test]
fn a_call_that_is_not_sampled_has_its_ids_and_leaves_no_span() {
    let (spans, exporter) = collected(Sampler::AlwaysOff);
    for mode in [ClaimedTrace::Link, ClaimedTrace::Parent] {
        let (call_ids, tool_ids) = call(&spans, mode);
        assert!(!call_ids.sampled && !tool_ids.sampled, "the caller's flag decides nothing");
        assert_eq!(call_ids.trace, tool_ids.trace);
        assert_eq!(call_ids.trace == claimed().trace_id(), mode == ClaimedTrace::Parent);
        assert_ne!(call_ids.span, tool_ids.span);
        assert!(tool_ids.traceparent().unwrap().to_str().unwrap().ends_with("-00"));
    }
    assert!(exporter.get_finished_spans().unwrap().is_empty());
}

#[test]
fn a_call_has_a_trace_even_where_nobody_listens_and_the_tool_sees_a_child_of_it() {
    let spans = nobody();
    let call = spans.call(&arrival(), &Method::GET, Version::HTTP_11, None, ClaimedTrace::Link);
    let tool = spans.tool(&call, &Method::GET, &base("http://127.0.0.1:1"), &CanonicalPath::parse("/").unwrap());
    assert_ne!((call.ids().trace, call.ids().span), (TraceId::INVALID, SpanId::INVALID));
    assert_eq!(call.ids().trace, tool.ids().trace);
    assert_ne!(call.ids().span, tool.ids().span);
    let header = tool.ids().traceparent().unwrap();
    assert_eq!(header.to_str().unwrap(), format!("00-{}-{}-00", tool.ids().trace, tool.ids().span));
    assert_eq!(header.len(), 55);
    let continued = spans.call(&arrival(), &Method::GET, Version::HTTP_11, Some(&claimed()), ClaimedTrace::Parent);
    assert_eq!(continued.ids().trace, claimed().trace_id());
    assert_ne!(continued.ids().span, claimed().span_id());
}
