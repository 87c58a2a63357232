//! Agents that authenticate by the client certificate of their connection, and tokens that are good with it alone.

use std::sync::Arc;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use http::StatusCode;
use net::{Peer, PeerCertificate, PeerIdentity};
use serde_json::{Value, json};

use super::world::{Answer, World, form, payload};

const SUPPORT: &str = "spiffe://acme.example/agent/support";
const WRITER: &str = "CN=writer, O=acme";

/// A connection with this certificate.
pub(super) fn peer(identity: PeerIdentity, thumbprint: u8) -> Peer {
    let certificate = PeerCertificate { identity, x5t_s256: [thumbprint; 32] };
    Peer { secure: true, certificate: Some(Arc::new(certificate)), ..Peer::tcp(([127, 0, 0, 1], 1).into()) }
}

fn spiffe(id: &str) -> Peer {
    peer(PeerIdentity::Spiffe(id.to_owned()), 7)
}

fn subject(name: &str) -> Peer {
    peer(PeerIdentity::Subject(name.to_owned()), 8)
}

async fn world() -> World {
    let named = |store: &mut Value| {
        let agents = store["agents"].as_array_mut().unwrap();
        for agent in agents {
            let credential = match agent["id"].as_str().unwrap() {
                "support" => json!({ "spiffe": SUPPORT }),
                "writer" => json!({ "subject": WRITER }),
                _ => continue,
            };
            agent["credentials"].as_array_mut().unwrap().push(credential);
        }
    };
    World::with(named, |_| ()).await
}

async fn exchange(world: &World, peer: Peer, parameters: &[(&str, &str)]) -> Answer {
    let usual = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
    ];
    world.send_from(peer, form("/oauth2/token", &[&usual, parameters].concat())).await
}

async fn first(world: &World, peer: Peer, client: &str) -> Answer {
    let user = world.user_token(json!({}));
    exchange(world, peer, &[("client_id", client), ("subject_token", &user), ("task_id", "ticket")]).await
}

#[tokio::test]
async fn an_agent_is_known_by_the_name_in_its_certificate_and_its_token_is_bound_to_it() {
    let world = world().await;
    let token = first(&world, spiffe(SUPPORT), "support").await.token();
    let said = payload(&token);
    let thumbprint = URL_SAFE_NO_PAD.encode([7; 32]);
    assert_eq!(said["cnf"], json!({ "x5t#S256": thumbprint }));
    assert_eq!((&said["client_id"], &said["act"]["sub"]), (&json!("support"), &json!("support")));
    // Without a certificate nothing is bound, as before.
    assert!(payload(&world.first_token().await).get("cnf").is_none());
    let answer = first(&world, subject(WRITER), "writer").await;
    assert_eq!(answer.error().0, "invalid_request", "known, and the task is another agent's: {}", answer.body);
}

#[tokio::test]
async fn when_an_agent_last_showed_who_it_is_is_known_and_nobody_else_shows_it() {
    let world = world().await;
    let seen = async |agent: &str| {
        let shown = world.manage("GET", &format!("agents/{agent}"), &world.admin_token(), Value::Null).await.done();
        shown["last_seen_at"].is_string()
    };
    assert_eq!(first(&world, subject(SUPPORT), "support").await.error().0, "invalid_client");
    assert!(!seen("support").await && !seen("writer").await);
    first(&world, spiffe(SUPPORT), "support").await.token();
    assert!(seen("support").await && !seen("writer").await);
    assert_eq!(world.exchange("writer", &[("subject_token", "none")]).await.error().0, "invalid_request", "by its key");
    assert!(seen("writer").await);
}

#[tokio::test]
async fn nobody_is_let_in_by_a_certificate_that_is_not_theirs() {
    let world = world().await;
    for (why, peer, client) in [
        ("another workload", spiffe("spiffe://acme.example/agent/other"), "support"),
        ("another trust domain", spiffe("spiffe://evil.example/agent/support"), "support"),
        ("a longer path", spiffe("spiffe://acme.example/agent/support/x"), "support"),
        ("the subject of one that has a SPIFFE ID", subject(SUPPORT), "support"),
        ("a SPIFFE ID of one that has a subject", spiffe(WRITER), "writer"),
        ("another subject", subject("CN=writer, O=evil"), "writer"),
        ("an agent with keys alone", spiffe(SUPPORT), "researcher"),
        ("another agent", spiffe(SUPPORT), "writer"),
        ("nobody", spiffe(SUPPORT), "nobody"),
        ("no certificate", Peer::tcp(([127, 0, 0, 1], 1).into()), "support"),
    ] {
        let answer = first(&world, peer, client).await;
        assert_eq!((answer.status, answer.error().0), (StatusCode::UNAUTHORIZED, "invalid_client"), "{why}");
    }
    let user = world.user_token(json!({}));
    let unnamed = exchange(&world, spiffe(SUPPORT), &[("subject_token", &user), ("task_id", "ticket")]).await;
    assert_eq!(unnamed.error().0, "invalid_client");
    let secret = exchange(&world, spiffe(SUPPORT), &[("client_id", "support"), ("client_secret", "x")]).await;
    assert_eq!(secret.error().0, "invalid_client");
    // An assertion that is wrong is not made good by the certificate beside it.
    let expired = world.assertion("support", json!({ "exp": super::world::now() - 60 }));
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    let both = [("client_assertion_type", kind), ("client_assertion", expired.as_str()), ("client_id", "support")];
    assert_eq!(exchange(&world, spiffe(SUPPORT), &both).await.error().0, "invalid_client");
}

