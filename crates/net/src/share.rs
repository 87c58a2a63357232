//! Sharing out what there is only so much of: a total, and of it a share that no single holder can exceed, so that
//! whoever takes all they can leaves something for the others. Nothing is remembered of holders that hold nothing.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::peer::{Peer, PeerAddress, PeerIdentity};

/// Who counts as one where something is shared out between peers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Sharer {
    /// A user of this machine.
    User(u32),
    /// Whoever a client certificate names, from wherever.
    Certificate(PeerIdentity),
    /// An IPv4 address, or the /64 network of an IPv6 address: one host has all of those.
    Network(IpAddr),
}

impl Sharer {
    /// Who `peer` counts as: the name in its certificate, or else where it comes from.
    #[must_use]
    pub fn of(peer: &Peer) -> Self {
        match peer.certificate.as_ref().map(|certificate| &certificate.identity) {
            // Who signs their own makes as many as they like.
            None | Some(PeerIdentity::SelfSigned) => Self::at(&peer.address),
            Some(named) => Self::Certificate(named.clone()),
        }
    }

    /// Who connections from `address` count as before anything else is known.
    #[must_use]
    pub fn at(address: &PeerAddress) -> Self {
        match address {
            PeerAddress::Unix(credentials) => Self::User(credentials.uid),
            PeerAddress::Tcp(address) => Self::Network(match address.ip().to_canonical() {
                IpAddr::V4(address) => IpAddr::V4(address),
                IpAddr::V6(address) => {
                    let [a, b, c, d, ..] = address.segments();
                    IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
                }
            }),
        }
    }
}

/// Something that is shared out between holders told apart by `K`. Clones share the same total.
pub struct Shares<K>(Arc<Inner<K>>);

struct Inner<K> {
    size: usize,
    each: usize,
    total: Arc<Semaphore>,
    /// Only of holders that hold something, or wait for it.
    holders: Mutex<HashMap<K, Weak<Semaphore>>>,
}

/// Why there is nothing to be had now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// All of it is taken.
    #[error("all of it is taken")]
    Total,
    /// The holder has its whole share.
    #[error("the holder has its whole share")]
    Share,
}

impl<K: Clone + Eq + Hash> Shares<K> {
    /// `total` units, of which one holder may have `each` at most.
    #[must_use]
    pub fn new(total: usize, each: usize) -> Self {
        let size = total.min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Inner {
            size,
            each: each.min(size),
            total: Arc::new(Semaphore::new(size)),
            holders: Mutex::default(),
        }))
    }

    /// Units that somebody has now.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.0.size - self.0.total.available_permits().min(self.0.size)
    }

    /// Takes `units` for `holder`, or nothing.
    ///
    /// # Errors
    /// When there are not so many left.
    pub fn try_take(&self, holder: K, units: u32) -> Result<Place<K>, Full> {
        let all = Arc::clone(&self.0.total).try_acquire_many_owned(units).map_err(|_| Full::Total)?;
        self.place(all, holder, units)
    }

    /// One unit for `holder`, once there is one. Whoever waits for its own share keeps nobody else waiting.
    pub async fn take(&self, holder: K) -> Option<Place<K>> {
        let share = self.share_of(&holder);
        let mut waiting = Place { all: None, own: None, holder, shares: Arc::clone(&self.0) };
        waiting.own = share.acquire_owned().await.ok();
        waiting.all = Arc::clone(&self.0.total).acquire_owned().await.ok();
        (waiting.own.is_some() && waiting.all.is_some()).then_some(waiting)
    }

    /// One unit, once there is one, for a holder that is not known yet.
    pub async fn room(&self) -> Option<Room<K>> {
        let all = Arc::clone(&self.0.total).acquire_owned().await.ok()?;
        Some(Room { all, shares: self.clone() })
    }

    fn place(&self, all: OwnedSemaphorePermit, holder: K, units: u32) -> Result<Place<K>, Full> {
        let own = self.share_of(&holder).try_acquire_many_owned(units);
        // Made in any case: it is what forgets the holder.
        let place = Place { all: Some(all), own: own.ok(), holder, shares: Arc::clone(&self.0) };
        if place.own.is_some() { Ok(place) } else { Err(Full::Share) }
    }

    fn share_of(&self, holder: &K) -> Arc<Semaphore> {
        let mut holders = self.0.holders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = holders.get(holder).and_then(Weak::upgrade) {
            return share;
        }
        let share = Arc::new(Semaphore::new(self.0.each));
        holders.insert(holder.clone(), Arc::downgrade(&share));
        share
    }

    #[cfg(test)]
    pub(crate) fn holders(&self) -> usize {
        self.0.holders.lock().unwrap().len()
    }
}

/// One unit of the total that is nobody's yet.
pub struct Room<K> {
    all: OwnedSemaphorePermit,
    shares: Shares<K>,
}

impl<K: Clone + Eq + Hash> Room<K> {
    /// Makes it `holder`'s.
    ///
    /// # Errors
    /// When the holder has its whole share.
    pub fn give(self, holder: K) -> Result<Place<K>, Full> {
        self.shares.place(self.all, holder, 1)
    }
}

