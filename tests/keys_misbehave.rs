//! Keys that misbehave: an endpoint that is down, slow, huge, broken or of two minds, floods of names of keys and of
//! tokens. Calls go on with what is known, memory stays bounded, and nobody is asked in a storm.

mod issuer;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use token::{Algorithm, SigningKey, mint};

use self::issuer::{Issuer, Publishes};
use crate::support::{
    PATIENCE, Sidecar, World, eventually, http,
    openid::{OpenId, claims},
    sidecar::Setup,
    world,
};

const ORDER: &str = "/orders/v1/orders/17";
/// A tool that there is not: the token is verified first, and the tool is left alone.
const NOWHERE: &str = "/nowhere";

fn status(sidecar: &Sidecar, token: &str) -> u16 {
    sidecar.plain_get(ORDER, &[("authorization", &format!("Bearer {token}"))]).status
}

/// How many: few by default, `long` where the environment asks for the long forms.
fn count(short: usize, long: usize) -> usize {
    if std::env::var_os("COUNTERSIGN_TEST_LONG").is_some() { long } else { short }
}

/// Waits for two answers of the issuer more: the first may have begun before whatever changed.
fn asked_again(issuer: &Issuer) {
    let before = issuer.asked();
    eventually("the keys to be asked for", || (issuer.asked() >= before + 2).then_some(()));
}

