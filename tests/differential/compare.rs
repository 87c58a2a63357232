//! A decision beside the bytes that followed it: method, path, resource, parameters, body and fields, each read again
//! from what the tool received.

use std::collections::BTreeSet;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{json::Json, wire::Received};
use crate::support::sidecar::TOOL_SECRET;

/// An action of the raw tool, in the test's own words.
pub(super) struct Action {
    /// Its name.
    pub(super) name: &'static str,
    method: &'static str,
    /// `*` is the resource's last part.
    path: &'static str,
    effect: &'static str,
    parameters: &'static [Parameter],
    streams: bool,
}

struct Parameter {
    name: &'static str,
    kind: Kind,
    from: From,
    optional: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    Whole,
    Dollars,
    Set,
}

#[derive(Clone, Copy)]
enum From {
    Body(&'static [&'static str]),
    Query(&'static str),
    Field(&'static str),
}

/// A required parameter.
const fn needs(name: &'static str, kind: Kind, from: From) -> Parameter {
    Parameter { name, kind, from, optional: false }
}

/// An optional one.
const fn takes(name: &'static str, kind: Kind, from: From) -> Parameter {
    Parameter { name, kind, from, optional: true }
}

/// What the raw tool can do.
pub(super) const ACTIONS: &[Action] = &[
    Action {
        name: "orders.read",
        method: "GET",
        path: "/v1/orders/*",
        effect: "read",
        parameters: &[],
        streams: false,
    },
    Action {
        name: "orders.search",
        method: "GET",
        path: "/v1/search",
        effect: "read",
        parameters: &[
            takes("limit", Kind::Whole, From::Query("limit")),
            takes("queue", Kind::Text, From::Query("queue")),
        ],
        streams: false,
    },
    Action {
        name: "refunds.create",
        method: "POST",
        path: "/v1/orders/*/refunds",
        effect: "write",
        parameters: &[
            needs("amount", Kind::Dollars, From::Body(&["amount"])),
            takes("reason", Kind::Text, From::Body(&["reason"])),
        ],
        streams: false,
    },
    Action {
        name: "notes.create",
        method: "POST",
        path: "/v1/notes",
        effect: "write",
        parameters: &[
            needs("text", Kind::Text, From::Body(&["text"])),
            takes("level", Kind::Whole, From::Body(&["meta", "level"])),
            takes("tags", Kind::Set, From::Body(&["tags"])),
        ],
        streams: false,
    },
    Action {
        name: "notes.delete",
        method: "DELETE",
        path: "/v1/notes/*",
        effect: "write",
        parameters: &[],
        streams: false,
    },
    Action {
        name: "holds.create",
        method: "PUT",
        path: "/v1/orders/*/hold",
        effect: "write",
        parameters: &[needs("until", Kind::Text, From::Field("x-until"))],
        streams: false,
    },
    Action {
        name: "files.upload",
        method: "POST",
        path: "/v1/upload",
        effect: "write",
        parameters: &[],
        streams: true,
    },
];

/// The fields that a tool may see: those that the corpus sends to it, and what the sidecar says itself.
const SEEN: [&str; 12] = [
    "host",
    "authorization",
    "via",
    "traceparent",
    "content-length",
    "transfer-encoding",
    "content-type",
    "idempotency-key",
    "x-case",
    "x-note",
    "x-until",
    "range",
];

impl Action {
    /// As the sidecar's configuration has it.
    pub(super) fn configuration(&self) -> Value {
        let mut configuration = json!({
            "match": format!("{} {}", self.method, self.path.replace('*', "{thing}")),
            "effect": self.effect,
            "resource": self.resource_of("{thing}"),
        });
        let parameters: serde_json::Map<String, Value> = self.parameters.iter().map(Parameter::configuration).collect();
        if !parameters.is_empty() {
            configuration["parameters"] = parameters.into();
        }
        if self.name == "refunds.create" {
            configuration["idempotency"] = json!("header:Idempotency-Key");
        }
        if self.streams {
            configuration["additional"] = json!("allow");
        }
        configuration
    }

    fn resource_of(&self, thing: &str) -> String {
        let name = self.name.split('.').next().unwrap();
        if self.path.contains('*') { format!("{name}/{thing}") } else { name.to_owned() }
    }

    /// The resource, where a request is of this action.
    fn takes(&self, method: &str, segments: &[String]) -> Option<String> {
        let own: Vec<&str> = self.path.split('/').skip(1).collect();
        let alike = own.len() == segments.len()
            && own.iter().zip(segments).all(|(own, segment)| (*own == "*" && !segment.is_empty()) || own == segment);
        let thing = own.iter().position(|own| *own == "*").and_then(|at| segments.get(at));
        (alike && method == self.method).then(|| self.resource_of(thing.map_or("", String::as_str)))
    }
}

impl Parameter {
    fn configuration(&self) -> (String, Value) {
        let kind = match self.kind {
            Kind::Text => "string",
            Kind::Whole => "integer",
            Kind::Dollars => "money",
            Kind::Set => "set",
        };
        let from = match self.from {
            From::Body(names) => format!("body:/{}", names.join("/")),
            From::Query(name) => format!("query:{name}"),
            From::Field(name) => format!("header:{name}"),
        };
        let mut configuration = json!({"type": kind, "value": from, "optional": self.optional});
        if self.kind == Kind::Dollars {
            configuration["currency"] = json!("body:/currency");
        }
        (self.name.to_owned(), configuration)
    }

    /// What the tool reads for it, in the form of the record.
    fn received(&self, request: &Received, body: Option<&Json>) -> Result<Value, String> {
        let text = match self.from {
            From::Field(name) => match &request.values(name)[..] {
                [] => None,
                [value] => Some((*value).to_owned()),
                more => return Err(format!("`{name}` {} times", more.len())),
            },
            From::Query(name) => query_value(request.target.split_once('?').map_or("", |(_, query)| query), name)?,
            From::Body(names) => return self.in_body(body.ok_or("no body")?, names),
        };
        text.map_or(Ok(Value::Null), |text| self.value(&Json::Text(text), None))
    }

    fn in_body(&self, body: &Json, names: &[&str]) -> Result<Value, String> {
        match body.at(names) {
            None | Some(Json::Null) => Ok(Value::Null),
            Some(value) => self.value(value, body.at(&["currency"])),
        }
    }

    fn value(&self, found: &Json, currency: Option<&Json>) -> Result<Value, String> {
        let digits = match found {
            Json::Number(text) | Json::Text(text) => text.as_str(),
            _ => "",
        };
        let number = || digits.parse::<f64>().map_err(|_| format!("{} is {found:?}", self.name));
        #[expect(clippy::cast_possible_truncation, reason = "the corpus has no amounts that large")]
        let value = match (self.kind, found) {
            (Kind::Text, Json::Text(text)) => json!({"kind": "string", "value": text}),
            (Kind::Whole, _) => match digits.parse::<i64>() {
                Ok(whole) => json!({"kind": "integer", "value": whole}),
                Err(_) => json!({"kind": "integer", "value": number()? as i64}),
            },
            (Kind::Dollars, _) => {
                let Some(Json::Text(currency)) = currency else { return Err("no currency".to_owned()) };
                let minor = (number()? * 100.0).round() as i64;
                json!({"kind": "money", "value": {"minor": minor, "currency": currency}})
            }
            (Kind::Set, Json::List(items)) => {
                let members: BTreeSet<&String> = items
                    .iter()
                    .filter_map(|item| match item {
                        Json::Text(text) => Some(text),
                        _ => None,
                    })
                    .collect();
                json!({"kind": "set", "value": members})
            }
            _ => return Err(format!("{} is {found:?}", self.name)),
        };
        Ok(value)
    }
}

/// A permitted call of the ledger.
pub(super) struct Decided {
    /// The case that it says it is of.
    pub(super) case: Option<usize>,
    record: Value,
    /// The digest of the body that was read, or that streamed.
    body: Option<String>,
}

impl Decided {
    /// From its two records.
    pub(super) fn new(record: &Value, settled: Option<&Value>) -> Self {
        let case = record["headers"]["x-case"].as_str().and_then(|case| case.parse().ok());
        let read = record["digests"]["body"].as_str();
        let streamed = settled.and_then(|settled| settled["body"].as_str());
        Self { case, record: record.clone(), body: read.or(streamed).map(str::to_owned) }
    }

    fn text(&self, name: &str) -> &str {
        self.record[name].as_str().unwrap_or_default()
    }
}

/// Every way in which the tool received something else than was decided, or something that stays with us.
pub(super) fn difference(decided: &Decided, request: &Received) -> Vec<String> {
    let mut wrong = fields(request);
    let (path, _) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let mut differ = |what: &str, decided: &str, received: &str| {
        if decided != received {
            wrong.push(format!("{what}: decided {decided:?}, received {received:?}"));
        }
    };
    differ("method", decided.text("method"), &request.method);
    differ("path", decided.text("path"), &format!("/orders{path}"));
    let segments = match segments(path) {
        Ok(segments) => segments,
        Err(fault) => return [wrong, vec![fault]].concat(),
    };
    let mut actions = ACTIONS.iter().filter_map(|action| Some((action, action.takes(&request.method, &segments)?)));
    let Some((action, resource)) = actions.next() else { return [wrong, vec!["no action".to_owned()]].concat() };
    differ("action", decided.text("action"), action.name);
    differ("resource", decided.text("resource"), &resource);
    if request.is_whole() {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &request.body);
        let digest = BASE64_URL_SAFE_NO_PAD.encode(digest);
        match &decided.body {
            Some(decided) => differ("body", decided, &digest),
            None => differ(
                "body",
                "unseen, and never digested",
                if request.body.is_empty() { "unseen, and never digested" } else { &digest },
            ),
        }
        wrong.extend(parameters(decided, action, request).err());
    }
    wrong
}

