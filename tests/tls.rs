//! The agent's connection: TLS with certificates that change underneath, tokens bound to a client certificate, and the
//! Unix socket where the kernel says who calls.

mod clients;
mod listeners;

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::SystemTime,
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::{Value, json};

use crate::support::{
    Answer, Curl, Sidecar, World, eventually, free_port, mark, process, sidecar::Setup, skipped, world,
};

/// Signs certificates for listener and agents.
pub(crate) struct Authority {
    /// Its certificate.
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, in files that `curl` takes.
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) thumbprint: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { pem: params.self_signed(&key).unwrap().pem(), issuer: Issuer::new(params, key) }
    }

    /// Writes `NAME.pem` and `NAME-key.pem`; a name that is a SPIFFE ID makes an X.509-SVID.
    pub(crate) fn sign(&self, directory: &Path, file: &str, name: &str) -> Identity {
        self.sign_until(directory, file, name, None)
    }

    /// The same, good only so long.
    fn sign_until(&self, directory: &Path, file: &str, name: &str, end: Option<SystemTime>) -> Identity {
        let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if name.starts_with("spiffe://") {
            params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
        }
        if let Some(end) = end {
            params.not_after = end.into();
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            certificate: private(directory.join(format!("{file}.pem")), &certificate.pem()),
            key: private(directory.join(format!("{file}-key.pem")), &key.serialize_pem()),
            thumbprint: BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, certificate.der())),
        }
    }
}

