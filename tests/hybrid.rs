//! `identity: hybrid`: the tool gets its credential and, in `Txn-Token`, who acts for whom in this one call. What it gets
//! is verified as tools verify it, by Node's jose and by PyJWT, with the keys that the authority serves; what is forged,
//! another sidecar's, or over is refused by both.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::support::{
    Answer, Sidecar, World,
    authority::{Authority, Client, entitlements},
    eventually,
    joining::JoiningKey,
    mark,
    openid::claims,
    root,
    sidecar::{Setup, TOOL_SECRET},
    skipped,
    tool::values,
    world,
};

/// A sidecar that joined the authority, with its key.
struct Enrolled {
    id: String,
    key: JoiningKey,
}

impl Enrolled {
    fn new(world: &World, authority: &Authority, name: &str, tools: &Value) -> Self {
        let asked = json!({"name": name, "tenants": ["acme"], "tools": tools});
        let invited = authority.manage(&world.openid, &["platform"], "/v1/sidecars", &asked);
        invited.went(201);
        let key = JoiningKey::new();
        let joining = key.joining(&authority.issuer(), invited.json()["token"].as_str().unwrap(), name);
        let joined = authority.post("/v1/sidecars/enrol", &[], &joining);
        joined.went(201);
        let id = joined.json()["id"].as_str().unwrap().to_owned();
        Self { id, key }
    }

    /// A sidecar that calls its tool as this one, and tells it who acts.
    fn hybrid(&self, world: &World, authority: &Authority) -> Sidecar {
        let issuer = authority.issuer();
        let setup = Setup::new(&world.openid, &world.tool).with(|config| {
            config["issuers"] = json!([
                {"issuer": issuer, "role": "delegation", "tenants": ["acme"], "withdrawals": "changes"},
                {"issuer": world.openid.issuer(), "role": "subject", "tenants": ["acme"], "claims": {"tenant": "tenant"}, "entitlements": entitlements()},
            ]);
            let actions = ["orders.read", "orders.list", "refunds.create"];
            config["agents"] = json!([{"id": "support-v9", "issuer": issuer, "owner": "ops@acme.example", "actions": actions, "tenants": ["acme"]}]);
            config["authority"] = json!({"url": issuer, "credential": {"key": "sidecar.pem", "id": self.id}});
            config["tools"]["orders"]["identity"] = json!("hybrid");
        });
        setup.write_secret("sidecar.pem", &self.key.pem());
        let mut setup = setup;
        setup.environment.push(("RUST_LOG".to_owned(), "trace,h2=info,hyper=info".to_owned()));
        setup.start()
    }

    /// Signs as this sidecar could.
    fn sign(&self, kid: &str, kind: &str, claims: &Value) -> String {
        self.key.sign(kid, kind, claims)
    }
}

