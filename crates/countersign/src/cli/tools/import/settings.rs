//! Where a tool is and what it is shown, as its document says it. That is authority and not the document's to give, so a
//! person is asked to look at each of it.

use net::{Plaintext, check_operator_url};
use serde_json::{Value, json};

use crate::{
    cli::tools::{draft::Settings, openapi::Document},
    failure::{Exit, Failure},
};

/// What stands where nothing is known: a name that never resolves.
const NOWHERE: &str = "https://change-me.invalid";

/// What the tool `name` has beside its actions.
pub(super) fn settings(
    document: &Document,
    name: &str,
    upstream: Option<&str>,
    at: Option<&str>,
) -> Result<Settings, Failure> {
    let mut review = Vec::new();
    let servers = document.servers();
    let given = upstream.is_some();
    let upstream = match upstream {
        Some(said) => {
            check_operator_url(said, Plaintext::LoopbackOnly)
                .map_err(|error| Failure::because(Exit::Usage, "--upstream", error))?;
            said.to_owned()
        }
        None => first(&servers, &mut review),
    };
    let others: Vec<&str> =
        servers.iter().skip(usize::from(!given)).map(String::as_str).filter(|url| *url != upstream).collect();
    if !others.is_empty() {
        review.push(format!("the document names other servers, which are other tools or none: {}", others.join(", ")));
    }
    let at = match at {
        Some(at) => at.to_owned(),
        None => format!("/{name}"),
    };
    model::CanonicalPath::parse(&at).map_err(|error| Failure::because(Exit::Usage, "--at", error))?;
    let credential = credential(document, name, &mut review);
    Ok(Settings { at, upstream, credential, review })
}

fn first(servers: &[String], review: &mut Vec<String>) -> String {
    let Some(url) = servers.first() else {
        review.push("the document names no server: say where the tool is".to_owned());
        return NOWHERE.to_owned();
    };
    if check_operator_url(url, Plaintext::LoopbackOnly).is_ok() && !url.contains(['?', '{']) {
        review.push(
            "`upstream` is what the document says: whoever wrote that decides where the credential goes".to_owned(),
        );
        return url.clone();
    }
    review.push(format!("the document's server `{url}` is no base URL: say where the tool is"));
    let path = if url.starts_with('/') && !url.contains(['?', '{', '#']) { url.trim_end_matches('/') } else { "" };
    format!("{NOWHERE}{path}")
}

/// The first way to authenticate that a sidecar has, with a file that a person puts there.
fn credential(document: &Document, name: &str, review: &mut Vec<String>) -> Value {
    let file = json!({ "file": format!("secrets/{name}") });
    for scheme in document.security_schemes() {
        let text = |name: &str| scheme.get(name).and_then(Value::as_str).unwrap_or_default();
        match (text("type"), text("scheme"), text("in")) {
            ("http", scheme, _) if scheme.eq_ignore_ascii_case("bearer") => return json!({ "bearer": file }),
            ("oauth2" | "openIdConnect", _, _) => return json!({ "bearer": file }),
            ("apiKey", _, "header") if http::HeaderName::try_from(text("name")).is_ok() => {
                return json!({ "header": { "name": text("name"), "value": file } });
            }
            _ => {}
        }
    }
    review.push(
        "the document names no way to authenticate that a sidecar has: `none` means anybody who reaches it can call it"
            .to_owned(),
    );
    json!("none")
}
