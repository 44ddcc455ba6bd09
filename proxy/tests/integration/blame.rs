//! Whose fault it was: what opens a breaker and what does not, asked of breakers that open on the first fault.
//!
//! The table itself is tested in `policy::classify`; here it is shown that each ending is recognised on the wire.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use h2::Reason;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use model::config::{Breaker, Protocol};
use model::snapshot::ServicePart;
use proxy::Target;
use runtime::http::{boxed, empty, full};
use runtime::net::{Listener, Share};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use crate::kit::{App, Client, Mesh, Node, endpoint, external, get, header, in_mesh, soon, until};

/// Opens on the first fault, and then for longer than a test takes; also for the only endpoint.
fn strict() -> Breaker {
    let long = Duration::from_secs(3_600);
    Breaker { consecutive_failures: 1, open: long, open_max: long, max_ejected: 1.0 }
}

async fn caller(mut part: ServicePart) -> Node {
    part.breaker = strict();
    Mesh::new(&["peer"]).caller("orders", vec![("peer", part)]).await
}

fn breaker(node: &Node) -> String {
    node.plane.status()["services"]["peer"]["endpoints"][0]["breaker"].as_str().unwrap().to_owned()
}

fn answering(status: u16, field: Option<(&'static str, &'static str)>) -> Response<runtime::http::Body> {
    let mut answer = Response::builder().status(status);
    if let Some((name, value)) = field {
        answer = answer.header(name, value);
    }
    answer.body(full("said")).unwrap()
}

#[tokio::test]
async fn an_application_s_status_is_judged_by_what_it_says() {
    for (status, field, expected) in [
        (200, None, "closed"),
        (404, None, "closed"),
        (429, None, "closed"),
        (500, None, "open"),
        (501, None, "closed"),
        (502, None, "closed"),
        (503, None, "open"),
        (503, Some(("retry-after", "1")), "closed"),
        (504, None, "closed"),
        (507, None, "closed"),
    ] {
        let app = App::start(move |_| answering(status, field)).await;
        let node = caller(external("peer", Protocol::Http, &[app.address])).await;
        for _ in 0..2 {
            let answer = get(node.outbound(), "peer", "/").await;
            if expected == "closed" {
                assert_eq!(answer.status(), status);
            }
        }
        assert_eq!(breaker(&node), expected, "{status} {field:?}");
    }
}

#[tokio::test]
async fn faults_of_one_path_do_not_take_out_the_last_instance() {
    let app = App::start(|request| answering(if request.uri.path() == "/broken" { 500 } else { 200 }, None)).await;
    let mut part = external("peer", Protocol::Http, &[app.address]);
    part.breaker = Breaker { max_ejected: Breaker::default().max_ejected, ..strict() };
    let node = Mesh::new(&["peer"]).caller("orders", vec![("peer", part)]).await;
    for _ in 0..10 {
        assert_eq!(get(node.outbound(), "peer", "/broken").await.status(), 500);
    }
    assert_eq!(breaker(&node), "open");
    assert_eq!(node.plane.status()["services"]["peer"]["endpoints"][0].get("unavailable"), None, "it is asked");
    assert_eq!(get(node.outbound(), "peer", "/").await.status(), 200);
    assert_eq!(breaker(&node), "closed", "it was served");
}

#[tokio::test]
async fn of_two_instances_one_at_most_is_left_alone() {
    let (bad, good) = (App::start(|_| answering(500, None)).await, App::start(|_| answering(500, None)).await);
    let mut part = external("peer", Protocol::Http, &[bad.address, good.address]);
    part.breaker = Breaker { max_ejected: 0.5, ..strict() };
    let node = Mesh::new(&["peer"]).caller("orders", vec![("peer", part)]).await;
    // Never a refusal of the mesh's own.
    for _ in 0..20 {
        assert_eq!(get(node.outbound(), "peer", "/").await.status(), 500);
    }
    assert!(!bad.seen().is_empty() && !good.seen().is_empty());
}

