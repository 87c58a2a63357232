//! Broken configuration, policy, keys and secrets: the process does not start, says why in one line, and exits with 78.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::{Value, json};

use crate::support::{
    World,
    process::{self, Ran},
    sidecar::{POLICY, Setup},
    world,
};

const WRONG_CONFIGURATION: i32 = 78;

/// A change to a good configuration, and the words that must be said about it.
type Mistake<'a> = (&'a dyn Fn(&mut Value), &'a [&'a str]);

/// Asserts that it did not start, and that what it said is one line about the right thing.
#[track_caller]
fn complains(ran: &Ran, words: &[&str]) {
    let said: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("countersign: ")).collect();
    assert_eq!(ran.code, Some(WRONG_CONFIGURATION), "{}{}", ran.stdout, ran.stderr);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    assert!(!said.is_empty(), "{}", ran.stderr);
    for word in words {
        assert!(ran.stderr.contains(word), "nothing about {word}: {}", ran.stderr);
    }
}

fn setup(world: &World) -> Setup {
    Setup::new(&world.openid, &world.tool)
}

#[test]
fn a_mistake_in_the_configuration_is_named_with_its_place() {
    let Some(world) = world() else { return };
    let changes: [Mistake<'_>; 14] = [
        (&|config| config["sidecar"]["nmae"] = json!("x"), &["countersign.yaml:", "unknown key `nmae`", "`name`"]),
        (
            &|config| config["tools"]["orders"]["actions"]["orders.read"]["efect"] = json!("read"),
            &["countersign.yaml:", "efect"],
        ),
        (
            &|config| config["sidecar"]["name"] = json!("${COUNTERSIGN_TEST_UNSET}"),
            &["countersign.yaml:", "COUNTERSIGN_TEST_UNSET"],
        ),
        (&|config| config["tools"]["orders"]["timeout"] = json!("5 minutes"), &["countersign.yaml:", "duration"]),
        (&|config| config["tools"]["orders"]["timeout"] = json!(5), &["countersign.yaml:", "duration"]),
        (&|config| config["listen"]["agent"]["tcp"] = json!("nowhere"), &["countersign.yaml:"]),
        (&|config| drop(config.as_object_mut().unwrap().remove("ledger")), &["ledger"]),
        (&|config| config["tools"]["orders"]["upstream"] = json!("http://orders.example"), &["upstream"]),
        (&|config| config["tools"]["orders"]["upstream"] = json!("ftp://127.0.0.1"), &["upstream"]),
        (&|config| config["tools"]["orders"]["actions"]["orders.read"]["match"] = json!("FETCH /x"), &["orders.read"]),
        (
            &|config| {
                config["tools"]["orders"]["actions"]["twin"] =
                    json!({"match": "GET /v1/orders/{id}", "effect": "read", "resource": "orders/{id}"});
            },
            &["match the same requests"],
        ),
        (&|config| config["tools"]["orders"]["actions"]["refunds.create"]["facts"] = json!(["nothing"]), &["nothing"]),
        (&|config| config["issuers"][0]["algorithms"] = json!(["none"]), &["countersign.yaml:"]),
        (
            &|config| config["tools"]["orders"].as_object_mut().unwrap().remove("credential").map_or((), drop),
            &["credential"],
        ),
    ];
    std::thread::scope(|scope| {
        for (change, words) in &changes {
            let broken = setup(world).with(change);
            scope.spawn(move || complains(&broken.run(), words));
        }
    });
    let broken = setup(world);
    let path = broken.write();
    for text in ["", "[", "sidecar: {name: a}\nsidecar: {name: b}\n", "\u{0}", "a: &a [*a]\n"] {
        fs::write(&path, text).unwrap();
        complains(
            &process::run(process::countersign().arg("sidecar").arg("--config").arg(&path)),
            &["countersign.yaml"],
        );
    }
    complains(
        &process::run(process::countersign().args(["sidecar", "--config", "/nowhere/countersign.yaml"])),
        &["/nowhere/countersign.yaml"],
    );
}

#[test]
fn a_place_is_a_line_and_a_column() {
    let Some(world) = world() else { return };
    let broken = setup(world);
    let path = broken.write();
    fs::write(&path, "sidecar:\n  name: support\n  audiense: x\n").unwrap();
    complains(
        &process::run(process::countersign().arg("sidecar").arg("--config").arg(&path)),
        &["countersign.yaml:3:3", "audiense", "audience"],
    );
}

