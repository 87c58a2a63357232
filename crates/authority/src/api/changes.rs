//! `/v1/changes` for enrolled sidecars: what was withdrawn, in order, as far as it concerns the tenants they serve.
//!
//! A long poll. It is answered when something was committed after what the sidecar has, or when its wait is over, and
//! always after a read of the committed head that began after the question came.

use http::{HeaderMap, Response, StatusCode};
use jiff::Timestamp;
use model::{Id, Withdrawal, json::Json};
use net::Body;
use serde_json::json;
use store::{
    Feed, MAX_FEED, Pin, Sidecar, SidecarStatus,
    remote::{self, GoodKeys, Listed, Question},
};
use token::{KeySet, verify_sidecar_assertion};

use super::{
    EACH_FOLLOWS, caller,
    problem::{Code, Problem},
};
use crate::{Authority, client::algorithms, peek, refused::json_response};

impl Authority {
    /// Answers a sidecar that follows.
    pub(super) async fn follow(&self, headers: &HeaderMap, query: Option<&str>) -> Result<Response<Body>, Problem> {
        let now = net::clock::now();
        let sidecar = self.sidecar(headers, now).await?;
        let question = Question::parse(query).map_err(|error| Problem::invalid(error.to_string()))?;
        let _place = self.api.followers.try_take(sidecar.id.clone(), 1).map_err(|full| match full {
            net::Full::Total => Problem::new(Code::Overloaded, "Too many sidecars follow at once."),
            net::Full::Share => {
                Problem::new(Code::TooMany, format!("More than {EACH_FOLLOWS} of your questions are under way."))
            }
        })?;
        let deadline = tokio::time::sleep(question.wait);
        tokio::pin!(deadline);
        // Before the head is read: what is committed after that read wakes us.
        let mut woken = self.store.woken();
        let tenants = Some(&sidecar.serves.tenants);
        loop {
            woken.mark_unchanged();
            let feed = self.store.followed(question.after, tenants, MAX_FEED, now).await?;
            if feed.head > question.after || deadline.is_elapsed() {
                let keys = self.keys.view(&self.store, (feed.began, feed.head), now).await?;
                let keys = GoodKeys { issuer: self.settings.issuer.clone(), ids: keys.ids(net::clock::now()) };
                let pins = self.api.pins.of(&self.store, (&feed.generation, feed.head), now).await?;
                let meant = |pin: &&Pin| pin.is_for(&sidecar.serves.tenants) && pin.holds(now);
                let pins = pins.iter().filter(meant).cloned().collect();
                return Ok(answer(feed, Some(keys), Some(pins)));
            }
            tokio::select! {
                () = &mut deadline => {}
                changed = woken.changed() => if changed.is_err() { deadline.as_mut().await },
            }
        }
    }

    /// The enrolled sidecar whose assertion the request carries.
    pub(crate) async fn sidecar(&self, headers: &HeaderMap, now: Timestamp) -> Result<Sidecar, Problem> {
        let compact = caller::bearer(headers)?;
        let name =
            peek::payload(compact).and_then(|said| said.member("iss").and_then(Json::as_text).map(str::to_owned));
        let id = name.as_deref().and_then(|name| name.strip_prefix(&self.sidecar_prefix()));
        let id = id.and_then(|id| Id::new(id).ok()).ok_or_else(|| not_accepted("its `iss` is no sidecar of ours"))?;
        let sidecar = self.store.sidecar(&id).await?.ok_or_else(|| not_accepted("there is no such sidecar"))?;
        if sidecar.status != SidecarStatus::Enrolled {
            return Err(not_accepted("the sidecar was removed"));
        }
        let good = |key: &&store::SidecarKey| key.retires.is_none_or(|retires| now < retires);
        let keys: Vec<_> = sidecar.keys.iter().filter(good).map(|key| &key.jwk).collect();
        let keys = json!({ "keys": keys }).to_string();
        let keys = KeySet::parse(keys.as_bytes(), &algorithms()).map_err(|error| not_accepted(&error.to_string()))?;
        let name = format!("{}{id}", self.sidecar_prefix());
        verify_sidecar_assertion(compact, &keys, &name, &self.settings.issuer, now)
            .map_err(|refusal| not_accepted(refusal.internal.as_deref().unwrap_or(&refusal.detail)))?;
        Ok(sidecar)
    }

    /// What the names of sidecars begin with, as the `iss` of what they sign.
    pub(super) fn sidecar_prefix(&self) -> String {
        format!("{}/sidecars/", self.settings.issuer)
    }
}

fn answer(feed: Feed<Withdrawal>, keys: Option<GoodKeys>, pins: Option<Vec<Pin>>) -> Response<Body> {
    let Feed { generation, began, head, changes, more } = feed;
    let listed = |withdrawal: Withdrawal| Listed { position: withdrawal.position, withdrawal };
    let changes = changes.into_iter().map(listed).collect();
    let answer = remote::Answer { generation, began, head, changes, more, keys, pins };
    json_response(StatusCode::OK, &serde_json::to_value(&answer).unwrap_or_default())
}

/// Why goes to the log.
fn not_accepted(why: &str) -> Problem {
    tracing::info!(why, "what came as a sidecar's is refused");
    Problem::new(Code::InvalidToken, "The token is not that of a sidecar that is enrolled here.")
}
