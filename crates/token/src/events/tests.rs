//! Security events, valid and hostile.

use serde_json::Value;

use super::*;
use crate::{
    Algorithm, SigningKey,
    testing::{NOW, OTHER, SSO, clients, forge, header, issuer, merge, now, public, settings},
};

const HERE: &str = "https://countersign.example/ssf";

struct World {
    key: SigningKey,
    verifier: Verifier,
}

impl World {
    fn new() -> Self {
        let key = SigningKey::generate(Algorithm::Es256).unwrap();
        let transmitter = issuer(&format!("{{issuer: '{SSO}', role: subject, tenants: [acme], types: [JWT]}}"));
        let transmitter = transmitter.with_keys(public(&[&key]));
        let verifier = Verifier::new(settings(vec![transmitter]), &clients(), &net::Tasks::new()).unwrap();
        Self { key, verifier }
    }

    fn token(&self, kind: &Value, changes: Value) -> String {
        forge(&self.key, &header(&self.key, json!({ "typ": kind })), claims(changes).to_string().as_bytes())
    }

    async fn verify(&self, compact: &str) -> Result<SecurityEvents, NoEvents> {
        self.verify_by(compact, false).await
    }

    async fn verify_by(&self, compact: &str, emails: bool) -> Result<SecurityEvents, NoEvents> {
        let (audience, subjects) = ([HERE.to_owned()].into(), [SSO.to_owned()].into());
        let rules = EventRules { audience: &audience, subjects: &subjects, emails };
        self.verifier.verify_events(compact, rules, now()).await
    }

    async fn events(&self, changes: Value) -> Vec<SecurityEvent> {
        self.verify(&self.token(&json!("secevent+jwt"), changes)).await.unwrap().events
    }

    async fn code(&self, changes: Value) -> Code {
        self.verify(&self.token(&json!("secevent+jwt"), changes)).await.unwrap_err().refusal().code
    }
}

fn session_revoked() -> String {
    format!("{CAEP}session-revoked")
}

fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": SSO, "aud": HERE, "iat": NOW - 30, "jti": "event-1",
        "sub_id": { "format": "iss_sub", "iss": SSO, "sub": "alice" },
        "events": { session_revoked(): { "event_timestamp": NOW - 40, "reason_admin": { "de": "weg", "en": "left the company" } } },
    });
    merge(&mut claims, changes);
    claims
}

fn user() -> Target {
    Target::User { issuer: SSO.to_owned(), id: Id::new("alice").unwrap() }
}

