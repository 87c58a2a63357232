//! Logout tokens, valid and hostile, and every other token in the place of one.

use serde_json::Value;

use super::*;
use crate::{
    Algorithm, SigningKey, SubjectAudiences,
    config::{IssuerConfig, TokenType},
    testing::{
        ACT, AUDIENCE, AUTHORITY, NOW, OTHER, SSO, at, clients, forge, header, issuer, merge, now, public, settings,
        user_claims,
    },
};

/// One identity provider that tells of logouts, and one that does not.
struct World {
    sso: SigningKey,
    other: SigningKey,
    verifier: Verifier,
}

impl World {
    /// With the claim that names users; with every type of token let through, the least that tells them apart.
    fn naming(id: &str) -> Self {
        let key = || SigningKey::generate(Algorithm::Es256).unwrap();
        let (sso, other) = (key(), key());
        let issuers = vec![
            issuer(&format!(
                "{{issuer: '{SSO}', role: subject, tenants: [acme], types: [at+jwt, JWT], claims: {{id: {id}}}, withdrawals: backchannel_logout, logout_clients: [portal, console]}}"
            ))
            .with_keys(public(&[&sso])),
            issuer(&format!("{{issuer: '{OTHER}', role: subject, tenants: [acme]}}")).with_keys(public(&[&other])),
        ];
        let verifier = Verifier::new(settings(issuers), &clients(), &net::Tasks::new()).unwrap();
        Self { sso, other, verifier }
    }

    fn new() -> Self {
        Self::naming("sub")
    }

    /// The provider's logout token with these changes.
    fn token(&self, kind: &Value, changes: Value) -> String {
        forge(&self.sso, &header(&self.sso, json!({ "typ": kind })), claims(changes).to_string().as_bytes())
    }

    async fn target(&self, changes: Value) -> Target {
        self.verifier.verify_logout(&self.token(&json!("logout+jwt"), changes), now()).await.unwrap().target
    }

    async fn code(&self, compact: &str) -> Code {
        self.verifier.verify_logout(compact, now()).await.unwrap_err().code
    }
}

fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": SSO, "aud": "portal", "iat": NOW, "exp": NOW + 120, "jti": "once", "sub": "alice", "sid": "session-1",
        "events": { EVENT: {} },
    });
    merge(&mut claims, changes);
    claims
}

#[tokio::test]
async fn a_logout_token_ends_the_session_it_names_or_else_all_of_the_user() {
    let world = World::new();
    let session = Target::Session { issuer: SSO.to_owned(), sid: "session-1".to_owned() };
    for kind in [json!("logout+jwt"), json!("application/Logout+JWT"), json!("JWT"), json!(null)] {
        let logout = world.verifier.verify_logout(&world.token(&kind, json!({})), now()).await.unwrap();
        assert_eq!((logout.issuer.as_str(), logout.jti.as_str(), &logout.target), (SSO, "once", &session), "{kind}");
        assert_eq!(logout.expires_at, at(125));
    }
    assert_eq!(world.target(json!({ "sub": null, "aud": ["console"] })).await, session);
    let user = |id| Target::User { issuer: SSO.to_owned(), id: Id::new(id).unwrap() };
    assert_eq!(world.target(json!({ "sid": null })).await, user("alice"));
    // Users whom the issuer's tokens name otherwise are named so here too, or the token says nothing.
    let world = World::naming("oid");
    assert_eq!(world.target(json!({ "sid": null, "oid": "a-17" })).await, user("a-17"));
    assert_eq!(world.code(&world.token(&json!("logout+jwt"), json!({ "sid": null }))).await, Code::InvalidToken);
}

