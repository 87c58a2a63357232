//! From operations to proposed actions: each is named, typed and tried; what would not load, or would be another's, is left
//! out with the reason.

use std::collections::{BTreeMap, BTreeSet};

use model::Tool;

use super::parameters::Reading;
use crate::cli::tools::{
    draft::{Draft, DraftTool, LeftOut},
    names::{self, Subject, assign},
    openapi::{
        Document, DocumentError, Operation, plain,
        schema::{Schemas, Shape, Why},
    },
    template::{self, Written, cross, shape, written},
    trial,
};

/// The most webhooks that are named.
const MOST_NAMED: usize = 8;

/// What is proposed for `document` below `upstream`, beside the actions that `known` has.
pub(super) fn draft(
    document: &Document,
    upstream: &str,
    known: Option<&Tool>,
    taken: &BTreeSet<String>,
) -> Result<DraftTool, DocumentError> {
    let (operations, problems) = document.operations()?;
    let servers = document.servers();
    let mut left_out: Vec<LeftOut> =
        problems.into_iter().map(|why| LeftOut { operation: "a path".to_owned(), why }).collect();
    let mut kept: Vec<(&Operation<'_>, Written)> = Vec::new();
    let mut seen: BTreeMap<(&str, template::Shape), String> = BTreeMap::new();
    for action in known.into_iter().flat_map(|tool| &tool.actions) {
        seen.insert((action.method.as_str(), shape(&action.template.to_string())), action.id.to_string());
    }
    let had = seen.len();
    let mut present = 0;
    let prefix = known.map(|tool| below(&servers, &tool.upstream)).unwrap_or_default();
    for operation in &operations {
        let mut refuse = |why: String| left_out.push(LeftOut { operation: operation.shown(), why });
        let written = match written(&format!("{prefix}{}", operation.path)) {
            Ok(written) => written,
            Err(why) => {
                refuse(why.to_string());
                continue;
            }
        };
        if let Some(server) = elsewhere(operation, &servers, upstream) {
            refuse(format!("it is served by `{server}`: a tool of its own"));
            continue;
        }
        let key = (operation.method, shape(&written.text));
        match seen.get(&key) {
            Some(_) if known.is_some_and(|tool| has(tool, &key)) => present += 1,
            Some(other) => refuse(format!("it matches the same requests as {other}")),
            None => {
                seen.insert(key, operation.shown());
                kept.push((operation, written));
            }
        }
    }
    let mut actions = drafts(document, &kept, taken);
    crossings(&mut actions);
    actions.retain(|draft| match trial::load(draft) {
        Ok(()) => true,
        Err(why) => {
            left_out.push(LeftOut { operation: draft.from.clone(), why: plain(&why, 200) });
            false
        }
    });
    let mut notes = notes(document);
    if known.is_some() {
        notes.push(format!("the configuration has {had} actions, {present} of the document's operations among them"));
    }
    Ok(DraftTool { name: String::new(), settings: None, actions, left_out, notes })
}

fn has(tool: &Tool, key: &(&str, template::Shape)) -> bool {
    tool.actions.iter().any(|action| action.method == key.0 && shape(&action.template.to_string()) == key.1)
}

fn drafts(document: &Document, kept: &[(&Operation<'_>, Written)], taken: &BTreeSet<String>) -> Vec<Draft> {
    let many = |operation: &Operation<'_>| {
        let schemas = Schemas::new(document);
        let array = |schema| matches!(schemas.describe("", schema).shape, Shape::Set | Shape::Other(Why::Array));
        operation.answers(document).any(array)
    };
    let many: Vec<bool> = kept.iter().map(|(operation, _)| many(operation)).collect();
    let subjects: Vec<Subject<'_>> = kept
        .iter()
        .zip(&many)
        .map(|((operation, written), many)| Subject {
            method: operation.method,
            template: &written.text,
            id: operation.id,
            tag: operation.tag,
            many: *many,
        })
        .collect();
    let named = assign(&subjects, taken);
    let together = kept.iter().zip(&subjects).zip(named);
    let mut drafts: Vec<Draft> = together
        .map(|(((operation, written), subject), name)| draft_of(document, operation, written, subject, name))
        .collect();
    drafts.sort_by(|a, b| a.name.cmp(&b.name));
    drafts
}

fn draft_of(
    document: &Document,
    operation: &Operation<'_>,
    written: &Written,
    subject: &Subject<'_>,
    name: String,
) -> Draft {
    let (effect, doubt) = subject.effect();
    let mut review: Vec<String> = doubt.into_iter().collect();
    if operation.deprecated {
        review.push("it is deprecated".to_owned());
    }
    let callbacks = operation.callbacks(document);
    if let Some(first) = callbacks.first() {
        review.push(format!("the tool calls back to `{first}`, which no sidecar sees"));
    }
    review.extend(operation.problems.iter().map(|problem| format!("not read: {problem}")));
    let draft = Draft {
        name,
        method: operation.method.to_owned(),
        template: written.text.clone(),
        effect,
        resource: names::resource(&written.text),
        parameters: BTreeMap::new(),
        idempotency: None,
        needs_additional: false,
        review,
        from: operation.shown(),
    };
    Reading::new(document, draft).read(operation, written)
}

/// Tells of actions that one request could be both of.
fn crossings(drafts: &mut [Draft]) {
    let mut alike: BTreeMap<(String, usize), Vec<(String, template::Shape)>> = BTreeMap::new();
    for draft in &*drafts {
        let shape = shape(&draft.template);
        if shape.iter().any(Option::is_none) {
            alike.entry((draft.method.clone(), shape.len())).or_default().push((draft.name.clone(), shape));
        }
    }
    for draft in drafts {
        let own = shape(&draft.template);
        let others = alike.get(&(draft.method.clone(), own.len())).into_iter().flatten();
        let crossing = others.filter(|(name, other)| *name != draft.name && cross(&own, other));
        let found: Vec<&str> = crossing.map(|(name, _)| name.as_str()).take(3).collect();
        if !found.is_empty() {
            draft.review.push(format!(
                "a request can be this and {} too, and neither says more: the tool may take it for the other",
                found.join(", ")
            ));
        }
    }
}

/// The server of `operation`, where it is not the tool's.
fn elsewhere(operation: &Operation<'_>, servers: &[String], upstream: &str) -> Option<String> {
    let own = &operation.servers;
    let same = |url: &String| servers.contains(url) || host(url).is_none_or(|found| Some(found) == host(upstream));
    if own.is_empty() || own.iter().any(same) { None } else { own.first().cloned() }
}

/// What of the path of a document's server is not yet in a tool's base URL.
fn below(servers: &[String], upstream: &str) -> String {
    let rest = |url: &String| path(url).strip_prefix(path(upstream).as_str()).map(str::to_owned);
    let rest = servers.iter().find_map(rest).unwrap_or_default();
    if rest.is_empty() || rest.starts_with('/') { rest } else { String::new() }
}

/// The path of a URL, which may be relative, without a slash at its end.
pub(in crate::cli::tools) fn path(url: &str) -> String {
    let path = url.parse::<http::Uri>().map(|uri| uri.path().to_owned()).unwrap_or_default();
    path.trim_end_matches('/').to_owned()
}

/// The host that a URL names, with its port; `None` for one that is relative.
pub(in crate::cli::tools) fn host(url: &str) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    uri.authority().filter(|_| uri.scheme().is_some()).map(|authority| authority.as_str().to_ascii_lowercase())
}

fn notes(document: &Document) -> Vec<String> {
    let webhooks = document.webhooks();
    if webhooks.is_empty() {
        return Vec::new();
    }
    let names: Vec<String> = webhooks.iter().take(MOST_NAMED).map(|name| plain(name, 60)).collect();
    let more = if webhooks.len() > MOST_NAMED { ", …" } else { "" };
    vec![format!("the tool sends webhooks, which no sidecar sees: {}{more}", names.join(", "))]
}
