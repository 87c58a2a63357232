//! The tables of hostile tokens: every row truly signed unless it says otherwise, and refused with its own code.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use model::Code;
use serde_json::{Value, json};

use super::{deep, put, take, with};
use crate::{
    Algorithm, SigningKey,
    testing::{ACT, AUDIENCE, AUTHORITY, NOW, SSO, World, chain_claims, forge, header},
};

/// Every change to a valid chain token, and the code it is refused with.
#[expect(clippy::too_many_lines, reason = "one table, one row a case")]
fn hostile_claims() -> Vec<(&'static str, Value, Code)> {
    use Code::{Chain, Expired, Impersonation, InvalidToken, RobotUser, TenantMismatch, WrongAudience, WrongSender};
    let base = chain_claims;
    let change = |changes| with(base(), changes);
    let support = json!({ "iss": AUTHORITY, "sub": "support", "sub_profile": "ai_agent" });
    vec![
        ("unknown issuer", change(json!({"iss": "https://evil.example"})), InvalidToken),
        ("issuer with a slash more", change(json!({"iss": format!("{AUTHORITY}/")})), InvalidToken),
        ("issuer is no string", change(json!({"iss": 5})), InvalidToken),
        ("other issuer, our key", change(json!({"iss": ACT})), InvalidToken),
        ("no exp", change(json!({"exp": null})), InvalidToken),
        ("exp as text", change(json!({"exp": (NOW + 200).to_string()})), InvalidToken),
        ("exp as a fraction", change(json!({"exp": NOW as f64 + 200.5})), InvalidToken),
        ("exp huge", change(json!({"exp": 1e18})), InvalidToken),
        ("exp beyond time", change(json!({"exp": i64::MAX})), InvalidToken),
        ("exp negative", change(json!({"exp": -1})), InvalidToken),
        ("no iat", change(json!({"iat": null})), InvalidToken),
        ("iat in the future", change(json!({"iat": NOW + 6})), InvalidToken),
        ("lifetime too long", change(json!({"exp": NOW - 10 + 301})), InvalidToken),
        ("ends before it begins", change(json!({"iat": NOW, "exp": NOW})), InvalidToken),
        ("early", change(json!({"nbf": NOW + 6})), InvalidToken),
        ("nbf is null", put(base(), "/nbf", Value::Null), InvalidToken),
        ("expired", change(json!({"iat": NOW - 200, "nbf": NOW - 200, "exp": NOW - 5})), Expired),
        ("no sub", change(json!({"sub": null})), InvalidToken),
        ("sub is a number", change(json!({"sub": 17})), InvalidToken),
        ("no aud", change(json!({"aud": null})), WrongAudience),
        ("other aud", change(json!({"aud": "urn:example:other"})), WrongAudience),
        ("two aud", change(json!({"aud": [AUDIENCE, "urn:example:other"]})), WrongAudience),
        ("aud twice", change(json!({"aud": [AUDIENCE, AUDIENCE]})), WrongAudience),
        ("aud is a number", change(json!({"aud": 5})), InvalidToken),
        ("bound to a key", change(json!({"cnf": {"jkt": "x"}})), WrongSender),
        ("bound in an unknown way", change(json!({"cnf": {"new": "x"}})), WrongSender),
        ("bound to null", put(change(json!({"cnf": 1})), "/cnf", Value::Null), WrongSender),
        ("no actor", change(json!({"act": null})), Impersonation),
        ("no actor and no chain", change(json!({"act": null, "delegation_chain": null})), Impersonation),
        ("no chain", change(json!({"delegation_chain": null})), Chain),
        ("act is null", put(base(), "/act", Value::Null), Chain),
        ("act without sub", take(base(), "/act", "sub"), Chain),
        ("inner act without sub", take(base(), "/act/act", "sub"), Chain),
        ("act is another", change(json!({"act": {"sub": "mallory"}})), Chain),
        ("act of another issuer", change(json!({"act": {"iss": SSO}})), Chain),
        ("inner act left out", take(base(), "/act", "act"), Chain),
        ("other instance", change(json!({"act": {"instance": "r-2"}})), Chain),
        ("chain is null", put(base(), "/delegation_chain", Value::Null), Chain),
        ("chain is empty", change(json!({"delegation_chain": []})), Chain),
        ("chain begins with another", put(base(), "/delegation_chain/0/sub", json!("bob")), Chain),
        ("sub is not who the chain begins with", change(json!({"sub": "bob"})), Chain),
        ("user of an unknown issuer", put(base(), "/delegation_chain/0/iss", json!("https://evil.example")), Chain),
        (
            "hop with an unknown member",
            put(base(), "/delegation_chain/1", with(base()["delegation_chain"][1].clone(), json!({"admin": true}))),
            Chain,
        ),
        ("hop without scope", take(base(), "/delegation_chain/1", "scope"), Chain),
        ("hop without details", take(base(), "/delegation_chain/1", "authorization_details"), Chain),
        (
            "hop with an element of another type",
            put(base(), "/delegation_chain/1/authorization_details/0/type", json!("other")),
            Chain,
        ),
        (
            "hop that widens its scope",
            put(base(), "/delegation_chain/2/scope", json!("orders.read refunds.create customers.read")),
            Chain,
        ),
        (
            "hop that widens a limit",
            put(base(), "/delegation_chain/2/authorization_details/1/limits/amount/max", json!("50.01")),
            Chain,
        ),
        (
            "hop that drops a relation",
            put(base(), "/delegation_chain/2/authorization_details/1/where", json!({})),
            Chain,
        ),
        ("token above its last hop", put(base(), "/authorization_details/1/limits/amount/max", json!("20.01")), Chain),
        ("token without the last hop's limit", take(base(), "/authorization_details/1", "limits"), Chain),
        (
            "token with more scope than its last hop",
            change(json!({"scope": "orders.read refunds.create customers.read"})),
            Chain,
        ),
        (
            "element with an unknown member",
            put(
                base(),
                "/authorization_details/0",
                json!({"type": "urn:countersign:action", "actions": ["orders.read"], "locations": ["orders"], "privileges": ["x"]}),
            ),
            InvalidToken,
        ),
        (
            "two users",
            put(put(base(), "/delegation_chain/1/sub_profile", json!("user")), "/act/act/sub_profile", json!("user")),
            Chain,
        ),
        (
            "first of the chain is a service",
            put(base(), "/delegation_chain/0/sub_profile", json!("service")),
            RobotUser,
        ),
        ("says it is a service", change(json!({"sub_profile": "service"})), RobotUser),
        ("says it is an agent", change(json!({"sub_profile": "ai_agent other"})), RobotUser),
        ("the client itself", change(json!({"client_id": "alice"})), RobotUser),
        (
            "a listed robot",
            put(change(json!({"sub": "svc-night"})), "/delegation_chain/0/sub", json!("svc-night")),
            RobotUser,
        ),
        (
            "loops",
            put(
                with(base(), json!({"act": {"sub": "support", "instance": null}})),
                "/delegation_chain/2",
                with(base()["delegation_chain"][1].clone(), json!({"iss": AUTHORITY})),
            ),
            Chain,
        ),
        (
            "acts for itself",
            put(
                put(change(json!({"act": {"iss": SSO, "sub": "alice"}})), "/delegation_chain/2/iss", json!(SSO)),
                "/delegation_chain/2/sub",
                json!("alice"),
            ),
            Impersonation,
        ),
        ("too deep", deep(5), Chain),
        ("deeper than anything", deep(12), Chain),
        ("tenant of nobody here", change(json!({"tenant": "globex"})), TenantMismatch),
        ("tenant its user's issuer does not have", change(json!({"tenant": "initech"})), TenantMismatch),
        ("tenant its issuer does not have", change(json!({"tenant": "umbrella"})), TenantMismatch),
        ("no tenant where there are several", change(json!({"tenant": null})), TenantMismatch),
        ("tenant that forges a line", change(json!({"tenant": "acme\nx"})), InvalidToken),
        ("unknown stage", change(json!({"stage": "unlimited"})), InvalidToken),
        ("neither run nor jti", change(json!({"run_id": null, "jti": null})), InvalidToken),
        ("run that forges a line", change(json!({"run_id": "a b"})), InvalidToken),
        (
            "chain with one agent only, act with two",
            put(base(), "/delegation_chain", json!([base()["delegation_chain"][0], base()["delegation_chain"][2]])),
            Chain,
        ),
        (
            "actors in the wrong order",
            with(base(), json!({"act": with(support, json!({"act": {"iss": AUTHORITY, "sub": "refunds"}}))})),
            Chain,
        ),
    ]
}

