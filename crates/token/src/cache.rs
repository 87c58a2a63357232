//! Tokens that were verified before, by digest: a repeat call costs a hash and a lookup, not a signature.
//!
//! A hit proves only that the signature was good. Time, the sender's proof, the listener's setting and the key are
//! looked at again.

use std::sync::Arc;

use model::Delegation;
use quick_cache::sync::Cache as Store;

use crate::{
    check::{sender::Binding, shape::Digest, time::Times},
    keys::Key,
};

pub(crate) struct Cache {
    store: Store<Digest, Entry>,
}

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

impl Cache {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { store: Store::new(capacity.max(1)) }
    }

    pub(crate) fn find(&self, digest: &Digest) -> Option<Entry> {
        self.store.get(digest)
    }

    pub(crate) fn keep(&self, digest: Digest, entry: Entry) {
        self.store.insert(digest, entry);
    }

    pub(crate) fn drop_one(&self, digest: &Digest) {
        self.store.remove(digest);
    }

    pub(crate) fn evict(&self, predicate: impl Fn(&Delegation) -> bool) {
        self.store.retain(|_, entry| !predicate(&entry.delegation));
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.store.len()
    }
}
