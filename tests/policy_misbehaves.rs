//! Policies that misbehave: refused when they are loaded, or bounded when they run. Other calls go on, and the process
//! never dies.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    Answer, PATIENCE, Sidecar, World, eventually,
    openid::TOOL,
    process::{self, Ran, countersign},
    sidecar::{POLICY, Setup},
    world,
};

const HEAD: &str = "package countersign.teams.support\n\n";
const ORDER: &str = "/orders/v1/orders/17";

/// What `countersign config check` says of a sidecar with these files in the team's directory.
fn checked(world: &World, files: &[(&str, &str)]) -> Ran {
    let setup = Setup::new(&world.openid, &world.tool);
    let config = setup.write();
    for (name, text) in files {
        fs::write(setup.directory().join("policies/support").join(name), text).unwrap();
    }
    process::run(countersign().args(["config", "check"]).arg(config))
}

/// Each pair is a policy and a word of what is said about it.
fn all_refused(world: &World, cases: &[(String, &str)]) {
    std::thread::scope(|scope| {
        for part in cases.chunks(cases.len().div_ceil(2)) {
            scope.spawn(move || {
                for (rules, word) in part {
                    let ran = checked(world, &[("support.rego", &format!("{HEAD}{rules}\n"))]);
                    let said = format!("{}{}", ran.stdout, ran.stderr);
                    assert_eq!(ran.code, Some(78), "{said}\n{rules:.500}");
                    assert!(
                        said.contains("support.rego:") && said.contains(word),
                        "no {word:?} in {said}\n{rules:.500}"
                    );
                }
            });
        }
    });
}

/// A line of forty steps, each made from the one before, which `@` stands for.
fn line(step: &str) -> String {
    let each = |n: u32| format!("    x{} := {}\n", n + 1, step.replace('@', &format!("x{n}")));
    let steps: String = (0..40).map(each).collect();
    format!("allow contains {{\"code\": \"x\"}} if {{\n    x0 := input.call.path\n{steps}    count(x40) > 0\n}}")
}

#[test]
fn what_could_not_be_stopped_is_refused_when_it_is_loaded() {
    let Some(world) = world() else { return };
    let cases = [
        ("f(x) := y if y := f(x)", "recursion"),
        ("a if b\nb if a", "recursion"),
        ("default f(_) := false\nf(x) if f(x)", "recursion"),
        ("x := numbers.range(1, input.now_ns)", "numbers.range"),
        ("x := net.cidr_expand(input.call.headers.cidr)", "net.cidr_expand"),
        ("x := net.cidr_expand(\"10.0.0.0/8\")", "net.cidr_expand"),
        ("x := strings.repeat(\"a\", 1000000000)", "strings.repeat"),
        ("x := sprintf(\"%1000000000d\", [1])", "pads"),
        ("x := regex.match(input.call.path, \"a\")", "argument 1"),
        ("x := glob.match(input.call.path, [], \"a\")", "argument 1"),
        ("x := http.send({\"method\": \"get\", \"url\": \"http://127.0.0.1/\"})", "fact"),
        ("x := 1e1000000000", ""),
        ("x := count([1 | some a in numbers.range(1, 9999); some b in numbers.range(1, 9999)])", "MiB"),
        ("x := json.unmarshal(input.call.path)", "parameter"),
    ];
    let grown = ["concat(\"\", [@, @])", "sprintf(\"%s%s\", [@, @])", "[@, @]", "replace(@, \"\", \"ab\")", "{@: @}"];
    let mut all: Vec<(String, &str)> = cases.iter().map(|(rules, word)| ((*rules).to_owned(), *word)).collect();
    all.extend(grown.iter().map(|step| (line(step), "MiB")));
    all.push((line("@ * @").replace("input.call.path", "7").replace("count(x40)", "x40"), "multiplies"));
    all_refused(world, &all);
}

