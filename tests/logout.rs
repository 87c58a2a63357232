//! Back-channel logout: the identity provider itself tells the authority that a session ended, and the calls of what
//! was bound to that session are refused at a sidecar that follows.

use serde_json::json;

use crate::{
    revoke::{Planes, planes_with},
    support::{
        World,
        authority::token,
        http, mark,
        openid::{AUDIENCE, claims},
        world,
    },
};

/// An authority that believes the provider about the sessions of its portal's users.
fn planes(world: &World) -> Planes {
    planes_with(world, |config| {
        config["issuers"][0]["withdrawals"] = json!("backchannel_logout");
        config["issuers"][0]["logout_clients"] = json!(["portal"]);
    })
}

#[test]
fn a_logout_at_the_provider_ends_what_was_bound_to_that_session_at_the_sidecar() {
    let Some(world) = world() else { return };
    let planes = planes(world);
    let uri = format!("{}/oidc/backchannel_logout", planes.authority.issuer());
    let metadata = planes.authority.get("/.well-known/oauth-authorization-server").json();
    assert_eq!(metadata["backchannel_logout_uri"], uri);

    // One task for which alice is there, by the session that she started it in, and one that she left alone.
    let (grant, left, detached) = planes.task(world, "0");
    let start = ["task", "start", "--grant", &grant, "--stage", "observe", "--presence", "present", "--expires", "1h"];
    let task = planes.json(&planes.alice, &start)["id"].as_str().unwrap().to_owned();
    let reissued = |task: &str| planes.authority.reissue(&planes.agent, &[("task_id", task), ("audience", AUDIENCE)]);
    let bound = token(&reissued(&task));
    let sid = claims(&planes.alice)["sid"].as_str().unwrap().to_owned();
    assert_eq!(claims(&bound)["sid"], sid.as_str());
    planes.read(&bound).went(200);

    let told = |asked| world.openid.control("POST", "/logout", &asked);
    told(json!({"client_id": "portal", "username": "alice", "sid": "another", "uri": uri}));
    planes.read(&bound).went(200);
    told(json!({"client_id": "portal", "username": "alice", "sid": sid, "uri": uri}));
    planes.refused(&bound, "withdrawn");
    assert_eq!(reissued(&task).status, 400);
    planes.read(&detached).went(200);

    // Without a session it is all of hers.
    told(json!({"client_id": "portal", "username": "alice", "uri": uri}));
    planes.refused(&detached, "withdrawn");
    assert_eq!(reissued(&left).status, 400);
}

#[test]
fn what_the_provider_signed_for_somebody_else_or_for_something_else_ends_nothing() {
    let Some(world) = world() else { return };
    let planes = planes(world);
    let (_, _, held) = planes.task(world, "0");
    let user = world.openid.user("alice");
    let event = json!({"http://schemas.openid.net/event/backchannel-logout": {}});
    let sign = |key: &str, kind: &str, client: &str| {
        let claims = json!({
            "iss": world.openid.issuer(), "aud": client, "sub": "alice", "jti": mark(), "events": event,
        });
        let from_now = json!({"iat": 0, "exp": 60});
        world.openid.sign(&json!({"key": key, "header": {"typ": kind}, "claims": claims, "from_now": from_now}))
    };
    let tell = |token: &str| {
        http::post_form(planes.authority.port(), "/oidc/backchannel_logout", &[], &[("logout_token", token)])
    };
    for (why, token) in [
        ("a user's token", user),
        ("a delegated token", held.clone()),
        ("another client's", sign("current", "logout+jwt", "support-v1")),
        ("an access token's type", sign("current", "at+jwt", "portal")),
        ("a key of nobody's", sign("unpublished", "logout+jwt", "portal")),
        ("no key", sign("none", "logout+jwt", "portal")),
        ("the public key as a secret", sign("public-as-secret", "logout+jwt", "portal")),
    ] {
        let answer = tell(&token);
        assert_eq!((answer.status, answer.json()["error"].as_str()), (400, Some("invalid_request")), "{why}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    planes.read(&held).went(200);
    // The same as it should be, and once.
    let right = sign("current", "logout+jwt", "portal");
    tell(&right).went(200);
    planes.refused(&held, "withdrawn");
    assert_eq!(tell(&right).status, 400);
}