/// An application that says these bytes to each request's head, whatever comes behind it, and closes.
async fn raw_application(said: Vec<u8>) -> (SocketAddr, JoinSet<()>) {
    let listener = Listener::open(([127, 0, 0, 1], 0).into(), Share::Alone).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.unwrap() > 0 {}
            stream.write_all(&said).await.unwrap();
        }
    });
    (address, serving)
}

#[tokio::test]
async fn an_answer_s_head_beyond_the_mesh_s_bounds_is_not_a_fault_on_any_hop() {
    let many: String = (0..101).map(|number| format!("x-{number}: 1\r\n")).collect();
    let long = format!("x-long: {}\r\n", "x".repeat(300 << 10));
    for fields in [many, long] {
        let said = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n").into_bytes();
        let (address, _serving) = raw_application(said).await;
        let mesh = Mesh::new(&["orders", "peer"]);
        let callee = mesh.callee("peer", Protocol::Http, Target::Application(address), &["orders"]).await;
        let mut behind = in_mesh("peer", Protocol::Http, vec![endpoint("peer-0", callee.inbound())]);
        let mut outside = external("peer", Protocol::Http, &[address]);
        for part in [&mut behind, &mut outside] {
            part.breaker = strict();
            let node = mesh.caller("orders", vec![("peer", part.clone())]).await;
            for _ in 0..2 {
                let answer = get(node.outbound(), "peer", "/").await;
                assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
                let error = "meshwork; error=http_response_header_section_size;";
                assert!(header(&answer, "proxy-status").starts_with(error), "{answer:?}");
            }
            assert_eq!(breaker(&node), "closed");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_read_or_is_cut_short_is_the_endpoint_s_fault() {
    for said in [
        "nonsense\r\n\r\n",
        "",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ] {
        let (address, _serving) = raw_application(said.as_bytes().to_vec()).await;
        let mut part = external("peer", Protocol::Http, &[address]);
        part.routes[0].retry.attempts = 0;
        let node = caller(part).await;
        let mut client = Client::http1(node.outbound()).await;
        let request = Request::get("/").header("host", "peer").body(empty()).unwrap();
        if let Ok(answer) = client.try_send(request).await {
            let _ = answer.into_body().collect().await;
        }
        until("open", || breaker(&node) == "open").await;
    }
}

/// A body that is begun and never goes on.
fn hanging() -> runtime::http::Body {
    let first = stream::iter([Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"a")))]);
    boxed(StreamBody::new(futures_util::StreamExt::chain(first, stream::pending())))
}

#[tokio::test]
async fn a_client_s_slow_body_is_the_client_s() {
    let app = App::saying("in").await;
    let mut part = external("peer", Protocol::Http, &[app.address]);
    part.routes[0].timeouts.attempt = Some(Duration::from_millis(300));
    part.routes[0].timeouts.idle = Some(Duration::from_secs(1));
    let node = caller(part).await;
    for _ in 0..2 {
        let request = Request::post("/").header("host", "peer").body(hanging()).unwrap();
        // Whatever it is told, and by whom.
        let _ = soon("an answer", Client::http1(node.outbound()).await.try_send(request)).await;
    }
    assert_eq!(breaker(&node), "closed");
    assert_eq!(get(node.outbound(), "peer", "/").await.body(), "in");
}

#[tokio::test]
async fn no_answer_within_the_route_s_bound_is_the_endpoint_s() {
    let app = App::streaming(|request| {
        Box::pin(async move {
            let _ = request.into_body().collect().await;
            std::future::pending().await
        })
    })
    .await;
    let mut part = external("peer", Protocol::Http, &[app.address]);
    part.routes[0].timeouts.attempt = Some(Duration::from_millis(300));
    let node = caller(part).await;
    let request = Request::post("/").header("host", "peer").body(full("a")).unwrap();
    let answer = Client::http1(node.outbound()).await.send(request).await;
    assert_eq!((answer.status(), breaker(&node).as_str()), (StatusCode::GATEWAY_TIMEOUT, "open"));
}

