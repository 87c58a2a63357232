//! Doors that anybody may knock at before they have shown who they are: how often from one place, and how many at once.
//! Whoever floods one locks out their own place, and takes no room from those who are known.

use std::sync::Arc;

use jiff::Timestamp;
use net::{Peer, Sharer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::{
    problem::{Code, Problem},
    quota::Quotas,
};

/// Attempts to join from one place in a second, over a while: a sidecar joins once.
const JOINS_PER_SECOND: u32 = 5;
/// Attempts to join that go on at once.
const JOIN_AT_ONCE: usize = 32;
/// What one place may tell of in a second, over a while: an identity provider tells of each logout from one address.
const TOLD_PER_SECOND: u32 = 50;
/// What is told of at once.
const TELL_AT_ONCE: usize = 64;

/// One door.
#[derive(Debug)]
pub(crate) struct Door {
    room: Arc<Semaphore>,
    quotas: Quotas<Sharer>,
}

/// The doors of an authority.
#[derive(Debug)]
pub(crate) struct Doors {
    /// Where sidecars join.
    pub(crate) joining: Door,
    /// Where identity providers tell of logouts.
    pub(crate) logouts: Door,
    /// Where security events are pushed to.
    pub(crate) events: Door,
}

impl Default for Doors {
    fn default() -> Self {
        Self {
            joining: Door::new(JOIN_AT_ONCE, JOINS_PER_SECOND),
            logouts: Door::new(TELL_AT_ONCE, TOLD_PER_SECOND),
            events: Door::new(TELL_AT_ONCE, TOLD_PER_SECOND),
        }
    }
}

impl Door {
    fn new(at_once: usize, per_second: u32) -> Self {
        Self { room: Arc::new(Semaphore::new(at_once)), quotas: Quotas::new(per_second) }
    }

    /// Lets `peer` in for as long as the answer is held.
    pub(crate) fn enter(&self, peer: &Peer, now: Timestamp) -> Result<OwnedSemaphorePermit, Problem> {
        let full = |_| Problem::new(Code::Overloaded, "Too many requests are under way; try again in a moment.");
        let room = Arc::clone(&self.room).try_acquire_owned().map_err(full)?;
        let often = |seconds| Problem::new(Code::TooMany, "There are too many attempts from there.").after(seconds);
        self.quotas.take(Sharer::of(peer), now).map_err(often)?;
        Ok(room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_from_one_place_keeps_nobody_else_out_and_too_many_at_once_keep_out_all() {
        let door = Door::new(2, 1);
        let now = Timestamp::from_second(1).unwrap();
        let peer = |last| Peer::tcp(([192, 0, 2, last], 1).into());
        for _ in 0..4 {
            assert!(door.enter(&peer(1), now).is_ok());
        }
        assert_eq!(door.enter(&peer(1), now).unwrap_err().code(), "too_many_requests");
        let (one, two) = (door.enter(&peer(2), now), door.enter(&peer(3), now));
        assert!(one.is_ok() && two.is_ok());
        assert_eq!(door.enter(&peer(4), now).unwrap_err().code(), "overloaded");
        drop(one);
        assert!(door.enter(&peer(4), now).is_ok());
    }
}
