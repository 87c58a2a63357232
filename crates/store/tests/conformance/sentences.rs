//! What holds of every database.

mod log;
mod once;
mod present;
mod registered;
mod served;
mod start;

pub(crate) use self::{log::*, once::*, present::*, registered::*, served::*, start::*};
