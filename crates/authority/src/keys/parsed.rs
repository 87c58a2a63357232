//! Agents' key sets, parsed once: the same text is the same keys, whoever registered it and wherever it was read.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use model::Agent;
use token::KeySet;

use crate::client::algorithms;

/// The most key sets that are remembered. Of more, what is remembered is begun anew.
const MAX_KEPT: usize = 1024;

/// Parsed key sets, by the digest of their text.
#[derive(Debug, Default)]
pub(crate) struct KeySets(Mutex<HashMap<[u8; SHA256_OUTPUT_LEN], Arc<KeySet>>>);

impl KeySets {
    /// The keys in `document`, a JWKS that is registered for `agent`; none, where it is none, which is said in the log.
    pub(crate) fn of(&self, agent: &Agent, document: &str) -> Option<Arc<KeySet>> {
        let text = digest(&SHA256, document.as_bytes()).as_ref().try_into().ok()?;
        if let Some(known) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&text) {
            return Some(Arc::clone(known));
        }
        let keys = match KeySet::parse(document.as_bytes(), &algorithms()) {
            Ok(keys) => Arc::new(keys),
            Err(error) => {
                tracing::error!(agent = %agent.id, %error, "a registered key set cannot be used");
                return None;
            }
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KEPT {
            known.clear();
        }
        known.insert(text, Arc::clone(&keys));
        Some(keys)
    }
}
