//! The reference documents that are generated from the code, and the test that holds the committed copies to it.

pub(crate) mod schema;

mod codes;
mod configuration;
mod input;
mod library;
pub(crate) mod telemetry;

/// One generated document.
pub(crate) struct Document {
    /// Its path below `docs`.
    pub(crate) path: &'static str,
    /// Its whole text.
    pub(crate) text: String,
}

/// Every generated document.
pub(crate) fn documents() -> Vec<Document> {
    vec![
        Document { path: "schema/sidecar.json", text: schema::sidecar() },
        Document { path: "schema/authority.json", text: schema::authority() },
        Document { path: "schema/store.json", text: schema::store() },
        Document { path: "schema/policy-input.json", text: schema::policy_input() },
        Document { path: "schema/policy-exchange.json", text: schema::policy_exchange() },
        Document { path: "schema/policy-management.json", text: schema::policy_management() },
        Document { path: "reference/config.md", text: configuration::document() },
        Document { path: "reference/denial-codes.md", text: codes::document() },
        Document { path: "reference/policy-input.md", text: input::document() },
        Document { path: "reference/policy-library.md", text: library::document() },
        Document { path: "reference/telemetry.md", text: telemetry::document() },
    ]
}

/// What stands at the top of each generated page.
const GENERATED: &str = "<!-- Generated from the code; a test compares. To write it anew: cargo run -- docs -->\n";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// `COUNTERSIGN_WRITE_DOCS=1 cargo test -p countersign reference` writes them anew.
    #[test]
    fn the_committed_reference_is_what_the_code_says() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        let write = std::env::vars_os().any(|(name, _)| name == "COUNTERSIGN_WRITE_DOCS");
        for document in documents() {
            let path = docs.join(document.path);
            if write {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, &document.text).unwrap();
            }
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(committed == document.text, "{} is stale: run `cargo run -- docs`", document.path);
        }
    }
}