#[test]
fn an_endpoint_that_breaks_leaves_the_last_good_keys_in_use() {
    let Some(world) = world() else { return };
    let issuer = Issuer::start();
    let sidecar = issuer.sidecar(world);
    assert_eq!(status(&sidecar, &issuer.token()), 200);
    let raw = |head: &str, body: &str| {
        let length = body.len();
        Publishes::Bytes(
            format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}").into(),
        )
    };
    let stranger = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let strangers = mint::key_set([&stranger]);
    let many: Vec<Value> = (0..10_000).map(|_| strangers["keys"][0].clone()).collect();
    let away = format!("{}/elsewhere", issuer.name());
    let cases = [
        ("down", Publishes::Closes),
        ("empty", raw("200 OK", "")),
        ("no content", Publishes::Bytes(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n".to_vec())),
        ("not JSON", raw("200 OK\r\ncontent-type: text/html", "<html>503</html>")),
        ("no set", raw("200 OK", "{}")),
        ("two readings", raw("200 OK", "{\"keys\":[],\"keys\":[]}")),
        ("deep", raw("200 OK", &"[".repeat(100_000))),
        ("an error with keys", raw("500 Oops", &strangers.to_string())),
        ("a redirect", raw(&format!("302 Found\r\nlocation: {away}"), "")),
        ("too many keys", raw("200 OK", &json!({ "keys": many }).to_string())),
        ("a broken key", raw("200 OK", r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA","kid":"a"}]}"#)),
        ("cut off", Publishes::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"keys\":[".to_vec())),
        ("no HTTP", Publishes::Bytes(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec())),
        ("100 MB", Publishes::Endless(100 << 20)),
        ("100 MB, said so", raw("200 OK\r\nx-long: 1", &" ".repeat(1 << 20))),
    ];
    for (name, publishes) in cases {
        issuer.publishes(publishes);
        asked_again(&issuer);
        // A token that nobody saw before, so that nothing remembered answers for the keys.
        assert_eq!(status(&sidecar, &issuer.token()), 200, "{name}");
        assert_ne!(status(&sidecar, &issuer.token_of(&stranger)), 200, "{name}: a stranger's key was taken");
    }
    assert_eq!(issuer.asked_elsewhere(), 0, "a redirect was followed");
    assert!(sidecar.daemon.output().contains("keys could not be fetched"), "nobody is told");
    let peak = sidecar.daemon.peak_memory();
    assert!(peak < 512 << 20, "{peak} bytes were in use");
    issuer.publishes_keys(&[&stranger]);
    eventually("the new keys", || (status(&sidecar, &issuer.token_of(&stranger)) == 200).then_some(()));
    eventually("the old key to be gone", || (status(&sidecar, &issuer.token()) == 401).then_some(()));
}

#[test]
fn an_endpoint_that_is_slow_makes_nobody_wait_who_has_a_known_key() {
    let Some(world) = world() else { return };
    let issuer = Issuer::start();
    let sidecar = issuer.sidecar(world);
    let set = mint::key_set([&issuer.key]);
    for publishes in [Publishes::Hangs, Publishes::Drips(set, Duration::from_millis(500))] {
        assert_eq!(status(&sidecar, &issuer.token()), 200);
        issuer.publishes(publishes);
        let before = issuer.asked();
        eventually("the keys to be asked for", || (issuer.asked() > before).then_some(()));
        // The answer that is under way takes for ever, or is cut off after five seconds; calls do not wait for it.
        for _ in 0..10 {
            assert_eq!(status(&sidecar, &issuer.token()), 200);
        }
        eventually("the fetch to be given up", || (issuer.asked() > before + 1).then_some(()));
        issuer.publishes_keys(&[&issuer.key]);
        asked_again(&issuer);
    }
    assert!(sidecar.daemon.output().contains("no whole answer within"), "{}", sidecar.daemon.output());
}

#[test]
fn keys_that_change_with_every_look_refuse_and_never_fail() {
    let Some(world) = world() else { return };
    let issuer = Issuer::start();
    let sidecar = issuer.sidecar(world);
    let other = SigningKey::generate(Algorithm::EdDsa).unwrap();
    issuer.publishes(Publishes::Turns(mint::key_set([&issuer.key]), mint::key_set([&other])));
    let mut seen = [0, 0];
    let until = issuer.asked() + 6;
    eventually("six looks", || {
        for (place, key) in [&issuer.key, &other].into_iter().enumerate() {
            let status = status(&sidecar, &issuer.token_of(key));
            assert!(status == 200 || status == 401, "{status}");
            seen[place] += usize::from(status == 200);
        }
        (issuer.asked() >= until).then_some(())
    });
    assert!(seen.iter().all(|seen| *seen > 0), "each was good at times: {seen:?}");
    issuer.publishes_keys(&[&other, &issuer.key]);
    eventually("both to be known", || (status(&sidecar, &issuer.token_of(&other)) == 200).then_some(()));
    eventually("both to be known", || (status(&sidecar, &issuer.token()) == 200).then_some(()));
}

#[test]
fn two_keys_of_one_name_are_no_key_and_spoil_no_other() {
    let Some(world) = world() else { return };
    let issuer = Issuer::start();
    let sidecar = issuer.sidecar(world);
    let (one, two) = (SigningKey::generate(Algorithm::EdDsa).unwrap(), SigningKey::generate(Algorithm::EdDsa).unwrap());
    let mut keys = mint::key_set([&issuer.key, &one, &two]);
    keys["keys"][2]["kid"] = keys["keys"][1]["kid"].clone();
    assert_eq!(status(&sidecar, &issuer.token()), 200);
    issuer.publishes_keys(&[&issuer.key, &one]);
    eventually("the key to be known", || (status(&sidecar, &issuer.token_of(&one)) == 200).then_some(()));
    issuer.publishes(Publishes::Set(keys));
    eventually("the name to stand for two", || (status(&sidecar, &issuer.token_of(&one)) == 401).then_some(()));
    assert_eq!(status(&sidecar, &issuer.token()), 200);
}

/// Many calls on a few connections.
fn flood(sidecar: &Sidecar, path: &str, tokens: &(dyn Fn(usize) -> String + Sync), total: usize, expected: u16) {
    let connections = 4;
    std::thread::scope(|scope| {
        for connection in 0..connections {
            scope.spawn(move || {
                let mut stream: Option<TcpStream> = None;
                for number in (connection..total).step_by(connections) {
                    let token = tokens(number);
                    let open = stream.get_or_insert_with(|| http::connect(sidecar.port()));
                    let request = format!(
                        "GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nauthorization: Bearer {token}\r\n\r\n",
                        sidecar.port()
                    );
                    open.write_all(request.as_bytes()).unwrap();
                    let (status, close) = read_answer(open);
                    assert_eq!(status, expected, "call {number}");
                    if close {
                        stream = None;
                    }
                }
            });
        }
    });
}

/// The status of one answer, whose body is read, and whether the connection ends with it.
fn read_answer(stream: &mut TcpStream) -> (u16, bool) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let whole = end + 4 + length.map_or(0, |length| length.trim().parse::<usize>().unwrap());
            if bytes.len() >= whole {
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                return (status, head.contains("connection: close"));
            }
        }
        match stream.read(&mut buffer).unwrap() {
            0 => panic!("the connection ended: {:?}", String::from_utf8_lossy(&bytes)),
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

/// The sum of a counter over everything that it is told apart by, where the line holds `with`.
fn total(sidecar: &Sidecar, name: &str, with: &str) -> f64 {
    let page = sidecar.metrics();
    let lines = page.lines().filter(|line| line.starts_with(name) && line.contains(with));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[test]
fn a_flood_of_unknown_names_of_keys_asks_once_in_ten_seconds() {
    let Some(world) = world() else { return };
    let issuer = Issuer::start();
    let sidecar = issuer.setup(world, |config| config["issuers"][0]["refresh"] = json!("1h")).start();
    let good = issuer.token();
    assert_eq!(status(&sidecar, &good), 200);
    let (_, rest) = good.split_once('.').unwrap();
    let forged = |number: usize| {
        let header = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": format!("unknown-{number}")});
        format!("{}.{rest}", BASE64_URL_SAFE_NO_PAD.encode(header.to_string()))
    };
    let (asked, began, flood_of) = (issuer.asked(), Instant::now(), count(10_000, 100_000));
    let counted = total(&sidecar, "countersign_decisions_total", "invalid_token");
    flood(&sidecar, NOWHERE, &forged, flood_of, 401);
    let (fetches, taken) = (issuer.asked() - asked, began.elapsed());
    let most = taken.as_secs() / 10 + 1;
    println!("{flood_of} unknown keys in {taken:?}: {fetches} fetches");
    assert!((1..=most).contains(&fetches), "{fetches} fetches in {taken:?}");
    let counted = total(&sidecar, "countersign_decisions_total", "invalid_token") - counted;
    assert!((counted - flood_of as f64).abs() < 0.5, "{counted} of {flood_of} are counted");
    assert_eq!(status(&sidecar, &issuer.token()), 200, "others are served");
    let peak = sidecar.daemon.peak_memory();
    assert!(peak < 512 << 20, "{peak} bytes were in use");
}

#[test]
fn more_tokens_than_are_remembered_take_no_more_memory_and_no_key_is_asked_for() {
    let Some(world) = world() else { return };
    let issuer = Issuer::start();
    let sidecar = issuer.setup(world, |config| config["issuers"][0]["refresh"] = json!("1h")).start();
    let first = issuer.token();
    assert_eq!(status(&sidecar, &first), 200);
    let asked = issuer.asked();
    let began = Instant::now();
    let all = count(10_000, 100_000);
    let token = |_| issuer.token();
    // As many as are remembered, and then as many again or more.
    flood(&sidecar, NOWHERE, &token, all / 2, 403);
    let half = sidecar.daemon.peak_memory();
    flood(&sidecar, NOWHERE, &token, all - all / 2, 403);
    let whole = sidecar.daemon.peak_memory();
    println!("{all} tokens in {:?}: {} MiB after half, {} MiB after all", began.elapsed(), half >> 20, whole >> 20);
    assert!(whole < 512 << 20, "{whole} bytes were in use");
    assert_eq!(issuer.asked(), asked, "the known key was asked for again");
    let counted = total(&sidecar, "countersign_decisions_total", "unknown_tool");
    assert!(counted >= all as f64, "{counted} of {all} are counted");
    // Remembered or not, a good token is good.
    assert_eq!(status(&sidecar, &first), 200);
    assert!(began.elapsed() < 20 * PATIENCE);
}

/// A sidecar that believes the tool's authority and the one of another issuer, and that issuer where it is `known`.
fn believing(world: &World, other: &OpenId, known: bool) -> Sidecar {
    let mut setup = Setup::new(&world.openid, &world.tool);
    let authorities = authorities(world, Some(other));
    setup.config["tls"]["authorities"] = json!("authorities.pem");
    setup.write_secret("authorities.pem", &authorities);
    if known {
        know(&mut setup.config, other);
    }
    setup.start()
}

fn authorities(world: &World, other: Option<&OpenId>) -> String {
    let files = [world.tool.certificate_authority(), other.and_then(OpenId::certificate_authority)];
    files.into_iter().flatten().map(|file| fs::read_to_string(file).unwrap()).collect::<Vec<_>>().join("\n")
}

fn know(config: &mut Value, other: &OpenId) {
    let mut issuer = config["issuers"][0].clone();
    issuer["issuer"] = json!(other.issuer());
    config["issuers"].as_array_mut().unwrap().push(issuer);
}

/// A token of the other issuer. Its agent is not registered here, which is found out once its key is known.
fn of_other(world: &World, other: &OpenId) -> String {
    let text = claims(&world.openid.delegated("alice")).to_string();
    let claims: Value = serde_json::from_str(&text.replace(world.openid.issuer(), other.issuer())).unwrap();
    other.sign(&json!({ "claims": claims }))
}

/// Believes other authorities from now on, and `change`s the configuration with that.
fn reload(world: &World, sidecar: &Sidecar, other: Option<&OpenId>, change: impl FnOnce(&mut Value)) {
    let path = sidecar.directory().join("countersign.yaml");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(sidecar.directory().join("authorities.pem"), authorities(world, other)).unwrap();
    fs::write(path, config.to_string()).unwrap();
    sidecar.daemon.signal("HUP");
}

#[test]
fn whom_to_believe_is_settled_before_keys_are_fetched() {
    let Some(world) = world() else { return };
    let Some(other) = OpenId::secure() else { return };
    let sidecar = believing(world, &other, false);
    let token = of_other(world, &other);
    assert_eq!(status(&sidecar, &token), 401, "nobody knows the issuer");
    // In one change the issuer is known and the authority that vouches for its server is not believed any more.
    reload(world, &sidecar, None, |config| know(config, &other));
    eventually("the issuer to be known", || (status(&sidecar, &token) == 503).then_some(()));
    sidecar.get(ORDER, &token).send().refused(503, "keys_unavailable");
    assert_eq!(
        (other.count("discovery"), other.count("jwks")),
        (0, 0),
        "it was asked by the word of who was taken away"
    );
    reload(world, &sidecar, Some(&other), |_| ());
    eventually("the keys to be there", || (status(&sidecar, &token) == 403).then_some(()));
    assert!(other.count("jwks") > 0);
}

#[test]
fn keys_that_came_by_the_word_of_an_authority_go_with_it() {
    let Some(world) = world() else { return };
    let Some(other) = OpenId::secure() else { return };
    let sidecar = believing(world, &other, true);
    let token = of_other(world, &other);
    eventually("the keys to be there", || (status(&sidecar, &token) == 403).then_some(()));
    sidecar.get(ORDER, &token).send().refused(403, "unknown_agent");
    reload(world, &sidecar, None, |_| ());
    // Also the token that was verified before.
    eventually("the keys to be gone", || (status(&sidecar, &token) == 503).then_some(()));
    sidecar.get(ORDER, &token).send().refused(503, "keys_unavailable");
    assert_eq!(status(&sidecar, &world.openid.delegated("alice")), 200, "others are served");
}
