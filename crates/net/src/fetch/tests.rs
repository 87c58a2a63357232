//! Bounded fetches against servers that are slow, endless or elsewhere.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::stream;
use http::Response;
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt;

use super::*;
use crate::ServeLimits;
use crate::testing::{PATIENCE, Running, learned_client, plain_client, raw_server, read_head, start};

async fn server() -> Running {
    start(ServeLimits::default(), |_, request: Request<Incoming>| async move {
        let mut response = Response::new(Body::empty());
        match request.uri().path() {
            "/small" => *response.body_mut() = Body::full("0123456789"),
            "/endless" => {
                let chunks =
                    stream::repeat_with(|| Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[b'x'; 1000]))));
                *response.body_mut() = Body::new(StreamBody::new(chunks));
            }
            "/stalls" => {
                *response.body_mut() =
                    Body::new(StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>()));
            }
            "/silent" => std::future::pending().await,
            "/moved" => {
                *response.status_mut() = StatusCode::FOUND;
                response.headers_mut().insert("location", "/small".parse().unwrap());
            }
            "/echo" => {
                let value = request.headers().get("x-test").unwrap().as_bytes().to_vec();
                *response.body_mut() = Body::full(value);
            }
            _ => *response.status_mut() = StatusCode::NOT_FOUND,
        }
        response
    })
    .await
}

fn request(server: &Running, path: &str) -> FetchRequest {
    FetchRequest {
        url: format!("http://{}{path}", server.address).parse().unwrap(),
        headers: HeaderMap::new(),
        deadline: PATIENCE,
        max_bytes: 10,
    }
}

#[tokio::test]
async fn a_document_within_the_limits_comes_whole() {
    let server = server().await;
    let fetched = fetch(&plain_client(), request(&server, "/small")).await.unwrap();
    assert_eq!((fetched.status, &fetched.body[..]), (StatusCode::OK, &b"0123456789"[..]));
    assert_eq!(fetched.headers["content-length"], "10");
    let mut with_header = request(&server, "/echo");
    with_header.headers.insert("x-test", "sent".parse().unwrap());
    assert_eq!(fetch(&plain_client(), with_header).await.unwrap().body, "sent");
}

#[tokio::test]
async fn a_document_over_the_limit_is_refused_declared_or_not() {
    let server = server().await;
    let small = FetchRequest { max_bytes: 9, ..request(&server, "/small") };
    let error = fetch(&plain_client(), small).await.unwrap_err();
    assert!(matches!(error, FetchError::TooLarge { max_bytes: 9, .. }), "{error}");
    let endless = FetchRequest { max_bytes: 100_000, ..request(&server, "/endless") };
    let error = fetch(&plain_client(), endless).await.unwrap_err();
    assert!(matches!(error, FetchError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn the_deadline_covers_head_and_body() {
    let server = server().await;
    for path in ["/silent", "/stalls"] {
        let slow = FetchRequest { deadline: Duration::from_millis(50), ..request(&server, path) };
        let error = fetch(&plain_client(), slow).await.unwrap_err();
        assert!(matches!(error, FetchError::Deadline { .. }), "{error}");
    }
}

#[tokio::test]
async fn redirects_and_failures_are_answers() {
    let server = server().await;
    for (path, status) in [("/moved", StatusCode::FOUND), ("/nothing", StatusCode::NOT_FOUND)] {
        assert_eq!(fetch(&plain_client(), request(&server, path)).await.unwrap().status, status);
    }
}

#[tokio::test]
async fn a_learned_url_may_not_lead_to_this_machine_and_its_credentials_are_not_shown() {
    let learned = FetchRequest {
        url: "https://me:hunter2@localhost/keys?token=hunter3".parse().unwrap(),
        headers: HeaderMap::new(),
        deadline: PATIENCE,
        max_bytes: 10,
    };
    let error = fetch(&learned_client(), learned).await.unwrap_err().to_string();
    assert!(error.contains("https://localhost/keys") && !error.contains("hunter"), "{error}");
}

#[tokio::test]
async fn a_document_is_asked_for_once_more_where_a_kept_connection_had_ended() {
    for (said, whole) in [("", true), ("HTTP/1.1 200 OK\r\nx-half: ", false)] {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let address = raw_server(move |mut stream| {
            let asked = Arc::clone(&count);
            async move {
                read_head(&mut stream).await;
                asked.fetch_add(1, Ordering::Relaxed);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                if !read_head(&mut stream).await.is_empty() {
                    asked.fetch_add(1, Ordering::Relaxed);
                }
                stream.write_all(said.as_bytes()).await.ok();
            }
        })
        .await;
        let client = plain_client();
        let request = FetchRequest {
            url: format!("http://{address}/").parse().unwrap(),
            headers: HeaderMap::new(),
            deadline: PATIENCE,
            max_bytes: 10,
        };
        assert_eq!(fetch(&client, request.clone()).await.unwrap().body, "ok");
        let again = fetch(&client, request).await;
        assert_eq!(again.is_ok(), whole, "{again:?}");
        assert_eq!(asked.load(Ordering::Relaxed), if whole { 3 } else { 2 });
    }
}
