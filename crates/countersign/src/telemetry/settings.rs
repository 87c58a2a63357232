//! The standard `OTEL_*` variables, as far as they say whether and how something is exported.
//!
//! Endpoints, headers and compression are read from the same variables by the exporter itself.

use std::{path::PathBuf, time::Duration};

use opentelemetry_sdk::trace::Sampler;

use crate::environment::Environment;

/// What the variables say.
#[derive(Debug)]
pub(crate) struct Settings {
    /// `OTEL_SDK_DISABLED`
    pub(super) disabled: bool,
    /// Where spans go.
    pub(super) traces: Option<Signal>,
    /// Where audit log events go.
    pub(super) logs: Option<Signal>,
    /// Where metrics go, besides `/metrics`.
    pub(super) metrics: Option<Signal>,
    /// Which traces are kept.
    pub(super) sampler: Sampler,
    /// What was asked for and is not done.
    pub(super) warnings: Vec<String>,
}

/// How one signal is exported.
#[derive(Debug, Clone)]
pub(super) struct Signal {
    /// For one export.
    pub(super) timeout: Duration,
    /// The PEM text of the certificate authorities of the collector.
    pub(super) certificate: Option<Vec<u8>>,
    /// How much may wait.
    pub(super) queue: usize,
}

/// A variable that means nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// Its value is not one of those it may have.
    #[error("{name}: `{value}` is not {expected}")]
    Value {
        /// The variable.
        name: String,
        /// What it holds.
        value: String,
        /// What it may hold.
        expected: &'static str,
    },
    /// It names a file that cannot be read.
    #[error("{name}: cannot read {}: {cause}", path.display())]
    File {
        /// The variable.
        name: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
}

impl Settings {
    /// Reads the variables.
    pub(crate) fn from_environment(environment: &Environment) -> Result<Self, SettingsError> {
        let mut reader = Reader { environment, warnings: Vec::new() };
        let disabled = environment.filled("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let mut signal = |name, queue| if disabled { Ok(None) } else { reader.signal(name, queue) };
        let traces = signal("TRACES", "OTEL_BSP_MAX_QUEUE_SIZE")?;
        let logs = signal("LOGS", "OTEL_BLRP_MAX_QUEUE_SIZE")?;
        let metrics = signal("METRICS", "OTEL_BSP_MAX_QUEUE_SIZE")?;
        let sampler = reader.sampler()?;
        Ok(Self { disabled, traces, logs, metrics, sampler, warnings: reader.warnings })
    }
}

struct Reader<'a> {
    environment: &'a Environment,
    warnings: Vec<String>,
}

impl Reader<'_> {
    fn signal(&mut self, name: &str, queue: &str) -> Result<Option<Signal>, SettingsError> {
        let wanted = match self.environment.filled(&format!("OTEL_{name}_EXPORTER")) {
            Some("none") => false,
            Some("otlp") => true,
            // Without an endpoint nothing is sent: the standard's default would be a collector on this machine.
            None => self.filled(name, "ENDPOINT").is_some(),
            Some(other) => {
                self.warnings.push(format!(
                    "OTEL_{name}_EXPORTER={other}: only `otlp` and `none` are known; nothing is exported"
                ));
                false
            }
        };
        if !wanted {
            return Ok(None);
        }
        if let Some((variable, protocol)) =
            self.filled(name, "PROTOCOL").filter(|(_, protocol)| *protocol != "http/protobuf")
        {
            let warning =
                format!("{variable}={protocol}: only `http/protobuf` is spoken (port 4318); nothing is exported");
            self.warnings.push(warning);
            return Ok(None);
        }
        Ok(Some(Signal {
            timeout: Duration::from_millis(self.whole(name, "TIMEOUT", 10_000)?),
            certificate: self.certificate(name)?,
            queue: match self.environment.filled(queue) {
                Some(value) => parse(queue, value, "a whole number")?,
                None => 2_048,
            },
        }))
    }

    /// `OTEL_EXPORTER_OTLP_<SIGNAL>_<what>`, else `OTEL_EXPORTER_OTLP_<what>`, with its name.
    fn filled(&self, signal: &str, what: &str) -> Option<(String, &str)> {
        [format!("OTEL_EXPORTER_OTLP_{signal}_{what}"), format!("OTEL_EXPORTER_OTLP_{what}")]
            .into_iter()
            .find_map(|name| self.environment.filled(&name).map(|value| (name, value)))
    }

    fn whole(&self, signal: &str, what: &str, default: u64) -> Result<u64, SettingsError> {
        match self.filled(signal, what) {
            Some((name, value)) => parse(&name, value, "a whole number of milliseconds"),
            None => Ok(default),
        }
    }

    fn certificate(&self, signal: &str) -> Result<Option<Vec<u8>>, SettingsError> {
        let Some((name, path)) = self.filled(signal, "CERTIFICATE") else { return Ok(None) };
        let path = PathBuf::from(path);
        std::fs::read(&path).map(Some).map_err(|cause| SettingsError::File { name, path, cause })
    }

    /// The caller's "sampled" flag is a claim of the agent's, and an agent could switch its own traces off with it.
    /// So the `parentbased_` samplers decide as if there were no parent; the ratio depends on the trace id alone,
    /// so that a trace is still kept or left as a whole.
    fn sampler(&self) -> Result<Sampler, SettingsError> {
        let name = self.environment.filled("OTEL_TRACES_SAMPLER").unwrap_or("always_on");
        match name.strip_prefix("parentbased_").unwrap_or(name) {
            "always_on" => Ok(Sampler::AlwaysOn),
            "always_off" => Ok(Sampler::AlwaysOff),
            "traceidratio" => {
                let variable = "OTEL_TRACES_SAMPLER_ARG";
                let text = self.environment.filled(variable).unwrap_or("1");
                let expected = "a ratio between 0 and 1";
                let ratio: f64 = parse(variable, text, expected)?;
                if (0.0..=1.0).contains(&ratio) {
                    Ok(Sampler::TraceIdRatioBased(ratio))
                } else {
                    Err(SettingsError::Value { name: variable.to_owned(), value: text.to_owned(), expected })
                }
            }
            _ => Err(SettingsError::Value {
                name: "OTEL_TRACES_SAMPLER".to_owned(),
                value: name.to_owned(),
                expected: "always_on, always_off or traceidratio (or one of them after `parentbased_`)",
            }),
        }
    }
}

