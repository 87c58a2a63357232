//! Hostile tokens: whatever an agent may present, what it gets is the right refusal, and the tool gets nothing.

use serde_json::{Value, json};

use crate::support::{
    Answer, Sidecar, World, eventually,
    http::{self, raw},
    mark,
    openid::{AUDIENCE, OpenId, claims, usual_details},
    sidecar::Setup,
    world,
};

/// A change to a good chain, and its name.
type Change<'a> = (&'a str, &'a dyn Fn(&mut Value));

/// A case of a table: what it is, the token, and the status and code it must be refused with.
struct Case {
    name: &'static str,
    token: String,
    status: u16,
    code: &'static str,
}

/// Presents each, and tells of every one that came out otherwise than it must. The answers, in order.
#[track_caller]
fn all_are_refused(world: &World, cases: &[Case]) -> Vec<Answer> {
    let mark = mark();
    let mut wrong = Vec::new();
    let mut answers = Vec::new();
    for Case { name, token, status, code } in cases {
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str()), ("x-mark", &mark)];
        let answer = world.sidecar.plain_get("/orders/v1/orders/17", &headers);
        if answer.status != *status
            || answer.header("content-type") != Some("application/problem+json")
            || answer.code() != *code
        {
            wrong.push(format!("{name}: wanted {status} {code}, got {} {}", answer.status, answer.text()));
        } else if *status == 401
            && !answer.header("www-authenticate").is_some_and(|challenge| challenge.starts_with("Bearer"))
        {
            wrong.push(format!("{name}: no challenge: {:?}", answer.headers));
        }
        answers.push(answer);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(world.tool.marked(&mark), Vec::<Value>::new(), "something reached the tool");
    let still =
        world.sidecar.get("/orders/v1/orders/17", &world.openid.delegated("alice")).header("X-Mark", &mark).send();
    still.went(200);
    assert_eq!(world.tool.marked(&mark).len(), 1, "the mark that refused calls carried does show up for one that goes");
    answers
}

/// Each refused call names, in its record, the agent and the user that were verified by then.
#[track_caller]
fn all_name(world: &World, answers: &[Answer], user: &str, agent: &str) {
    let records = world.sidecar.query(&[]);
    for answer in answers {
        let id = answer.decision_id();
        let record = records.iter().find(|record| record["decision_id"] == id.as_str());
        let record = record.unwrap_or_else(|| panic!("no record of {}", answer.text()));
        assert_eq!((&record["user"]["id"], &record["agent"]["id"]), (&json!(user), &json!(agent)), "{record}");
        assert_eq!(record["code"], answer.code());
    }
}

fn case(name: &'static str, token: String, status: u16, code: &'static str) -> Case {
    Case { name, token, status, code }
}

