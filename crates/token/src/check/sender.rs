//! Sender: a bound token needs its proof, an unbound one a listener that takes bearer tokens.

use model::{Code, delegation::Sender, json::Json};

use crate::{
    Proof,
    refusal::{Checked, refuse},
};

pub(crate) fn check(claims: &Json, proof: Proof, bearer_allowed: bool) -> Checked<Sender> {
    match (claims.member("cnf"), proof) {
        // Whatever it binds to: no proof can be checked yet, and a binding is never ignored.
        (Some(_), Proof::None) => {
            let detail = "The token is bound to a key, and nothing proves its possession.";
            refuse(Code::WrongSender, detail, "`cnf` is present; no kind of proof is supported yet")
        }
        (None, Proof::None) => bearer(bearer_allowed).map(|()| Sender::Bearer),
    }
}

/// Whether an unbound token may be presented here: a setting of the listener, so checked on every call.
pub(crate) fn bearer(allowed: bool) -> Checked<()> {
    if allowed {
        return Ok(());
    }
    let detail = "This listener does not accept bearer tokens.";
    refuse(Code::WrongSender, detail, "the token is not bound to a sender, and the listener refuses bearer tokens")
}
