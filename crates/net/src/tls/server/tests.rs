//! Handshakes over real loopback sockets: versions, client certificates, and files that change underneath.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientStream;

use super::*;
use crate::body::collect;
use crate::testing::{PATIENCE, get, loopback, read_to_close};
use crate::tls::authorities;
use crate::{Body, Endpoint, Peer, SecretError, ServeLimits, bind, serve};

/// Signs certificates.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
struct Pair {
    certificate: String,
    der: CertificateDer<'static>,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn sign(&self, name: &str) -> Pair {
        self.sign_with(name, |_| {})
    }

    /// Ends after so long.
    fn sign_for(&self, name: &str, life: Duration) -> Pair {
        self.sign_with(name, |params| {
            params.not_after = (std::time::SystemTime::from(crate::clock::now()) + life).into();
        })
    }

    fn sign_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if name.starts_with("spiffe:") {
            params.subject_alt_names.push(SanType::URI(name.try_into().unwrap()));
        }
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Pair { certificate: certificate.pem(), der: certificate.der().clone(), key }
    }
}

/// A listener's files, and the listener.
struct World {
    authority: Authority,
    directory: tempfile::TempDir,
    tls: Arc<ServerTls>,
    address: std::net::SocketAddr,
    tasks: Tasks,
}

fn write(directory: &Path, pair: &Pair) {
    fs::write(directory.join("certificate.pem"), &pair.certificate).unwrap();
    let key = directory.join("key.pem");
    fs::write(&key, pair.key.serialize_pem()).unwrap();
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
}

fn config(directory: &Path) -> ServerTlsConfig {
    ServerTlsConfig {
        certificate: directory.join("certificate.pem"),
        key: SecretSource::File(directory.join("key.pem")),
        client_authorities: None,
        trust_domains: BTreeMap::new(),
        self_signed: false,
        client: None,
        client_names: None,
    }
}

/// The same authority for subjects and for `example.org`.
fn believe(config: &mut ServerTlsConfig) {
    let clients = config.certificate.with_file_name("clients.pem");
    config.trust_domains = [("example.org".to_owned(), clients.clone())].into();
    config.client_authorities = Some(clients);
}

fn none(_: &str) -> Option<String> {
    None
}

impl World {
    async fn new(change: impl FnOnce(&mut ServerTlsConfig, &Authority)) -> Self {
        let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
        write(directory.path(), &authority.sign("first"));
        fs::write(directory.path().join("clients.pem"), &authority.pem).unwrap();
        let mut config = config(directory.path());
        change(&mut config, &authority);
        let tls = Arc::new(ServerTls::load(config, &none).unwrap());
        let (listener, tasks) = (bind(loopback()).await.unwrap(), Tasks::new());
        let address = listener.local_addr();
        let endpoint = Endpoint::Tls(listener, Arc::clone(&tls));
        tasks.spawn("tls listener", serve(endpoint, ServeLimits::default(), tasks.clone(), describe));
        Self { authority, directory, tls, address, tasks }
    }

    async fn with_clients(client: ClientCertificates) -> Self {
        Self::new(|config, _| {
            believe(config);
            config.client = Some(client);
        })
        .await
    }

