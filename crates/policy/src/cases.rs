//! Cases: calls, written by hand or taken from a ledger, with the decision that each should get. YAML, decided by the
//! engine that decides for a sidecar, the platform team's policy and the teams' together.

mod build;
mod given;
mod recorded;
mod run;
mod values;
mod without;

use std::{fmt, fs, path::Path as FilePath};

use serde_saphyr::{Location, Spanned};

use self::given::CaseFile;
pub use self::{
    build::{Built, DEFAULT_NOW, said},
    recorded::written,
    run::{CaseOutcome, Loosened, run},
};

/// How the names of files of cases end.
pub const SUFFIX: &str = "_cases.yaml";
/// The largest file of cases, in bytes.
pub const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// The most cases of one file.
pub const MAX_CASES: usize = 10_000;

/// What is wrong with a file of cases, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseError {
    /// The file.
    pub file: String,
    /// The line, from 1; of the case, where it is about the whole of it.
    pub line: u64,
    /// The column, from 1.
    pub column: u64,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for CaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)
    }
}

impl std::error::Error for CaseError {}

/// Reads the cases of the file at `path`, and makes each a question to policy. Where `catalogue` is known, names and
/// types are its own.
///
/// # Errors
/// Where it cannot be read, or is not what such a file says, with line and column.
pub fn read(path: &FilePath, catalogue: Option<&model::Catalogue>) -> Result<Vec<Built>, CaseError> {
    let file = path.display().to_string();
    let unfit = |message: String| CaseError { file: file.clone(), line: 1, column: 1, message };
    let metadata = fs::metadata(path).map_err(|error| unfit(error.to_string()))?;
    if metadata.len() > MAX_BYTES {
        return Err(unfit(format!("larger than {MAX_BYTES} bytes")));
    }
    let text = fs::read_to_string(path).map_err(|error| unfit(error.to_string()))?;
    parse(&file, &text, catalogue)
}

/// The same of a file's text.
///
/// # Errors
/// Where it is not what such a file says.
pub fn parse(file: &str, text: &str, catalogue: Option<&model::Catalogue>) -> Result<Vec<Built>, CaseError> {
    let at = |location: Location, message: String| CaseError {
        file: file.to_owned(),
        line: location.line(),
        column: location.column(),
        message,
    };
    let options = serde_saphyr::options! { with_snippet: false };
    let read: CaseFile = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let text = error.without_snippet().to_string();
        let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
        at(error.location().unwrap_or(Location::UNKNOWN), message.to_owned())
    })?;
    if read.cases.len() > MAX_CASES {
        return Err(at(Location::UNKNOWN, format!("more than {MAX_CASES} cases")));
    }
    let mut built: Vec<Built> = Vec::new();
    for Spanned { value, defined, .. } in read.cases {
        let case = value.with(&read.defaults);
        let place = at(defined, String::new());
        let case = build::question(case, catalogue, &place).map_err(|message| at(defined, message))?;
        if built.iter().any(|other| other.name == case.name) {
            return Err(at(defined, format!("a second case is called `{}`", case.name)));
        }
        built.push(case);
    }
    Ok(built)
}

/// The JSON Schema of a file of cases.
#[must_use]
pub fn schema() -> serde_json::Value {
    let mut generator = schemars::generate::SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.root_schema_for::<CaseFile>();
    schema.insert("title".to_owned(), "Countersign policy cases".into());
    schema.to_value()
}

#[cfg(test)]
mod tests;
