//! Log lines on standard error: for people, or as JSON for a log collector.

use clap::ValueEnum;
use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, Layer, fmt, registry::LookupSpan};

use super::TelemetryError;
use crate::environment::Environment;

/// Options of every command that runs for a while.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Logging")]
pub(crate) struct ConsoleArgs {
    /// How log lines on standard error look.
    #[arg(long, global = true, value_enum, default_value_t, env = "COUNTERSIGN_LOG_FORMAT", value_name = "FORMAT")]
    log_format: LogFormat,
    /// Which log lines are written: `info`, or per part `warn,countersign_proxy=debug`. Without it, RUST_LOG.
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

type Boxed<S> = Box<dyn Layer<S> + Send + Sync>;

/// The layer that writes log lines.
pub(super) fn layer<S>(
    args: &ConsoleArgs,
    default_level: &str,
    environment: &Environment,
) -> Result<Boxed<S>, TelemetryError>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let filter = filter(args.log.as_deref().or_else(|| environment.filled("RUST_LOG")), default_level)?;
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(true);
    Ok(match args.log_format {
        LogFormat::Human => {
            let colour =
                std::io::IsTerminal::is_terminal(&std::io::stderr()) && environment.filled("NO_COLOR").is_none();
            lines.with_ansi(colour).compact().with_filter(filter).boxed()
        }
        LogFormat::Json => {
            lines.with_ansi(false).json().flatten_event(true).with_current_span(false).with_filter(filter).boxed()
        }
    })
}

/// Without a filter of the operator's own: `default_level`, no line for each call, because the ledger has those, and
/// one instead of two for each export that fails.
fn filter(directives: Option<&str>, default_level: &str) -> Result<EnvFilter, TelemetryError> {
    let default = format!("{default_level},countersign::audit=off,opentelemetry-otlp=error");
    let directives = directives.unwrap_or(&default);
    EnvFilter::try_new(directives).map_err(|cause| TelemetryError::Filter { directives: directives.to_owned(), cause })
}
