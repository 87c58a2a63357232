//! What a tool with `identity: hybrid` gets, what the record says of it, and that nothing goes without it.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use token::{Algorithm, SigningKey};

use super::*;
use crate::testing::{
    ISSUER,
    world::{Received, World},
};

fn signer() -> TransactionSigner {
    TransactionSigner::new(Arc::new(SigningKey::generate(Algorithm::EdDsa).unwrap()), ISSUER, "edge")
}

fn told(received: &Received) -> (String, Value) {
    let values: Vec<_> = received.headers.get_all(TXN_TOKEN).iter().collect();
    let [value] = values.as_slice() else { panic!("{values:?}") };
    let compact = value.to_str().unwrap().to_owned();
    let payload = URL_SAFE_NO_PAD.decode(compact.split('.').nth(1).unwrap()).unwrap();
    (compact, serde_json::from_slice(&payload).unwrap())
}

#[tokio::test]
async fn the_tool_gets_its_credential_and_the_sidecars_word_for_each_call_and_never_the_agents() {
    let world = World::hybrid(Some(signer())).await;
    let agents = [("txn-token", "forged"), ("content-type", "application/json")];
    let body = r#"{"amount": "20.00", "currency": "USD"}"#;
    let (status, _, id) = world.told("POST", "/orders/v1/orders/17/refunds", &agents, body).await;
    assert_eq!(status, 201);
    let (_, _, second) = world.told("GET", "/orders/v1/orders/17", &[], "").await;
    let received = world.forwarded();
    let [refund, read] = received.as_slice() else { panic!("{received:?}") };
    assert_eq!(refund.headers["authorization"], "Bearer tool-secret-1");
    let (compact, said) = told(refund);
    assert_eq!((&said["txn"], &said["aud"], &said["scope"]), (&json!(id), &json!("orders"), &json!("refunds.create")));
    assert_eq!(said["tctx"], json!({ "method": "POST", "path": "/v1/orders/17/refunds" }));
    assert_eq!(
        (&said["sub"], &said["act"]["sub"], &said["act"]["act"]["sub"]),
        (&json!("alice"), &json!("helper"), &json!("support"))
    );
    assert_eq!(told(read).1["txn"], json!(second));

    let records = world.all_records().await;
    let decided = records.iter().find(|entry| entry.text("decision_id") == Some(&id)).unwrap();
    assert_eq!(decided.text("identity_mode"), Some("hybrid"));
    let signature = compact.rsplit('.').next().unwrap();
    assert!(records.iter().all(|entry| !entry.to_json().to_string().contains(signature)));
}

#[tokio::test]
async fn without_an_enrolled_key_a_call_is_refused_and_the_tool_hears_nothing() {
    let world = World::hybrid(None).await;
    let (status, problem, _) = world.told("GET", "/orders/v1/orders/17", &[], "").await;
    assert_eq!((status, &problem["code"], &problem["sent"]), (503, &json!("credential_unavailable"), &json!(false)));
    assert!(world.forwarded().is_empty());
}
