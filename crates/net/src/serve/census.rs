//! What comes and goes at a listener, counted for whoever wants to know.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The counts of one listener. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Census(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicUsize,
    handshakes: AtomicUsize,
    refused: AtomicU64,
    unshaken: AtomicU64,
    stalled: AtomicU64,
}

impl Census {
    /// Connections that are open now, those that still shake hands among them.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.connections.load(Ordering::Relaxed)
    }

    /// TLS handshakes in progress now.
    #[must_use]
    pub fn handshakes(&self) -> usize {
        self.0.handshakes.load(Ordering::Relaxed)
    }

    /// Connections that were closed at once because their peer had its share.
    #[must_use]
    pub fn connections_refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// TLS handshakes that failed or took too long.
    #[must_use]
    pub fn handshakes_failed(&self) -> u64 {
        self.0.unshaken.load(Ordering::Relaxed)
    }

    /// HTTP/2 streams that were reset because their peer gave no window.
    #[must_use]
    pub fn streams_stalled(&self) -> u64 {
        self.0.stalled.load(Ordering::Relaxed)
    }

    pub(super) fn connection(&self) -> Counted {
        self.0.connections.fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(&self.0), |counts| &counts.connections)
    }

    pub(super) fn handshake(&self) -> Counted {
        self.0.handshakes.fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(&self.0), |counts| &counts.handshakes)
    }

    pub(super) fn refused(&self) {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn unshaken(&self) {
        self.0.unshaken.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stalled(&self) {
        self.0.stalled.fetch_add(1, Ordering::Relaxed);
    }
}

/// One that is there until dropped.
pub(super) struct Counted(Arc<Counts>, fn(&Counts) -> &AtomicUsize);

impl Drop for Counted {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::Relaxed);
    }
}
