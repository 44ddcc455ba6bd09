//! CONNECT and upgrades, over HTTP/1.1 and over HTTP/2; how tunnels end.

use std::net::SocketAddr;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::ext::Protocol as Extended;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use model::config::Protocol;
use proxy::Target;
use runtime::http::{empty, full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use crate::kit::{App, Client, Mesh, Node, endpoint, external, header, in_mesh, soon};

/// How long a door may take to close.
const DRAIN: Duration = Duration::from_secs(11);
/// What only a regression waits for, where hours pass in a moment.
const HOUR: Duration = Duration::from_secs(3_600);

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
    soon("an end", stream.read_to_end(&mut got)).await.unwrap();
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
                stream.write_all(b"GET /a HTTP/1.1\r\nHost: chat\r\n\r\n").await.unwrap();
                let mut answer = [0; 4_096];
                let read = soon("an answer", stream.read(&mut answer)).await.unwrap();
                let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
                assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("GET /a"), "{answer}");
            }
        }
    }
}

type Socket = TokioIo<Upgraded>;

/// An application that takes every WebSocket and hands its end of it to `serve`.
async fn sockets<F>(serve: impl Fn(Socket) -> F + Clone + Send + Sync + 'static) -> App
where
    F: Future<Output = ()> + Send + 'static,
{
    App::streaming(move |mut request| {
        let serve = serve.clone();
        Box::pin(async move {
            assert_eq!(request.headers()["upgrade"], "websocket");
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move { serve(TokioIo::new(upgrade.await.unwrap())).await });
            let answer = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "websocket");
            answer.header("sec-websocket-accept", "x").body(empty()).unwrap()
        })
    })
    .await
}

/// Opens a WebSocket to `chat`, as either version of HTTP has it.
async fn websocket(address: SocketAddr, http2: bool) -> Socket {
    let request = Request::builder().uri("http://chat/ws").header("sec-websocket-version", "13");
    let (mut client, request) = if http2 {
        let request = request.method(Method::CONNECT).extension(Extended::from_static("websocket"));
        (Client::http2(address).await, request)
    } else {
        let request = request.header("host", "chat").header("connection", "Upgrade").header("upgrade", "websocket");
        (Client::http1(address).await, request)
    };
    let mut answer = client.try_send(request.body(empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), if http2 { StatusCode::OK } else { StatusCode::SWITCHING_PROTOCOLS });
    assert_eq!(answer.headers().contains_key("sec-websocket-accept"), !http2);
    TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap())
}

#[tokio::test]
async fn one_side_of_a_tunnel_may_end_before_the_other() {
    let app = sockets(|mut socket| async move {
        let mut whole = Vec::new();
        socket.read_to_end(&mut whole).await.unwrap();
        socket.write_all(&whole.to_ascii_uppercase()).await.unwrap();
        socket.shutdown().await.unwrap();
    })
    .await;
    let (orders, _chat) = two(&app).await;
    for http2 in [false, true] {
        let mut socket = websocket(orders.outbound(), http2).await;
        socket.write_all(b"ping").await.unwrap();
        socket.shutdown().await.unwrap();
        let mut got = Vec::new();
        soon("an end", socket.read_to_end(&mut got)).await.unwrap();
        assert_eq!(got, b"PING", "http2: {http2}");
    }
}