#[tokio::test]
async fn every_hostile_change_to_the_claims_is_refused_with_its_code() {
    let world = World::new();
    for (name, claims, expected) in hostile_claims() {
        let rejection = world.verify(&world.token(&claims)).await.expect_err(name);
        assert_eq!(rejection.refusal.code, expected, "{name}: {:?}", rejection.refusal.internal);
        assert!(rejection.refusal.internal.is_some(), "{name}: the operator is told nothing");
    }
    assert!(world.verify(&world.token(&chain_claims())).await.is_ok());
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one table, one row a case")]
async fn every_hostile_header_and_encoding_is_refused() {
    let world = World::new();
    let key = &world.authority;
    let claims = serde_json::to_vec(&chain_claims()).unwrap();
    let text = String::from_utf8(claims.clone()).unwrap();
    let head = |changes| header(key, changes);
    let plain = || head(json!({}));
    let valid = forge(key, &plain(), &claims);
    let stranger = SigningKey::generate(Algorithm::Es256).unwrap();
    let edwards = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let (signed, signature) = valid.rsplit_once('.').unwrap();
    let hmac_key = hmac::Key::new(hmac::HMAC_SHA256, &serde_json::to_vec(key.public_jwk()).unwrap());
    let hs256 =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(head(json!({"alg": "HS256"}))), URL_SAFE_NO_PAD.encode(&claims));
    let hs256 = format!("{hs256}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&hmac_key, hs256.as_bytes())));
    let none = format!("{}.{}", URL_SAFE_NO_PAD.encode(head(json!({"alg": "none"}))), URL_SAFE_NO_PAD.encode(&claims));
    let nested =
        format!("{}{}{}", text.trim_end_matches('}'), ",\"x\":".to_owned() + &"[".repeat(40), "]".repeat(40) + "}");
    let cases: Vec<(&str, String)> = vec![
        ("empty", String::new()),
        ("dots", "..".to_owned()),
        ("two parts", signed.to_owned()),
        ("four parts", format!("{valid}.")),
        ("five parts", format!("{valid}.a.b")),
        ("padded", format!("{valid}=")),
        ("white space", format!("{valid} ")),
        ("no signature", format!("{signed}.")),
        ("not base64url", format!("{signed}.+{signature}")),
        ("another's signature, same kid", forge(&stranger, &plain(), &claims)),
        (
            "another's signature and key in the header",
            forge(&stranger, &head(json!({"jwk": stranger.public_jwk()})), &claims),
        ),
        ("key address in the header", forge(&stranger, &head(json!({"jku": "https://evil.example/jwks"})), &claims)),
        ("none", format!("{none}.")),
        ("none with a signature", format!("{none}.{signature}")),
        ("NONE", forge(key, &head(json!({"alg": "NONE"})), &claims)),
        ("HMAC with the public key", hs256),
        ("another algorithm", forge(&edwards, &head(json!({"alg": "EdDSA"})), &claims)),
        ("algorithm that is not allowed", forge(key, &head(json!({"alg": "RS256"})), &claims)),
        ("algorithm in lower case", forge(key, &head(json!({"alg": "es256"})), &claims)),
        ("no algorithm", forge(key, &head(json!({"alg": null})), &claims)),
        ("unknown kid", forge(key, &head(json!({"kid": "other"})), &claims)),
        ("kid is a number", forge(key, &head(json!({"kid": 1})), &claims)),
        ("kid too long", forge(key, &head(json!({"kid": "k".repeat(257)})), &claims)),
        ("typ JWT", forge(key, &head(json!({"typ": "JWT"})), &claims)),
        ("no typ", forge(key, &head(json!({"typ": null})), &claims)),
        ("crit", forge(key, &head(json!({"crit": ["exp"]})), &claims)),
        ("empty crit", forge(key, &head(json!({"crit": []})), &claims)),
        ("header is an array", forge(key, b"[]", &claims)),
        (
            "header with a repeated member",
            forge(
                key,
                format!(r#"{{"alg":"ES256","alg":"ES256","kid":"{}","typ":"at+jwt"}}"#, key.id()).as_bytes(),
                &claims,
            ),
        ),
        ("payload is text", forge(key, &plain(), b"\"x\"")),
        ("payload is nothing", forge(key, &plain(), b"")),
        (
            "repeated claim",
            forge(key, &plain(), format!("{},\"sub\":\"alice\"}}", text.strip_suffix('}').unwrap()).as_bytes()),
        ),
        (
            "repeated claim, escaped",
            forge(key, &plain(), format!("{},\"s\\u0075b\":\"alice\"}}", text.strip_suffix('}').unwrap()).as_bytes()),
        ),
        (
            "engine-internal member",
            forge(
                key,
                &plain(),
                text.replace("\"pos\":17", r#""pos":{"$serde_json::private::Number":"17"}"#).as_bytes(),
            ),
        ),
        (
            "not UTF-8",
            forge(key, &plain(), &[claims.strip_suffix(b"}").unwrap(), b",\"x\":\"\xff\"}".as_slice()].concat()),
        ),
        ("deeply nested", forge(key, &plain(), nested.as_bytes())),
        ("number beyond all", forge(key, &plain(), text.replace("\"pos\":17", "\"pos\":1e400").as_bytes())),
        ("trailing bytes", forge(key, &plain(), format!("{text} x").as_bytes())),
        (
            "oversized",
            forge(key, &plain(), with(chain_claims(), json!({"x": "y".repeat(13_000)})).to_string().as_bytes()),
        ),
    ];
    for (name, compact) in cases {
        assert_eq!(world.code(&compact).await, Code::InvalidToken, "{name}");
    }
    assert!(world.verify(&valid).await.is_ok());
    for kind in ["AT+JWT", "application/at+jwt"] {
        assert!(world.verify(&forge(key, &head(json!({"typ": kind})), &claims)).await.is_ok(), "{kind}");
    }
    assert!(world.verify(&forge(key, &head(json!({"kid": null})), &claims)).await.is_ok());
}
