//! What requests share on their way to an endpoint: connections, their windows, their streams and the dials that make them. None of
//! them takes from the others what they need.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{RecvStream, SendStream};
use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use model::config::Protocol;
use runtime::http::{Body, empty, full};
use runtime::net::{Listener, Share, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::kit::{App, Client, Mesh, Node, endpoint, external, in_mesh, soon, until};

/// What a service that speaks gRPC is asked for with.
const GRPC: &str = "application/grpc";

/// An HTTP/2 application that counts what it is asked for.
#[derive(Clone, Default)]
struct Counts {
    connections: Arc<AtomicU32>,
    /// Bytes of answers that were handed to HTTP/2.
    sent: Arc<AtomicU64>,
    /// Streams at a time, for each connection.
    streams: Arc<Mutex<BTreeMap<u32, (u32, u32)>>>,
}

impl Counts {
    fn begin(&self, connection: u32) {
        let mut streams = self.streams.lock().unwrap();
        let (now, most) = streams.entry(connection).or_default();
        *now += 1;
        *most = (*most).max(*now);
    }

    fn end(&self, connection: u32) {
        self.streams.lock().unwrap().entry(connection).or_default().0 -= 1;
    }

    /// How many there are now.
    fn open(&self) -> u32 {
        self.streams.lock().unwrap().values().map(|(now, _)| *now).sum()
    }

    fn most(&self) -> u32 {
        self.streams.lock().unwrap().values().map(|(_, most)| *most).max().unwrap_or(0)
    }

    fn connections(&self) -> u32 {
        self.connections.load(Ordering::SeqCst)
    }
}

struct Server {
    address: SocketAddr,
    counts: Counts,
    /// Lets the calls to `/held` go.
    release: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

/// Serves `/big/<bytes of a frame>` without an end, `/sink` without reading, `/held` when it is let go, and everything else with the
/// body that it was sent.
async fn server(builder: h2::server::Builder) -> Server {
    let listener = Listener::open(([127, 0, 0, 1], 0).into(), Share::Alone).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (counts, mut tasks) = (Counts::default(), JoinSet::new());
    let (release, released) = watch::channel(false);
    let counted = counts.clone();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let number = counted.connections.fetch_add(1, Ordering::SeqCst) + 1;
            let (builder, counts, released) = (builder.clone(), counted.clone(), released.clone());
            connections.spawn(async move {
                let Ok(connection) = builder.handshake(stream).await else { return };
                serve(connection, number, counts, released).await;
            });
        }
    });
    Server { address, counts, release, _tasks: tasks }
}

async fn serve(
    mut connection: Connection<Stream, Bytes>,
    number: u32,
    counts: Counts,
    released: watch::Receiver<bool>,
) {
    let mut calls = JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (counts, released) = (counts.clone(), released.clone());
        counts.begin(number);
        calls.spawn(async move {
            answer(request, respond, &counts, released).await;
            counts.end(number);
        });
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    counts: &Counts,
    mut released: watch::Receiver<bool>,
) {
    let path = request.uri().path().to_owned();
    if let Some(frame) = path.strip_prefix("/big/") {
        let stream = respond.send_response(Response::new(()), false).unwrap();
        return send_for_ever(stream, frame.parse().unwrap(), counts).await;
    }
    if path == "/sink" {
        let _unread = request.into_body();
        return std::future::pending().await;
    }
    if path == "/held" {
        released.wait_for(|released| *released).await.unwrap();
    }
    let (mut body, mut whole) = (request.into_body(), Vec::new());
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).unwrap();
        whole.extend_from_slice(&data);
    }
    let Ok(mut stream) = respond.send_response(Response::new(()), false) else { return };
    let _ = stream.send_data(whole.into(), true);
}

async fn send_for_ever(mut stream: SendStream<Bytes>, frame: usize, counts: &Counts) {
    let piece = Bytes::from(vec![b'a'; frame]);
    loop {
        stream.reserve_capacity(frame);
        while stream.capacity() < frame {
            match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(Ok(_)) => {}
                _ => return,
            }
        }
        if stream.send_data(piece.clone(), false).is_err() {
            return;
        }
        counts.sent.fetch_add(frame as u64, Ordering::SeqCst);
    }
}