fn private(path: PathBuf, text: &str) -> PathBuf {
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// A sidecar behind TLS that takes no bearer tokens, and two agents with certificates of its authority.
struct Secured {
    sidecar: Sidecar,
    authority: PathBuf,
    support: Identity,
    other: Identity,
}

/// A listener's part of the configuration with TLS.
fn listener(client: &str) -> Value {
    json!({
        "tcp": format!("127.0.0.1:{}", free_port()),
        "tls": {
            "certificate": "listener.pem",
            "key": {"file": "listener-key.pem"},
            "client_authorities": "authority.pem",
            "trust_domains": {"example.org": "authority.pem"},
            "client": client,
        },
    })
}

impl Secured {
    fn new(world: &World, client: &str) -> Self {
        let mut setup = Setup::new(&world.openid, &world.tool);
        setup.config["listen"]["agent"] = listener(client);
        setup.policy = format!(
            "{}\n\ndeny contains {{\"code\": \"unbound\"}} if not input.delegation.sender_constrained\n",
            setup.policy
        );
        let authority = Authority::new();
        setup.write_secret("authority.pem", &authority.pem);
        authority.sign(setup.directory(), "listener", "listener");
        let support = authority.sign(setup.directory(), "support", "spiffe://example.org/agent/support");
        let other = authority.sign(setup.directory(), "other", "other");
        let path = setup.directory().join("authority.pem");
        Self { sidecar: setup.start(), authority: path, support, other }
    }

    fn call(&self, curl: Curl, identity: Option<&Identity>) -> Curl {
        let curl = curl.argument("--cacert").argument(text(&self.authority));
        match identity {
            None => curl,
            Some(Identity { certificate, key, .. }) => {
                curl.argument("--cert").argument(text(certificate)).argument("--key").argument(text(key))
            }
        }
    }

    fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.sidecar.port())
    }

    fn read(&self, token: &str, identity: Option<&Identity>) -> Curl {
        self.call(Curl::get(self.url("/orders/v1/orders/17")).bearer(token), identity)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A token of alice's agent with this `cnf`.
fn bound(world: &World, cnf: &Value) -> String {
    world.openid.sign(&json!({"like": world.openid.delegated("alice"), "claims": {"cnf": cnf}}))
}

#[track_caller]
fn is_wrong_sender(answer: &Answer) {
    assert_eq!((answer.status, answer.code().as_str()), (401, "wrong_sender"), "{}", answer.text());
}

#[test]
fn a_token_bound_to_a_certificate_goes_with_that_certificate_only() {
    let Some(world) = world() else { return };
    let secured = Secured::new(world, "accept");
    let (support, other) = (Some(&secured.support), Some(&secured.other));
    let token = bound(world, &json!({"x5t#S256": secured.support.thumbprint}));
    let mark = mark();
    let read = |token: &str, identity| secured.read(token, identity).header("X-Mark", &mark).send();

    // Before the token is remembered and after; over both versions of HTTP.
    for (version, told) in [("--http1.1", "1.1 200"), ("--http2", "2 200")] {
        is_wrong_sender(&read(&token, other));
        is_wrong_sender(&read(&token, None));
        let call = secured.read(&token, support).argument(version).argument("--output").argument("/dev/null");
        let output = call.argument("--write-out").argument("%{http_version} %{http_code}").command().output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), told, "{output:?}");
    }
    let refund = Curl::post(
        secured.url("/orders/v1/orders/17/refunds"),
        "application/json",
        r#"{"amount": "20.00", "currency": "USD"}"#,
    );
    let answer = secured.call(refund.bearer(&token), support).send();
    assert_eq!(answer.status, 201, "a write needs no bearer setting: {}", answer.text());

    // What is bound in another way, or to somebody else, or not at all, is not theirs to present.
    is_wrong_sender(&read(&bound(world, &json!({"x5t#S256": secured.other.thumbprint})), support));
    is_wrong_sender(&read(&bound(world, &json!({"jkt": secured.support.thumbprint})), support));
    let both = json!({"x5t#S256": secured.support.thumbprint, "jkt": "x"});
    is_wrong_sender(&read(&bound(world, &both), support));
    is_wrong_sender(&read(&world.openid.delegated("alice"), support));
    assert_eq!(world.tool.marked(&mark), Vec::<Value>::new(), "what was refused reached the tool");

    // On a listener without TLS nothing can be proved, whatever it says of bearer tokens.
    is_wrong_sender(&world.sidecar.get("/orders/v1/orders/17", &token).send());

    let seen = secured.sidecar.query(&[]);
    let seen = seen.iter().find(|record| record["kind"] == "token.seen").expect("the token is on record");
    assert_eq!(seen.get("sender"), Some(&json!("certificate")), "{seen}");

    // Whoever else showed it is on record, once for each certificate and for none, and no more often than that.
    let mut alerts = secured.sidecar.query(&["--kind", "alert.raised"]);
    alerts.retain(|alert| alert["bound_to"] == secured.support.thumbprint.as_str());
    let presented: BTreeSet<_> = alerts.iter().map(|alert| alert["presented"].as_str()).collect();
    assert_eq!(presented, BTreeSet::from([None, Some(secured.other.thumbprint.as_str())]), "{alerts:?}");
    assert_eq!(alerts.len(), 2, "{alerts:?}");
    assert!(alerts.iter().all(|alert| alert["alert"] == "used_by_another"));
}

#[test]
fn where_a_client_certificate_is_required_nobody_connects_without_one_of_ours() {
    let Some(world) = world() else { return };
    let secured = Secured::new(world, "require");
    let token = bound(world, &json!({"x5t#S256": secured.support.thumbprint}));
    secured.read(&token, Some(&secured.support)).send().went(200);
    assert!(secured.read(&token, None).attempt().is_err());
    // A certificate that says the same and that somebody else signed.
    let elsewhere = Setup::new(&world.openid, &world.tool);
    let stranger = Authority::new().sign(elsewhere.directory(), "support", "spiffe://example.org/agent/support");
    assert!(secured.read(&token, Some(&stranger)).attempt().is_err());
    assert!(Curl::get(secured.url("/orders/v1/orders/17").replace("https", "http")).attempt().is_err());
}

