//! The key that signs heads: one private file, created on first start.

use std::path::Path;

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use crate::{LedgerError, files};

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// The longest key file that is read.
const MAX_KEY_BYTES: usize = 4096;

/// The key in `path`, made there first where there is none.
pub(crate) fn load_or_create(path: &Path) -> Result<Ed25519KeyPair, LedgerError> {
    match path.try_exists() {
        Ok(true) => load(path),
        Ok(false) => create(path),
        Err(error) => Err(LedgerError::io(path)(error)),
    }
}

fn load(path: &Path) -> Result<Ed25519KeyPair, LedgerError> {
    files::require_private(path, 0o600)?;
    let unusable = |why: &str| LedgerError::Key { path: path.to_owned(), why: why.to_owned() };
    let pem = Zeroizing::new(std::fs::read_to_string(path).map_err(|error| unusable(&error.to_string()))?);
    if pem.len() > MAX_KEY_BYTES {
        return Err(unusable("the file is too large for a key"));
    }
    let body = pem
        .trim()
        .strip_prefix(BEGIN)
        .and_then(|rest| rest.strip_suffix(END))
        .ok_or_else(|| unusable("it is not a PKCS#8 PEM file (`-----BEGIN PRIVATE KEY-----`)"))?;
    let body = Zeroizing::new(body.split_ascii_whitespace().collect::<String>());
    let der = Zeroizing::new(STANDARD.decode(body.as_bytes()).map_err(|_| unusable("its base64 is broken"))?);
    Ed25519KeyPair::from_pkcs8(&der).map_err(|_| unusable("it holds no Ed25519 key"))
}

fn create(path: &Path) -> Result<Ed25519KeyPair, LedgerError> {
    let failed = |_| LedgerError::Key { path: path.to_owned(), why: "no key could be made".to_owned() };
    let key = Ed25519KeyPair::generate().map_err(failed)?;
    let der = key.to_pkcs8v1().map_err(failed)?;
    let encoded = Zeroizing::new(STANDARD.encode(der.as_ref()));
    let pem = Zeroizing::new(format!("{BEGIN}\n{}\n{END}\n", encoded.as_str()));
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        files::create_directory(parent)?;
    }
    files::create_whole(path, pem.as_bytes()).map_err(LedgerError::io(path))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use aws_lc_rs::signature::KeyPair;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/ledger.key");
        let made = load_or_create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let loaded = load_or_create(&path).unwrap();
        assert_eq!(made.public_key().as_ref(), loaded.public_key().as_ref());
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_none_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.key");
        drop(load_or_create(&path).unwrap());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(load_or_create(&path).unwrap_err().to_string().contains("chmod 600"));
        for text in ["", "not a key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(load_or_create(&path), Err(LedgerError::Key { .. })), "{text}");
        }
    }
}
