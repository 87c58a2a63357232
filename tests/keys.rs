//! The issuer's keys: rotated, taken back, flooded with unknown names, unreachable and broken.

use serde_json::{Value, json};

use crate::support::{Sidecar, World, eventually, openid::OpenId, sidecar::Setup, world};

/// A provider of the test's own, since its keys change, with a sidecar that refreshes them often.
fn own(world: &World, change: impl FnOnce(&mut Value)) -> Option<(OpenId, Sidecar)> {
    let openid = OpenId::start()?;
    let sidecar = Setup::new(&openid, &world.tool)
        .with(|config| config["issuers"][0]["refresh"] = json!("1s"))
        .with(change)
        .start();
    Some((openid, sidecar))
}

fn status(sidecar: &Sidecar, token: &str) -> u16 {
    sidecar.plain_get("/orders/v1/orders/17", &[("authorization", &format!("Bearer {token}"))]).status
}

#[test]
fn a_new_key_is_accepted_without_a_restart_and_a_removed_one_no_longer() {
    let Some(world) = world() else { return };
    let Some((openid, sidecar)) = own(world, |_| ()) else { return };
    let old = openid.delegated("alice");
    assert_eq!(status(&sidecar, &old), 200);

    openid.control("POST", "/rotate", &json!({"alg": "ES256"}));
    let new = openid.delegated("alice");
    assert_ne!(new.split('.').next(), old.split('.').next(), "another key signed");
    // An unknown name makes the sidecar look again, if it has not just looked.
    eventually("the new key to be known", || (status(&sidecar, &new) == 200).then_some(()));
    assert_eq!(status(&sidecar, &old), 200, "both are published");

    openid.control("POST", "/rotate", &json!({"alg": "ES256", "remove_old": true}));
    // The old token is in the cache of verified ones; that must not keep it good.
    eventually("the removed key to be refused", || (status(&sidecar, &old) == 401).then_some(()));
    let signed_after = openid.sign(&json!({"like": old, "key": "removed", "claims": {"jti": "another"}}));
    sidecar.get("/orders/v1/orders/17", &signed_after).send().refused(401, "invalid_token");
    let newest = openid.delegated("alice");
    eventually("the newest key to be known", || (status(&sidecar, &newest) == 200).then_some(()));
}

#[test]
fn a_flood_of_unknown_keys_is_no_flood_for_the_issuer() {
    let Some(world) = world() else { return };
    let Some((openid, sidecar)) = own(world, |config| config["issuers"][0]["refresh"] = json!("1h")) else { return };
    let good = openid.delegated("alice");
    assert_eq!(status(&sidecar, &good), 200);
    let before = openid.count("jwks");
    let forged: Vec<String> = (0..60)
        .map(|n| openid.sign(&json!({"like": good, "key": "unpublished", "header": {"kid": format!("unknown-{n}")}})))
        .collect();
    std::thread::scope(|scope| {
        for part in forged.chunks(15) {
            let sidecar = &sidecar;
            scope.spawn(move || {
                for token in part {
                    sidecar.get("/orders/v1/orders/17", token).send().refused(401, "invalid_token");
                }
            });
        }
    });
    let fetches = openid.count("jwks") - before;
    assert!(fetches <= 2, "{fetches} fetches for 60 forged tokens");
    assert_eq!(status(&sidecar, &good), 200, "others are served");
}

#[test]
fn keys_that_cannot_be_had_at_start_are_had_later() {
    let Some(world) = world() else { return };
    let Some(openid) = OpenId::start() else { return };
    openid.control("POST", "/jwks-status", &json!({"status": 503}));
    let mut sidecar =
        Setup::new(&openid, &world.tool).with(|config| config["issuers"][0]["refresh"] = json!("1s")).start_unready();
    let token = openid.delegated("alice");
    eventually("the sidecar to answer without keys", || {
        assert!(sidecar.daemon.ended().is_none(), "{}", sidecar.daemon.output());
        let listening = std::net::TcpStream::connect(("127.0.0.1", sidecar.port())).is_ok();
        (listening && status(&sidecar, &token) == 503).then_some(())
    });
    let answer = sidecar.get("/orders/v1/orders/17", &token).send();
    answer.refused(503, "keys_unavailable");
    assert!(!sidecar.is_ready(), "it says that it is ready and cannot serve anybody");

    openid.control("POST", "/jwks-status", &json!({}));
    sidecar.until_ready();
    eventually("the keys to be there", || (status(&sidecar, &token) == 200).then_some(()));
}