#[tokio::test]
async fn a_token_names_the_instance_whose_certificate_was_shown_and_no_other_hands_it_on() {
    const COPIES: &str = "spiffe://acme.example/copies";
    let of = |store: &mut Value| {
        let support = store["agents"].as_array_mut().unwrap().iter_mut().find(|agent| agent["id"] == "support");
        support.unwrap()["credentials"].as_array_mut().unwrap().push(json!({ "spiffe": format!("{COPIES}/*") }));
    };
    let world = World::with(of, |_| ()).await;
    let copy = |name: &str| format!("{COPIES}/{name}");
    for stranger in [COPIES.to_owned(), copy("a/b"), format!("{COPIES}x/a")] {
        assert_eq!(first(&world, spiffe(&stranger), "support").await.error().0, "invalid_client", "{stranger}");
    }
    let token = first(&world, spiffe(&copy("a")), "support").await.token();
    let said = payload(&token);
    assert_eq!(
        (&said["act"]["instance"], &said["delegation_chain"][1]["instance"]),
        (&json!(copy("a")), &json!(copy("a")))
    );
    // The same thumbprint, so that it is the name alone which tells them apart.
    let hand_over = [("client_id", "support"), ("subject_token", token.as_str()), ("requested_actor", "researcher")];
    for _ in 0..2 {
        let other = exchange(&world, spiffe(&copy("b")), &hand_over).await;
        assert_eq!((other.error().0, &other.body["code"]), ("invalid_request", &json!("wrong_sender")));
    }
    let alerts = world.records("alert.raised");
    assert_eq!(alerts.len(), 1, "told once a minute");
    let text = |name: &str| alerts[0].text(name).unwrap().to_owned();
    assert_eq!(
        (text("alert"), text("instance"), text("presented_instance")),
        ("used_by_another".to_owned(), copy("a"), copy("b"))
    );
    exchange(&world, spiffe(&copy("a")), &hand_over).await.token();

    // One that is taken back gets nothing any more; the others go on.
    let target = json!({ "kind": "instance", "issuer": world.authority.settings.issuer, "agent": "support", "instance": copy("a") });
    let body = json!({ "target": target, "reason": "a shell was opened in it" });
    world.manage("POST", "withdrawals", &world.admin_token(), body).await.done();
    assert_eq!(exchange(&world, spiffe(&copy("a")), &hand_over).await.error().0, "invalid_request");
    let again = first(&world, spiffe(&copy("a")), "support").await;
    assert_eq!((again.error().0, &again.body["code"]), ("invalid_request", &json!("withdrawn")));
    first(&world, spiffe(&copy("b")), "support").await.token();
}

#[tokio::test]
async fn an_agent_without_a_certificate_says_itself_which_instance_it_is() {
    let world = world().await;
    let asked = async |change: Value| {
        let assertion = world.assertion("support", change);
        let user = world.user_token(json!({}));
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        let parameters = [
            ("client_assertion_type", kind),
            ("client_assertion", &assertion),
            ("subject_token", &user),
            ("task_id", "ticket"),
        ];
        exchange(&world, Peer::tcp(([127, 0, 0, 1], 1).into()), &parameters).await
    };
    assert_eq!(payload(&asked(json!({ "instance": "pod-1" })).await.token())["act"]["instance"], "pod-1");
    assert!(payload(&asked(json!({})).await.token())["act"].get("instance").is_none());
    // What it says when it shows another's token may be another word each time: that is one alert all the same.
    let token = asked(json!({ "instance": "pod-1" })).await.token();
    for number in 2..5 {
        let assertion = world.assertion("support", json!({ "instance": format!("pod-{number}") }));
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        let parameters = [
            ("client_assertion_type", kind),
            ("client_assertion", &assertion),
            ("subject_token", &token),
            ("requested_actor", "researcher"),
        ];
        let other = exchange(&world, Peer::tcp(([127, 0, 0, 1], 1).into()), &parameters).await;
        assert_eq!(other.body["code"], "wrong_sender");
    }
    assert_eq!(world.records("alert.raised").len(), 1);
    // Only a certificate says what looks like the name in one.
    for hostile in [
        json!(""),
        json!(1),
        json!(["pod-1"]),
        json!("a\nb"),
        json!("spiffe://acme.example/copies/a"),
        json!("x".repeat(257)),
    ] {
        assert_eq!(asked(json!({ "instance": hostile })).await.error().0, "invalid_client", "{hostile}");
    }
}

