//! What holds of every database.

mod charges;
mod heads;
mod joined;
mod known;
mod limits;
mod log;
mod once;
mod outages;
mod pinned;
mod present;
mod registered;
mod remembered;
mod served;
mod signed;
mod start;
mod upkeep;

pub(crate) use self::{
    charges::*, heads::*, joined::*, known::*, limits::*, log::*, once::*, outages::*, pinned::*, present::*,
    registered::*, remembered::*, served::*, signed::*, start::*, upkeep::*,
};