#[tokio::test]
async fn every_hostile_logout_token_is_refused() {
    let world = World::new();
    for (changes, code) in [
        (json!({ "iss": OTHER }), Code::InvalidToken),
        (json!({ "iss": ACT }), Code::InvalidToken),
        (json!({ "aud": null }), Code::WrongAudience),
        (json!({ "aud": AUDIENCE }), Code::WrongAudience),
        (json!({ "aud": SSO }), Code::WrongAudience),
        (json!({ "aud": ["portal", "elsewhere"] }), Code::WrongAudience),
        (json!({ "aud": ["portal", 5] }), Code::WrongAudience),
        (json!({ "iat": null }), Code::InvalidToken),
        (json!({ "iat": NOW + 6 }), Code::InvalidToken),
        (json!({ "iat": NOW - 400 }), Code::Expired),
        (json!({ "iat": NOW - 400, "exp": NOW + 86_400 }), Code::Expired),
        (json!({ "iat": NOW - 100, "exp": NOW - 5 }), Code::Expired),
        (json!({ "exp": null }), Code::InvalidToken),
        (json!({ "exp": "soon" }), Code::InvalidToken),
        (json!({ "exp": NOW }), Code::InvalidToken),
        (json!({ "nbf": NOW + 6 }), Code::InvalidToken),
        (json!({ "jti": null }), Code::InvalidToken),
        (json!({ "jti": "" }), Code::InvalidToken),
        (json!({ "jti": "j".repeat(257) }), Code::InvalidToken),
        (json!({ "events": null }), Code::InvalidToken),
        (json!({ "events": { EVENT: null } }), Code::InvalidToken),
        (
            json!({ "events": { EVENT: null, "https://schemas.openid.net/secevent/caep/event-type/session-revoked": {} } }),
            Code::InvalidToken,
        ),
        (json!({ "events": { EVENT: "yes" } }), Code::InvalidToken),
        (json!({ "events": [EVENT] }), Code::InvalidToken),
        (json!({ "events": EVENT }), Code::InvalidToken),
        (json!({ "nonce": "n" }), Code::InvalidToken),
        (json!({ "sid": null, "sub": null }), Code::InvalidToken),
        (json!({ "sid": 5 }), Code::InvalidToken),
        (json!({ "sid": "" }), Code::InvalidToken),
        (json!({ "sid": "two\nlines" }), Code::InvalidToken),
        (json!({ "sid": null, "sub": "two words" }), Code::InvalidToken),
    ] {
        assert_eq!(world.code(&world.token(&json!("logout+jwt"), changes.clone())).await, code, "{changes}");
    }
    let good = claims(json!({})).to_string();
    for (why, compact) in [
        ("another's key", forge(&world.other, &header(&world.other, json!({})), good.as_bytes())),
        ("its kid under another key", forge(&world.other, &header(&world.sso, json!({})), good.as_bytes())),
        ("an access token's type", world.token(&json!("at+jwt"), json!({}))),
        ("another event's type", world.token(&json!("secevent+jwt"), json!({}))),
        ("critical", forge(&world.sso, &header(&world.sso, json!({"typ": null, "crit": ["b64"]})), good.as_bytes())),
        ("no algorithm", forge(&world.sso, &header(&world.sso, json!({"typ": null, "alg": "none"})), good.as_bytes())),
        (
            "twice in one",
            forge(
                &world.sso,
                &header(&world.sso, json!({"typ": null})),
                good.replacen('{', "{\"sid\":\"s\",", 1).as_bytes(),
            ),
        ),
        ("nothing", "a.b.c".to_owned()),
    ] {
        assert_eq!(world.code(&compact).await, Code::InvalidToken, "{why}");
    }
    // One whose issuer is believed about users and not about logouts.
    let told = claims(json!({ "iss": OTHER })).to_string();
    let told = forge(&world.other, &header(&world.other, json!({ "typ": "logout+jwt" })), told.as_bytes());
    assert_eq!(world.code(&told).await, Code::InvalidToken);
}

#[tokio::test]
async fn a_logout_token_without_a_type_is_no_subject_token_and_a_subject_token_no_logout_token() {
    let world = World::new();
    let audiences =
        SubjectAudiences { users: [AUTHORITY.to_owned(), "portal".to_owned()].into(), ..Default::default() };
    let subject = |compact: String| {
        let (verifier, audiences) = (world.verifier.clone(), audiences.clone());
        async move { verifier.verify_subject(&compact, &audiences, now()).await }
    };
    let user = |kind: &Value, changes: Value| {
        let mut claims = user_claims();
        merge(&mut claims, changes);
        forge(&world.sso, &header(&world.sso, json!({ "typ": kind })), claims.to_string().as_bytes())
    };
    for kind in [json!("JWT"), json!(null), json!("at+jwt")] {
        subject(user(&kind, json!({}))).await.unwrap();
        // All that is between them is what the token says of events.
        assert_eq!(
            subject(world.token(&kind, json!({ "client_id": "portal" }))).await.unwrap_err().refusal.code,
            Code::InvalidToken
        );
        subject(world.token(&kind, json!({ "events": null }))).await.unwrap();
        assert_eq!(world.code(&user(&kind, json!({ "aud": "portal" }))).await, Code::InvalidToken, "{kind}");
    }
    assert!(subject(world.token(&json!("logout+jwt"), json!({ "events": null }))).await.is_err());
}

#[test]
fn an_issuer_that_tells_of_logouts_names_the_clients_that_it_tells_it_for() {
    let resolved = |more: &str| {
        let yaml = format!("{{issuer: '{SSO}', tenants: [acme], {more}}}");
        serde_saphyr::from_str::<IssuerConfig>(&yaml).unwrap().resolve()
    };
    assert!(resolved("role: subject, withdrawals: backchannel_logout, logout_clients: [portal]").is_ok());
    for wrong in [
        "role: subject, withdrawals: backchannel_logout",
        "role: subject, withdrawals: backchannel_logout, logout_clients: ['']",
        "role: subject, logout_clients: [portal]",
        "role: delegation, withdrawals: backchannel_logout, logout_clients: [portal]",
    ] {
        let error = resolved(wrong).unwrap_err().to_string();
        assert!(error.contains("backchannel_logout") || error.contains("logout_clients"), "{error}");
    }
    let default = resolved("role: subject").unwrap();
    assert!(default.logout_clients.is_empty() && !default.types.contains(&TokenType::Any));
}
