//! Keys that sign while their files change: a sidecar's own, and those it keeps for agents, with which it proves to the
//! authority that it asks for one of them (RFC 7523 `private_key_jwt`).

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use net::Stamp;
use serde_json::json;

use crate::{Compact, MintError, SigningKey};

/// The `typ` of what is signed (draft-ietf-oauth-rfc7523bis).
const CLIENT_ASSERTION_TYPE: &str = "client-authentication+jwt";
/// How long it is good for: it is made for one request.
const LIFETIME: SignedDuration = SignedDuration::from_secs(60);

/// A key that signs, and the file that it is kept in. Whoever changes the file changes the key.
pub struct KeptKey {
    key: RwLock<Arc<SigningKey>>,
    file: Option<PathBuf>,
    /// The file at the last look; `None` where it has to be read again whatever it looks like.
    seen: Mutex<Option<Stamp>>,
}

impl KeptKey {
    /// `key`, for as long as the process lives.
    pub fn new(key: Arc<SigningKey>) -> Self {
        Self { key: RwLock::new(key), file: None, seen: Mutex::default() }
    }

    /// The same until [`Self::look`] finds another in `file`.
    #[must_use]
    pub fn kept_in(self, file: PathBuf) -> Self {
        Self { file: Some(file), ..self }
    }

    /// Takes the key that is in the file now, where that is another; whether it was. While it is being written, the one
    /// before signs.
    pub fn look(&self, now: Timestamp) -> bool {
        let Some(file) = &self.file else { return false };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = Stamp::of(file);
        if stamp.is_none() || stamp == *seen {
            return false;
        }
        let Ok(key) = SigningKey::load(file) else { return false };
        *seen = stamp.filter(|stamp| stamp.is_settled(now));
        let mut held = self.key.write().unwrap_or_else(PoisonError::into_inner);
        let other = held.id() != key.id();
        if other {
            *held = Arc::new(key);
        }
        other
    }

    /// The key that signs now.
    pub fn current(&self) -> Arc<SigningKey> {
        Arc::clone(&self.key.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says to `audience` that whoever shows this is `client`; once, and within a minute from `now`.
    ///
    /// # Errors
    /// When the cryptography fails.
    pub fn client_assertion(&self, client: &str, audience: &str, now: Timestamp) -> Result<Compact, MintError> {
        let mut unique = [0; 16];
        rand::fill(&mut unique).map_err(|_| MintError::Cryptography)?;
        let claims = json!({
            "iss": client, "sub": client, "aud": audience, "jti": URL_SAFE_NO_PAD.encode(unique),
            "iat": now.as_second(), "exp": now.as_second() + LIFETIME.as_secs(),
        });
        self.current().sign(CLIENT_ASSERTION_TYPE, &claims)
    }
}

impl fmt::Debug for KeptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeptKey({})", self.current().id())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use model::Id;

    use super::*;
    use crate::{Algorithm, KeySet, mint, verify_client_assertion};

    #[test]
    fn what_a_kept_key_signs_is_the_clients_own_assertion_and_never_the_same_twice() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.pem");
        let first = SigningKey::load_or_create(&file, Algorithm::Es256).unwrap();
        let kept = KeptKey::new(Arc::new(SigningKey::load(&file).unwrap())).kept_in(file.clone());
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let authority = "https://countersign.example";
        let verified = |key: &SigningKey, compact: &Compact, audience: &str| {
            let algorithms = BTreeSet::from([Algorithm::Es256, Algorithm::EdDsa]);
            let keys = KeySet::parse(mint::key_set([key]).to_string().as_bytes(), &algorithms).unwrap();
            let client = Id::new("support").unwrap();
            verify_client_assertion(compact.expose(), &keys, &client, &[audience.to_owned()].into(), now)
        };
        let (one, other) = ["support"; 2].map(|name| kept.client_assertion(name, authority, now).unwrap()).into();
        let (one, other) = (verified(&first, &one, authority).unwrap(), verified(&first, &other, authority).unwrap());
        assert_ne!(one.jti, other.jti);
        assert_eq!(one.issued_at, Some(now));

        // Another key in the file signs from the next look on; while there is none, the one before does.
        std::fs::remove_file(&file).unwrap();
        assert!(!kept.look(now));
        let second = SigningKey::load_or_create(&file, Algorithm::EdDsa).unwrap();
        assert!(kept.look(now) && !kept.look(now));
        assert_eq!(kept.current().id(), second.id());
        let signed = kept.client_assertion("support", authority, now).unwrap();
        verified(&second, &signed, authority).unwrap();
        assert!(verified(&first, &signed, authority).is_err());
        assert!(verified(&second, &signed, "https://other.example").is_err());
    }
}
