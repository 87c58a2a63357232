//! Whom a server sees, and by whose word it is believed, as files change underneath.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::body::collect;
use crate::testing::{PATIENCE, get, raw_server};
use crate::{ClientOptions, HttpClient, SendError, UrlTrust};

/// Signs certificates of servers and clients.
struct Authority {
    pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let name = format!("authority {}", NEXT.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self { pem: params.self_signed(&key).unwrap().pem(), issuer: rcgen::Issuer::new(params, key) }
    }

    fn sign(&self, name: &str) -> (rcgen::Certificate, rcgen::KeyPair) {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

/// A server over TLS 1.3 that asks for a client certificate and answers with its subject; each connection serves until
/// the client leaves, and the answer counts its requests.
async fn asking(server: &Authority, clients: &Authority) -> u16 {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(clients.pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .unwrap();
    let (certificate, key) = server.sign("server");
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let address = raw_server(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let subject = stream
                .get_ref()
                .1
                .peer_certificates()
                .and_then(<[_]>::first)
                .map(|leaf| x509_parser::parse_x509_certificate(leaf).unwrap().1.subject().to_string());
            let mut requests = 0;
            loop {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { return };
                    head.push(byte);
                }
                requests += 1;
                let body = format!("{} {requests}", subject.as_deref().unwrap_or("nobody"));
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    address.port()
}

fn put(directory: &Path, name: &str, text: &str) -> PathBuf {
    let (path, next) = (directory.join(name), directory.join("next"));
    fs::write(&next, text).unwrap();
    fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(next, &path).unwrap();
    path
}

fn put_identity(directory: &Path, authority: &Authority, name: &str) -> ClientTlsConfig {
    let (certificate, key) = authority.sign(name);
    let certificate = put(directory, "client.pem", &certificate.pem());
    let key = put(directory, "client-key.pem", &key.serialize_pem());
    ClientTlsConfig { authorities: None, certificate: Some(certificate), key: Some(SecretSource::File(key)) }
}

fn load(config: &ClientTlsConfig) -> Result<ClientTls, ClientTlsError> {
    ClientTls::load(config.clone(), &|_| None)
}

fn believing(authority: &Authority) -> HttpClient {
    let tls = client_config(Roots::Pem(authority.pem.clone().into_bytes())).unwrap();
    HttpClient::new(ClientOptions::new(tls, UrlTrust::Operator))
}

async fn answer(client: &HttpClient, port: u16) -> Result<String, SendError> {
    let response = client.send(get(&format!("https://localhost:{port}/")), PATIENCE).await?;
    let body = collect(response.into_body(), 1000).await.unwrap();
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn a_client_certificate_is_shown_by_its_own_client_only_and_anew_when_it_changes() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let port = asking(&authority, &clients).await;
    let directory = tempfile::tempdir().unwrap();
    let config = put_identity(directory.path(), &clients, "first");
    let tls = Arc::new(load(&config).unwrap());
    let general = believing(&authority);
    let shown = general.apart(Some(Arc::clone(&tls)));
    assert_eq!(answer(&general, port).await.unwrap(), "nobody 1");
    assert_eq!(answer(&shown, port).await.unwrap(), "CN=first 1");
    assert_eq!(answer(&shown, port).await.unwrap(), "CN=first 2");
    // Another client of the same settings shares nothing with it.
    assert_eq!(answer(&general.apart(Some(Arc::clone(&tls))), port).await.unwrap(), "CN=first 1");
    assert_eq!(answer(&general.apart(None), port).await.unwrap(), "nobody 1");

    put_identity(directory.path(), &clients, "second");
    tls.look();
    // On a connection of its own, although one of before was free, and without a session of before.
    assert_eq!(answer(&shown, port).await.unwrap(), "CN=second 1");
    assert_eq!(answer(&shown, port).await.unwrap(), "CN=second 2");

    // A file that cannot be used changes nothing, and neither does half of a change.
    put(directory.path(), "client.pem", "not a certificate");
    tls.look();
    assert_eq!(answer(&shown, port).await.unwrap(), "CN=second 3");
    let (third, key) = clients.sign("third");
    put(directory.path(), "client.pem", &third.pem());
    tls.look();
    assert_eq!(answer(&shown, port).await.unwrap(), "CN=second 4");
    put(directory.path(), "client-key.pem", &key.serialize_pem());
    tls.look();
    assert_eq!(answer(&shown, port).await.unwrap(), "CN=third 1");
}

#[tokio::test]
async fn who_is_believed_for_all_changes_for_every_client_that_has_no_authorities_of_its_own() {
    let (authority, others) = (Authority::new(), Authority::new());
    let port = asking(&authority, &others).await;
    let directory = tempfile::tempdir().unwrap();
    let own = ClientTlsConfig {
        authorities: Some(put(directory.path(), "authorities.pem", &authority.pem)),
        ..ClientTlsConfig::default()
    };
    let general = believing(&authority);
    let (apart, held) = (general.apart(None), general.apart(Some(Arc::new(load(&own).unwrap()))));
    for client in [&general, &apart, &held] {
        assert_eq!(answer(client, port).await.unwrap(), "nobody 1");
    }
    general.believe(client_config(Roots::Pem(others.pem.clone().into_bytes())).unwrap());
    for client in [&general, &apart] {
        let error = answer(client, port).await.unwrap_err();
        assert!(error.is_not_sent() && error.to_string().contains("UnknownIssuer"), "{error}");
    }
    assert!(answer(&held, port).await.unwrap().starts_with("nobody"));
    // And the other way about: its own authorities are the only ones.
    let stranger = ClientTlsConfig {
        authorities: Some(put(directory.path(), "others.pem", &others.pem)),
        ..ClientTlsConfig::default()
    };
    let stranger = believing(&authority).apart(Some(Arc::new(load(&stranger).unwrap())));
    assert!(answer(&stranger, port).await.unwrap_err().is_not_sent());
}

#[test]
fn settings_that_cannot_work_are_refused_with_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let clients = Authority::new();
    let good = put_identity(directory.path(), &clients, "support");
    let refused = |config: ClientTlsConfig| load(&config).unwrap_err();
    assert!(matches!(refused(ClientTlsConfig::default()), ClientTlsError::Nothing));
    assert!(matches!(refused(ClientTlsConfig { key: None, ..good.clone() }), ClientTlsError::Half));
    assert!(matches!(refused(ClientTlsConfig { certificate: None, ..good.clone() }), ClientTlsError::Half));
    let missing = ClientTlsConfig { authorities: Some(directory.path().join("none.pem")), ..good.clone() };
    assert!(matches!(refused(missing), ClientTlsError::File(TlsFileError::Unreadable { .. })));
    let text = put(directory.path(), "text", "text");
    let no_key = ClientTlsConfig { key: Some(SecretSource::File(text.clone())), ..good.clone() };
    assert!(matches!(refused(no_key), ClientTlsError::File(TlsFileError::NoKey)));
    let nothing = ClientTlsConfig { certificate: Some(text), ..good.clone() };
    assert!(matches!(refused(nothing), ClientTlsError::File(TlsFileError::Certificate(TlsError::NoCertificate))));
    let other = put(directory.path(), "other-key.pem", &clients.sign("other").1.serialize_pem());
    let pair = ClientTlsConfig { key: Some(SecretSource::File(other)), ..good.clone() };
    assert!(matches!(refused(pair), ClientTlsError::Pair(_)));
    let Some(SecretSource::File(key)) = &good.key else { panic!("a file") };
    fs::set_permissions(key, fs::Permissions::from_mode(0o640)).unwrap();
    let open = refused(good.clone());
    assert!(open.to_string().contains("chmod 600"), "{open}");
}

#[test]
fn nothing_of_a_key_is_printed() {
    let directory = tempfile::tempdir().unwrap();
    let config = put_identity(directory.path(), &Authority::new(), "support");
    let tls = load(&config).unwrap();
    let Some(SecretSource::File(path)) = &config.key else { panic!("a file") };
    let pem = fs::read_to_string(path).unwrap();
    let shown = format!("{tls:?}");
    assert!(pem.lines().filter(|line| line.len() > 20).all(|line| !shown.contains(line)), "{shown}");
}
