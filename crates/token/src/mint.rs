//! Signing: the keys that are ours, and the tokens made with them. Neither can be printed.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    digest,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::Algorithm;

/// The largest key file, in bytes.
const MAX_KEY_FILE_BYTES: u64 = 16 * 1024;
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// A private key that signs tokens with ES256 or `EdDSA`.
pub struct SigningKey {
    pair: Pair,
    pkcs8: Zeroizing<Vec<u8>>,
    id: String,
    public: Value,
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A compact token: a credential, shown to nobody but whom it is sent to.
#[derive(Clone)]
pub struct Compact(SecretString);

/// Why a key or token could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// No key is made for this algorithm.
    #[error("signing keys are made for ES256 and EdDSA, not for {0}")]
    Algorithm(Algorithm),
    /// The cryptography failed: no randomness, most likely.
    #[error("the key could not be made or used")]
    Cryptography,
    /// Claims that cannot be written as JSON.
    #[error("the claims could not be written: {0}")]
    Claims(#[from] serde_json::Error),
    /// The file is no key.
    #[error("{}: not a PKCS#8 private key (PEM) for ES256 or EdDSA", .0.display())]
    NotAKey(PathBuf),
    /// Somebody else can read the file.
    #[error("{}: the key can be read by others; its mode has to be 0600", .0.display())]
    ReadableByOthers(PathBuf),
    /// The file cannot be read or written.
    #[error("{}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}

impl SigningKey {
    /// A new key.
    ///
    /// # Errors
    /// When no key is made for `algorithm`, or randomness fails.
    pub fn generate(algorithm: Algorithm) -> Result<Self, MintError> {
        let random = SystemRandom::new();
        let document = match algorithm {
            Algorithm::Es256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random),
            Algorithm::EdDsa => Ed25519KeyPair::generate_pkcs8v1(&random),
            other => return Err(MintError::Algorithm(other)),
        };
        let document = document.map_err(|_| MintError::Cryptography)?;
        Self::from_pkcs8(document.as_ref()).ok_or(MintError::Cryptography)
    }

    /// The key in a PEM file.
    ///
    /// # Errors
    /// When others can read the file, or it is not a key.
    pub fn load(path: &Path) -> Result<Self, MintError> {
        let failed = |cause| MintError::File { path: path.to_owned(), cause };
        if net::secret::readable_by_others(path).map_err(failed)? {
            return Err(MintError::ReadableByOthers(path.to_owned()));
        }
        if fs::metadata(path).map_err(failed)?.len() > MAX_KEY_FILE_BYTES {
            return Err(MintError::NotAKey(path.to_owned()));
        }
        let text = Zeroizing::new(fs::read(path).map_err(failed)?);
        let text = std::str::from_utf8(&text).ok();
        let key = text.and_then(from_pem).and_then(|pkcs8| Self::from_pkcs8(&pkcs8));
        key.ok_or_else(|| MintError::NotAKey(path.to_owned()))
    }

    /// Writes the key to a new file that only its owner may read, and sees it onto the disk.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), MintError> {
        let failed = |cause| MintError::File { path: path.to_owned(), cause };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        file.write_all(to_pem(&self.pkcs8).as_bytes()).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        // The name of the file is the directory's content.
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
    }