#[test]
fn what_belongs_to_others_is_refused_when_it_is_loaded() {
    let Some(world) = world() else { return };
    let package = |name: &str| format!("package {name}\n\nallow contains {{\"code\": \"x\"}}\n");
    for (name, word) in [
        ("countersign.teams.mail", "does not belong to this source"),
        ("countersign.org", "does not belong to this source"),
        ("countersign.lib.money", "does not belong to this source"),
        ("countersign.dispatch", "does not belong to this source"),
        ("data.countersign.teams.support", ""),
    ] {
        let ran = checked(world, &[("stray.rego", &package(name))]);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(ran.code == Some(78) && said.contains("stray.rego:1:") && said.contains(word), "{name}: {said}");
    }
    let cases = [
        ("x := data.countersign[input.tool]", "packages of others"),
        ("x := data.countersign.teams[input.tool].allow", "packages of others"),
        ("import data.countersign.teams.mail\nx := mail.allow", "belongs to somebody else"),
        ("import data as d\nx := d.countersign.org.deny", "others"),
        ("import data.countersign.lib.money as input\nx := input.tool", "stands for something else"),
        ("import data.countersign.lib.money\nmoney.at_most(a, b) := true", "import"),
        ("import data.countersign.lib.mony\nx := mony.at_most(1, 2)", "there is no"),
        ("x if y with input as {}\ny := input.tool", "`with`"),
        ("x if count([]) == 0 with count as data.countersign.lib.money.at_most", "`with`"),
        ("allow { input.tool == \"orders\" }", ""),
        ("deny[reason] { reason := \"v0\" }", ""),
        ("import rego.v0\nx := 1", ""),
    ];
    let cases: Vec<_> = cases.iter().map(|(rules, word)| ((*rules).to_owned(), *word)).collect();
    all_refused(world, &cases);
    // What newer policies do not need any more is no mistake.
    let kept = format!("{HEAD}import rego.v1\n\ndefault f(_) := false\n\nf(x) if x == 1\n");
    checked(world, &[("support.rego", &kept)]).well();
}

