//! Traces that nobody collects: ids for the record and for the tool, and whether the tool should keep its part.
//!
//! Calls have a trace without a collector too, and it costs next to nothing: no span is made for it.

use std::{borrow::Cow, time::SystemTime};

use opentelemetry::{
    Context, InstrumentationScope, KeyValue,
    trace::{
        Span, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceState, Tracer,
        TracerProvider,
    },
};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, Sampler, SamplingDecision, ShouldSample};

/// Gives ids, and decides as `sampler` does.
#[derive(Debug, Clone)]
pub(super) struct Unheard {
    sampler: Sampler,
    ids: RandomIdGenerator,
}

/// The ids of a span that does not exist.
#[derive(Debug)]
pub(super) struct UnheardSpan(SpanContext);

impl Unheard {
    pub(super) fn new(sampler: Sampler) -> Self {
        Self { sampler, ids: RandomIdGenerator::default() }
    }
}

impl TracerProvider for Unheard {
    type Tracer = Self;

    fn tracer_with_scope(&self, _: InstrumentationScope) -> Self {
        self.clone()
    }
}

impl Tracer for Unheard {
    type Span = UnheardSpan;

    fn build_with_context(&self, builder: SpanBuilder, parent: &Context) -> UnheardSpan {
        let parent = parent.span().span_context().clone();
        let trace = if parent.is_valid() { parent.trace_id() } else { self.ids.new_trace_id() };
        let kind = builder.span_kind.unwrap_or(SpanKind::Internal);
        let sampled = self.sampler.should_sample(None, trace, &builder.name, &kind, &[], &[]).decision;
        let flags = TraceFlags::default().with_sampled(sampled == SamplingDecision::RecordAndSample);
        UnheardSpan(SpanContext::new(trace, self.ids.new_span_id(), flags, false, TraceState::NONE))
    }
}

impl Span for UnheardSpan {
    fn span_context(&self) -> &SpanContext {
        &self.0
    }

    fn is_recording(&self) -> bool {
        false
    }

    fn add_event_with_timestamp<T>(&mut self, _: T, _: SystemTime, _: Vec<KeyValue>)
    where
        T: Into<Cow<'static, str>>,
    {
    }

    fn set_attribute(&mut self, _: KeyValue) {}

    fn set_status(&mut self, _: Status) {}

    fn update_name<T>(&mut self, _: T)
    where
        T: Into<Cow<'static, str>>,
    {
    }

    fn add_link(&mut self, _: SpanContext, _: Vec<KeyValue>) {}

    fn end_with_timestamp(&mut self, _: SystemTime) {}
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, TraceId};

    use super::*;

    fn span(sampler: Sampler, parent: &Context) -> SpanContext {
        Unheard::new(sampler).build_with_context(SpanBuilder::from_name("call"), parent).span_context().clone()
    }

    #[test]
    fn a_trace_that_nobody_collects_has_ids_and_the_samplers_word() {
        for (sampler, sampled) in [(Sampler::AlwaysOn, true), (Sampler::AlwaysOff, false)] {
            let (one, other) = (span(sampler.clone(), &Context::new()), span(sampler, &Context::new()));
            assert!(one.is_valid() && other.is_valid());
            assert_ne!((one.trace_id(), one.span_id()), (other.trace_id(), other.span_id()));
            assert_eq!((one.is_sampled(), other.is_sampled()), (sampled, sampled));
        }
    }

    #[test]
    fn a_parents_trace_goes_on_and_its_flag_is_not_heeded() {
        let parent = SpanContext::new(
            TraceId::from_bytes([7; 16]),
            SpanId::from_bytes([9; 8]),
            TraceFlags::SAMPLED,
            true,
            TraceState::NONE,
        );
        let child = span(Sampler::AlwaysOff, &Context::new().with_remote_span_context(parent.clone()));
        assert_eq!(child.trace_id(), parent.trace_id());
        assert_ne!(child.span_id(), parent.span_id());
        assert!(!child.is_sampled());
    }
}
