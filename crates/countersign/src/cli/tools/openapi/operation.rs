//! One operation of a document: what it takes, where else it is served, and whom it calls.

use serde_json::Value;

use super::{Document, METHODS, plain, server_url, servers_of};

/// The most parameters beside the body that are read of one operation.
const MOST_PARAMETERS: usize = 256;
/// The most answers, callbacks, links and media types that are looked at in one place: operations may share one text.
const MOST_LISTED: usize = 100;

/// An operation.
#[derive(Debug)]
pub(crate) struct Operation<'a> {
    /// Its path below the server's, a template.
    pub(crate) path: &'a str,
    /// Its method, upper case.
    pub(crate) method: &'static str,
    /// Its name.
    pub(crate) id: Option<&'a str>,
    /// What it is grouped under.
    pub(crate) tag: Option<&'a str>,
    /// Whether it is on its way out.
    pub(crate) deprecated: bool,
    /// What it takes beside a body.
    pub(crate) parameters: Vec<Parameter<'a>>,
    /// Its body.
    pub(crate) body: Option<Body<'a>>,
    /// Its own servers, where it has some.
    pub(crate) servers: Vec<String>,
    /// What could not be read of it.
    pub(crate) problems: Vec<String>,
    value: &'a Value,
}

/// A parameter beside the body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parameter<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Where it is.
    pub(crate) place: Place,
    /// Whether it has to be there.
    pub(crate) required: bool,
    /// What it is; `None` for what is encoded in a way of its own.
    pub(crate) schema: Option<&'a Value>,
    /// Whether an array in it is one text with commas.
    pub(crate) joined: bool,
}

/// Where a parameter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Path,
    Query,
    Header,
    Cookie,
}

/// The body of a request.
#[derive(Debug)]
pub(crate) struct Body<'a> {
    /// Whether it has to be there.
    pub(crate) required: bool,
    /// What it is where it is JSON.
    pub(crate) json: Option<&'a Value>,
    /// The media types that it may have.
    pub(crate) media: Vec<&'a str>,
}

impl<'a> Operation<'a> {
    /// Those of the path item `item`.
    pub(super) fn all(document: &'a Document, path: &'a str, item: &'a Value) -> Vec<Self> {
        METHODS.iter().filter_map(|method| Self::new(document, path, item, method)).collect()
    }

    fn new(document: &'a Document, path: &'a str, item: &'a Value, method: &'static str) -> Option<Self> {
        let value = item.get(method.to_ascii_lowercase())?;
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let mut problems = Vec::new();
        let own = [item, value].map(servers_of);
        let [of_path, of_operation] = own;
        let parameters = parameters(document, item, value, &mut problems);
        let body = body(document, value, &mut problems);
        Some(Self {
            path,
            method,
            id: text("operationId").filter(|id| !id.trim().is_empty()),
            tag: value.get("tags").and_then(|tags| tags.get(0)).and_then(Value::as_str),
            deprecated: value.get("deprecated").and_then(Value::as_bool) == Some(true),
            parameters,
            body,
            servers: if of_operation.is_empty() { of_path } else { of_operation },
            problems,
            value,
        })
    }

    /// `GET /v1/orders (listOrders)`
    pub(crate) fn shown(&self) -> String {
        let id = self.id.map(|id| format!(" ({})", plain(id, 80))).unwrap_or_default();
        format!("{} {}{id}", self.method, plain(self.path, 200))
    }

    /// Where the tool calls back to, as the document says it.
    pub(crate) fn callbacks(&self, document: &Document) -> Vec<String> {
        let mut found = Vec::new();
        for (_, callback) in
            self.value.get("callbacks").and_then(Value::as_object).into_iter().flatten().take(MOST_LISTED)
        {
            let Ok(callback) = document.resolve(callback) else { continue };
            let urls = callback.as_object().into_iter().flatten().take(MOST_LISTED);
            found.extend(urls.filter(|(url, _)| !url.starts_with("x-")).map(|(url, _)| plain(url, 120)));
        }
        found
    }