#[tokio::test]
async fn an_agent_is_known_by_the_very_certificate_that_it_registered_whoever_signed_that() {
    let own = [1; 40];
    let thumbprint: [u8; 32] = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &own).as_ref().try_into().unwrap();
    let (chain, text) = (STANDARD.encode(own), URL_SAFE_NO_PAD.encode(thumbprint));
    let shown = |identity, thumbprint| {
        let certificate = PeerCertificate { identity, x5t_s256: thumbprint };
        Peer { certificate: Some(Arc::new(certificate)), ..peer(PeerIdentity::SelfSigned, 0) }
    };
    for (why, registered, known) in [
        ("its chain", json!({"x5c": [chain, STANDARD.encode([2; 40])]}), true),
        ("its thumbprint", json!({"x5t#S256": text}), true),
        ("both", json!({"x5c": [chain], "x5t#S256": text}), true),
        ("only as who signed another", json!({"x5c": [STANDARD.encode([2; 40]), chain]}), false),
        ("two that differ", json!({"x5c": [chain], "x5t#S256": URL_SAFE_NO_PAD.encode([7; 32])}), false),
        ("an empty chain", json!({"x5c": []}), false),
        ("a chain that is none", json!({"x5c": chain}), false),
        ("nothing in it", json!({"x5c": [""], "x5t#S256": ""}), false),
        ("another thumbprint", json!({"x5t": text}), false),
        ("no certificate", json!({}), false),
    ] {
        let mut key = registered;
        key["kty"] = json!("EC");
        let world = World::with(
            |store| {
                let support = store["agents"].as_array_mut().unwrap().iter_mut().find(|it| it["id"] == "support");
                support.unwrap()["credentials"].as_array_mut().unwrap().push(json!({"jwks": {"keys": [key]}}));
            },
            |_| (),
        )
        .await;
        for identity in [PeerIdentity::SelfSigned, PeerIdentity::Subject(WRITER.to_owned())] {
            let answer = first(&world, shown(identity, thumbprint), "support").await;
            assert_eq!(answer.status == StatusCode::OK, known, "{why}: {}", answer.body);
            if known {
                assert_eq!(payload(&answer.token())["cnf"], json!({ "x5t#S256": text }), "{why}");
            } else {
                assert_eq!(answer.error().0, "invalid_client", "{why}");
            }
        }
        let another = first(&world, shown(PeerIdentity::SelfSigned, [9; 32]), "support").await;
        assert_eq!(another.error().0, "invalid_client", "{why}");
        let client = first(&world, shown(PeerIdentity::SelfSigned, thumbprint), "writer").await;
        assert_eq!(client.error().0, "invalid_client", "{why}: another agent's");
    }
}

#[tokio::test]
async fn a_bound_token_is_handed_on_by_whoever_it_is_bound_to_and_by_nobody_else() {
    let world = world().await;
    let token = first(&world, spiffe(SUPPORT), "support").await.token();
    let hand_over = [("client_id", "support"), ("subject_token", token.as_str()), ("requested_actor", "researcher")];
    // The agent itself, by its key alone or with another certificate: it does not show that it holds the token's.
    assert_eq!(world.hand_over("support", &token, "researcher").await.error().0, "invalid_request");
    let other = peer(PeerIdentity::Spiffe(SUPPORT.to_owned()), 9);
    assert_eq!(exchange(&world, other, &hand_over).await.error().0, "invalid_request");
    let handed = exchange(&world, spiffe(SUPPORT), &hand_over).await.token();
    assert!(payload(&handed).get("cnf").is_none(), "whoever takes over shows who they are by their own means");
    let taken = world.exchange("researcher", &[("subject_token", &handed)]).await.token();
    assert_eq!(payload(&taken)["act"]["sub"], "researcher");

    // Told of and given back over the same connection.
    let asked = [("client_id", "support"), ("token", token.as_str())];
    let introspected = world.send_from(spiffe(SUPPORT), form("/oauth2/introspect", &asked)).await;
    assert_eq!((&introspected.body["active"], introspected.body["cnf"].is_object()), (&json!(true), true));
    let revoked = world.send_from(spiffe(SUPPORT), form("/oauth2/revoke", &asked)).await;
    assert_eq!(revoked.status, StatusCode::OK);
    let introspected = world.send_from(spiffe(SUPPORT), form("/oauth2/introspect", &asked)).await;
    assert_eq!(introspected.body["active"], false);
}
