//! Where an agent is led.

use serde_json::json;

use super::*;
use crate::{ResolvedTools, config::ToolConfig, resolve_tools, testing::tenants};

/// `orders` at an address of its own, `deep` below a path of the same host, `both` at the host's root, and one for
/// another tenant.
fn tools() -> ResolvedTools {
    let tool = |at: &str, upstream: &str, tenants: &[&str]| -> ToolConfig {
        let config = json!({ "at": at, "upstream": upstream, "tenants": tenants, "credential": "none" });
        serde_json::from_value(config).unwrap()
    };
    let id = |name: &str| Id::new(name).unwrap();
    let tools = [
        (id("orders"), tool("/orders", "https://orders.example/base", &["acme"])),
        (id("deep"), tool("/deep", "https://orders.example/base/deep/", &["acme"])),
        (id("twin"), tool("/twin", "https://orders.example/base", &["acme"])),
        (id("plain"), tool("/p", "http://127.0.0.1:8080", &["acme"])),
        (id("others"), tool("/others", "https://others.example", &["globex"])),
    ];
    let mut all = tenants();
    all.insert(Id::new("globex").unwrap());
    resolve_tools(&tools.into(), &all, &|_| None).unwrap()
}

fn rewritten(name: &HeaderName, text: &str) -> String {
    let tools = tools();
    let view = View {
        url: &"https://orders.example/base/v1/orders/17?page=2".parse().unwrap(),
        tool: &Id::new("orders").unwrap(),
        tenant: &Id::new("acme").unwrap(),
        catalogue: &tools.catalogue,
        upstreams: &tools.upstreams,
    };
    let mut fields = HeaderMap::new();
    fields.append(name, HeaderValue::from_str(text).unwrap());
    fields.append("x-other", HeaderValue::from_static("https://orders.example/base/v1"));
    view.rewrite(&mut fields);
    assert_eq!(fields["x-other"], "https://orders.example/base/v1");
    assert_eq!(fields.get_all(name).iter().count(), 1);
    fields[name].to_str().unwrap().to_owned()
}

#[test]
fn what_lies_at_a_tool_is_led_to_through_here() {
    for (written, expected) in [
        ("https://orders.example/base/v1/orders/18", "/orders/v1/orders/18"),
        ("HTTPS://Orders.Example:443/base/v1/orders/18?a=b#c", "/orders/v1/orders/18?a=b#c"),
        ("//orders.example/base/x", "/orders/x"),
        ("/base/v1/orders/18", "/orders/v1/orders/18"),
        ("18", "/orders/v1/orders/18"),
        ("./18/refunds/", "/orders/v1/orders/18/refunds/"),
        ("../customers/1", "/orders/v1/customers/1"),
        ("?page=3", "/orders/v1/orders/17?page=3"),
        ("#top", "/orders/v1/orders/17?page=2#top"),
        ("", "/orders/v1/orders/17?page=2"),
        ("https://orders.example/base", "/orders"),
        ("https://orders.example/base/", "/orders/"),
        ("https://orders.example/base?x", "/orders?x"),
        ("https://orders.example/base/deep/1", "/deep/1"),
        ("http://127.0.0.1:8080", "/p"),
        ("http://127.0.0.1:8080/a/../b", "/p/b"),
        ("/base/v1/a:b", "/orders/v1/a:b"),
        ("..", "/orders/v1/"),
    ] {
        assert_eq!(rewritten(&header::LOCATION, written), expected, "{written}");
        assert_eq!(rewritten(&header::CONTENT_LOCATION, written), expected, "{written}");
    }
}

#[test]
fn what_lies_elsewhere_is_left_as_it_is() {
    for written in [
        "https://elsewhere.example/base/v1/orders/18",
        "http://orders.example/base/v1",
        "https://orders.example:8443/base/v1",
        "https://orders.example/basement",
        "https://orders.example.evil/base/v1",
        "https://user@orders.example/base/v1",
        "https://orders.example@evil.example/base/v1",
        "https://others.example/v1",
        "https:/orders.example/base",
        "https:\\\\orders.example/base",
        "mailto:a@b.example",
        "urn:x:y",
        "not a reference",
        "https://",
        "https://[::1/base",
    ] {
        assert_eq!(rewritten(&header::LOCATION, written), written);
    }
}

#[test]
fn what_is_relative_and_lies_at_no_tool_says_where_it_is() {
    for (written, expected) in [
        ("/login", "https://orders.example/login"),
        ("../../../login?x=1", "https://orders.example/login?x=1"),
        ("//elsewhere.example/a/./b", "https://elsewhere.example/a/b"),
        ("/base/../../../etc", "https://orders.example/etc"),
        ("/basement", "https://orders.example/basement"),
    ] {
        assert_eq!(rewritten(&header::LOCATION, written), expected, "{written}");
    }
}

#[test]
fn every_target_of_a_link_is_led_to_and_nothing_else_of_it_changes() {
    for (written, expected) in [
        (
            r#"<https://orders.example/base/v1/orders?page=3>; rel="next", <?page=1>;rel=first"#,
            r#"</orders/v1/orders?page=3>; rel="next", </orders/v1/orders/17?page=1>;rel=first"#,
        ),
        (
            r#"<https://elsewhere.example/>; rel=next; title="a <18> \" <19>, b" , <18>"#,
            r#"<https://elsewhere.example/>; rel=next; title="a <18> \" <19>, b" , </orders/v1/orders/18>"#,
        ),
        ("<18", "<18"),
        ("18; rel=next", "18; rel=next"),
        (r#"<18>; title="open <19>"#, r#"</orders/v1/orders/18>; title="open <19>"#),
        ("", ""),
    ] {
        assert_eq!(rewritten(&header::LINK, written), expected, "{written}");
    }
}
