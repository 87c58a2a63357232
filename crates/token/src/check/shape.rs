//! Shape: exactly three parts of canonical base64url, bounded, header and payload each JSON with one reading.

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use model::json::Json;

use crate::{
    MAX_TOKEN_BYTES,
    keys::MAX_KID_BYTES,
    refusal::{Checked, unverified},
};

/// A token that has the right shape. Nothing in it is believed yet.
pub(crate) struct Unverified<'a> {
    /// Header and payload as they were signed.
    pub(crate) signed: &'a str,
    pub(crate) signature: &'a str,
    pub(crate) header: Header,
    pub(crate) claims: Json,
    /// The `iss` it claims.
    pub(crate) issuer: String,
    pub(crate) digest: Digest,
}

/// The header members that are looked at. `jku`, `x5u`, `jwk` and `x5c` are not: a token never brings its own key.
pub(crate) struct Header {
    pub(crate) algorithm: String,
    pub(crate) kid: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) has_critical: bool,
}

/// SHA-256 of the compact token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    pub(crate) fn of(compact: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, compact.as_bytes()).as_ref());
        Self(bytes)
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// Refuses a token that is too large before anything else is done with it.
pub(crate) fn bounded(compact: &str) -> Checked<()> {
    if compact.len() > MAX_TOKEN_BYTES {
        return Err(unverified(format!("the token has {} bytes, at most {MAX_TOKEN_BYTES} are read", compact.len())));
    }
    Ok(())
}

/// The parts of `compact`, whose digest is taken where it is not known yet.
pub(crate) fn parse(compact: &str, digest: Option<Digest>) -> Checked<Unverified<'_>> {
    bounded(compact)?;
    let mut parts = compact.split('.');
    let (Some(header), Some(payload), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(unverified("a token has exactly three parts"));
    };
    let (signed, _) = compact.rsplit_once('.').unwrap_or_default();
    if signature.is_empty() || URL_SAFE_NO_PAD.decode(signature).is_err() {
        return Err(unverified("the signature is not base64url without padding"));
    }
    let header = read_header(&object(header, "header")?)?;
    let claims = object(payload, "payload")?;
    let Some(issuer) = claims.member("iss").and_then(Json::as_text).map(str::to_owned) else {
        return Err(unverified("`iss` is missing or not a string"));
    };
    let digest = digest.unwrap_or_else(|| Digest::of(compact));
    Ok(Unverified { signed, signature, header, claims, issuer, digest })
}

fn object(part: &str, name: &str) -> Checked<Json> {
    let bytes =
        URL_SAFE_NO_PAD.decode(part).map_err(|_| unverified(format!("the {name} is not base64url without padding")))?;
    match Json::parse(&bytes) {
        Ok(json @ Json::Object(_)) => Ok(json),
        Ok(_) => Err(unverified(format!("the {name} is not a JSON object"))),
        Err(error) => Err(unverified(format!("the {name}: {error}"))),
    }
}

fn read_header(json: &Json) -> Checked<Header> {
    let text = |name: &str, limit: usize| match json.member(name) {
        None => Ok(None),
        Some(Json::Text(text)) if text.len() <= limit => Ok(Some(text.clone())),
        Some(_) => Err(unverified(format!("the header's `{name}` is not a string of at most {limit} bytes"))),
    };
    let Some(algorithm) = text("alg", 16)? else { return Err(unverified("the header has no `alg`")) };
    Ok(Header {
        algorithm,
        kid: text("kid", MAX_KID_BYTES)?,
        kind: text("typ", 64)?,
        has_critical: json.member("crit").is_some(),
    })
}