fn call(timeout: Option<&str>) -> Request<runtime::http::Body> {
    let call = Request::post("http://peer/a.B/c").header("content-type", "application/grpc").header("te", "trailers");
    timeout.into_iter().fold(call, |call, timeout| call.header("grpc-timeout", timeout)).body(full("")).unwrap()
}

/// An application of HTTP/2 that lets `serve` answer each request; it is told its number, from 1.
async fn http2(serve: impl Fn(u32, SendResponse<Bytes>) + Send + Sync + 'static) -> (SocketAddr, JoinSet<()>) {
    let listener = Listener::open(([127, 0, 0, 1], 0).into(), Share::Alone).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (serve, count) = (Arc::new(serve), Arc::new(AtomicU32::new(0)));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (serve, count) = (serve.clone(), count.clone());
            connections.spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let mut kept = Vec::new();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    kept.push(request);
                    serve(count.fetch_add(1, Ordering::Relaxed) + 1, respond);
                }
            });
        }
    });
    (address, tasks)
}

fn trailers(status: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static(status))])
}

#[tokio::test]
async fn a_client_s_own_deadline_is_the_client_s_however_long() {
    // Nobody answers at all; the head comes and nothing else; the endpoint says by itself that the time is over.
    for behaviour in 0..3 {
        let held = std::sync::Mutex::new(Vec::new());
        let (address, _serving) = http2(move |_, mut respond| match behaviour {
            0 => held.lock().unwrap().push((Some(respond), None)),
            1 => {
                let sending = respond.send_response(Response::new(()), false).unwrap();
                held.lock().unwrap().push((None, Some(sending)));
            }
            _ => {
                let mut sending = respond.send_response(Response::new(()), false).unwrap();
                sending.send_trailers(trailers("4")).unwrap();
            }
        })
        .await;
        let mesh = Mesh::new(&["orders", "peer"]);
        let callee = mesh.callee("peer", Protocol::Grpc, Target::Application(address), &["orders"]).await;
        let mut part = in_mesh("peer", Protocol::Grpc, vec![endpoint("peer-0", callee.inbound())]);
        part.breaker = strict();
        let node = mesh.caller("orders", vec![("peer", part)]).await;
        let mut client = Client::http2(node.outbound()).await;
        for _ in 0..2 {
            let (head, body) = soon("an answer", client.try_send(call(Some("300m")))).await.unwrap().into_parts();
            let whole = body.collect().await.unwrap();
            let status = head.headers.get("grpc-status").or_else(|| whole.trailers()?.get("grpc-status"));
            assert_eq!(status.unwrap(), "4", "{behaviour}");
            assert_eq!(breaker(&node), "closed", "{behaviour}");
        }
    }
}

#[tokio::test]
async fn without_a_deadline_of_the_client_s_the_same_status_is_the_endpoint_s() {
    let (address, _serving) = http2(|_, mut respond| {
        let mut sending = respond.send_response(Response::new(()), false).unwrap();
        sending.send_trailers(trailers("4")).unwrap();
    })
    .await;
    let node = caller(external("peer", Protocol::Grpc, &[address])).await;
    let answer = Client::http2(node.outbound()).await.try_send(call(None)).await.unwrap();
    let _ = answer.into_body().collect().await;
    until("open", || breaker(&node) == "open").await;
}

