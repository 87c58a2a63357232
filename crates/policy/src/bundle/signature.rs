//! `.signatures.json`: a JSON Web Signature over the hash of every file, as OPA writes and reads it. What is not signed
//! by a key of the configuration is never looked into.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
};

use aws_lc_rs::digest::{Context, SHA256};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{DecodingKey, EncodingKey, crypto};
use model::json::Json;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    archive::Archive,
    canonical,
    data::{self, Hashed, TextDigest},
};
use crate::Known;

/// The name of the file.
pub(super) const NAME: &str = ".signatures.json";
/// The file of a data document that is hashed by what it says.
const DOCUMENT: &str = "data.json";
/// The largest one, in bytes: a thousand files take a fifth of that.
const MAX_BYTES: usize = 1024 * 1024;
/// The one way of hashing files. OPA's others are weaker, or no stronger.
const HASHING: &str = "SHA-256";

/// The keys of which one must have signed a bundle, by their names.
pub type KeysConfig = BTreeMap<String, KeyConfig>;

/// A key that signs a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// How it signs.
    pub algorithm: Algorithm,
    /// The file of the public key (PEM).
    pub file: PathBuf,
    /// What the signature has to say it is for: the `scope` it was made with. Without it, it was made without one.
    #[serde(default)]
    pub scope: Option<String>,
}

/// How a bundle is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "their names are those of RFC 7518 and RFC 8037")]
pub enum Algorithm {
    ES256,
    #[serde(rename = "EdDSA")]
    EdDsa,
    RS256,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::EdDsa, Self::ES256, Self::RS256];

    /// Its name in a signature's header.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ES256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::RS256 => "RS256",
        }
    }

    const fn library(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::ES256 => jsonwebtoken::Algorithm::ES256,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
            Self::RS256 => jsonwebtoken::Algorithm::RS256,
        }
    }
}

/// The keys that a bundle may be signed with.
#[derive(Clone, Default)]
pub struct Keys {
    named: BTreeMap<String, Key>,
    /// Whether the only one is meant, whatever a signature calls it.
    any_name: bool,
}

#[derive(Clone)]
struct Key {
    algorithm: Algorithm,
    public: DecodingKey,
    scope: Option<String>,
}

/// Who signed a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Signer {
    /// The key, by its name in the configuration.
    pub key: String,
    /// How.
    pub algorithm: Algorithm,
}

impl Keys {
    /// The one key whose PEM is `pem`, whatever a signature calls it.
    pub fn only(algorithm: Algorithm, pem: &[u8], scope: Option<String>) -> Result<Self, String> {
        let mut keys = Self { any_name: true, ..Self::default() };
        keys.add("", algorithm, pem, scope)?;
        Ok(keys)
    }

    /// Adds the key `name`, whose PEM is `pem`.
    pub fn add(&mut self, name: &str, algorithm: Algorithm, pem: &[u8], scope: Option<String>) -> Result<(), String> {
        let is_public =
            str::from_utf8(pem).is_ok_and(|pem| pem.contains("PUBLIC KEY-----") && !pem.contains("PRIVATE"));
        if !is_public {
            return Err("not the PEM of a public key".to_owned());
        }
        let public = match algorithm {
            Algorithm::ES256 => DecodingKey::from_ec_pem(pem),
            Algorithm::EdDsa => DecodingKey::from_ed_pem(pem),
            Algorithm::RS256 => DecodingKey::from_rsa_pem(pem),
        };
        let public = public.map_err(|_| format!("not the PEM of a public key for {}", algorithm.name()))?;
        self.named.insert(name.to_owned(), Key { algorithm, public, scope });
        Ok(())
    }

    /// The key that says it signed: by the header, by the claim that OPA once wrote, or the only one there is.
    fn named(&self, header: &Json, claims: &Json) -> Result<(&String, &Key), String> {
        let only = || self.named.first_key_value().filter(|_| self.named.len() == 1);
        let named = header.member("kid").or_else(|| claims.member("keyid")).filter(|_| !self.any_name);
        match named {
            Some(Json::Text(name)) => {
                self.named.get_key_value(name).ok_or("it is signed with a key that is not configured")
            }
            Some(_) => Err("the name of its key is no text"),
            None => only().ok_or("it does not say which key it is signed with"),
        }
        .map_err(str::to_owned)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.named.keys()).finish()
    }
}

/// The data documents that were read to hash them, by their paths.
pub(super) type Documents = BTreeMap<String, Hashed>;

