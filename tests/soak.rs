//! A long time under mixed load, while everything that can be exchanged is: memory and file descriptors stay as they
//! were. Two minutes as a test; longer, and with the binary that ships, by
//!
//! ```text
//! COUNTERSIGN_SOAK_SECONDS=1800 COUNTERSIGN_TEST_BINARY=$PWD/target/release/countersign \
//!     cargo test -p countersign --test behaviour soak -- --nocapture
//! ```

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::support::{
    Sidecar, World, eventually, free_port,
    openid::{TOOL, claims, usual_details},
    process::Part,
    root,
    sidecar::{PROBES, Setup, audit},
    world,
};

/// How long, how much, and how flat.
struct Form {
    length: Duration,
    calls_per_second: u64,
    tokens_per_second: u64,
    streams: usize,
    /// How many connections the calls besides streams share.
    connections: usize,
    /// Between two changes of something.
    pause: Duration,
    /// By how much the end may differ from the beginning, after the first third.
    tolerance: f64,
}

impl Form {
    fn asked() -> Self {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
        match number("COUNTERSIGN_SOAK_SECONDS") {
            // Beside other tests on a busy machine: little load, and few tokens, because remembering them takes memory
            // until ten thousand are remembered.
            None => Self {
                length: Duration::from_secs(100),
                calls_per_second: 30,
                tokens_per_second: 2,
                streams: 2,
                connections: 8,
                pause: Duration::from_secs(3),
                tolerance: 0.25,
            },
            Some(seconds) => Self {
                length: Duration::from_secs(seconds),
                calls_per_second: number("COUNTERSIGN_SOAK_CALLS").unwrap_or(200),
                tokens_per_second: number("COUNTERSIGN_SOAK_TOKENS").unwrap_or(40),
                streams: 8,
                connections: 24,
                pause: Duration::from_secs(number("COUNTERSIGN_SOAK_PAUSE").unwrap_or(5)),
                tolerance: 0.05,
            },
        }
    }
}

/// Resident memory in MiB, and open file descriptors.
#[derive(Clone, Copy)]
struct Sample {
    at: f64,
    memory: f64,
    descriptors: usize,
}

impl Sample {
    fn of(process: u32, at: f64) -> Self {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        let descriptors = fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
        Self { at, memory: kilobytes / 1024.0, descriptors }
    }
}

/// A sidecar behind TLS whose tokens the load signs itself, and everything of it that changes underway.
struct Soak {
    sidecar: Sidecar,
    authority: Issuer<'static, KeyPair>,
    changes: usize,
    load: Part,
    _tool: Part,
}

impl Soak {
    fn start(world: &World, form: &Form) -> Self {
        let scripts = root().join("tests");
        let mut command = Command::new("node");
        command.arg(scripts.join("parts/tool/server.mjs")).arg("--plain");
        let mut setup = Setup::new(&world.openid, &world.tool);
        let tool = Part::start(&mut command, &setup.directory().join("tool.log"));
        setup.config["tools"]["orders"]["upstream"] = tool.ready["url"].clone();
        setup.config["listen"]["agent"] = json!({
            "tcp": format!("127.0.0.1:{}", free_port()),
            "bearer": "all",
            "tls": {"certificate": "listener.pem", "key": {"file": "listener-key.pem"}},
        });
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = setup.write_secret("ca.pem", &params.self_signed(&key).unwrap().pem());
        let authority = Issuer::new(params, key);
        certify(setup.directory(), &authority);
        let key = signing_key(&mut setup);
        let plan = json!({
            "port": setup.config["listen"]["agent"]["tcp"].as_str().unwrap().rsplit(':').next().unwrap(),
            "ca": ca,
            "key": key,
            "kid": "soak",
            "claims": token_claims(world),
            "rate": form.calls_per_second,
            "tokens_per_second": form.tokens_per_second,
            "streams": form.streams,
            "connections": form.connections,
            "log": setup.directory().join("load.jsonl"),
        });
        let plan = setup.write_secret("plan.json", &plan.to_string());
        let sidecar = setup.start();
        let mut command = Command::new("node");
        command.arg(scripts.join("soak/load.mjs")).arg(plan);
        let load = Part::start(&mut command, &sidecar.directory().join("load.log"));
        Self { sidecar, authority, changes: 0, load, _tool: tool }
    }

