//! `/v1/openapi.json`: the API described for those who write clients (OpenAPI 3.1). The paths are those of `route`, the
//! bodies those of the types that read them, so that the description cannot say other than what is done.

use std::sync::OnceLock;

use schemars::{Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    agents, alerts, enrol, grants, heads, ledgers, limits, page::MOST, pins, shipped, sidecars, tasks, withdrawals,
};

/// A body's schema.
type Body = fn(&mut SchemaGenerator) -> Schema;

/// One thing that can be done.
struct Operation {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    query: &'static [&'static str],
    body: Option<Body>,
    /// The status of success.
    status: &'static str,
    /// The security scheme; none, where the body proves who asks.
    by: Option<&'static str>,
}

const USER: Option<&str> = Some("management");
const LIST: [&str; 2] = ["limit", "cursor"];

const fn read(path: &'static str, summary: &'static str, query: &'static [&'static str]) -> Operation {
    Operation { method: "get", path, summary, query, body: None, status: "200", by: USER }
}

const fn write(path: &'static str, summary: &'static str, body: Body) -> Operation {
    Operation { method: "post", path, summary, query: &[], body: Some(body), status: "200", by: USER }
}

const fn make(path: &'static str, summary: &'static str, body: Body) -> Operation {
    Operation { status: "201", ..write(path, summary, body) }
}

const OPERATIONS: &[Operation] = &[
    read("/v1/withdrawals", "What was withdrawn, the oldest first", &["target", "kind", "in_force", LIST[0], LIST[1]]),
    make("/v1/withdrawals", "Take back everything issued until now that passes through a target", withdrawals::schema),
    Operation {
        by: Some("sidecar"),
        ..read("/v1/changes", "What was withdrawn after a position, as a long poll", &["after", "wait"])
    },
    Operation {
        by: Some("sidecar"),
        ..write("/v1/ledger-heads", "Anchor the newest head of one's ledger", heads::claim_schema)
    },
    Operation {
        by: Some("sidecar"),
        ..write(
            "/v1/alerts",
            "Tell of an alert: a rule may suspend an agent for it, or the sidecar cannot record it itself",
            alerts::schema,
        )
    },
    Operation {
        by: Some("sidecar"),
        ..write(
            "/v1/limits",
            "Lease a slice of a cumulative limit, say what was spent of it, give it back",
            limits::question_schema,
        )
    },
    Operation {
        by: Some("sidecar"),
        ..write(
            "/v1/charges",
            "Charge a call under its idempotency key, go on what it was charged before, or take that back",
            limits::charge_schema,
        )
    },
    Operation {
        by: Some("sidecar"),
        ..read("/v1/ledger-segments", "How far one's ledger is at the authority", &["ledger"])
    },
    Operation {
        by: Some("sidecar"),
        ..write("/v1/ledger-segments", "Ship the next chunk of one's ledger", shipped::chunk_schema)
    },
    Operation {
        by: Some("sidecar"),
        ..write("/v1/ledger-erasures", "Erase there what one's ledger says was erased", shipped::kept_schema)
    },
    read("/v1/ledgers", "Ledgers of enrolled sidecars, the oldest first", &LIST),
    read("/v1/ledgers/{id}", "One ledger, with the heads of it that are anchored", &[]),
    read(
        "/v1/ledgers/{id}/records",
        "Records that were shipped of a ledger, the oldest first",
        super::records::PARAMETERS,
    ),
    read("/v1/ledgers/{id}/decisions/{decision}", "Everything that was shipped of a decision", &[]),
    read("/v1/ledgers/{id}/segments", "The segments of a ledger that were shipped", &LIST),
    read("/v1/ledgers/{id}/files/{name}", "A piece of a file of what was shipped, to verify it elsewhere", &["offset"]),
    write("/v1/ledgers/{id}/erase", "Erase a person from what was shipped of a ledger", ledgers::erasing_schema),
    read("/v1/pins", "Bundles of policy that stay at a revision, the oldest first", &["bundle", LIST[0], LIST[1]]),
    make("/v1/pins", "Keep a bundle of policy at a revision, everywhere", pins::pinning_schema),
    write("/v1/pins/{id}/remove", "Let a bundle of policy go on to its newest revision", sidecars::reason_schema),
    read("/v1/sidecars", "Enrolled sidecars, the oldest first", &["status", LIST[0], LIST[1]]),
    make("/v1/sidecars", "Make a token that one sidecar may join by, once", sidecars::invitation_schema),
    Operation { by: None, ..make("/v1/sidecars/enrol", "Join with a key of one's own", enrol::joining_schema) },
    read("/v1/sidecars/{id}", "One sidecar", &[]),
    write("/v1/sidecars/{id}/remove", "Remove a sidecar", sidecars::reason_schema),
    read("/v1/agents", "Agents, the oldest first", &["status", "owner", "tenant", LIST[0], LIST[1]]),
    make("/v1/agents", "Register an agent", agents::registering_schema),
    read("/v1/agents/{id}", "One agent", &["issuer"]),
    write("/v1/agents/{id}/suspend", "It may not act until it is reinstated", sidecars::reason_schema),
    write("/v1/agents/{id}/reinstate", "It may act again", sidecars::reason_schema),
    write("/v1/agents/{id}/decommission", "It never acts again", sidecars::reason_schema),
    write("/v1/agents/{id}/change", "Change what stands of an agent", agents::changing_schema),
    write("/v1/agents/{id}/credentials", "Give an agent another credential", agents::rotating_schema),
    write("/v1/agents/{id}/credentials/{credential}/remove", "Take a credential away at once", sidecars::reason_schema),
    read("/v1/grants", "Grants, the oldest first", &["user", "agent", "status", LIST[0], LIST[1]]),
    make("/v1/grants", "Let an agent do something for a user", grants::giving_schema),
    read("/v1/grants/{id}", "One grant", &[]),
    write("/v1/grants/{id}/change", "Change a grant", grants::changing_schema),
    write("/v1/grants/{id}/withdraw", "Take a grant back", sidecars::reason_schema),
    read("/v1/tasks", "Tasks, the oldest first", &["user", "grant", "run", "tenant", "status", LIST[0], LIST[1]]),
    make("/v1/tasks", "Start a task under a grant", tasks::starting_schema),
    read("/v1/tasks/{id}", "One task", &[]),
    write("/v1/tasks/{id}/end", "End a task, and every token of it", tasks::ending_schema),
    write("/v1/tasks/{id}/stage", "Let a task go further, or less far", tasks::staging_schema),
];