/// What a holder has; given back when dropped.
pub struct Place<K: Eq + Hash> {
    all: Option<OwnedSemaphorePermit>,
    own: Option<OwnedSemaphorePermit>,
    holder: K,
    shares: Arc<Inner<K>>,
}

impl<K: Eq + Hash> Place<K> {
    /// Takes `units` more for the same holder, or nothing.
    ///
    /// # Errors
    /// When there are not so many left.
    pub fn try_grow(&mut self, units: u32) -> Result<(), Full> {
        let (Some(all), Some(own)) = (&mut self.all, &mut self.own) else { return Err(Full::Total) };
        let more = Arc::clone(all.semaphore()).try_acquire_many_owned(units).map_err(|_| Full::Total)?;
        let more_own = Arc::clone(own.semaphore()).try_acquire_many_owned(units).map_err(|_| Full::Share)?;
        all.merge(more);
        own.merge(more_own);
        Ok(())
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        self.all = None;
        self.own = None;
        let mut holders = self.shares.holders.lock().unwrap_or_else(PoisonError::into_inner);
        if holders.get(&self.holder).is_some_and(|share| share.strong_count() == 0) {
            holders.remove(&self.holder);
        }
    }
}

impl<K> Clone for Shares<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> fmt::Debug for Shares<K> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self.0.total.available_permits();
        formatter.debug_struct("Shares").field("size", &self.0.size).field("left", &left).finish_non_exhaustive()
    }
}

impl<K: Eq + Hash> fmt::Debug for Place<K> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = self.own.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        formatter.debug_struct("Place").field("units", &units).finish_non_exhaustive()
    }
}

impl<K> fmt::Debug for Room<K> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Room").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::PeerCredentials;

    #[test]
    fn nobody_has_more_than_a_share_and_all_together_no_more_than_the_total() {
        let shares = Shares::new(4, 3);
        let greedy: Vec<_> = (0..3).map(|_| shares.try_take("greedy", 1).unwrap()).collect();
        assert_eq!(shares.try_take("greedy", 1).unwrap_err(), Full::Share);
        assert_eq!(shares.taken(), 3, "what could not be given is not taken either");
        let modest = shares.try_take("modest", 1).unwrap();
        assert_eq!(shares.try_take("late", 1).unwrap_err(), Full::Total);
        drop(modest);
        assert!(shares.try_take("late", 1).is_ok());
        drop(greedy);
        assert_eq!((shares.taken(), shares.holders()), (0, 0), "whoever holds nothing is forgotten");
    }

    #[test]
    fn what_is_held_can_grow_up_to_the_share_and_goes_back_whole() {
        let shares = Shares::new(100, 60);
        let mut place = shares.try_take(1, 0).unwrap();
        place.try_grow(50).unwrap();
        assert_eq!(place.try_grow(11), Err(Full::Share));
        assert_eq!(shares.taken(), 50);
        let mut other = shares.try_take(2, 45).unwrap();
        assert_eq!(other.try_grow(6), Err(Full::Total));
        drop(place);
        other.try_grow(6).unwrap();
        assert_eq!((shares.taken(), shares.holders()), (51, 1));
    }

    #[tokio::test]
    async fn whoever_waits_for_its_share_keeps_nobody_else_waiting() {
        let shares = Shares::new(3, 2);
        let mut first = vec![shares.take("greedy").await.unwrap(), shares.take("greedy").await.unwrap()];
        let mut waiting = Box::pin(shares.take("greedy"));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        let other = shares.take("modest").await.unwrap();
        first.pop();
        assert!(waiting.await.is_some());
        drop((first, other));
        assert_eq!((shares.taken(), shares.holders()), (0, 0));
    }

    #[tokio::test]
    async fn room_is_waited_for_before_it_is_known_for_whom() {
        let shares = Shares::new(2, 1);
        let one = shares.room().await.unwrap().give("a").unwrap();
        assert_eq!(shares.room().await.unwrap().give("a").unwrap_err(), Full::Share);
        let two = shares.room().await.unwrap().give("b").unwrap();
        let mut third = Box::pin(shares.room());
        assert!(futures_util::poll!(&mut third).is_pending());
        drop(one);
        assert!(third.await.is_some());
        drop(two);
    }

    #[test]
    fn addresses_of_one_host_count_as_one() {
        let at = |address: &str| Sharer::at(&PeerAddress::Tcp(address.parse::<SocketAddr>().unwrap()));
        assert_eq!(at("10.0.0.1:1"), at("10.0.0.1:2"));
        assert_eq!(at("10.0.0.1:1"), at("[::ffff:10.0.0.1]:2"));
        assert_ne!(at("10.0.0.1:1"), at("10.0.0.2:1"));
        assert_eq!(at("[2001:db8:1:2::1]:1"), at("[2001:db8:1:2:ffff::9]:1"));
        assert_ne!(at("[2001:db8:1:2::1]:1"), at("[2001:db8:1:3::1]:1"));
        let user = |uid| Sharer::at(&PeerAddress::Unix(PeerCredentials { uid, gid: 1, pid: None }));
        assert!(user(1) == user(1) && user(1) != user(2));
    }
}
