//! What is for this sidecar is found wherever it stands, and nothing else is taken for it.

use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

fn token(head: &str, claims: &str) -> String {
    format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims))
}

fn ours(text: &str) -> bool {
    has_ours(text, &|issuer| issuer == "https://countersign.example")
}

#[test]
fn a_token_of_an_issuer_that_is_known_is_ours_wherever_it_stands() {
    let good = token(r#"{"alg":"ES256"}"#, r#"{"iss":"https://countersign.example","sub":"alice"}"#);
    for place in ["{}", "Bearer {}", "DPoP  {}", "a={}&b=1", "v1.{}", "Token token=\"{}\"", "/next/{}", "{}.more"] {
        assert!(ours(&place.replace("{}", &good)), "{place}");
    }
}

#[test]
fn what_says_nothing_of_an_issuer_that_is_known_is_the_agents_own() {
    let head = r#"{"alg":"ES256"}"#;
    let others = [
        token(head, r#"{"iss":"https://tool.example"}"#),
        token(head, r#"{"sub":"alice"}"#),
        // A signed cookie of a web framework: no token at all.
        token(r#"{"user":1}"#, "\u{1}\u{2}\u{3}"),
        // An encrypted token has five parts.
        format!("{}.a2V5.aXY.dGV4dA.dGFn", URL_SAFE_NO_PAD.encode(r#"{"alg":"dir","enc":"A128GCM"}"#)),
        "sk-live-1234".to_owned(),
        "a.b.c".to_owned(),
        String::new(),
    ];
    for other in others {
        assert!(!ours(&other), "{other}");
    }
}

#[test]
fn a_token_that_cannot_be_read_in_one_way_is_not_let_past() {
    let head = r#"{"alg":"ES256"}"#;
    for claims in [
        r#"{"iss":"https://tool.example","iss":"https://countersign.example"}"#,
        r#"{"iss":["https://countersign.example"]}"#,
        r#"{"iss":"https://countersign.ex"#,
        "",
    ] {
        assert!(ours(&token(head, claims)), "{claims}");
    }
}
