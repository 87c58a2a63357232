//! facts: what must be known about the resource, read from the tool by the sidecar itself, because the call
//! cannot be trusted to say it. What is missing is null; what cannot be read refuses the call, never a guess.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use futures_util::future::try_join_all;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use model::{
    Action, Code, FactValue, Facts, Id, ParameterValue, Refusal, Tenant, Tool,
    catalogue::{FactDeclaration, Leaf},
    fact::FactPrincipal,
    json::Json,
    template::Variables,
};
use net::{FetchRequest, HttpClient};
use quick_cache::{Weighter, sync::Cache};

use crate::{
    admit::Admitted, config::tools::Upstream, credential::Credential, guard::Bounds, metrics::Metrics, resolve::Call,
};

/// The largest answer, in bytes.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// The most answers kept, and the most bytes of them.
const MAX_KEPT: usize = 10_000;
const MAX_KEPT_BYTES: u64 = 16 * 1024 * 1024;

/// The facts of a call: every one that its tool declares, unread leaves null.
#[derive(Debug)]
pub(crate) struct Read {
    facts: Facts,
}

impl Read {
    /// The facts.
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The same, for the question that rests on them.
    pub(crate) fn into_facts(self) -> Facts {
        self.facts
    }
}

/// Reads facts, and keeps them for as long as their declaration allows.
pub(crate) struct Reader {
    client: HttpClient,
    kept: Cache<Key, Kept, Weight>,
    metrics: Arc<Metrics>,
}

/// An answer belongs to one tenant, one credential, one declaration and one path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    tenant: Id<Tenant>,
    tool: Id<Tool>,
    fact: String,
    path: String,
    credential: u64,
    catalogue: String,
}

type Leaves = BTreeMap<String, FactValue>;

#[derive(Clone)]
struct Kept {
    leaves: Arc<Leaves>,
    until: Instant,
}

/// Weighs an answer by what it takes.
#[derive(Clone)]
struct Weight;

impl Weighter<Key, Kept> for Weight {
    fn weight(&self, key: &Key, kept: &Kept) -> u64 {
        let text = |value: &FactValue| match value {
            FactValue::Text(text) => text.len(),
            FactValue::Principal(principal) => principal.id.as_str().len() + principal.issuer.len(),
            FactValue::Null | FactValue::Bool(_) | FactValue::Integer(_) => 0,
        };
        let leaves: usize = kept.leaves.iter().map(|(name, value)| 100 + name.len() + text(value)).sum();
        (400 + key.path.len() + leaves) as u64
    }
}

impl Read {
    /// Nothing of what `tool` declares could be read.
    pub(crate) fn nothing(tool: &Tool) -> Self {
        let none = tool.facts.iter().map(|(name, declaration)| (name.clone(), unread(declaration)));
        Self { facts: Facts(none.collect()) }
    }
}

impl Reader {
    pub(crate) fn new(client: HttpClient, metrics: Arc<Metrics>) -> Self {
        Self { client, kept: Cache::with_weighter(MAX_KEPT, MAX_KEPT_BYTES, Weight), metrics }
    }

    /// Reads what the action lists and what an authority's relations name; the rest stays null.
    pub(crate) async fn read(
        &self,
        admitted: &Admitted,
        call: &Call<'_>,
        bounds: &Bounds<'_>,
        upstream: &Upstream,
        catalogue: &str,
    ) -> Result<Read, Box<Refusal>> {
        let mut read = Read::nothing(call.tool);
        let needed = needed(call.action, bounds, call.tool);
        if !needed.is_empty() {
            let tenant = &admitted.delegation().tenant;
            let credential = upstream.credentials.choose(admitted)?;
            let source = Source {
                tenant,
                tool: &call.tool.id,
                variables: &call.variables,
                upstream,
                credential: &credential,
                catalogue,
            };
            let reads = needed.into_iter().map(|(name, declaration)| self.one(&source, name, declaration));
            for (name, leaves) in try_join_all(reads).await? {
                read.facts.0.insert(name, leaves);
            }
        }
        Ok(read)
    }

    async fn one(
        &self,
        source: &Source<'_>,
        name: &str,
        declaration: &FactDeclaration,
    ) -> Result<(String, Leaves), Box<Refusal>> {
        // A variable that the path does not have, or that no encoding makes one segment: there is no such resource.
        let Some(path) = declaration.template.fill_path(source.variables) else {
            return Ok((name.to_owned(), unread(declaration)));
        };
        let key = Key {
            tenant: source.tenant.clone(),
            tool: source.tool.clone(),
            fact: name.to_owned(),
            path: path.clone(),
            credential: source.credential.identity(),
            catalogue: source.catalogue.to_owned(),
        };
        let started = net::clock::monotonic();
        if let Some(kept) = self.kept.get(&key).filter(|kept| started < kept.until) {
            return Ok((name.to_owned(), Leaves::clone(&kept.leaves)));
        }
        let answer = self.fetch(source, &path, declaration).await;
        self.metrics.fact(name, net::clock::monotonic().duration_since(started));
        let leaves = match answer {
            Ok(Some(json)) => leaves(&json, declaration, source.tenant),
            Ok(None) => return Ok((name.to_owned(), unread(declaration))),
            Err(why) => Err(why),
        }
        .map_err(|why| unavailable(name, &why))?;
        let until = started.checked_add(declaration.ttl).unwrap_or(started);
        self.kept.insert(key, Kept { leaves: Arc::new(leaves.clone()), until });
        Ok((name.to_owned(), leaves))
    }

