//! admit: whose token is this, and is it theirs to present? Finds the one credential of the request and has
//! `token` verify it. On success the delegation is [`Admitted`].

use std::sync::Arc;

use http::header;
use jiff::Timestamp;
use model::{Code, Delegation, Refusal};
use percent_encoding::percent_decode_str;
use token::{Presented, Proof, Rejection};

use crate::{
    accept::{Incoming, malformed},
    config::Bearer,
    snapshot::Snapshot,
};

/// A delegation whose token was verified on this call.
#[derive(Debug, Clone)]
pub(crate) struct Admitted {
    delegation: Arc<Delegation>,
}

impl Admitted {
    /// What the token proved.
    pub(crate) fn delegation(&self) -> &Arc<Delegation> {
        &self.delegation
    }

    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn in_test(delegation: Delegation) -> Self {
        Self { delegation: Arc::new(delegation) }
    }
}

/// Verifies the request's token.
pub(crate) async fn admit(
    incoming: &Incoming,
    snapshot: &Snapshot,
    now: Timestamp,
) -> Result<Admitted, Box<Rejection>> {
    let compact = credential(incoming).map_err(|refusal| Box::new(Rejection { refusal: *refusal, seen: None }))?;
    present(compact, incoming, snapshot, now).await
}

/// Verifies `compact` as the token of the request.
pub(crate) async fn present(
    compact: &str,
    incoming: &Incoming,
    snapshot: &Snapshot,
    now: Timestamp,
) -> Result<Admitted, Box<Rejection>> {
    let bearer_allowed = snapshot.listener.bearer != Bearer::Refuse;
    let certificate = incoming.arrival().peer.certificate.as_ref();
    let proof = certificate.map_or(Proof::None, |certificate| Proof::Certificate(certificate.x5t_s256));
    let presented = Presented { compact, bearer_allowed, proof };
    let verified = snapshot.verifier.verify(presented, now).await?;
    Ok(Admitted { delegation: Arc::clone(verified.delegation()) })
}

/// The token of `Authorization: Bearer` (RFC 6750 §2.1); there is no other place for one.
pub(crate) fn credential(incoming: &Incoming) -> Result<&str, Box<Refusal>> {
    let in_query = incoming.query().unwrap_or_default().split('&').any(|pair| {
        let key = pair.split('=').next().unwrap_or_default();
        percent_decode_str(key).decode_utf8_lossy() == "access_token"
    });
    if in_query {
        return Err(malformed("A token in the query ends up in logs; send it in `Authorization`."));
    }
    let none = || Refusal::new(Code::NoCredential, "The request has no `Authorization: Bearer` token.");
    let value = incoming.headers().get(header::AUTHORIZATION).ok_or_else(none)?;
    let invalid = || Refusal::new(Code::InvalidToken, "The `Authorization` field is not `Bearer` and one token.");
    let text = std::str::from_utf8(value.as_bytes()).ok().filter(|text| text.is_ascii()).ok_or_else(invalid)?;
    let (scheme, token) = text.split_once(' ').ok_or_else(invalid)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Box::new(none()));
    }
    let token = token.trim_start_matches(' ');
    if !is_token68(token) {
        return Err(Box::new(invalid()));
    }
    if incoming.query().is_some_and(|query| query.contains(token)) {
        return Err(malformed("The token is also in the query, which would take it to the tool."));
    }
    Ok(token)
}

/// RFC 9110 §11.2. Every byte is looked at whatever the ones before it are: a token has thousands, and so the compiler
/// takes many at a time.
fn is_token68(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let allowed = |byte: u8| {
        let letter = (byte | 0x20).is_ascii_lowercase();
        // Hyphen, full stop, slash and digits stand in one row.
        letter | (b'-'..=b'9').contains(&byte) | (byte == b'_') | (byte == b'~') | (byte == b'+')
    };
    !body.is_empty() && body.bytes().fold(0, |wrong, byte| wrong | u8::from(!allowed(byte))) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::incoming;

    fn found(uri: &str, authorization: Option<&str>) -> Result<String, Code> {
        let headers: Vec<(&str, &str)> = authorization.iter().map(|value| ("authorization", *value)).collect();
        credential(&incoming("GET", uri, &headers, "")).map(str::to_owned).map_err(|refusal| refusal.code)
    }

    #[test]
    fn exactly_one_bearer_token_is_a_credential() {
        assert_eq!(found("/orders", Some("Bearer a.b.c")), Ok("a.b.c".to_owned()));
        assert_eq!(found("/orders", Some("bEaReR a.b.c")), Ok("a.b.c".to_owned()));
        assert_eq!(found("/orders", None), Err(Code::NoCredential));
        assert_eq!(found("/orders", Some("Basic YTpi")), Err(Code::NoCredential));
        for broken in ["Bearer", "Bearer ", "Bearer a b", "Bearer a,b", "Bearer ==", "Bearer \"a\""] {
            assert_eq!(found("/orders", Some(broken)), Err(Code::InvalidToken), "{broken}");
        }
    }

    #[test]
    fn a_token_is_made_of_the_characters_of_its_grammar() {
        for byte in 0..=u8::MAX {
            let named = byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
            let text = format!("a{}a", char::from(byte));
            assert_eq!(is_token68(&text), named, "{text:?}");
        }
        assert!(is_token68("a==") && !is_token68("a=a") && !is_token68("=") && !is_token68(""));
    }

    #[test]
    fn a_token_in_the_query_is_refused_even_beside_a_good_one() {
        for query in ["/orders?access_token=x", "/orders?a=1&access%5Ftoken=x", "/orders?access_token"] {
            assert_eq!(found(query, Some("Bearer a.b.c")), Err(Code::Malformed), "{query}");
        }
    }
}
