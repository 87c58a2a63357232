//! The client against real loopback servers: what is reported as not sent was not sent.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use http::StatusCode;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;
use crate::body::collect;
use crate::testing::{
    PATIENCE, certificates, client_trusting, get, learned_client, loopback, plain_client, raw_server, read_head, start,
    tls_server,
};
use crate::{Roots, ServeLimits, client_config};

fn reason(outcome: &Result<Response<Incoming>, SendError>) -> Option<NotSentReason> {
    match outcome {
        Err(SendError::NotSent { reason, .. }) => Some(*reason),
        Ok(_) | Err(SendError::Interrupted { .. } | SendError::Timeout { .. }) => None,
    }
}

async fn body_of(outcome: Result<Response<Incoming>, SendError>) -> String {
    let bytes = collect(outcome.unwrap().into_body(), 1000).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn nobody_listening_is_not_sent() {
    let closed = TcpListener::bind(loopback()).await.unwrap().local_addr().unwrap();
    let url = format!("http://me:hunter2@{closed}/x?key=hunter3");
    let error = plain_client().send(get(&url), PATIENCE).await.unwrap_err();
    assert!(error.is_not_sent());
    let text = error.to_string();
    assert!(text.contains("refused") && text.contains(&closed.to_string()), "{text}");
    assert!(!text.contains("hunter"), "{text}");
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_not_sent() {
    let silent = raw_server(|stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let tls = client_config(Roots::Pem(certificates(&[]).authority_pem.into())).unwrap();
    let options =
        ClientOptions { connect_timeout: Duration::from_millis(50), ..ClientOptions::new(tls, UrlTrust::Operator) };
    let outcome = HttpClient::new(options).send(get(&format!("https://{silent}/")), PATIENCE).await;
    assert_eq!(reason(&outcome), Some(NotSentReason::Unreachable));
}

#[tokio::test]
async fn no_response_in_time_is_a_timeout() {
    let server = start(ServeLimits::default(), |_, _| std::future::pending()).await;
    let url = format!("http://{}/", server.address);
    let after = Duration::from_millis(50);
    let error = plain_client().send(get(&url), after).await.unwrap_err();
    assert_eq!(error, SendError::Timeout { url, after });
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_request_is_interrupted() {
    let breaks = raw_server(|mut stream| async move {
        read_head(&mut stream).await;
    })
    .await;
    let garbles = raw_server(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n").await.unwrap();
    })
    .await;
    for address in [breaks, garbles] {
        let outcome = plain_client().send(get(&format!("http://{address}/")), PATIENCE).await;
        assert!(matches!(outcome, Err(SendError::Interrupted { .. })), "{outcome:?}");
    }
}

/// Answers one request, and does `then` with the next one on the same connection.
async fn hangs_up(then: &'static [u8]) -> std::net::SocketAddr {
    raw_server(move |mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        read_head(&mut stream).await;
        stream.write_all(then).await.unwrap();
    })
    .await
}

#[tokio::test]
async fn only_a_kept_connection_that_ended_without_a_byte_was_unheard() {
    let unheard = |outcome: Result<Response<Incoming>, SendError>| match outcome {
        Err(SendError::Interrupted { unheard, .. }) => unheard,
        other => panic!("{other:?}"),
    };
    for (then, expected) in
        [(b"".as_slice(), true), (b"H", false), (b"HTTP/1.1 200 OK\r\nx: 1", false), (b"?\r\n\r\n", false)]
    {
        let (client, address) = (plain_client(), hangs_up(then).await);
        let url = format!("http://{address}/");
        collect(client.send(get(&url), PATIENCE).await.unwrap().into_body(), 10).await.unwrap();
        assert_eq!(unheard(client.send(get(&url), PATIENCE).await), expected, "{}", then.escape_ascii());
    }
    // A new connection has nothing to be late for.
    let breaks = raw_server(|mut stream| async move {
        read_head(&mut stream).await;
    })
    .await;
    assert!(!unheard(plain_client().send(get(&format!("http://{breaks}/")), PATIENCE).await));
}

/// The server closes each connection after one answer without saying so, so the client keeps picking
/// connections that are just going away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_reported_as_not_sent_never_reached_the_server() {
    let seen = Arc::new(Mutex::new(HashSet::new()));
    let log = Arc::clone(&seen);
    let address = raw_server(move |mut stream| {
        let log = Arc::clone(&log);
        async move {
            let head = read_head(&mut stream).await;
            log.lock().unwrap().insert(head.split(' ').nth(1).unwrap_or("").to_owned());
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.ok();
        }
    })
    .await;
    let client = plain_client();
    let mut answered = 0;
    for number in 0..500 {
        let path = format!("/{number}");
        let outcome = client.send(get(&format!("http://{address}{path}")), PATIENCE).await;
        let arrived = seen.lock().unwrap().contains(&path);
        match outcome {
            Ok(_) => answered += 1,
            Err(SendError::NotSent { .. }) => assert!(!arrived, "{path} was sent"),
            Err(SendError::Interrupted { .. }) => {}
            Err(error @ SendError::Timeout { .. }) => panic!("{error}"),
        }
    }
    assert!(answered > 0);
}

#[tokio::test]
async fn a_request_that_a_closed_connection_gives_back_counts_as_untouched() {
    let (near, _far) = tokio::io::duplex(64);
    let io = hyper_util::rt::TokioIo::new(near);
    let (mut sender, connection) = hyper::client::conn::http1::handshake::<_, Body>(io).await.unwrap();
    drop(connection);
    let error = sender.send_request(get("/")).await.unwrap_err();
    assert!(error.is_canceled());
}

#[tokio::test]
async fn redirects_are_answers() {
    let server = start(ServeLimits::default(), |_, request: Request<Incoming>| async move {
        assert_eq!(request.uri().path(), "/from");
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        response.headers_mut().insert("location", "/to".parse().unwrap());
        response
    })
    .await;
    let response = plain_client().send(get(&format!("http://{}/from", server.address)), PATIENCE).await.unwrap();
    assert_eq!(response.status(), 307);
}

#[tokio::test]
async fn an_inbound_version_does_not_matter() {
    let server = start(ServeLimits::default(), |_, request: Request<Incoming>| async move {
        Response::new(Body::full(format!("{:?}", request.version())))
    })
    .await;
    let client = plain_client();
    for version in [Version::HTTP_10, Version::HTTP_2] {
        let mut request = get(&format!("http://{}/", server.address));
        *request.version_mut() = version;
        assert_eq!(body_of(client.send(request, PATIENCE).await).await, "HTTP/1.1");
    }
}

#[tokio::test]
async fn a_relative_url_is_refused() {
    for client in [plain_client(), learned_client()] {
        assert_eq!(reason(&client.send(get("/x"), PATIENCE).await), Some(NotSentReason::Refused));
    }
}

#[tokio::test]
async fn the_protocol_is_negotiated_with_a_server_of_the_given_authority() {
    for (alpn, spoken) in [(vec!["h2", "http/1.1"], "HTTP/2.0"), (vec!["http/1.1"], "HTTP/1.1"), (vec![], "HTTP/1.1")] {
        let certificates = certificates(&alpn);
        let port = tls_server(&certificates).await.port();
        let client = client_trusting(&certificates.authority_pem, UrlTrust::Operator);
        for host in ["localhost", "127.0.0.1"] {
            let outcome = client.send(get(&format!("https://{host}:{port}/")), PATIENCE).await;
            assert_eq!(body_of(outcome).await, spoken);
        }
    }
}

#[tokio::test]
async fn a_server_of_another_authority_or_name_gets_nothing() {
    let certificates = certificates(&["h2"]);
    let port = tls_server(&certificates).await.port();
    let url = format!("https://localhost:{port}/");
    let stranger = client_trusting(&crate::testing::certificates(&[]).authority_pem, UrlTrust::Operator);
    assert_eq!(reason(&stranger.send(get(&url), PATIENCE).await), Some(NotSentReason::Unreachable));
    let platform = client_config(Roots::Platform).expect("this machine has certificate authorities");
    let platform = HttpClient::new(ClientOptions::new(platform, UrlTrust::Operator));
    let error = platform.send(get(&url), PATIENCE).await.unwrap_err();
    assert!(error.is_not_sent());
    assert!(error.to_string().contains("certificate"), "{error}");
    let right = client_trusting(&certificates.authority_pem, UrlTrust::Operator);
    let other_name = right.send(get(&format!("https://127.0.0.2:{port}/")), PATIENCE).await;
    assert_eq!(reason(&other_name), Some(NotSentReason::Unreachable));
}

#[tokio::test]
async fn a_learned_url_reaches_nothing_on_this_machine() {
    let certificates = certificates(&["h2"]);
    let port = tls_server(&certificates).await.port();
    let client = client_trusting(&certificates.authority_pem, UrlTrust::Learned);
    for host in [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "169.254.169.254",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::1]",
        "0.0.0.0",
        "10.0.0.1",
        "[fd00:ec2::254]",
    ] {
        let outcome = client.send(get(&format!("https://{host}:{port}/")), PATIENCE).await;
        assert_eq!(reason(&outcome), Some(NotSentReason::Refused), "{host}");
    }
    let plain = client.send(get("http://8.8.8.8/"), PATIENCE).await;
    assert_eq!(reason(&plain), Some(NotSentReason::Refused));
}

#[tokio::test]
async fn http_2_is_spoken_in_clear_text_where_it_is_known_to_be_understood_and_nowhere_else() {
    let version = |_: crate::Peer, request: Request<Incoming>| async move {
        Response::new(Body::full(format!("{:?} {}", request.version(), request.headers().contains_key("host"))))
    };
    let server = start(ServeLimits::default(), version).await;
    let url = format!("http://{}/", server.address);
    let (usual, knowing) = (plain_client(), plain_client().apart_with_prior_knowledge());
    assert_eq!(body_of(usual.send(get(&url), PATIENCE).await).await, "HTTP/1.1 true");
    assert_eq!(body_of(knowing.send(get(&url), PATIENCE).await).await, "HTTP/2.0 false");
    assert_eq!(body_of(knowing.send(get(&url), PATIENCE).await).await, "HTTP/2.0 false");

    // Who understands something else is not asked again in that.
    let other = raw_server(|mut stream| async move {
        read_head(&mut stream).await;
        let _answered = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    })
    .await;
    let error = knowing.send(get(&format!("http://{other}/")), PATIENCE).await.unwrap_err();
    assert!(matches!(error, SendError::Interrupted { unheard: false, .. }), "{error:?}");
}
