//! Metrics: one meter provider, read by `/metrics` and, where a collector is configured, sent to it.

use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::{MetricExporter, Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use prometheus::{Encoder, Registry, TextEncoder};

use super::{Exporting, TelemetryError};

/// The process's metrics, as `/metrics` shows them. Clones show the same.
#[derive(Debug, Clone)]
pub(crate) struct Metrics(Registry);

impl Metrics {
    /// Nothing to show.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self(Registry::new())
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

pub(super) fn provider(exporting: &Exporting) -> Result<(SdkMeterProvider, Metrics), TelemetryError> {
    let registry = Registry::new();
    let pull = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .scope_info_enabled(false)
        .without_target_info()
        .build()?;
    let mut builder = SdkMeterProvider::builder().with_resource(exporting.resource.clone()).with_reader(pull);
    if let Some(signal) = &exporting.settings.metrics {
        let exporter = MetricExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_http_client(exporting.client(signal)?)
            .build()?;
        builder = builder.with_reader(PeriodicReader::builder(exporter).build());
    }
    Ok((builder.build(), Metrics(registry)))
}

/// Which build this is: `countersign_build_info`.
pub(super) fn describe_build() {
    let _gauge = global::meter("countersign")
        .u64_observable_gauge("countersign_build_info")
        .with_description("Always 1; the labels say which build runs.")
        .with_callback(|observer| observer.observe(1, &[KeyValue::new("version", env!("CARGO_PKG_VERSION"))]))
        .build();
}
