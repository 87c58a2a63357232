//! reserve: is there enough left of every cumulative limit? Nobody counts them yet, so a call that would be
//! charged against one is refused: what cannot be proved is not allowed. On success there is a [`Charge`].

use model::{Code, Refusal};

use crate::approve::Permit;

/// What the call is charged. At present always nothing.
#[derive(Debug)]
pub(crate) struct Charge {
    _nothing: (),
}

/// Refuses a call that a cumulative limit applies to.
pub(crate) fn reserve(permit: &Permit<'_>) -> Result<Charge, Box<Refusal>> {
    let question = permit.question();
    let Some(limit) = question.limits.first() else { return Ok(Charge { _nothing: () }) };
    let holder = question.delegation.chain.hops().nth(limit.hop).map(|hop| hop.principal.to_string());
    let detail = format!("The cumulative limit `{}` applies, and nobody can say how much of it is left.", limit.name);
    let mut refused = Refusal::new(Code::LimitUnavailable, detail);
    refused.limiting_hop = holder;
    Err(Box::new(refused))
}