    /// The tool's answer; `None` where it has no such resource.
    async fn fetch(
        &self,
        source: &Source<'_>,
        path: &str,
        declaration: &FactDeclaration,
    ) -> Result<Option<Json>, String> {
        let url = source.upstream.base.url(path, None).map_err(|error| error.to_string())?;
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static("countersign"));
        if let Some((name, value)) = source.credential.field() {
            headers.insert(name.clone(), value.clone());
        }
        let request = FetchRequest { url, headers, deadline: declaration.timeout, max_bytes: MAX_ANSWER_BYTES };
        let answer =
            net::fetch(source.credential.client(&self.client), request).await.map_err(|error| error.to_string())?;
        match answer.status {
            StatusCode::OK => Json::parse(&answer.body).map(Some).map_err(|error| error.to_string()),
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(None),
            status => Err(format!("the tool answered {status}")),
        }
    }
}

/// Where a call's facts are read from.
struct Source<'a> {
    tenant: &'a Id<Tenant>,
    tool: &'a Id<Tool>,
    variables: &'a Variables,
    upstream: &'a Upstream,
    credential: &'a Credential,
    catalogue: &'a str,
}

/// The facts that the action lists or a candidate's relation names, as far as the tool declares them.
fn needed<'a>(action: &Action, bounds: &Bounds<'_>, tool: &'a Tool) -> Vec<(&'a str, &'a FactDeclaration)> {
    let related = bounds
        .candidates()
        .iter()
        .flat_map(|candidate| &candidate.elements)
        .flat_map(|element| element.relations.keys())
        .filter_map(|path| path.split_once('.').map(|(fact, _)| fact));
    let names: BTreeSet<&str> = action.facts.iter().map(String::as_str).chain(related).collect();
    names
        .into_iter()
        .filter_map(|name| tool.facts.get_key_value(name).map(|(name, declaration)| (name.as_str(), declaration)))
        .collect()
}

fn unread(declaration: &FactDeclaration) -> Leaves {
    declaration.pick.keys().map(|name| (name.clone(), FactValue::Null)).collect()
}

/// Picks the leaves. A resource of another tenant counts as missing.
fn leaves(json: &Json, declaration: &FactDeclaration, tenant: &Id<Tenant>) -> Result<Leaves, String> {
    if let Some(at) = &declaration.tenant
        && json.pointer(at).and_then(Json::as_text) != Some(tenant.as_str())
    {
        return Ok(unread(declaration));
    }
    let pick = |(name, leaf): (&String, &Leaf)| {
        let value = json.pointer(&leaf.at).map_or(Ok(FactValue::Null), |json| value(json, leaf.principal.as_deref()));
        value.map(|value| (name.clone(), value)).map_err(|why| format!("{}: {why}", leaf.at))
    };
    declaration.pick.iter().map(pick).collect()
}

fn value(json: &Json, issuer: Option<&str>) -> Result<FactValue, String> {
    let principal = |id: &str, issuer: &str| {
        let id = Id::new(id).map_err(|error| error.to_string())?;
        Ok(FactValue::Principal(FactPrincipal { id, issuer: issuer.to_owned() }))
    };
    match (json, issuer) {
        (Json::Null, _) => Ok(FactValue::Null),
        (Json::Text(text) | Json::Number(text), Some(issuer)) => principal(text, issuer),
        (Json::Bool(_), Some(_)) => Err("a principal is named by text or a number".to_owned()),
        (Json::Bool(value), None) => Ok(FactValue::Bool(*value)),
        (Json::Text(text), None) => Ok(FactValue::Text(text.clone())),
        (Json::Number(text), None) => Ok(match ParameterValue::integer(text) {
            Ok(ParameterValue::Integer(integer)) => FactValue::Integer(integer),
            Ok(_) | Err(_) => FactValue::Text(text.clone()),
        }),
        (Json::Array(_) | Json::Object(_), _) => {
            Err("the pointer leads to an array or object, not to a value".to_owned())
        }
    }
}

fn unavailable(fact: &str, why: &str) -> Box<Refusal> {
    let detail = format!("The fact `{fact}` could not be read from the tool.");
    Box::new(Refusal::new(Code::FactsUnavailable, detail).internally(why))
}

#[cfg(test)]
mod tests;