    /// Changes the next thing: policy, configuration or certificate.
    fn change(&mut self) {
        self.changes += 1;
        let directory = self.sidecar.directory();
        let number = self.changes;
        match number % 3 {
            0 => certify(directory, &self.authority),
            1 => {
                let rule = format!("\ndeny contains {{\"code\": \"never_{number}\"}} if input.tenant == \"\"\n");
                put(
                    &directory.join("policies/support/support.rego"),
                    &format!("{}{rule}", crate::support::sidecar::POLICY),
                );
            }
            _ => {
                let path = directory.join("countersign.yaml");
                let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
                config["tools"]["orders"]["actions"]["probe.extra"] =
                    json!({"match": format!("GET /v1/extra-{number}"), "effect": "read", "resource": "extra"});
                put(&path, &config.to_string());
            }
        }
        self.sidecar.daemon.signal("HUP");
    }

    /// What the load last said of itself.
    fn told(&self) -> Value {
        let text = fs::read_to_string(self.sidecar.directory().join("load.jsonl")).unwrap_or_default();
        text.lines().rev().find_map(|line| serde_json::from_str(line).ok()).unwrap_or_default()
    }
}

/// Puts a file in the place of another at once.
fn put(path: &Path, text: &str) {
    let next = path.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(next, path).unwrap();
}

/// A new certificate for the listener, under the same authority.
fn certify(directory: &Path, authority: &Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "listener");
    let key = KeyPair::generate().unwrap();
    put(&directory.join("listener-key.pem"), &key.serialize_pem());
    put(&directory.join("listener.pem"), &params.signed_by(&key, authority).unwrap().pem());
}

/// A key whose public half the sidecar takes for the issuer's, as JWK.
fn signing_key(setup: &mut Setup) -> Value {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let encoded = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let point = key.public_key().as_ref();
    let public = json!({"kty": "EC", "crv": "P-256", "x": encoded(&point[1..33]), "y": encoded(&point[33..])});
    let mut published = public.clone();
    published["kid"] = json!("soak");
    published["alg"] = json!("ES256");
    published["use"] = json!("sig");
    setup.write_secret("issuer-keys.json", &json!({"keys": [published]}).to_string());
    setup.config["issuers"][0]["keys"] = json!({"file": "issuer-keys.json"});
    let mut private = public;
    let secret =
        aws_lc_rs::encoding::AsBigEndian::<aws_lc_rs::encoding::EcPrivateKeyBin<'_>>::as_be_bytes(&key.private_key())
            .unwrap();
    private["d"] = json!(encoded(secret.as_ref()));
    private
}

/// Those of the usual agent, which may probe as well.
fn token_claims(world: &World) -> Value {
    let mut claims = claims(&world.openid.delegated("alice"));
    let probes: Vec<&str> = PROBES.iter().map(|(name, ..)| *name).collect();
    claims["scope"] = json!(format!("{} {}", claims["scope"].as_str().unwrap(), probes.join(" ")));
    let mut details = usual_details();
    details
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "urn:countersign:action", "actions": probes, "locations": [TOOL]}));
    claims["authorization_details"] = details;
    claims
}

/// The middle one of the samples from `begin` to `end`, both parts of the whole.
fn middle(samples: &[Sample], begin: f64, end: f64) -> Sample {
    let last = samples.last().unwrap().at;
    let mut some: Vec<Sample> =
        samples.iter().copied().filter(|sample| sample.at >= begin * last && sample.at <= end * last).collect();
    some.sort_by(|one, other| one.memory.total_cmp(&other.memory));
    let memory = some[some.len() / 2].memory;
    some.sort_by_key(|sample| sample.descriptors);
    Sample { at: begin * last, memory, descriptors: some[some.len() / 2].descriptors }
}

