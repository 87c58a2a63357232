//! `${NAME}` in a configuration's text. `$$` is one dollar sign; any other `$` stays as it is.

use crate::environment::Environment;

/// Why text could not be expanded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ExpansionError {
    /// The variable is not set.
    #[error("the environment variable `{0}` is not set (write `$${{{0}}}` for the text itself)")]
    Unset(String),
    /// `${` without a name and `}`.
    #[error("`${{` has to be followed by a variable's name and `}}` (write `$$` for a dollar sign)")]
    Malformed,
}

/// `text` with its variables' values, or `None` where it has nothing to expand. Values are not expanded again.
pub(crate) fn expand(text: &str, environment: &Environment) -> Result<Option<String>, ExpansionError> {
    if !text.contains("${") && !text.contains("$$") {
        return Ok(None);
    }
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        rest = if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            after
        } else if let Some(after) = after.strip_prefix('{') {
            let (name, after) = after.split_once('}').ok_or(ExpansionError::Malformed)?;
            if !is_name(name) {
                return Err(ExpansionError::Malformed);
            }
            expanded.push_str(environment.value(name).ok_or_else(|| ExpansionError::Unset(name.to_owned()))?);
            after
        } else {
            expanded.push('$');
            after
        };
    }
    expanded.push_str(rest);
    Ok(Some(expanded))
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<Option<String>, ExpansionError> {
        expand(text, &[("HOST", "orders.example"), ("NESTED", "${HOST}$$")].into_iter().collect())
    }

    #[test]
    fn variables_become_their_values_once_and_two_dollars_become_one() {
        assert_eq!(expanded("https://${HOST}/v1"), Ok(Some("https://orders.example/v1".to_owned())));
        assert_eq!(expanded("${NESTED}"), Ok(Some("${HOST}$$".to_owned())));
        assert_eq!(expanded("$${HOST} $user $$"), Ok(Some("${HOST} $user $".to_owned())));
        assert_eq!(expanded("$user, 5$"), Ok(None));
    }

    #[test]
    fn what_cannot_be_expanded_is_an_error_and_never_an_empty_text() {
        assert_eq!(expanded("${MISSING}"), Err(ExpansionError::Unset("MISSING".to_owned())));
        for text in ["${", "${}", "${HOST", "${HOST:-x}", "${1}", "${ HOST }"] {
            assert_eq!(expanded(text), Err(ExpansionError::Malformed), "{text}");
        }
    }
}
