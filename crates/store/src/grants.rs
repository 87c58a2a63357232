//! Users' grants by id.

use model::{Grant, Id};

use crate::{Store, StoreError};

impl Store {
    /// The grant called `id`, expired or not.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn grant(&self, id: &Id<Grant>) -> Result<Option<Grant>, StoreError> {
        Ok(self.declared.grants.get(id).cloned())
    }
}