/// Whether a bundle carries a signature.
pub(super) fn is_signed(archive: &Archive) -> bool {
    archive.file(NAME).is_some()
}

/// That one of `keys` signed every file of `archive`, and no other. What is `known` by its very bytes is hashed as it was.
pub(super) fn verify(archive: &Archive, keys: &Keys, known: &Known) -> Result<(Signer, Documents), String> {
    let wrong = |what: String| format!("{NAME}: {what}");
    let signatures = archive.file(NAME).ok_or("it is not signed")?;
    let token = token(signatures).map_err(wrong)?;
    let (signer, claims) = signed(&token, keys).map_err(wrong)?;
    let mut hashes = hashes(&claims).map_err(wrong)?;
    let mut documents = Documents::new();
    for (path, content) in archive.files().filter(|(path, _)| *path != NAME) {
        let claimed = hashes.remove(path).ok_or_else(|| wrong(format!("`{path}` is not signed")))?;
        let (hash, document) = hashed(path, content, known)?;
        if hash != claimed {
            return Err(wrong(format!("`{path}` is not what was signed")));
        }
        if let Some(document) = document {
            documents.insert(path.to_owned(), document);
        }
    }
    match hashes.into_keys().next() {
        Some(missing) => Err(wrong(format!("`{missing}` was signed and is missing"))),
        None => Ok((signer, documents)),
    }
}

/// The hash of a file, and the data document that it was taken of.
fn hashed(path: &str, content: &[u8], known: &Known) -> Result<(String, Option<Hashed>), String> {
    let mut below: Vec<String> = path.split('/').map(str::to_owned).collect();
    if below.pop().as_deref() != Some(DOCUMENT) {
        return hash(path, content).map(|(hash, _)| (hash, None));
    }
    let read = TextDigest::of(DOCUMENT, &below, content);
    let before = known.document(read).and_then(|data| Some((data.hash()?.to_owned(), data.clone())));
    if let Some((hash, data)) = before {
        return Ok((hash, Some(Hashed::Before(data))));
    }
    let (hash, json) = hash(path, content)?;
    let now = json.map(|json| Hashed::Now { value: data::of_json(json), read, hash: hash.clone() });
    Ok((hash, now))
}

/// The files that a signature names, which nobody verified.
pub(super) fn names(signatures: &[u8]) -> BTreeSet<String> {
    let claims = token(signatures).ok().and_then(|token| {
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
        hashes(&Json::parse(&claims).ok()?).ok()
    });
    claims.unwrap_or_default().into_keys().collect()
}

/// The one signature of the file.
fn token(signatures: &[u8]) -> Result<String, String> {
    if signatures.len() > MAX_BYTES {
        return Err(format!("larger than {MAX_BYTES} bytes"));
    }
    let json = Json::parse(signatures).map_err(|error| error.to_string())?;
    if json.member("plugin").is_some_and(|plugin| !matches!(plugin.as_text(), Some("" | "_default"))) {
        return Err("it is made by a plugin of others".to_owned());
    }
    match json.member("signatures") {
        Some(Json::Array(tokens)) => match tokens.as_slice() {
            [Json::Text(token)] => Ok(token.clone()),
            _ => Err("it has to hold exactly one signature".to_owned()),
        },
        _ => Err("it has no list of signatures".to_owned()),
    }
}

/// What `token` says, signed.
fn signed(token: &str, keys: &Keys) -> Result<(Signer, Json), String> {
    let (message, signature) = token.rsplit_once('.').ok_or("not a signature")?;
    let (header, claims) = message.split_once('.').ok_or("not a signature")?;
    let part = |part: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| "not a signature".to_owned())?;
        Json::parse(&bytes).map_err(|error| error.to_string())
    };
    let (header, claims) = (part(header)?, part(claims)?);
    if header.member("crit").is_some() || header.member("b64").is_some() {
        return Err("its header asks for what is not known".to_owned());
    }
    let (name, key) = keys.named(&header, &claims)?;
    if header.member("alg").and_then(Json::as_text) != Some(key.algorithm.name()) {
        return Err(format!("it is not signed as its key signs, with {}", key.algorithm.name()));
    }
    let verified = crypto::verify(signature, message.as_bytes(), &key.public, key.algorithm.library());
    if !verified.unwrap_or(false) {
        return Err("the signature is not its key's".to_owned());
    }
    // An empty scope is none, as in OPA.
    let scope = match claims.member("scope") {
        None => "",
        Some(Json::Text(scope)) => scope,
        Some(_) => return Err("its scope is no text".to_owned()),
    };
    if scope != key.scope.as_deref().unwrap_or_default() {
        return Err("it is signed for another scope".to_owned());
    }
    Ok((Signer { key: name.clone(), algorithm: key.algorithm }, claims))
}

