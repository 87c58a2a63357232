//! Running copies of an agent: one that was taken back gets nothing any more, and what was issued to one is handed on by
//! no other.

use audit::{Event, record::ShownByAnother};
use jiff::{SignedDuration, Timestamp};
use model::{Code, Delegation, withdrawal::Passage};
use store::NotUsable;

use super::principal;
use crate::{Authority, client::Client, refused::Refused};

/// For how long the same token's uses by another have one alert.
const QUIET: SignedDuration = SignedDuration::from_secs(60);

impl Authority {
    /// Whether the copy that asks was not taken back. Nothing is registered of copies: it stays so for good, and another
    /// takes its place under another name.
    pub(super) fn instance_stands(&self, client: &Client) -> Result<(), Refused> {
        let Some(instance) = client.instance() else { return Ok(()) };
        let agent = client.agent();
        match self.withdrawn.any([Passage::Instance(&agent.issuer, agent.id.as_str(), instance)], None) {
            None => Ok(()),
            Some(_) => Err(Refused::request("this instance of the agent was withdrawn").denied(Code::Withdrawn)),
        }
    }

    /// Whether a token that names the copy it was issued to is shown by that one. Where it is another, somebody gets to know.
    pub(super) async fn own_instance(&self, held: &Delegation, client: &Client, now: Timestamp) -> Result<(), Refused> {
        let acting = held.chain.agent();
        let Some(instance) = acting.instance.as_deref().filter(|_| client.agent().is(&acting.principal)) else {
            return Ok(());
        };
        if client.instance() == Some(instance) {
            return Ok(());
        }
        if let Some(presented) = client.instance() {
            let alert = ShownByAnother {
                token: held.token.digest.clone(),
                agent: principal(client.agent()),
                instance: instance.to_owned(),
                presented: presented.to_owned(),
                proved: client.certificate().is_some(),
            };
            self.raise(alert, now).await;
        }
        Err(Refused::request("the subject token was issued to another instance of the agent").denied(Code::WrongSender))
    }

    async fn raise(&self, alert: ShownByAnother, now: Timestamp) {
        if !self.is_news(&alert, now).await {
            return;
        }
        tracing::warn!(agent = %alert.agent.id, "a token was shown by another instance than it was issued to");
        if let Err(error) = self.ledger.event(Event::ShownByAnother(Box::new(alert))).await {
            tracing::warn!(%error, "an alert could not be recorded");
        }
    }

    /// Once a while for the same token, at one of the replicas; where another is proved to have shown it, for each such.
    async fn is_news(&self, alert: &ShownByAnother, now: Timestamp) -> bool {
        // What it merely says of itself is another each time: it would grow the ledger as fast as it asks.
        let once = if alert.proved { format!("{}#{}", alert.token, alert.presented) } else { alert.token.clone() };
        let until = now.checked_add(QUIET).unwrap_or(Timestamp::MAX);
        // Room of its own, so that one agent's alerts take none of another's.
        let space = format!("used by another: {}", alert.agent.id);
        match self.store.use_once(&space, &once, until, now).await {
            Ok(()) => true,
            Err(NotUsable::Used | NotUsable::Ended) => false,
            Err(error @ (NotUsable::Full | NotUsable::Unavailable(_))) => {
                let agent = &alert.agent.id;
                tracing::warn!(%agent, %error, "that a token was shown by another instance is not recorded");
                false
            }
        }
    }
}
