//! The JSON body of a write, read once and strictly: no member twice, none that nobody knows.

use model::json::Json;
use serde::de::DeserializeOwned;

use super::{Call, problem::Problem};

/// The longest text that a person writes for others, in characters.
const MAX_TEXT: usize = 1_000;

impl Call {
    /// The body as `T`.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        parse(&self.body)
    }
}

/// A JSON text as `T`.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    if body.is_empty() {
        return Err(Problem::invalid("the request needs a JSON body"));
    }
    let json = Json::parse(body).map_err(|error| Problem::invalid(format!("the body: {error}")))?;
    serde_json::from_value(json.to_serde()).map_err(|error| Problem::invalid(format!("the body: {error}")))
}

/// Text for people: some, of bounded length, on lines that show.
pub(crate) fn text(name: &str, text: &str) -> Result<String, Problem> {
    let trimmed = text.trim();
    let length = trimmed.chars().count();
    if length == 0 || length > MAX_TEXT || trimmed.chars().any(|c| c.is_control() && c != '\n') {
        return Err(Problem::invalid(format!(
            "`{name}` has to be text of 1 to {MAX_TEXT} characters without control characters"
        )));
    }
    Ok(trimmed.to_owned())
}
