//! What a file's hash in a signature is taken over, as OPA takes it: documents of JSON and YAML in one canonical form,
//! whatever their white space and order of names; all other files as they are.

use model::json::Json;

/// Whether OPA hashes the content of a file with that name, and not its bytes. (`data.yml` is read, and hashed as it is.)
pub(super) fn is_structured(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    matches!(name, "data.json" | "data.yaml" | ".manifest" | "signatures.json")
}

/// Writes `value` with names in order and nothing between: numbers as they are written, texts as Go's `encoding/json`
/// writes them without care for HTML.
pub(super) fn write(value: &Json, out: &mut impl FnMut(&[u8])) {
    match value {
        Json::Null => out(b"null"),
        Json::Bool(true) => out(b"true"),
        Json::Bool(false) => out(b"false"),
        Json::Number(number) => out(number.as_bytes()),
        Json::Text(string) => text(string, out),
        Json::Array(items) => {
            out(b"[");
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out(b",");
                }
                write(item, out);
            }
            out(b"]");
        }
        Json::Object(members) => {
            let mut members: Vec<&(String, Json)> = members.iter().collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            out(b"{");
            for (index, (name, value)) in members.into_iter().enumerate() {
                if index > 0 {
                    out(b",");
                }
                text(name, out);
                out(b":");
                write(value, out);
            }
            out(b"}");
        }
    }
}

fn text(string: &str, out: &mut impl FnMut(&[u8])) {
    out(b"\"");
    let mut plain = 0;
    for (at, c) in string.char_indices() {
        let escaped = match c {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\u{8}' => "\\b",
            '\u{c}' => "\\f",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            '\u{2028}' => "\\u2028",
            '\u{2029}' => "\\u2029",
            c if c < ' ' => "",
            _ => continue,
        };
        out(string.get(plain..at).unwrap_or_default().as_bytes());
        if escaped.is_empty() {
            out(format!("\\u{:04x}", u32::from(c)).as_bytes());
        } else {
            out(escaped.as_bytes());
        }
        plain = at + c.len_utf8();
    }
    out(string.get(plain..).unwrap_or_default().as_bytes());
    out(b"\"");
}

/// A document of YAML as the JSON that OPA makes of it.
pub(super) fn of_yaml(text: &str) -> Result<Json, String> {
    let value: serde_json::Value = serde_saphyr::from_str(text).map_err(|error| format!("not valid YAML: {error}"))?;
    of_serde(&value)
}

fn of_serde(value: &serde_json::Value) -> Result<Json, String> {
    Ok(match value {
        serde_json::Value::Null => Json::Null,
        serde_json::Value::Bool(value) => Json::Bool(*value),
        serde_json::Value::Number(number) => Json::Number(match number.as_f64() {
            // A number with a fraction is written as ECMAScript writes it, there and here.
            Some(float) if number.is_f64() => serde_json_canonicalizer::to_string(&float).map_err(|e| e.to_string())?,
            _ => number.to_string(),
        }),
        serde_json::Value::String(text) => Json::Text(text.clone()),
        serde_json::Value::Array(items) => Json::Array(items.iter().map(of_serde).collect::<Result<_, _>>()?),
        serde_json::Value::Object(members) => {
            let member = |(name, value): (&String, &serde_json::Value)| Ok((name.clone(), of_serde(value)?));
            Json::Object(members.iter().map(member).collect::<Result<_, String>>()?)
        }
    })
}
