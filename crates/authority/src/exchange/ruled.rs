//! What policy says of a token before it is signed (`delegate`). It can take tools away or refuse the whole, and nothing
//! else: what it is asked about is what is left within everything that limits it.

use audit::record::PolicyRuling;
use model::{Agent, Hop, Reason};
use policy::{Ruling, Steering, input::exchange};

use super::issuance::{Asked, Issuance, Registered};
use crate::{
    narrow::{Ceiling, Limiting, Most, narrow},
    refused::{Error, Refused},
};

/// `issuance` for `to`, as far as policy lets it go.
pub(super) fn ruled(
    policy: Option<&Steering>,
    issuance: Issuance,
    to: &Agent,
    registered: &Registered,
    asked: &Asked,
) -> Result<Issuance, Refused> {
    // An authority without policy issues what is left within everything else.
    let Some(policy) = policy else { return Ok(issuance) };
    let chain: Vec<&Hop> = issuance.chain.hops().take_while(|hop| !to.is(&hop.principal)).collect();
    let Ruling { tools, reasons, withheld } = policy.delegate(&exchange::Issuance {
        chain,
        to,
        requested: &issuance.authority,
        task: &issuance.task,
        run: &issuance.run,
        grant: &registered.grant,
        user: &issuance.user,
        tenant: &issuance.tenant,
        expires_at: issuance.expires_at,
        now: asked.now,
    });
    let ruling = PolicyRuling { revision: policy.revision().to_owned(), reasons, withheld };
    let only = Ceiling { of: Limiting::Policy, is: Most::Tools(&tools) };
    match narrow(&issuance.authority, [only]) {
        Ok(left) => {
            let issuance = if left == issuance.authority { issuance } else { issuance.narrowed(&left, to, asked)? };
            Ok(Issuance { policy: Some(Box::new(ruling)), ..issuance })
        }
        Err(_) => Err(refused(ruling)),
    }
}

fn refused(ruling: PolicyRuling) -> Refused {
    let said = |reason: &Reason| match &reason.message {
        Some(message) => format!("{} ({}: {})", message, reason.source, reason.code),
        None => format!("{}: {}", reason.source, reason.code),
    };
    let why: Vec<_> = ruling.withheld.iter().map(said).collect();
    Refused::new(Error::AccessDenied, format!("policy lets none of it be delegated: {}", why.join("; "))).ruled(ruling)
}
