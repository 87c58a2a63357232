//! What the tests of this crate share: servers on loopback and clients that believe them.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::{
    Body, ClientOptions, HttpClient, Peer, Roots, ServeLimits, Task, Tasks, UrlTrust, bind, client_config, serve,
};

/// Longer than anything here takes: a hang becomes a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Our own server on a free port.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) tasks: Tasks,
    pub(crate) serving: Task<()>,
}

pub(crate) async fn start<H, F>(limits: ServeLimits, handler: H) -> Running
where
    H: Fn(Peer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let tasks = Tasks::new();
    let listener = bind(loopback()).await.unwrap();
    let address = listener.local_addr();
    let serving = tasks.spawn("test server", serve(listener, limits, tasks.clone(), handler));
    Running { address, tasks, serving }
}

/// A server of raw bytes: `talk` gets each connection.
pub(crate) async fn raw_server<H, F>(talk: H) -> SocketAddr
where
    H: Fn(TcpStream) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = Tasks::new();
    tasks.clone().spawn("raw server", async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tasks.spawn("raw connection", talk(stream));
        }
    });
    address
}

/// Reads up to the end of a request's head.
pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// Sends bytes as they are and reads until the server closes.
pub(crate) async fn raw_exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    read_to_close(&mut stream).await
}

pub(crate) async fn read_to_close(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    // A reset after the answer is a close too.
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server did not close").ok();
    String::from_utf8_lossy(&answer).into_owned()
}

/// An authority and the server certificate it issued for `localhost` and 127.0.0.1.
pub(crate) struct Certificates {
    pub(crate) authority_pem: String,
    server: rustls::ServerConfig,
}

pub(crate) fn certificates(alpn: &[&str]) -> Certificates {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let leaf = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    server.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Certificates { authority_pem: authority_certificate.pem(), server }
}

/// A TLS server that answers with the HTTP version it was spoken to in.
pub(crate) async fn tls_server(certificates: &Certificates) -> SocketAddr {
    let acceptor = TlsAcceptor::from(Arc::new(certificates.server.clone()));
    raw_server(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let service = service_fn(|request: Request<Incoming>| async move {
                Ok::<_, Infallible>(Response::new(Body::full(format!("{:?}", request.version()))))
            });
            let http = auto::Builder::new(TokioExecutor::new());
            http.serve_connection(TokioIo::new(stream), service).await.ok();
        }
    })
    .await
}

pub(crate) fn client_trusting(authority_pem: &str, trust: UrlTrust) -> HttpClient {
    let tls = client_config(Roots::Pem(authority_pem.as_bytes().to_vec())).unwrap();
    HttpClient::new(ClientOptions::new(tls, trust))
}

/// A client for plain http on loopback.
pub(crate) fn plain_client() -> HttpClient {
    client_trusting(&certificates(&[]).authority_pem, UrlTrust::Operator)
}

pub(crate) fn learned_client() -> HttpClient {
    client_trusting(&certificates(&[]).authority_pem, UrlTrust::Learned)
}

pub(crate) fn get(url: &str) -> Request<Body> {
    Request::get(url).body(Body::empty()).unwrap()
}