    /// The key in the file, which is made if there is none.
    ///
    /// # Errors
    /// As [`Self::load`] and [`Self::save`].
    pub fn load_or_create(path: &Path, algorithm: Algorithm) -> Result<Self, MintError> {
        match Self::load(path) {
            Err(MintError::File { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
                let key = Self::generate(algorithm)?;
                key.save(path)?;
                Ok(key)
            }
            other => other,
        }
    }

    /// Its `kid`: the RFC 7638 thumbprint.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it signs with.
    pub const fn algorithm(&self) -> Algorithm {
        match self.pair {
            Pair::Ecdsa(_) => Algorithm::Es256,
            Pair::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    /// The public key (RFC 7517), with `kid`, `alg` and `use`.
    pub const fn public_jwk(&self) -> &Value {
        &self.public
    }

    /// Signs `claims` as a JWT of type `kind` (`at+jwt`).
    ///
    /// # Errors
    /// When the claims cannot be written as JSON.
    pub fn sign(&self, kind: &str, claims: &impl Serialize) -> Result<Compact, MintError> {
        let header = json!({ "alg": self.algorithm().as_str(), "kid": self.id, "typ": kind });
        let part = |json: Vec<u8>| URL_SAFE_NO_PAD.encode(json);
        let signed = format!("{}.{}", part(serde_json::to_vec(&header)?), part(serde_json::to_vec(claims)?));
        let signature = self.signature(signed.as_bytes())?;
        Ok(Compact(SecretString::from(format!("{signed}.{signature}"))))
    }

    /// The signature of `message`, base64url.
    pub(crate) fn signature(&self, message: &[u8]) -> Result<String, MintError> {
        let signature = match &self.pair {
            Pair::Ecdsa(pair) => pair.sign(&SystemRandom::new(), message),
            Pair::Ed25519(pair) => pair.try_sign(message),
        };
        signature.map(|signature| URL_SAFE_NO_PAD.encode(signature)).map_err(|_| MintError::Cryptography)
    }

    fn from_pkcs8(pkcs8: &[u8]) -> Option<Self> {
        let (pair, mut public, canonical) =
            if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8) {
                // An uncompressed point: 4, x, y.
                let (x, y) = pair.public_key().as_ref().strip_prefix(&[4])?.split_at_checked(32)?;
                let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
                let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
                (Pair::Ecdsa(pair), json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "x": x, "y": y }), canonical)
            } else {
                let pair = Ed25519KeyPair::from_pkcs8(pkcs8).ok()?;
                let x = URL_SAFE_NO_PAD.encode(pair.public_key());
                let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
                (Pair::Ed25519(pair), json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": x }), canonical)
            };
        let id = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, canonical.as_bytes()));
        let members = public.as_object_mut()?;
        members.insert("kid".to_owned(), id.clone().into());
        members.insert("use".to_owned(), "sig".into());
        Some(Self { pair, pkcs8: Zeroizing::new(pkcs8.to_vec()), id, public })
    }
}

/// The JWK set of these keys' public parts.
pub fn key_set<'a>(keys: impl IntoIterator<Item = &'a SigningKey>) -> Value {
    let keys: Vec<&Value> = keys.into_iter().map(SigningKey::public_jwk).collect();
    json!({ "keys": keys })
}

impl Compact {
    /// The token, for sending.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// SHA-256 of the token, base64url: what records call it.
    pub fn digest(&self) -> String {
        crate::check::shape::Digest::of(self.expose()).to_string()
    }
}

impl From<SecretString> for Compact {
    /// A token that somebody else signed, and that is kept as carefully as one of our own.
    fn from(compact: SecretString) -> Self {
        Self(compact)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.id)
    }
}

impl fmt::Debug for Compact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compact")
    }
}

fn to_pem(pkcs8: &[u8]) -> Zeroizing<String> {
    let encoded = Zeroizing::new(STANDARD.encode(pkcs8));
    let mut text = Zeroizing::new(String::with_capacity(encoded.len() + 128));
    text.push_str(PEM_BEGIN);
    for (place, character) in encoded.chars().enumerate() {
        if place % 64 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push('\n');
    text.push_str(PEM_END);
    text.push('\n');
    text
}

fn from_pem(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let inner = text.trim().strip_prefix(PEM_BEGIN)?.strip_suffix(PEM_END)?;
    let encoded: Zeroizing<String> = Zeroizing::new(inner.chars().filter(|c| !c.is_ascii_whitespace()).collect());
    STANDARD.decode(encoded.as_bytes()).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests;
