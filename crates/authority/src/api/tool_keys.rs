//! `/jwks/tools/<tool>.json`: the public keys of the enrolled sidecars that serve a tool, by which the tool verifies what
//! it is told of a call. The authority's own keys are never among them, nor these among its own.
//!
//! Anybody may read it, so the database is asked once a second at most, whoever asks.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Method, Response, StatusCode, header};
use jiff::Timestamp;
use model::{Id, Tool};
use net::Body;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use store::{MAX_PAGE, Page, Sidecar, SidecarStatus, Store, StoreError};
use tokio::sync::Mutex;

use crate::{Authority, config::AuthoritySettings, problem, public};

/// For how long what was read is told again.
const KEPT: Duration = Duration::from_secs(1);

/// The enrolled sidecars, as they were read last.
#[derive(Debug, Default)]
pub(crate) struct ToolKeys(Mutex<Option<Held>>);

#[derive(Debug)]
struct Held {
    read: Instant,
    sidecars: Arc<Vec<Sidecar>>,
}

/// The tool whose keys `path` leads to.
pub(crate) fn tool(path: &str, settings: &AuthoritySettings) -> Option<Id<Tool>> {
    let name = path.strip_prefix(settings.prefix.as_str())?.strip_prefix("/jwks/tools/")?.strip_suffix(".json")?;
    let name = Some(name).filter(|name| !name.contains('/'))?;
    Id::new(&percent_decode_str(name).decode_utf8().ok()?).ok()
}

impl Authority {
    /// Answers with the keys for `tool`.
    pub(crate) async fn tool_keys(&self, tool: &Id<Tool>, method: &Method) -> Response<Body> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "The method is not allowed here.");
            response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match self.tool_keys.sidecars(&self.store).await {
            Ok(sidecars) => public(&key_set(&sidecars, tool, &self.sidecar_prefix(), net::clock::now())),
            Err(error) => {
                tracing::warn!(%error, "the keys for tools cannot be read");
                problem(StatusCode::SERVICE_UNAVAILABLE, "The database does not answer.")
            }
        }
    }
}

impl ToolKeys {
    async fn sidecars(&self, store: &Store) -> Result<Arc<Vec<Sidecar>>, StoreError> {
        // Who comes meanwhile waits for the one reader.
        let mut held = self.0.lock().await;
        let asked = net::clock::monotonic();
        if let Some(held) = held.as_ref().filter(|held| asked.duration_since(held.read) < KEPT) {
            return Ok(Arc::clone(&held.sidecars));
        }
        let (mut sidecars, mut after) = (Vec::new(), 0);
        loop {
            let listed = store.sidecars(Some(SidecarStatus::Enrolled), Page { after, limit: MAX_PAGE }).await?;
            sidecars.extend(listed.items);
            match listed.next {
                Some(next) => after = next,
                None => break,
            }
        }
        let sidecars = Arc::new(sidecars);
        *held = Some(Held { read: asked, sidecars: Arc::clone(&sidecars) });
        Ok(sidecars)
    }
}

/// The keys of those who serve `tool`, each with the `iss` that it signs for: a tool that looks at it as well does not
/// take one sidecar's word for another's.
fn key_set(sidecars: &[Sidecar], tool: &Id<Tool>, prefix: &str, now: Timestamp) -> Value {
    let serve = |sidecar: &&Sidecar| sidecar.serves.tools.as_ref().is_none_or(|tools| tools.contains(tool));
    let mut keys = Vec::new();
    for sidecar in sidecars.iter().filter(serve) {
        for key in sidecar.keys.iter().filter(|key| key.retires.is_none_or(|retires| now < retires)) {
            let mut jwk = key.jwk.clone();
            if let Some(members) = jwk.as_object_mut() {
                members.insert("iss".to_owned(), format!("{prefix}{}", sidecar.id).into());
            }
            keys.push(jwk);
        }
    }
    json!({ "keys": keys })
}
