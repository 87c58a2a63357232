//! What an engine is made of, for the one that takes its place: policies that did not change are not parsed again, and
//! data documents that did not change are not read again. Both are shared.

use std::sync::Arc;

use model::Catalogue;

use crate::{
    LoadError, Source,
    bundle::{Data, TextDigest},
    check::Compiled,
};

/// Policies and data documents that were read before, and whoever reads them again need not. By default none.
#[derive(Clone, Default)]
pub struct Known {
    compiled: Option<Arc<Compiled>>,
    /// What else they were held against.
    held_against: String,
    documents: Arc<[Data]>,
}

impl Known {
    pub(super) fn of(compiled: Arc<Compiled>, held_against: String, documents: Vec<Data>) -> Self {
        Self { compiled: Some(compiled), held_against, documents: documents.into() }
    }

    /// Whether `compiled` are these policies themselves, held against the same.
    pub(super) fn are(&self, compiled: &Arc<Compiled>, held_against: &str) -> bool {
        let same = self.compiled.as_ref().is_some_and(|known| Arc::ptr_eq(known, compiled));
        same && self.held_against == held_against
    }

    /// The policies of `sources`, where those are known; then they were checked against the data of `sources`.
    pub(super) fn compiled(
        &self,
        sources: &[Source],
        catalogue: &Catalogue,
    ) -> Result<Option<Arc<Compiled>>, LoadError> {
        let Some(compiled) = &self.compiled else { return Ok(None) };
        Ok(compiled.are_of(sources, Some(catalogue))?.then(|| Arc::clone(compiled)))
    }

    /// The document that was read from `read`.
    pub(crate) fn document(&self, read: TextDigest) -> Option<&Data> {
        self.documents.iter().find(|data| data.is_of(read))
    }
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Known").field("documents", &self.documents.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