#[test]
fn certificates_change_under_load_and_no_call_is_lost() {
    let Some(world) = world() else { return };
    let mut setup = Setup::new(&world.openid, &world.tool);
    setup.config["listen"]["agent"] = listener("accept");
    setup.config["listen"]["agent"]["bearer"] = json!("all");
    let authority = Authority::new();
    setup.write_secret("authority.pem", &authority.pem);
    let first = authority.sign(setup.directory(), "listener", "first");
    let trusted = setup.directory().join("authority.pem");
    // Made now, put in place while calls run.
    let second = authority.sign(setup.directory(), "second", "second");
    let sidecar = setup.start();
    let url = |path: &str| format!("https://127.0.0.1:{}{path}", sidecar.port());
    let curl =
        |path: &str, token: &str| Curl::get(url(path)).bearer(token).argument("--cacert").argument(text(&trusted));
    let token = world.openid.delegated("alice");
    let served = || {
        let call = curl("/orders/v1/orders/17", &token).argument("--output").argument("/dev/null");
        let output = call.argument("--write-out").argument("%{certs}").command().output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(served().contains("CN = first"), "{}", served());

    let stream = curl("/orders/v1/stream?count=100000&every=20", &world.probe()).argument("--no-buffer");
    let mut stream = stream.command().spawn().unwrap();
    let mut lines = BufReader::new(stream.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();

    // A file that is no certificate changes nothing but the log.
    fs::write(&first.certificate, "not a certificate").unwrap();
    eventually("the broken file to be noticed", || sidecar.daemon.output().contains("cannot be used").then_some(()));
    assert!(served().contains("CN = first"));

    let (over, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    curl("/orders/v1/orders/17", &token).send().went(200);
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // The key first: for a moment the two do not go together.
        fs::rename(&second.key, &first.key).unwrap();
        fs::rename(&second.certificate, &first.certificate).unwrap();
        eventually("the new certificate", || served().contains("CN = second").then_some(()));
        let before = calls.load(Ordering::Relaxed);
        eventually("calls after it", || (calls.load(Ordering::Relaxed) > before + 3).then_some(()));
        over.store(true, Ordering::Relaxed);
    });
    // The connection from before is still there, and still moves.
    for _ in 0..200 {
        lines.next().expect("the stream goes on").unwrap();
    }
    stream.kill().unwrap();
    stream.wait().unwrap();
}

#[test]
fn a_unix_socket_is_served_to_those_whom_its_file_lets_in() {
    let Some(world) = world() else { return };
    let mut setup = Setup::new(&world.openid, &world.tool);
    let path = setup.directory().join("agent.sock");
    setup.config["listen"]["agent"] = json!({"unix": "agent.sock", "mode": "0600", "bearer": "all"});
    let mut sidecar = setup.start();
    let token = world.openid.delegated("alice");
    let call = || Curl::get("http://localhost/orders/v1/orders/17").bearer(&token).argument("--unix-socket");
    call().argument(text(&path)).send().went(200);
    call().argument(text(&path)).argument("--http2-prior-knowledge").send().went(200);
    let metadata = fs::symlink_metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);

    // What a killed process leaves does not keep the next one from starting, and the end takes it away.
    sidecar.daemon.kill();
    assert!(path.exists());
    sidecar.restart();
    call().argument(text(&path)).send().went(200);
    sidecar.stop();
    assert!(!path.exists());
}

#[test]
fn a_user_who_is_not_listed_gets_no_answer_from_the_unix_socket() {
    let Some(world) = world() else { return };
    let mut setup = Setup::new(&world.openid, &world.tool);
    let path = setup.directory().join("agent.sock");
    let me = fs::metadata(setup.directory()).unwrap().uid();
    setup.config["listen"]["agent"] = json!({"unix": "agent.sock", "allow_uids": [me + 1], "bearer": "all"});
    let _sidecar = setup.start();
    let mut stream = UnixStream::connect(&path).unwrap();
    // Either may fail: it is hung up on at once.
    stream.write_all(b"GET /orders/v1/orders/17 HTTP/1.1\r\nhost: localhost\r\n\r\n").ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    assert_eq!(answer, b"");
    let token = world.openid.delegated("alice");
    let call = Curl::get("http://localhost/orders/v1/orders/17").bearer(&token);
    assert!(call.argument("--unix-socket").argument(text(&path)).attempt().is_err());
}

