//! Sender: a bound token needs its proof, an unbound one a listener that takes bearer tokens. What a token is bound
//! to is read once; that this call proves it is looked at on every one.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use model::{Code, delegation::Sender, json::Json};

use crate::{
    Proof,
    refusal::{Checked, refuse},
};

/// What a token is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Binding {
    /// Nothing.
    None,
    /// The client certificate with this SHA-256 (RFC 8705 §3.1).
    Certificate([u8; 32]),
}

impl Binding {
    /// What `cnf` binds the token to (RFC 7800). A binding that cannot be checked is never ignored, nor is one of two.
    pub(crate) fn read(claims: &Json) -> Checked<Self> {
        let Some(cnf) = claims.member("cnf") else { return Ok(Self::None) };
        let thumbprint = match cnf {
            Json::Object(members) if members.len() == 1 => cnf.member("x5t#S256"),
            _ => None,
        };
        let bytes = match thumbprint {
            Some(Json::Text(text)) => URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok()),
            _ => None,
        };
        bytes.map_or_else(
            || {
                let detail = "The token is bound to its sender in a way that cannot be checked here.";
                refuse(Code::WrongSender, detail, "`cnf` is not exactly one `x5t#S256` with a SHA-256")
            },
            |bytes| Ok(Self::Certificate(bytes)),
        )
    }

    /// The certificate, where it is bound to one.
    pub(crate) const fn certificate(self) -> Option<[u8; 32]> {
        match self {
            Self::Certificate(certificate) => Some(certificate),
            Self::None => None,
        }
    }

    /// Whether this call proves it; on every call, remembered token or not.
    pub(crate) fn check(self, proof: Proof, bearer_allowed: bool) -> Checked<Sender> {
        match (self, proof) {
            (Self::Certificate(bound), Proof::Certificate(presented)) if bound == presented => Ok(Sender::Certificate),
            (Self::Certificate(_), Proof::Certificate(_)) => {
                let detail = "The token is bound to another client certificate than the connection's.";
                refuse(Code::WrongSender, detail, "`x5t#S256` is not the thumbprint of the peer's certificate")
            }
            (Self::Certificate(_), Proof::None) => {
                let detail = "The token is bound to a client certificate, and the connection has none.";
                refuse(Code::WrongSender, detail, "`x5t#S256` is present and the peer presented no certificate")
            }
            // A certificate says who holds the connection, not whom the token was given to.
            (Self::None, _) if bearer_allowed => Ok(Sender::Bearer),
            (Self::None, _) => {
                let detail = "This listener does not accept bearer tokens.";
                let internal = "the token is not bound to a sender, and the listener refuses bearer tokens";
                refuse(Code::WrongSender, detail, internal)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(claims: &str) -> Result<Binding, Code> {
        Binding::read(&Json::parse(claims.as_bytes()).unwrap()).map_err(|refusal| refusal.code)
    }

    #[test]
    fn only_one_thumbprint_of_a_certificate_is_a_binding() {
        let good = URL_SAFE_NO_PAD.encode([7; 32]);
        assert_eq!(read("{}"), Ok(Binding::None));
        assert_eq!(read(&format!(r#"{{"cnf": {{"x5t#S256": "{good}"}}}}"#)), Ok(Binding::Certificate([7; 32])));
        let short = URL_SAFE_NO_PAD.encode([7; 31]);
        for cnf in [
            "null".to_owned(),
            "1".to_owned(),
            "[]".to_owned(),
            "{}".to_owned(),
            format!("\"{good}\""),
            r#"{"jkt": "x"}"#.to_owned(),
            format!(r#"{{"x5t": "{good}"}}"#),
            format!(r#"{{"X5T#S256": "{good}"}}"#),
            format!(r#"{{"x5t#S256": "{good}", "jkt": "x"}}"#),
            format!(r#"{{"x5t#S256": "{good}", "x5t": null}}"#),
            format!(r#"{{"x5t#S256": ["{good}"]}}"#),
            format!(r#"{{"x5t#S256": "{good}="}}"#),
            format!(r#"{{"x5t#S256": "{short}"}}"#),
            r#"{"x5t#S256": ""}"#.to_owned(),
            r#"{"x5t#S256": null}"#.to_owned(),
        ] {
            assert_eq!(read(&format!(r#"{{"cnf": {cnf}}}"#)), Err(Code::WrongSender), "{cnf}");
        }
    }

    #[test]
    fn a_bound_token_needs_its_own_certificate_wherever_bearer_tokens_are_taken() {
        let bound = Binding::Certificate([1; 32]);
        for bearer_allowed in [true, false] {
            let check = |proof| bound.check(proof, bearer_allowed).map_err(|refusal| refusal.code);
            assert_eq!(check(Proof::Certificate([1; 32])), Ok(Sender::Certificate));
            assert_eq!(check(Proof::Certificate([2; 32])), Err(Code::WrongSender));
            assert_eq!(check(Proof::None), Err(Code::WrongSender));
        }
    }

    #[test]
    fn a_certificate_does_not_make_an_unbound_token_bound() {
        for proof in [Proof::None, Proof::Certificate([1; 32])] {
            assert_eq!(Binding::None.check(proof, true).unwrap(), Sender::Bearer);
            assert_eq!(Binding::None.check(proof, false).unwrap_err().code, Code::WrongSender);
        }
    }
}