fn kid(openid: &OpenId, alg: &str) -> String {
    let keys = openid.control("GET", "/keys", &Value::Null);
    let key = keys["published"].as_array().unwrap().iter().find(|key| key["alg"] == alg).unwrap().clone();
    key["kid"].as_str().unwrap().to_owned()
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table, a case a row")]
fn a_token_that_nobody_trusted_signed_is_invalid() {
    let Some(world) = world() else { return };
    let openid = &world.openid;
    let good = openid.delegated("alice");
    let sign = |asked: Value| {
        let mut whole = json!({"like": good});
        whole.as_object_mut().unwrap().extend(asked.as_object().unwrap().clone());
        openid.sign(&whole)
    };
    let real = kid(openid, "ES256");
    let parts: Vec<&str> = good.split('.').collect();
    let own_key = json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"});
    let cases = [
        case(
            "forged under the real kid",
            sign(json!({"key": "unpublished", "header": {"kid": real}})),
            401,
            "invalid_token",
        ),
        case("forged under its own kid", sign(json!({"key": "unpublished"})), 401, "invalid_token"),
        case(
            "forged, key in the header",
            sign(json!({"key": "unpublished", "header": {"jwk": own_key}})),
            401,
            "invalid_token",
        ),
        case(
            "forged, key by URL",
            sign(json!({"key": "unpublished", "header": {"jku": "http://127.0.0.1:1/jwks"}})),
            401,
            "invalid_token",
        ),
        case("without a kid", sign(json!({"key": "unpublished", "header": {"kid": null}})), 401, "invalid_token"),
        case("alg none", sign(json!({"key": "none"})), 401, "invalid_token"),
        case("alg None", sign(json!({"key": "none", "header": {"alg": "None"}})), 401, "invalid_token"),
        case("the public key as a secret", sign(json!({"key": "public-as-secret"})), 401, "invalid_token"),
        case("an algorithm that is not listed", sign(json!({"alg": "RS256"})), 401, "invalid_token"),
        case("EdDSA claimed over ES256", sign(json!({"header": {"alg": "EdDSA"}})), 401, "invalid_token"),
        case(
            "ES256 under the RSA key's kid",
            sign(json!({"header": {"kid": kid(openid, "RS256")}})),
            401,
            "invalid_token",
        ),
        case("no signature", format!("{}.{}.", parts[0], parts[1]), 401, "invalid_token"),
        case(
            "other claims under a real signature",
            format!("{}.{}.{}", parts[0], other_claims(parts[1]), parts[2]),
            401,
            "invalid_token",
        ),
        case("two parts", format!("{}.{}", parts[0], parts[1]), 401, "invalid_token"),
        case("four parts", format!("{good}.{}", parts[2]), 401, "invalid_token"),
        case("five parts", format!("{good}..{}", parts[2]), 401, "invalid_token"),
        case("padding", format!("{good}=="), 401, "invalid_token"),
        case("three dots", "...".to_owned(), 401, "invalid_token"),
        case("not a token", "abc".to_owned(), 401, "invalid_token"),
        case("kid with a control character", sign(json!({"header": {"kid": "a\u{0}b"}})), 401, "invalid_token"),
        case(
            "a header that repeats alg",
            sign(
                json!({"header_text": format!("{{\"alg\":\"none\",\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"{real}\"}}")}),
            ),
            401,
            "invalid_token",
        ),
        case("a header that is a list", sign(json!({"header_text": "[]"})), 401, "invalid_token"),
    ];
    let answers = all_are_refused(world, &cases);
    // What nobody vouches for names nobody, and cannot fill the disk.
    let records = world.sidecar.query(&[]);
    for (case, answer) in cases.iter().zip(&answers) {
        let id = answer.decision_id();
        assert!(records.iter().all(|record| record["decision_id"] != id.as_str()), "{} is on record", case.name);
    }

    // Signed by a real key, but no access token: then it is known whom it names.
    let odd = [
        case("typ JWT", sign(json!({"header": {"typ": "JWT"}})), 401, "invalid_token"),
        case("no typ", sign(json!({"header": {"typ": null}})), 401, "invalid_token"),
        case("a logout token", sign(json!({"header": {"typ": "logout+jwt"}})), 401, "invalid_token"),
        case("crit", sign(json!({"header": {"crit": ["exp"], "exp": 1}})), 401, "invalid_token"),
        case("crit that is empty", sign(json!({"header": {"crit": []}})), 401, "invalid_token"),
        case("b64 false", sign(json!({"header": {"b64": false, "crit": ["b64"]}})), 401, "invalid_token"),
    ];
    all_name(world, &all_are_refused(world, &odd), "alice", "support-v1");
}

// Alice's token, made bob's.
fn other_claims(payload: &str) -> String {
    let engine = base64::prelude::BASE64_URL_SAFE_NO_PAD;
    let text = String::from_utf8(base64::Engine::decode(&engine, payload).unwrap()).unwrap();
    base64::Engine::encode(&engine, text.replace("alice", "bob"))
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table, a case a row")]
fn a_token_whose_claims_are_not_in_order_is_refused_for_the_right_reason() {
    let Some(world) = world() else { return };
    let openid = &world.openid;
    let good = openid.delegated("alice");
    let with = |claims: Value| openid.sign(&json!({"like": good, "claims": claims}));
    let from_now = |times: Value| openid.sign(&json!({"like": good, "from_now": times}));
    let text = serde_json::to_string(&claims(&good)).unwrap();
    let bytes = |claims: &str| openid.sign(&json!({"like": good, "claims_text": claims}));
    let twice = text.replacen("{\"", "{\"sub\":\"bob\",\"", 1);
    let escaped = text.replacen("{\"", "{\"su\\u0062\":\"bob\",\"", 1);
    let deep = text.replacen("{\"", &format!("{{\"deep\":{}{},\"", "[".repeat(200), "]".repeat(200)), 1);
    let latin = base64::Engine::encode(
        &base64::prelude::BASE64_URL_SAFE_NO_PAD,
        [&text.as_bytes()[..text.len() - 1], b",\"x\":\"\xff\"}"].concat(),
    );
    let cases = [
        case("another issuer", with(json!({"iss": "https://evil.example"})), 401, "invalid_token"),
        case("the issuer with a slash", with(json!({"iss": format!("{}/", openid.issuer())})), 401, "invalid_token"),
        case("no issuer", with(json!({"iss": null})), 401, "invalid_token"),
        case("an issuer that is a list", with(json!({"iss": [openid.issuer()]})), 401, "invalid_token"),
        case("another audience", with(json!({"aud": "urn:example:countersign:billing"})), 401, "wrong_audience"),
        case("two audiences", with(json!({"aud": [AUDIENCE, "https://elsewhere.example"]})), 401, "wrong_audience"),
        case("no audience", with(json!({"aud": null})), 401, "wrong_audience"),
        case("expired", from_now(json!({"iat": -300, "exp": -60})), 401, "expired"),
        case("not yet valid", from_now(json!({"nbf": 120})), 401, "invalid_token"),
        case("issued tomorrow", from_now(json!({"iat": 120, "exp": 300})), 401, "invalid_token"),
        case("valid for too long", from_now(json!({"iat": 0, "exp": 3600})), 401, "invalid_token"),
        case("ending before it began", from_now(json!({"iat": 0, "exp": -1})), 401, "invalid_token"),
        case("never ending", with(json!({"exp": null})), 401, "invalid_token"),
        case("ending at a text", with(json!({"exp": "9999999999"})), 401, "invalid_token"),
        case("ending at infinity", bytes(&regex_free_exp(&text, "1e400")), 401, "invalid_token"),
        case("ending at a huge number", bytes(&regex_free_exp(&text, "1e300")), 401, "invalid_token"),
        case("ending before 1970", bytes(&regex_free_exp(&text, "-9999999999999999999")), 401, "invalid_token"),
        case("a claim twice", bytes(&twice), 401, "invalid_token"),
        case("a claim twice, once escaped", bytes(&escaped), 401, "invalid_token"),
        case("nested deep", bytes(&deep), 401, "invalid_token"),
        case("not UTF-8", openid.sign(&json!({"like": good, "claims_base64url": latin})), 401, "invalid_token"),
        case("not JSON", bytes("not json"), 401, "invalid_token"),
        case("a list of claims", bytes("[]"), 401, "invalid_token"),
        case(
            "an engine's own member",
            bytes(&text.replacen("{\"", "{\"$serde_json::private::Number\":\"1\",\"", 1)),
            401,
            "invalid_token",
        ),
        case("oversized", with(json!({"padding": "x".repeat(20 << 10)})), 401, "invalid_token"),
        case("no subject", with(json!({"sub": null})), 401, "invalid_token"),
        case("an empty subject", with(json!({"sub": ""})), 403, "chain"),
        case("a subject that is a number", with(json!({"sub": 7})), 401, "invalid_token"),
        case("a subject with a line end", with(json!({"sub": "alice\nuser:bob"})), 403, "chain"),
        case("a subject that changes direction", with(json!({"sub": "alice\u{202e}"})), 403, "chain"),
        case(
            "an unknown detail",
            with(
                json!({"authorization_details": [{"type": "urn:countersign:action", "actions": ["orders.read"], "locations": ["orders"], "surprise": 1}]}),
            ),
            401,
            "invalid_token",
        ),
        case(
            "a detail of another type",
            with(json!({"authorization_details": [{"type": "payment"}]})),
            401,
            "invalid_token",
        ),
        case("a stage that is none", with(json!({"stage": "root"})), 401, "invalid_token"),
        case(
            "bound to a key",
            with(json!({"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}})),
            401,
            "wrong_sender",
        ),
        case(
            "bound to a certificate",
            with(json!({"cnf": {"x5t#S256": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}})),
            401,
            "wrong_sender",
        ),
        case("bound to something unknown", with(json!({"cnf": {"new": 1}})), 401, "wrong_sender"),
        case("bound to nothing at all", with(json!({"cnf": {}})), 401, "wrong_sender"),
    ];
    all_are_refused(world, &cases);
}

// The claims with another `exp`, as text: no JSON library would write these numbers.
fn regex_free_exp(text: &str, exp: &str) -> String {
    let begin = text.find("\"exp\":").unwrap() + "\"exp\":".len();
    let end = begin + text[begin..].find([',', '}']).unwrap();
    format!("{}{exp}{}", &text[..begin], &text[end..])
}

#[test]
fn a_token_that_was_good_is_refused_once_it_has_ended() {
    let Some(world) = world() else { return };
    let sidecar =
        Setup::new(&world.openid, &world.tool).with(|config| config["issuers"][0]["skew"] = json!("0s")).start();
    let token = world.openid.sign(&json!({"like": world.openid.delegated("alice"), "from_now": {"exp": 3}}));
    let get = || sidecar.plain_get("/orders/v1/orders/17", &[("authorization", &format!("Bearer {token}"))]);
    get().went(200);
    let refused = eventually("the token to end", || Some(get()).filter(|answer| answer.status != 200));
    refused.refused(401, "expired");
    assert_eq!(sidecar.decided(&refused)["user"]["id"], "alice");
}

#[test]
fn algorithms_that_an_issuer_lists_are_accepted_and_no_others() {
    let Some(world) = world() else { return };
    let tokens = ["EdDSA", "RS256"].map(|alg| world.openid.delegated_with("alice", &[("signing_alg", alg)]));
    let get = |sidecar: &Sidecar, token: &str| sidecar.get("/orders/v1/orders/17", token).send();
    get(&world.sidecar, &tokens[0]).went(200);
    get(&world.sidecar, &tokens[1]).refused(401, "invalid_token");
    let only = |algorithms: Value| {
        Setup::new(&world.openid, &world.tool).with(|config| config["issuers"][0]["algorithms"] = algorithms).start()
    };
    let rsa = only(json!(["RS256"]));
    get(&rsa, &tokens[1]).went(200);
    get(&rsa, &tokens[0]).refused(401, "invalid_token");
}

#[test]
fn a_user_without_an_agent_and_an_agent_without_a_user_go_nowhere() {
    let Some(world) = world() else { return };
    let openid = &world.openid;
    let good = openid.delegated("alice");
    let with = |claims: Value| openid.sign(&json!({"like": good, "claims": claims}));
    let users_own = [
        case("a user's own token", openid.user("alice"), 403, "impersonation"),
        case("a delegated token without its actor", with(json!({"act": null})), 403, "impersonation"),
    ];
    for answer in all_are_refused(world, &users_own) {
        assert_eq!(world.sidecar.decided(&answer)["user"]["id"], "alice");
    }
    let robots = [
        case("an agent's own token", openid.client_credentials("support-v1"), 403, "robot_user"),
        case(
            "a service account with an actor",
            with(json!({"sub": "nightly-report", "client_id": "nightly-report"})),
            403,
            "robot_user",
        ),
    ];
    let answers: Vec<_> = robots.iter().map(|case| present(world, &case.token)).collect();
    for (case, answer) in robots.iter().zip(answers) {
        assert_eq!(answer.status, 403, "{}: {}", case.name, answer.text());
        assert!(["robot_user", "impersonation"].contains(&answer.code().as_str()), "{}: {}", case.name, answer.text());
    }
}

fn present(world: &World, token: &str) -> Answer {
    world.sidecar.plain_get("/orders/v1/orders/17", &[("authorization", &format!("Bearer {token}"))])
}

#[test]
fn a_chain_that_loops_runs_deep_or_names_strangers_is_refused_and_on_record() {
    let Some(world) = world() else { return };
    let openid = &world.openid;
    let good = openid.delegated("alice");
    let issuer = openid.issuer();
    let actor = |names: &[&str]| {
        names.iter().rev().fold(Value::Null, |inner, name| {
            let mut act = json!({"iss": issuer, "sub": name, "sub_profile": "ai_agent"});
            if !inner.is_null() {
                act["act"] = inner;
            }
            act
        })
    };
    let acting = |names: &[&str]| openid.sign(&json!({"like": good, "claims": {"act": actor(names)}}));
    let cases = [
        case("an actor twice", acting(&["support-v1", "refund-helper", "support-v1"]), 403, "chain"),
        case("the user as the agent", acting(&["alice"]), 403, "impersonation"),
        case("the user between", acting(&["support-v1", "alice"]), 403, "chain"),
        case("too deep", acting(&["support-v1", "a", "b", "c", "d"]), 403, "chain"),
        case("far too deep", acting(&["x"; 20]), 403, "chain"),
    ];
    let refused = all_are_refused(world, &cases);
    let records = world.sidecar.query(&[]);
    for answer in &refused {
        let id = answer.decision_id();
        let record = records.iter().find(|record| record["decision_id"] == id.as_str()).expect("a record");
        assert_eq!((&record["code"], &record["user"]["id"]), (&json!(answer.code()), &json!("alice")), "{record}");
    }

    let strangers = [
        case("an agent nobody registered", acting(&["stranger"]), 403, "unknown_agent"),
        case(
            "an agent of that name elsewhere",
            openid.sign(&json!({"like": good, "claims": {"act": {"iss": "https://b.example", "sub": "support-v1"}}})),
            403,
            "unknown_agent",
        ),
        case("a stranger between", acting(&["support-v1", "stranger"]), 403, "unknown_agent"),
        case("a suspended agent", acting(&["retired"]), 403, "agent_suspended"),
        case("a suspended agent between", acting(&["support-v1", "retired"]), 403, "agent_suspended"),
    ];
    let answers: Vec<_> = strangers.iter().map(|case| (case, present(world, &case.token))).collect();
    let wrong: Vec<_> = answers
        .iter()
        .filter(|(case, answer)| (answer.status, answer.code().as_str()) != (case.status, case.code))
        .map(|(case, answer)| format!("{}: {}", case.name, answer.text()))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let (_, suspended) = &answers[3];
    all_name(world, std::slice::from_ref(suspended), "alice", "retired");

    let malformed = [
        case(
            "an actor that is a text",
            openid.sign(&json!({"like": good, "claims": {"act": "support-v1"}})),
            401,
            "invalid_token",
        ),
        case(
            "an actor without a name",
            openid.sign(&json!({"like": good, "claims": {"act": {}}})),
            401,
            "invalid_token",
        ),
    ];
    for case in malformed {
        let answer = present(world, &case.token);
        assert!(["chain", "invalid_token"].contains(&answer.code().as_str()), "{}: {}", case.name, answer.text());
    }
}

#[test]
fn another_tenants_user_is_refused_and_on_record() {
    let Some(world) = world() else { return };
    let openid = &world.openid;
    let carol = openid.delegated("carol");
    let moved = openid.sign(&json!({"like": openid.delegated("alice"), "claims": {"tenant": "globex"}}));
    let answers = all_are_refused(
        world,
        &[case("carol of globex", carol, 403, "tenant_mismatch"), case("alice moved", moved, 403, "tenant_mismatch")],
    );
    all_name(world, &answers[..1], "carol", "support-v1");
    let records: Vec<_> = answers.iter().map(|answer| world.sidecar.decided(answer)["decision"].clone()).collect();
    assert_eq!(records, ["deny", "deny"]);
}

#[test]
fn a_request_without_exactly_one_bearer_token_is_refused() {
    let Some(world) = world() else { return };
    let good = world.openid.delegated("alice");
    let ask = |fields: &str| {
        let request =
            format!("GET /orders/v1/orders/17 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{fields}\r\n");
        http::parse(&raw(world.sidecar.port(), request.as_bytes())).expect("an answer")
    };
    ask("").refused(401, "no_credential");
    ask("authorization: Basic YTpi\r\n").refused(401, "no_credential");
    ask("authorization: Bearer\r\n");
    for fields in [
        "authorization: Bearer \r\n".to_owned(),
        format!("authorization: Bearer  {good} {good}\r\n"),
        format!("authorization: Bearer {good}\r\nauthorization: Bearer {good}\r\n"),
        format!("authorization: Bearer {good},Bearer {good}\r\n"),
        format!("authorization: Bearer {good}\u{e9}\r\n"),
        format!("authorization: {good}\r\n"),
    ] {
        let answer = ask(&fields);
        assert!([400, 401].contains(&answer.status), "{fields}: {} {}", answer.status, answer.text());
    }
    ask(&format!("authorization: bearer {good}\r\n")).went(200);
    let query = format!("/orders/v1/orders/17?access_token={good}");
    world.sidecar.plain_get(&query, &[]).refused(400, "malformed");
}

#[test]
fn a_subject_issuer_delegates_nothing_and_the_same_name_elsewhere_is_somebody_else() {
    let Some(world) = world() else { return };
    let Some(other) = OpenId::start() else { return };
    let agents = |issuer: &str| json!({"id": "support-v1", "issuer": issuer, "owner": "ops@acme.example", "actions": ["orders.read", "refunds.create"], "tenants": ["acme"]});
    let body = r#"{"amount":"20.00","currency":"USD"}"#;
    let setup = |role: &str| {
        Setup::new(&world.openid, &world.tool)
            .with(|config| {
                config["agents"].as_array_mut().unwrap().push(agents(other.issuer()));
                let mut issuer = config["issuers"][0].clone();
                issuer["issuer"] = json!(other.issuer());
                issuer["role"] = json!(role);
                if role == "subject" {
                    issuer.as_object_mut().unwrap().remove("chain");
                    issuer["claims"] = json!({"tenant": "tenant"});
                }
                config["issuers"].as_array_mut().unwrap().push(issuer);
            })
            .start()
    };
    let delegating = setup("delegation");
    let (ours, theirs) = (world.openid.delegated("alice"), other.delegated("alice"));
    delegating.refund("17", &ours, body).send().went(201);
    // The order was placed by the alice of the first issuer.
    let answer = delegating.refund("17", &theirs, body).send();
    answer.refused(403, "relation_unproven");
    assert_eq!(delegating.decided(&answer)["user"]["issuer"], other.issuer());
    // Each issuer's key is good for its own tokens only.
    let crossed = other.sign(&json!({"like": ours}));
    delegating.get("/orders/v1/orders/17", &crossed).send().refused(401, "invalid_token");

    let subject = setup("subject");
    subject.get("/orders/v1/orders/17", &ours).send().went(200);
    let answer = subject.get("/orders/v1/orders/17", &other.user("alice")).send();
    answer.refused(403, "impersonation");
    for token in [theirs, other.sign(&json!({"like": other.user("alice"), "claims": {"tenant": "acme", "stage": "supervised", "delegation_chain": []}}))] {
        let answer = subject.get("/orders/v1/orders/17", &token).send();
        assert!([401, 403].contains(&answer.status), "{}", answer.text());
        assert!(["impersonation", "invalid_token", "chain"].contains(&answer.code().as_str()), "{}", answer.text());
    }
}

#[test]
fn a_delegation_chain_has_to_agree_with_its_token_and_only_narrow() {
    let Some(world) = world() else { return };
    let openid = &world.openid;
    let sidecar =
        Setup::new(openid, &world.tool).with(|config| config["issuers"][0]["chain"] = json!("required")).start();
    let issued = openid.delegated_with("alice", &[("delegation_chain", "true")]);
    // This provider says of the user only the scope they hold, and a hop says both.
    let mut chain = claims(&issued)["delegation_chain"].clone();
    chain[0]["authorization_details"] = usual_details();
    let good = openid.sign(&json!({"like": issued, "claims": {"delegation_chain": chain}}));
    let get = |token: &str| sidecar.plain_get("/orders/v1/orders/17", &[("authorization", &format!("Bearer {token}"))]);
    get(&good).went(200);
    get(&openid.delegated("alice")).refused(403, "chain");
    get(&issued).refused(403, "chain");

    let changed = |change: &dyn Fn(&mut Value)| {
        let mut chain = chain.clone();
        change(&mut chain);
        openid.sign(&json!({"like": good, "claims": {"delegation_chain": chain}}))
    };
    let helper = json!({"iss": openid.issuer(), "sub": "refund-helper", "sub_profile": "ai_agent", "scope": "orders.read", "authorization_details": []});
    let changes: [Change<'_>; 9] = [
        ("no hops", &|chain| *chain = json!([])),
        ("the user alone", &|chain| chain.as_array_mut().unwrap().truncate(1)),
        ("another user", &|chain| chain[0]["sub"] = json!("bob")),
        ("another agent", &|chain| chain[1]["sub"] = json!("refund-helper")),
        ("an agent from elsewhere", &|chain| chain[1]["iss"] = json!("https://b.example")),
        ("a hop that act does not know", &|chain| chain.as_array_mut().unwrap().insert(1, helper.clone())),
        ("the agent a user", &|chain| chain[1]["sub_profile"] = json!("user")),
        ("a hop that widens", &|chain| chain[0]["scope"] = json!("orders.list")),
        ("a hop that widens a limit", &|chain| {
            chain[0]["authorization_details"][1]["limits"]["amount"]["max"] = json!("49.99");
        }),
    ];
    let wrong: Vec<_> = changes
        .iter()
        .map(|(name, change)| (name, get(&changed(change))))
        .filter(|(_, answer)| (answer.status, answer.code().as_str()) != (403, "chain"))
        .map(|(name, answer)| format!("{name}: {}", answer.text()))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    get(&changed(&|chain| chain[0]["sub_profile"] = json!("ai_agent"))).refused(403, "robot_user");
    for odd in [json!("alice"), json!({}), json!([1]), json!([{"iss": openid.issuer()}])] {
        let answer = get(&openid.sign(&json!({"like": good, "claims": {"delegation_chain": odd}})));
        assert!(["chain", "invalid_token"].contains(&answer.code().as_str()), "{}", answer.text());
    }
}
