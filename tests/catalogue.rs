//! The catalogue of tools and actions as a bundle: what is published is what calls are resolved by, at once and with the
//! policy, and whatever is wrong with it leaves everything as it was. Real parts: the sidecar, a server of bundles.

use std::{fs, process::Command};

use serde_json::{Value, json};

use crate::{
    bundles::{SECRET, Server, Workshop, activated, put_config, status},
    support::{
        Sidecar, World,
        authority::{Authority, Client},
        eventually, mark,
        process::{self, Ran},
        sidecar::Setup,
        world,
    },
    withdrawal::planes::{enrolled, read},
};

const ORDER: &str = "/orders/v1/orders/17";
const LIST: &str = "/orders/v1/orders";
const KEYS: [(&str, &str, &str); 1] = [("k", "platform.pub.pem", "prod")];

/// A sidecar whose tool's actions come from elsewhere, and those actions as the configuration had them.
fn setup(world: &World, workshop: &Workshop, settings: &Value) -> (Setup, Value) {
    placed(Setup::new(&world.openid, &world.tool), workshop, settings)
}

fn placed(setup: Setup, workshop: &Workshop, settings: &Value) -> (Setup, Value) {
    setup.write_secret("bundle-secret", SECRET);
    fs::copy(workshop.path("platform.pub.pem"), setup.directory().join("platform.pub.pem")).unwrap();
    let mut actions = Value::Null;
    let setup = setup.with(|config| {
        actions = config["tools"]["orders"].as_object_mut().unwrap().remove("actions").unwrap();
        let mut source = json!({"name": "shop", "for": ["orders"]});
        source.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        config["catalogue"] = json!([source]);
    });
    (setup, actions)
}

fn keys() -> Value {
    let key = |(name, file, scope)| (String::from(name), json!({"algorithm": "EdDSA", "file": file, "scope": scope}));
    KEYS.into_iter().map(key).collect()
}

/// That the catalogue is fetched from `server`.
fn fetched(server: &Server, more: &Value) -> Value {
    let mut bundle = json!({"url": url(server), "credential": {"bearer": {"file": "bundle-secret"}}, "poll": "1s"});
    bundle.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"bundle": bundle, "keys": keys()})
}

fn url(server: &Server) -> String {
    server.url().replace("support.tar.gz", "shop.tar.gz")
}

fn offer(server: &Server, bundle: &[u8]) {
    server.put("shop.tar.gz", bundle);
}

fn document(tool: &str, actions: &Value) -> Value {
    json!({"catalogue": {tool: {"actions": actions}}})
}

/// A bundle of `document`, signed with the key `signer`, where there is one.
fn made(workshop: &Workshop, document: &Value, serial: u64, signer: Option<&str>) -> Vec<u8> {
    workshop.write("catalogue/data.json", &document.to_string());
    let (output, serial) = (workshop.path("catalogue.tar.gz"), serial.to_string());
    let revision = format!("c{serial}");
    let directory = workshop.path("catalogue");
    ran(&workshop.policy(&["build", "-o", &output, "--revision", &revision, "--serial", &serial, &directory]));
    signed(workshop, &output, signer)
}

/// The same of files that no command would make a bundle of.
fn packed(workshop: &Workshop, files: &[(&str, &str)], roots: &Value, serial: u64) -> Vec<u8> {
    let directory = format!("packed-{serial}");
    let manifest = json!({"revision": format!("c{serial}"), "roots": roots, "metadata": {"serial": serial}});
    workshop.write(&format!("{directory}/.manifest"), &manifest.to_string());
    let output = workshop.path("packed.tar.gz");
    let mut tar = Command::new("tar");
    tar.args(["-czf", &output, "-C", &workshop.path(&directory), ".manifest"]);
    for (name, text) in files {
        workshop.write(&format!("{directory}/{name}"), text);
        tar.arg(name);
    }
    assert!(tar.status().unwrap().success());
    signed(workshop, &output, Some("platform"))
}

fn signed(workshop: &Workshop, bundle: &str, signer: Option<&str>) -> Vec<u8> {
    if let Some(signer) = signer {
        let key = workshop.path(&format!("{signer}.pem"));
        ran(&workshop.policy(&["sign", "--key", &key, "--key-id", "k", "--scope", "prod", bundle]));
    }
    fs::read(bundle).unwrap()
}

