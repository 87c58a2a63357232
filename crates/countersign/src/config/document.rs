//! One configuration file: read, parsed with places for errors, its relative paths taken from where it lies.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use model::nearest::nearest;
use serde::de::DeserializeOwned;

use super::reading::Reading;
use crate::environment::Environment;

/// The largest configuration file, in bytes: a path to a wrong file fails fast.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// A configuration as written, and where it was written.
#[derive(Debug, Clone)]
pub(crate) struct Document<T> {
    /// The file.
    pub(crate) path: PathBuf,
    /// What it says.
    pub(crate) value: T,
    /// SHA-256 of its text, base64url: which version of it this is.
    pub(crate) revision: String,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentError {
    /// The file cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// What it says is wrong.
    #[error("{}", .0.first().map(ToString::to_string).unwrap_or_default())]
    Wrong(Vec<Problem>),
}

impl DocumentError {
    /// Every problem, for a command that prints them all.
    pub(crate) fn problems(&self) -> Vec<String> {
        match self {
            Self::Unreadable { .. } => vec![self.to_string()],
            Self::Wrong(problems) => problems.iter().map(ToString::to_string).collect(),
        }
    }
}

/// One thing that is wrong with a file, and where.
#[derive(Debug)]
pub(crate) struct Problem {
    path: PathBuf,
    /// Line and column, from 1.
    place: Option<(u64, u64)>,
    message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((line, column)) => write!(f, "{}:{line}:{column}: {}", self.path.display(), self.message),
            None => write!(f, "{}: {}", self.path.display(), self.message),
        }
    }
}

impl<T> Document<T> {
    /// The directory that relative paths are taken from.
    pub(crate) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }
}

impl<T: DeserializeOwned> Document<T> {
    /// Reads `path`. Unknown keys are all found; of other mistakes, the first.
    pub(crate) fn read(path: &Path, environment: &Environment) -> Result<Self, DocumentError> {
        let unreadable = |cause| DocumentError::Unreadable { path: path.to_owned(), cause };
        let size = std::fs::metadata(path).map_err(unreadable)?.len();
        if size > MAX_BYTES {
            return Err(unreadable(io::Error::other(format!("larger than {MAX_BYTES} bytes"))));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        // Absolute, so that relative paths in it mean the same wherever the process goes.
        let path = std::path::absolute(path).map_err(unreadable)?;
        Self::parse(path, &text, environment)
    }

    fn parse(path: PathBuf, text: &str, environment: &Environment) -> Result<Self, DocumentError> {
        let reading = Reading::new(environment);
        let parsed = serde_saphyr::with_deserializer_from_str(text, |inner| T::deserialize(reading.of(inner)));
        let mut problems: Vec<Problem> = reading
            .into_unknown()
            .into_iter()
            .map(|unknown| Problem {
                path: path.clone(),
                place: Some((unknown.line, unknown.column)),
                message: unknown_key(&unknown.key, unknown.known),
            })
            .collect();
        match parsed {
            Ok(value) if problems.is_empty() => {
                let revision = URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()));
                return Ok(Self { path, value, revision });
            }
            Ok(_) => {}
            Err(error) => problems.push(Problem {
                path,
                place: error.location().map(|place| (place.line(), place.column())),
                message: message(&error),
            }),
        }
        Err(DocumentError::Wrong(problems))
    }
}

fn unknown_key(key: &str, known: &[&str]) -> String {
    match nearest(key, known.iter().copied()) {
        Some(near) => format!("unknown key `{key}`; did you mean `{near}`?"),
        None => format!("unknown key `{key}`; here may stand: {}", known.join(", ")),
    }
}

/// The parser's message without the place, which stands in front of it.
fn message(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let text = text.lines().next().unwrap_or_default();
    text.split(" at line ").next().unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Example {
        name: String,
        #[serde(default)]
        inner: Option<Inner>,
        #[serde(default)]
        map: BTreeMap<String, Inner>,
        #[serde(default)]
        secret: Option<net::SecretSource>,
        #[serde(default)]
        wait: Option<model::duration::ConfigDuration>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        text: String,
    }

    fn parse(text: &str) -> Result<Example, Vec<String>> {
        let environment = [("EVIL", "x\"\ninner: {text: y}\n# "), ("HOST", "orders.example")].into_iter().collect();
        Document::parse("a.yaml".into(), text, &environment)
            .map(|document| document.value)
            .map_err(|error| error.problems())
    }

    #[test]
    fn every_unknown_key_is_named_with_its_place() {
        let problems =
            parse("nam: x\nname: y\ninner:\n  txt: a\n  text: b\nmap: {a: {text: x, other: 1}}\n").unwrap_err();
        assert_eq!(
            problems,
            [
                "a.yaml:1:1: unknown key `nam`; did you mean `name`?",
                "a.yaml:4:3: unknown key `txt`; did you mean `text`?",
                "a.yaml:6:20: unknown key `other`; here may stand: text",
            ]
        );
    }

    #[test]
    fn a_variable_is_text_wherever_it_stands_and_cannot_become_yaml() {
        for text in ["name: ${EVIL}\n", "name: \"${EVIL}\"\n", "name: '${EVIL}'\n", "name: |-\n  ${EVIL}\n"] {
            let example = parse(text).unwrap();
            assert_eq!(example.name, "x\"\ninner: {text: y}\n# ", "{text}");
            assert_eq!(example.inner, None);
        }
        let example =
            parse("name: a\nsecret: { file: \"/run/${HOST}\" }\nmap: { a: { text: \"https://${HOST}\" } }").unwrap();
        assert_eq!(example.secret, Some(net::SecretSource::File("/run/orders.example".into())));
        assert_eq!(example.map["a"].text, "https://orders.example");
    }

    #[test]
    fn mistakes_name_their_line_and_say_what_is_wrong() {
        for (text, place, words) in [
            ("name: a\ninner: { text: \"${MISSING}\" }\n", "a.yaml:2:", "`MISSING` is not set"),
            ("name: a\nwait: 5\n", "a.yaml:2:", "not a duration"),
            ("name: a\nname: b\n", "a.yaml:2:", "duplicate"),
            ("name: [a\n", "a.yaml:", ""),
            ("name: a\nsecret: plain\n", "a.yaml:2:", "unknown variant"),
            ("inner: {text: a}\n", "a.yaml:", "missing field `name`"),
            ("", "a.yaml", ""),
        ] {
            let problems = parse(text).unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].starts_with(place) && problems[0].contains(words), "{text:?}: {problems:?}");
        }
    }
}
