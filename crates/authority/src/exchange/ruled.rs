//! What policy says of a token before it is signed (`delegate`). It can take tools away or refuse the whole, and nothing
//! else: what it is asked about is what is left within everything that limits it.

use audit::record::{Issuing, PolicyRuling};
use model::{Agent, Reason};
use policy::{Ruling, Steering, input::exchange};

use super::issuance::{Asked, Issuance, Registered};
use crate::{
    narrow::{Ceiling, Limiting, Most, narrow},
    refused::{Error, Refused},
};

/// `issuance` for `to`, as far as policy lets it go. What is asked stands in it, also where nobody is: policies that come
/// later are tried on it.
pub(super) fn ruled(
    policy: Option<&Steering>,
    issuance: Issuance,
    to: &Agent,
    registered: &Registered,
    asked: &Asked,
) -> Result<Issuance, Refused> {
    let issuing = Issuing {
        chain: issuance.chain.hops().take_while(|hop| !to.is(&hop.principal)).cloned().collect(),
        to: to.clone(),
        requested: issuance.authority.clone(),
        task: issuance.task.clone(),
        run: issuance.run.clone(),
        grant: registered.grant.clone(),
        user: issuance.user.clone(),
        tenant: issuance.tenant.clone(),
        expires_at: issuance.expires_at,
        now: asked.now,
    };
    // An authority without policy issues what is left within everything else.
    let Some(policy) = policy else { return Ok(Issuance { asked: Some(Box::new(issuing)), ..issuance }) };
    let Ruling { tools, reasons, withheld } = policy.delegate(&exchange::Issuance {
        chain: issuing.chain.iter().collect(),
        to,
        requested: &issuing.requested,
        task: &issuing.task,
        run: &issuing.run,
        grant: &issuing.grant,
        user: &issuing.user,
        tenant: &issuing.tenant,
        expires_at: issuing.expires_at,
        now: issuing.now,
    });
    let ruling = PolicyRuling { revision: policy.revision().to_owned(), reasons, withheld };
    let only = Ceiling { of: Limiting::Policy, is: Most::Tools(&tools) };
    match narrow(&issuance.authority, [only]) {
        Ok(left) => {
            let issuance = if left == issuance.authority { issuance } else { issuance.narrowed(&left, to, asked)? };
            Ok(Issuance { policy: Some(Box::new(ruling)), asked: Some(Box::new(issuing)), ..issuance })
        }
        Err(_) => Err(refused(ruling, issuing)),
    }
}

fn refused(ruling: PolicyRuling, asked: Issuing) -> Refused {
    let said = |reason: &Reason| match &reason.message {
        Some(message) => format!("{} ({}: {})", message, reason.source, reason.code),
        None => format!("{}: {}", reason.source, reason.code),
    };
    let why: Vec<_> = ruling.withheld.iter().map(said).collect();
    Refused::new(Error::AccessDenied, format!("policy lets none of it be delegated: {}", why.join("; ")))
        .ruled(ruling, asked)
}
