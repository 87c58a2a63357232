//! TLS handshakes that are begun and not ended.

use std::os::unix::fs::PermissionsExt;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::ServerName;
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

use super::*;
use crate::{Roots, ServerTls, ServerTlsConfig, bind, client_config};

async fn from(address: [u8; 4], server: std::net::SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((address, 0).into()).unwrap();
    socket.connect(server).await.unwrap()
}

#[tokio::test]
async fn handshakes_that_stall_keep_nobody_elses_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let pem = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("certificate"), &pem).unwrap();
    std::fs::write(path("key"), key.serialize_pem()).unwrap();
    std::fs::set_permissions(path("key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let config = format!("{{certificate: {}, key: {{file: {}}}}}", path("certificate"), path("key"));
    let config: ServerTlsConfig = serde_saphyr::from_str(&config).unwrap();
    let tls = Arc::new(ServerTls::load(config, &|_| None).unwrap());

    let (census, tasks) = (Census::default(), Tasks::new());
    let listener = bind(crate::testing::loopback()).await.unwrap();
    let address = listener.local_addr();
    let limits = ServeLimits { max_handshakes: 2, peer_share: 50, census: census.clone(), ..ServeLimits::default() };
    tasks.spawn("server", serve(Endpoint::Tls(listener, tls), limits, tasks.clone(), describe));

    let client = client_config(Roots::Pem(pem.into_bytes())).unwrap();
    let connector = TlsConnector::from(Arc::new(client));
    let name = || ServerName::try_from("localhost").unwrap();
    let served = async |stream: TcpStream| {
        let stream = connector.connect(name(), stream).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        Tasks::new().spawn("client", connection);
        sender.send_request(get("/")).await.unwrap().status().as_u16()
    };

    let mut stalled = Vec::new();
    for _ in 0..3 {
        stalled.push(from([127, 0, 0, 1], address).await);
    }
    while census.connections() < 3 || census.handshakes() < 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(census.handshakes(), 1, "the others wait for their peer's share");
    assert_eq!(tokio::time::timeout(PATIENCE, served(from([127, 0, 0, 2], address).await)).await.unwrap(), 200);
    drop(stalled);
    assert_eq!(tokio::time::timeout(PATIENCE, served(from([127, 0, 0, 1], address).await)).await.unwrap(), 200);
    assert_eq!((census.handshakes(), census.handshakes_failed()), (0, 3));
}