#[test]
fn a_policy_that_could_let_a_call_slip_is_refused_before_it_decides_anything() {
    let Some(world) = world() else { return };
    let with = |policy: &str| {
        let mut broken = setup(world);
        broken.policy = policy.to_owned();
        broken
    };
    let head = "package countersign.teams.support\n\n";
    let policies: [(&str, &[&str]); 9] = [
        ("package countersign.teams.support\n\nallow contains {", &["support.rego"]),
        (
            "package countersign.teams.billing\n\nallow contains {\"code\": \"x\"} if true\n",
            &["countersign.teams.billing"],
        ),
        ("package countersign.org\n\ndeny contains {\"code\": \"x\"} if false\n", &["countersign.org"]),
        (&format!("{head}allow contains {{\"code\": \"x\"}} if no_such_builtin(input)\n"), &["no_such_builtin"]),
        (
            &format!("{head}allow contains {{\"code\": \"x\"}} if http.send({{\"url\": \"http://127.0.0.1\"}})\n"),
            &["http.send"],
        ),
        (&format!("{head}f(x) := y if y := f(x)\n\nallow contains {{\"code\": \"x\"}} if f(1)\n"), &["recurs"]),
        (&format!("{head}a if b\n\nb if a\n\nallow contains {{\"code\": \"x\"}} if a\n"), &["recurs"]),
        (
            &format!("{head}allow contains {{\"code\": \"x\"}} if count(numbers.range(1, input.now_ns)) > 0\n"),
            &["numbers.range"],
        ),
        (
            &format!(
                "{head}allow contains {{\"code\": \"x\"}} if {{\n    name := input.user.id\n    data.countersign.teams[name].allow\n}}\n"
            ),
            &["data.countersign"],
        ),
    ];
    std::thread::scope(|scope| {
        for (policy, words) in policies {
            let broken = with(policy);
            scope.spawn(move || complains(&broken.run(), words));
        }
    });
    let broken = setup(world).with(|config| config["policy"][1]["path"] = json!("policies/nowhere"));
    complains(&broken.run(), &["policies/nowhere"]);
    complains(&setup(world).with(|config| config["policy"][1]["for"] = json!(["payroll"])).run(), &["payroll"]);
    assert!(POLICY.starts_with(head.trim_end()), "the policies above are broken versions of one that works");
}

#[test]
fn a_secret_that_others_may_read_or_that_is_not_there_is_not_used() {
    let Some(world) = world() else { return };
    let open = setup(world);
    let secret = open.directory().join("tool-credential");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    complains(&open.run(), &["tool-credential", "others"]);
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&secret, "").unwrap();
    complains(&open.run(), &["tool-credential"]);
    fs::write(&secret, "two\nlines\n").unwrap();
    let ran = open.run();
    complains(&ran, &["credential"]);
    assert!(!ran.stderr.contains("two"), "the secret is printed: {}", ran.stderr);
    fs::remove_file(&secret).unwrap();
    complains(&open.run(), &["tool-credential"]);

    let unset = setup(world)
        .with(|config| config["tools"]["orders"]["credential"] = json!({"bearer": {"env": "COUNTERSIGN_TEST_UNSET"}}));
    complains(&unset.run(), &["COUNTERSIGN_TEST_UNSET"]);
    let mut found =
        setup(world).with(|config| config["tools"]["orders"]["credential"] = json!({"bearer": {"env": "TOOL"}}));
    found.environment.push(("TOOL".to_owned(), "from-the-environment".to_owned()));
    let sidecar = found.start();
    let mark = crate::support::mark();
    sidecar.get("/orders/v1/orders/17", &world.openid.delegated("alice")).header("X-Mark", &mark).send().went(200);
    let [request] = &world.tool.marked(&mark)[..] else { panic!("the tool was called once") };
    assert_eq!(crate::support::tool::values(request, "authorization"), ["Bearer from-the-environment"]);
}

