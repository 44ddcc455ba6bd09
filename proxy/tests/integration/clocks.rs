//! Clocks: what each of them measures, and that a peer that hangs gives back what it holds. Time is the test's own: it jumps to
//! the next timer whenever nothing else is to be done, so that minutes pass at once.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use model::config::{self, Breaker, Protocol};
use proxy::Target;
use runtime::http::{Body, boxed, empty, full};
use runtime::net::{Listener, Share};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::kit::{App, Client, Mesh, Node, endpoint, external, header, in_mesh, name};

const SECOND: Duration = Duration::from_secs(1);
/// A mesh's default bound for the head of an answer.
const HEAD: Duration = Duration::from_secs(15);
/// Its default bound for bodies in which nothing moves.
const IDLE: Duration = Duration::from_secs(300);
/// How exact an idle bound is: it is looked at once a second, and a client that hears nothing is cut off some seconds later.
const SLACK: Duration = Duration::from_secs(8);

/// A body of `pieces`, with a pause before each of them, that ends or hangs.
fn slow(pieces: usize, pause: Duration, ends: bool) -> Body {
    let pieces = stream::iter(0..pieces).then(move |_| async move {
        tokio::time::sleep(pause).await;
        Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"piece")))
    });
    let rest = stream::once(async move { if ends { None } else { std::future::pending().await } });
    boxed(StreamBody::new(pieces.map(Some).chain(rest).filter_map(|frame| async { frame })))
}

/// Tells when it is dropped.
struct Guard(mpsc::UnboundedSender<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// A sidecar in front of an application without one.
async fn caller(protocol: Protocol, app: &App) -> Node {
    Mesh::new(&["files"]).caller("orders", vec![("files", external("files", protocol, &[app.address]))]).await
}

async fn client(node: &Node, http2: bool) -> Client {
    if http2 { Client::http2(node.outbound()).await } else { Client::http1(node.outbound()).await }
}

/// All that can be spoken on the two sides of a sidecar.
const BOTH_SIDES: [(bool, Protocol); 4] =
    [(false, Protocol::Http), (false, Protocol::Grpc), (true, Protocol::Http), (true, Protocol::Grpc)];

/// Waits by the test's time, and not for ever.
async fn in_the_end<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(4 * IDLE, future).await.expect("it came to its end")
}

/// Sends and reads the whole answer, however long that takes by the test's time.
async fn send(node: &Node, http2: bool, request: Request<Body>) -> Response<Bytes> {
    in_the_end(async {
        let (head, body) = client(node, http2).await.try_send(request).await.unwrap().into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    })
    .await
}

/// As a call, where that is spoken.
fn calling<B>(protocol: Protocol, mut request: Request<B>) -> Request<B> {
    if protocol == Protocol::Grpc {
        request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    }
    request
}

fn post(protocol: Protocol, body: Body) -> Request<Body> {
    calling(protocol, Request::post("http://files/up").header("host", "files").body(body).unwrap())
}