#[test]
fn data_that_is_too_much_is_refused_by_name() {
    let Some(world) = world() else { return };
    let large = format!("{{\"countersign\":{{\"teams\":{{\"support\":{{\"x\":\"{}\"}}}}}}}}", "x".repeat(50 << 20));
    let many = format!("{{\"countersign\":{{\"teams\":{{\"support\":{{\"x\":[{}0]}}}}}}}}", "[],".repeat(5 << 20));
    let deep = format!("{{\"countersign\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let nested = |open: &str| format!("countersign: {}", open.repeat(10_000));
    for (name, text, word) in [
        ("data.json", large, "larger than"),
        ("data.json", many, "names and values"),
        ("data.json", deep, ""),
        ("data.yaml", nested("["), ""),
        ("data.yaml", nested("{a: "), ""),
    ] {
        let ran = checked(world, &[(name, &text)]);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(ran.code == Some(78) && said.contains(name) && said.contains(word), "{said:.2000}");
        assert!(!said.contains("panicked") && said.len() < 4_000, "{said:.2000}");
    }
}

#[test]
fn ten_thousand_rules_decide_like_one() {
    let Some(world) = world() else { return };
    let rule = |n: u32| format!("deny contains {{\"code\": \"r{n}\"}} if input.action.name == \"nothing.{n}\"\n\n");
    let mut setup = Setup::new(&world.openid, &world.tool);
    setup.policy = format!("{HEAD}allow contains {{\"code\": \"x\"}}\n");
    setup.write();
    for file in 0..5 {
        let rules: String = (0..2_000).map(|n| rule(file * 2_000 + n)).collect();
        let path = setup.directory().join(format!("policies/support/rules{file}.rego"));
        fs::write(path, format!("{HEAD}{rules}")).unwrap();
    }
    let sidecar = setup.start();
    let answer = sidecar.get(ORDER, &world.openid.delegated("alice")).send();
    // So many rules may take longer than a machine that is busy with other things gives them, and nothing else.
    if answer.status != 200 {
        answer.refused(503, "policy_budget");
    }
}

/// Rules that are quick for everybody but for who asks with a reason that begins with their name.
const ODD: &str = r#"
reason := input.action.parameters.reason

odd(name) if {
    is_string(reason)
    startswith(reason, name)
}

deny contains {"code": "loops"} if {
    odd("loops")
    some a in numbers.range(1, 9000)
    some b in numbers.range(1, 9000)
    a + b < 0
}

deny contains {"code": "joined"} if {
    odd("joined")
    count({concat("", [reason, format_int(a * 10000 + b, 10)]) |
        some a in numbers.range(1, 200)
        some b in numbers.range(1, 200)
    }) < 0
}

deny contains {"code": "split"} if {
    odd("split")
    letters := split(reason, "")
    some a in letters
    some b in letters
    some c in letters
    concat("", [a, b, c]) == "never"
}

deny contains {"code": "regex"} if {
    odd("regex")
    regex.match(`^regex(((a+)+)+)+(b|c)*$`, reason)
}

deny contains {"code": "glob"} if {
    odd("glob")
    glob.match("glob{*,**,*a*,{*a,*b*}}*a*b*c*d*e*f*g*", [], reason)
}

deny contains {"code": "walked"} if {
    odd("walked")
    walk(input, [one, _])
    walk(input, [two, _])
    walk(input, [three, _])
    count(one) + count(two) + count(three) < 0
}

deny contains {"code": "replaced"} if {
    odd("replaced")
    count(replace(reason, "a", "aaaaaaaa")) < 0
}

deny contains {"code": "failed"} if {
    odd("failed")
    time.parse_rfc3339_ns(reason) < input.now_ns
}
"#;

/// A refund for which the agent chose the reason.
fn because(world: &World, sidecar: &Sidecar, reason: &str) -> Answer {
    let body = json!({"amount": "1.00", "currency": "USD", "reason": reason});
    sidecar.refund("17", &world.openid.delegated("alice"), &body.to_string()).send()
}

#[test]
fn what_an_agent_makes_expensive_ends_with_its_own_call() {
    let Some(world) = world() else { return };
    let mut setup = Setup::new(&world.openid, &world.tool);
    setup.policy = format!("{POLICY}{ODD}");
    let mut sidecar = setup.start();
    because(world, &sidecar, "plain").went(201);
    let long = |name: &str, filler: &str| format!("{name}{}", filler.repeat(60_000 / filler.len().max(1)));
    for (reason, expected) in [
        (long("loops", ""), &["policy_budget"][..]),
        (long("joined", "a"), &["policy_budget"]),
        (long("split", "ab"), &["policy_budget"]),
        (long("walked", "a"), &["policy_budget"]),
        // Those are quick whatever they are given; a loaded machine may still spend the budget.
        (long("regex", "a"), &["policy_denied", "policy_budget"]),
        (long("glob", "ab"), &["policy_denied", "policy_budget", ""]),
        (long("replaced", "a"), &["policy_budget", ""]),
        (long("failed", "a"), &["policy_error"]),
    ] {
        let answer = because(world, &sidecar, &reason);
        let code = if answer.status == 201 { String::new() } else { answer.code() };
        assert!(expected.contains(&code.as_str()), "{reason:.20}: {} {code}", answer.status);
        assert_eq!(sidecar.daemon.ended(), None, "{}", sidecar.daemon.output());
    }
    because(world, &sidecar, "plain").went(201);
    let peak = sidecar.daemon.peak_memory();
    println!("at most {} MiB while agents tried", peak >> 20);
    assert!(peak < 1 << 30, "{peak} bytes were in use");
}

#[test]
fn others_are_answered_while_a_rule_does_not_end() {
    let Some(world) = world() else { return };
    let mut setup = Setup::new(&world.openid, &world.tool);
    setup.policy = format!("{POLICY}{ODD}");
    let sidecar = setup.start();
    let token = world.openid.delegated("alice");
    let bearer = format!("Bearer {token}");
    let read = || {
        let began = Instant::now();
        sidecar.plain_get(ORDER, &[("authorization", &bearer)]).went(200);
        began.elapsed()
    };
    let alone = (0..20).map(|_| read()).max().unwrap();
    let until = Instant::now() + Duration::from_secs(4);
    let (slow, beside) = std::thread::scope(|scope| {
        let slow: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut count = 0_u32;
                    while Instant::now() < until {
                        because(world, &sidecar, "loops").refused(503, "policy_budget");
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let mut taken = Vec::new();
        while Instant::now() < until {
            taken.push(read());
        }
        (slow.into_iter().map(|each| each.join().unwrap()).sum::<u32>(), taken)
    });
    assert!(slow > 0 && !beside.is_empty());
    let slowest = beside.iter().max().unwrap();
    println!("{} reads beside {slow} endless rules: at most {slowest:?}, alone {alone:?}", beside.len());
    assert!(*slowest < PATIENCE);
}

/// Another tool of another team beside the usual one.
fn with_mail(world: &World, rules: &str) -> Setup {
    let mut setup = Setup::new(&world.openid, &world.tool);
    let directory = setup.directory().join("policies/mail");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("mail.rego"), format!("package countersign.teams.mail\n\n{rules}\n")).unwrap();
    let config = &mut setup.config;
    let mut mail = config["tools"][TOOL].clone();
    mail["at"] = json!("/mail");
    mail["actions"] =
        json!({"mail.read": {"match": "GET /v1/orders/{order}", "effect": "read", "resource": "mail/{order}"}});
    config["tools"]["mail"] = mail;
    config["policy"].as_array_mut().unwrap().push(json!({"name": "mail", "path": "policies/mail", "for": ["mail"]}));
    let add = |list: &mut Value| list.as_array_mut().unwrap().push(json!("mail.read"));
    add(&mut config["issuers"][0]["entitlements"]["map"]["support"]);
    add(&mut config["agents"][0]["actions"]);
    setup
}

/// A token for both tools.
fn both(world: &World) -> String {
    let details = json!([
        {"type": "urn:countersign:action", "actions": ["orders.read"], "locations": [TOOL]},
        {"type": "urn:countersign:action", "actions": ["mail.read"], "locations": ["mail"]},
    ]);
    let claims = json!({"scope": "orders.read mail.read", "authorization_details": details});
    world.openid.sign(&json!({"like": world.openid.delegated("alice"), "claims": claims}))
}

#[test]
fn one_teams_error_is_its_own() {
    let Some(world) = world() else { return };
    let allow = "allow contains {\"code\": \"x\"}\n\n";
    let endless = "deny contains {\"code\": \"x\"} if {\n    some a in numbers.range(1, 9000)\n    \
                   some b in numbers.range(1, 9000)\n    a + b < 0\n}";
    for (rules, code) in [
        ("deny contains {\"code\": \"x\"} if time.parse_rfc3339_ns(input.tool) < 5", "policy_error"),
        ("x := 1 if input.tool\n\nx := 2 if input.tool\n\ndeny contains {\"code\": \"x\"} if x == 3", "policy_error"),
        ("deny contains reason if reason := \"no object\"", "policy_error"),
        (endless, "policy_budget"),
    ] {
        let mut sidecar = with_mail(world, &format!("{allow}{rules}")).start();
        let token = both(world);
        let answer = sidecar.get("/mail/v1/orders/17", &token).send();
        answer.refused(503, code);
        assert_eq!(answer.json()["reasons"][0]["source"], "countersign.teams.mail", "{}", answer.text());
        sidecar.get(ORDER, &token).send().went(200);
        assert_eq!(sidecar.daemon.ended(), None, "{}", sidecar.daemon.output());
    }
}

/// The process ids of the children of `parent` that try a policy.
fn trials(parent: u32) -> Vec<u32> {
    let is_trial = |id: &u32| {
        let read = |name: &str| fs::read(format!("/proc/{id}/{name}")).unwrap_or_default();
        let status = String::from_utf8_lossy(&read("stat")).into_owned();
        // The name, which is in brackets, may hold anything.
        let after = status.rsplit(')').next().unwrap_or_default();
        let of = after.split_whitespace().nth(1).and_then(|id| id.parse::<u32>().ok());
        of == Some(parent) && String::from_utf8_lossy(&read("cmdline")).contains("policy-trial")
    };
    let processes = fs::read_dir("/proc").unwrap();
    processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(is_trial).collect()
}

/// A policy that its trial is long busy with.
fn busy() -> String {
    format!(
        "{HEAD}allow contains {{\"code\": \"x\"}} if {{\n    some a in numbers.range(1, 9000)\n    \
         some b in numbers.range(1, 9000)\n    a + b < 0\n}}\n"
    )
}

#[test]
fn a_policy_is_tried_in_a_process_of_its_own_and_its_end_is_nobody_elses() {
    let Some(world) = world() else { return };
    let mut sidecar = Setup::new(&world.openid, &world.tool).start();
    let token = world.openid.delegated("alice");
    sidecar.get(ORDER, &token).send().went(200);
    let said = || sidecar.daemon.output().matches("tried in a process of its own, which aborted").count();
    let path = sidecar.directory().join("policies/support/support.rego");
    fs::write(&path, busy()).unwrap();
    sidecar.daemon.signal("HUP");
    let trial = eventually("the child that tries the policy, with less memory than others", || {
        let limited = |id: &u32| {
            let limits = fs::read_to_string(format!("/proc/{id}/limits")).unwrap_or_default();
            limits.lines().any(|line| line.starts_with("Max address space") && line.contains(" 1073741824 "))
        };
        trials(sidecar.daemon.id()).into_iter().find(limited)
    });
    // As one that the engine takes with it.
    let killed = std::process::Command::new("kill").args(["-ABRT", &trial.to_string()]).status().unwrap();
    assert!(killed.success(), "the trial was over before it could be ended");
    eventually("the end of the child to be told", || (said() == 1).then_some(()));
    sidecar.get(ORDER, &token).send().went(200);
    assert!(sidecar.metrics().lines().any(|line| line == "countersign_reload_refused 1"));
    assert_eq!(sidecar.daemon.ended(), None, "{}", sidecar.daemon.output());
}