async fn caller(address: SocketAddr, adjust: impl FnOnce(&mut model::snapshot::ServicePart)) -> Node {
    let mut part = external("peer", Protocol::Grpc, &[address]);
    adjust(&mut part);
    Mesh::new(&["peer"]).caller("orders", vec![("peer", part)]).await
}

fn post(path: &str, body: impl Into<Bytes>) -> Request<runtime::http::Body> {
    Request::post(format!("http://peer{path}")).header(CONTENT_TYPE, GRPC).body(full(body)).unwrap()
}

/// An HTTP/2 client that reads nothing and gives hardly any window.
async fn reads_nothing(address: SocketAddr) -> h2::client::SendRequest<Bytes> {
    let stream = runtime::net::connect(address).await.unwrap();
    let (sender, connection) =
        h2::client::Builder::new().initial_window_size(64).handshake::<_, Bytes>(stream).await.unwrap();
    tokio::spawn(async move { connection.await.unwrap() });
    sender
}

/// Calls until the application has got stuck with all that it sends to others.
async fn calls_until_stuck(client: &mut Client, counts: &Counts) {
    let (mut last, mut same) = (0, 0);
    while same < 20 {
        assert_eq!(client.send(post("/", "hello")).await.body(), "hello");
        let sent = counts.sent.load(Ordering::SeqCst);
        same = if sent == last { same + 1 } else { 0 };
        last = sent;
    }
}

async fn stalled_answers(streams: usize, frame: usize) {
    let server = server(h2::server::Builder::new()).await;
    let node = caller(server.address, |_| ()).await;
    let mut idle = reads_nothing(node.outbound()).await;
    let mut answers = Vec::new();
    for _ in 0..streams {
        let request = Request::get(format!("http://peer/big/{frame}")).header(CONTENT_TYPE, GRPC).body(()).unwrap();
        let (answer, _) = idle.send_request(request, true).unwrap();
        answers.push(soon("a head", answer).await.unwrap());
    }
    calls_until_stuck(&mut Client::http2(node.outbound()).await, &server.counts).await;
    assert!(server.counts.sent.load(Ordering::SeqCst) >= streams as u64 * 128 * 1024, "they are stuck, and not slow");
    assert_eq!(server.counts.connections(), 1, "they were all on one connection");
}

#[tokio::test]
async fn clients_that_do_not_read_stall_nobody() {
    stalled_answers(12, 16 << 10).await;
}

/// h2 ends a connection on which too many small frames wait to be read.
#[tokio::test]
async fn small_messages_that_nobody_reads_end_no_connection() {
    stalled_answers(4, 16).await;
}

#[tokio::test]
async fn uploads_that_nobody_reads_stall_nobody() {
    let mut builder = h2::server::Builder::new();
    builder.initial_connection_window_size(64 << 20);
    let server = server(builder).await;
    let node = caller(server.address, |_| ()).await;
    let mut client = Client::http2(node.outbound()).await;
    let mut stuck = JoinSet::new();
    for _ in 0..12 {
        let Client::Http2(sender) = &client else { unreachable!() };
        let sending = sender.clone().send_request(post("/sink", vec![b'x'; 1 << 20]));
        stuck.spawn(async move { drop(sending.await) });
    }
    until("all uploads at the endpoint", || server.counts.open() == 12).await;
    for _ in 0..20 {
        assert_eq!(client.send(post("/", vec![b'y'; 20_000])).await.body().len(), 20_000);
    }
    assert!(stuck.try_join_next().is_none(), "an upload was not stuck");
}

#[tokio::test]
async fn small_messages_of_uploads_that_nobody_reads_end_no_connection() {
    let mut builder = h2::server::Builder::new();
    builder.initial_connection_window_size(64 << 20);
    let server = server(builder).await;
    let node = caller(server.address, |_| ()).await;
    let stream = runtime::net::connect(node.outbound()).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let (message, mut stuck) = (Bytes::from_static(&[b'x'; 16]), Vec::new());
    for _ in 0..12 {
        let (answer, mut upload) = sender
            .send_request(Request::post("http://peer/sink").header(CONTENT_TYPE, GRPC).body(()).unwrap(), false)
            .unwrap();
        // As much as the windows of both hops hold.
        for _ in 0..((256 + 48) << 10) / message.len() {
            upload.send_data(message.clone(), false).unwrap();
        }
        stuck.push((answer, upload));
    }
    until("all uploads at the endpoint", || server.counts.open() == 12).await;
    for _ in 0..200 {
        let (answer, mut body) = sender
            .send_request(Request::post("http://peer/").header(CONTENT_TYPE, GRPC).body(()).unwrap(), false)
            .unwrap();
        body.send_data(message.clone(), true).unwrap();
        assert_eq!(soon("an answer", answer).await.unwrap().status(), StatusCode::OK);
    }
    assert!(!driver.is_finished() && server.counts.connections() == 1);
}

