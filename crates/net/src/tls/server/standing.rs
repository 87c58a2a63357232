//! Whether the client certificate of an open connection is still good: it is looked at again when it ends, and when
//! the authorities change. A handshake proves it for one moment only, and connections live long.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::{CertificateDer, UnixTime};

use super::{ServerTls, State};
use crate::clock;
use crate::tls::files::end;

/// Between two looks at the clock: it may be set, or run on while the machine sleeps.
const LOOK: Duration = Duration::from_secs(30);

/// The client certificate of one connection.
#[derive(Debug)]
pub(crate) struct Standing {
    tls: Arc<ServerTls>,
    /// The client's own certificate, and then those that lead to an authority.
    chain: Vec<CertificateDer<'static>>,
    known: Mutex<Known>,
}

/// What the last look found.
#[derive(Debug)]
struct Known {
    /// What was in force then.
    by: Arc<State>,
    /// The last moment of which it holds; `None` once it was found to be no good.
    until: Option<Timestamp>,
}

impl Standing {
    pub(super) fn new(tls: Arc<ServerTls>, by: Arc<State>, chain: Vec<CertificateDer<'static>>) -> Self {
        let until = Some(next_end(&chain, clock::now()));
        Self { tls, chain, known: Mutex::new(Known { by, until }) }
    }

    /// Whether it is good at `now`.
    pub(crate) fn holds(&self, now: Timestamp) -> bool {
        let current = self.tls.current.load();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(until) = known.until else { return false };
        if now <= until && Arc::ptr_eq(&known.by, &current) {
            return true;
        }
        let good = self.is_believed(&current, now);
        *known = Known { by: Arc::clone(&current), until: good.then(|| next_end(&self.chain, now)) };
        good
    }

    /// Returns once it is no longer good.
    pub(crate) async fn over(&self) {
        let mut changes = self.tls.changes.subscribe();
        loop {
            let now = clock::now();
            if !self.holds(now) {
                return;
            }
            let until = self.known.lock().unwrap_or_else(PoisonError::into_inner).until;
            let left = until.map_or(SignedDuration::ZERO, |until| until.duration_since(now));
            // It holds until the end of that second.
            let left = Duration::try_from(left).unwrap_or_default() + Duration::from_millis(1);
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(left.min(LOOK)) => {}
            }
        }
    }

    fn is_believed(&self, state: &State, now: Timestamp) -> bool {
        let (Some(clients), Some((leaf, intermediates))) = (&state.clients, self.chain.split_first()) else {
            return false;
        };
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        match clients.believed(leaf, intermediates, UnixTime::since_unix_epoch(Duration::from_secs(seconds))) {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(%error, "the client certificate of an open connection is no longer good");
                false
            }
        }
    }
}

/// The last moment before the next of these certificates ends. One that nobody needed may have ended before.
fn next_end(chain: &[CertificateDer<'_>], now: Timestamp) -> Timestamp {
    let ends = chain.iter().filter_map(|certificate| end(certificate));
    ends.filter(|end| *end >= now).min().unwrap_or(now)
}
