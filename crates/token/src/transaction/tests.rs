//! What a tool is told is what was decided, for that tool and a minute; nothing of ours takes it for anything else.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use model::Code;
use serde_json::{Value, json};

use super::*;
use crate::{
    Algorithm,
    testing::{AUTHORITY, NOW, SSO, World, chain_claims, now, public},
    verify_sidecar_assertion,
};

fn signer(key: &Arc<SigningKey>) -> TransactionSigner {
    TransactionSigner::new(Arc::clone(key), AUTHORITY, "edge-1")
}

fn sign(signer: &TransactionSigner, delegation: &Delegation) -> Compact {
    let call = Transaction {
        id: &Id::new("ledger1-0198").unwrap(),
        tool: &Id::new("orders").unwrap(),
        action: &Id::new("refunds.create").unwrap(),
        method: "POST",
        base: "/api",
        path: &CanonicalPath::parse("/v1/orders/17/refunds").unwrap(),
        delegation,
    };
    signer.sign(&call, now()).unwrap()
}

fn part(compact: &Compact, number: usize) -> Value {
    let part = compact.expose().split('.').nth(number).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[tokio::test]
async fn the_tool_is_told_who_acts_for_whom_in_which_call_and_nothing_of_what_they_hold() {
    let delegation = World::new().admitted(&chain_claims()).await;
    for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
        let key = Arc::new(SigningKey::generate(algorithm).unwrap());
        let compact = sign(&signer(&key), &delegation);
        assert_eq!(part(&compact, 0), json!({ "alg": algorithm.as_str(), "kid": key.id(), "typ": "txntoken+jwt" }));
        let support = json!({ "iss": AUTHORITY, "sub": "support", "sub_profile": "ai_agent" });
        let refunds = json!({ "iss": AUTHORITY, "sub": "refunds", "sub_profile": "ai_agent", "instance": "r-1" });
        let mut act = refunds.clone();
        act["act"] = support.clone();
        let expected = json!({
            "iss": format!("{AUTHORITY}/sidecars/edge-1"), "aud": "orders", "iat": NOW, "exp": NOW + 60,
            "txn": "ledger1-0198", "sub": "alice", "scope": "refunds.create", "req_wl": "refunds", "tenant": "acme",
            "act": act,
            "delegation_chain": [{ "iss": SSO, "sub": "alice", "sub_profile": "user" }, support, refunds],
            "tctx": { "method": "POST", "path": "/api/v1/orders/17/refunds" },
        });
        assert_eq!(part(&compact, 1), expected);
    }
}

#[tokio::test]
async fn what_a_tool_is_told_opens_nothing_at_a_sidecar_or_the_authority() {
    let world = World::new();
    let delegation = world.admitted(&chain_claims()).await;
    let key = Arc::new(SigningKey::generate(Algorithm::EdDsa).unwrap());
    let compact = sign(&signer(&key), &delegation);
    assert_eq!(world.code(compact.expose()).await, Code::InvalidToken);
    // Not even where the sidecar's own key is looked for, and the names fit.
    let name = format!("{AUTHORITY}/sidecars/edge-1");
    let refused = verify_sidecar_assertion(compact.expose(), &public(&[&key]), &name, "orders", now()).unwrap_err();
    assert!(refused.internal.as_deref().unwrap().contains("txntoken+jwt"), "{refused:?}");
}

#[test]
fn a_signer_shows_its_name_and_nothing_of_its_key() {
    let key = Arc::new(SigningKey::generate(Algorithm::EdDsa).unwrap());
    assert_eq!(format!("{:?}", signer(&key)), format!("TransactionSigner({AUTHORITY}/sidecars/edge-1)"));
}

#[tokio::test]
async fn a_key_that_was_rotated_signs_from_the_next_look_on() {
    let delegation = World::new().admitted(&chain_claims()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sidecar.pem");
    let first = Arc::new(SigningKey::load_or_create(&file, Algorithm::EdDsa).unwrap());
    let signer = signer(&first).kept_in(file.clone());
    let signed_by = |signer: &TransactionSigner| part(&sign(signer, &delegation), 0)["kid"].clone();
    signer.look(now());
    assert_eq!(signed_by(&signer), first.id());
    std::fs::write(&file, "half written").unwrap();
    signer.look(now());
    assert_eq!(signed_by(&signer), first.id());
    std::fs::remove_file(&file).unwrap();
    let second = SigningKey::load_or_create(&file, Algorithm::Es256).unwrap();
    signer.look(now());
    assert_eq!(signed_by(&signer), second.id());
}
