//! Clients that go away or take their time; what they send as such is asked about in `heads`.

use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use model::config::{GatewayBackend, Protocol};
use runtime::http::empty;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use crate::kit::{App, Client, Mesh, Node, external, name, soon, until};

async fn door(app: &App) -> (Node, SocketAddr) {
    let backend = GatewayBackend { service: name("shop"), matches: Vec::new(), hosts: Vec::new() };
    let mesh = Mesh::new(&["shop"]);
    let node = mesh.gateway(backend, external("shop", Protocol::Http, &[app.address]), 1_000).await;
    let address = node.plane.gateway_address().unwrap();
    (node, address)
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_in_the_end() {
    let app = App::saying("in").await;
    let (_door, address) = door(&app).await;
    let mut stream = runtime::net::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let (began, mut answer) = (Instant::now(), Vec::new());
    timeout(Duration::from_secs(3_600), stream.read_to_end(&mut answer)).await.expect("an end").unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    assert!((74..100).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_upload_that_breaks_off_says_nothing_about_the_endpoint() {
    let (began, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let app = App::streaming(move |request| {
        began.send(()).unwrap();
        Box::pin(async move {
            let _ = request.into_body().collect().await;
            http::Response::new(empty())
        })
    })
    .await;
    let (door, address) = door(&app).await;
    for framing in ["Transfer-Encoding: chunked\r\n\r\n5\r\nab", "Content-Length: 5\r\n\r\nab"] {
        for _ in 0..10 {
            let mut stream = runtime::net::connect(address).await.unwrap();
            stream.write_all(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}").as_bytes()).await.unwrap();
            soon("the upload", begun.recv()).await.unwrap();
            drop(stream);
        }
    }
    let endpoint = || door.plane.status()["services"]["shop"]["endpoints"][0].clone();
    until("the end of all uploads", || endpoint()["in_progress"] == 0).await;
    // Not behind a good answer, which would make up for what they have said.
    assert_eq!(endpoint()["breaker"], "closed");
    let mut client = Client::http1(address).await;
    for _ in 0..3 {
        let request = Request::get("/").header("host", "a").body(empty()).unwrap();
        assert_eq!(client.send(request).await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_client_that_asks_and_takes_back_all_the_time_is_told_to_go() {
    let (began, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let app = App::streaming(move |_| {
        let began = began.clone();
        Box::pin(async move {
            began.send(()).unwrap();
            std::future::pending().await
        })
    })
    .await;
    let (_door, address) = door(&app).await;
    let mut client = Client::http2(address).await;
    let mut taken_back = 0;
    loop {
        let call = client.try_send(Request::get("http://a/").body(empty()).unwrap());
        tokio::select! {
            biased;
            Some(()) = begun.recv() => taken_back += 1,
            answer = call => break assert!(answer.is_err(), "{answer:?}"),
        }
        assert!(taken_back < 2_000, "nobody minds");
    }
    assert!(taken_back >= 500, "{taken_back}");
}
