//! An issuer's public keys: parsed strictly from a JWK set (RFC 7517), and found by `kid` and algorithm.
//!
//! One key is good for one algorithm. `use`, `key_ops`, `alg`, `kty` and `crv` are all respected; `oct` keys, which
//! a library would take as HMAC secrets, and keys that give their private part away are never used.

use std::{collections::BTreeSet, fmt, sync::Arc};

use aws_lc_rs::{digest, signature};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use model::json::Json;

use crate::Algorithm;

/// The largest JWK set, in bytes.
pub const MAX_KEY_SET_BYTES: usize = 256 * 1024;
/// The most keys in one set.
pub const MAX_KEYS: usize = 64;
/// The longest `kid`, in bytes.
pub(crate) const MAX_KID_BYTES: usize = 256;

/// The keys of one issuer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KeySet {
    keys: Vec<Arc<Key>>,
    ignored: Vec<String>,
}

/// One public key and the one algorithm it is good for.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) id: Option<String>,
    pub(crate) algorithm: Algorithm,
    /// RFC 7638, SHA-256: the key's own identity, whatever it is called.
    pub(crate) thumbprint: String,
    decoding: DecodingKey,
}

/// Why bytes are not a usable JWK set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeySet {
    /// More than [`MAX_KEY_SET_BYTES`].
    #[error("the key set is larger than {MAX_KEY_SET_BYTES} bytes")]
    TooLarge,
    /// More than [`MAX_KEYS`].
    #[error("the key set has more than {MAX_KEYS} keys")]
    TooMany,
    /// Not JSON, or not with one reading only.
    #[error("the key set is not JSON: {0}")]
    Json(String),
    /// Not an object with an array `keys` of objects.
    #[error("the key set is not an object with an array `keys` of objects")]
    Shape,
    /// A key of a kind we know is broken.
    #[error("key {index} of the set: {problem}")]
    Key {
        /// Its place, from 0.
        index: usize,
        /// What is wrong with it.
        problem: String,
    },
}

/// Why no key was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoKey {
    /// No key of that name. A newer set might have it.
    Unknown,
    /// There are keys of that name, for other algorithms.
    OtherAlgorithm,
    /// Several keys would do, and the token does not say which.
    Ambiguous,
}

impl KeySet {
    /// Parses a JWK set. Keys that are not for us (another type, curve, use or algorithm) are passed over and
    /// listed in [`Self::ignored`]; a broken one of a kind we know refuses the whole set.
    ///
    /// An RSA key without `alg` is good for the only RSA algorithm in `allowed`, and for none if there are several.
    ///
    /// # Errors
    /// When it is no set, too large, or holds a broken key.
    pub fn parse(bytes: &[u8], allowed: &BTreeSet<Algorithm>) -> Result<Self, InvalidKeySet> {
        if bytes.len() > MAX_KEY_SET_BYTES {
            return Err(InvalidKeySet::TooLarge);
        }
        let json = Json::parse(bytes).map_err(|error| InvalidKeySet::Json(error.to_string()))?;
        let Some(Json::Array(entries)) = json.member("keys") else { return Err(InvalidKeySet::Shape) };
        if entries.len() > MAX_KEYS {
            return Err(InvalidKeySet::TooMany);
        }
        let mut set = Self::default();
        for (index, entry) in entries.iter().enumerate() {
            if !matches!(entry, Json::Object(_)) {
                return Err(InvalidKeySet::Shape);
            }
            match Key::parse(entry, allowed) {
                Ok(key) => set.add(key),
                Err(Unusable::NotForUs(why)) => set.ignored.push(format!("key {index}: {why}")),
                Err(Unusable::Broken(problem)) => return Err(InvalidKeySet::Key { index, problem }),
            }
        }
        Ok(set)
    }

    fn add(&mut self, key: Key) {
        let repeated = |known: &Arc<Key>| **known == key;
        if !self.keys.iter().any(repeated) {
            self.keys.push(Arc::new(key));
        }
    }

    /// How many keys can be used.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key can be used: the issuer withdrew them all, or none is for us.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys that were passed over, each with the reason.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// The key, where there is exactly one.
    pub(crate) fn only(&self) -> Option<&Key> {
        match self.keys.as_slice() {
            [key] => Some(key),
            _ => None,
        }
    }