fn target_of(events: &[SecurityEvent]) -> &Target {
    match events {
        [SecurityEvent::Ended { of: Ended::Target(target), .. }] => target,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_event_says_what_ended_and_why() {
    let world = World::new();
    let said = world.verify(&world.token(&json!("application/SecEvent+jwt"), json!({}))).await.unwrap();
    let reason = Some("left the company".to_owned());
    let of = Ended::Target(user());
    let ended = SecurityEvent::Ended { kind: "session-revoked".to_owned(), of, reason };
    assert_eq!((said.transmitter.as_str(), said.jti.as_str(), said.events), (SSO, "event-1", vec![ended]));
    assert_eq!(said.expires_at.as_second(), NOW - 30 + 7 * 86_400);
    let complex = |session: Value| {
        json!({ "sub_id": {
            "format": "complex", "sub": null, "iss": null, "session": session,
            "user": { "format": "iss_sub", "iss": SSO, "sub": "alice" },
        } })
    };
    let session = Target::Session { issuer: SSO.to_owned(), sid: "session-1".to_owned() };
    for named in [
        json!({ "format": "opaque", "id": "session-1" }),
        json!({ "format": "iss_sub", "iss": SSO, "sub": "session-1" }),
    ] {
        assert_eq!(target_of(&world.events(complex(named)).await), &session);
    }
    assert_eq!(target_of(&world.events(complex(json!(null))).await), &user());
    let token = json!({ "sub_id": { "format": "jwt_id", "sub": null, "jti": "token-1" } });
    assert_eq!(
        target_of(&world.events(token).await),
        &Target::Token { issuer: SSO.to_owned(), jti: "token-1".to_owned() }
    );
    for (name, body) in [
        (format!("{RISC}account-disabled"), json!({ "reason": "hijacking" })),
        (format!("{RISC}account-purged"), json!({})),
        (format!("{CAEP}credential-change"), json!({ "credential_type": "password", "change_type": "revoke" })),
    ] {
        let events = world.events(json!({ "events": { session_revoked(): null, (name): body } })).await;
        assert_eq!(target_of(&events), &user());
    }
}

#[tokio::test]
async fn a_user_is_named_by_an_address_only_where_that_is_said() {
    let world = World::new();
    let of = |subject: Value| world.token(&json!("secevent+jwt"), json!({ "sub_id": subject }));
    let email = |address: &str| json!({ "format": "email", "email": address, "iss": null, "sub": null });
    let whole = |user: Value| json!({ "format": "complex", "user": user, "iss": null, "sub": null });
    let longest = format!("{}@acme.example", "a".repeat(320 - 13));
    for address in ["alice@acme.example", "a@b", "o'brien+x@xn--bcher-kva.example", &longest] {
        for subject in [email(address), whole(email(address))] {
            let said = world.verify_by(&of(subject.clone()), true).await.unwrap().events;
            let named = matches!(&said[..], [SecurityEvent::Ended { of: Ended::Email(told), .. }] if told == address);
            assert!(named, "{said:?}");
            let refused = world.verify(&of(subject)).await.unwrap_err();
            assert!(refused.refusal().internal.as_ref().unwrap().contains("not configured"), "{refused:?}");
        }
    }
    for hostile in ["", "@", "alice", "alice@", "@acme.example", "a b@acme.example", "a@b\nc", &format!("a{longest}")] {
        let refused = world.verify_by(&of(email(hostile)), true).await.unwrap_err();
        assert_eq!(refused.refusal().code, Code::InvalidToken, "{hostile:?}");
    }
    for hostile in [json!({ "format": "email" }), json!({ "format": "email", "email": ["a@b"] })] {
        assert!(world.verify_by(&of(hostile.clone()), true).await.is_err(), "{hostile}");
    }
    // A session beside it is the session's, as ever.
    let session = json!({ "format": "complex", "iss": null, "sub": null, "user": email("alice@acme.example"),
        "session": { "format": "opaque", "id": "session-1" } });
    let said = world.verify(&of(session)).await.unwrap().events;
    assert_eq!(target_of(&said), &Target::Session { issuer: SSO.to_owned(), sid: "session-1".to_owned() });
}

#[tokio::test]
async fn what_lessens_nothing_ends_nothing() {
    let world = World::new();
    let of = |name: String, body: Value| json!({ "events": { session_revoked(): null, (name): body } });
    let verification = of(format!("{SSF}verification"), json!({ "state": "abc" }));
    assert_eq!(world.events(verification).await, [SecurityEvent::Verification]);
    let updated = of(format!("{SSF}stream-updated"), json!({ "status": "paused" }));
    assert_eq!(world.events(updated).await, [SecurityEvent::StreamUpdated("paused".to_owned())]);
    for (name, body) in [
        (format!("{CAEP}session-established"), json!({})),
        (format!("{CAEP}credential-change"), json!({ "change_type": "create" })),
        (format!("{RISC}account-enabled"), json!({})),
        ("https://elsewhere.example/event".to_owned(), json!({})),
    ] {
        assert_eq!(world.events(of(name.clone(), body)).await, [SecurityEvent::Other(name)]);
    }
}

#[tokio::test]
async fn every_hostile_event_is_refused() {
    let world = World::new();
    for (changes, code) in [
        (json!({ "iss": OTHER }), Code::InvalidToken),
        (json!({ "aud": null }), Code::WrongAudience),
        (json!({ "aud": "https://elsewhere.example" }), Code::WrongAudience),
        (json!({ "sub": "alice" }), Code::InvalidToken),
        (json!({ "exp": NOW + 60 }), Code::InvalidToken),
        (json!({ "nonce": "n" }), Code::InvalidToken),
        (json!({ "iat": null }), Code::InvalidToken),
        (json!({ "iat": "soon" }), Code::InvalidToken),
        (json!({ "iat": NOW + 6 }), Code::InvalidToken),
        (json!({ "iat": NOW - 8 * 86_400 }), Code::Expired),
        (json!({ "jti": null }), Code::InvalidToken),
        (json!({ "jti": "" }), Code::InvalidToken),
        (json!({ "jti": "j".repeat(257) }), Code::InvalidToken),
        (json!({ "events": null }), Code::InvalidToken),
        (json!({ "events": [] }), Code::InvalidToken),
        (json!({ "events": { session_revoked(): null } }), Code::InvalidToken),
        (json!({ "events": { session_revoked(): true } }), Code::InvalidToken),
        (json!({ "sub_id": null }), Code::InvalidToken),
        (json!({ "sub_id": { "format": "email", "email": "alice@acme.example" } }), Code::InvalidToken),
        (json!({ "sub_id": { "format": "opaque", "id": "alice" } }), Code::InvalidToken),
        (json!({ "sub_id": { "sub": null } }), Code::InvalidToken),
        (json!({ "sub_id": { "sub": "" } }), Code::InvalidToken),
        (json!({ "sub_id": { "iss": OTHER } }), Code::InsufficientScope),
        (json!({ "sub_id": { "format": "jwt_id", "iss": OTHER, "jti": "t" } }), Code::InsufficientScope),
        (
            json!({ "sub_id": { "format": "complex", "session": { "format": "iss_sub", "iss": OTHER, "sub": "s" } } }),
            Code::InsufficientScope,
        ),
    ] {
        assert_eq!(world.code(changes.clone()).await, code, "{changes}");
    }
    for kind in [json!(null), json!("JWT"), json!("at+jwt"), json!("logout+jwt"), json!("secevent")] {
        assert_eq!(
            world.verify(&world.token(&kind, json!({}))).await.unwrap_err().refusal().code,
            Code::InvalidToken,
            "{kind}"
        );
    }
    let stranger = SigningKey::generate(Algorithm::Es256).unwrap();
    let forged = forge(
        &stranger,
        &header(&world.key, json!({ "typ": "secevent+jwt" })),
        claims(json!({})).to_string().as_bytes(),
    );
    assert_eq!(world.verify(&forged).await.unwrap_err().refusal().code, Code::InvalidToken);
    let many: serde_json::Map<_, _> = (0..9).map(|number| (format!("https://e.example/{number}"), json!({}))).collect();
    assert_eq!(world.code(json!({ "events": many })).await, Code::InvalidToken);
}
