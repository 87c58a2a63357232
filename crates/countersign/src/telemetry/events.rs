//! Audit log events: each tracing event of the target `countersign::audit` becomes one OTLP log record, with the
//! event's name and, from its `trace_id` and `span_id`, the context of the span that it belongs to.

use opentelemetry::{
    Key, SpanId, TraceId,
    logs::{AnyValue, LogRecord, Logger, LoggerProvider, Severity},
};
use opentelemetry_sdk::logs::{SdkLogRecord, SdkLogger, SdkLoggerProvider};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, filter::Targets, layer::Context, registry::LookupSpan};

use super::AUDIT_TARGET;

/// The layer that sends audit events to `provider`.
pub(super) fn layer<S>(provider: &SdkLoggerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    AuditEvents { logger: provider.logger("countersign") }
        .with_filter(Targets::new().with_target(AUDIT_TARGET, Level::INFO))
}

struct AuditEvents {
    logger: SdkLogger,
}

impl<S: Subscriber> Layer<S> for AuditEvents {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut record = self.logger.create_log_record();
        let (severity, text) = severity(*event.metadata().level());
        record.set_timestamp(net::clock::now().into());
        record.set_target(AUDIT_TARGET);
        record.set_event_name(event.metadata().name());
        record.set_severity_number(severity);
        record.set_severity_text(text);
        let mut attributes = Attributes { record: &mut record, trace: None, span: None };
        event.record(&mut attributes);
        // Said by the event itself: an outcome is often known only when its span is no longer entered.
        if let (Some(trace), Some(span)) = (attributes.trace, attributes.span) {
            record.set_trace_context(trace, span, None);
        }
        self.logger.emit(record);
    }
}

const fn severity(level: Level) -> (Severity, &'static str) {
    match level {
        Level::ERROR => (Severity::Error, "ERROR"),
        Level::WARN => (Severity::Warn, "WARN"),
        Level::INFO => (Severity::Info, "INFO"),
        Level::DEBUG => (Severity::Debug, "DEBUG"),
        Level::TRACE => (Severity::Trace, "TRACE"),
    }
}

struct Attributes<'a> {
    record: &'a mut SdkLogRecord,
    trace: Option<TraceId>,
    span: Option<SpanId>,
}

impl Attributes<'_> {
    fn add(&mut self, field: &Field, value: AnyValue) {
        match field.name() {
            "message" => self.record.set_body(value),
            name => self.record.add_attribute(Key::from_static_str(name), value),
        }
    }

    fn add_text(&mut self, field: &Field, text: &str) {
        match field.name() {
            "trace_id" => self.trace = TraceId::from_hex(text).ok(),
            "span_id" => self.span = SpanId::from_hex(text).ok(),
            _ => self.add(field, text.to_owned().into()),
        }
    }
}

impl Visit for Attributes<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.add_text(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add_text(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        // OTLP has no unsigned integers.
        self.add(field, i64::try_from(value).map_or_else(|_| value.to_string().into(), AnyValue::from));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }
}
