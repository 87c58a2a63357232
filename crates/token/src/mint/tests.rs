//! Keys on disk, keys in memory, and what nobody gets to see of them.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::testing::public;

#[test]
fn what_a_key_signs_its_public_part_verifies() {
    for algorithm in [Algorithm::Es256, Algorithm::EdDsa] {
        let key = SigningKey::generate(algorithm).unwrap();
        let compact = key.sign("at+jwt", &json!({"sub": "x"})).unwrap();
        let (signed, signature) = compact.expose().rsplit_once('.').unwrap();
        let set = public(&[&key]);
        let found = set.find(Some(key.id()), algorithm).unwrap();
        assert!(found.verifies(signature, signed));
        assert!(!found.verifies(signature, &format!("{signed}x")));
        assert_eq!(found.thumbprint, key.id());
    }
    assert!(matches!(SigningKey::generate(Algorithm::Rs256), Err(MintError::Algorithm(Algorithm::Rs256))));
}

#[test]
fn a_key_file_is_its_owners_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("signing.pem");
    for algorithm in [Algorithm::Es256, Algorithm::EdDsa] {
        let made = SigningKey::load_or_create(&path, algorithm).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let loaded = SigningKey::load_or_create(&path, algorithm).unwrap();
        assert_eq!((made.id(), made.algorithm()), (loaded.id(), algorithm));
        assert!(made.save(&path).is_err(), "a key is never overwritten");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(SigningKey::load(&path), Err(MintError::ReadableByOthers(_))));
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_broken_key_file_is_refused_and_not_quoted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("signing.pem");
    let good = to_pem(&SigningKey::generate(Algorithm::EdDsa).unwrap().pkcs8);
    for text in [
        "",
        "c2VjcmV0",
        "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n",
        "-----BEGIN PRIVATE KEY-----\n",
        good.split_at(good.len() / 2).0,
        &good.repeat(2),
    ] {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = SigningKey::load_or_create(&path, Algorithm::EdDsa).unwrap_err();
        assert!(matches!(error, MintError::NotAKey(_)), "{error}");
        assert!(!error.to_string().contains("c2Vj"));
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "a file that is not understood is left alone");
    }
}

#[test]
fn neither_key_nor_token_can_be_printed() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let compact = key.sign("at+jwt", &json!({"sub": "alice"})).unwrap();
    assert_eq!(format!("{compact:?}"), "Compact");
    assert_eq!(format!("{key:?}"), format!("SigningKey({})", key.id()));
    assert!(key.public_jwk().get("d").is_none());
}