fn parameters(decided: &Decided, action: &Action, request: &Received) -> Result<(), String> {
    let reads = action.parameters.iter().any(|parameter| matches!(parameter.from, From::Body(_)));
    let body = if reads { Some(Json::read(&request.body)?) } else { None };
    if let Some(body) = &body {
        // A lenient reader, which takes the last of two members, has to see the same.
        let lenient: Value = serde_json::from_slice(&request.body).map_err(|error| error.to_string())?;
        if plain(body) != lenient {
            return Err(format!("a body of two readings: {lenient}"));
        }
        if request.values("content-type").len() != 1 {
            return Err("a body of no one type".to_owned());
        }
    } else if !action.streams && !request.body.is_empty() {
        return Err("a body nobody declared".to_owned());
    }
    let recorded = &decided.record["parameters"];
    for parameter in action.parameters {
        let mut known = recorded[parameter.name]["value"].clone();
        if let Some(money) = known.get_mut("value").and_then(Value::as_object_mut) {
            money.remove("text");
        }
        let received = parameter.received(request, body.as_ref())?;
        if known != received {
            return Err(format!("{}: decided {known}, received {received}", parameter.name));
        }
    }
    let count = recorded.as_object().map_or(0, serde_json::Map::len);
    if count == action.parameters.len() { Ok(()) } else { Err(format!("parameters of another action: {recorded}")) }
}