/// Whether it says that the endpoint did not answer in time.
fn is_late(protocol: Protocol, answer: &Response<Bytes>) -> bool {
    match protocol {
        Protocol::Http => answer.status() == StatusCode::GATEWAY_TIMEOUT,
        Protocol::Grpc => header(answer, "grpc-status") == "4",
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_may_take_longer_than_an_answer_may() {
    let app = App::start(|seen| Response::new(full(seen.body.len().to_string()))).await;
    for (http2, protocol) in BOTH_SIDES {
        let mut node = caller(protocol, &app).await;
        // A body that may be sent again is no exception.
        node.part("files").routes[0].retry.non_idempotent = http2;
        node.part("files").routes[0].timeouts.attempt = Some(2 * SECOND);
        node.apply();
        let started = Instant::now();
        let answer = send(&node, http2, post(protocol, slow(20, SECOND, true))).await;
        assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::OK, &b"100"[..]), "{http2} {protocol:?}");
        assert!((20 * SECOND..21 * SECOND).contains(&started.elapsed()), "{:?}", started.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_s_time_begins_when_the_request_was_sent() {
    let app = App::streaming(|request| {
        Box::pin(async move {
            let _ = request.into_body().collect().await;
            std::future::pending().await
        })
    })
    .await;
    for (http2, protocol) in BOTH_SIDES {
        let node = caller(protocol, &app).await;
        for (seconds, body) in [(0, full("all of it")), (0, empty()), (20, slow(20, SECOND, true))] {
            let started = Instant::now();
            let answer = send(&node, http2, post(protocol, body)).await;
            assert!(is_late(protocol, &answer), "{http2} {protocol:?} {answer:?}");
            assert!(header(&answer, "proxy-status").contains("did not answer within 15s"), "{:?}", answer.headers());
            let expected = HEAD + seconds * SECOND;
            let took = started.elapsed();
            assert!((expected..expected + SECOND).contains(&took), "{http2} {protocol:?} {seconds}: {took:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_nothing_more_is_told_so_and_nobody_else_is_blamed() {
    let app = App::start(|_| Response::new(full("whole"))).await;
    let protocol = Protocol::Http;
    for http2 in [false, true] {
        for sent in [0, 3] {
            let mut node = caller(protocol, &app).await;
            node.part("files").breaker = Breaker { consecutive_failures: 1, ..Breaker::default() };
            node.apply();
            let started = Instant::now();
            let answer = send(&node, http2, post(protocol, slow(sent, SECOND, false))).await;
            let of = format!("{http2} {sent}");
            assert_eq!(answer.status(), StatusCode::REQUEST_TIMEOUT, "{of}");
            assert!(header(&answer, "proxy-status").contains("within 5m"), "{of} {:?}", answer.headers());
            let took = started.elapsed();
            assert!((IDLE..IDLE + SLACK).contains(&took), "{of}: {took:?}");
            assert_eq!(send(&node, http2, post(protocol, full("x"))).await.status(), StatusCode::OK, "{of}");
        }
    }
}

/// Takes connections and never reads.
async fn deaf() -> (Listener, std::net::SocketAddr) {
    let listener = Listener::open(([127, 0, 0, 1], 0).into(), Share::Alone).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_takes_nothing_of_a_body_is_given_up() {
    // More than the buffers of two sockets hold. The first piece is taken, so the body has begun.
    let body = || {
        let piece = Bytes::from(vec![b'x'; 1 << 20]);
        boxed(StreamBody::new(stream::iter(0..64).map(move |_| Ok::<_, Infallible>(Frame::data(piece.clone())))))
    };
    let (_listener, address) = deaf().await;
    let node =
        Mesh::new(&["files"]).caller("orders", vec![("files", external("files", Protocol::Http, &[address]))]).await;
    for http2 in [false, true] {
        let started = Instant::now();
        let answer = send(&node, http2, post(Protocol::Http, body())).await;
        assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT, "{http2}");
        assert!(header(&answer, "proxy-status").contains("error=connection_write_timeout"), "{:?}", answer.headers());
        assert!((IDLE..IDLE + SLACK).contains(&started.elapsed()), "{http2} {:?}", started.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_whose_window_stays_shut_has_the_time_of_an_answer() {
    let listener = Listener::open(([127, 0, 0, 1], 0).into(), Share::Alone).await.unwrap();
    let address = listener.local_addr().unwrap();
    let _server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut builder = h2::server::Builder::new();
        let mut connection = builder.initial_window_size(0).handshake::<_, Bytes>(stream).await.unwrap();
        let mut kept = Vec::new();
        while let Some(call) = connection.accept().await {
            kept.push(call.unwrap());
        }
    });
    let node =
        Mesh::new(&["files"]).caller("orders", vec![("files", external("files", Protocol::Grpc, &[address]))]).await;
    // Once its settings are known.
    assert!(is_late(Protocol::Grpc, &send(&node, true, post(Protocol::Grpc, empty())).await));
    let started = Instant::now();
    let answer = send(&node, true, post(Protocol::Grpc, full("never taken"))).await;
    assert!(is_late(Protocol::Grpc, &answer), "{answer:?}");
    assert!((HEAD..HEAD + SECOND).contains(&started.elapsed()), "{:?}", started.elapsed());
}

/// Two sidecars, of which the second lets one request in at a time, and what tells that an answer was given up. Between them HTTP/1.1 is
/// spoken, and HTTP/2 for gRPC or with a client that asks for trailers.
async fn narrow(protocol: Protocol) -> (Node, Node, App, mpsc::UnboundedReceiver<()>) {
    let (dropped, given_up) = mpsc::unbounded_channel();
    let app = App::streaming(move |request| {
        let guard = Guard(dropped.clone());
        Box::pin(async move {
            let answer: Body = match request.uri().path() {
                // One piece, and then nothing.
                "/hangs" => {
                    let rest = stream::once(async move {
                        let _guard = guard;
                        std::future::pending().await
                    });
                    let first = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"first")))]);
                    boxed(StreamBody::new(first.chain(rest)))
                }
                // More than anybody holds.
                "/floods" => {
                    let piece = Bytes::from(vec![b'x'; 1 << 20]);
                    let pieces = stream::iter(0..256).map(move |_| {
                        let _guard = &guard;
                        Ok::<_, Infallible>(Frame::data(piece.clone()))
                    });
                    boxed(StreamBody::new(pieces))
                }
                _ => full("quick"),
            };
            Response::new(answer)
        })
    })
    .await;
    let mesh = Mesh::new(&["orders", "files"]);
    let limits = config::Inbound { concurrent_max: 1, ..config::Inbound::default() };
    let files = mesh.callee_with("files", protocol, Target::Application(app.address), &["orders"], limits).await;
    let part = in_mesh("files", protocol, vec![endpoint("files-0", files.inbound())]);
    (mesh.caller("orders", vec![("files", part)]).await, files, app, given_up)
}

fn get(path: &str) -> Request<Body> {
    Request::get(format!("http://files{path}")).header("host", "files").body(empty()).unwrap()
}

/// The same, by whom HTTP/2 is spoken between sidecars.
fn asking_for_trailers(mut request: Request<Body>) -> Request<Body> {
    request.headers_mut().insert("te", "trailers".parse().unwrap());
    request
}

/// Waits for the place in the bulkhead to be free.
async fn a_place_is_free(orders: &Node, protocol: Protocol) {
    for _ in 0..10 {
        if send(orders, protocol == Protocol::Grpc, calling(protocol, get("/quick"))).await.body() == "quick" {
            return;
        }
        tokio::time::sleep(SECOND).await;
    }
    panic!("the place is not given back");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_never_ends_gives_its_place_back() {
    for (http2, trailers) in [(false, false), (false, true), (true, false), (true, true)] {
        let (orders, _files, _app, mut given_up) = narrow(Protocol::Http).await;
        let started = Instant::now();
        let mut asking = client(&orders, http2).await;
        let request = if trailers { asking_for_trailers(get("/hangs")) } else { get("/hangs") };
        let mut answer = asking.try_send(request).await.unwrap();
        assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
        let busy = send(&orders, false, get("/quick")).await;
        assert_eq!(busy.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(in_the_end(answer.frame()).await.unwrap().is_err(), "it is broken off, and not taken for whole");
        assert!((IDLE..IDLE + SLACK).contains(&started.elapsed()), "{http2} {trailers} {:?}", started.elapsed());
        in_the_end(given_up.recv()).await.unwrap();
        a_place_is_free(&orders, Protocol::Http).await;
    }
}

/// A stream is there for what may come hours later.
#[tokio::test(start_paused = true)]
async fn a_grpc_stream_on_which_nobody_has_anything_to_say_stays_and_keeps_its_place() {
    for http2 in [false, true] {
        let (orders, _files, _app, mut given_up) = narrow(Protocol::Grpc).await;
        let mut asking = client(&orders, http2).await;
        let mut answer = asking.try_send(calling(Protocol::Grpc, get("/hangs"))).await.unwrap();
        assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
        assert!(tokio::time::timeout(10 * IDLE, answer.frame()).await.is_err(), "{http2}: it was ended");
        let busy = send(&orders, true, calling(Protocol::Grpc, get("/quick"))).await;
        assert_eq!(header(&busy, "grpc-status"), "14", "{http2} {busy:?}");
        assert!(given_up.try_recv().is_err());
        drop((answer, asking));
        in_the_end(given_up.recv()).await.unwrap();
        a_place_is_free(&orders, Protocol::Grpc).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_its_answer_gives_its_place_back() {
    let te = "TE: trailers\r\nConnection: TE\r\n";
    for (protocol, fields) in [
        (Protocol::Http, ""),
        (Protocol::Http, te),
        (Protocol::Grpc, "Content-Type: application/grpc\r\nTE: trailers\r\nConnection: TE\r\n"),
    ] {
        let (orders, _files, _app, mut given_up) = narrow(protocol).await;
        let mut stream = runtime::net::connect(orders.outbound()).await.unwrap();
        stream.write_all(format!("GET /floods HTTP/1.1\r\nHost: files\r\n{fields}\r\n").as_bytes()).await.unwrap();
        let mut head = [0; 64];
        stream.read_exact(&mut head).await.unwrap();
        assert!(head.starts_with(b"HTTP/1.1 200"));
        let started = Instant::now();
        in_the_end(given_up.recv()).await.unwrap();
        assert!((IDLE..IDLE + SLACK).contains(&started.elapsed()), "{fields} {:?}", started.elapsed());
        a_place_is_free(&orders, protocol).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_http2_client_whose_window_stays_shut_loses_that_stream_and_no_other() {
    for (protocol, trailers) in [(Protocol::Http, false), (Protocol::Http, true), (Protocol::Grpc, true)] {
        let (orders, _files, _app, mut given_up) = narrow(protocol).await;
        let stream = runtime::net::connect(orders.outbound()).await.unwrap();
        let mut builder = h2::client::Builder::new();
        builder.initial_connection_window_size(1 << 20);
        let (sender, connection) = builder.handshake::<_, Bytes>(stream).await.unwrap();
        let driver = tokio::spawn(connection);
        let mut sender = sender.ready().await.unwrap();
        let request = |path: &str| {
            let request = Request::get(format!("http://files{path}"));
            let request = if trailers { request.header("te", "trailers") } else { request };
            calling(protocol, request.body(()).unwrap())
        };
        // Its window is never given back.
        let mut flood = sender.send_request(request("/floods"), true).unwrap().0.await.unwrap().into_body();
        let started = Instant::now();
        in_the_end(given_up.recv()).await.unwrap();
        assert!((IDLE..IDLE + SLACK).contains(&started.elapsed()), "{protocol:?} {trailers} {:?}", started.elapsed());
        let end = loop {
            if let Err(error) = flood.data().await.expect("the stream is reset, and does not end") {
                break error;
            }
        };
        assert_eq!(end.reason(), Some(h2::Reason::CANCEL));
        a_place_is_free(&orders, protocol).await;
        let mut quick = sender.send_request(request("/quick"), true).unwrap().0.await.unwrap().into_body();
        assert_eq!(quick.data().await.unwrap().unwrap(), "quick");
        driver.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_may_have_an_idle_bound_of_its_own_or_none() {
    let app = App::streaming(|_| Box::pin(async { Response::new(slow(3, 600 * SECOND, true)) })).await;
    for (idle, whole) in [(Some(IDLE), false), (Some(700 * SECOND), true), (None, true)] {
        let mut node = caller(Protocol::Http, &app).await;
        node.part("files").routes[0].timeouts.idle = idle;
        node.apply();
        let answer = client(&node, false).await.try_send(get("/")).await.unwrap();
        let body = answer.into_body().collect().await;
        assert_eq!(body.ok().map(|body| body.to_bytes().len()), whole.then_some(15), "{idle:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_body_that_was_answered_early_is_idle_too() {
    let (dropped, mut given_up) = mpsc::unbounded_channel();
    let app = App::streaming(move |request| {
        let guard = Guard(dropped.clone());
        Box::pin(async move {
            tokio::spawn(async move {
                let _ = request.into_body().collect().await;
                drop(guard);
            });
            Response::new(full("early"))
        })
    })
    .await;
    for http2 in [false, true] {
        let mesh = Mesh::new(&["orders", "files"]);
        let files = mesh.callee("files", Protocol::Http, Target::Application(app.address), &["orders"]).await;
        let part = in_mesh("files", Protocol::Http, vec![endpoint("files-0", files.inbound())]);
        let node = mesh.caller("orders", vec![("files", part)]).await;
        let started = Instant::now();
        let mut asking = client(&node, http2).await;
        let answer = asking.send(asking_for_trailers(post(Protocol::Http, slow(40, SECOND, false)))).await;
        assert_eq!(answer.body(), "early");
        assert!(started.elapsed() < SECOND);
        in_the_end(given_up.recv()).await.unwrap();
        let (took, least) = (started.elapsed(), IDLE + 38 * SECOND);
        assert!((least..least + 2 * SLACK).contains(&took), "{http2} {took:?}");
    }
}

/// As the broker's own API is, behind its inbound pipeline.
struct Reads;

impl runtime::http::Handler for Reads {
    fn call(&self, request: Request<Body>) -> runtime::http::BoxFuture<Response<Body>> {
        Box::pin(async move {
            let length = request.into_body().collect().await.map(|body| body.to_bytes().len());
            Response::new(full(length.map_or_else(|error| error.to_string(), |length| length.to_string())))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn what_answers_in_an_application_s_place_does_not_wait_for_ever_either() {
    let mesh = Mesh::new(&["orders", "files"]);
    let target = Target::Handler(std::sync::Arc::new(Reads));
    let files = mesh.callee("files", Protocol::Http, target, &["orders"]).await;
    let part = in_mesh("files", Protocol::Http, vec![endpoint("files-0", files.inbound())]);
    let mut orders = mesh.caller("orders", vec![("files", part)]).await;
    assert_eq!(send(&orders, false, post(Protocol::Http, slow(20, SECOND, true))).await.body(), "100");
    // The caller's own sidecar would find out at the same time.
    orders.part("files").routes[0].timeouts.idle = None;
    orders.apply();
    let answer = send(&orders, false, post(Protocol::Http, slow(3, SECOND, false))).await;
    assert_eq!(answer.status(), StatusCode::REQUEST_TIMEOUT);
    assert!(header(&answer, "proxy-status").contains("within 5m"), "{:?}", answer.headers());
    assert_eq!(orders.plane.observed().edges[0].service, name("files"));
}