#[test]
fn a_ledger_that_others_may_read_and_a_configuration_that_others_may_change_are_refused() {
    let Some(world) = world() else { return };
    let open = setup(world);
    let path = open.write();
    fs::set_permissions(open.directory().join("ledger"), fs::Permissions::from_mode(0o755)).unwrap();
    complains(&open.run(), &["ledger"]);
    fs::set_permissions(open.directory().join("ledger"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let ran = process::run(process::countersign().arg("sidecar").arg("--config").arg(&path));
    complains(&ran, &["countersign.yaml", "others"]);
}

#[test]
fn a_broken_key_file_is_refused_and_a_good_one_serves() {
    let Some(world) = world() else { return };
    let with = |text: &str| {
        let setup = setup(world).with(|config| config["issuers"][0]["keys"] = json!({"file": "jwks.json"}));
        setup.write_secret("jwks.json", text);
        setup
    };
    let texts = [
        "",
        "not json",
        "{}",
        "{\"keys\":[]}",
        "{\"keys\":[{\"kty\":\"oct\",\"k\":\"c2VjcmV0\",\"kid\":\"a\"}]}",
        "{\"keys\":[],\"keys\":[]}",
    ];
    std::thread::scope(|scope| {
        for text in texts {
            let broken = with(text);
            scope.spawn(move || complains(&broken.run(), &["jwks.json"]));
        }
    });
    let missing = setup(world).with(|config| config["issuers"][0]["keys"] = json!({"file": "nowhere.json"}));
    complains(&missing.run(), &["nowhere.json"]);

    let port: u16 = world.openid.issuer().rsplit_once(':').unwrap().1.parse().unwrap();
    let sidecar = with(&crate::support::http::get(port, "/jwks").text()).start();
    sidecar.get("/orders/v1/orders/17", &world.openid.delegated("alice")).send().went(200);
}

#[test]
fn config_check_says_the_same_without_starting_anything() {
    let Some(world) = world() else { return };
    let good = setup(world);
    let path = good.write();
    process::run(process::countersign().args(["config", "check"]).arg(&path)).well();
    assert_eq!(fs::read_dir(good.directory().join("ledger")).unwrap().count(), 0, "a check writes nothing");
    let broken = good.with(|config| config["sidecar"]["nmae"] = json!("x"));
    let path = broken.write();
    let ran = process::run(process::countersign().args(["config", "check"]).arg(&path));
    assert_eq!(ran.code, Some(WRONG_CONFIGURATION), "{}{}", ran.stdout, ran.stderr);
    assert!(format!("{}{}", ran.stdout, ran.stderr).contains("nmae"));
}

#[test]
fn the_authority_names_its_mistakes_alike() {
    let Some(world) = world() else { return };
    let client = crate::support::authority::Client::new("support-v9");
    let authority = crate::support::authority::Authority::start(&world.openid, &[&client]);
    let (config, store) = (authority.directory().join("authority.yaml"), authority.directory().join("store.yaml"));
    let good = [fs::read_to_string(&config).unwrap(), fs::read_to_string(&store).unwrap()];
    drop(authority.daemon);
    let with = |config_text: &str, store_text: &str| {
        fs::write(&config, config_text).unwrap();
        fs::write(&store, store_text).unwrap();
        process::run(process::countersign().arg("authority").arg("--config").arg(&config))
    };
    let [config_text, store_text] = &good;
    complains(&with(&config_text.replace("\"sidecars\"", "\"sidecar\""), store_text), &["authority.yaml:", "sidecar"]);
    complains(&with(config_text, &store_text.replace("\"grants\"", "\"grant\"")), &["store.yaml:", "grant"]);
    complains(&with(config_text, &store_text.replace("\"support-v9\"", "\"\"")), &["store.yaml"]);
    complains(
        &with(
            config_text,
            &store_text.replace("grant-alice", "grant-nowhere").replacen("grant-nowhere", "grant-alice", 1),
        ),
        &["store.yaml", "grant-nowhere"],
    );
    complains(&with(config_text, &store_text.replace("\"50.00\"", "50.5")), &["store.yaml"]);
    complains(&with(config_text, &store_text.replace("\"y\":", "\"d\":\"c2VjcmV0\",\"y\":")), &["store.yaml"]);
    let key = fs::read_dir(config.with_file_name("keys")).unwrap().next().unwrap().unwrap().path();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    complains(&with(config_text, store_text), &["keys"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, "not a key").unwrap();
    complains(&with(config_text, store_text), &["keys"]);
}

#[test]
fn a_port_that_is_taken_is_said_to_be() {
    let Some(world) = world() else { return };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = setup(world).with(|config| config["listen"]["agent"]["tcp"] = json!(address)).run();
    assert!(ran.code.is_some_and(|code| code != 0), "{}", ran.stderr);
    assert!(ran.stderr.contains(&address) && !ran.stderr.contains("panicked"), "{}", ran.stderr);
}
