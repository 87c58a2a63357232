//! Calls as they happen, for whoever listens at the operator's socket: stage by stage, with whom and what they are about,
//! the path, the resource and what the agent was told; nothing of tokens, queries, header fields or bodies. Where nobody
//! listens, a call costs one look at a number.

mod told;

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use model::{Id, Principal, id::DecisionMark};
use serde::Deserialize;
use tokio::sync::mpsc;

pub(crate) use told::{Left, Told};

/// The most that listen at once.
const MAX_LISTENERS: usize = 8;
/// The most calls that one of them may ask for.
const MAX_CALLS: u32 = 10_000;
/// Lines that wait for one of them. Whoever reads slower is dropped, and told so.
const QUEUE: usize = 256;
/// What it is told.
const DROPPED: &[u8] = b"{\"event\":\"dropped\",\"why\":\"it was read too slowly\"}\n";

/// Who listens.
#[derive(Debug, Default)]
pub struct Live {
    listening: AtomicUsize,
    listeners: Mutex<Vec<Arc<Listener>>>,
}

/// Which calls somebody wants to see. Every member that is set must match.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// An action.
    #[serde(default)]
    pub action: Option<String>,
    /// A user: the id, or as records show it (`user:alice@acme`, `alice@acme`).
    #[serde(default)]
    pub user: Option<String>,
    /// An agent that acts anywhere in the chain, likewise.
    #[serde(default)]
    pub agent: Option<String>,
    /// A run.
    #[serde(default)]
    pub run: Option<String>,
    /// The code of a refusal. What was before it is told at the end.
    #[serde(default)]
    pub code: Option<String>,
}

/// Why nobody else may listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_LISTENERS} listen already")]
pub struct TooMany;

/// What one listener asked for, and where its lines go. Once every call has let go of it there are no more.
#[derive(Debug)]
struct Listener {
    wanted: Wanted,
    /// How many calls it may still be shown.
    left: AtomicU32,
    lines: mpsc::Sender<Bytes>,
    /// It read too slowly.
    lost: Arc<AtomicBool>,
}

/// The lines of calls, one JSON object each, as they come. Nothing is told any more once it is dropped.
#[derive(Debug)]
pub struct Listening {
    live: Arc<Live>,
    listener: Weak<Listener>,
    lost: Arc<AtomicBool>,
    lines: mpsc::Receiver<Bytes>,
    ended: bool,
}

impl Live {
    /// Listens for the next `calls` that are `wanted`.
    ///
    /// # Errors
    /// Where too many listen already.
    pub fn listen(self: &Arc<Self>, wanted: Wanted, calls: u32) -> Result<Listening, TooMany> {
        let (sender, lines) = mpsc::channel(QUEUE);
        let (left, lost) = (AtomicU32::new(calls.clamp(1, MAX_CALLS)), Arc::new(AtomicBool::new(false)));
        let listener = Arc::new(Listener { wanted, left, lines: sender, lost: Arc::clone(&lost) });
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners.len() >= MAX_LISTENERS {
            return Err(TooMany);
        }
        let weak = Arc::downgrade(&listener);
        listeners.push(listener);
        self.listening.store(listeners.len(), Ordering::Relaxed);
        Ok(Listening { live: Arc::clone(self), listener: weak, lost, lines, ended: false })
    }

    /// What is told of a call that begins now; `None` where nobody listens.
    pub(crate) fn begin(self: &Arc<Self>, id: &Id<DecisionMark>) -> Option<Box<Told>> {
        if self.listening.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Some(Box::new(Told::new(Arc::clone(self), id.clone(), listeners)))
    }

    /// No further call is told to `listener`.
    fn remove(&self, listener: *const Listener) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|known| Arc::as_ptr(known) != listener);
        self.listening.store(listeners.len(), Ordering::Relaxed);
    }
}

impl Listener {
    /// Whether one more call may be shown, which it then is.
    fn takes(&self, live: &Live) -> bool {
        let took = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if matches!(took, Ok(1)) {
            live.remove(self);
        }
        took.is_ok()
    }

    /// Hands `line` over; false where the listener is gone, or too slow.
    fn tell(&self, line: &Bytes, live: &Live) -> bool {
        match self.lines.try_send(line.clone()) {
            Ok(()) => true,
            Err(error) => {
                if matches!(error, mpsc::error::TrySendError::Full(_)) {
                    self.lost.store(true, Ordering::Relaxed);
                }
                live.remove(self);
                false
            }
        }
    }
}

impl Listening {
    /// The next line; `None` once all calls that were asked for have ended, or it was read too slowly, which the last
    /// line then says.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = self.lines.poll_recv(context);
        if let Poll::Ready(Some(line)) = next {
            return Poll::Ready(Some(line));
        }
        // What was told before it fell behind has been read by now.
        if self.lost.load(Ordering::Relaxed) {
            self.ended = true;
            return Poll::Ready(Some(Bytes::from_static(DROPPED)));
        }
        next
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.live.remove(self.listener.as_ptr());
    }
}

/// What is known of a call that listeners ask for.
#[derive(Debug, Default)]
struct Known {
    user: Option<Principal>,
    agents: Vec<Principal>,
    run: Option<String>,
    action: Option<String>,
    code: Option<&'static str>,
    /// Nothing more will be known.
    decided: bool,
}

impl Wanted {
    /// Whether the call is wanted; `None` where that depends on what is not known yet.
    fn matches(&self, known: &Known) -> Option<bool> {
        let text = |wanted: &Option<String>, known: Option<&str>| match (wanted, known) {
            (None, _) => Some(true),
            (Some(wanted), Some(known)) => Some(wanted == known),
            (Some(_), None) => None,
        };
        let named = |wanted: &Option<String>, known: &[Principal]| match wanted {
            None => Some(true),
            Some(_) if known.is_empty() => None,
            Some(wanted) => Some(known.iter().any(|principal| goes_by(principal, wanted))),
        };
        let answers = [
            text(&self.action, known.action.as_deref()),
            text(&self.run, known.run.as_deref()),
            named(&self.user, known.user.as_slice()),
            named(&self.agent, &known.agents),
            text(&self.code, known.code),
        ];
        if answers.contains(&Some(false)) {
            return Some(false);
        }
        if answers.contains(&None) { known.decided.then_some(false) } else { Some(true) }
    }
}

fn goes_by(principal: &Principal, wanted: &str) -> bool {
    let shown = principal.to_string();
    principal.id.as_str() == wanted || shown == wanted || shown.split_once(':').is_some_and(|(_, rest)| rest == wanted)
}

#[cfg(test)]
mod tests;