#[test]
fn keys_that_grow_too_old_serve_nobody_until_they_can_be_fetched_again() {
    let Some(world) = world() else { return };
    let Some((openid, sidecar)) = own(world, |config| config["issuers"][0]["max_stale"] = json!("2s")) else { return };
    let token = openid.delegated("alice");
    eventually("the keys to be there", || (status(&sidecar, &token) == 200).then_some(()));
    openid.control("POST", "/jwks-status", &json!({"status": 500}));
    eventually("the keys to be too old", || (status(&sidecar, &token) == 503).then_some(()));
    sidecar.get("/orders/v1/orders/17", &token).send().refused(503, "keys_unavailable");
    openid.control("POST", "/jwks-status", &json!({}));
    eventually("the keys to be fetched again", || (status(&sidecar, &token) == 200).then_some(()));
}

#[test]
fn metadata_leads_neither_to_another_issuer_nor_to_an_address_inside() {
    let Some(world) = world() else { return };
    let (Some(openid), Some(inside)) = (OpenId::start(), OpenId::start()) else { return };
    let token = openid.delegated("alice");
    let documents = [
        json!({"issuer": openid.issuer(), "jwks_uri": format!("{}/jwks", inside.issuer())}),
        json!({"issuer": inside.issuer(), "jwks_uri": format!("{}/jwks", openid.issuer())}),
        json!({"issuer": openid.issuer(), "jwks_uri": "file:///etc/passwd"}),
        json!({"issuer": openid.issuer()}),
    ];
    for document in documents {
        openid.control("POST", "/discovery-status", &json!({"body": document.to_string()}));
        let asked = openid.count("discovery");
        let sidecar = Setup::new(&openid, &world.tool).start_unready();
        eventually("the metadata to be read and refused", || {
            let listening = std::net::TcpStream::connect(("127.0.0.1", sidecar.port())).is_ok();
            (listening && openid.count("discovery") > asked && status(&sidecar, &token) == 503).then_some(())
        });
        assert!(!sidecar.is_ready(), "{document}");
    }
    assert_eq!((inside.count("jwks"), openid.count("jwks")), (0, 0), "keys were fetched from where they must not be");
}

#[test]
fn a_sound_set_without_a_key_is_the_issuers_word_and_a_shared_secret_is_no_key() {
    let Some(world) = world() else { return };
    let Some((openid, sidecar)) = own(world, |_| ()) else { return };
    let token = openid.delegated("alice");
    let secret = r#"{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"hmac","alg":"HS256"}]}"#;
    for body in [r#"{"keys":[]}"#, secret] {
        eventually("the keys to be there", || (status(&sidecar, &token) == 200).then_some(()));
        openid.control("POST", "/jwks-status", &json!({"body": body}));
        eventually("the keys to be gone", || (status(&sidecar, &token) != 200).then_some(()));
        let forged = openid.sign(&json!({"like": token, "key": "public-as-secret", "header": {"kid": "hmac"}}));
        assert_eq!(status(&sidecar, &forged), 401);
        openid.control("POST", "/jwks-status", &json!({}));
    }
    eventually("the keys to be there", || (status(&sidecar, &token) == 200).then_some(()));
}

#[test]
fn a_broken_key_set_leaves_the_last_good_one_in_use() {
    let Some(world) = world() else { return };
    let Some((openid, sidecar)) = own(world, |_| ()) else { return };
    let token = openid.delegated("alice");
    assert_eq!(status(&sidecar, &token), 200);
    let broken = [
        json!({"body": "garbage", "content_type": "text/html"}),
        json!({"body": "{\"keys\":[{\"kty\":\"EC\"}],\"keys\":[]}"}),
        json!({"status": 302, "body": ""}),
        json!({"body": "[".repeat(5000)}),
    ];
    for fault in broken {
        openid.control("POST", "/jwks-status", &fault);
        let before = openid.count("jwks");
        eventually("the sidecar to see the broken set", || (openid.count("jwks") > before).then_some(()));
        // Another token each time, so that no cache of verified ones answers for the keys.
        let fresh = openid.delegated("alice");
        assert_eq!(status(&sidecar, &fresh), 200, "{fault}");
    }
    openid.control("POST", "/jwks-status", &json!({"body": "x".repeat(512 << 10)}));
    let before = openid.count("jwks");
    eventually("the sidecar to see the huge set", || (openid.count("jwks") > before).then_some(()));
    assert_eq!(status(&sidecar, &openid.delegated("alice")), 200);
    assert!(sidecar.daemon.output().contains("keys") || sidecar.metrics().contains("jwks"), "nobody is told");
}
