//! An OpenAPI document (3.0 or 3.1) as far as a catalogue needs it. It is somebody else's: its size, depth and references
//! are bounded, and what of it cannot be read is said and never guessed.

pub(crate) mod operation;
pub(crate) mod schema;
mod tree;

use std::{cell::Cell, fs::File, io::Read, path::Path};

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;

pub(crate) use operation::Operation;

/// The largest document, in bytes.
const MAX_BYTES: u64 = 32 * 1024 * 1024;
/// How many references may follow each other.
const MAX_REFERENCES: usize = 32;
/// The most operations of a document.
const MAX_OPERATIONS: usize = 20_000;
/// The most servers that are read in one place.
const MOST_SERVERS: usize = 32;
/// The longest URL of a server, in characters.
const LONGEST_URL: usize = 300;
/// The methods that an action may have.
pub(crate) const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Those that documents know, and no action has.
const OTHER_METHODS: [&str; 2] = ["query", "trace"];

/// A document.
#[derive(Debug)]
pub(crate) struct Document {
    /// How it was named.
    pub(crate) name: String,
    /// SHA-256 of its bytes, in hexadecimal digits.
    pub(crate) digest: String,
    root: Value,
    /// How much of schemas was looked at, over all operations.
    steps: Cell<usize>,
}

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// It is too large.
    #[error("is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// It is not JSON or YAML, or more than is read of one.
    #[error("is not a JSON or YAML document that can be read: {0}")]
    Syntax(String),
    /// It is of the version before.
    #[error("is Swagger 2.0; OpenAPI 3.0 and 3.1 are read, and there are converters (`swagger2openapi`)")]
    Swagger,
    /// It is something else.
    #[error("is no OpenAPI 3.0 or 3.1 document: {0}")]
    Version(String),
    /// It has too much in it.
    #[error("has more than {MAX_OPERATIONS} operations")]
    TooMany,
}

/// Why a reference leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Dangling {
    /// It leads out of the document.
    #[error("`{0}` lies outside the document, which is not followed")]
    Outside(String),
    /// Nothing is there.
    #[error("`{0}` is not in the document")]
    Missing(String),
    /// It goes round, or on for too long.
    #[error("`{0}` leads to itself")]
    Round(String),
}

impl Document {
    /// Reads the document at `path`.
    pub(crate) fn read(path: &Path) -> Result<Self, DocumentError> {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        if u64::try_from(bytes.len()).is_ok_and(|size| size > MAX_BYTES) {
            return Err(DocumentError::TooLarge);
        }
        let text = str::from_utf8(&bytes).map_err(|error| DocumentError::Syntax(error.to_string()))?;
        Self::parse(path.display().to_string(), text)
    }