/// A sidecar that reaches an application which keeps every WebSocket open and says nothing.
async fn silent() -> (Node, App) {
    let app = sockets(|mut socket| async move {
        // Until the other side closes.
        let _ = socket.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let mesh = Mesh::new(&["chat"]);
    (mesh.caller("orders", vec![("chat", external("chat", Protocol::Http, &[app.address]))]).await, app)
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_through_which_nothing_goes_is_closed_in_the_end() {
    let (orders, _app) = silent().await;
    for http2 in [false, true] {
        let mut socket = websocket(orders.outbound(), http2).await;
        let began = Instant::now();
        let read = timeout(HOUR, socket.read(&mut [0])).await.expect("an end");
        assert_eq!(read.unwrap(), 0, "http2: {http2}");
        assert!((599..610).contains(&began.elapsed().as_secs()), "http2: {http2}: {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_closes_tunnels_at_its_end() {
    for http2 in [false, true] {
        let (orders, _app) = silent().await;
        let mut socket = websocket(orders.outbound(), http2).await;
        let began = Instant::now();
        let closed = async { (timeout(HOUR, socket.read(&mut [0])).await, began.elapsed()) };
        let ((read, after), ()) = tokio::join!(closed, orders.plane.stop_outbound(DRAIN));
        assert_eq!(read.expect("an end").unwrap(), 0, "closed, not reset; http2: {http2}");
        assert!(after > DRAIN / 2 && after < DRAIN, "http2: {http2}: {after:?}");
    }
}

#[tokio::test]
async fn a_tunnel_has_a_place_among_the_requests_in_progress_for_as_long_as_it_stands() {
    let app = sockets(|mut socket| async move {
        let _ = socket.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let mesh = Mesh::new(&["orders", "chat"]);
    let limits = model::config::Inbound { concurrent_max: 1, ..model::config::Inbound::default() };
    let target = Target::Application(app.address);
    let chat = mesh.callee_with("chat", Protocol::Http, target, &["orders"], limits).await;
    let part = in_mesh("chat", Protocol::Http, vec![endpoint("chat-0", chat.inbound())]);
    let orders = mesh.caller("orders", vec![("chat", part)]).await;
    for http2 in [false, true] {
        let socket = websocket(orders.outbound(), http2).await;
        let refused = crate::kit::get(orders.outbound(), "chat", "/").await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE, "http2: {http2}");
        assert!(header(&refused, "proxy-status").contains("connection_limit_reached"), "{:?}", refused.headers());
        drop(socket);
        // The application would take no other request: that one came so far is what counts.
        let free = async {
            loop {
                let request = Request::get("/").header("host", "chat").header("connection", "Upgrade");
                let request = request.header("upgrade", "websocket").body(empty()).unwrap();
                let answer = Client::http1(orders.outbound()).await.try_send(request).await.unwrap();
                if answer.status() != StatusCode::SERVICE_UNAVAILABLE {
                    return;
                }
            }
        };
        soon("that the place is free", free).await;
    }
}

#[tokio::test]
async fn an_extended_connect_that_is_not_taken_is_an_error_of_its_own() {
    let app = App::saying("no such thing").await;
    let (orders, _chat) = two(&app).await;
    let mut client = Client::http2(orders.outbound()).await;
    for (protocol, status, error) in
        [("websocket", 502, "http_upgrade_failed"), ("connect-udp", 501, "http_request_error")]
    {
        let request = Request::builder().method(Method::CONNECT).uri("http://chat/ws");
        let request = request.extension(Extended::from_static(protocol)).body(empty()).unwrap();
        let answer = client.send(request).await;
        assert_eq!(answer.status().as_u16(), status, "{protocol}");
        assert!(header(&answer, "proxy-status").starts_with(&format!("meshwork; error={error};")), "{protocol}");
    }
    assert_eq!(app.last().method, Method::GET);
}

#[tokio::test]
async fn a_connect_over_http2_leads_into_the_same_pipeline() {
    let app = App::start(|seen| Response::new(full(format!("{} {}", seen.method, seen.uri)))).await;
    let (orders, _chat) = two(&app).await;
    let mut client = Client::http2(orders.outbound()).await;
    let mut tunnels = Vec::new();
    for _ in 0..2 {
        let request = Request::connect("chat:80").body(empty()).unwrap();
        let mut answer = client.try_send(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        tunnels.push(TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap()));
    }
    for tunnel in &mut tunnels {
        tunnel.write_all(b"GET /a HTTP/1.1\r\nHost: chat\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        soon("an answer", tunnel.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("GET /a"), "{answer}");
    }
}

#[tokio::test]
async fn what_is_malformed_inside_of_a_tunnel_is_explained_inside_of_it() {
    let app = App::saying("in").await;
    let (orders, _chat) = two(&app).await;
    let said =
        crate::kit::raw(orders.outbound(), b"CONNECT chat:80 HTTP/1.1\r\nHost: chat:80\r\n\r\nnonsense\r\n\r\n").await;
    let (opened, refused) = said.split_once("\r\n\r\n").unwrap();
    assert!(opened.starts_with("HTTP/1.1 200 "), "{said}");
    assert!(refused.starts_with("HTTP/1.1 400 ") && refused.contains("proxy-status: meshwork; error="), "{said}");
    assert_eq!(refused.matches("HTTP/1.1").count(), 1, "{said}");
}

#[tokio::test]
async fn tls_through_a_tunnel_is_refused_with_a_reason() {
    let app = App::saying("in").await;
    let (orders, _chat) = two(&app).await;
    let connect = |port: u16| format!("CONNECT chat:{port} HTTP/1.1\r\nHost: chat:{port}\r\n\r\n");
    let said = crate::kit::raw(
        orders.outbound(),
        connect(443).replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1).as_bytes(),
    )
    .await;
    assert!(said.starts_with("HTTP/1.1 501 ") && said.contains("call http://chat"), "{said}");
    // On another port it shows in the first bytes of the tunnel: a fatal alert is what a client of TLS understands.
    let mut stream = runtime::net::connect(orders.outbound()).await.unwrap();
    stream.write_all(connect(8443).as_bytes()).await.unwrap();
    let mut opened = Vec::new();
    while !opened.ends_with(b"\r\n\r\n") {
        opened.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00").await.unwrap();
    let mut alert = Vec::new();
    soon("an alert", stream.read_to_end(&mut alert)).await.unwrap();
    assert_eq!(alert, [21, 3, 3, 0, 2, 2, 40]);
    // A host-less request of HTTP/1.0 goes where the tunnel leads.
    let inside = format!("{}GET /a HTTP/1.0\r\n\r\n", connect(80));
    assert!(crate::kit::raw(orders.outbound(), inside.as_bytes()).await.ends_with("in"));
}
