//! reserve: is there enough left of every cumulative limit? What the call is charged is taken out of slices that the
//! authority leased, before the decision is on record; on success there is a [`Charge`].
//!
//! `slices` is what this sidecar holds, `charge` what a call took of it and what becomes of that, `repeats` which calls
//! were charged already, and `once` what the authority knows of that.

mod charge;
mod once;
mod repeats;
mod slices;

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use model::{Amount, Code, Refusal, Retry, limits::Claim};
use store::remote::charges::ChargedTo;

pub(crate) use self::charge::Charge;
pub use self::slices::{Asking, Charging, Leasing, Limits};
use self::{charge::Part, slices::Short};
use crate::approve::Permit;

/// When to try again where slices of others may come back.
const SOON: u64 = 5;

/// Takes what the call is charged.
pub(crate) async fn reserve(permit: &Permit<'_>, limits: Option<&Arc<Limits>>) -> Result<Charge, Box<Refusal>> {
    if permit.claims().is_empty() {
        return Ok(Charge::default());
    }
    Box::pin(take(permit, limits)).await
}

async fn take(permit: &Permit<'_>, limits: Option<&Arc<Limits>>) -> Result<Charge, Box<Refusal>> {
    let (question, claims) = (permit.question(), permit.claims());
    let refused = |claim: &Claim, short: &Short| refusal(permit, claim, short);
    let Some(limits) = limits else {
        let nobody = Short::Unavailable("no authority is followed that could count it".to_owned());
        return Err(claims.first().map_or_else(none, |claim| refused(claim, &nobody)));
    };
    let repeat = repeats::digest(permit);
    if let Some(charge) = repeat.as_ref().and_then(|repeat| limits.repeats.join(repeat, net::clock::boottime())) {
        return Ok(charge);
    }
    let mut taken = Vec::with_capacity(claims.len());
    for claim in claims {
        match limits.take(claim, &question.delegation.tenant, question.now).await {
            Ok(part) => taken.push(part),
            Err(short) => {
                // What was taken for the claims before it goes back.
                drop(taken);
                let Some(repeat) = repeat else { return Err(refused(claim, &short)) };
                let request = once::request(permit, &repeat, would_be_charged(permit));
                let charged = limits.charged_elsewhere(&repeat, request).await;
                return charged.ok_or_else(|| refused(claim, &short));
            }
        }
    }
    let told = repeat.map(|repeat| {
        let charged = taken.iter().filter_map(Part::told).collect();
        (repeat, limits.once.told(once::request(permit, &repeat, charged)))
    });
    let (charge, asked) = limits.repeats.charge(&question.id, taken, told, question.now);
    if let (Some(asked), Some(repeat)) = (asked, repeat) {
        limits.tell(asked, &repeat).await;
    }
    Ok(charge)
}

/// What a call would be charged, of no slice.
fn would_be_charged(permit: &Permit<'_>) -> Vec<ChargedTo> {
    let now = permit.question().now;
    let charged = |claim: &Claim| ChargedTo {
        limit: claim.key.clone(),
        starts: claim.limit.window.at(now).starts,
        units: claim.units,
        lease: None,
    };
    permit.claims().iter().map(charged).collect()
}

fn none() -> Box<Refusal> {
    Box::new(Refusal::new(Code::LimitUnavailable, "Nobody can say how much of a limit is left."))
}

/// Why the call is not charged, and when it may be.
fn refusal(permit: &Permit<'_>, claim: &Claim, short: &Short) -> Box<Refusal> {
    let question = permit.question();
    let name = &claim.key.name;
    let period = claim.limit.window.at(question.now);
    let over = if claim.limit.sum.is_some() { Code::LimitExceeded } else { Code::Velocity };
    let mut refused = match short {
        Short::Exceeded { .. } => {
            Refusal::new(over, format!("Not enough is left of the limit `{name}` until its window ends."))
        }
        Short::Elsewhere { .. } => Refusal::new(
            Code::LimitUnavailable,
            format!("What is left of the limit `{name}` is held elsewhere, and may come back."),
        ),
        Short::Unavailable(why) => {
            let detail = format!("The cumulative limit `{name}` applies, and nobody can say how much of it is left.");
            Refusal::new(Code::LimitUnavailable, detail).internally(why.clone())
        }
    };
    refused.retry = Retry::After;
    match short {
        Short::Exceeded { remaining, max } | Short::Elsewhere { remaining, max } => {
            let (max, remaining) = (claim.limit.amount(*max), claim.limit.amount(*remaining));
            let mut allowed = serde_json::json!({
                "max": max.text(), "remaining": remaining.text(),
                "window": claim.limit.window.to_string(), "until": period.ends.to_string(),
            });
            if let (Amount::Money(money), Some(members)) = (&max, allowed.as_object_mut()) {
                members.insert("currency".to_owned(), money.currency().into());
            }
            refused.allowed = Some(serde_json::json!({ name.as_str(): allowed }));
        }
        Short::Unavailable(_) => {}
    }
    refused.retry_after = Some(match short {
        Short::Exceeded { .. } => seconds_until(period.ends, question.now),
        Short::Elsewhere { .. } | Short::Unavailable(_) => SOON,
    });
    let holder = question.delegation.chain.hops().nth(claim.hop);
    refused.limiting_hop = holder.map(|hop| hop.principal.to_string());
    Box::new(refused)
}

/// Whole seconds, rounded up.
fn seconds_until(moment: Timestamp, now: Timestamp) -> u64 {
    let left = moment.duration_since(now).max(SignedDuration::ZERO);
    Duration::try_from(left).map_or(0, |left| left.as_secs() + u64::from(left.subsec_nanos() > 0))
}
