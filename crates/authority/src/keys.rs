//! The authority's signing keys: made on first start, for this user alone, and published as a JWKS.
//!
//! One file for each algorithm. The configured one signs; the other, where there is one, stays published, so that
//! changing the algorithm does not strand the tokens that are out.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use net::secret::readable_by_others;
use serde::Serialize;
use serde_json::Value;
use token::{Algorithm, Compact, InvalidKeySet, KeySet, MintError, SigningKey, mint};

use crate::{
    client::algorithms,
    config::{KeysConfig, SigningAlgorithm},
    refused::Refused,
};

/// RFC 9068 §2.1.
const TOKEN_TYPE: &str = "at+jwt";

/// The keys, ready to sign.
#[derive(Debug)]
pub struct SigningKeys {
    signs: SigningKey,
    jwks: Value,
    set: Arc<KeySet>,
}

/// Why there are no keys to sign with.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The folder cannot be made or looked at.
    #[error("authority.keys.dir: {}: {cause}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// Others may look into the folder.
    #[error("authority.keys.dir: {}: others may enter it; its mode has to be 0700", .0.display())]
    FolderOpen(PathBuf),
    /// A key cannot be made or loaded.
    #[error("authority.keys: {0}")]
    Key(#[from] MintError),
    /// A key is for another algorithm than its file is named after.
    #[error("authority.keys: {}: is a key for {found}", path.display())]
    Misnamed {
        /// The file.
        path: PathBuf,
        /// What it is for.
        found: Algorithm,
    },
    /// The published set is not one that verifiers take.
    #[error("authority.keys: {0}")]
    Set(#[from] InvalidKeySet),
}

impl SigningKeys {
    /// Loads the keys, or makes what is missing.
    ///
    /// # Errors
    /// When folder or keys can be read by others, cannot be made, or are not what their names say.
    pub fn open(config: &KeysConfig) -> Result<Self, KeysError> {
        let KeysConfig { dir, algorithm } = config;
        make_folder(dir)?;
        let signs = match algorithm {
            SigningAlgorithm::Es256 => Algorithm::Es256,
            SigningAlgorithm::EdDsa => Algorithm::EdDsa,
        };
        let path = file(dir, signs);
        let key = named(SigningKey::load_or_create(&path, signs)?, &path, signs)?;
        let mut keys = vec![key];
        for other in algorithms().into_iter().filter(|other| *other != signs) {
            let path = file(dir, other);
            if path.exists() {
                keys.push(named(SigningKey::load(&path)?, &path, other)?);
            }
        }
        let jwks = mint::key_set(&keys);
        let set = Arc::new(KeySet::parse(jwks.to_string().as_bytes(), &algorithms())?);
        Ok(Self { signs: keys.swap_remove(0), jwks, set })
    }

    /// The public keys (RFC 7517 §5).
    pub const fn jwks(&self) -> &Value {
        &self.jwks
    }

    /// The public keys, to verify our own tokens with.
    pub(crate) fn set(&self) -> Arc<KeySet> {
        Arc::clone(&self.set)
    }

    /// Signs the claims of a token. One that its readers would refuse for its size is not issued.
    pub(crate) fn sign(&self, claims: &impl Serialize) -> Result<Compact, Refused> {
        let compact =
            self.signs.sign(TOKEN_TYPE, claims).map_err(|error| Refused::unavailable("the signing key", &error))?;
        if compact.expose().len() > token::MAX_TOKEN_BYTES {
            return Err(Refused::request("the token would be too large: ask for fewer `authorization_details`"));
        }
        Ok(compact)
    }
}

fn make_folder(dir: &Path) -> Result<(), KeysError> {
    let failed = |cause| KeysError::Folder { path: dir.to_owned(), cause };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    if readable_by_others(dir).map_err(failed)? {
        return Err(KeysError::FolderOpen(dir.to_owned()));
    }
    Ok(())
}

fn file(dir: &Path, algorithm: Algorithm) -> PathBuf {
    dir.join(format!("{}.pem", algorithm.as_str().to_ascii_lowercase()))
}

fn named(key: SigningKey, path: &Path, algorithm: Algorithm) -> Result<SigningKey, KeysError> {
    if key.algorithm() == algorithm {
        Ok(key)
    } else {
        Err(KeysError::Misnamed { path: path.to_owned(), found: key.algorithm() })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn open(dir: &Path, algorithm: SigningAlgorithm) -> Result<SigningKeys, KeysError> {
        SigningKeys::open(&KeysConfig { dir: dir.to_owned(), algorithm })
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn keys_are_made_once_for_this_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("keys");
        let first = open(&dir, SigningAlgorithm::Es256).unwrap();
        assert_eq!((mode(&dir), mode(&dir.join("es256.pem"))), (0o700, 0o600));
        let again = open(&dir, SigningAlgorithm::Es256).unwrap();
        assert_eq!(first.jwks(), again.jwks());
        assert!(!first.jwks().to_string().contains("\"d\""));
    }

    #[test]
    fn after_a_change_of_algorithm_the_key_before_stays_published() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("keys");
        let before = open(&dir, SigningAlgorithm::Es256).unwrap();
        let after = open(&dir, SigningAlgorithm::EdDsa).unwrap();
        let published = after.jwks()["keys"].as_array().unwrap();
        assert_eq!(published.len(), 2);
        assert!(published.contains(&before.jwks()["keys"][0]));
        assert_eq!(after.signs.algorithm(), Algorithm::EdDsa);
    }

    #[test]
    fn keys_that_others_can_read_or_that_are_not_what_they_are_called_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("keys");
        drop(open(&dir, SigningAlgorithm::Es256).unwrap());
        let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let key = dir.join("es256.pem");
        chmod(&key, 0o640);
        assert!(open(&dir, SigningAlgorithm::Es256).unwrap_err().to_string().contains("0600"));
        chmod(&key, 0o600);
        chmod(&dir, 0o750);
        assert!(open(&dir, SigningAlgorithm::Es256).unwrap_err().to_string().contains("0700"));
        chmod(&dir, 0o700);
        fs::rename(&key, dir.join("eddsa.pem")).unwrap();
        assert!(matches!(open(&dir, SigningAlgorithm::EdDsa), Err(KeysError::Misnamed { .. })));
        fs::write(dir.join("eddsa.pem"), "not a key").unwrap();
        assert!(open(&dir, SigningAlgorithm::EdDsa).is_err());
    }
}
