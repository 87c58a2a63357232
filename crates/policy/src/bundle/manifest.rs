//! `.manifest`: what a bundle says of itself.

use model::json::Json;
use serde::Serialize;
use serde_json::Value;

/// The name of the file.
pub(super) const NAME: &str = ".manifest";
/// The longest revision, in bytes.
const MAX_REVISION: usize = 256;
/// The largest manifest, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// What a bundle says of itself. Members that mean nothing here are passed over, as OPA does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// What its makers call this state of it: a commit, a version.
    pub revision: String,
    /// The paths under `data` that it owns, `countersign/teams/support`; `None` where it does not say.
    pub roots: Option<Vec<String>>,
    /// Its place among the states of the bundle: `metadata.serial`. OPA's format has no such member, and leaves
    /// `metadata` to those who make and read bundles.
    pub serial: Option<u64>,
}

impl Manifest {
    /// Reads the text of the file.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let wrong = |what: &str| format!("{NAME}: {what}");
        if bytes.len() > MAX_BYTES {
            return Err(wrong(&format!("larger than {MAX_BYTES} bytes")));
        }
        let json = Json::parse(bytes).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(json, Json::Object(_)) {
            return Err(wrong("not an object"));
        }
        let revision = match json.member("revision") {
            None | Some(Json::Null) => String::new(),
            Some(Json::Text(text)) if is_revision(text) => text.clone(),
            Some(_) => return Err(wrong(&format!("`revision` is no text of at most {MAX_REVISION} printable bytes"))),
        };
        let serial = match json.pointer("/metadata/serial") {
            None | Some(Json::Null) => None,
            Some(Json::Number(text)) => {
                Some(text.parse().map_err(|_| wrong("`metadata.serial` is no whole number from 0"))?)
            }
            Some(_) => return Err(wrong("`metadata.serial` is no number")),
        };
        if json.member("wasm").is_some_and(|wasm| !matches!(wasm, Json::Null | Json::Array(_)) || !is_empty(wasm)) {
            return Err(wrong("`wasm`: compiled policies are not run here"));
        }
        let first = |version: &Json| *version == Json::Number("0".to_owned());
        let of_files = json.member("file_rego_versions");
        let of_files = matches!(of_files, Some(Json::Object(files)) if files.iter().any(|(_, version)| first(version)));
        if of_files || json.member("rego_version").is_some_and(first) {
            return Err(wrong("`rego_version`: the Rego here is version 1"));
        }
        Ok(Self { revision, roots: roots(json.member("roots"))?, serial })
    }

    /// The text of the file, in canonical order.
    pub(super) fn text(&self) -> String {
        let roots = self.roots.as_ref().map(|roots| ("roots".to_owned(), roots.clone().into()));
        let serial = self.serial.map(|serial| ("metadata".to_owned(), serde_json::json!({ "serial": serial })));
        let always = [("revision".to_owned(), self.revision.clone().into()), ("rego_version".to_owned(), 1.into())];
        Value::Object(always.into_iter().chain(roots).chain(serial).collect()).to_string()
    }

    /// That it owns what its source may own, and nothing else.
    pub(super) fn own(&self, root: &str) -> Result<(), String> {
        match &self.roots {
            Some(roots) if roots.iter().map(String::as_str).ne([root]) => Err(format!(
                "{NAME}: its roots are [{}], and those of this source [\"{root}\"]",
                roots.iter().map(|root| format!("{root:?}")).collect::<Vec<_>>().join(", ")
            )),
            _ => Ok(()),
        }
    }
}

/// Whether a manifest may have that revision.
#[must_use]
pub fn is_revision(text: &str) -> bool {
    text.len() <= MAX_REVISION && !text.chars().any(char::is_control)
}

fn is_empty(json: &Json) -> bool {
    matches!(json, Json::Null) || matches!(json, Json::Array(items) if items.is_empty())
}

fn roots(member: Option<&Json>) -> Result<Option<Vec<String>>, String> {
    let root = |root: &Json| Some(root.as_text()?.trim_matches('/').to_owned());
    match member {
        None | Some(Json::Null) => Some(None),
        Some(Json::Array(roots)) => roots.iter().map(root).collect::<Option<_>>().map(Some),
        Some(_) => None,
    }
    .ok_or_else(|| format!("{NAME}: `roots` is no list of paths"))
}
