//! What the process tells about itself: log lines, traces, audit log events and metrics, by the standard `OTEL_*`
//! variables (docs/reference/telemetry.md).
//!
//! Telemetry never decides and never delays a call: what waits for a collector waits in a bounded queue, what does
//! not fit is dropped and counted, and the ledger stays the record.

pub(crate) mod console;
pub(crate) mod settings;

mod client;
mod events;
mod metrics;
mod queue;
mod unheard;

use std::time::Duration;

use opentelemetry::global;
use opentelemetry_otlp::{LogExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    logs::{BatchLogProcessor, SdkLoggerProvider},
    metrics::SdkMeterProvider,
    propagation::TraceContextPropagator,
    trace::{BatchSpanProcessor, SdkTracerProvider},
};
use tokio::runtime::Handle;
use tracing_subscriber::{Registry, layer::SubscriberExt, util::SubscriberInitExt};

use crate::environment::Environment;
use client::OtlpClient;
use console::ConsoleArgs;
use queue::{BoundedLogs, BoundedSpans, CountedLogs, CountedSpans, Queue};
use settings::{Settings, Signal};
use unheard::Unheard;

pub(crate) use metrics::Metrics;

/// The target of the events that stand for records of the ledger.
pub(crate) const AUDIT_TARGET: &str = "countersign::audit";
/// How long the signals may take to reach their collector when the process ends.
const FLUSH: Duration = Duration::from_secs(3);

/// Why telemetry cannot be set up. A collector that is down is no such reason.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TelemetryError {
    /// A filter of log lines is malformed.
    #[error("`{directives}` is not a log filter: {cause}")]
    Filter {
        /// The filter.
        directives: String,
        /// What is wrong with it.
        cause: tracing_subscriber::filter::ParseError,
    },
    /// An `OTEL_*` variable is malformed.
    #[error(transparent)]
    Settings(#[from] settings::SettingsError),
    /// An exporter refuses its settings.
    #[error("the OTLP exporter cannot be set up: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The client's TLS cannot be set up.
    #[error("the OTLP exporter cannot be set up: {0}")]
    Tls(#[from] net::TlsError),
    /// The metrics endpoint cannot be set up.
    #[error("metrics cannot be set up: {0}")]
    Metrics(#[from] opentelemetry_sdk::error::OTelSdkError),
    /// Somebody else already receives this process's traces.
    #[error("logging cannot be set up: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Running telemetry. Call [`Telemetry::stop`] at the end, outside the runtime.
pub(crate) struct Telemetry {
    traces: Option<SdkTracerProvider>,
    logs: Option<SdkLoggerProvider>,
    meters: SdkMeterProvider,
    metrics: Metrics,
}

impl Telemetry {
    /// Sets up logging, traces, log events and metrics for the whole process. `service` is its name unless
    /// `OTEL_SERVICE_NAME` says otherwise; exports run on `runtime`.
    pub(crate) fn start(
        console: &ConsoleArgs,
        default_level: &str,
        service: &'static str,
        environment: &Environment,
        runtime: &Handle,
    ) -> Result<Self, TelemetryError> {
        let settings = Settings::from_environment(environment)?;
        let resource = resource(service, environment);
        let exporting = Exporting { resource, runtime: runtime.clone(), settings };

        let (meters, metrics, sent) = metrics::provider(&exporting)?;
        global::set_meter_provider(meters.clone());
        if let Some(sent) = sent {
            sent.shown_as("metrics");
        }
        global::set_text_map_propagator(TraceContextPropagator::new());
        metrics::describe_build();

        let traces = exporting.traces()?;
        let logs = exporting.logs()?;
        let events = logs.as_ref().map(events::layer);
        Registry::default().with(events).with(console::layer(console, default_level, environment)?).try_init()?;
        for warning in &exporting.settings.warnings {
            tracing::warn!("{warning}");
        }
        Ok(Self { traces, logs, meters, metrics })
    }

    /// What `/metrics` shows.
    pub(crate) fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Sends what is still queued, for a few seconds at most. Blocks: the runtime must still be running, and the
    /// caller not be on it.
    pub(crate) fn stop(self) {
        let Self { traces, logs, meters, metrics: _ } = self;
        let told = |stopped: OTelSdkResult| {
            if let Err(error) = stopped {
                tracing::warn!(%error, "telemetry could not be sent completely");
            }
        };
        // At the same time: a collector that does not answer is waited for once and not three times.
        std::thread::scope(|scope| {
            scope.spawn(|| traces.map(|provider| told(provider.shutdown_with_timeout(FLUSH))));
            scope.spawn(|| logs.map(|provider| told(provider.shutdown_with_timeout(FLUSH))));
            told(meters.shutdown_with_timeout(FLUSH));
        });
    }
}

/// What every exporter is made from.
struct Exporting {
    resource: Resource,
    runtime: Handle,
    settings: Settings,
}

impl Exporting {
    fn client(&self, signal: &Signal) -> Result<OtlpClient, TelemetryError> {
        OtlpClient::new(signal, self.runtime.clone())
    }

    /// The provider of spans, global from now on. Calls get their ids, and the tools hear of them, even where nobody
    /// collects spans: the ledger names them.
    fn traces(&self) -> Result<Option<SdkTracerProvider>, TelemetryError> {
        if self.settings.disabled {
            return Ok(None);
        }
        let Some(signal) = &self.settings.traces else {
            global::set_tracer_provider(Unheard::new(self.settings.sampler.clone()));
            return Ok(None);
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_http_client(self.client(signal)?)
            .build()?;
        let queue = Queue::new(signal.queue).shown_as("traces");
        let processor = BatchSpanProcessor::builder(CountedSpans::new(exporter, queue.clone())).build();
        let provider = SdkTracerProvider::builder()
            .with_sampler(self.settings.sampler.clone())
            .with_resource(self.resource.clone())
            .with_span_processor(BoundedSpans::new(processor, queue))
            .build();
        global::set_tracer_provider(provider.clone());
        Ok(Some(provider))
    }

    fn logs(&self) -> Result<Option<SdkLoggerProvider>, TelemetryError> {
        let Some(signal) = &self.settings.logs else { return Ok(None) };
        let exporter = LogExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_http_client(self.client(signal)?)
            .build()?;
        let queue = Queue::new(signal.queue).shown_as("logs");
        let processor = BatchLogProcessor::builder(CountedLogs::new(exporter, queue.clone())).build();
        let builder = SdkLoggerProvider::builder().with_resource(self.resource.clone());
        Ok(Some(builder.with_log_processor(BoundedLogs::new(processor, queue)).build()))
    }
}

fn resource(service: &'static str, environment: &Environment) -> Resource {
    let named = environment.filled("OTEL_SERVICE_NAME").is_some()
        || environment.filled("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|text| text.contains("service.name="));
    let builder =
        Resource::builder().with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if named { builder.build() } else { builder.with_service_name(service).build() }
}