fn parse<T: std::str::FromStr>(name: &str, value: &str, expected: &'static str) -> Result<T, SettingsError> {
    value.parse().map_err(|_| SettingsError::Value { name: name.to_owned(), value: value.to_owned(), expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        Settings::from_environment(&variables.iter().copied().collect())
    }

    #[test]
    fn nothing_is_exported_unless_a_variable_says_where() {
        let none = settings(&[]).unwrap();
        assert!(none.traces.is_none() && none.logs.is_none() && none.metrics.is_none());
        let all = settings(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")]).unwrap();
        assert!(all.traces.is_some() && all.logs.is_some() && all.metrics.is_some());
        let one = settings(&[("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://127.0.0.1:4318/v1/logs")]).unwrap();
        assert!(one.traces.is_none() && one.logs.is_some());
        let asked = settings(&[("OTEL_TRACES_EXPORTER", "otlp")]).unwrap();
        assert!(asked.traces.is_some() && asked.logs.is_none());
    }

    #[test]
    fn a_signal_or_all_of_it_can_be_switched_off() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
        let some = settings(&[endpoint, ("OTEL_METRICS_EXPORTER", "none")]).unwrap();
        assert!(some.traces.is_some() && some.metrics.is_none());
        let off = settings(&[endpoint, ("OTEL_SDK_DISABLED", "TRUE")]).unwrap();
        assert!(off.disabled && off.traces.is_none() && off.logs.is_none());
    }

    #[test]
    fn what_is_not_spoken_is_a_warning_and_no_reason_not_to_run() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317");
        let grpc = settings(&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).unwrap();
        assert!(grpc.traces.is_none() && grpc.warnings.len() == 3, "{:?}", grpc.warnings);
        let jaeger = settings(&[("OTEL_TRACES_EXPORTER", "jaeger")]).unwrap();
        assert!(jaeger.traces.is_none() && jaeger.warnings.len() == 1);
    }

    #[test]
    fn the_callers_flag_never_decides_what_is_sampled() {
        for name in ["", "always_on", "parentbased_always_on"] {
            assert!(matches!(settings(&[("OTEL_TRACES_SAMPLER", name)]).unwrap().sampler, Sampler::AlwaysOn));
        }
        let ratio = [("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.25")];
        assert!(matches!(settings(&ratio).unwrap().sampler, Sampler::TraceIdRatioBased(r) if (r - 0.25).abs() < 1e-9));
    }

    #[test]
    fn a_variable_that_means_nothing_is_named() {
        for variable in [
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nonexistent.pem"),
        ] {
            let error = settings(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"), variable]).unwrap_err();
            assert!(error.to_string().starts_with(variable.0), "{error}");
        }
    }
}
