//! What holds of every database.

mod heads;
mod log;
mod once;
mod present;
mod registered;
mod served;
mod start;

pub(crate) use self::{heads::*, log::*, once::*, present::*, registered::*, served::*, start::*};