#[tokio::test]
async fn calls_beyond_what_the_endpoint_takes_wait_and_hold_nothing() {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(10);
    let server = server(builder).await;
    let node = caller(server.address, |_| ()).await;
    let client = Client::http2(node.outbound()).await;
    let mut calls = JoinSet::new();
    for _ in 0..400 {
        let Client::Http2(sender) = &client else { unreachable!() };
        let mut client = Client::Http2(sender.clone());
        calls.spawn(async move { client.send(post("/", vec![b'x'; 270_000])).await });
    }
    while let Some(answer) = soon("every call's answer", calls.join_next()).await {
        let answer = answer.unwrap();
        assert_eq!((answer.status(), answer.body().len()), (StatusCode::OK, 270_000));
    }
    assert!(server.counts.most() <= 10, "{}", server.counts.most());
    assert_eq!(node.plane.observed().edges[0].retries, 0, "none was refused");
}

#[tokio::test]
async fn a_call_beyond_every_connection_is_told_what_is_full() {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(1);
    let server = server(builder).await;
    let mut node = caller(server.address, |part| part.breaker.consecutive_failures = 5).await;
    let client = Client::http2(node.outbound()).await;
    let send = |calls: &mut JoinSet<_>| {
        let Client::Http2(sender) = &client else { unreachable!() };
        let mut client = Client::Http2(sender.clone());
        calls.spawn(async move { client.send(post("/held", "held")).await });
    };
    let (mut held, mut refused) = (JoinSet::new(), JoinSet::new());
    (0..32).for_each(|_| send(&mut held));
    until("a call on each connection", || server.counts.streams.lock().unwrap().len() == 32).await;
    node.part("peer").routes[0].timeouts.request = Some(Duration::from_millis(300));
    node.apply();
    (0..8).for_each(|_| send(&mut refused));
    while let Some(answer) = soon("a refusal", refused.join_next()).await {
        let answer = answer.unwrap();
        let header = |name: &str| answer.headers().get(name).map_or("", |value| value.to_str().unwrap());
        assert_eq!(header("grpc-status"), "14", "{:?}", answer.headers());
        assert!(header("grpc-message").contains("SETTINGS_MAX_CONCURRENT_STREAMS"), "{:?}", answer.headers());
    }
    let status = node.plane.status();
    assert_eq!(status["services"]["peer"]["endpoints"][0]["breaker"], "closed", "it does what it can");
    assert_eq!((server.counts.connections(), server.counts.most()), (32, 1));
    server.release.send_replace(true);
    while let Some(answer) = soon("an answer", held.join_next()).await {
        assert_eq!(answer.unwrap().body(), "held");
    }
}

/// A request to a service that speaks this.
fn asking(protocol: Protocol) -> Request<Body> {
    let request = Request::get("http://pay/");
    let request = if protocol == Protocol::Grpc { request.header(CONTENT_TYPE, GRPC) } else { request };
    request.body(empty()).unwrap()
}

/// Hands on bytes between a client and `to`, once it is let go; counts the connections.
async fn forwarder(to: SocketAddr) -> (SocketAddr, Arc<AtomicU32>, watch::Sender<bool>) {
    let listener = Listener::open(([127, 0, 0, 1], 0).into(), Share::Alone).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (accepted, (release, released)) = (Arc::new(AtomicU32::new(0)), watch::channel(false));
    let counted = accepted.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut released = released.clone();
            tokio::spawn(async move {
                if released.wait_for(|released| *released).await.is_ok() {
                    let mut to = runtime::net::connect(to).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut to).await;
                }
            });
        }
    });
    (address, accepted, release)
}

