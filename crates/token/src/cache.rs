//! Tokens that were verified before, by digest: a repeat call costs a hash and a lookup, not a signature.
//!
//! A hit proves only that the signature was good. Time, the sender's proof, the listener's setting and the key are
//! looked at again.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use model::Delegation;
use quick_cache::sync::Cache as Store;

use crate::{
    check::{sender::Binding, shape::Digest, time::Times},
    keys::Key,
};

pub(crate) struct Cache {
    store: Store<Digest, Entry>,
    /// How often tokens were forgotten on demand.
    evictions: AtomicU64,
}

/// How things stood before a token was looked at. What was found out since may be about a token that is to be
/// forgotten.
#[derive(Clone, Copy)]
pub(crate) struct Before(u64);

/// What is kept of a verified token.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) delegation: Arc<Delegation>,
    pub(crate) times: Times,
    pub(crate) binding: Binding,
    pub(crate) key: Arc<Key>,
    /// The key set that `key` was last seen in.
    pub(crate) generation: u64,
}

/// Signatures that were found good, each with the key that they were found good under. Of a token whose signature is among
/// them everything else is looked at all the same.
pub(crate) struct Signed(Store<Digest, Arc<Key>>);

/// The most signatures that are remembered.
const MAX_SIGNED: usize = 4096;

impl Signed {
    pub(crate) fn new() -> Self {
        Self(Store::new(MAX_SIGNED))
    }

    /// Whether the token's signature was found good under this very key, which its issuer has now.
    pub(crate) fn is_by(&self, digest: &Digest, key: &Arc<Key>) -> bool {
        self.0.get(digest).is_some_and(|by| Arc::ptr_eq(&by, key))
    }

    pub(crate) fn keep(&self, digest: Digest, key: Arc<Key>) {
        self.0.insert(digest, key);
    }
}

impl Cache {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { store: Store::new(capacity.max(1)), evictions: AtomicU64::new(0) }
    }

    /// To be asked before a token is looked at that may be kept then.
    pub(crate) fn before(&self) -> Before {
        Before(self.evictions.load(Ordering::SeqCst))
    }

    pub(crate) fn find(&self, digest: &Digest) -> Option<Entry> {
        self.store.get(digest)
    }

    /// Keeps what was found out since `before`, unless tokens were forgotten meanwhile.
    pub(crate) fn keep(&self, digest: Digest, entry: Entry, before: Before) {
        self.store.insert(digest, entry);
        // In this order: whoever forgets counts first and looks then, and one of both sees the other.
        if self.before().0 != before.0 {
            self.store.remove(&digest);
        }
    }

    pub(crate) fn drop_one(&self, digest: &Digest) {
        self.store.remove(digest);
    }

    pub(crate) fn evict(&self, predicate: impl Fn(&Delegation) -> bool) {
        self.evictions.fetch_add(1, Ordering::SeqCst);
        self.store.retain(|_, entry| !predicate(&entry.delegation));
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.store.len()
    }
}
