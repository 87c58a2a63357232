//! RFC 8785 canonical JSON, restricted to what it carries exactly: no floats, no integer beyond ±(2^53 - 1).
//!
//! A record that would round a number would explain a decision that was never made, so it is not written.

use model::canonical::{self, Form, Unwritable};
use serde::Serialize;

/// A value that canonical JSON cannot carry exactly.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unrecordable {
    /// A number that would be rounded, or no JSON at all.
    #[error(transparent)]
    Value(#[from] Unwritable),
    /// A line or a companion row that no reader would take.
    #[error("{bytes} bytes in one line, and at most {limit} are read back")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The longest that is read.
        limit: usize,
    },
    /// The random generator gave no salt.
    #[error("no random salt for a personal value")]
    Salt,
}

/// Writes the canonical text of `value` to the end of `out`.
pub(crate) fn write(value: &(impl Serialize + ?Sized), out: &mut Vec<u8>) -> Result<(), Unrecordable> {
    Ok(canonical::write(value, Form::Exact, out)?)
}

/// The canonical text of `value`.
pub(crate) fn text(value: &impl Serialize) -> Result<String, Unrecordable> {
    let mut out = Vec::new();
    write(value, &mut out)?;
    String::from_utf8(out).map_err(|error| Unwritable::Shape(error.to_string()).into())
}