    /// The servers that what follows from its answers is said to lie on.
    pub(crate) fn linked_servers(&self, document: &Document) -> Vec<String> {
        let responses = self.value.get("responses").and_then(Value::as_object).into_iter().flatten();
        let responses: Vec<&Value> =
            responses.take(MOST_LISTED).filter_map(|(_, response)| document.resolve(response).ok()).collect();
        let mut found = Vec::new();
        for response in responses {
            for (_, link) in response.get("links").and_then(Value::as_object).into_iter().flatten().take(MOST_LISTED) {
                let Ok(link) = document.resolve(link) else { continue };
                found.extend(link.get("server").and_then(server_url));
            }
        }
        found
    }

    /// What it answers with where all goes well, as JSON.
    pub(crate) fn answers<'d>(&'d self, document: &'d Document) -> impl Iterator<Item = &'d Value> {
        let responses = self.value.get("responses").and_then(Value::as_object).into_iter().flatten();
        let good = responses.take(MOST_LISTED).filter(|(status, _)| status.starts_with('2'));
        good.filter_map(|(_, response)| {
            let content = document.resolve(response).ok()?.get("content")?.as_object()?;
            content.iter().take(MOST_LISTED).find(|(media, _)| is_json(media))?.1.get("schema")
        })
    }
}

fn parameters<'a>(
    document: &'a Document,
    item: &'a Value,
    operation: &'a Value,
    problems: &mut Vec<String>,
) -> Vec<Parameter<'a>> {
    let mut parameters: Vec<Parameter<'a>> = Vec::new();
    let listed = [item, operation].into_iter().filter_map(|at| at.get("parameters")?.as_array()).flatten();
    for (place, value) in listed.enumerate() {
        if place >= MOST_PARAMETERS {
            problems.push(format!("it has more than {MOST_PARAMETERS} parameters, and no more are read"));
            break;
        }
        let parameter = match document.resolve(value) {
            Ok(value) => parameter(value),
            Err(error) => {
                problems.push(format!("a parameter: {error}"));
                continue;
            }
        };
        let Some(parameter) = parameter else { continue };
        // An operation's own stands in the place of its path's.
        parameters.retain(|other| (other.name, other.place) != (parameter.name, parameter.place));
        parameters.push(parameter);
    }
    parameters
}

fn parameter(value: &Value) -> Option<Parameter<'_>> {
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let place = match text("in")? {
        "path" => Place::Path,
        "query" => Place::Query,
        "header" => Place::Header,
        "cookie" => Place::Cookie,
        _ => return None,
    };
    let explode = value.get("explode").and_then(Value::as_bool);
    Some(Parameter {
        name: text("name").filter(|name| !name.is_empty())?,
        place,
        required: place == Place::Path || value.get("required").and_then(Value::as_bool) == Some(true),
        schema: value.get("schema").filter(|_| text("style") != Some("deepObject")),
        joined: match place {
            Place::Query | Place::Cookie => explode == Some(false),
            Place::Path | Place::Header => true,
        },
    })
}

fn body<'a>(document: &'a Document, operation: &'a Value, problems: &mut Vec<String>) -> Option<Body<'a>> {
    let value = match document.resolve(operation.get("requestBody")?) {
        Ok(value) => value,
        Err(error) => {
            problems.push(format!("the body: {error}"));
            return Some(Body { required: true, json: None, media: Vec::new() });
        }
    };
    let content = value.get("content").and_then(Value::as_object);
    let media: Vec<(&str, &Value)> =
        content.into_iter().flatten().take(MOST_LISTED).map(|(name, media)| (name.as_str(), media)).collect();
    let json =
        media.iter().find(|(name, _)| is_json(name)).map(|(_, media)| media.get("schema").unwrap_or(&Value::Null));
    Some(Body {
        required: value.get("required").and_then(Value::as_bool) == Some(true),
        json,
        media: media.into_iter().map(|(name, _)| name).collect(),
    })
}

/// `application/json` or `application/<something>+json`, which is what a sidecar reads.
fn is_json(media: &str) -> bool {
    let essence = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.strip_prefix("application/").is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}
