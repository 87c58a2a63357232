//! Metrics: one meter provider, read by `/metrics` and, where a collector is configured, sent to it.

use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::{MetricExporter, Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_prometheus::PrometheusExporter;
use opentelemetry_sdk::{
    error::OTelSdkError,
    metrics::{PeriodicReader, SdkMeterProvider},
};
use prometheus::{Encoder, Registry, TextEncoder};

use super::{
    Exporting, TelemetryError,
    queue::{CountedMetrics, Queue},
};

/// The process's metrics, as `/metrics` shows them. Clones show the same.
#[derive(Debug, Clone)]
pub(crate) struct Metrics(Registry);

impl Metrics {
    /// Those of the test process, which its meters report to from now on.
    #[cfg(test)]
    pub(crate) fn installed() -> Self {
        static INSTALLED: std::sync::OnceLock<Metrics> = std::sync::OnceLock::new();
        let install = || {
            let registry = Registry::new();
            let provider = SdkMeterProvider::builder().with_reader(pull(&registry).unwrap()).build();
            global::set_meter_provider(provider);
            describe_build();
            Self(registry)
        };
        INSTALLED.get_or_init(install).clone()
    }

    /// The media type of [`Metrics::text`].
    pub(crate) const MEDIA_TYPE: &str = prometheus::TEXT_FORMAT;

    /// Every metric in the Prometheus text format.
    pub(crate) fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.0.gather(), &mut text)?;
        Ok(text)
    }
}

/// The meter provider, what `/metrics` shows of it, and where it is sent, the count of that.
pub(super) fn provider(exporting: &Exporting) -> Result<(SdkMeterProvider, Metrics, Option<Queue>), TelemetryError> {
    let registry = Registry::new();
    let mut sent = None;
    let mut builder =
        SdkMeterProvider::builder().with_resource(exporting.resource.clone()).with_reader(pull(&registry)?);
    if let Some(signal) = &exporting.settings.metrics {
        let exporter = MetricExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_http_client(exporting.client(signal)?)
            .build()?;
        let count = sent.insert(Queue::new(0)).clone();
        builder = builder.with_reader(PeriodicReader::builder(CountedMetrics::new(exporter, count)).build());
    }
    Ok((builder.build(), Metrics(registry), sent))
}

/// What `/metrics` is read from: no series but ours.
fn pull(registry: &Registry) -> Result<PrometheusExporter, OTelSdkError> {
    opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .scope_info_enabled(false)
        .without_target_info()
        .build()
}

/// Which build this is: `countersign_build_info`.
pub(super) fn describe_build() {
    let _gauge = global::meter("countersign")
        .u64_observable_gauge("countersign_build_info")
        .with_description("Always 1; the labels say which build runs.")
        .with_callback(|observer| observer.observe(1, &[KeyValue::new("version", env!("CARGO_PKG_VERSION"))]))
        .build();
}