#[tokio::test]
async fn a_client_that_leaves_says_nothing() {
    let (began, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let held = std::sync::Mutex::new(Vec::new());
    let (address, _serving) = http2(move |_, respond| {
        held.lock().unwrap().push(respond);
        began.send(()).unwrap();
    })
    .await;
    let node = caller(external("peer", Protocol::Grpc, &[address])).await;
    let mut client = Client::http2(node.outbound()).await;
    for _ in 0..3 {
        let mut leaving = Box::pin(client.try_send(call(None)));
        tokio::select! {
            _ = &mut leaving => panic!("nobody answers"),
            _ = begun.recv() => drop(leaving),
        }
    }
    let in_progress = || node.plane.status()["services"]["peer"]["endpoints"][0]["in_progress"].clone();
    until("it to be noticed", || in_progress() == 0).await;
    assert_eq!(breaker(&node), "closed");
}

#[tokio::test]
async fn a_reset_counts_wherever_it_comes_and_however_often_the_connection_was_used() {
    for (reason, before_head, expected) in [
        (Reason::INTERNAL_ERROR, true, "open"),
        (Reason::INTERNAL_ERROR, false, "open"),
        (Reason::CANCEL, true, "open"),
        (Reason::ENHANCE_YOUR_CALM, true, "closed"),
        (Reason::PROTOCOL_ERROR, true, "closed"),
    ] {
        let (address, _serving) = http2(move |number, mut respond| {
            if number > 1 && before_head {
                respond.send_reset(reason);
                return;
            }
            let mut sending = respond.send_response(Response::new(()), false).unwrap();
            if number == 1 {
                sending.send_data(Bytes::from_static(b"whole"), true).unwrap();
            } else {
                sending.send_data(Bytes::from_static(b"part"), false).unwrap();
                sending.send_reset(reason);
            }
        })
        .await;
        let mut part = external("peer", Protocol::Grpc, &[address]);
        part.routes[0].retry.attempts = 0;
        let node = caller(part).await;
        let mut client = Client::http2(node.outbound()).await;
        let get = || Request::get("http://peer/").header("content-type", "application/grpc").body(empty()).unwrap();
        assert_eq!(client.send(get()).await.body(), "whole");
        if let Ok(answer) = soon("an answer", client.try_send(get())).await {
            let _ = answer.into_body().collect().await;
        }
        let in_progress = || node.plane.status()["services"]["peer"]["endpoints"][0]["in_progress"].clone();
        until("its end", || in_progress() == 0 && (expected == "closed" || breaker(&node) == expected)).await;
        assert_eq!(breaker(&node), expected, "{reason:?} before the head: {before_head}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_under_many_requests_breaks_once() {
    const CALLS: u32 = 8;
    let (closing, close) = tokio::sync::watch::channel(0);
    let listener = Listener::open(([127, 0, 0, 1], 0).into(), Share::Alone).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let mut kept = Vec::new();
            // All of them are on it when it breaks.
            while let Some(Ok(call)) = connection.accept().await {
                kept.push(call);
                closing.send_replace(kept.len());
                if kept.len() == CALLS as usize {
                    break;
                }
            }
        }
    });
    let mut part = external("peer", Protocol::Grpc, &[address]);
    part.routes[0].retry.attempts = 0;
    part.breaker = Breaker { consecutive_failures: 2, ..strict() };
    let node = Mesh::new(&["peer"]).caller("orders", vec![("peer", part)]).await;
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        let address = node.outbound();
        calls.spawn(async move { Client::http2(address).await.send(call(None)).await });
    }
    while let Some(answer) = soon("an answer", calls.join_next()).await {
        assert_eq!(header(&answer.unwrap(), "grpc-status"), "14");
    }
    assert_eq!(*close.borrow(), CALLS as usize);
    assert_eq!(breaker(&node), "closed");
}

#[tokio::test]
async fn a_connection_that_many_wait_for_in_vain_is_one_fault() {
    // It takes a connection and hangs up before there is any HTTP, once all calls wait for it, and then is gone. Those who came when
    // that dial had begun wait for a second one: two faults, and not one for each call.
    let listener = Listener::open(([127, 0, 0, 1], 0).into(), Share::Alone).await.unwrap();
    let mesh = Mesh::new(&["orders", "peer"]);
    let mut part = in_mesh("peer", Protocol::Grpc, vec![endpoint("peer-0", listener.local_addr().unwrap())]);
    part.routes[0].retry.attempts = 0;
    part.breaker = Breaker { consecutive_failures: 3, ..strict() };
    let node = mesh.caller("orders", vec![("peer", part)]).await;
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        let address = node.outbound();
        calls.spawn(async move { Client::http2(address).await.send(call(None)).await });
    }
    let in_progress = || node.plane.status()["services"]["peer"]["endpoints"][0]["in_progress"].clone();
    until("all of them to wait", || in_progress() == 8).await;
    drop(soon("a connection", listener.accept()).await.unwrap());
    drop(listener);
    while let Some(answer) = soon("an answer", calls.join_next()).await {
        assert_eq!(header(&answer.unwrap(), "grpc-status"), "14");
    }
    assert_eq!(breaker(&node), "closed");
}