/// The hash that is claimed of each file.
fn hashes(claims: &Json) -> Result<BTreeMap<String, String>, String> {
    let Some(Json::Array(files)) = claims.member("files") else { return Err("it says nothing of files".to_owned()) };
    let mut hashes = BTreeMap::new();
    for file in files {
        let text = |name: &str| file.member(name).and_then(Json::as_text);
        let (Some(name), Some(hash)) = (text("name"), text("hash")) else {
            return Err("it says of a file neither name nor hash".to_owned());
        };
        if text("algorithm") != Some(HASHING) {
            return Err(format!("`{name}` is not hashed with {HASHING}"));
        }
        if hashes.insert(name.to_owned(), hash.to_ascii_lowercase()).is_some() {
            return Err(format!("it names `{name}` twice"));
        }
    }
    Ok(hashes)
}

/// The hash of a file, in hexadecimal digits, and the document that it was taken of.
pub(super) fn hash(path: &str, content: &[u8]) -> Result<(String, Option<Json>), String> {
    let mut context = Context::new(&SHA256);
    let document = document(path, content).map_err(|error| format!("{path}: {error}"))?;
    match &document {
        Some(document) => canonical::write(document, &mut |part| context.update(part)),
        None => context.update(content),
    }
    Ok((hexadecimal(context.finish().as_ref()), document))
}

/// The content of a file that is hashed as a document.
pub(super) fn document(path: &str, content: &[u8]) -> Result<Option<Json>, String> {
    if !canonical::is_structured(path) {
        return Ok(None);
    }
    if path.ends_with(".yaml") {
        let text = str::from_utf8(content).map_err(|error| error.to_string())?;
        return canonical::of_yaml(text).map(Some);
    }
    data::json(content).map(Some)
}

/// `bytes` in hexadecimal digits.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A private key that signs bundles.
pub struct SigningKey {
    private: EncodingKey,
    algorithm: Algorithm,
}

impl SigningKey {
    /// Reads the PEM of a private key. What it signs with follows from what it is.
    pub fn parse(pem: &[u8]) -> Result<Self, String> {
        let read = |algorithm: &Algorithm| {
            let private = match algorithm {
                Algorithm::ES256 => EncodingKey::from_ec_pem(pem),
                Algorithm::EdDsa => EncodingKey::from_ed_pem(pem),
                Algorithm::RS256 => EncodingKey::from_rsa_pem(pem),
            };
            let private = private.ok()?;
            // A key of another curve is told by that it cannot sign.
            crypto::sign(b"", &private, algorithm.library()).ok()?;
            Some(Self { private, algorithm: *algorithm })
        };
        Algorithm::ALL.iter().find_map(read).ok_or_else(|| {
            "not a private key in PKCS#8 PEM of P-256, Ed25519 or RSA with 2048 bits or more (`openssl genpkey` makes \
             one, `openssl pkcs8 -topk8 -nodes` turns others into it)"
                .to_owned()
        })
    }

    /// How it signs.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The text of [`NAME`] for `archive`.
    pub(super) fn sign(&self, archive: &Archive, name: Option<&str>, scope: Option<&str>) -> Result<String, String> {
        let mut files: Vec<Value> = Vec::new();
        for (path, content) in archive.files().filter(|(path, _)| *path != NAME) {
            files.push(serde_json::json!({ "name": path, "hash": hash(path, content)?.0, "algorithm": HASHING }));
        }
        // What is not said is left out, as in OPA.
        let with = |mut members: Map<String, Value>, member: &str, text: Option<&str>| {
            text.map(|text| members.insert(member.to_owned(), text.into()));
            URL_SAFE_NO_PAD.encode(Value::Object(members).to_string())
        };
        let header = with(Map::from_iter([("alg".to_owned(), self.algorithm.name().into())]), "kid", name);
        let claims = with(Map::from_iter([("files".to_owned(), files.into())]), "scope", scope);
        let message = format!("{header}.{claims}");
        let signature = crypto::sign(message.as_bytes(), &self.private, self.algorithm.library())
            .map_err(|error| format!("cannot sign: {error}"))?;
        Ok(serde_json::json!({ "signatures": [format!("{message}.{signature}")] }).to_string())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.algorithm.name())
    }
}
