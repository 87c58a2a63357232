//! What waits for export: bounded, and counted when it does not fit or does not arrive.
//!
//! The SDK's processors drop silently when their queue is full. These stand in front of them, with a bound that the
//! inner queue never reaches, so that every loss has a number in `/metrics`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use opentelemetry::{Context, InstrumentationScope, KeyValue, global, logs::Severity};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    logs::{LogBatch, LogExporter, LogProcessor, SdkLogRecord},
    metrics::{Temporality, data::ResourceMetrics, exporter::PushMetricExporter},
    trace::{Span, SpanData, SpanExporter, SpanProcessor},
};

/// The count of what waits for one signal's exporter. Clones count together.
#[derive(Debug, Clone)]
pub(super) struct Queue(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    limit: usize,
    waiting: AtomicUsize,
    dropped: AtomicU64,
    failed: AtomicU64,
    exported: AtomicU64,
}

impl Queue {
    /// A queue of at most `limit` items.
    pub(super) fn new(limit: usize) -> Self {
        Self(Arc::new(Counts {
            limit,
            waiting: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            exported: AtomicU64::new(0),
        }))
    }

    /// The same, visible as `signal` in the metrics of the meter provider that is global now.
    pub(super) fn shown_as(self, signal: &'static str) -> Self {
        let shown = Arc::clone(&self.0);
        let _counter = global::meter("countersign")
            .u64_observable_counter("countersign_telemetry_items")
            .with_description("Spans, log events and exports of metrics by what became of them: exported, failed (the collector did not take them) or dropped (the queue was full)")
            .with_callback(move |observer| {
                for (outcome, count) in [("exported", &shown.exported), ("failed", &shown.failed), ("dropped", &shown.dropped)] {
                    observer.observe(count.load(Ordering::Relaxed), &[KeyValue::new("signal", signal), KeyValue::new("outcome", outcome)]);
                }
            })
            .build();
        self
    }

    /// Takes a place, or counts the item as dropped.
    fn enter(&self) -> bool {
        let entered = self.0.waiting.try_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
            (waiting < self.0.limit).then_some(waiting + 1)
        });
        if entered.is_err() {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
        entered.is_ok()
    }

    fn leave(&self, items: usize) {
        self.0.waiting.fetch_sub(items, Ordering::Relaxed);
    }

    fn sent(&self, items: usize, result: &OTelSdkResult) {
        let count = if result.is_ok() { &self.0.exported } else { &self.0.failed };
        count.fetch_add(items as u64, Ordering::Relaxed);
    }
}

/// Lets a span into the inner processor while there is room.
#[derive(Debug)]
pub(super) struct BoundedSpans<P> {
    inner: P,
    queue: Queue,
}

impl<P> BoundedSpans<P> {
    pub(super) const fn new(inner: P, queue: Queue) -> Self {
        Self { inner, queue }
    }
}

impl<P: SpanProcessor> SpanProcessor for BoundedSpans<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.queue.enter() {
            self.inner.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Counts what an exporter of spans takes and what arrives.
#[derive(Debug)]
pub(super) struct CountedSpans<E> {
    inner: E,
    queue: Queue,
}

impl<E> CountedSpans<E> {
    pub(super) const fn new(inner: E, queue: Queue) -> Self {
        Self { inner, queue }
    }
}

impl<E: SpanExporter> SpanExporter for CountedSpans<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let items = batch.len();
        self.queue.leave(items);
        let result = self.inner.export(batch).await;
        self.queue.sent(items, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Lets a log event into the inner processor while there is room.
#[derive(Debug)]
pub(super) struct BoundedLogs<P> {
    inner: P,
    queue: Queue,
}

impl<P> BoundedLogs<P> {
    pub(super) const fn new(inner: P, queue: Queue) -> Self {
        Self { inner, queue }
    }
}

impl<P: LogProcessor> LogProcessor for BoundedLogs<P> {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        if self.queue.enter() {
            self.inner.emit(record, scope);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn event_enabled(&self, level: Severity, target: &str, name: Option<&str>) -> bool {
        self.inner.event_enabled(level, target, name)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Counts what an exporter of log events takes and what arrives.
#[derive(Debug)]
pub(super) struct CountedLogs<E> {
    inner: E,
    queue: Queue,
}

impl<E> CountedLogs<E> {
    pub(super) const fn new(inner: E, queue: Queue) -> Self {
        Self { inner, queue }
    }
}

impl<E: LogExporter> LogExporter for CountedLogs<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let items = batch.iter().count();
        self.queue.leave(items);
        let result = self.inner.export(batch).await;
        self.queue.sent(items, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn event_enabled(&self, level: Severity, target: &str, name: Option<&str>) -> bool {
        self.inner.event_enabled(level, target, name)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Counts the exports of metrics. They do not queue: each has the state of its own moment.
#[derive(Debug)]
pub(super) struct CountedMetrics<E> {
    inner: E,
    queue: Queue,
}

impl<E> CountedMetrics<E> {
    pub(super) const fn new(inner: E, queue: Queue) -> Self {
        Self { inner, queue }
    }
}

impl<E: PushMetricExporter> PushMetricExporter for CountedMetrics<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let result = self.inner.export(metrics).await;
        self.queue.sent(1, &result);
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.inner.temporality()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_counts_and_has_room_again_once_items_left() {
        let queue = Queue::new(2);
        assert!(queue.enter() && queue.enter() && !queue.enter() && !queue.enter());
        assert_eq!(queue.0.dropped.load(Ordering::Relaxed), 2);
        queue.leave(2);
        queue.sent(2, &Ok(()));
        assert!(queue.enter());
        assert_eq!(queue.0.exported.load(Ordering::Relaxed), 2);
    }
}
