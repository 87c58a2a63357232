//! What hops hold, kept once for all tokens that say the same: a task's tokens differ in their times and names, and
//! hardly ever in what they allow.

use aws_lc_rs::digest;
use model::{authority::Elements, json::Json};
use quick_cache::sync::Cache;
use serde_json::Error;

use super::typed::typed;

/// How many different `authorization_details` are kept.
const MAX_KEPT: usize = 1024;

/// `authorization_details` that were read from verified tokens, by a digest of what they say. What they come to depends
/// on nothing else.
pub(crate) struct Details(Cache<[u8; 32], Elements>);

impl Details {
    pub(crate) fn new() -> Self {
        Self(Cache::new(MAX_KEPT))
    }

    /// The elements that `json` says.
    pub(super) fn read(&self, json: &Json) -> Result<Elements, Error> {
        let mut text = Vec::with_capacity(512);
        spell(json, &mut text);
        let mut key = [0; 32];
        key.copy_from_slice(digest::digest(&digest::SHA256, &text).as_ref());
        self.0.get_or_insert_with(&key, || typed(json))
    }
}

/// Writes `json` so that no two values are written alike: each part after its kind and its length.
fn spell(json: &Json, out: &mut Vec<u8>) {
    let mut begin = |kind: u8, length: usize, text: &str| {
        out.push(kind);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    };
    match json {
        Json::Null => begin(b'n', 0, ""),
        Json::Bool(value) => begin(b'b', usize::from(*value), ""),
        Json::Number(text) => begin(b'#', text.len(), text),
        Json::Text(text) => begin(b'"', text.len(), text),
        Json::Array(items) => {
            begin(b'[', items.len(), "");
            items.iter().for_each(|item| spell(item, out));
        }
        Json::Object(members) => {
            begin(b'{', members.len(), "");
            for (name, value) in members {
                out.extend_from_slice(&name.len().to_le_bytes());
                out.extend_from_slice(name.as_bytes());
                spell(value, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelt(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        spell(&Json::parse(text.as_bytes()).unwrap(), &mut out);
        out
    }

    #[test]
    fn no_two_values_are_spelt_alike() {
        let texts = [
            "null",
            "true",
            "false",
            "0",
            "1",
            "1.0",
            "\"1\"",
            "\"\"",
            "\"null\"",
            "[]",
            "[[]]",
            "[[],[]]",
            "[null]",
            "{}",
            "{\"a\":{}}",
            "{\"a\":[]}",
            "{\"a\":1,\"b\":2}",
            "{\"b\":2,\"a\":1}",
            "{\"a\":{\"b\":2}}",
            "[\"a\",\"b\"]",
            "[\"ab\",\"\"]",
            "[\"a\\\",\\\"b\"]",
            "[\"a\",[\"b\"]]",
            "[[\"a\"],\"b\"]",
            "{\"a\":\"b\"}",
            "{\"ab\":\"\"}",
        ];
        for (index, one) in texts.iter().enumerate() {
            for (place, other) in texts.iter().enumerate() {
                assert_eq!(spelt(one) == spelt(other), index == place, "{one} {other}");
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_kept_and_what_is_kept_is_shared() {
        let details = Details::new();
        let read = |text: &str| details.read(&Json::parse(text.as_bytes()).unwrap());
        let good = r#"[{"type":"urn:countersign:action","actions":["a"],"locations":["b"]}]"#;
        let broken = r#"[{"type":"urn:countersign:action","actions":["a"],"locations":["b"],"privileges":["x"]}]"#;
        assert!(read(broken).is_err() && read(broken).is_err() && read("null").is_err());
        let one = read(good).unwrap();
        assert!(one.is_shared_with(&read(good).unwrap()) && one.len() == 1);
        assert!(!one.is_shared_with(&read(&good.replace("\"b\"", "\"c\"")).unwrap()));
    }
}
