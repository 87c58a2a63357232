//! Documents of every kind, and of the kinds that somebody would write to do harm.

use serde_json::json;

use super::{
    schema::{Schemas, Shape, Why},
    *,
};

fn parse(text: &str) -> Result<Document, DocumentError> {
    Document::parse("api.yaml".to_owned(), text)
}

fn document(value: &Value) -> Document {
    parse(&value.to_string()).unwrap()
}

/// What a schema of a document with these `components.schemas` is.
fn shape(schemas: &Value, schema: &Value) -> String {
    let document = document(&json!({"openapi": "3.1.0", "components": {"schemas": schemas}, "x": schema}));
    let described = Schemas::new(&document).describe("thing", document.root.get("x").unwrap());
    let shape = match described.shape {
        Shape::Object(members) => members.declared.keys().copied().collect::<Vec<_>>().join(","),
        shape => format!("{shape:?}"),
    };
    if described.nullable { format!("{shape}?") } else { shape }
}

#[test]
fn json_and_yaml_are_read_alike_and_other_versions_are_named() {
    let yaml = "openapi: 3.0.3\npaths:\n  /a:\n    get:\n      responses:\n        200: {description: ok}\n";
    let json = r#"{"openapi":"3.0.3","paths":{"/a":{"get":{"responses":{"200":{"description":"ok"}}}}}}"#;
    for text in [yaml, json, &format!("\u{feff}{json}")] {
        let document = parse(text).unwrap();
        let (operations, problems) = document.operations().unwrap();
        assert_eq!((operations.len(), problems.len()), (1, 0), "{text}");
        assert_eq!(operations[0].shown(), "GET /a");
    }
    for (text, words) in [
        ("swagger: '2.0'\npaths: {}", "Swagger 2.0"),
        ("{\"swagger\": \"2.0\"}", "Swagger 2.0"),
        ("openapi: 4.0.0", "`4.0.0`"),
        ("openapi: 3.0", "no `openapi"),
        ("a: b", "no `openapi"),
        ("- a", "no `openapi"),
        ("", "no `openapi"),
        ("{", "not a JSON or YAML document"),
        ("a: [", "not a JSON or YAML document"),
        ("{\"openapi\": \"3.0.0\", \"openapi\": \"3.1.0\"}", "there twice"),
        ("openapi: 3.0.0\nopenapi: 3.1.0", "uplicate"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn documents_that_are_deep_or_grow_are_refused() {
    let deep_json = format!("{{\"openapi\":\"3.0.0\",\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_yaml = format!("openapi: 3.0.0\na: {}{}", "[".repeat(100_000), "]".repeat(100_000));
    let mut laughs = "openapi: 3.0.0\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let above = level - 1;
        let items = vec![format!("*a{above}"); 10].join(", ");
        laughs.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    let many_json = format!("{{\"openapi\":\"3.0.0\",\"a\":[{}0]}}", "0,".repeat(2_000_000));
    let many_yaml = format!("openapi: 3.0.0\na: [{}0]", "0,".repeat(2_000_000));
    for text in [deep_json, deep_yaml, laughs, many_json, many_yaml] {
        assert!(matches!(parse(&text), Err(DocumentError::Syntax(_))));
    }
}

#[test]
fn references_are_followed_within_the_document_and_never_for_ever() {
    let schemas = json!({
        "a": {"$ref": "#/components/schemas/b"},
        "b": {"$ref": "#/components/schemas/a"},
        "self": {"allOf": [{"$ref": "#/components/schemas/self"}]},
        "many": {"allOf": vec![json!({"$ref": "#/components/schemas/more"}); 200]},
        "more": {"allOf": vec![json!({"$ref": "#/components/schemas/most"}); 200]},
        "most": {"allOf": vec![json!({"type": "string"}); 200]},
        "a/b c": {"type": "integer"},
        "list": {"type": "array", "items": {"$ref": "#/components/schemas/list"}},
    });
    let named = |name: &str| shape(&schemas, &json!({"$ref": format!("#/components/schemas/{name}")}));
    assert_eq!(named("a~1b%20c"), "Integer");
    for (name, why) in [
        ("a", Why::Reference),
        ("nothing", Why::Reference),
        ("self", Why::Size),
        ("many", Why::Size),
        ("list", Why::Array),
    ] {
        assert_eq!(named(name), format!("Other({why:?})"), "{name}");
    }
    let outside = |to: &str| shape(&schemas, &json!({"$ref": to}));
    for to in ["other.yaml#/a", "https://evil.example/a.json", "/etc/passwd", "file:///etc/passwd"] {
        assert_eq!(outside(to), "Other(Reference)", "{to}");
    }
}

#[test]
fn schemas_are_the_kinds_that_a_catalogue_knows() {
    let schemas = json!({"name": {"type": "string"}});
    for (schema, expected) in [
        (json!({"type": "string"}), "Text"),
        (json!({"type": ["string", "null"]}), "Text?"),
        (json!({"type": "string", "nullable": true}), "Text?"),
        (json!({"enum": ["a", "b"]}), "Text"),
        (json!({"const": "a"}), "Text"),
        (json!({"type": "string", "format": "date-time"}), "Time"),
        (json!({"type": "string", "format": "date"}), "Text"),
        (json!({"type": "string", "format": "uuid"}), "Id"),
        (json!({"type": "string", "format": "binary"}), "Other(Binary)"),
        (json!({"type": "integer", "format": "int64"}), "Integer"),
        (json!({"type": ["integer", "string"]}), "Id"),
        (json!({"oneOf": [{"type": "integer"}, {"type": "string"}]}), "Id"),
        (json!({"anyOf": [{"$ref": "#/components/schemas/name"}, {"type": "null"}]}), "Text?"),
        (json!({"oneOf": [{"type": "string"}, {"type": "object"}]}), "Other(Forms)"),
        (json!({"type": "number"}), "Number(None)"),
        (json!({"type": "number", "multipleOf": 0.01}), "Number(Some(2))"),
        (json!({"type": "boolean"}), "Other(Boolean)"),
        (json!({"type": "array", "items": {"type": "string"}}), "Set"),
        (json!({"type": "array", "items": {"type": "integer"}}), "Other(Array)"),
        (json!({"type": "array"}), "Other(Array)"),
        (json!({}), "Other(Untyped)"),
        (json!(true), "Other(Untyped)"),
        (json!({"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}), "a,b"),
        (json!({"properties": {"a": {}}, "anyOf": [{"required": ["a"]}, {"required": []}]}), "a"),
    ] {
        assert_eq!(shape(&schemas, &schema), expected, "{schema}");
    }
}

#[test]
fn what_stands_in_a_document_is_one_line_of_text() {
    assert_eq!(plain("a\nb\r\tc\u{2028}d\u{202E}e\u{0}", 40), "a b c d e");
    assert_eq!(plain(&"x".repeat(50), 10), format!("{}…", "x".repeat(10)));
}

#[test]
fn a_servers_variables_are_replaced_once_and_what_they_make_is_short() {
    let servers = |servers: Value| document(&json!({"openapi": "3.0.0", "servers": servers})).servers();
    assert_eq!(
        servers(json!([
            {"url": "https://{region}.shop.example/{base}", "variables": {"region": {"default": "eu"}}},
            {"url": "https://{a}", "variables": {"a": {"default": "{a}{b}"}, "b": {"default": "x"}}},
            {"url": "/v1"},
            {"url": "https://{open"},
        ])),
        ["https://eu.shop.example/{base}", "https://{a}{b}", "/v1", "https://{open"]
    );
    let long = servers(json!([{"url": "{a}".repeat(100_000), "variables": {"a": {"default": "{a}".repeat(100_000)}}}]));
    assert!(long[0].chars().count() <= LONGEST_URL + 1, "{}", long[0].len());
    let many = document(&json!({"openapi": "3.0.0", "servers": vec![json!({"url": "/v1"}); 1_000]}));
    assert_eq!(many.servers().len(), MOST_SERVERS);
    assert!(many.operations().unwrap().1[0].contains("servers"));
}

#[test]
fn a_user_name_or_password_in_a_servers_url_is_not_repeated() {
    for (url, shown) in [
        ("https://user:hunter2@shop.example/v1", "https://shop.example/v1"),
        ("https://user:a@b@shop.example?x=@", "https://shop.example?x=@"),
        ("//hunter2@shop.example", "//shop.example"),
        ("https://shop.example/@me", "https://shop.example/@me"),
    ] {
        let document = document(&json!({
            "openapi": "3.0.0", "servers": [{"url": url}],
            "paths": {"/a": {"get": {"responses": {"200": {"links": {"next": {"server": {"url": url}}}}}}}},
        }));
        assert_eq!(document.servers(), [shown]);
        let (operations, _) = document.operations().unwrap();
        assert_eq!(operations[0].linked_servers(&document), [shown]);
    }
}

#[test]
fn what_cannot_be_an_action_is_said() {
    let document = document(&json!({"openapi": "3.1.0", "paths": {
        "/a": {"get": {}, "trace": {}, "x-more": {}}, "noslash": {"get": {}}, "x-paths": {"get": {}},
    }}));
    let (operations, problems) = document.operations().unwrap();
    assert_eq!(operations.len(), 1);
    assert_eq!(problems, ["TRACE /a: no action has this method", "noslash: a path begins with `/`"]);
}

#[test]
fn an_operation_has_so_many_parameters_and_a_schema_so_many_members_and_no_more() {
    let parameters: Vec<Value> =
        (0..20_000).map(|number| json!({"name": format!("p{number}"), "in": "query"})).collect();
    let paths = json!({"/a": {"get": {"parameters": parameters}}});
    let many = document(&json!({"openapi": "3.0.0", "paths": paths}));
    let (operations, _) = many.operations().unwrap();
    assert!(operations[0].parameters.len() < 1_000 && operations[0].problems[0].contains("parameters"));

    let properties: serde_json::Map<String, Value> =
        (0..2_000).map(|number| (format!("p{number}"), json!({"type": "string"}))).collect();
    let wide = json!({"wide": {"properties": properties}});
    let twice = json!({"allOf": vec![json!({"$ref": "#/components/schemas/wide"}); 2]});
    assert!(shape(&wide, &twice).starts_with("p0,p1,"));
    let often = json!({"allOf": vec![json!({"$ref": "#/components/schemas/wide"}); 20_000]});
    assert_eq!(shape(&wide, &often), "Other(Size)");
    assert_eq!(shape(&json!({}), &json!({"oneOf": vec![json!({"type": "string"}); 100_000]})), "Other(Size)");
}
