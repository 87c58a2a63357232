//! Every kind of token at every door but its own. Each is signed with the very key that the door believes, by its issuer,
//! for its audience and in time: what keeps it out is its kind alone.

use serde_json::{Value, json};
use token::{Algorithm, POSSESSION_TYPE, SIDECAR_ASSERTION_TYPE, SigningKey, TRANSACTION_TOKEN_TYPE};

use super::{
    events::{self, AUDIENCE, SECRET},
    world::{ISSUER, MANAGEMENT, SIDECAR, SSO, World, now, payload},
};

/// A kind of token: its `typ`, and what it has besides who, for whom and when.
struct Kind {
    name: &'static str,
    kind: &'static str,
    claims: Value,
}

/// Who believes whom.
struct Doors {
    world: World,
    own: SigningKey,
    sidecar: SigningKey,
    /// The sidecar's name.
    subject: String,
    joining: SigningKey,
    join: String,
}

/// What a door wants of a token that comes to it.
struct Wanted<'a> {
    key: &'a SigningKey,
    issuer: String,
    subject: String,
    audience: &'static str,
    /// Whether its tokens have `sub` and `exp`, which a SET has not.
    ends: bool,
}

const DOORS: [&str; 8] = ["subject", "delegation", "client", "sidecar", "logout", "event", "management", "possession"];

impl Doors {
    async fn new() -> Self {
        let world = events::world().await;
        let world = world.believing(|issuer| {
            issuer["withdrawals"] = json!("backchannel_logout");
            issuer["logout_clients"] = json!(["portal"]);
        });
        let world = world.await;
        let key = || SigningKey::generate(Algorithm::EdDsa).unwrap();
        let invite = || async {
            let body = json!({ "tenants": ["acme"] });
            let made = world.manage("POST", "sidecars", &world.admin_token(), body).await.done();
            made["token"].as_str().unwrap().to_owned()
        };
        let (sidecar, joining) = (key(), key());
        let (first, join) = (invite().await, invite().await);
        let enrolled =
            world.manage("POST", "sidecars/enrol", "", super::follow::joining(&first, "edge", &sidecar)).await;
        let subject = enrolled.done()["subject"].as_str().unwrap().to_owned();
        let keys = world.folder.path().join("keys");
        Self { own: SigningKey::load(&keys.join("es256.pem")).unwrap(), world, sidecar, subject, joining, join }
    }

    fn wanted(&self, door: &str) -> Wanted<'_> {
        let thumbprint = format!("urn:ietf:params:oauth:jwk-thumbprint:sha-256:{}", self.joining.id());
        let of = |key, issuer: &str, subject: &str, audience| Wanted {
            key,
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
            audience,
            ends: true,
        };
        match door {
            "subject" => of(&self.world.sso, SSO, "alice", "https://api.example"),
            "delegation" => of(&self.own, ISSUER, "alice", SIDECAR),
            "client" => of(&self.world.agents["support"], "support", "support", ISSUER),
            "sidecar" => of(&self.sidecar, &self.subject, &self.subject, ISSUER),
            "logout" => of(&self.world.sso, SSO, "alice", "portal"),
            "event" => Wanted { ends: false, ..of(&self.world.sso, SSO, "alice", AUDIENCE) },
            "management" => of(&self.world.sso, SSO, "alice", MANAGEMENT),
            _ => of(&self.joining, &thumbprint, &thumbprint, ISSUER),
        }
    }

    /// A token of `kind` as `door` would like it best.
    fn token(&self, kind: &Kind, door: &str) -> String {
        let Wanted { key, issuer, subject, audience, ends } = self.wanted(door);
        let mut claims = kind.claims.clone();
        for (name, value) in [
            ("iss", json!(issuer)),
            ("sub", json!(subject)),
            ("aud", json!(audience)),
            ("iat", json!(now())),
            ("exp", json!(now() + 50)),
            ("jti", json!(uuid::Uuid::now_v7().to_string())),
        ] {
            if ends || !matches!(name, "sub" | "exp") {
                claims[name] = value;
            }
        }
        key.sign(kind.kind, &claims).unwrap().expose().to_owned()
    }

    /// Whether the door opens.
    async fn opens(&self, door: &str, token: &str) -> bool {
        let world = &self.world;
        match door {
            "subject" => {
                world.exchange("support", &[("subject_token", token), ("task_id", "ticket")]).await.status == 200
            }
            "delegation" => world.verify(token).await.is_ok(),
            "client" => world.first(&[("client_assertion", token)]).await.status == 200,
            "sidecar" => world.manage("GET", "changes", token, Value::Null).await.status == 200,
            "logout" => world.post_to("/oidc/backchannel_logout", &[("logout_token", token)]).await.status == 200,
            "event" => events::pushed_with(world, token, "application/secevent+jwt", Some(SECRET)).await.0 == 202,
            "management" => world.manage("GET", "tasks", token, Value::Null).await.status == 200,
            _ => {
                let body =
                    json!({ "token": self.join, "name": "late", "jwk": self.joining.public_jwk(), "proof": token });
                world.manage("POST", "sidecars/enrol", "", body).await.status == 201
            }
        }
    }
}

async fn kinds(doors: &Doors) -> Vec<Kind> {
    let mut delegated = payload(&doors.world.first_token().await);
    for name in ["iss", "sub", "aud", "iat", "exp", "jti"] {
        delegated.as_object_mut().unwrap().remove(name);
    }
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, doors.join.as_bytes());
    let evidence = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, hash);
    let logout = "http://schemas.openid.net/event/backchannel-logout";
    let revoked = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
    let kind = |name, kind, claims| Kind { name, kind, claims };
    vec![
        kind("subject", "at+jwt", json!({ "client_id": "portal", "sid": "session-1", "groups": ["support"] })),
        kind("delegation", "at+jwt", delegated),
        kind("client", "JWT", json!({})),
        kind("sidecar", SIDECAR_ASSERTION_TYPE, json!({})),
        kind("logout", "logout+jwt", json!({ "sid": "another", "events": { logout: {} } })),
        kind(
            "event",
            token::SECURITY_EVENT_TYPE,
            json!({ "sub_id": { "format": "iss_sub", "iss": SSO, "sub": "somebody" }, "events": { revoked: {} } }),
        ),
        kind("management", "at+jwt", json!({ "client_id": "countersign-cli", "auth_time": now() })),
        kind("possession", POSSESSION_TYPE, json!({ "evidence": evidence })),
        kind(
            "transaction",
            TRANSACTION_TOKEN_TYPE,
            json!({ "txn": "t", "tenant": "acme", "scope": "orders.read", "req_wl": "support", "tctx": {} }),
        ),
    ]
}

#[tokio::test]
async fn each_kind_of_token_is_refused_at_every_others_door() {
    let doors = Doors::new().await;
    let kinds = kinds(&doors).await;
    for kind in &kinds {
        for door in DOORS.into_iter().filter(|door| *door != kind.name) {
            let token = match (kind.name, door) {
                // Both are users' tokens of one provider, which says by the audience what each is good for.
                ("subject", "management") | ("management", "subject") => doors.token(kind, kind.name),
                _ => doors.token(kind, door),
            };
            assert!(!doors.opens(door, &token).await, "{} opens the door of {door}: {}", kind.name, payload(&token));
        }
    }
    // And each opens its own, made in the very same way: it was its kind that kept the others out.
    for kind in kinds.iter().filter(|kind| DOORS.contains(&kind.name)) {
        let token = doors.token(kind, kind.name);
        assert!(doors.opens(kind.name, &token).await, "{}: {}", kind.name, payload(&token));
    }
}
