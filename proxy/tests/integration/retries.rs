//! Attempts: what is tried again, what is not, and when an endpoint is left alone.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use model::config::{Breaker, Protocol, RetryOn};
use runtime::http::{empty, full};
use runtime::net::{Listener, Share};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::kit::{App, Client, Mesh, Node, external, get, header, until};

fn nowhere() -> SocketAddr {
    ([127, 0, 0, 1], 1).into()
}

async fn caller(addresses: &[SocketAddr], adjust: impl FnOnce(&mut model::snapshot::ServicePart)) -> Node {
    let mesh = Mesh::new(&["orders", "pay"]);
    let mut part = external("pay", Protocol::Http, addresses);
    adjust(&mut part);
    mesh.caller("orders", vec![("pay", part)]).await
}

async fn send(node: &Node, method: &str) -> Response<bytes::Bytes> {
    let request = Request::builder().method(method).uri("/").header("host", "pay");
    let body = if method == "POST" { full("amount=1") } else { empty() };
    Client::http1(node.outbound()).await.send(request.body(body).unwrap()).await
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over_for_every_method() {
    let app = App::saying("paid").await;
    let orders = caller(&[nowhere(), app.address], |_| ()).await;
    for method in ["GET", "POST", "PUT"] {
        for _ in 0..10 {
            assert_eq!(send(&orders, method).await.body(), "paid", "{method}");
        }
    }
    assert_eq!(app.seen().len(), 30);
    assert!(orders.plane.observed().edges[0].retries > 0, "the dead one was never asked");
    assert!(app.seen().iter().filter(|seen| seen.method == "POST").all(|seen| seen.body == "amount=1"));
}

/// Answers 503 the first time and 200 from then on.
async fn flaky() -> App {
    let count = AtomicU32::new(0);
    App::start(move |_| {
        let first = count.fetch_add(1, Ordering::Relaxed) == 0;
        let status = if first { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        Response::builder().status(status).body(full("said")).unwrap()
    })
    .await
}

#[tokio::test]
async fn a_status_is_tried_again_only_where_listed_and_safe() {
    for (method, listed, non_idempotent, expected) in [
        ("GET", false, false, 503),
        ("GET", true, false, 200),
        ("PUT", true, false, 200),
        ("POST", true, false, 503),
        ("POST", true, true, 200),
    ] {
        let app = flaky().await;
        let orders = caller(&[app.address], |part| {
            let retry = &mut part.routes[0].retry;
            retry.non_idempotent = non_idempotent;
            if listed {
                retry.on.insert(RetryOn::Status(503));
            }
        })
        .await;
        let answer = send(&orders, method).await;
        assert_eq!(answer.status().as_u16(), expected, "{method} {listed} {non_idempotent}");
        if method == "POST" && non_idempotent {
            assert!(app.seen().iter().all(|seen| seen.body == "amount=1"), "the body is sent again whole");
            let spans: Vec<_> =
                app.seen().iter().map(|seen| seen.header("traceparent").unwrap()[36..52].to_owned()).collect();
            assert_ne!(spans[0], spans[1], "each attempt has its own span");
        }
    }
}

#[tokio::test]
async fn the_breaker_opens_and_half_opens() {
    let app = App::start(|_| Response::builder().status(500).body(full("")).unwrap()).await;
    let orders = caller(&[app.address], |part| {
        // Long enough for the calls that must find it open, also on a loaded machine.
        let (open, open_max) = (Duration::from_secs(3), Duration::from_secs(60));
        part.breaker = Breaker { consecutive_failures: 3, open, open_max, max_ejected: 1.0 };
    })
    .await;
    for _ in 0..3 {
        assert_eq!(send(&orders, "GET").await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
    let answer = send(&orders, "GET").await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(String::from_utf8_lossy(answer.body()).contains("failed too often"));
    assert_eq!(app.seen().len(), 3, "it is left alone");
    let breaker = || orders.plane.status()["services"]["pay"]["endpoints"][0]["breaker"].clone();
    assert_eq!(breaker(), "open");
    until("half-open", || breaker() == "half-open").await;
    assert_eq!(send(&orders, "GET").await.status(), StatusCode::INTERNAL_SERVER_ERROR, "the probe");
    assert_eq!(send(&orders, "GET").await.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn no_answer_in_time_is_504() {
    let app = App::streaming(|_| Box::pin(std::future::pending())).await;
    let orders = caller(&[app.address], |part| {
        part.routes[0].timeouts.request = Some(Duration::from_secs(3));
        part.routes[0].timeouts.attempt = Some(Duration::from_millis(200));
        part.routes[0].retry.on.insert(RetryOn::Reset);
        part.routes[0].retry.backoff = Duration::from_millis(1);
    })
    .await;
    let began = Instant::now();
    let answer = send(&orders, "GET").await;
    assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
    let problem: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
    let tried = problem["tried"].as_array().unwrap().len();
    assert!((2..=3).contains(&tried), "{problem}");
    assert!(began.elapsed() >= Duration::from_millis(400), "each attempt has its time: {:?}", began.elapsed());
    // A payment may have gone through, so it is not tried again.
    let answer = send(&orders, "POST").await;
    let problem: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!((answer.status(), problem["tried"].as_array().unwrap().len()), (StatusCode::GATEWAY_TIMEOUT, 1));
}

/// Answers one request on each connection, and closes it as the next one comes in: the stale keep-alive race at its worst.
async fn closes_on_the_second() -> SocketAddr {
    let listener = Listener::open(([127, 0, 0, 1], 0).into(), Share::Alone).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4_096];
                assert!(stream.read(&mut buffer).await.unwrap() > 0);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                // The next request is read, and never answered.
                let _ = stream.read(&mut buffer).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_stale_connection_is_no_failure_for_what_is_idempotent() {
    let orders = caller(&[closes_on_the_second().await], |_| ()).await;
    for _ in 0..10 {
        assert_eq!(send(&orders, "GET").await.body(), "ok");
    }
    let status = orders.plane.status();
    assert_eq!(status["services"]["pay"]["endpoints"][0]["breaker"], "closed");
    // After the tenth GET there is one used connection, and a POST that was written to it may have been processed.
    let answer = send(&orders, "POST").await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert!(header(&answer, "proxy-status").starts_with("meshwork; error=connection_terminated;"), "{answer:?}");
    let problem: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(problem["tried"].as_array().unwrap().len(), 1, "{problem}");
}

#[tokio::test]
async fn an_endpoint_that_says_it_was_not_reached_is_passed_over() {
    // The sidecar of the first instance lives, its application does not.
    let app = App::saying("paid").await;
    let mesh = Mesh::new(&["orders", "pay"]);
    let callee = |address| mesh.callee("pay", Protocol::Http, proxy::Target::Application(address), &["orders"]);
    let (dead, live) = (callee(nowhere()).await, callee(app.address).await);
    let endpoints = vec![crate::kit::endpoint("pay-0", dead.inbound()), crate::kit::endpoint("pay-1", live.inbound())];
    let part = crate::kit::in_mesh("pay", Protocol::Http, endpoints);
    let orders = mesh.caller("orders", vec![("pay", part)]).await;
    for _ in 0..20 {
        assert_eq!(send(&orders, "POST").await.body(), "paid");
    }
    let answer = get(orders.outbound(), "pay", "/").await;
    assert_eq!(answer.body(), "paid");
    assert!(orders.plane.observed().edges[0].retries > 0, "the dead one was never asked");
}
