//! Clients that break the rules of HTTP, and those that only take their time.

use std::net::SocketAddr;

use http::{Request, StatusCode};
use model::config::{GatewayBackend, Protocol};
use runtime::http::empty;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::kit::{App, Client, Mesh, Node, external, name, raw};

async fn door(app: &App) -> (Node, SocketAddr) {
    let backend = GatewayBackend { service: name("shop"), matches: Vec::new(), hosts: Vec::new() };
    let mesh = Mesh::new(&["shop"]);
    let node = mesh.gateway(backend, external("shop", Protocol::Http, &[app.address]), 1_000).await;
    let address = node.plane.gateway_address().unwrap();
    (node, address)
}

#[tokio::test]
async fn requests_that_could_be_read_in_two_ways_do_not_get_through() {
    let app = App::saying("in").await;
    let (_door, address) = door(&app).await;
    let long_header = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n", "x".repeat(70 << 10));
    let many = "X-Many: 1\r\n".repeat(101);
    let many_headers = format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n");
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", "400"),
        ("GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        (&long_header, "431"),
        (&many_headers, "431"),
    ] {
        let request = request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        let answer = raw(address, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{:.60}: {answer:.200}", request.escape_debug());
    }
    assert!(app.seen().is_empty());
}

#[tokio::test]
async fn a_length_beside_a_coding_is_dropped() {
    let app = App::saying("in").await;
    let (_door, address) = door(&app).await;
    let smuggled = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
                    3\r\nabc\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = raw(address, smuggled.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
    for seen in app.seen() {
        assert_eq!((&seen.body[..], seen.header("content-length")), (&b"abc"[..], None));
        assert_ne!(seen.uri.path(), "/smuggled");
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_head_is_408_after_its_time() {
    let app = App::saying("in").await;
    let (_door, address) = door(&app).await;
    let answer = raw(address, b"GET / HTTP/1.1\r\nHost: ").await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("proxy-status: meshwork; error="), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_in_the_end() {
    let app = App::saying("in").await;
    let (_door, address) = door(&app).await;
    let mut stream = runtime::net::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn an_upload_that_breaks_off_says_nothing_about_the_endpoint() {
    let app = App::saying("in").await;
    let (door, address) = door(&app).await;
    for framing in ["Transfer-Encoding: chunked\r\n\r\n5\r\nab", "Content-Length: 5\r\n\r\nab"] {
        for _ in 0..10 {
            let mut stream = runtime::net::connect(address).await.unwrap();
            stream.write_all(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}").as_bytes()).await.unwrap();
            drop(stream);
        }
    }
    let mut client = Client::http1(address).await;
    for _ in 0..3 {
        let request = Request::get("/").header("host", "a").body(empty()).unwrap();
        assert_eq!(client.send(request).await.status(), StatusCode::OK);
    }
    assert_eq!(door.plane.status()["services"]["shop"]["endpoints"][0]["breaker"], "closed");
}
