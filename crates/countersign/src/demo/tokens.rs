//! The tokens that the demo's callers present, each obtained from the authority as an agent in the world would.

use std::time::Duration;

use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::agent::{Agent, ExchangeError, Token};
use super::files::Files;
use super::identity_provider::{ALICE, BOB, IdentityProvider};
use super::steps::Caller;
use super::world::World;
use crate::failure::{Exit, Failure};

/// The folder of the token files that `--serve` keeps fresh.
pub(super) const TOKENS: &str = "tokens";

/// Where `--serve` keeps what alice holds at the console.
pub(super) const CONSOLE: &str = "tokens/alice-console.jwt";

/// How long a sign-in is good for.
const SESSION: Duration = Duration::from_secs(300);
/// How long the sign-in is good for whose token is to end while one watches. No token outlives the one it was
/// exchanged for, so this needs no special authority.
const ENDING_SESSION: Duration = Duration::from_secs(3);
/// How far the sidecar lets clocks differ (`skew` in the demo's configuration), in milliseconds.
const SKEW_MILLISECONDS: i64 = 1000;

/// The agents of the demo.
pub(super) struct Agents {
    /// Acts for alice.
    pub(super) support: Agent,
    /// Acts through it.
    pub(super) helper: Agent,
}

/// One token for each caller.
pub(super) struct Tokens {
    support: Token,
    helper: Token,
    greedy_helper: Token,
    user: Token,
    ended: Token,
}

impl Agents {
    /// Both, with new keys.
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(Self { support: Agent::new("support-v2")?, helper: Agent::new("refunds-helper")? })
    }

    /// A fresh token of the support agent for alice: all that she granted, or refunds up to `most` US dollars.
    async fn support_token(
        &self,
        task: &str,
        most: Option<&str>,
        people: &IdentityProvider,
        world: &World,
    ) -> Result<Token, Failure> {
        let signed_in = people.sign_in(ALICE, SESSION, net::clock::now())?;
        Ok(self.support.act_for(&signed_in, task, most.map(refunds_up_to).as_ref(), world).await?)
    }

    /// A fresh token of the helper, for which the support agent asked `most` US dollars a refund.
    async fn helper_token(&self, support: &Token, most: &str, world: &World) -> Result<Token, Failure> {
        let handover = self.support.hand_over(support, self.helper.id(), &refunds_up_to(most), world).await?;
        Ok(self.helper.take_over(&handover, world).await?)
    }

    /// Why the support agent does not get bob's sign-in turned into a token for alice's task.
    pub(super) async fn with_bobs_sign_in(
        &self,
        task: &str,
        people: &IdentityProvider,
        world: &World,
    ) -> Result<Result<Token, ExchangeError>, Failure> {
        let signed_in = people.sign_in(BOB, SESSION, net::clock::now())?;
        Ok(self.support.act_for(&signed_in, task, None, world).await)
    }

    /// Why there is no further token for a task that alice took back, though she is signed in.
    pub(super) async fn once_more(
        &self,
        task: &str,
        people: &IdentityProvider,
        world: &World,
    ) -> Result<Result<Token, ExchangeError>, Failure> {
        let signed_in = people.sign_in(ALICE, SESSION, net::clock::now())?;
        Ok(self.support.act_for(&signed_in, task, None, world).await)
    }

    /// Why the helper does not get its parent's own token turned into one of its own: nobody handed it over.
    pub(super) async fn with_the_parents_token(&self, tokens: &Tokens, world: &World) -> Result<Token, ExchangeError> {
        self.helper.take_over(&tokens.support, world).await
    }
}

impl Tokens {
    /// Obtains them all.
    pub(super) async fn obtain(
        task: &str,
        agents: &Agents,
        people: &IdentityProvider,
        world: &World,
    ) -> Result<Self, Failure> {
        let ending = people.sign_in(ALICE, ENDING_SESSION, net::clock::now())?;
        let ended = agents.support.act_for(&ending, task, None, world).await?;
        let support = agents.support_token(task, None, people, world).await?;
        let helper = agents.helper_token(&support, "10.00", world).await?;
        // A parent that asked little for itself cannot have more for its helper.
        let modest = agents.support_token(task, Some("30.00"), people, world).await?;
        let greedy_helper = agents.helper_token(&modest, "200.00", world).await?;
        let user = user_token(people)?;
        Ok(Self { support, helper, greedy_helper, user, ended })
    }

    /// The token of `caller`.
    pub(super) fn of(&self, caller: Caller) -> &Token {
        match caller {
            Caller::Support => &self.support,
            Caller::Helper => &self.helper,
            Caller::GreedyHelper => &self.greedy_helper,
            Caller::UserAlone => &self.user,
            Caller::Ended => &self.ended,
        }
    }

    /// How long until the ending token has ended for everybody, clocks that differ included.
    pub(super) fn until_ended(&self, now: Timestamp) -> Duration {
        // A little more than needed: timers and the wall clock do not tick together.
        let end = self.ended.expires_at().saturating_mul(1000).saturating_add(SKEW_MILLISECONDS + 100);
        Duration::from_millis(u64::try_from(end.saturating_sub(now.as_millisecond())).unwrap_or(0))
    }
}

/// Writes fresh tokens: `NAME.jwt`, and `NAME.header` as `curl -H @FILE` takes it, which keeps the token out of the
/// process list.
pub(super) async fn write_fresh(
    task: &str,
    files: &Files,
    agents: &Agents,
    people: &IdentityProvider,
    world: &World,
) -> Result<(), Failure> {
    let support = agents.support_token(task, None, people, world).await?;
    let helper = agents.helper_token(&support, "10.00", world).await?;
    let user = user_token(people)?;
    for (name, token) in [(agents.support.id(), &support), (agents.helper.id(), &helper), (ALICE.id, &user)] {
        let compact = token.compact().expose_secret();
        files.write(&format!("{TOKENS}/{name}.jwt"), compact)?;
        files.write(&format!("{TOKENS}/{name}.header"), &format!("Authorization: Bearer {compact}\n"))?;
    }
    files.write(CONSOLE, people.sign_in_to_manage(ALICE, net::clock::now())?.expose_secret())?;
    Ok(())
}

fn user_token(people: &IdentityProvider) -> Result<Token, Failure> {
    Token::new(people.sign_in(ALICE, SESSION, net::clock::now())?)
        .ok_or_else(|| Failure::new(Exit::Failed, "the identity provider's token is not a JWT"))
}

fn refunds_up_to(most: &str) -> Value {
    json!([{
        "type": model::authority::ELEMENT_TYPE,
        "actions": ["refunds.create"],
        "locations": ["orders"],
        "limits": {"amount": {"max": most, "currency": "USD"}},
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_support_agent_asks_for_its_helper_is_an_element_of_ours() {
        let elements: Vec<model::Element> = serde_json::from_value(refunds_up_to("10.00")).unwrap();
        assert_eq!(elements.len(), 1);
    }
}
