//! Telling whoever has to be told of a call: a record that is an alert, which goes to the channel beside it. The call
//! waits for none of it, and no more than so many wait to be told.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use audit::{Event, record::Notice};
use model::{Decision, Duty, Obligation, obligation::Notification};
use tokio::sync::Semaphore;

use crate::{sidecar::Sidecar, trail::Trail};

/// The channel that is always there: where alerts go.
const ALERTS: &str = "alerts";
/// How many notices may wait for the ledger at once.
const MOST: usize = 256;

/// Who can be told.
#[derive(Debug)]
pub(crate) struct Notices {
    channels: BTreeSet<String>,
    room: Arc<Semaphore>,
    lost: AtomicU64,
}

impl Notices {
    /// The `channels` that are configured, beside the one that is always there.
    pub(crate) fn new(mut channels: BTreeSet<String>) -> Self {
        channels.insert(ALERTS.to_owned());
        Self { channels, room: Arc::new(Semaphore::new(MOST)), lost: AtomicU64::new(0) }
    }

    /// How many could not be told.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// The channel of `obligation` where there is none of that name.
    pub(crate) fn unknown<'a>(&self, obligation: &'a Obligation) -> Option<&'a str> {
        match &obligation.duty {
            Duty::Notify(notification) if !self.channels.contains(&notification.channel) => Some(&notification.channel),
            _ => None,
        }
    }
}

/// Tells what `decision` obliges to tell. Never waits.
pub(crate) fn tell(sidecar: &Arc<Sidecar>, decision: &Decision, trail: &Trail) {
    for Obligation { code, source, duty, .. } in &decision.obligations {
        let Duty::Notify(Notification { channel, message }) = duty else { continue };
        let notices = &sidecar.notices;
        let Ok(room) = Arc::clone(&notices.room).try_acquire_owned() else {
            notices.lost.fetch_add(1, Ordering::Relaxed);
            if let Some(lines) = sidecar.quiet.due("notice lost") {
                let (decision_id, suppressed) = (&trail.arrival.id, lines - 1);
                tracing::warn!(%decision_id, channel, suppressed, "too many notices wait to be told; this one is not");
            }
            continue;
        };
        let delegation = trail.delegation.as_deref();
        let known = trail.known();
        let notice = Event::Notice(Box::new(Notice {
            call: trail.arrival.id.clone(),
            channel: channel.clone(),
            message: message.clone(),
            code: code.clone(),
            source: source.clone(),
            user: delegation.map(|delegation| delegation.chain.user().principal.clone()),
            agent: delegation.map(|delegation| delegation.chain.agent().principal.clone()),
            tenant: delegation.map(|delegation| delegation.tenant.clone()),
            run: delegation.map(|delegation| delegation.run.clone()),
            task: delegation.and_then(|delegation| delegation.task.id.clone()),
            tool: known.map(|known| known.tool.clone()),
            action: known.map(|known| known.action.clone()),
        }));
        let telling = Arc::clone(sidecar);
        sidecar.tasks.spawn("notice", async move {
            if let Err(error) = telling.ledger.event(notice).await {
                tracing::warn!(%error, "a notice was told and could not be recorded");
            }
            drop(room);
        });
    }
}