#[test]
fn a_user_whom_the_kernel_cannot_name_gets_no_answer_though_the_list_has_its_number() {
    const STRANGER: u32 = 61_234;
    let Some(world) = world() else { return };
    if !process::is_root() {
        return skipped("another user namespace", "only root can be several users");
    }
    // The second time among users of whom it knows root alone.
    for (wrapper, served) in [(&["env"][..], true), (&["unshare", "--user", "--map-root-user"], false)] {
        let mut setup = Setup::new(&world.openid, &world.tool);
        let socket = setup.directory().join("agent.sock");
        fs::set_permissions(setup.directory(), fs::Permissions::from_mode(0o755)).unwrap();
        setup.config["listen"]["agent"] =
            json!({"unix": "agent.sock", "mode": "0666", "allow_uids": [STRANGER], "bearer": "all"});
        let path = setup.write();
        let mut command = Command::new(wrapper[0]);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).args(&wrapper[1..]);
        command.arg(process::countersign().get_program()).arg("sidecar").arg("--config").arg(path);
        let mut daemon = process::Daemon::start(&mut command, &setup.directory().join("sidecar.log"));
        eventually("the socket", || {
            assert!(daemon.ended().is_none(), "{}", daemon.output());
            daemon.output().contains("ready for agents").then_some(())
        });
        let mut call = process::as_user(STRANGER, "curl");
        call.args(["--silent", "--show-error", "--max-time", "20", "--unix-socket"]).arg(&socket);
        let output = call.arg("http://localhost/orders/v1/orders/17").output().unwrap();
        assert_eq!((output.status.success(), !output.stdout.is_empty()), (served, served), "{wrapper:?}: {output:?}");
        daemon.signal("TERM");
        daemon.wait();
    }
}

#[test]
fn where_others_could_put_their_own_socket_the_sidecar_does_not_start() {
    let Some(world) = world() else { return };
    let mut setup = Setup::new(&world.openid, &world.tool);
    let shared = setup.directory().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
    setup.config["listen"]["agent"] = json!({"unix": "shared/agent.sock", "bearer": "all"});
    let path = setup.write();
    let ran = process::run(process::countersign().arg("sidecar").arg("--config").arg(&path));
    assert_eq!(ran.code, Some(69), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains("shared") && ran.stderr.contains("chmod go-w"), "{}", ran.stderr);
    assert_eq!(fs::read_dir(&shared).unwrap().count(), 0);

    fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).unwrap();
    let sidecar = setup.start();
    let call = Curl::get("http://localhost/orders/v1/orders/17").bearer(&world.openid.delegated("alice"));
    call.argument("--unix-socket").argument(text(&shared.join("agent.sock"))).send().went(200);
    // One that takes no connections any more is not waited for, and not replaced.
    sidecar.daemon.signal("STOP");
    let second = process::run(process::countersign().arg("sidecar").arg("--config").arg(path));
    sidecar.daemon.signal("CONT");
    assert_ne!(second.code, Some(0), "{}{}", second.stdout, second.stderr);
    let call = Curl::get("http://localhost/orders/v1/orders/17").bearer(&world.openid.delegated("alice"));
    call.argument("--unix-socket").argument(text(&shared.join("agent.sock"))).send().went(200);
}