#[test]
fn under_a_mixed_load_with_reloads_memory_and_descriptors_stay_as_they_were() {
    let Some(world) = world() else { return };
    let form = Form::asked();
    let mut soak = Soak::start(world, &form);
    let process = soak.sidecar.daemon.id();
    let (began, mut samples) = (Instant::now(), vec![Sample::of(process, 0.0)]);
    let mut changed = began;
    while began.elapsed() < form.length {
        std::thread::sleep(Duration::from_secs(1));
        samples.push(Sample::of(process, began.elapsed().as_secs_f64()));
        if soak.told()["unexpected"].as_u64().unwrap_or(0) > 0 {
            break;
        }
        if changed.elapsed() >= form.pause {
            changed = Instant::now();
            soak.change();
        }
    }
    let told = soak.told();
    let (before, after) = (middle(&samples, 0.33, 0.43), middle(&samples, 0.9, 1.0));
    report(&samples, &soak, &told);
    let said = || soak.sidecar.daemon.output();
    assert_eq!(told["unexpected"], 0, "{:#}\n{}", told["samples"], said());
    let count = |what: &str| told[what].as_u64().unwrap();
    assert!(count("cut") <= 1 + count("calls") / 10_000, "{told}\n{}", said());
    assert!(count("calls") > 500 && count("streams") > 0 && count("busy") < count("calls") / 5, "{told}");
    let growth = after.memory / before.memory - 1.0;
    assert!(growth.abs() <= form.tolerance, "memory: {:.1} MiB, then {:.1} MiB", before.memory, after.memory);
    // As many as at rest, and for each call that can be under way one of the agent's and one of the tool's; a stream's may
    // still be closing when the next one begins.
    let most = samples[0].descriptors + 2 * (form.connections + 2 * form.streams) + 8;
    let seen = samples.iter().map(|sample| sample.descriptors).max().unwrap();
    assert!(seen <= most, "{seen} descriptors, of at most {most}");

    let Soak { mut sidecar, load, .. } = soak;
    drop(load);
    eventually("all calls to be settled", || sidecar.metrics().contains("countersign_calls_active 0").then_some(()));
    let metrics = sidecar.metrics();
    let refused = metrics.lines().find_map(|line| line.strip_prefix("countersign_reload_total{outcome=\"refused\"} "));
    assert_eq!(refused, Some("0"), "{}", sidecar.daemon.output());
    sidecar.stop();
    audit(&sidecar.ledger(), "verify", &[]).well();
}

/// Says how it went, every twentieth of the time.
fn report(samples: &[Sample], soak: &Soak, told: &Value) {
    println!("{told}\n{} changes\n  second  MiB  descriptors", soak.changes);
    let step = (samples.len() / 20).max(1);
    for Sample { at, memory, descriptors } in samples.iter().step_by(step).chain(samples.last()) {
        println!("{at:>8.0} {memory:>5.1} {descriptors:>5}");
    }
}

/// The binary that ships stays below 40 MiB; one without optimisation is larger.
#[test]
fn an_idle_sidecar_with_the_demo_policy_is_small() {
    let Some(world) = world() else { return };
    let mut setup = Setup::new(&world.openid, &world.tool);
    setup.policy = fs::read_to_string(root().join("policies/orders/orders.rego")).unwrap();
    setup.platform = fs::read_to_string(root().join("policies/org/org.rego")).unwrap();
    let sidecar = setup.start();
    let sample = Sample::of(sidecar.daemon.id(), 0.0);
    let shipped = std::env::var_os("COUNTERSIGN_TEST_BINARY").is_some();
    println!("{:.1} MiB, {} descriptors", sample.memory, sample.descriptors);
    assert!(sample.memory < if shipped { 40.0 } else { 100.0 }, "{:.1} MiB", sample.memory);
}
