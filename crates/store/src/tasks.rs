//! Tasks by id.

use model::{Id, Task};

use crate::{Store, StoreError};

impl Store {
    /// The task called `id`, in whatever status it is.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn task(&self, id: &Id<Task>) -> Result<Option<Task>, StoreError> {
        Ok(self.declared.tasks.get(id).cloned())
    }
}