/// The document.
pub(crate) fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let mut generator = SchemaSettings::draft2020_12()
            .with(|settings| settings.definitions_path = "/components/schemas".into())
            .into_generator();
        let mut paths: Map<String, Value> = Map::new();
        for operation in OPERATIONS {
            let described = operation.described(&mut generator);
            let at = paths.entry(operation.path).or_insert_with(|| json!({}));
            if let Some(members) = at.as_object_mut() {
                members.insert(operation.method.to_owned(), described);
            }
        }
        let mut schemas = generator.take_definitions(true);
        schemas.insert("Problem".to_owned(), problem());
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Countersign authority: management",
                "version": env!("CARGO_PKG_VERSION"),
                "description": "Nothing that an agent can hold opens it. Every write is made once under its \
                                `Idempotency-Key`, and is on record before it is answered.",
            },
            "paths": paths,
            "components": {
                "schemas": schemas,
                "securitySchemes": {
                    "management": {
                        "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                        "description": "A user's token with the management audience, from a listed client.",
                    },
                    "sidecar": {
                        "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                        "description": "An enrolled sidecar's own assertion.",
                    },
                },
            },
        })
    })
}

impl Operation {
    fn described(&self, generator: &mut SchemaGenerator) -> Value {
        let mut responses = json!({
            self.status: {
                "description": "Done",
                "content": { "application/json": { "schema": { "type": "object" } } },
            },
            "default": {
                "description": "Not done",
                "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
            },
        });
        let mut described = json!({
            "summary": self.summary,
            "operationId": self.id(),
            "parameters": self.parameters(),
            "responses": responses.take(),
            "security": self.by.map_or_else(|| json!([{}]), |by| json!([{ by: [] }])),
        });
        if let (Some(body), Some(members)) = (self.body, described.as_object_mut()) {
            let schema = body(generator);
            let content = json!({ "required": true, "content": { "application/json": { "schema": schema } } });
            members.insert("requestBody".to_owned(), content);
        }
        described
    }