#[test]
fn a_listener_that_cannot_work_is_refused_with_what_to_change() {
    let Some(world) = world() else { return };
    let refused = |change: &dyn Fn(&mut Value, &Setup)| {
        let mut setup = Setup::new(&world.openid, &world.tool);
        let authority = Authority::new();
        setup.write_secret("authority.pem", &authority.pem);
        authority.sign(setup.directory(), "listener", "listener");
        let mut agent = listener("require");
        change(&mut agent, &setup);
        setup.config["listen"]["agent"] = agent;
        let path = setup.write();
        let ran = process::run(process::countersign().args(["config", "check"]).arg(path));
        assert_eq!(ran.code, Some(78), "{}{}", ran.stdout, ran.stderr);
        format!("{}{}", ran.stdout, ran.stderr)
    };
    let open_key = refused(&|_, setup| {
        let key = setup.directory().join("listener-key.pem");
        fs::set_permissions(key, fs::Permissions::from_mode(0o644)).unwrap();
    });
    assert!(open_key.contains("listen.agent.tls") && open_key.contains("chmod 600"), "{open_key}");
    let mixed = refused(&|_, setup| {
        Authority::new().sign(setup.directory(), "other", "other");
        fs::rename(setup.directory().join("other-key.pem"), setup.directory().join("listener-key.pem")).unwrap();
    });
    assert!(mixed.contains("certificate and key"), "{mixed}");
    let clients = refused(&|agent, _| {
        agent["tls"]["client_authorities"] = Value::Null;
        agent["tls"]["trust_domains"] = json!({});
    });
    assert!(clients.contains("client_authorities"), "{clients}");
    let domain = refused(&|agent, _| agent["tls"]["trust_domains"] = json!({"spiffe://example.org": "authority.pem"}));
    assert!(domain.contains("trust_domains") && domain.contains("spiffe://example.org"), "{domain}");
    let bundle = refused(&|agent, _| agent["tls"]["trust_domains"] = json!({"example.org": "missing.pem"}));
    assert!(bundle.contains("missing.pem"), "{bundle}");
    let writable = refused(&|_, setup| {
        let authorities = setup.directory().join("authority.pem");
        fs::set_permissions(authorities, fs::Permissions::from_mode(0o666)).unwrap();
    });
    assert!(writable.contains("authority.pem") && writable.contains("chmod"), "{writable}");
    let two = refused(&|agent, _| agent["unix"] = json!("agent.sock"));
    assert!(two.contains("exactly one of `tcp` and `unix`"), "{two}");
    let unnamed = refused(&|agent, _| *agent = json!({"unix": "agent.sock", "allow_uids": [65534]}));
    assert!(unnamed.contains("65534"), "{unnamed}");
    let everybody = refused(&|agent, _| *agent = json!({"unix": "agent.sock", "mode": "0666"}));
    assert!(everybody.contains("allow_uids"), "{everybody}");
}

#[test]
fn a_request_for_another_host_does_not_go() {
    let Some(world) = world() else { return };
    let mut setup = Setup::new(&world.openid, &world.tool);
    let mark = mark();
    let token = world.openid.delegated("alice");
    // A page in a browser, whose own name was made to lead here, sends that name.
    let rebound = world.sidecar.get("/orders/v1/orders/17", &token).header("X-Mark", &mark);
    let refused = rebound.header("Host", "rebound.example").send();
    assert_eq!((refused.status, refused.code().as_str()), (400, "malformed"));
    assert_eq!(world.tool.marked(&mark), Vec::<Value>::new());
    let local = world.sidecar.get("/orders/v1/orders/17", &token);
    local.header("Host", &format!("localhost:{}", world.sidecar.port())).send().went(200);

    setup.config["listen"]["agent"]["hosts"] = json!(["sidecar.example"]);
    let named = setup.start();
    named.get("/orders/v1/orders/17", &token).header("Host", "sidecar.example").send().went(200);
    let refused = named.get("/orders/v1/orders/17", &token).send();
    assert_eq!((refused.status, refused.code().as_str()), (400, "malformed"));
}