    pub(crate) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Arc<Key>, NoKey> {
        let named = || self.keys.iter().filter(|key| kid.is_none_or(|kid| key.id.as_deref() == Some(kid)));
        let mut fitting = named().filter(|key| key.algorithm == algorithm);
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(Arc::clone(key)),
            (Some(_), Some(_)) => Err(NoKey::Ambiguous),
            (None, _) if named().next().is_some() => Err(NoKey::OtherAlgorithm),
            (None, _) => Err(NoKey::Unknown),
        }
    }

    /// Whether a key that was used before is still in the set, under the same name and for the same algorithm.
    pub(crate) fn holds(&self, key: &Key) -> bool {
        self.keys.iter().any(|known| **known == *key)
    }

    /// Whether both have the same keys.
    pub(crate) fn same_keys(&self, other: &Self) -> bool {
        self.keys.len() == other.keys.len() && self.keys.iter().all(|key| other.holds(key))
    }
}

enum Unusable {
    NotForUs(String),
    Broken(String),
}

fn broken<T>(problem: impl Into<String>) -> Result<T, Unusable> {
    Err(Unusable::Broken(problem.into()))
}

fn not_for_us<T>(why: impl Into<String>) -> Result<T, Unusable> {
    Err(Unusable::NotForUs(why.into()))
}

impl Key {
    fn parse(jwk: &Json, allowed: &BTreeSet<Algorithm>) -> Result<Self, Unusable> {
        let material = Material::parse(jwk)?;
        check_use(jwk)?;
        let id = match jwk.member("kid") {
            None => None,
            Some(Json::Text(kid)) if kid.len() <= MAX_KID_BYTES => Some(kid.clone()),
            Some(_) => return broken(format!("`kid` is not a string of at most {MAX_KID_BYTES} bytes")),
        };
        let algorithm = material.algorithm(jwk, allowed)?;
        let decoding = material.decoding()?;
        Ok(Self { id, algorithm, thumbprint: material.thumbprint(), decoding })
    }

    /// Whether `signature` (base64url) is this key's over `message`.
    pub(crate) fn verifies(&self, signature: &str, message: &str) -> bool {
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), &self.decoding, self.algorithm.library())
            .unwrap_or(false)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.thumbprint == other.thumbprint && self.algorithm == other.algorithm && self.id == other.id
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?}, {}, {})", self.id, self.algorithm, self.thumbprint)
    }
}

/// `use` and `key_ops`, which the library ignores (RFC 7517 §4.2, §4.3).
fn check_use(jwk: &Json) -> Result<(), Unusable> {
    match jwk.member("use") {
        None => {}
        Some(Json::Text(purpose)) if purpose == "sig" => {}
        Some(_) => return not_for_us("`use` is not `sig`"),
    }
    match jwk.member("key_ops") {
        None => Ok(()),
        Some(Json::Array(operations)) if operations.iter().any(|each| each.as_text() == Some("verify")) => Ok(()),
        Some(_) => not_for_us("`key_ops` does not name `verify`"),
    }
}

/// The public part of a key: base64url as the set has it, checked to be canonical.
enum Material {
    Ec { curve: Curve, x: String, y: String },
    Ed25519 { x: String },
    Rsa { n: String, e: String },
}

#[derive(Clone, Copy)]
enum Curve {
    P256,
    P384,
}

impl Material {
    fn parse(jwk: &Json) -> Result<Self, Unusable> {
        let text = |name: &str| jwk.member(name).and_then(Json::as_text);
        let material = match (text("kty"), text("crv")) {
            (Some("EC"), Some("P-256")) => Self::Ec {
                curve: Curve::P256,
                x: octets(jwk, "x", |length| length == 32)?,
                y: octets(jwk, "y", |length| length == 32)?,
            },
            (Some("EC"), Some("P-384")) => Self::Ec {
                curve: Curve::P384,
                x: octets(jwk, "x", |length| length == 48)?,
                y: octets(jwk, "y", |length| length == 48)?,
            },
            (Some("OKP"), Some("Ed25519")) => Self::Ed25519 { x: octets(jwk, "x", |length| length == 32)? },
            // 2048 to 8192 bits: what the verifying library takes.
            (Some("RSA"), _) => Self::Rsa {
                n: octets(jwk, "n", |length| (256..=1024).contains(&length))?,
                e: octets(jwk, "e", |length| (1..=4).contains(&length))?,
            },
            (Some("oct"), _) => return not_for_us("it is a shared secret"),
            (Some(_), _) => return not_for_us("unknown key type or curve"),
            (None, _) => return broken("`kty` is missing"),
        };
        // Published by mistake: whoever read the set can sign with it.
        if ["d", "p", "q"].iter().any(|name| jwk.member(name).is_some()) {
            return not_for_us("it holds its private part");
        }
        material.check_point()?;
        Ok(material)
    }