/// Numbers as every reader sees them, where the corpus sends only such.
fn plain(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => json!(value),
        Json::Number(text) => serde_json::from_str(text).unwrap(),
        Json::Text(text) => json!(text),
        Json::List(items) => items.iter().map(plain).collect(),
        Json::Object(members) => members.iter().map(|(name, value)| (name.clone(), plain(value))).collect(),
    }
}

/// What is wrong with the fields: somebody's credential, a neighbour's field, a second host or framing.
fn fields(request: &Received) -> Vec<String> {
    let mut wrong: Vec<String> = request.fault.iter().filter(|fault| *fault != "broken off").cloned().collect();
    for (name, value) in &request.fields {
        // What the sidecar itself asks the tool for, whatever the agent wrote there.
        let own = name == "te" && value == "trailers";
        if !SEEN.contains(&name.as_str()) && name != "if-match" && !own {
            wrong.push(format!("a field `{name}`"));
        }
        if value.contains("forged") {
            wrong.push(format!("a value of the agent's in `{name}`: {value}"));
        }
    }
    if request.target.contains("forged") {
        wrong.push(format!("a target of {}", request.target));
    }
    if request.values("host").iter().filter(|host| host.starts_with("127.0.0.1:")).count() != 1 {
        wrong.push(format!("hosts {:?}", request.values("host")));
    }
    let own = format!("Bearer {TOOL_SECRET}");
    for (name, count) in [("host", 1), ("authorization", 1), ("via", 1), ("traceparent", 1)] {
        if request.values(name).len() != count {
            wrong.push(format!("`{name}`: {:?}", request.values(name)));
        }
    }
    if request.values("authorization") != [own.as_str()] {
        wrong.push(format!("authorization {:?}", request.values("authorization")));
    }
    wrong
}

/// The decoded segments of a path that has one reading only.
fn segments(path: &str) -> Result<Vec<String>, String> {
    let fault = |why: &str| Err(format!("a path with {why}: {path}"));
    let mut segments = Vec::new();
    for encoded in path.split('/').skip(1) {
        let Some(bytes) = percent_decoded(encoded) else { return fault("a broken encoding") };
        let Ok(segment) = String::from_utf8(bytes) else { return fault("bytes that are not UTF-8") };
        if matches!(segment.as_str(), "" | "." | "..") {
            return fault("a segment that moves");
        }
        if segment.chars().any(|c| c.is_control() || "/\\;%#".contains(c)) || encoded.contains('?') {
            return fault("a character that servers read differently");
        }
        let mut again = String::new();
        for byte in segment.bytes() {
            let stays = byte.is_ascii_alphanumeric() || b"-._~!$'()*+,=:@&".contains(&byte);
            again.push_str(&if stays { char::from(byte).to_string() } else { format!("%{byte:02X}") });
        }
        if again != encoded {
            return fault("a second way to write it");
        }
        segments.push(segment);
    }
    Ok(segments)
}

/// The value of a query's parameter, as the most lenient server would find it: in any case, in brackets, behind `;`.
fn query_value(query: &str, name: &str) -> Result<Option<String>, String> {
    let mut found = Vec::new();
    for pair in query.split(['&', ';']) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = |text: &str| {
            let bytes = percent_decoded(&text.replace('+', " ")).ok_or("a broken query")?;
            String::from_utf8(bytes).map_err(|error| error.to_string())
        };
        let key = decoded(key)?;
        let plain = key.split(['[', '.', '\0']).next().unwrap_or_default().trim();
        if plain.eq_ignore_ascii_case(name) {
            found.push(decoded(value)?);
        }
    }
    match &found[..] {
        [] => Ok(None),
        [value] => Ok(Some(value.clone())),
        more => Err(format!("`{name}` {} times", more.len())),
    }
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        bytes.push(if first == b'%' {
            let hex = std::str::from_utf8(rest.get(..2)?).ok()?;
            rest = &rest[2..];
            hex.chars().all(|c| c.is_ascii_hexdigit()).then(|| u8::from_str_radix(hex, 16).ok())??
        } else {
            first
        });
    }
    Some(bytes)
}