fn ran(ran: &Ran) {
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

fn without(actions: &Value, names: &[&str]) -> Value {
    let mut actions = actions.clone();
    names.iter().for_each(|name| drop(actions.as_object_mut().unwrap().remove(*name).unwrap()));
    actions
}

/// What is told of the source of the catalogue.
fn source(sidecar: &Sidecar) -> Value {
    status(sidecar)["catalogue"]["bundles"][0].clone()
}

/// Waits until what is on the server is refused, and that is why.
fn refused(sidecar: &Sidecar, why: &str) {
    eventually(why, || {
        let said = source(sidecar)["fetched"]["refused"]["why"].clone();
        said.as_str().is_some_and(|said| said.contains(why)).then_some(())
    });
}

fn goes(sidecar: &Sidecar, path: &str, token: &str) {
    eventually(path, || (sidecar.get(path, token).send().status == 200).then_some(()));
}

fn unmapped(sidecar: &Sidecar, path: &str, token: &str) {
    eventually(path, || sidecar.get(path, token).send().text().contains("unmapped_action").then_some(()));
}

#[test]
fn a_new_revision_maps_an_action_at_once_and_the_next_one_takes_it_away() {
    let Some(world) = world() else { return };
    let workshop = Workshop::new();
    let Some(server) = Server::start(&[]) else { return };
    let (setup, actions) = setup(world, &workshop, &fetched(&server, &json!({})));
    let bundle = |actions: &Value, serial| made(&workshop, &document("orders", actions), serial, Some("platform"));
    offer(&server, &bundle(&without(&actions, &["orders.list"]), 1));
    let sidecar = setup.start();
    let token = world.openid.delegated("alice");
    sidecar.get(ORDER, &token).send().went(200);
    unmapped(&sidecar, LIST, &token);
    let begun = status(&sidecar);

    offer(&server, &bundle(&actions, 2));
    goes(&sidecar, LIST, &token);
    let now = status(&sidecar);
    assert_eq!(now["configuration"]["revision"], begun["configuration"]["revision"]);
    assert_ne!(now["catalogue"]["revision"], begun["catalogue"]["revision"]);
    assert_ne!(now["policy"]["revision"], begun["policy"]["revision"], "it is a part of what decides");
    assert_eq!((&source(&sidecar)["serial"], &source(&sidecar)["for"]), (&json!(2), &json!(["orders"])));
    let records = activated(&sidecar);
    let record = records.last().unwrap();
    assert_eq!(
        (&record["revision"], &record["catalogue"]),
        (&now["policy"]["revision"], &now["catalogue"]["revision"])
    );
    let told = &record["bundles"][0];
    assert_eq!((&told["name"], &told["revision"], &told["serial"]), (&json!("shop"), &json!("c2"), &json!(2)));
    assert_eq!((&told["catalogue"], &told["signed_by"]), (&json!(["orders"]), &json!("k")), "{record}");
    let revision = now["catalogue"]["revision"].as_str().unwrap();
    let shown = format!("countersign_catalogue_info{{bundle=\"shop\",revision=\"{revision}\"}} 1");
    let metrics = sidecar.metrics();
    assert!(metrics.contains(&shown) && metrics.contains("countersign_policy_bundle_serial{bundle=\"shop\"} 2"));

    // An action that rules speak of may go too: they only never come true.
    offer(&server, &bundle(&without(&actions, &["orders.read", "refunds.create"]), 3));
    unmapped(&sidecar, ORDER, &token);
    goes(&sidecar, LIST, &token);
    assert_eq!(source(&sidecar)["fetched"]["refused"], Value::Null);
    // What decided is explained by what it was then, from the ledger alone.
    let read = sidecar
        .query(&[])
        .into_iter()
        .find(|record| record["kind"] == "call.decided" && record["action"] == "orders.read");
    let id = read.unwrap()["decision_id"].as_str().unwrap().to_owned();
    let explained = process::run(process::countersign().arg("explain").arg(&id).arg("--from").arg(sidecar.ledger()));
    assert!(
        explained.code == Some(0) && explained.stdout.contains("covered"),
        "{}{}",
        explained.stdout,
        explained.stderr
    );
}

#[test]
fn what_is_wrong_with_a_catalogue_leaves_the_last_good_one_in_force() {
    let Some(world) = world() else { return };
    let workshop = Workshop::new();
    let Some(server) = Server::start(&[]) else { return };
    let (setup, actions) = setup(world, &workshop, &fetched(&server, &json!({})));
    let good = document("orders", &actions);
    let before = document("orders", &without(&actions, &["orders.list"]));
    offer(&server, &made(&workshop, &before, 5, Some("platform")));
    let sidecar = setup.start();
    let token = world.openid.delegated("alice");
    sidecar.get(ORDER, &token).send().went(200);
    let begun = status(&sidecar)["catalogue"]["revision"].clone();

    let with = |name: &str, action: Value| {
        let mut actions = actions.clone();
        actions[name] = action;
        document("orders", &actions).to_string()
    };
    let own = json!(["catalogue/orders"]);
    let pack = |document: &str, roots: &Value, serial| packed(&workshop, &[("data.json", document)], roots, serial);
    let read = |more: Value| {
        let mut action = json!({"match": "GET /v1/all", "effect": "read", "resource": "all"});
        action.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        action
    };
    let observing = with("all.read", read(json!({"observe": {"owner": "me", "until": "2099-01-01T00:00:00Z"}})));
    let renamed = {
        let mut action = actions["refunds.create"].clone();
        let amount = action["parameters"].as_object_mut().unwrap().remove("amount").unwrap();
        action["parameters"]["sum"] = amount;
        with("refunds.create", action)
    };
    let rego = ("a.rego", "package countersign.teams.support\n\nallow contains {\"code\": \"x\"}\n");
    let crm = document("crm", &json!({"crm.read": read(json!({}))}));
    for (bundle, why) in [
        (made(&workshop, &good, 6, Some("stranger")), "not its key's"),
        (made(&workshop, &good, 6, None), "not signed"),
        (made(&workshop, &good, 4, Some("platform")), "rollback: 4"),
        (made(&workshop, &crm, 6, Some("platform")), "its root `catalogue/crm`"),
        (pack(&crm.to_string(), &own, 7), "`data.catalogue.crm`"),
        (pack(r#"{"countersign": {"teams": {"support": {"open": true}}}}"#, &own, 8), "`data.countersign`"),
        (pack(r#"{"catalogue": {"orders": {"upstream": "https://elsewhere.example"}}}"#, &own, 9), "upstream"),
        (packed(&workshop, &[("data.json", &good.to_string()), rego], &own, 10), "no Rego"),
        (pack(&observing, &own, 11), "`observe`"),
        (pack(&with("all.read", read(json!({"surprise": 1}))), &own, 12), "surprise"),
        (pack(&with("all.read", read(json!({"match": "BREW /pot"}))), &own, 13), "BREW /pot"),
        (pack(&with("all.read", read(json!({"facts": ["secrets"]}))), &own, 14), "secrets"),
        (pack(&with("all.read", read(json!({"match": "GET /v1/orders/{other}"}))), &own, 15), "orders.read"),
        // A rule that says no to large refunds would see none any more.
        (pack(&renamed, &own, 16), "no longer mean what it says"),
        (b"no archive at all".to_vec(), "gzip"),
    ] {
        offer(&server, &bundle);
        // Whoever was refused so often is asked ever more seldom.
        sidecar.daemon.signal("HUP");
        refused(&sidecar, why);
        assert_eq!(status(&sidecar)["catalogue"]["revision"], begun, "{why}");
    }
    sidecar.get(ORDER, &token).send().went(200);
    unmapped(&sidecar, LIST, &token);
    assert!(sidecar.metrics().contains("countersign_policy_bundle_refused{bundle=\"shop\"} 1"));
    assert_eq!(activated(&sidecar).len(), 1);
    offer(&server, &made(&workshop, &good, 17, Some("platform")));
    sidecar.daemon.signal("HUP");
    goes(&sidecar, LIST, &token);
    assert_eq!(source(&sidecar)["fetched"]["refused"], Value::Null);
}

#[test]
fn without_its_server_a_sidecar_starts_with_the_last_good_catalogue_until_that_is_too_old() {
    let Some(world) = world() else { return };
    let workshop = Workshop::new();
    let Some(server) = Server::start(&[]) else { return };
    let (setup, actions) = setup(world, &workshop, &fetched(&server, &json!({"max_age": "4s"})));
    server.put("mode", b"away");
    let refused = setup.run();
    assert_eq!(refused.code, Some(69), "without any nobody knows what a call is: {}", refused.stderr);
    assert!(refused.stderr.contains("catalogue.shop"), "{}", refused.stderr);
    server.put("mode", b"");
    offer(&server, &made(&workshop, &document("orders", &actions), 5, Some("platform")));
    let mut sidecar = setup.start();
    let token = world.openid.delegated("alice");
    goes(&sidecar, ORDER, &token);
    sidecar.stop();
    server.put("mode", b"away");
    sidecar.restart();
    eventually("it to be too old", || {
        let answer = sidecar.get(ORDER, &token).send();
        assert!(answer.status == 200 || answer.text().contains("policy_stale"), "{}", answer.text());
        (answer.status == 503).then_some(())
    });
    assert_eq!((&source(&sidecar)["fetched"]["stale"], &source(&sidecar)["serial"]), (&json!(true), &json!(5)));
    server.put("mode", b"");
    sidecar.daemon.signal("HUP");
    goes(&sidecar, ORDER, &token);
}

#[test]
fn a_sidecar_that_starts_does_not_take_what_a_running_one_would_refuse() {
    let Some(world) = world() else { return };
    let workshop = Workshop::new();
    let Some(server) = Server::start(&[]) else { return };
    let (setup, mut actions) = setup(world, &workshop, &fetched(&server, &json!({})));
    offer(&server, &made(&workshop, &document("orders", &actions), 5, Some("platform")));
    let mut sidecar = setup.start();
    let token = world.openid.delegated("alice");
    goes(&sidecar, ORDER, &token);
    sidecar.stop();
    let parameters = actions["refunds.create"]["parameters"].as_object_mut().unwrap();
    let amount = parameters.remove("amount").unwrap();
    parameters.insert("sum".to_owned(), amount);
    offer(&server, &made(&workshop, &document("orders", &actions), 6, Some("platform")));
    sidecar.restart();
    goes(&sidecar, ORDER, &token);
    refused(&sidecar, "no longer mean what it says");
    assert_eq!(source(&sidecar)["serial"], 5);
}

#[test]
fn a_call_under_way_ends_by_the_catalogue_that_it_began_with() {
    let Some(world) = world() else { return };
    let workshop = Workshop::new();
    let Some(server) = Server::start(&[]) else { return };
    let (setup, actions) = setup(world, &workshop, &fetched(&server, &json!({})));
    let bundle = |actions: &Value, serial| made(&workshop, &document("orders", actions), serial, Some("platform"));
    offer(&server, &bundle(&actions, 1));
    let next = bundle(&without(&actions, &["orders.read"]), 2);
    let sidecar = setup.start();
    let token = world.openid.delegated("alice");
    let mark = mark();
    let slow = format!("/orders/v1/orders/slow?ms=8000&mark={mark}");
    let under_way = std::thread::scope(|scope| {
        let slow = scope.spawn(|| sidecar.get(&slow, &token).send());
        eventually("the tool to be asked", || {
            let asked = |request: &Value| request.to_string().contains(&mark);
            world.tool.requests().iter().any(asked).then_some(())
        });
        offer(&server, &next);
        unmapped(&sidecar, ORDER, &token);
        slow.join().unwrap()
    });
    under_way.went(200);
    assert!(under_way.text().contains("slow"), "{}", under_way.text());
}

#[test]
fn a_catalogue_in_a_directory_is_taken_as_it_changes_and_a_signed_one_as_it_was_signed() {
    let Some(world) = world() else { return };
    let workshop = Workshop::new();
    let (setup, actions) = setup(world, &workshop, &json!({"path": "catalogue"}));
    let place = setup.directory().join("catalogue");
    fs::create_dir(&place).unwrap();
    let put = |document: &Value| {
        fs::write(place.join("next"), document.to_string()).unwrap();
        fs::rename(place.join("next"), place.join("data.json")).unwrap();
    };
    put(&document("orders", &without(&actions, &["orders.list"])));
    let sidecar = setup.start();
    let token = world.openid.delegated("alice");
    sidecar.get(ORDER, &token).send().went(200);
    unmapped(&sidecar, LIST, &token);
    put(&document("orders", &actions));
    goes(&sidecar, LIST, &token);
    let held = |why: &str| {
        eventually(why, || {
            let said = status(&sidecar)["configuration"]["refused"]["why"].clone();
            said.as_str().is_some_and(|said| said.contains(why)).then_some(())
        });
        sidecar.get(LIST, &token).send().went(200);
    };
    put(&document("crm", &actions));
    held("`data.catalogue.crm`");
    let mut renamed = actions.clone();
    let parameters = renamed["refunds.create"]["parameters"].as_object_mut().unwrap();
    let amount = parameters.remove("amount").unwrap();
    parameters.insert("sum".to_owned(), amount);
    put(&document("orders", &renamed));
    held("no longer mean what it says");
    // Actions stand in one place alone, and so do tools.
    put_config(&sidecar, |config| config["tools"]["orders"]["actions"] = actions.clone());
    held("tools.orders.actions");
    put_config(&sidecar, |config| {
        config["tools"]["orders"].as_object_mut().unwrap().remove("actions");
        let other = json!({"name": "support", "for": ["orders", "crm"], "path": "catalogue"});
        config["catalogue"].as_array_mut().unwrap().push(other);
    });
    for why in ["another source", "the tool `orders` is in the `for` of `shop` too", "`crm`, which is not configured"] {
        held(why);
    }
    // As a file that is signed, in the place of the directory.
    let next = made(&workshop, &document("orders", &without(&actions, &["orders.list"])), 3, Some("platform"));
    fs::write(sidecar.directory().join("shop.tar.gz"), next).unwrap();
    put_config(&sidecar, |config| {
        config["catalogue"] = json!([{"name": "shop", "for": ["orders"], "path": "shop.tar.gz", "keys": keys()}]);
    });
    unmapped(&sidecar, LIST, &token);
    assert_eq!((&source(&sidecar)["revision"], &source(&sidecar)["signed_by"]), (&json!("c3"), &json!("k")));
}

#[test]
fn a_pin_takes_the_catalogue_back_and_its_end_lets_it_go_on() {
    let Some(world) = world() else { return };
    let Some(server) = Server::start(&[]) else { return };
    let (workshop, agent) = (Workshop::new(), Client::new("support-v9"));
    let authority = Authority::start(&world.openid, &[&agent]);
    let run = |arguments: &[&str]| {
        let root =
            world.openid.sign(&json!({"like": world.openid.manager("dave"), "claims": {"groups": ["platform"]}}));
        let mut command = process::countersign();
        command.arg("policy").args(arguments).env("COUNTERSIGN_AUTHORITY_URL", authority.issuer());
        ran(&process::run(command.env("COUNTERSIGN_TOKEN", root)));
    };
    let (setup, actions) = placed(enrolled(world, &authority, "one"), &workshop, &fetched(&server, &json!({})));
    let bundle = |actions: &Value, serial| made(&workshop, &document("orders", actions), serial, Some("platform"));
    offer(&server, &bundle(&actions, 1));
    let sidecar = setup.start();
    let is = |code: &str| {
        let token = authority.first(&agent, &world.openid);
        eventually(code, || {
            let answer = read(&sidecar, &token);
            (answer.status == 200 && code == "read" || answer.text().contains(code)).then_some(())
        });
    };
    is("read");
    offer(&server, &bundle(&without(&actions, &["orders.read"]), 2));
    is("unmapped_action");
    run(&["pin", "shop", "c1", "--reason", "case 311"]);
    is("read");
    let records = activated(&sidecar);
    let record = &records.last().unwrap()["bundles"][0];
    assert_eq!((&record["name"], &record["rolled_back"]), (&json!("shop"), &json!(2)), "{record}");
    assert_eq!(source(&sidecar)["pin"]["revision"], "c1");
    // What comes meanwhile waits.
    offer(&server, &bundle(&without(&actions, &["orders.read"]), 3));
    eventually("c3", || (source(&sidecar)["pin"]["waiting"]["revision"] == "c3").then_some(()));
    is("read");
    run(&["unpin", "shop", "--reason", "fixed"]);
    is("unmapped_action");
    assert_eq!(source(&sidecar)["revision"], "c3");
}

/// A document of an API that is the tests' tool, as far as it says.
const OPENAPI: &str = r#"
openapi: 3.1.0
info: { title: Shop, version: "1" }
servers: [{ url: "https://shop.example" }]
paths:
  /v1/orders:
    get: { operationId: listOrders, parameters: [{ name: "$filter", in: query, schema: { type: string } }], responses: { 200: { description: ok } } }
  /v1/orders/{order}:
    get: { operationId: getOrder, parameters: [{ name: order, in: path, required: true, schema: { type: string } }], responses: { 200: { description: ok } } }
"#;

#[test]
fn what_is_imported_as_a_bundle_is_reviewed_built_checked_and_decided_by() {
    let Some(world) = world() else { return };
    let workshop = Workshop::new();
    workshop.write("shop.yaml", OPENAPI);
    let (openapi, directory) = (workshop.path("shop.yaml"), workshop.path("imported"));
    let tools = |arguments: &[&str]| process::run(process::countersign().arg("tools").args(arguments));
    let import = ["import", &openapi, "--tool", "orders", "--bundle", &directory];
    let imported = tools(&import);
    ran(&imported);
    assert!(imported.stdout.contains("upstream: ") && !imported.stdout.contains("actions:"), "{}", imported.stdout);
    assert!(imported.stdout.contains("catalogue:") && imported.stdout.contains("name: orders"), "{}", imported.stdout);
    let text = fs::read_to_string(format!("{directory}/data.yaml")).unwrap();
    assert!(text.contains("\"query:$filter\"") && !text.contains("upstream"), "{text}");
    assert_ne!(tools(&import).code, Some(0), "what a person reviewed is not written over");

    let bundle = workshop.path("orders.tar.gz");
    ran(&workshop.policy(&["build", "-o", &bundle, "--revision", "c1", "--serial", "1", &directory]));
    ran(&workshop.policy(&[
        "sign",
        "--key",
        &workshop.path("platform.pem"),
        "--key-id",
        "k",
        "--scope",
        "prod",
        &bundle,
    ]));
    let seen: Value = serde_json::from_str(&workshop.policy(&["inspect", "--json", &bundle]).stdout).unwrap();
    assert_eq!(seen["roots"], json!(["catalogue/orders"]));

    let (setup, _) = setup(world, &workshop, &json!({"path": "orders.tar.gz", "keys": keys()}));
    fs::copy(&bundle, setup.directory().join("orders.tar.gz")).unwrap();
    let config = setup.write().display().to_string();
    ran(&process::run(process::countersign().args(["config", "check", &config])));
    let check = |more: &[&str]| {
        let document = format!("orders={openapi}");
        let arguments = ["check", "--config", &config, "--openapi", &document, "--accept", "server,link", "--json"];
        let checked = tools(&[&arguments[..], more].concat());
        serde_json::from_str::<Value>(&checked.stdout).unwrap()
    };
    let whole = check(&[]);
    assert_eq!((&whole["ok"], &whole["actions"]), (&json!(true), &json!(2)), "{whole}");
    // Before it is published it is looked at in the place of what is.
    let list = text.split("      orders.").next().unwrap().replace("    actions:\n", "    actions: {}\n");
    workshop.write("empty/data.yaml", &list);
    let empty = check(&["--bundle", &format!("shop={}", workshop.path("empty"))]);
    assert_eq!((&empty["ok"], &empty["actions"]), (&json!(false), &json!(0)), "{empty}");
    assert_eq!(tools(&["check", "--config", &config, "--bundle", "nobody=x"]).code, Some(2));

    let sidecar = setup.start();
    let token = world.openid.delegated("alice");
    unmapped(&sidecar, "/orders/v1/echo/x", &token);
    let names: Vec<String> =
        text.lines().filter_map(|line| line.strip_prefix("      ")?.strip_suffix(':')).map(str::to_owned).collect();
    assert!(!sidecar.get(ORDER, &token).send().text().contains("unmapped_action"), "{names:?}");
}

#[test]
fn no_command_makes_a_bundle_of_a_catalogue_that_would_not_load() {
    let workshop = Workshop::new();
    let built = |text: &str| {
        workshop.write("bad/data.yaml", text);
        workshop.policy(&["build", "-o", &workshop.path("bad.tar.gz"), "--revision", "r", &workshop.path("bad")])
    };
    for (text, why) in [
        ("catalogue: { orders: { actions: { a.b: { match: GET /x, effect: look, resource: x } } } }", "look"),
        ("catalogue: { orders: { actions: { a.b: { match: GET x, effect: read, resource: x } } } }", "begin with `/`"),
        ("catalogue: { orders: { actions: [] } }", "is no object"),
        ("catalogue: { orders: { credential: none } }", "credential"),
        ("other: {}", "data.other"),
    ] {
        let refused = built(text);
        assert_eq!(refused.code, Some(78), "{why}: {}", refused.stderr);
        assert!(refused.stderr.contains(why), "{why}: {}", refused.stderr);
    }
    let facts =
        "catalogue: { orders: { actions: { a.b: { match: GET /x, effect: read, resource: x, facts: [order] } } } }";
    ran(&built(facts));
}
