//! A tool held against its document: operation by operation, and for what leads past the sidecar.

use std::collections::{BTreeMap, BTreeSet};

use model::{Action, Effect, Tool, catalogue::Source};

use super::findings::{Finding, Kind};
use crate::cli::tools::{
    import::drafting::{host, path},
    openapi::{
        Document, DocumentError, Operation,
        operation::Place,
        plain,
        schema::{Schemas, Shape},
    },
    template::{self, shape, written},
};

/// How deep answers are looked at for URLs.
const DEEPEST: usize = 5;
/// The most operations that are named in one line.
const MOST_NAMED: usize = 3;

/// What a comparison came to.
pub(super) struct Compared {
    pub(super) findings: Vec<Finding>,
    /// How many operations the document has.
    pub(super) operations: usize,
}

/// Which requests something is, its method first.
type Key = (String, template::Shape);

/// Holds `tool` against `document`.
pub(super) fn compare(document: &Document, tool: &Tool) -> Result<Compared, DocumentError> {
    let (operations, problems) = document.operations()?;
    let mut found: Vec<Finding> =
        problems.into_iter().map(|problem| Finding::of(tool, Kind::Unread, problem)).collect();
    let base = path(&tool.upstream);
    let mut actions: BTreeMap<Key, &Action> = BTreeMap::new();
    for action in &tool.actions {
        actions.insert((action.method.clone(), shape(&format!("{base}{}", action.template))), action);
    }
    let bases = bases(document, tool);
    let mut met: BTreeSet<&str> = BTreeSet::new();
    let mut past = Past::default();
    for operation in &operations {
        past.look(operation, document, tool);
        match mapped(operation, &bases, &actions) {
            Some(action) => {
                met.insert(action.id.as_str());
                found.extend(required(operation, document, action).map(|message| {
                    Finding::of(tool, Kind::Parameter, message).action(action).operation(operation.shown())
                }));
            }
            None => found.push(unmapped(operation, tool)),
        }
        let unread = operation
            .problems
            .iter()
            .map(|problem| Finding::of(tool, Kind::Unread, problem).operation(operation.shown()));
        found.extend(unread);
    }
    for action in tool.actions.iter().filter(|action| !met.contains(action.id.as_str())) {
        let message = format!("`{} {}` is no operation of {}", action.method, action.template, document.name);
        found.push(Finding::of(tool, Kind::Dead, message).action(action));
    }
    found.extend(servers(document, tool));
    found.extend(past.findings(document, tool));
    Ok(Compared { findings: found, operations: operations.len() })
}

/// The paths that a document's own begin with: those of its servers that are the tool's, or of all.
fn bases(document: &Document, tool: &Tool) -> BTreeSet<String> {
    let servers = document.servers();
    let own = |url: &&String| host(url).is_none_or(|at| Some(at) == host(&tool.upstream));
    let mut bases: BTreeSet<String> = servers.iter().filter(own).map(|url| path(url)).collect();
    if bases.is_empty() {
        // Served from somewhere else than the document says: its paths are below the tool's base.
        bases.extend(servers.iter().map(|url| path(url)));
        bases.insert(path(&tool.upstream));
    }
    bases
}

fn mapped<'t>(
    operation: &Operation<'_>,
    bases: &BTreeSet<String>,
    actions: &BTreeMap<Key, &'t Action>,
) -> Option<&'t Action> {
    let written = written(operation.path).ok()?;
    let key = |base: &String| (operation.method.to_owned(), shape(&format!("{base}{}", written.text)));
    bases.iter().find_map(|base| actions.get(&key(base)).copied())
}

fn unmapped(operation: &Operation<'_>, tool: &Tool) -> Finding {
    let message = match written(operation.path) {
        Ok(_) => "no action maps it: calls are refused `unmapped_action`".to_owned(),
        Err(why) => format!("no action can map it: {why}"),
    };
    Finding::of(tool, Kind::Unmapped, message).operation(operation.shown())
}