    fn client(&self, pair: Option<&Pair>, alpn: &[&str]) -> ClientConfig {
        let roots = authorities(self.authority.pem.as_bytes()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match pair {
            None => builder.with_no_client_auth(),
            Some(pair) => builder
                .with_client_auth_cert(vec![pair.der.clone()], pair.key.serialize_der().try_into().unwrap())
                .unwrap(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }

    async fn connect(&self, config: ClientConfig) -> io::Result<ClientStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
    }

    /// One request on a connection of its own; `None` where there is none to be had.
    async fn ask(&self, pair: Option<&Pair>) -> Option<String> {
        let stream = self.connect(self.client(pair, &["http/1.1"])).await.ok()?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        self.tasks.spawn("client", connection);
        Some(text(sender.send_request(get("/")).await.ok()?).await)
    }
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(collect(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap()
}

/// Answers with the version and whom TLS says the peer is.
async fn describe(peer: Peer, request: Request<Incoming>) -> Response<Body> {
    let name = peer.certificate.map_or_else(|| "nobody".to_owned(), |certificate| certificate.identity.to_string());
    Response::new(Body::full(format!("{:?} {name}", request.version())))
}

fn subject(stream: &ClientStream<TcpStream>) -> String {
    let leaf = stream.get_ref().1.peer_certificates().unwrap().first().unwrap();
    PeerCertificate::read(leaf).unwrap().identity.to_string()
}

#[tokio::test]
async fn both_versions_of_http_are_agreed_on_in_the_handshake() {
    let world = World::new(|_, _| {}).await;
    assert_eq!(world.ask(None).await.unwrap(), "HTTP/1.1 nobody");
    let stream = world.connect(world.client(None, &["h2", "http/1.1"])).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    world.tasks.spawn("client", connection);
    assert_eq!(text(sender.send_request(get("https://localhost/")).await.unwrap()).await, "HTTP/2.0 nobody");
    assert!(world.connect(world.client(None, &["spdy/3"])).await.is_err(), "no protocol in common");
}

#[tokio::test]
async fn clear_text_is_not_answered_as_http() {
    let world = World::new(|_, _| {}).await;
    let answer = crate::testing::raw_exchange(world.address, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(!answer.contains("HTTP/1.1"), "{answer:?}");
}

#[tokio::test]
async fn a_peer_is_named_by_the_certificate_that_an_authority_of_ours_signed() {
    let world = World::with_clients(ClientCertificates::Accept).await;
    let workload = world.authority.sign("spiffe://example.org/agent");
    assert_eq!(world.ask(Some(&workload)).await.unwrap(), "HTTP/1.1 spiffe://example.org/agent");
    let subject = world.authority.sign("agent");
    assert_eq!(world.ask(Some(&subject)).await.unwrap(), "HTTP/1.1 CN=agent");
    assert_eq!(world.ask(None).await.unwrap(), "HTTP/1.1 nobody");
    assert_eq!(world.ask(Some(&Authority::new().sign("agent"))).await, None, "somebody else's authority");
    assert_eq!(world.ask(Some(&world.authority.sign("spiffe://example.org/a//b"))).await, None, "no SVID");
}

#[tokio::test]
async fn where_a_certificate_is_required_there_is_no_connection_without_one() {
    let world = World::with_clients(ClientCertificates::Require).await;
    assert_eq!(world.ask(None).await, None);
    assert_eq!(world.ask(Some(&world.authority.sign("agent"))).await.unwrap(), "HTTP/1.1 CN=agent");
}

#[tokio::test]
async fn only_the_names_that_are_listed_connect() {
    let world = World::new(|config, _| {
        believe(config);
        config.client_names = Some(["spiffe://example.org/agent".to_owned(), "CN=batch".to_owned()].into());
    })
    .await;
    for (name, let_in) in
        [("spiffe://example.org/agent", true), ("batch", true), ("spiffe://example.org/agent/x", false), ("b", false)]
    {
        assert_eq!(world.ask(Some(&world.authority.sign(name))).await.is_some(), let_in, "{name}");
    }
}

/// A certificate that signed itself, in the name of `name`.
fn self_signed(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Pair {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.subject_alt_names.push(SanType::URI("spiffe://example.org/agent".try_into().unwrap()));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    change(&mut params);
    let certificate = params.self_signed(&key).unwrap();
    Pair { certificate: certificate.pem(), der: certificate.der().clone(), key }
}

#[tokio::test]
async fn a_certificate_that_signed_itself_names_nobody_and_is_taken_only_where_that_is_said() {
    let own = self_signed("agent", |_| {});
    let world = World::with_clients(ClientCertificates::Accept).await;
    assert_eq!(world.ask(Some(&own)).await, None);
    let hour = Duration::from_secs(3600);
    let at = |change: fn(std::time::SystemTime, Duration) -> std::time::SystemTime| {
        change(std::time::SystemTime::from(crate::clock::now()), hour).into()
    };
    let over = self_signed("agent", |params| params.not_after = at(|now, hour| now - hour));
    let early = self_signed("agent", |params| params.not_before = at(|now, hour| now + hour));
    for believes in [true, false] {
        let world = World::new(|config, _| {
            config.self_signed = true;
            if believes {
                believe(config);
            }
        })
        .await;
        assert_eq!(world.ask(Some(&own)).await.unwrap(), "HTTP/1.1 (self-signed)");
        assert_eq!(world.ask(Some(&over)).await, None, "it ended");
        assert_eq!(world.ask(Some(&early)).await, None, "it has not begun");
        assert_eq!(world.ask(None).await, None, "a certificate is required, where nothing else is said");
        // Whoever has one from somebody needs somebody whom the listener believes.
        let named = world.authority.sign("agent");
        assert_eq!(world.ask(Some(&named)).await, believes.then(|| "HTTP/1.1 CN=agent".to_owned()));
        assert_eq!(world.ask(Some(&Authority::new().sign("agent"))).await, None);
    }
    let named = World::new(|config, _| {
        believe(config);
        (config.self_signed, config.client_names) = (true, Some(["CN=agent".to_owned()].into()));
    })
    .await;
    assert_eq!(named.ask(Some(&self_signed("agent", |_| {}))).await, None, "it has none of the names");
}

#[test]
fn who_signs_their_own_certificates_has_one_share_with_all_of_them() {
    let peer = |der: &CertificateDer<'_>| {
        let certificate = PeerCertificate::read_self_signed(der).unwrap();
        Peer { certificate: Some(Arc::new(certificate)), ..Peer::tcp(loopback()) }
    };
    let (one, two) = (self_signed("one", |_| {}), self_signed("two", |_| {}));
    let plain = crate::Sharer::of(&Peer::tcp(loopback()));
    assert!(crate::Sharer::of(&peer(&one.der)) == plain && crate::Sharer::of(&peer(&two.der)) == plain);
}

#[tokio::test]
async fn nobody_signs_for_the_names_of_another_trust_domain() {
    let (one, two, plain) = (Authority::new(), Authority::new(), Authority::new());
    let world = World::new(|config, _| {
        let write = |name: &str, authority: &Authority| {
            let path = config.certificate.with_file_name(name);
            fs::write(&path, &authority.pem).unwrap();
            path
        };
        config.client_authorities = Some(write("plain.pem", &plain));
        config.trust_domains = [("one.example", &one), ("two.example", &two)]
            .map(|(name, authority)| (name.to_owned(), write(&format!("{name}.pem"), authority)))
            .into();
    })
    .await;
    let told = |name: &str| Some(format!("HTTP/1.1 {name}"));
    for (authority, name, believed) in [
        (&one, "spiffe://one.example/agent", true),
        (&two, "spiffe://two.example/agent", true),
        (&plain, "agent", true),
        (&two, "spiffe://one.example/agent", false),
        (&one, "spiffe://two.example/agent", false),
        (&plain, "spiffe://one.example/agent", false),
        (&one, "spiffe://three.example/agent", false),
        (&one, "spiffe://one.example.two.example/agent", false),
        (&one, "agent", false),
    ] {
        let expected = if !believed {
            None
        } else if name == "agent" {
            told("CN=agent")
        } else {
            told(name)
        };
        assert_eq!(world.ask(Some(&authority.sign(name))).await, expected, "{name}");
    }
}

/// A connection of `pair`, and what its first call was answered with.
async fn connected(world: &World, pair: &Pair) -> (http1::SendRequest<Body>, String) {
    let stream = world.connect(world.client(Some(pair), &["http/1.1"])).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    world.tasks.spawn("client", connection);
    let answer = text(sender.send_request(get("/")).await.unwrap()).await;
    (sender, answer)
}

/// Until the connection is closed; meanwhile nothing may be asked.
async fn closed(sender: &mut http1::SendRequest<Body>) {
    tokio::time::timeout(PATIENCE, async {
        while sender.ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the connection stays open");
}

#[tokio::test]
async fn a_connection_ends_when_the_authority_of_its_client_is_taken_away_and_others_go_on() {
    let world = World::with_clients(ClientCertificates::Accept).await;
    let (mut old, answer) = connected(&world, &world.authority.sign("agent")).await;
    assert_eq!(answer, "HTTP/1.1 CN=agent");
    let anonymous = world.connect(world.client(None, &["http/1.1"])).await.unwrap();
    let (mut anonymous, connection) = http1::handshake(TokioIo::new(anonymous)).await.unwrap();
    world.tasks.spawn("client", connection);

    // Another authority beside it changes nothing for those who are connected.
    let added = Authority::new();
    let both = format!("{}{}", world.authority.pem, added.pem);
    fs::write(world.directory.path().join("clients.pem"), both).unwrap();
    assert!(world.tls.reload().unwrap());
    assert_eq!(text(old.send_request(get("/")).await.unwrap()).await, "HTTP/1.1 CN=agent");
    let (mut new, answer) = connected(&world, &added.sign("new")).await;
    assert_eq!(answer, "HTTP/1.1 CN=new");

    fs::write(world.directory.path().join("clients.pem"), &added.pem).unwrap();
    assert!(world.tls.reload().unwrap());
    // At once: either it is closed already, or what it asks is refused.
    if let Ok(response) = old.send_request(get("/")).await {
        assert_eq!(response.status(), 421);
    }
    closed(&mut old).await;
    assert_eq!(text(new.send_request(get("/")).await.unwrap()).await, "HTTP/1.1 CN=new");
    assert_eq!(text(anonymous.send_request(get("/")).await.unwrap()).await, "HTTP/1.1 nobody");
}

#[tokio::test]
async fn a_connection_ends_with_its_clients_certificate() {
    let world = World::with_clients(ClientCertificates::Require).await;
    let short = world.authority.sign_for("agent", Duration::from_secs(2));
    let (mut sender, answer) = connected(&world, &short).await;
    assert_eq!(answer, "HTTP/1.1 CN=agent");
    let stream = world.connect(world.client(Some(&short), &["h2"])).await.unwrap();
    let (mut two, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = world.tasks.spawn("client", connection);
    assert_eq!(text(two.send_request(get("https://localhost/")).await.unwrap()).await, "HTTP/2.0 CN=agent");
    closed(&mut sender).await;
    tokio::time::timeout(PATIENCE, connection.join()).await.expect("the connection stays open").unwrap().ok();
    assert_eq!(world.ask(Some(&short)).await, None, "nor is there a new one");
}

#[tokio::test]
async fn new_files_hold_for_new_connections_and_old_ones_go_on() {
    let world = World::with_clients(ClientCertificates::Accept).await;
    let (mut old, answer) = connected(&world, &world.authority.sign("agent")).await;
    assert_eq!(answer, "HTTP/1.1 CN=agent");
    assert!(!world.tls.reload().unwrap(), "nothing changed");
    let before = world.tls.expiry();
    let second = world.authority.sign_for("second", Duration::from_secs(600));
    write(world.directory.path(), &second);
    assert!(world.tls.reload().unwrap());
    assert!(!world.tls.reload().unwrap());

    let stream = world.connect(world.client(None, &["http/1.1"])).await.unwrap();
    assert_eq!(subject(&stream), "CN=second");
    assert_eq!(text(old.send_request(get("/")).await.unwrap()).await, "HTTP/1.1 CN=agent");
    let after = world.tls.expiry();
    assert_eq!(before.authorities, after.authorities);
    let left = after.certificate.unwrap().duration_since(crate::clock::now()).as_secs();
    assert!((500..=601).contains(&left) && before.certificate > after.certificate, "{left} {before:?}");
}

#[tokio::test]
async fn files_that_cannot_be_used_leave_the_last_good_ones() {
    let world = World::new(|_, _| {}).await;
    let directory = world.directory.path();
    let (certificate, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
    let second = world.authority.sign("second");
    fs::write(&certificate, &second.certificate).unwrap();
    assert!(matches!(world.tls.reload(), Err(ServerTlsError::Pair(_))), "the key is the old one's");
    fs::write(&certificate, "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
    assert!(matches!(world.tls.reload(), Err(ServerTlsError::File(TlsFileError::Certificate(_)))));
    fs::remove_file(&certificate).unwrap();
    assert!(matches!(world.tls.reload(), Err(ServerTlsError::File(TlsFileError::Unreadable { .. }))));
    write(directory, &second);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(world.tls.reload(), Err(ServerTlsError::File(TlsFileError::Key(SecretError::OpenToOthers(_))))));
    let stream = world.connect(world.client(None, &[])).await.unwrap();
    assert_eq!(subject(&stream), "CN=first");
    write(directory, &second);
    assert!(world.tls.reload().unwrap());
    assert_eq!(subject(&world.connect(world.client(None, &[])).await.unwrap()), "CN=second");
}

#[tokio::test]
async fn files_that_change_are_noticed_without_being_told() {
    let world = World::new(|_, _| {}).await;
    world.tls.watch(Duration::from_millis(10), &world.tasks);
    write(world.directory.path(), &world.authority.sign("second"));
    let noticed = async {
        while subject(&world.connect(world.client(None, &[])).await.unwrap()) != "CN=second" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, noticed).await.unwrap();
    assert!(world.tasks.drain(PATIENCE).await);
}

#[tokio::test]
async fn a_peer_that_never_shakes_hands_does_not_hold_up_shutdown() {
    let world = World::new(|_, _| {}).await;
    let mut silent = TcpStream::connect(world.address).await.unwrap();
    assert_eq!(world.ask(None).await.unwrap(), "HTTP/1.1 nobody");
    assert!(world.tasks.drain(PATIENCE).await);
    assert_eq!(read_to_close(&mut silent).await, "");
    assert_eq!(silent.read_u8().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn what_cannot_work_is_refused_at_the_start_with_the_reason() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let pair = authority.sign("first");
    write(directory.path(), &pair);
    let refuse = |change: &dyn Fn(&mut ServerTlsConfig)| {
        let mut config = config(directory.path());
        change(&mut config);
        ServerTls::load(config, &none).unwrap_err()
    };
    let other = directory.path().join("other.pem");
    fs::write(&other, "text").unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
    let missing = directory.path().join("missing.pem");

    assert!(matches!(refuse(&|c| c.client = Some(ClientCertificates::Accept)), ServerTlsError::ClientsNotAsked));
    let named = |own| refuse(&|c| (c.client_names, c.self_signed) = (Some(BTreeSet::new()), own));
    assert!([false, true].map(named).iter().all(|error| matches!(error, ServerTlsError::NamesWithoutAuthorities)));
    assert!(matches!(
        refuse(&|c| c.certificate.clone_from(&missing)),
        ServerTlsError::File(TlsFileError::Unreadable { .. })
    ));
    assert!(matches!(
        refuse(&|c| c.certificate.clone_from(&other)),
        ServerTlsError::File(TlsFileError::Certificate(TlsError::NoCertificate))
    ));
    assert!(matches!(refuse(&|c| c.client_authorities = Some(other.clone())), ServerTlsError::Authorities(_)));
    for name in ["", "Example.org", "spiffe://example.org", "example.org/a", "a b"] {
        let error = refuse(&|c| c.trust_domains = [(name.to_owned(), c.certificate.clone())].into());
        assert!(matches!(&error, ServerTlsError::TrustDomain(told) if told == name), "{name}: {error}");
    }
    assert!(matches!(
        refuse(&|c| c.key = SecretSource::Env("UNSET".to_owned())),
        ServerTlsError::File(TlsFileError::Key(_))
    ));
    let error = refuse(&|c| c.key = SecretSource::File(other.clone()));
    assert!(
        matches!(error, ServerTlsError::File(TlsFileError::NoKey)) && !error.to_string().contains("text"),
        "{error}"
    );

    let from_environment = ServerTlsConfig { key: SecretSource::Env("KEY".to_owned()), ..config(directory.path()) };
    let key = pair.key.serialize_pem();
    assert!(ServerTls::load(from_environment, &|name| (name == "KEY").then(|| key.clone())).is_ok());
}