    fn check_point(&self) -> Result<(), Unusable> {
        let (algorithm, bytes): (&'static dyn signature::VerificationAlgorithm, Vec<u8>) = match self {
            Self::Ec { curve, x, y } => {
                let point = [&[4_u8][..], &decoded(x), &decoded(y)].concat();
                match curve {
                    Curve::P256 => (&signature::ECDSA_P256_SHA256_FIXED, point),
                    Curve::P384 => (&signature::ECDSA_P384_SHA384_FIXED, point),
                }
            }
            Self::Ed25519 { x } => (&signature::ED25519, decoded(x)),
            Self::Rsa { e, .. } => {
                let exponent = decoded(e).iter().fold(0_u64, |value, byte| (value << 8) | u64::from(*byte));
                return if exponent >= 3 && exponent % 2 == 1 { Ok(()) } else { broken("`e` is no RSA exponent") };
            }
        };
        if signature::ParsedPublicKey::new(algorithm, bytes).is_err() {
            return broken("it is no point on its curve");
        }
        Ok(())
    }

    fn algorithm(&self, jwk: &Json, allowed: &BTreeSet<Algorithm>) -> Result<Algorithm, Unusable> {
        let named = match jwk.member("alg") {
            None => None,
            Some(Json::Text(name)) => match Algorithm::named(name) {
                Some(algorithm) => Some(algorithm),
                None => return not_for_us("unknown `alg`"),
            },
            Some(_) => return broken("`alg` is not a string"),
        };
        let algorithm = match (self, named) {
            (Self::Ec { curve: Curve::P256, .. }, None | Some(Algorithm::Es256)) => Algorithm::Es256,
            (Self::Ec { curve: Curve::P384, .. }, None | Some(Algorithm::Es384)) => Algorithm::Es384,
            (Self::Ed25519 { .. }, None | Some(Algorithm::EdDsa)) => Algorithm::EdDsa,
            (Self::Rsa { .. }, Some(algorithm)) if algorithm.is_rsa() => algorithm,
            (Self::Rsa { .. }, None) => {
                let mut rsa = allowed.iter().filter(|algorithm| algorithm.is_rsa());
                match (rsa.next(), rsa.next()) {
                    (Some(only), None) => *only,
                    (None, _) => return not_for_us("its algorithm is not among those allowed"),
                    (Some(_), Some(_)) => return not_for_us("no `alg`, and several RSA algorithms are allowed"),
                }
            }
            (_, Some(algorithm)) => return broken(format!("`alg` {algorithm} does not fit its type and curve")),
        };
        if allowed.contains(&algorithm) {
            Ok(algorithm)
        } else {
            not_for_us(format!("{algorithm} is not among the algorithms allowed"))
        }
    }

    fn decoding(&self) -> Result<DecodingKey, Unusable> {
        match self {
            Self::Ec { x, y, .. } => DecodingKey::from_ec_components(x, y),
            Self::Ed25519 { x } => DecodingKey::from_ed_components(x),
            Self::Rsa { n, e } => DecodingKey::from_rsa_components(n, e),
        }
        .or_else(|error| broken(error.to_string()))
    }

    /// RFC 7638 §3: the required members in lexical order, without white space.
    fn thumbprint(&self) -> String {
        let canonical = match self {
            Self::Ec { curve, x, y } => {
                let curve = match curve {
                    Curve::P256 => "P-256",
                    Curve::P384 => "P-384",
                };
                format!(r#"{{"crv":"{curve}","kty":"EC","x":"{x}","y":"{y}"}}"#)
            }
            Self::Ed25519 { x } => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#),
            Self::Rsa { n, e } => format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#),
        };
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, canonical.as_bytes()))
    }
}

/// A member that is canonical base64url of a fitting number of bytes.
fn octets(jwk: &Json, name: &str, fits: impl Fn(usize) -> bool) -> Result<String, Unusable> {
    let Some(text) = jwk.member(name).and_then(Json::as_text) else { return broken(format!("`{name}` is missing")) };
    match URL_SAFE_NO_PAD.decode(text) {
        Ok(bytes) if fits(bytes.len()) => Ok(text.to_owned()),
        _ => broken(format!("`{name}` is not base64url of the right length")),
    }
}

/// What [`octets`] let through; it decoded then, and so does now.
fn decoded(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap_or_default()
}

#[cfg(test)]
mod tests;
