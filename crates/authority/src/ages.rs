//! How old agents' credentials are, looked at every few minutes: what is overdue shows in a metric and in the log, for
//! whoever only looks there, and raises an alert.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use audit::{Event, Ledger, record::CredentialOverdue};
use jiff::{SignedDuration, Timestamp};
use model::{Agent, AgentStatus};
use net::Tasks;
use store::{AgentFilter, Credential, CredentialKind, MAX_PAGE, NotUsable, Page, Registration, Store, StoreError};

use crate::{exchange::principal, watched::counted};

/// How long it is until the same credential raises an alert again.
const PERIOD: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Between two looks.
const EVERY: Duration = Duration::from_secs(300);

/// Whether a credential is older than it may be. Of a key in a file nobody here knows how old it is.
pub(crate) fn overdue(credential: &Credential, max_age: Duration, now: Timestamp) -> bool {
    let good = credential.retires.is_none_or(|retires| now < retires);
    let most = SignedDuration::try_from(max_age).unwrap_or(SignedDuration::MAX);
    good && matches!(credential.is, CredentialKind::Jwks(_)) && now.duration_since(credential.added) > most
}

/// Looks at them until the end.
pub(crate) fn watch(store: Store, ledger: Ledger, max_age: Duration, tasks: &Tasks) {
    let found =
        counted("countersign_agent_credentials_overdue", "Credentials of agents that are older than they may be.");
    tasks.repeat("ages of credentials", EVERY, move || {
        let (store, ledger, found) = (store.clone(), ledger.clone(), Arc::clone(&found));
        async move {
            match look(&store, &ledger, max_age, net::clock::now()).await {
                Ok(count) => {
                    // Said when there are more than before, not at each look.
                    if count > found.swap(count, Ordering::Relaxed) {
                        tracing::warn!(count, "credentials of agents are overdue: `countersign agents list --overdue`");
                    }
                }
                Err(error) => tracing::debug!(%error, "the ages of credentials cannot be looked at"),
            }
        }
    });
}

/// How many are overdue. Each of them raises an alert once a period, at one of the replicas.
pub(crate) async fn look(store: &Store, ledger: &Ledger, max_age: Duration, now: Timestamp) -> Result<u64, StoreError> {
    let mut page = Page { after: 0, limit: MAX_PAGE };
    let mut count = 0;
    loop {
        let listed = store.agents(&AgentFilter::default(), page).await?;
        for Registration { agent, credentials, .. } in &listed.items {
            let gone = agent.status == AgentStatus::Decommissioned;
            for credential in credentials.iter().filter(|credential| !gone && overdue(credential, max_age, now)) {
                count += 1;
                raise(store, ledger, agent, credential, (max_age, now)).await;
            }
        }
        match listed.next {
            Some(next) => page.after = next,
            None => return Ok(count),
        }
    }
}

async fn raise(
    store: &Store,
    ledger: &Ledger,
    agent: &Agent,
    credential: &Credential,
    (max_age, now): (Duration, Timestamp),
) {
    let since = credential.added.checked_add(max_age).unwrap_or(Timestamp::MAX);
    let period = now.duration_since(since).as_secs() / PERIOD.as_secs();
    // Named by the time it was given: a credential that is given again is another one.
    let once = format!("{}#{}#{}#{}#{period}", agent.issuer, agent.id, credential.id, credential.added);
    let until = now.checked_add(PERIOD + PERIOD).unwrap_or(Timestamp::MAX);
    match store.use_once("credential overdue", &once, until, now).await {
        Ok(()) => {}
        // Said already, here or at another replica.
        Err(NotUsable::Used) => return,
        Err(error) => {
            tracing::debug!(%error, "whether an alert was raised cannot be known");
            return;
        }
    }
    let (agent, credential, added) = (principal(agent), credential.id.clone(), credential.added);
    let alert = CredentialOverdue { agent, credential, added, since };
    if let Err(error) = ledger.event(Event::CredentialOverdue(Box::new(alert))).await {
        tracing::warn!(%error, "an alert could not be recorded");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_key_that_is_still_good_and_of_known_age_is_overdue() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let credential = |is, retires| Credential { id: "one".to_owned(), is, added: at(0), retires };
        let jwks = || CredentialKind::Jwks(serde_json::json!({}));
        let age = Duration::from_secs(60);
        assert!(!overdue(&credential(jwks(), None), age, at(60)));
        assert!(overdue(&credential(jwks(), None), age, at(61)));
        assert!(overdue(&credential(jwks(), Some(at(100))), age, at(61)));
        assert!(!overdue(&credential(jwks(), Some(at(60))), age, at(61)));
        assert!(!overdue(&credential(CredentialKind::JwksFile("keys.json".into()), None), age, at(61)));
    }
}