#[tokio::test]
async fn an_endpoint_that_breaks_off_behind_its_head_is_not_taken_for_a_quick_one() {
    // A slow endpoint that works, and a quick one whose answers never end whole.
    let slow = App::streaming(|_| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(40)).await;
            Response::new(full("whole"))
        })
    })
    .await;
    let (quick, _serving) = raw_application(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab".to_vec()).await;
    let mut part = external("peer", Protocol::Http, &[slow.address, quick]);
    part.breaker = Breaker { consecutive_failures: 1_000, ..strict() };
    let node = Mesh::new(&["peer"]).caller("orders", vec![("peer", part)]).await;
    let mut whole = 0;
    for _ in 0..20 {
        let request = Request::get("/").header("host", "peer").body(empty()).unwrap();
        let answer = Client::http1(node.outbound()).await.try_send(request).await.unwrap();
        whole += u32::from(answer.into_body().collect().await.is_ok());
    }
    assert!(whole >= 15, "{whole} of 20");
}

/// An application that fails at `/fails` and says when it has begun at `/slow`, which it never answers.
async fn failing_or_slow() -> (App, tokio::sync::mpsc::UnboundedReceiver<()>) {
    let (began, begun) = tokio::sync::mpsc::unbounded_channel();
    let app = App::streaming(move |request| {
        let began = began.clone();
        Box::pin(async move {
            match request.uri().path() {
                "/fails" => answering(500, None),
                "/slow" => {
                    began.send(()).unwrap();
                    std::future::pending().await
                }
                _ => answering(200, None),
            }
        })
    })
    .await;
    (app, begun)
}

#[tokio::test]
async fn a_probe_that_takes_long_shuts_nobody_out() {
    let (app, mut begun) = failing_or_slow().await;
    let mut part = external("peer", Protocol::Http, &[app.address]);
    // The probe's time is the open time.
    part.breaker = Breaker { open: Duration::from_millis(50), ..strict() };
    let node = Mesh::new(&["peer"]).caller("orders", vec![("peer", part)]).await;
    assert_eq!(get(node.outbound(), "peer", "/fails").await.status(), 500);
    until("half-open", || breaker(&node) == "half-open").await;
    let address = node.outbound();
    let probe = tokio::spawn(async move { get(address, "peer", "/slow").await });
    soon("the probe", begun.recv()).await.unwrap();
    let served = async {
        while get(address, "peer", "/").await.status() != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("another one", served).await;
    assert_eq!(breaker(&node), "closed");
    assert!(!probe.is_finished());
}

#[tokio::test]
async fn a_probe_whose_client_leaves_gives_its_slot_back() {
    let (app, mut begun) = failing_or_slow().await;
    let node = {
        let mut part = external("peer", Protocol::Http, &[app.address]);
        // A probe may take a second before another is made.
        part.breaker = Breaker { open: Duration::from_secs(1), ..strict() };
        Mesh::new(&["peer"]).caller("orders", vec![("peer", part)]).await
    };
    assert_eq!(get(node.outbound(), "peer", "/fails").await.status(), 500);
    until("half-open", || breaker(&node) == "half-open").await;
    let address = node.outbound();
    let probe = tokio::spawn(async move { get(address, "peer", "/slow").await });
    soon("the probe", begun.recv()).await.unwrap();
    probe.abort();
    let in_progress = || node.plane.status()["services"]["peer"]["endpoints"][0]["in_progress"].clone();
    until("it to be noticed", || in_progress() == 0).await;
    assert_eq!(get(address, "peer", "/").await.status(), 200);
}
