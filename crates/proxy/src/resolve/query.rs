//! The query's declared parameters. Servers differ on repeated keys, on `;`, on `+` and on brackets, so a
//! declared parameter that is touched by any of these is refused.

use std::{borrow::Cow, collections::BTreeMap};

use model::Refusal;
use percent_encoding::percent_decode_str;

use crate::accept::malformed;

/// The values of the declared keys.
#[derive(Debug)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads `raw`. Unless `open`, a key that is not `declared` is refused.
    pub(super) fn read(raw: Option<&str>, declared: &[&str], open: bool) -> Result<Self, Box<Refusal>> {
        let mut values = BTreeMap::new();
        let raw = raw.unwrap_or_default();
        let closed = !open || !declared.is_empty();
        if closed && raw.contains(';') {
            return Err(malformed("The query has a `;`, which servers read differently; write `%3B`."));
        }
        for pair in raw.split('&') {
            if pair.is_empty() {
                continue;
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = decoded(key)?;
            if !declared.contains(&key.as_ref()) {
                if !open || declared.iter().any(|name| same_to_some_server(name, &key)) {
                    let shown: String = key.chars().filter(|c| !c.is_control()).take(60).collect();
                    return Err(malformed(&format!(
                        "The query has a parameter `{shown}` that the action does not declare."
                    )));
                }
                continue;
            }
            if value.contains('+') {
                return Err(malformed(&format!("The query parameter `{key}` has a `+`; write `%20` or `%2B`.")));
            }
            let value = decoded(value)?.into_owned();
            if values.insert(key.to_string(), value).is_some() {
                return Err(malformed(&format!("The query parameter `{key}` is given twice.")));
            }
        }
        Ok(Self(values))
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

fn decoded(text: &str) -> Result<Cow<'_, str>, Box<Refusal>> {
    percent_decode_str(text).decode_utf8().map_err(|_| malformed("The query is not UTF-8."))
}

/// Whether some server takes `key` for `name`: in other case, cut at a NUL, with brackets or a property after it, or
/// with characters that become `_` (PHP).
fn same_to_some_server(name: &str, key: &str) -> bool {
    let key = key.split('\0').next().unwrap_or_default();
    let plain = key.split(['[', '.']).next().unwrap_or_default();
    folded(key) == folded(name) || folded(plain) == folded(name)
}

fn folded(key: &str) -> String {
    let key = key.replace('+', " ");
    key.trim()
        .chars()
        .map(|c| if matches!(c, ' ' | '.' | '[') { '_' } else { c })
        .flat_map(char::to_lowercase)
        .collect()
}
