//! Security events from the identity provider: what they end at the authority is refused at a sidecar that follows.

use serde_json::{Value, json};

use crate::{
    revoke::{Planes, planes_with},
    support::{World, authority::token, http, mark, openid::AUDIENCE, world},
};

const EVENTS: &str = "urn:example:countersign:events";
const SECRET: &str = "pushed-by-the-provider";
const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type/";

/// An authority that believes the provider about its users' sessions and accounts.
fn planes(world: &World, folder: &tempfile::TempDir) -> Planes {
    let secret = folder.path().join("push.secret");
    std::fs::write(&secret, SECRET).unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    planes_with(world, |config| {
        config["authority"]["events"] = json!([{
            "transmitter": world.openid.issuer(), "audience": EVENTS, "keys": "discovery",
            "algorithms": ["ES256"], "push": {"file": secret},
        }]);
    })
}

fn event(world: &World, kind: &str, event: &str, subject: &Value) -> String {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let claims = json!({
        "iss": world.openid.issuer(), "aud": EVENTS, "iat": now, "jti": mark(), "sub_id": subject,
        "events": {event: {"reason_admin": {"en": "reported stolen"}}},
    });
    world.openid.sign(&json!({"key": "current", "header": {"typ": kind}, "claims": claims}))
}

fn push(planes: &Planes, token: &str) -> http::Answer {
    let authorization = format!("Bearer {SECRET}");
    let headers = [("content-type", "application/secevent+jwt"), ("authorization", authorization.as_str())];
    http::request(planes.authority.port(), "POST", "/ssf/events", &headers, token.as_bytes())
}

#[test]
fn a_session_that_was_revoked_and_an_account_that_was_disabled_end_at_the_sidecar() {
    let Some(world) = world() else { return };
    let folder = tempfile::tempdir().unwrap();
    let planes = planes(world, &folder);
    let (grant, left, detached) = planes.task(world, "0");
    let start = ["task", "start", "--grant", &grant, "--stage", "observe", "--presence", "present", "--expires", "1h"];
    let task = planes.json(&planes.alice, &start)["id"].as_str().unwrap().to_owned();
    let reissued = |task: &str| planes.authority.reissue(&planes.agent, &[("task_id", task), ("audience", AUDIENCE)]);
    let bound = token(&reissued(&task));
    let sid = crate::support::openid::claims(&planes.alice)["sid"].as_str().unwrap().to_owned();
    planes.read(&bound).went(200);

    let alice = json!({"format": "iss_sub", "iss": world.openid.issuer(), "sub": "alice"});
    let session = json!({"format": "complex", "user": alice, "session": {"format": "opaque", "id": sid}});
    let revoked = || format!("{CAEP}session-revoked");
    // What is no such token, or nobody's, ends nothing.
    let wrong = event(world, "logout+jwt", &revoked(), &session);
    assert_eq!((push(&planes, &wrong).status, push(&planes, &bound).status), (400, 400));
    planes.read(&bound).went(200);
    let told = event(world, "secevent+jwt", &revoked(), &session);
    assert_eq!(push(&planes, &told).status, 202);
    planes.refused(&bound, "withdrawn");
    assert_eq!(reissued(&task).status, 400);
    planes.read(&detached).went(200);
    assert_eq!(push(&planes, &told).status, 202, "again it is acknowledged");

    let disabled = event(world, "secevent+jwt", &format!("{RISC}account-disabled"), &alice);
    assert_eq!(push(&planes, &disabled).status, 202);
    planes.refused(&detached, "withdrawn");
    assert_eq!(reissued(&left).status, 400);
}
