//! The server over real loopback sockets: versions, limits, shutdown, panics, and what hyper lets through.

mod handshakes;
mod hostile;

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Version;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioExecutor;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::*;
use crate::body::collect;
use crate::testing::{PATIENCE, Running, get, raw_exchange, read_to_close, start};

async fn h1(server: &Running) -> http1::SendRequest<Body> {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    Tasks::new().spawn("client", connection);
    sender
}

async fn h2(server: &Running) -> http2::SendRequest<Body> {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    Tasks::new().spawn("client", connection);
    sender
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(collect(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap()
}

/// Answers `/panic` with a panic and anything else with version and peer.
async fn describe(peer: Peer, request: Request<Incoming>) -> Response<Body> {
    assert_ne!(request.uri().path(), "/panic", "on purpose");
    Response::new(Body::full(format!("{:?} {}", request.version(), peer.address.ip().unwrap())))
}

#[tokio::test]
async fn both_versions_are_served_on_one_port() {
    let server = start(ServeLimits::default(), describe).await;
    let response = h1(&server).await.send_request(get("/")).await.unwrap();
    assert_eq!(text(response).await, "HTTP/1.1 127.0.0.1");
    let response = h2(&server).await.send_request(get("http://a/")).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    assert_eq!(text(response).await, "HTTP/2.0 127.0.0.1");
}

#[tokio::test]
async fn a_panic_ends_only_its_own_connection_or_stream() {
    let server = start(ServeLimits::default(), describe).await;
    let mut multiplexed = h2(&server).await;
    assert!(h1(&server).await.send_request(get("/panic")).await.is_err());
    assert!(multiplexed.send_request(get("http://a/panic")).await.is_err());
    assert!(multiplexed.send_request(get("http://a/")).await.is_ok());
    assert!(h1(&server).await.send_request(get("/")).await.is_ok());
}

#[tokio::test]
async fn shutdown_lets_requests_in_flight_finish_and_takes_no_new_connection() {
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (entered, release) = (Arc::clone(&entered), Arc::clone(&release));
        move |_, _| {
            let (entered, release) = (Arc::clone(&entered), Arc::clone(&release));
            async move {
                let released = release.notified();
                entered.notify_one();
                released.await;
                Response::new(Body::full("finished"))
            }
        }
    };
    let Running { address, tasks, serving } = start(ServeLimits::default(), handler).await;
    let server = Running { address, tasks: tasks.clone(), serving: tasks.spawn("none", async {}) };
    let (mut one, mut two) = (h1(&server).await, h2(&server).await);
    let client = Tasks::new();
    let first = client.spawn("h1", async move { one.send_request(get("/")).await });
    entered.notified().await;
    let second = client.spawn("h2", async move { two.send_request(get("http://a/")).await });
    entered.notified().await;

    tasks.stop();
    serving.join().await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
    release.notify_waiters();
    assert_eq!(text(first.join().await.unwrap().unwrap()).await, "finished");
    assert_eq!(text(second.join().await.unwrap().unwrap()).await, "finished");
    assert!(tasks.drain(PATIENCE).await);
}

#[tokio::test]
async fn who_came_before_shutdown_is_answered_even_if_nobody_had_looked_yet() {
    let Running { address, tasks, serving } = start(ServeLimits::default(), describe).await;
    // On one thread, nothing else runs between these: they are in the system's queue, and only one of them has spoken.
    let (mut spoken, mut silent) = {
        let connect = || std::net::TcpStream::connect(address).unwrap();
        (connect(), connect())
    };
    let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    std::io::Write::write_all(&mut spoken, request).unwrap();
    tasks.stop();
    tokio::time::sleep(Duration::from_millis(1)).await;
    std::io::Write::write_all(&mut silent, request).unwrap();
    for stream in [spoken, silent] {
        stream.set_nonblocking(true).unwrap();
        let answer = read_to_close(&mut TcpStream::from_std(stream).unwrap()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    serving.join().await.unwrap();
    assert!(tasks.drain(PATIENCE).await);
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_shutdown() {
    let server = start(ServeLimits::default(), describe).await;
    let mut idle = h1(&server).await;
    text(idle.send_request(get("/")).await.unwrap()).await;
    let silent = TcpStream::connect(server.address).await.unwrap();
    let idle_two = h2(&server).await;
    assert!(server.tasks.drain(PATIENCE).await);
    drop((idle, idle_two, silent));
}

#[tokio::test]
async fn a_request_that_outlasts_the_drain_is_cut() {
    let entered = Arc::new(Notify::new());
    let inside = Arc::clone(&entered);
    let server = start(ServeLimits::default(), move |_, _| {
        inside.notify_one();
        std::future::pending()
    })
    .await;
    let mut sender = h1(&server).await;
    let call = Tasks::new().spawn("client", async move { sender.send_request(get("/")).await });
    entered.notified().await;
    assert!(!server.tasks.drain(Duration::from_millis(10)).await);
    assert!(call.join().await.unwrap().is_err());
}

#[tokio::test]
async fn too_large_a_head_is_431() {
    let limits = ServeLimits { max_header_bytes: 8192, max_headers: 5, ..ServeLimits::default() };
    let server = start(limits, describe).await;
    let long = format!("GET / HTTP/1.1\r\nhost: a\r\nlong: {}\r\n\r\n", "x".repeat(20_000));
    assert!(raw_exchange(server.address, long.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "n: 1\r\n".repeat(6));
    assert!(raw_exchange(server.address, many.as_bytes()).await.starts_with("HTTP/1.1 431"));

    let with = |fields: usize, size: usize| {
        let mut request = get("http://a/");
        for _ in 0..fields {
            request.headers_mut().append("n", "x".repeat(size).parse().unwrap());
        }
        request
    };
    let mut two = h2(&server).await;
    assert_eq!(two.send_request(with(5, 1)).await.unwrap().status(), 200);
    assert_eq!(two.send_request(with(6, 1)).await.unwrap().status(), 431);
    let long = two.send_request(with(1, 20_000)).await;
    assert!(long.is_err() || long.is_ok_and(|response| response.status() == 431));
}

#[tokio::test]
async fn a_peer_that_does_not_finish_a_head_is_hung_up_on() {
    let limits = ServeLimits { header_timeout: Duration::from_millis(50), ..ServeLimits::default() };
    let server = start(limits, describe).await;
    for said in ["", "P", "PRI * HTTP/2.0\r\n\r\nSM", "GET", "GET / HTTP/1.1\r\nhost: a\r\n"] {
        let answer = raw_exchange(server.address, said.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{said:?}: {answer}");
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let inside = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let counted = (Arc::clone(&inside), Arc::clone(&most));
    let limits = ServeLimits { max_connections: 2, peer_share: 100, ..ServeLimits::default() };
    let server = start(limits, move |_, _| {
        let (inside, most) = (Arc::clone(&counted.0), Arc::clone(&counted.1));
        async move {
            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
            inside.fetch_sub(1, Ordering::SeqCst);
            Response::new(Body::empty())
        }
    })
    .await;
    let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answers = futures_util::future::join_all((0..10).map(|_| raw_exchange(server.address, request)));
    for answer in answers.await {
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert!(most.load(Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn hyper_refuses_what_the_module_says_it_refuses() {
    let server = start(ServeLimits::default(), describe).await;
    for head in [
        "content-length: 1\r\ncontent-length: 2\r\n",
        "content-length: 1, 1\r\n",
        "content-length: +1\r\n",
        "content-length: 99999999999999999999999\r\n",
        "transfer-encoding: chunked, gzip\r\n",
        "transfer-encoding: identity\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: x\r\n",
        "name : value\r\n",
        " name: value\r\n",
        "name: one\r\n two\r\n",
        "name: a\rb\r\n",
        "name: a\0b\r\n",
        "name: a\x7fb\r\n",
        "na(me: value\r\n",
        "name\r\n",
    ] {
        let request = format!("POST / HTTP/1.1\r\nhost: a\r\n{head}\r\nxGET / HTTP/1.1\r\nhost: a\r\n\r\n");
        let answer = raw_exchange(server.address, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{head:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{head:?}: {answer}");
    }
    let old = "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    assert!(raw_exchange(server.address, old.as_bytes()).await.contains(" 400 "));
}

#[tokio::test]
async fn what_hyper_would_not_tell_of_is_refused_and_nothing_behind_it_is_read() {
    let server = start(ServeLimits::default(), describe).await;
    let framings =
        ["content-length: 40\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 40"];
    let two = framings.map(|framing| format!("POST / HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n2\r\nok\r\n0\r\n\r\n"));
    let fragments = ["/a#b", "/#", "http://a/b#c"].map(|target| format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n"));
    for refused in two.iter().chain(&fragments) {
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\n\r\n{refused}GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n");
        let answer = raw_exchange(server.address, request.as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{refused}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 400").count(), 1, "{refused}: {answer}");
    }
}

#[tokio::test]
async fn a_slow_peer_that_stops_sending_gets_all_of_a_large_answer() {
    const BYTES: usize = 16 << 20;
    let server = start(ServeLimits::default(), |_, _| async { Response::new(Body::full(vec![b'a'; BYTES])) }).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let answer = read_to_close(&mut stream).await;
    assert!(answer.len() > BYTES && answer.starts_with("HTTP/1.1 200"), "{}", answer.len());
}

#[tokio::test]
async fn who_is_answered_in_the_middle_of_its_request_reads_the_answer_and_is_let_go_if_it_never_ends() {
    use tokio::io::AsyncReadExt;

    let server = start(ServeLimits::default(), |_, _| async { Response::new(Body::full("enough")) }).await;
    let begin = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10000000000\r\n\r\n";
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(begin).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"enough") {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{answer:?}");
        stream.write_all(&[b'x'; 4096]).await.unwrap();
    }
    stream.write_all(&[b'x'; 256 * 1024]).await.expect("what is sent still is taken");
    assert_eq!(stream.read(&mut [0; 1]).await.expect("the connection is closed and not reset"), 0);

    let mut endless = TcpStream::connect(server.address).await.unwrap();
    endless.write_all(begin).await.unwrap();
    let sending = async { while endless.write_all(&[b'x'; 4096]).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, sending).await.expect("it may go on for ever");
}

#[tokio::test]
async fn a_peer_that_is_gone_does_not_keep_its_request_running() {
    let (entered, dropped) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (inside, told) = (Arc::clone(&entered), Arc::clone(&dropped));
    let server = start(ServeLimits::default(), move |_, _| {
        let (inside, told) = (Arc::clone(&inside), Arc::clone(&told));
        async move {
            let _told = Told(told);
            inside.notify_one();
            std::future::pending().await
        }
    })
    .await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    entered.notified().await;
    drop(stream);
    tokio::time::timeout(PATIENCE, dropped.notified()).await.expect("it runs on for nobody");
}

/// Tells when what holds it is dropped.
struct Told(Arc<Notify>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[tokio::test]
async fn a_peer_that_stops_sending_still_gets_its_answer() {
    let release = Arc::new(Notify::new());
    let released = Arc::clone(&release);
    let server = start(ServeLimits::default(), move |_, request: Request<Incoming>| {
        let released = Arc::clone(&released);
        async move {
            let body = collect(request.into_body(), 100).await.unwrap();
            released.notified().await;
            Response::new(Body::full(body))
        }
    })
    .await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    stream.shutdown().await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    release.notify_one();
    let answer = read_to_close(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
}

#[tokio::test]
async fn what_hyper_lets_through_is_known() {
    let server = start(ServeLimits::default(), |_, request: Request<Incoming>| async move {
        Response::new(Body::full(format!("{}|{}", request.method(), request.uri())))
    })
    .await;
    for (line, seen) in [
        ("GET /a%2f..//b;c\\d\"{}| HTTP/1.1", "GET|/a%2f..//b;c\\d\"{}|"),
        ("GET http://other/x HTTP/1.1", "GET|http://other/x"),
        ("TRACE / HTTP/1.1", "TRACE|/"),
    ] {
        let request = format!("{line}\r\nconnection: close\r\nhost: one\r\nhost: two\r\n\r\n");
        let answer = raw_exchange(server.address, request.as_bytes()).await;
        assert!(answer.ends_with(seen), "{line}: {answer}");
    }
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(read_to_close(&mut stream).await.starts_with("HTTP/1.1 200"));
}
