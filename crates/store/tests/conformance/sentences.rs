//! What holds of every database.

mod heads;
mod limits;
mod log;
mod once;
mod present;
mod registered;
mod served;
mod signed;
mod start;

pub(crate) use self::{heads::*, limits::*, log::*, once::*, present::*, registered::*, served::*, signed::*, start::*};
