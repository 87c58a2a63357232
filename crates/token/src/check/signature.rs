//! Key and signature: the algorithm the issuer is allowed, the key of that issuer for it, the exact bytes signed.

use std::sync::Arc;

use crate::{
    Algorithm, Issuer, KeySet,
    check::shape::{Header, Unverified},
    keys::{Key, NoKey},
    refusal::{Checked, unverified},
};

/// The header's algorithm, if this issuer signs with it. `none` and HMAC have no value here.
pub(crate) fn algorithm(header: &Header, issuer: &Issuer) -> Checked<Algorithm> {
    Algorithm::named(&header.algorithm)
        .filter(|algorithm| issuer.algorithms.contains(algorithm))
        .ok_or_else(|| unverified(format!("algorithm {:?} is not allowed for {}", header.algorithm, issuer.name)))
}

/// The issuer's key for the token. `None`: a newer key set might have it.
pub(crate) fn key(header: &Header, algorithm: Algorithm, keys: &KeySet) -> Checked<Option<Arc<Key>>> {
    match keys.find(header.kid.as_deref(), algorithm) {
        Ok(key) => Ok(Some(key)),
        Err(NoKey::Unknown) => Ok(None),
        Err(NoKey::OtherAlgorithm) => Err(unverified(format!("the key named is not one for {algorithm}"))),
        Err(NoKey::Ambiguous) => {
            Err(unverified(format!("several keys for {algorithm} would do, `kid` has to say which")))
        }
    }
}

pub(crate) fn check(token: &Unverified<'_>, key: &Key) -> Checked<()> {
    if key.verifies(token.signature, token.signed) {
        return Ok(());
    }
    Err(unverified(format!("the signature is not that of key {:?} over these bytes", key.id)))
}