    /// `post_agents_id_suspend`.
    fn id(&self) -> String {
        let path: String = self.path.chars().filter(|c| !matches!(c, '{' | '}')).collect();
        format!("{}{}", self.method, path.trim_start_matches("/v1").replace('/', "_"))
    }

    fn parameters(&self) -> Vec<Value> {
        let text = json!({ "type": "string" });
        let of_path = self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let of_path = of_path.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": text }));
        let of_query =
            self.query.iter().map(|name| json!({ "name": name, "in": "query", "schema": self.parameter(name) }));
        let key = json!({
            "name": "Idempotency-Key", "in": "header", "schema": { "type": "string", "minLength": 1, "maxLength": 200 },
        });
        let key = (self.method == "post" && self.by == USER).then_some(key);
        of_path.chain(of_query).chain(key).collect()
    }
}

impl Operation {
    /// What a parameter of the query may be.
    fn parameter(&self, name: &str) -> Value {
        let one_of = |words: &[&str]| json!({ "type": "string", "enum": words });
        match (name, self.path) {
            ("limit", _) => json!({ "type": "integer", "minimum": 1, "maximum": MOST }),
            ("cursor", _) => json!({ "type": "string", "pattern": "^c-[0-9a-z]{1,12}$" }),
            ("offset", _) => json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX >> 11 }),
            ("after" | "wait", _) => json!({ "type": "integer", "minimum": 0 }),
            ("in_force", _) => one_of(&["true", "false"]),
            ("status", "/v1/agents") => one_of(&["active", "suspended", "decommissioned"]),
            ("status", "/v1/grants") => one_of(&["active", "withdrawn"]),
            ("status", "/v1/sidecars") => one_of(&["enrolled", "removed"]),
            ("status", "/v1/tasks") => one_of(&["active", "completed", "withdrawn"]),
            ("target", _) => json!({ "type": "string", "minLength": 1, "examples": ["task:ticket-12847"] }),
            ("grant" | "run" | "tenant" | "user" | "agent", _) => {
                // An id, and of users and agents also `ISSUER#ID`; white space and what cannot be seen is in neither.
                json!({ "type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[!-~]+$" })
            }
            _ => json!({ "type": "string", "minLength": 1 }),
        }
    }
}

/// RFC 9457.
fn problem() -> Value {
    json!({
        "type": "object",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": { "type": "string" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string" },
            "code": { "type": "string" },
            "limiting_hop": { "type": "string" },
            "max_age": { "type": "integer" },
        },
    })
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::api::route::Route;

    #[test]
    fn every_path_that_is_described_leads_somewhere_and_its_bodies_are_described() {
        let document = document();
        let mut described = 0;
        for (path, operations) in document["paths"].as_object().unwrap() {
            let real = path
                .strip_prefix("/v1")
                .unwrap()
                .replace("{id}", "x")
                .replace("{credential}", "y")
                .replace("{decision}", "z")
                .replace("{name}", "head");
            let route = Route::at(&real).unwrap();
            let methods: Vec<_> = operations.as_object().unwrap().keys().map(|name| name.to_uppercase()).collect();
            let known: Vec<_> = route.methods().iter().map(Method::as_str).collect();
            assert!(methods.len() == known.len() && known.iter().all(|it| methods.iter().any(|at| at == it)), "{path}");
            described += methods.len();
        }
        assert_eq!(described, OPERATIONS.len());
        let text = document.to_string();
        let references = text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap());
        for reference in references {
            assert!(document.pointer(reference).is_some(), "{reference} leads nowhere");
        }
        let ids: std::collections::BTreeSet<_> = OPERATIONS.iter().map(Operation::id).collect();
        assert_eq!(ids.len(), OPERATIONS.len());
    }
}
