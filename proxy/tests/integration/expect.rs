//! `Expect: 100-continue`: a client is told to send its body when whoever is to take it has said so, and by nobody before.

use http::StatusCode;
use model::config::{Inbound, Protocol};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::kit::{App, Mesh, Node, Wire, called, endpoint, in_mesh, raw, soon};

const TOLD: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

fn head(host: &str, framing: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: {host}\r\nExpect: 100-continue\r\n{framing}\r\n\r\n")
}

const FRAMINGS: [&str; 2] = ["Content-Length: 2000", "Transfer-Encoding: chunked"];

/// Sends a head and nothing else: what comes back is final, and closes the connection.
async fn refused(orders: &Node, framing: &str, status: u16, of: &str) {
    let answer = raw(orders.outbound(), head("catalog", framing).as_bytes()).await;
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{of}, {framing}: {answer}");
    assert!(answer.contains("connection: close\r\n"), "{of}, {framing}: {answer}");
}

#[tokio::test]
async fn what_the_callee_s_sidecar_refuses_is_not_sent() {
    let app = App::saying("x").await;
    let limits = Inbound { body_bytes_max: 1_000, ..Inbound::default() };
    let (orders, _catalog) = called(app.address, Protocol::Http, limits).await;
    refused(&orders, FRAMINGS[0], 413, "too long").await;
    // An application that is away, a caller that is none.
    for framing in FRAMINGS {
        let (orders, _catalog) = called(([127, 0, 0, 1], 1).into(), Protocol::Http, Inbound::default()).await;
        refused(&orders, framing, 502, "unreachable").await;
    }
    let mesh = Mesh::new(&["orders", "catalog"]);
    let target = proxy::Target::Application(app.address);
    let catalog = mesh.callee("catalog", Protocol::Http, target, &["storefront"]).await;
    let part = in_mesh("catalog", Protocol::Http, vec![endpoint("catalog-0", catalog.inbound())]);
    let orders = mesh.caller("orders", vec![("catalog", part)]).await;
    for framing in FRAMINGS {
        refused(&orders, framing, 403, "no caller").await;
    }
    assert!(app.seen().is_empty());
}

#[tokio::test]
async fn what_the_application_refuses_is_not_sent() {
    for (status, length) in [("401 Unauthorized", 0), ("417 Expectation Failed", 2), ("200 OK", 2)] {
        let body = "no".get(..length).unwrap();
        let app = Wire::saying(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}")).await;
        let (orders, _catalog) = called(app.address, Protocol::Http, Inbound::default()).await;
        for framing in FRAMINGS {
            refused(&orders, framing, status[..3].parse().unwrap(), status).await;
        }
        assert!(app.last().to_ascii_lowercase().contains("\r\nexpect: 100-continue\r\n"), "{}", app.last());
    }
}

#[tokio::test]
async fn a_refusal_leaves_nothing_behind_for_the_next_request() {
    let app = Wire::saying("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").await;
    let (orders, _catalog) = called(app.address, Protocol::Http, Inbound::default()).await;
    // The client did not wait: its body is not read as a request.
    let sent = format!("{}GET /smuggled HTTP/1.1\r\nHost: catalog\r\n\r\n", head("catalog", "Content-Length: 5"));
    let answer = raw(orders.outbound(), sent.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 401 ").count(), 1, "{answer}");
    assert_eq!(app.heads().len(), 1, "{:?}", app.heads());
}

/// Sends a head, waits to be told, sends the body, and reads the answer.
async fn told(orders: &Node) -> String {
    let mut stream = runtime::net::connect(orders.outbound()).await.unwrap();
    let head = head("catalog", "Content-Length: 3\r\nConnection: close");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut got = vec![0; TOLD.len()];
    soon("to be told", stream.read_exact(&mut got)).await.unwrap();
    assert_eq!(got, TOLD);
    stream.write_all(b"abc").await.unwrap();
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn the_application_s_word_comes_through_both_sidecars() {
    let app = App::start(|seen| http::Response::new(runtime::http::full(seen.body.clone()))).await;
    let (orders, _catalog) = called(app.address, Protocol::Http, Inbound::default()).await;
    for _ in 0..2 {
        let answer = told(&orders).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("abc"), "{answer}");
    }
    assert_eq!(app.last().body, "abc");
}

#[tokio::test(start_paused = true)]
async fn an_application_that_knows_no_such_word_gets_the_body_all_the_same() {
    let listener = runtime::net::Listener::open(([127, 0, 0, 1], 0).into(), runtime::net::Share::Alone).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut got = Vec::new();
            while !got.ends_with(b"\r\n\r\nabc") && stream.read_buf(&mut got).await.unwrap() > 0 {}
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        }
    });
    let (orders, _catalog) = called(address, Protocol::Http, Inbound::default()).await;
    let answer = told(&orders).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{answer}");
    serving.abort();
}

#[tokio::test]
async fn what_is_refused_once_may_be_tried_at_another_instance() {
    let (away, app) = (([127, 0, 0, 1], 1).into(), App::saying("here").await);
    let mesh = Mesh::new(&["orders", "catalog"]);
    let target = |address| proxy::Target::Application(address);
    let one = mesh.callee("catalog", Protocol::Http, target(away), &["orders"]).await;
    let two = mesh.callee("catalog", Protocol::Http, target(app.address), &["orders"]).await;
    let endpoints = vec![endpoint("catalog-0", one.inbound()), endpoint("catalog-1", two.inbound())];
    let orders = mesh.caller("orders", vec![("catalog", in_mesh("catalog", Protocol::Http, endpoints))]).await;
    for _ in 0..8 {
        let answer = told(&orders).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {} ", StatusCode::OK.as_str())), "{answer}");
    }
    assert!(orders.plane.observed().edges[0].retries > 0, "the other instance was never asked");
}