#[tokio::test]
async fn a_dial_outlives_the_attempt_that_began_it() {
    for protocol in [Protocol::Http, Protocol::Grpc] {
        let app = App::saying("paid").await;
        let mesh = Mesh::new(&["orders", "pay"]);
        let callee = mesh.callee("pay", protocol, proxy::Target::Application(app.address), &["orders"]).await;
        let (address, accepted, release) = forwarder(callee.inbound()).await;
        let part = in_mesh("pay", protocol, vec![endpoint("pay-0", address)]);
        let orders = mesh.caller("orders", vec![("pay", part)]).await;
        let mut first = Client::http2(orders.outbound()).await;
        let mut leaving = Box::pin(first.try_send(asking(protocol)));
        tokio::select! {
            _ = &mut leaving => panic!("nobody answers"),
            () = until("the dial", || accepted.load(Ordering::SeqCst) == 1) => drop(leaving),
        }
        release.send_replace(true);
        until("the connection in the pool", || {
            orders.plane.status()["services"]["pay"]["endpoints"][0]["connections"] == 1
        })
        .await;
        let answer = first.send(asking(protocol)).await;
        assert_eq!((answer.body(), accepted.load(Ordering::SeqCst)), (&Bytes::from("paid"), 1), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_burst_dials_within_a_bound() {
    let app = App::saying("paid").await;
    let mesh = Mesh::new(&["orders", "pay"]);
    let callee = mesh.callee("pay", Protocol::Http, proxy::Target::Application(app.address), &["orders"]).await;
    let (address, accepted, release) = forwarder(callee.inbound()).await;
    let part = in_mesh("pay", Protocol::Http, vec![endpoint("pay-0", address)]);
    let orders = mesh.caller("orders", vec![("pay", part)]).await;
    let client = Client::http2(orders.outbound()).await;
    let mut calls = JoinSet::new();
    for _ in 0..200 {
        let Client::Http2(sender) = &client else { unreachable!() };
        let mut client = Client::Http2(sender.clone());
        calls.spawn(async move { client.send(asking(Protocol::Http)).await });
    }
    let waiting = || orders.plane.status()["services"]["pay"]["endpoints"][0]["waiting"].as_u64().unwrap();
    until("more of them than may dial", || waiting() > 64).await;
    until("as many dials as may be", || accepted.load(Ordering::SeqCst) >= 32).await;
    assert_eq!(accepted.load(Ordering::SeqCst), 32);
    release.send_replace(true);
    while let Some(answer) = soon("every call's answer", calls.join_next()).await {
        assert_eq!(answer.unwrap().body(), "paid");
    }
    assert_eq!(waiting(), 0);
}

/// One answer on each connection, and the connection, to be closed when the test wants.
async fn answers_once() -> (SocketAddr, tokio::task::JoinHandle<Stream>) {
    let listener = Listener::open(([127, 0, 0, 1], 0).into(), Share::Alone).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 4_096]).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        stream
    });
    (address, serving)
}

#[tokio::test]
async fn a_post_that_was_not_sent_goes_elsewhere_when_no_second_connection_is_to_be_had() {
    let app = App::start(|seen| Response::new(full(seen.body.clone()))).await;
    for _ in 0..20 {
        let (stale, serving) = answers_once().await;
        let part = external("pay", Protocol::Http, &[stale, app.address]);
        let orders = Mesh::new(&["pay"]).caller("orders", vec![("pay", part)]).await;
        let mut client = runtime::net::connect(orders.outbound()).await.unwrap();
        let mut answer = [0; 4_096];
        while !serving.is_finished() {
            client.write_all(b"GET / HTTP/1.1\r\nhost: pay\r\n\r\n").await.unwrap();
            assert!(soon("an answer", client.read(&mut answer)).await.unwrap() > 0);
        }
        let stale = serving.await.unwrap();
        // Both in one turn: the request finds the connection, and the connection finds its end before it has sent the request.
        client.write_all(b"POST / HTTP/1.1\r\nhost: pay\r\ncontent-length: 8\r\n\r\namount=1").await.unwrap();
        drop(stale);
        let length = soon("an answer", client.read(&mut answer)).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("amount=1"), "{answer}");
    }
}
