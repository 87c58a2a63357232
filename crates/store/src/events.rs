//! What somebody else tells of and is heard once: its effect and the memory of it are one transaction, so that nothing is
//! lost when it is told again after a failure, and nothing happens twice.

use model::withdrawal::{Cause, Target, Withdrawal};

use crate::{
    Store,
    error::StoreError,
    sidecars::Evidence,
    single_use,
    writing::{Begun, Committed, Writer},
};

impl Store {
    /// Withdraws `targets` as [`Store::withdraw`] does, if `space` has not been told `once` before. `None` where it has.
    ///
    /// # Errors
    /// When the database does not answer; then neither holds.
    pub async fn withdraw_once(
        &self,
        writer: &Writer,
        targets: &[Target],
        space: &str,
        once: &Evidence,
    ) -> Result<Option<Committed<Vec<Withdrawal>>>, StoreError> {
        let mut writing = match self.write("withdrawing what was told of", writer, &targets).await? {
            Begun::Answered(answer) => return Ok(Some(answer)),
            Begun::Open(writing) => writing,
        };
        if !single_use::insert_one(&mut writing.transaction, space, &once.id, once.until).await? {
            return Ok(None);
        }
        let mut withdrawn = Vec::with_capacity(targets.len());
        for target in targets {
            let tenant = writing.only_tenant(target).await?;
            writing.end(target).await?;
            withdrawn.push(writing.withdraw(target.clone(), Cause::Withdrawn, tenant.as_ref()).await?);
        }
        writing.commit(withdrawn).await.map(Some)
    }
}
