//! What the tool's answers become, which path is asked, and what is kept.

use std::sync::{Arc, Mutex};

use net::Tasks;
use serde_json::json;

use super::*;
use crate::testing::{
    PROVIDER, delegation, tools,
    world::{Received, client, start_tool},
};

struct Asked {
    reader: Reader,
    tools: crate::ResolvedTools,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Asked {
    async fn new() -> Self {
        let (url, received) = start_tool(&Tasks::new()).await;
        Self { reader: Reader::new(client(), Arc::new(Metrics::new())), tools: tools(&url), received }
    }

    async fn read(&self, tenant: &str, order: &str) -> Result<serde_json::Value, Code> {
        let tool = &self.tools.catalogue.tools()[0];
        let upstream = &self.tools.upstreams[&tool.id];
        let tenant = Id::new(tenant).unwrap();
        let mut delegation = delegation();
        delegation.tenant.clone_from(&tenant);
        let credential = upstream.credentials.choose(&Admitted::in_test(delegation)).unwrap();
        let variables = [("order".to_owned(), order.to_owned())].into();
        let source = Source {
            tenant: &tenant,
            tool: &tool.id,
            variables: &variables,
            upstream,
            credential: &credential,
            catalogue: "r",
        };
        let outcome = self.reader.one(&source, "order", &tool.facts["order"]).await;
        outcome.map(|(_, leaves)| serde_json::to_value(leaves).unwrap()).map_err(|refusal| refusal.code)
    }

    fn targets(&self) -> Vec<String> {
        self.received.lock().unwrap().iter().map(|received| received.target.clone()).collect()
    }
}

#[tokio::test]
async fn an_answer_becomes_leaves_and_is_kept_for_its_tenant_alone() {
    let asked = Asked::new().await;
    let alice = json!({ "placed_by": { "id": "alice", "issuer": PROVIDER }, "total": "12.5" });
    assert_eq!(asked.read("acme", "17").await, Ok(alice.clone()));
    assert_eq!(asked.read("acme", "17").await, Ok(alice));
    assert_eq!(asked.targets(), ["/v1/orders/17"], "the second answer was kept");
    let received = asked.received.lock().unwrap()[0].clone();
    assert_eq!(received.headers["authorization"], "Bearer tool-secret-1");
    let nothing = json!({ "placed_by": null, "total": null });
    assert_eq!(asked.read("globex", "17").await, Ok(nothing), "another tenant's order counts as missing");
    assert_eq!(asked.targets().len(), 2, "and was asked for anew");
}

#[tokio::test]
async fn what_is_missing_is_null_and_what_cannot_be_read_refuses() {
    let asked = Asked::new().await;
    let nothing = json!({ "placed_by": null, "total": null });
    for order in ["404", "19", "20"] {
        assert_eq!(asked.read("acme", order).await, Ok(nothing.clone()), "{order}");
    }
    for order in ["500", "302", "nested", "twice"] {
        assert_eq!(asked.read("acme", order).await, Err(Code::FactsUnavailable), "{order}");
    }
}

#[tokio::test]
async fn a_path_variable_stays_one_segment_or_names_nothing() {
    let asked = Asked::new().await;
    assert!(asked.read("acme", "a b?").await.unwrap()["placed_by"].is_object());
    assert_eq!(asked.targets(), ["/v1/orders/a%20b%3F"]);
    for order in ["..", ".", "a/b", "a%2fb", "a\\b", "a;b", ""] {
        assert_eq!(asked.read("acme", order).await.unwrap()["placed_by"], serde_json::Value::Null, "{order}");
    }
    assert_eq!(asked.targets().len(), 1, "nothing was asked for");
}

#[tokio::test]
async fn a_tool_that_is_gone_refuses() {
    let gone = crate::testing::world::loopback().await.local_addr();
    let asked = Asked {
        reader: Reader::new(client(), Arc::new(Metrics::new())),
        tools: tools(&format!("http://{gone}")),
        received: Arc::default(),
    };
    assert_eq!(asked.read("acme", "17").await, Err(Code::FactsUnavailable));
}

#[test]
fn numbers_are_never_rounded_and_containers_are_no_leaves() {
    let read = |text: &str, issuer| value(&Json::parse(text.as_bytes()).unwrap(), issuer);
    assert_eq!(read("42", None), Ok(FactValue::Integer(42)));
    assert_eq!(read("1.10", None), Ok(FactValue::Text("1.10".into())));
    assert_eq!(read("9007199254740993", None), Ok(FactValue::Text("9007199254740993".into())));
    assert_eq!(read("true", None), Ok(FactValue::Bool(true)));
    assert_eq!(read("null", Some(PROVIDER)), Ok(FactValue::Null));
    assert!(
        read("[]", None).is_err() && read("true", Some(PROVIDER)).is_err() && read("\"a b\"", Some(PROVIDER)).is_err()
    );
}