    /// Reads `text`; `name` is how it is called.
    pub(crate) fn parse(name: String, text: &str) -> Result<Self, DocumentError> {
        let root = tree::read(text).map_err(|error| DocumentError::Syntax(plain(&error, 300)))?;
        if root.get("swagger").is_some() {
            return Err(DocumentError::Swagger);
        }
        match root.get("openapi").and_then(Value::as_str) {
            Some(version) if version.starts_with("3.0") || version.starts_with("3.1") => {}
            Some(version) => return Err(DocumentError::Version(format!("its version is `{}`", plain(version, 20)))),
            None => return Err(DocumentError::Version("it has no `openapi: 3.…`".to_owned())),
        }
        let digest = digest(&SHA256, text.as_bytes());
        let digest = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { name, digest, root, steps: Cell::new(0) })
    }

    /// The title, on one line.
    pub(crate) fn title(&self) -> Option<String> {
        Some(plain(self.root.pointer("/info/title")?.as_str()?, 80)).filter(|title| !title.is_empty())
    }

    /// The URLs of its servers, variables replaced by their defaults.
    pub(crate) fn servers(&self) -> Vec<String> {
        servers_of(&self.root)
    }

    /// The names of what the tool calls elsewhere, unasked (3.1).
    pub(crate) fn webhooks(&self) -> Vec<&str> {
        self.root
            .get("webhooks")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// The ways to authenticate, by name.
    pub(crate) fn security_schemes(&self) -> impl Iterator<Item = &Value> {
        let schemes = self.root.pointer("/components/securitySchemes").and_then(Value::as_object);
        schemes.into_iter().flatten().filter_map(|(_, scheme)| self.resolve(scheme).ok())
    }

    /// The operations, by path and method, and what of `paths` could not be read.
    pub(crate) fn operations(&self) -> Result<(Vec<Operation<'_>>, Vec<String>), DocumentError> {
        let (mut operations, mut problems) = (Vec::new(), Vec::new());
        if self.root.get("servers").and_then(Value::as_array).is_some_and(|servers| servers.len() > MOST_SERVERS) {
            problems.push(format!("it names more than {MOST_SERVERS} servers, and no more are read"));
        }
        let paths = self.root.get("paths").and_then(Value::as_object);
        let mut paths: Vec<_> = paths.into_iter().flatten().filter(|(path, _)| !path.starts_with("x-")).collect();
        paths.sort_unstable_by_key(|(path, _)| *path);
        for (path, item) in paths {
            if !path.starts_with('/') {
                problems.push(format!("{}: a path begins with `/`", plain(path, 200)));
                continue;
            }
            match self.resolve(item) {
                Ok(item) => {
                    operations.extend(Operation::all(self, path, item));
                    let others = OTHER_METHODS.iter().filter(|method| item.get(**method).is_some());
                    problems.extend(others.map(|method| {
                        format!("{} {}: no action has this method", method.to_ascii_uppercase(), plain(path, 200))
                    }));
                }
                Err(error) => problems.push(format!("{}: {error}", plain(path, 200))),
            }
            if operations.len() > MAX_OPERATIONS {
                return Err(DocumentError::TooMany);
            }
        }
        Ok((operations, problems))
    }

    /// What `value` is, or what its reference leads to.
    pub(crate) fn resolve<'a>(&'a self, value: &'a Value) -> Result<&'a Value, Dangling> {
        let mut at = value;
        for _ in 0..MAX_REFERENCES {
            let Some(reference) = at.get("$ref").and_then(Value::as_str) else { return Ok(at) };
            let shown = || plain(reference, 120);
            let pointer = reference.strip_prefix('#').ok_or_else(|| Dangling::Outside(shown()))?;
            let pointer = percent_encoding::percent_decode_str(pointer).decode_utf8_lossy();
            at = self.root.pointer(&pointer).ok_or_else(|| Dangling::Missing(shown()))?;
        }
        let reference = at.get("$ref").and_then(Value::as_str).unwrap_or_default();
        Err(Dangling::Round(plain(reference, 120)))
    }
}

/// The URLs of the servers that `value` (a document, a path or an operation) names.
fn servers_of(value: &Value) -> Vec<String> {
    let servers = value.get("servers").and_then(Value::as_array).into_iter().flatten();
    servers.take(MOST_SERVERS).filter_map(server_url).collect()
}

/// The URL of a server, its variables replaced by their defaults. A default is text and no template: what is replaced
/// in what was replaced makes a short document a long URL.
fn server_url(server: &Value) -> Option<String> {
    let default = |name: &str| server.get("variables")?.get(name)?.get("default")?.as_str();
    let template = plain(server.get("url")?.as_str()?, 4 * LONGEST_URL);
    let mut rest = template.as_str();
    let mut url = String::new();
    while let Some((before, (name, after))) =
        rest.split_once('{').and_then(|(before, after)| Some((before, after.split_once('}')?)))
    {
        url.push_str(before);
        match default(name) {
            Some(text) => url.extend(text.chars().take(LONGEST_URL)),
            None => url.push_str(&format!("{{{name}}}")),
        }
        rest = after;
        if url.len() > 4 * LONGEST_URL {
            break;
        }
    }
    url.push_str(rest);
    Some(plain(&without_user(&url), LONGEST_URL))
}

/// `url` without the user name and password that somebody left in it: nothing that is written of a document repeats them.
fn without_user(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("//") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}//{host}{path}"),
        None => url.to_owned(),
    }
}

/// Text of a document on one line, without what a terminal or a YAML comment would take for more than text, and not
/// longer than `most` characters.
pub(crate) fn plain(text: &str, most: usize) -> String {
    let unfit = |c: char| {
        c.is_control()
            || matches!(c, '\u{85}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
    };
    let text: String = text.chars().take(most + 1).map(|c| if unfit(c) { ' ' } else { c }).collect();
    let mut words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = words.char_indices().nth(most) {
        words.truncate(end);
        words.push('…');
    }
    words
}

#[cfg(test)]
mod tests;