/// What a tool called `tool` makes of `tokens` with one of the libraries.
fn verified(command: &mut Command, authority: &Authority, tool: &str, tokens: &Value) -> Value {
    let asked = json!({"authority": authority.issuer(), "tool": tool, "tokens": tokens});
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(asked.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn jose() -> Command {
    let mut command = Command::new("node");
    command.arg(root().join("tests/parts/hybrid/verify.mjs"));
    command
}

fn pyjwt() -> Option<Command> {
    let home = root().join("tests/parts/hybrid");
    if !Path::exists(&home.join("packages/installed")) {
        skipped("hybrid", "its Python packages are not installed: run `.ci/run parts`");
        return None;
    }
    let mut command = Command::new("python3");
    command.arg(home.join("verify.py"));
    Some(command)
}

/// A read that carries a `Txn-Token` of the agent's own making, and what of that field the tool got.
fn read(world: &World, sidecar: &Sidecar, token: &str) -> (Answer, Vec<String>) {
    let mark = mark();
    let answer = sidecar
        .get("/orders/v1/orders/17", token)
        .header("X-Mark", &mark)
        .header("Txn-Token", "forged-by-the-agent")
        .header("txn_token", "forged-by-the-agent")
        .send();
    answer.went(200);
    let [request] = &world.tool.marked(&mark)[..] else { panic!("the tool was called once") };
    assert_eq!(values(request, "authorization"), [format!("Bearer {TOOL_SECRET}")]);
    assert!(!request.to_string().contains("forged-by-the-agent"), "{request}");
    (answer, values(request, "txn-token"))
}

fn kids(authority: &Authority, path: &str) -> Vec<String> {
    let answer = authority.get(path);
    answer.went(200);
    let answer = answer.json();
    let mut kids: Vec<String> =
        answer["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect();
    kids.sort();
    kids
}

/// Why each forgery is refused, in the words of jose and of PyJWT.
const REASONS: [(&str, [&str; 2]); 10] = [
    ("without a signature", ["ALG_NOT_ALLOWED", "InvalidAlgorithm"]),
    ("with another's signature", ["SIGNATURE_VERIFICATION_FAILED", "InvalidSignature"]),
    ("under another's key id", ["SIGNATURE_VERIFICATION_FAILED", "InvalidSignature"]),
    ("of a sidecar that does not serve the tool", ["NO_MATCHING_KEY", "no such key"]),
    ("in another sidecar's name", ["not that of `iss`", "not that of `iss`"]),
    ("over", ["\"exp\"", "has expired"]),
    ("for too long", ["\"iat\"", "lives too long"]),
    ("for another tool", ["\"aud\"", "Audience"]),
    ("of another type", ["\"typ\"", "`typ`"]),
    ("the agent's own token", ["NO_MATCHING_KEY", "`typ`"]),
];

/// What the tool was told, the agent's own token, and everything that somebody may forge: the sidecar itself, another
/// one that serves the tool, and one that does not.
fn tokens([edge, second, billing]: [&Enrolled; 3], told: &str, agents: &str) -> Value {
    let good = claims(told);
    let changed = |change: &Value| {
        let mut claims = good.clone();
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let now = good["iat"].as_i64().unwrap();
    let kind = "txntoken+jwt";
    let none = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"none","kid":"{}","typ":"{kind}"}}"#, edge.key.kid));
    let payload = told.split('.').nth(1).unwrap();
    let (head, _) = told.rsplit_once('.').unwrap();
    json!({
        "told": told,
        "without a signature": format!("{none}.{payload}."),
        "with another's signature": format!("{head}.{}", billing.sign(&edge.key.kid, kind, &good).rsplit('.').next().unwrap()),
        "under another's key id": billing.sign(&edge.key.kid, kind, &good),
        "of a sidecar that does not serve the tool": billing.sign(&billing.key.kid, kind, &good),
        "in another sidecar's name": second.sign(&second.key.kid, kind, &good),
        "over": edge.sign(&edge.key.kid, kind, &changed(&json!({"iat": now - 120, "exp": now - 60}))),
        "for too long": edge.sign(&edge.key.kid, kind, &changed(&json!({"iat": now - 120, "exp": now + 3600}))),
        "for another tool": edge.sign(&edge.key.kid, kind, &changed(&json!({"aud": "billing"}))),
        "of another type": edge.sign(&edge.key.kid, "at+jwt", &good),
        "the agent's own token": agents,
    })
}

#[test]
fn what_the_tool_is_told_is_verified_by_jose_and_pyjwt_and_whatever_else_says_so_is_refused() {
    let Some(world) = world() else { return };
    let Some(mut pyjwt) = pyjwt() else { return };
    let agent = Client::new("support-v9");
    let authority = Authority::start(&world.openid, &[&agent]);
    let edge = Enrolled::new(world, &authority, "edge", &json!(["orders"]));
    let second = Enrolled::new(world, &authority, "second", &json!(["orders", "mail"]));
    let billing = Enrolled::new(world, &authority, "billing", &json!(["billing"]));
    let sidecar = edge.hybrid(world, &authority);
    let token = authority.first(&agent, &world.openid);
    let (answer, told) = read(world, &sidecar, &token);
    let [told] = &told[..] else { panic!("{told:?}") };

    let good = claims(told);
    let tokens = tokens([&edge, &second, &billing], told, &token);
    let seen =
        [verified(&mut jose(), &authority, "orders", &tokens), verified(&mut pyjwt, &authority, "orders", &tokens)];
    assert_eq!(tokens.as_object().unwrap().len(), REASONS.len() + 1);
    for (library, seen) in seen.iter().enumerate() {
        assert_eq!(seen["told"], good, "{seen}");
        for (name, words) in REASONS {
            let refused = seen[name]["refused"].as_str().unwrap_or_else(|| panic!("{name}: {}", seen[name]));
            assert!(refused.contains(words[library]), "{name}: {refused}");
        }
    }

    // What it says is what was decided and sent.
    let issuer = authority.issuer();
    assert_eq!(good["iss"], format!("{issuer}/sidecars/{}", edge.id));
    assert_eq!((&good["aud"], &good["txn"]), (&json!("orders"), &json!(answer.decision_id())));
    assert!(good["exp"].as_i64().unwrap() - good["iat"].as_i64().unwrap() <= 60);
    assert_eq!(
        (&good["sub"], &good["act"]["sub"], &good["tenant"]),
        (&json!("alice"), &json!("support-v9"), &json!("acme"))
    );
    assert_eq!(
        good["delegation_chain"][0],
        json!({"iss": world.openid.issuer(), "sub": "alice", "sub_profile": "user"})
    );
    assert_eq!(good["tctx"], json!({"method": "GET", "path": "/v1/orders/17"}));
    assert_eq!(sidecar.decided(&answer)["identity_mode"], "hybrid");

    // It is seen by the tool and nobody else.
    let (payload, signature) = (told.split('.').nth(1).unwrap(), told.rsplit('.').next().unwrap());
    let ledger = json!(sidecar.query(&[])).to_string();
    for (place, text) in [
        ("the ledger", &ledger),
        ("the log", &sidecar.daemon.output()),
        ("the answer", &format!("{:?}{}", answer.headers, answer.text())),
    ] {
        assert!(!text.contains(signature) && !text.contains(payload), "it is in {place}");
    }
    // And it opens nothing here.
    sidecar
        .plain_get("/orders/v1/orders/17", &[("authorization", &format!("Bearer {told}"))])
        .refused(401, "invalid_token");
}

#[test]
fn a_tools_keys_are_those_of_the_sidecars_that_serve_it_and_never_the_authoritys() {
    let Some(world) = world() else { return };
    let agent = Client::new("support-v9");
    let authority = Authority::start(&world.openid, &[&agent]);
    let orders = Enrolled::new(world, &authority, "orders", &json!(["orders"]));
    let every = Enrolled::new(world, &authority, "every", &Value::Null);
    let sorted = |mut kids: Vec<String>| {
        kids.sort();
        kids
    };
    let both = sorted(vec![orders.key.kid.clone(), every.key.kid.clone()]);
    assert_eq!(kids(&authority, "/jwks/tools/orders.json"), both);
    assert_eq!(kids(&authority, "/jwks/tools/%6frders.json"), both);
    assert_eq!(kids(&authority, "/jwks/tools/billing.json"), std::slice::from_ref(&every.key.kid));
    let own = kids(&authority, "/jwks.json");
    assert!(!own.is_empty() && own.iter().all(|kid| !both.contains(kid)), "{own:?}");
    let served = authority.get("/jwks/tools/orders.json");
    assert!(!served.text().contains("\"d\""));
    assert_eq!(served.header("cache-control"), Some("public, max-age=60"));
    for path in
        ["/jwks/tools/.json", "/jwks/tools/a/b.json", "/jwks/tools/orders", "/jwks/tools/", "/jwks/tools/%00.json"]
    {
        assert_eq!(authority.get(path).status, 404, "{path}");
    }
    let path = format!("/v1/sidecars/{}/remove", orders.id);
    authority.manage(&world.openid, &["platform"], &path, &json!({"reason": "it was lost"})).went(200);
    eventually("its key to be gone", || {
        (kids(&authority, "/jwks/tools/orders.json") == [every.key.kid.clone()]).then_some(())
    });
}
