//! What is asked about is as old as what it is known from: tools whose actions came from a bundle.

use std::{collections::BTreeSet, sync::Arc};

use model::{Id, Tool};

use super::Engine;
use crate::refresh::Freshness;

impl Engine {
    /// The same policies, of which what is asked about `tools` is refused too where the bundle `name`, which says their
    /// actions, grows too old.
    #[must_use]
    pub fn expiring_with(mut self, name: &str, tools: &BTreeSet<Id<Tool>>, freshness: &Arc<Freshness>) -> Self {
        for (_, asked) in self.tools.iter_mut().filter(|(tool, _)| tools.contains(*tool)) {
            asked.freshness.push((name.to_owned(), Arc::clone(freshness)));
        }
        self
    }
}