/// What the tool requires beside the body and the action does not let through.
fn required(operation: &Operation<'_>, document: &Document, action: &Action) -> Option<String> {
    if action.effect == Effect::Read || action.additional {
        return None;
    }
    let declared: BTreeSet<&Source> =
        action.parameters.values().map(|parameter| &parameter.value).chain(action.idempotency.as_ref()).collect();
    let query = operation.parameters.iter().filter(|parameter| parameter.required && parameter.place == Place::Query);
    let mut missing: Vec<String> = query
        .filter(|parameter| !declared.contains(&Source::Query(parameter.name.to_owned())))
        .map(|parameter| format!("`{}` of the query", plain(parameter.name, 60)))
        .collect();
    let schemas = Schemas::new(document);
    let body = operation.body.as_ref().filter(|body| body.required).and_then(|body| body.json);
    if let Some(Shape::Object(members)) = body.map(|schema| schemas.describe("", schema).shape) {
        let within = |name: &str| {
            let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
            declared.iter().any(
                |source| matches!(source, Source::Body(at) if *at == pointer || at.starts_with(&format!("{pointer}/"))),
            ) || action.parameters.values().any(|parameter| currency_at(parameter, &pointer))
        };
        let names = members.required.iter().filter(|name| members.declared.contains_key(*name) && !within(name));
        missing.extend(names.map(|name| format!("`{}` of the body", plain(name, 60))));
    }
    let first = missing.first()?;
    let more = if missing.len() > 1 { format!(" and {} more", missing.len() - 1) } else { String::new() };
    Some(format!("the tool requires {first}{more}, which the action does not declare: calls with it are refused"))
}

fn currency_at(parameter: &model::catalogue::ParameterDeclaration, pointer: &str) -> bool {
    use model::catalogue::CurrencySource;
    matches!(&parameter.currency, Some(CurrencySource::From(Source::Body(at))) if at == pointer)
}

/// Servers of the document that are not the tool's.
fn servers(document: &Document, tool: &Tool) -> Vec<Finding> {
    let others: Vec<String> = document
        .servers()
        .into_iter()
        .filter(|url| host(url).is_some_and(|at| Some(at) != host(&tool.upstream)))
        .collect();
    let told = |url: String| {
        let message = format!("the document names the server `{url}`, and the tool is at `{}`", tool.upstream);
        Finding::of(tool, Kind::Server, message)
    };
    others.into_iter().map(told).collect()
}

/// What leads past the sidecar, over all operations.
#[derive(Debug, Default)]
struct Past {
    links: Vec<String>,
    callbacks: Vec<String>,
    servers: BTreeMap<String, Vec<String>>,
}

impl Past {
    fn look(&mut self, operation: &Operation<'_>, document: &Document, tool: &Tool) {
        let schemas = Schemas::new(document);
        let member = operation.answers(document).find_map(|schema| url_in(&schemas, "", schema, 0));
        if let Some(member) = member {
            self.links.push(format!("`{member}` of {}", operation.shown()));
        }
        if !operation.callbacks(document).is_empty() {
            self.callbacks.push(operation.shown());
        }
        let elsewhere =
            operation.servers.iter().chain(&operation.linked_servers(document)).cloned().collect::<Vec<_>>();
        let known = document.servers();
        for url in elsewhere
            .into_iter()
            .filter(|url| !known.contains(url) && host(url).is_some_and(|at| Some(at) != host(&tool.upstream)))
        {
            self.servers.entry(url).or_default().push(operation.shown());
        }
    }

    fn findings(self, document: &Document, tool: &Tool) -> Vec<Finding> {
        let mut found = Vec::new();
        if !self.links.is_empty() {
            let message = format!(
                "answers hold URLs, which lead past the sidecar unless its egress rule holds (bodies are never rewritten): {}",
                some(&self.links)
            );
            found.push(Finding::of(tool, Kind::Link, message));
        }
        if !self.callbacks.is_empty() {
            let message = format!("the tool calls back to URLs that the agent names: {}", some(&self.callbacks));
            found.push(Finding::of(tool, Kind::Callback, message));
        }
        let webhooks: Vec<String> = document.webhooks().into_iter().map(|name| plain(name, 60)).collect();
        if !webhooks.is_empty() {
            found.push(Finding::of(tool, Kind::Callback, format!("the tool sends webhooks: {}", some(&webhooks))));
        }
        for (url, operations) in self.servers {
            let message = format!("`{url}` is another server than the tool's, for {}", some(&operations));
            found.push(Finding::of(tool, Kind::Server, message));
        }
        found
    }
}

/// The first of several, and how many there are.
fn some(all: &[String]) -> String {
    let shown: Vec<&str> = all.iter().take(MOST_NAMED).map(String::as_str).collect();
    let more = all.len().saturating_sub(shown.len());
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

/// The first member of an answer that is a URL.
fn url_in<'d>(schemas: &Schemas<'d>, name: &str, schema: &'d serde_json::Value, depth: usize) -> Option<String> {
    let described = schemas.describe(name, schema);
    if described.url {
        return Some(name.to_owned());
    }
    if depth >= DEEPEST {
        return None;
    }
    match described.shape {
        Shape::Object(members) => members.declared.iter().find_map(|(name, schema)| {
            let found = url_in(schemas, name, schema, depth + 1)?;
            Some(plain(&found, 80))
        }),
        _ => schemas.items(schema).and_then(|items| url_in(schemas, name, items, depth + 1)),
    }
}
