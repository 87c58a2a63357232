//! A call under an idempotency key is charged once, whichever sidecars it comes to: the authority is told of each such
//! charge, and says where the same call was charged before.
//!
//! First it is charged here, then that is told. Whoever is killed in between has spent it; what is not told, because the
//! authority does not answer, may be charged again elsewhere. Neither is ever too little.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use model::{Id, id::DecisionMark};
use opentelemetry::{global, metrics::Counter};
use store::remote::{
    charges::{ChargeAnswer, ChargeRequest, ChargeStep},
    limits::NotLeased,
};
use tokio::sync::{Semaphore, mpsc};

use super::{
    charge::{Asked, Bound, Charge},
    repeats::Repeat,
    slices::Limits,
};

/// How many charges may wait to be taken back. Those that find no place are spent.
const WAITING: usize = 1_024;
/// How many of them are told of at a time.
const TOGETHER: usize = 32;
/// How many calls that are over a limit may ask at a time whether they were charged elsewhere.
const LOOKING: usize = 32;
/// How long nobody asks where the authority just did not answer.
const UNHEARD: Duration = Duration::from_secs(1);

/// Who tells the authority of a charge, and what.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) request: ChargeRequest,
    waiting: mpsc::Sender<Bound>,
}

impl Told {
    /// It was not sent: the authority is told, and then it is given back.
    pub(super) fn release(&self, bound: Bound) {
        // Without a place it is dropped, and so spent.
        if self.waiting.try_send(bound).is_err() {
            tracing::debug!("too many charges are taken back at once: one of them stays");
        }
    }
}

/// What there is between calls and the authority.
#[derive(Debug)]
pub(super) struct Once {
    waiting: mpsc::Sender<Bound>,
    taken_back: Mutex<Option<mpsc::Receiver<Bound>>>,
    looking: Semaphore,
    /// Until when nobody asks, by [`net::clock::boottime`].
    quiet: Mutex<Duration>,
    untold: Counter<u64>,
}

impl Once {
    pub(super) fn new() -> Self {
        let (waiting, taken_back) = mpsc::channel(WAITING);
        let untold = global::meter("countersign")
            .u64_counter("countersign_charges_untold")
            .with_description(
                "Calls under an idempotency key that were charged without the authority being told, so that they may be charged again by another sidecar",
            )
            .build();
        Self {
            waiting,
            taken_back: Mutex::new(Some(taken_back)),
            looking: Semaphore::new(LOOKING),
            quiet: Mutex::default(),
            untold,
        }
    }

    /// Who tells of a charge.
    pub(super) fn told(&self, request: ChargeRequest) -> Told {
        Told { request, waiting: self.waiting.clone() }
    }

    /// The charges that are to be taken back, for the one who does that.
    pub(super) fn taken_back(&self) -> Option<mpsc::Receiver<Bound>> {
        self.taken_back.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_quiet(&self) -> bool {
        net::clock::boottime() < *self.quiet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unheard(&self) {
        *self.quiet.lock().unwrap_or_else(PoisonError::into_inner) = net::clock::boottime() + UNHEARD;
    }
}

impl Limits {
    /// Tells the authority of a charge, and takes its word of whether the call was charged before.
    pub(super) async fn tell(&self, asked: Asked, repeat: &Repeat) {
        let Some(request) = asked.request().filter(|_| !self.once.is_quiet()) else {
            self.once.untold.add(1, &[]);
            asked.untold();
            return;
        };
        match (self.leasing.charge)(request.clone()).await {
            Ok(ChargeAnswer { charged: Some(decision), seconds }) => {
                if !asked.charged(&decision) {
                    self.repeats.lasts(repeat, Duration::from_secs(seconds));
                }
            }
            Err(error) => {
                self.once.untold.add(1, &[]);
                self.not_told(&error);
                // What it refused it did not do.
                if matches!(error, NotLeased::Unauthorised(_)) || is_refusal(&error) {
                    asked.untold();
                }
            }
            // That is no answer to this.
            Ok(ChargeAnswer { charged: None, .. }) => {}
        }
    }

    /// The charge of a call that is over a limit here, where it was charged elsewhere.
    pub(super) async fn charged_elsewhere(&self, repeat: &Repeat, request: ChargeRequest) -> Option<Charge> {
        let _place = self.once.looking.try_acquire().ok().filter(|_| !self.once.is_quiet())?;
        match (self.leasing.charge)(ChargeRequest { step: ChargeStep::Repeat, ..request }).await {
            Ok(ChargeAnswer { charged: Some(decision), seconds }) => {
                self.repeats.elsewhere(repeat, decision, Duration::from_secs(seconds))
            }
            Ok(ChargeAnswer { charged: None, .. }) => None,
            Err(error) => {
                self.not_told(&error);
                None
            }
        }
    }

    fn not_told(&self, error: &NotLeased) {
        tracing::debug!(%error, "the authority does not know of a charge");
        if !is_refusal(error) {
            self.once.unheard();
        }
    }

    /// Gives `bound` back, and what waits behind it, as far as the authority says that nobody goes on it.
    pub(super) async fn take_back(&self, bound: Bound, waiting: &mut mpsc::Receiver<Bound>) {
        let mut together = vec![bound];
        while together.len() < TOGETHER
            && let Ok(next) = waiting.try_recv()
        {
            together.push(next);
        }
        futures_util::future::join_all(together.into_iter().map(|bound| self.take_one_back(bound))).await;
    }

    async fn take_one_back(&self, bound: Bound) {
        if self.once.is_quiet() {
            return;
        }
        let request = ChargeRequest { step: ChargeStep::Release, ..bound.request.clone() };
        match (self.leasing.charge)(request).await {
            Ok(ChargeAnswer { charged: None, .. }) => bound.give_back(),
            Ok(ChargeAnswer { charged: Some(_), .. }) => {}
            Err(error) => self.not_told(&error),
        }
    }
}

/// Whether the authority answered, and did nothing.
fn is_refusal(error: &NotLeased) -> bool {
    matches!(error, NotLeased::Refused { status, .. } if status.is_client_error())
}

/// What the authority is told of a call: without a lease, what it would be charged.
pub(super) fn request(
    permit: &crate::approve::Permit<'_>,
    repeat: &Repeat,
    limits: Vec<store::remote::charges::ChargedTo>,
) -> ChargeRequest {
    let question = permit.question();
    let decision: Id<DecisionMark> = question.id.clone();
    ChargeRequest {
        step: ChargeStep::Charge,
        tenant: question.delegation.tenant.clone(),
        digest: repeat.iter().map(|byte| format!("{byte:02x}")).collect(),
        decision,
        limits,
    }
}

#[cfg(test)]
mod tests;
