//! `countersign policy check`: everything that is wrong with policies, before they are anywhere near a sidecar.

mod show;

use std::{collections::BTreeMap, io::IsTerminal, process::ExitCode};

use clap::ValueEnum;
use policy::{Problem, Severity};
use serde::Serialize;

use self::show::Excerpts;
use super::sources::SourceArgs;
use crate::{
    environment::Environment,
    failure::Failure,
    output::{Output, Reader},
};

/// Say everything that is wrong with policies: what would not load, and what would load and not do what it says. Exits
/// with 1 where there is an error.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  countersign policy check\n  countersign policy check --config countersign.yaml --strict\n  \
                        countersign policy check org=policies/org support=policies/orders:orders\n  \
                        countersign policy check policies --catalogue countersign.yaml --format github\n\n\
                        docs/policy-check.md says what is checked, and what each code means."
)]
pub(crate) struct Args {
    #[command(flatten)]
    sources: SourceArgs,
    /// Exit with 1 for warnings too.
    #[arg(long)]
    strict: bool,
    /// How problems are printed.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// The same as `--format json`.
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people, each with its line.
    #[default]
    Text,
    /// One JSON object.
    Json,
    /// Annotations of a GitHub workflow.
    Github,
}

/// What was found, as a program reads it.
#[derive(Debug, Serialize)]
struct Report<'a> {
    /// Whether there is no error, and with `--strict` no warning.
    ok: bool,
    errors: usize,
    warnings: usize,
    /// How many Rego files were read.
    files: usize,
    /// In the order of their places.
    problems: &'a [Problem],
}

pub(super) fn run(args: &Args, environment: &Environment) -> Result<ExitCode, Failure> {
    let policies = args.sources.read(environment)?;
    let problems = policy::check(&policies.sources, policies.catalogue.as_ref()).map_err(Failure::configuration)?;
    let files = policies.sources.iter().flat_map(|source| source.policies.iter().chain(&source.tests));
    let texts: BTreeMap<&str, &str> = files.map(|file| (file.path.as_str(), file.text.as_str())).collect();
    let count = |severity: Severity| problems.iter().filter(|problem| problem.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let ok = errors == 0 && (warnings == 0 || !args.strict);
    let report = Report { ok, errors, warnings, files: texts.len(), problems: &problems };
    let mut output = Output::new();
    let format = if args.json { Format::Json } else { args.format };
    let _reader = match format {
        Format::Json => output.json(&report)?,
        Format::Github => {
            problems.iter().try_fold(Reader::Listens, |_, problem| output.line(&show::annotation(problem)))?
        }
        Format::Text => {
            let colour = std::io::stdout().is_terminal() && environment.filled("NO_COLOR").is_none();
            let excerpts = Excerpts { texts: &texts, colour };
            let shown: String = problems.iter().map(|problem| excerpts.of(problem)).collect();
            output.line(&format!("{shown}{}", report.summary(policies.catalogue.is_some())))?
        }
    };
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Report<'_> {
    /// One line that says how it went.
    fn summary(&self, catalogue: bool) -> String {
        let many = |count: usize, what: &str| if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") };
        let files = many(self.files, "file");
        let found = match (self.errors, self.warnings) {
            (0, 0) => format!("ok: {files}"),
            (0, warnings) => format!("{} in {files}", many(warnings, "warning")),
            (errors, 0) => format!("{} in {files}", many(errors, "error")),
            (errors, warnings) => {
                format!("{} and {} in {files}", many(errors, "error"), many(warnings, "warning"))
            }
        };
        let unknown = "; names of actions, parameters and facts were not checked (no `--catalogue`)";
        if catalogue { found } else { format!("{found}{unknown}") }
    }
}
