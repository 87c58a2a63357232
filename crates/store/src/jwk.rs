//! Public keys as JSON (RFC 7517): that they are public, and their names (RFC 7638).

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use crate::error::StoreError;

/// Members that only a private or shared key has.
const SECRET: [&str; 7] = ["d", "k", "p", "q", "dp", "dq", "qi"];

/// The members of a key of ours that say which key it is, by type and curve.
fn identifying(jwk: &Value) -> Result<Map<String, Value>, StoreError> {
    let text = |member: &str| jwk.get(member).and_then(Value::as_str).map(str::to_owned);
    let members: &[&str] = match (text("kty").as_deref(), text("crv").as_deref()) {
        (Some("EC"), Some("P-256")) => &["crv", "kty", "x", "y"],
        (Some("OKP"), Some("Ed25519")) => &["crv", "kty", "x"],
        _ => return Err(StoreError::Invalid("the key has to be an EC key on P-256 or an Ed25519 key".to_owned())),
    };
    if SECRET.iter().any(|secret| jwk.get(secret).is_some()) {
        return Err(StoreError::Invalid("it is a private or shared key: send the public key only".to_owned()));
    }
    let member = |name: &&str| {
        let value = text(name).ok_or_else(|| StoreError::Invalid(format!("the key has no `{name}`")))?;
        Ok(((*name).to_owned(), Value::String(value)))
    };
    members.iter().map(member).collect()
}

/// The key without anything that is not said of it here.
pub(crate) fn public(jwk: &Value) -> Result<Value, StoreError> {
    let mut members = identifying(jwk)?;
    let algorithm = if members.contains_key("y") { "ES256" } else { "EdDSA" };
    members.insert("kid".to_owned(), json!(thumbprint(jwk)?));
    members.insert("alg".to_owned(), json!(algorithm));
    members.insert("use".to_owned(), json!("sig"));
    Ok(Value::Object(members))
}

/// RFC 7638 §3, with SHA-256.
pub(crate) fn thumbprint(jwk: &Value) -> Result<String, StoreError> {
    // The members are in lexicographic order, as the RFC has them.
    let members: std::collections::BTreeMap<_, _> = identifying(jwk)?.into_iter().collect();
    let text = serde_json::to_vec(&members).map_err(StoreError::unwritable)?;
    Ok(URL_SAFE_NO_PAD.encode(digest(&SHA256, &text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_key_is_its_thumbprint() {
        // RFC 8037 appendix A.3.
        let key = json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "other" });
        assert_eq!(thumbprint(&key).unwrap(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert_eq!(public(&key).unwrap()["kid"], "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn a_private_key_is_no_public_one_and_is_not_quoted() {
        for key in [
            json!({ "kty": "OKP", "crv": "Ed25519", "x": "11q", "d": "very secret" }),
            json!({ "kty": "oct", "k": "very secret" }),
            json!({ "kty": "EC", "crv": "P-256", "x": "a" }),
            json!("very secret"),
        ] {
            let error = public(&key).unwrap_err().to_string();
            assert!(!error.contains("very secret"), "{error}");
        }
    }
}
