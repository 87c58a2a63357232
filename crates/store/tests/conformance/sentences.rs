//! What holds of every database.

mod log;
mod once;
mod registered;
mod served;
mod start;

pub(crate) use self::{log::*, once::*, registered::*, served::*, start::*};
