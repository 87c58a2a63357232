//! Bundles that are signed: which are taken, and every way in which one is not.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm};

use super::*;

fn pair(kind: &'static SignatureAlgorithm) -> (SigningKey, String) {
    let pair = KeyPair::generate_for(kind).unwrap();
    (SigningKey::parse(pair.serialize_pem().as_bytes()).unwrap(), pair.public_key_pem())
}

fn keys(algorithm: Algorithm, pem: &str, scope: Option<&str>) -> Keys {
    let mut keys = Keys::default();
    keys.add("k", algorithm, pem.as_bytes(), scope.map(str::to_owned)).unwrap();
    keys
}

fn unsigned() -> Bundle {
    let manifest = (".manifest", r#"{"revision": "r1", "roots": ["countersign/org"], "metadata": {"serial": 4}}"#);
    let data = ("countersign/org/data.json", r#"{"limit": 4}"#);
    let yaml = ("countersign/org/more/data.yaml", "hosts: [a, b]\n");
    Bundle::open(&archive_of(&[manifest, POLICY, data, yaml, ("README.md", "words")]), None).unwrap()
}

#[test]
fn what_a_configured_key_signed_is_taken_by_it_alone() {
    for (kind, algorithm) in [(&PKCS_ECDSA_P256_SHA256, Algorithm::ES256), (&PKCS_ED25519, Algorithm::EdDsa)] {
        let (key, public) = pair(kind);
        assert_eq!(key.algorithm(), algorithm);
        let signed = unsigned().sign(&key, Some("k"), Some("prod")).unwrap();
        let bundle = Bundle::open(&signed, Some(&keys(algorithm, &public, Some("prod")))).unwrap();
        assert_eq!(bundle.signature(), &Signature::Verified(Signer { key: "k".to_owned(), algorithm }));
        let source = bundle.source("org", None, std::path::Path::new("b")).unwrap();
        assert_eq!((source.policies.len(), source.data.len()), (1, 2));
        // By no other key, for no other scope, and not without any.
        let (_, other) = pair(kind);
        assert!(Bundle::open(&signed, Some(&keys(algorithm, &other, Some("prod")))).is_err());
        assert!(Bundle::open(&signed, Some(&keys(algorithm, &public, None))).is_err());
        assert!(Bundle::open(&signed, Some(&keys(algorithm, &public, Some("test")))).is_err());
        assert!(Bundle::open(&signed, Some(&Keys::default())).is_err());
        assert_eq!(Bundle::open(&signed, None).unwrap().signature(), &Signature::Unverified);
        // Signed again, it carries one signature.
        let again = bundle.sign(&key, None, None).unwrap();
        assert!(Bundle::open(&again, Some(&keys(algorithm, &public, None))).is_ok());
    }
}

#[test]
fn any_change_after_the_signature_is_seen() {
    let (key, public) = pair(&PKCS_ED25519);
    let keys = keys(Algorithm::EdDsa, &public, None);
    let signed = unsigned().sign(&key, Some("k"), None).unwrap();
    let files: Vec<(String, Vec<u8>)> = {
        let archive = archive::Archive::read(&signed).unwrap();
        archive.files().map(|(name, content)| (name.to_owned(), content.to_vec())).collect()
    };
    let outcome = |files: &[(String, Vec<u8>)]| {
        let archive = archive::write(files.iter().map(|(name, content)| (name.as_str(), content.as_slice()))).unwrap();
        Bundle::open(&archive, Some(&keys)).map(drop)
    };
    assert_eq!(outcome(&files), Ok(()));
    for at in 0..files.len() {
        let name = &files[at].0;
        let mut missing = files.clone();
        missing.remove(at);
        assert!(outcome(&missing).is_err(), "without {name}");
        let mut renamed = files.clone();
        renamed[at].0.push('x');
        assert!(outcome(&renamed).is_err(), "{name} renamed");
        let mut changed = files.clone();
        let middle = changed[at].1.len() / 2;
        changed[at].1[middle] ^= 1;
        assert!(outcome(&changed).is_err(), "{name} changed");
    }
    for added in ["b.rego", "data.json", ".hidden", "x/.manifest", "x/.signatures.json"] {
        let mut more = files.clone();
        more.push((added.to_owned(), b"{}".to_vec()));
        assert!(outcome(&more).unwrap_err().contains("not signed"), "{added}");
    }
    // Documents may be written otherwise, as long as they say the same.
    let mut spaced = files;
    let data = spaced.iter_mut().find(|(name, _)| name.ends_with("data.json")).unwrap();
    data.1 = b"{ \"limit\" : 4 }\n".to_vec();
    assert_eq!(outcome(&spaced), Ok(()));
    let data = spaced.iter_mut().find(|(name, _)| name.ends_with("data.json")).unwrap();
    data.1 = br#"{"limit": 4, "limit": 5}"#.to_vec();
    assert!(outcome(&spaced).is_err(), "a name that is given twice has two readings");
}

/// A bundle whose signature has that header and those claims, truly signed.
fn forged(key: &KeyPair, header: &str, claims: &str) -> Vec<u8> {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let private = jsonwebtoken::EncodingKey::from_ed_pem(key.serialize_pem().as_bytes()).unwrap();
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &private, jsonwebtoken::Algorithm::EdDSA).unwrap();
    let signatures = format!(r#"{{"signatures": ["{message}.{signature}"]}}"#);
    archive_of(&[POLICY, (".signatures.json", &signatures)])
}

#[test]
fn a_signature_says_one_thing_in_one_way() {
    let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let keys = keys(Algorithm::EdDsa, &pair.public_key_pem(), None);
    let open = |header: &str, claims: &str| Bundle::open(&forged(&pair, header, claims), Some(&keys)).map(drop);
    let hash =
        signature::hexadecimal(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, POLICY.1.as_bytes()).as_ref());
    let file = format!(r#"{{"name":"a.rego","hash":"{hash}","algorithm":"SHA-256"}}"#);
    let good = format!(r#"{{"files":[{file}]}}"#);
    let header = r#"{"alg":"EdDSA","kid":"k"}"#;
    assert_eq!(open(header, &good), Ok(()));
    assert_eq!(open(r#"{"alg":"EdDSA"}"#, &good), Ok(()), "the only key needs no name");
    assert_eq!(open(r#"{"alg":"EdDSA"}"#, &format!(r#"{{"files":[{file}],"keyid":"k"}}"#)), Ok(()), "as OPA once did");
    assert_eq!(open(header, &format!(r#"{{"files":[{file}],"scope":"","iat":1,"iss":"x"}}"#)), Ok(()));
    for header in [
        r#"{"alg":"none","kid":"k"}"#,
        r#"{"alg":"HS256","kid":"k"}"#,
        r#"{"alg":"ES256","kid":"k"}"#,
        r#"{"kid":"k"}"#,
        r#"{"alg":"EdDSA","kid":"other"}"#,
        r#"{"alg":"EdDSA","kid":4}"#,
        r#"{"alg":"EdDSA","kid":"k","crit":["x"],"x":1}"#,
        r#"{"alg":"EdDSA","kid":"k","b64":false}"#,
        r#"{"alg":"EdDSA","alg":"EdDSA","kid":"k"}"#,
        "[]",
        "",
    ] {
        assert!(open(header, &good).is_err(), "{header}");
    }
    let with = |file: &str| format!(r#"{{"files":[{file}]}}"#);
    for claims in [
        "{}".to_owned(),
        "[]".to_owned(),
        with(""),
        with(&format!("{file},{file}")),
        with(&file.replace("SHA-256", "MD5")),
        with(&file.replace("SHA-256", "sha256")),
        with(&file.replace(r#","algorithm":"SHA-256""#, "")),
        with(&file.replace("a.rego", "/a.rego")),
        with(&file.replace(&hash, hash.trim_end_matches(|_| true))),
        with(&format!(r#"{file},{{"name":"b.rego","hash":"{hash}","algorithm":"SHA-256"}}"#)),
        format!(r#"{{"files":[{file}],"scope":"write"}}"#),
        format!(r#"{{"files":[{file}],"scope":4}}"#),
        format!(r#"{{"files":{file}}}"#),
    ] {
        assert!(open(header, &claims).is_err(), "{claims}");
    }
}

#[test]
fn a_key_is_what_it_is_said_to_be() {
    let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let mut keys = Keys::default();
    let private = pair.serialize_pem();
    assert!(keys.add("k", Algorithm::EdDsa, private.as_bytes(), None).is_err(), "a private key has no place there");
    assert!(keys.add("k", Algorithm::ES256, pair.public_key_pem().as_bytes(), None).is_err());
    assert!(keys.add("k", Algorithm::RS256, b"", None).is_err());
    for pem in ["", "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n", pair.public_key_pem().as_str()] {
        assert!(SigningKey::parse(pem.as_bytes()).is_err());
    }
    let larger = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    assert!(SigningKey::parse(larger.serialize_pem().as_bytes()).is_err());
}

#[test]
fn a_configured_source_takes_a_signed_bundle_with_keys_and_a_directory_without() {
    let (key, public) = pair(&PKCS_ECDSA_P256_SHA256);
    let found = directory(&[POLICY]);
    let place = |name: &str| found.path().join(name);
    let signed = unsigned().sign(&key, Some("k"), None).unwrap();
    fs::write(place("signed.tar.gz"), signed).unwrap();
    fs::write(place("unsigned.tar.gz"), archive_of(&[POLICY])).unwrap();
    fs::write(place("key.pem"), public).unwrap();
    let configured = |path: &str, with_keys: bool| {
        let config = KeyConfig { algorithm: Algorithm::ES256, file: "key.pem".into(), scope: None };
        let keys = with_keys.then(|| KeysConfig::from([("k".to_owned(), config)]));
        let name = "org".to_owned();
        let (path, kind) = (path.into(), SourceKind::Policy);
        PolicySource { name, path, bundle: None, keys, tools: None, candidate: None, kind }.open(found.path())
    };
    let (_, origin) = configured("signed.tar.gz", true).unwrap();
    assert_eq!((origin.manifest.serial, origin.signer.unwrap().key.as_str()), (Some(4), "k"));
    assert!(configured("signed.tar.gz", false).unwrap_err().to_string().contains("`keys`"));
    assert!(configured("unsigned.tar.gz", true).unwrap_err().to_string().contains("not signed"));
    assert!(configured("unsigned.tar.gz", false).is_ok());
    assert!(configured(".", true).unwrap_err().to_string().contains("not signed"));
    assert!(configured("nothing", false).unwrap_err().to_string().contains("nothing"));
}
