//! CONNECT and upgrades.

use http::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use model::config::Protocol;
use proxy::Target;
use runtime::http::{empty, full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::kit::{App, Client, Mesh, Node, endpoint, in_mesh};

async fn two(app: &App) -> (Node, Node) {
    let mesh = Mesh::new(&["orders", "chat", "secret"]);
    let chat = mesh.callee("chat", Protocol::Http, Target::Application(app.address), &["orders"]).await;
    let part = in_mesh("chat", Protocol::Http, vec![endpoint("chat-0", chat.inbound())]);
    (mesh.caller("orders", vec![("chat", part)]).await, chat)
}

#[tokio::test]
async fn a_websocket_goes_through_both_sidecars() {
    let app = App::streaming(|mut request| {
        Box::pin(async move {
            assert_eq!(request.headers()["upgrade"], "websocket");
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut stream = TokioIo::new(upgrade.await.unwrap());
                let mut word = [0; 4];
                stream.read_exact(&mut word).await.unwrap();
                stream.write_all(&word.map(|byte| byte.to_ascii_uppercase())).await.unwrap();
                stream.shutdown().await.unwrap();
            });
            let answer = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "websocket");
            answer.body(empty()).unwrap()
        })
    })
    .await;
    let (orders, _chat) = two(&app).await;
    let request = Request::get("/ws").header("host", "chat").header("connection", "Upgrade");
    let request = request.header("upgrade", "websocket").body(empty()).unwrap();
    let mut answer = Client::http1(orders.outbound()).await.try_send(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(answer.headers()["upgrade"], "websocket");
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap());
    stream.write_all(b"ping").await.unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"PING");
}

#[tokio::test]
async fn an_upgrade_that_is_declined_is_an_answer_like_any_other() {
    let app = App::saying("no such thing").await;
    let (orders, _chat) = two(&app).await;
    let request = Request::get("/ws").header("host", "chat").header("connection", "Upgrade");
    let request = request.header("upgrade", "h2c").body(empty()).unwrap();
    let answer = Client::http1(orders.outbound()).await.send(request).await;
    assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::OK, &b"no such thing"[..]));
}

#[tokio::test]
async fn what_comes_through_connect_is_served_by_the_same_pipeline() {
    let app = App::start(|seen| Response::new(full(format!("{} {}", seen.method, seen.uri)))).await;
    let (orders, _chat) = two(&app).await;
    for (target, status) in [("chat:80", 200), ("secret:80", 403), ("nobody:80", 404)] {
        let mut stream = runtime::net::connect(orders.outbound()).await.unwrap();
        stream.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        if status == 200 {
            for _ in 0..2 {
                // Not even a Host is needed: the tunnel says where it leads.
                stream.write_all(b"GET /a HTTP/1.1\r\n\r\n").await.unwrap();
                let mut answer = [0; 4_096];
                let read = stream.read(&mut answer).await.unwrap();
                let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
                assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("GET /a"), "{answer}");
            }
        }
    }
}
