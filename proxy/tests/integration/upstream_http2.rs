//! The upstream side of HTTP/2 against a server that does on purpose what servers do: goes away, refuses streams, answers early,
//! and has both directions full at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use model::config::Protocol;
use runtime::http::{boxed, full};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::kit::{Client, Mesh, Node, external, http2 as server, next};

/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A caller of that server, with a connection of its own to the sidecar.
async fn caller(address: SocketAddr) -> (Node, Client) {
    let node =
        Mesh::new(&["peer"]).caller("orders", vec![("peer", external("peer", Protocol::Grpc, &[address]))]).await;
    let client = Client::http2(node.outbound()).await;
    (node, client)
}

fn post(body: impl Into<Bytes>) -> Request<runtime::http::Body> {
    Request::post("http://peer/").header("content-type", "application/grpc").body(full(body)).unwrap()
}

fn ok(respond: &mut SendResponse<Bytes>, text: &'static str) {
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    stream.send_data(Bytes::from_static(text.as_bytes()), true).unwrap();
}

#[tokio::test]
async fn a_connection_that_goes_away_is_replaced_and_nobody_notices() {
    let (address, _server) = server(|number, mut connection| async move {
        while let Some((_, mut respond)) = next(&mut connection).await {
            ok(&mut respond, if number == 1 { "first" } else { "later" });
            if number == 1 {
                connection.graceful_shutdown();
            }
        }
    })
    .await;
    let (_node, mut client) = caller(address).await;
    assert_eq!(client.send(post("a")).await.body(), "first");
    for _ in 0..3 {
        let answer = client.send(post("b")).await;
        assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::OK, &b"later"[..]));
    }
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_with_its_body() {
    let (address, _server) = server(|_, mut connection| async move {
        let (_, mut respond) = next(&mut connection).await.unwrap();
        respond.send_reset(Reason::REFUSED_STREAM);
        let mut calls = JoinSet::new();
        while let Some((request, mut respond)) = next(&mut connection).await {
            calls.spawn(async move {
                let mut body = request.into_body();
                let data = body.data().await.unwrap().unwrap();
                respond.send_response(Response::new(()), false).unwrap().send_data(data, true).unwrap();
            });
        }
    })
    .await;
    let (node, mut client) = caller(address).await;
    assert_eq!(client.send(post("hello")).await.body(), "hello");
    assert_eq!(node.plane.observed().edges[0].retries, 1);
}

#[tokio::test]
async fn the_two_directions_do_not_wait_for_each_other() {
    const PIECE: usize = 64 << 10;
    const PIECES: usize = 256;
    // The answer is longer than all windows together and is not read before the whole request has arrived.
    let (arrived, mut whole) = mpsc::channel(1);
    let (address, _server) = server(move |_, mut connection| {
        let arrived = arrived.clone();
        async move {
            let (request, mut respond) = next(&mut connection).await.unwrap();
            let driver = async move { while next(&mut connection).await.is_some() {} };
            let send = async move {
                let mut stream = respond.send_response(Response::new(()), false).unwrap();
                for left in (0..PIECES).rev() {
                    stream.reserve_capacity(PIECE);
                    while stream.capacity() < PIECE {
                        std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
                    }
                    stream.send_data(Bytes::from(vec![b'a'; PIECE]), left == 0).unwrap();
                }
            };
            let receive = async move {
                let (mut body, mut length) = (request.into_body(), 0);
                while let Some(data) = body.data().await {
                    let data = data.unwrap();
                    length += data.len();
                    body.flow_control().release_capacity(data.len()).unwrap();
                }
                arrived.send(length).await.unwrap();
            };
            tokio::join!(driver, send, receive);
        }
    })
    .await;
    let (_node, mut client) = caller(address).await;
    let exchange = async {
        let answer = client.try_send(post(vec![b'q'; PIECE * PIECES])).await.unwrap();
        assert_eq!(whole.recv().await, Some(PIECE * PIECES));
        answer.into_body().collect().await.unwrap().to_bytes().len()
    };
    assert_eq!(tokio::time::timeout(PATIENCE, exchange).await.expect("neither waits"), PIECE * PIECES);
}

#[tokio::test]
async fn an_early_answer_goes_through_while_the_client_still_sends() {
    let (address, _server) = server(|_, mut connection| async move {
        while let Some((request, mut respond)) = next(&mut connection).await {
            let answer = Response::builder().status(StatusCode::PAYLOAD_TOO_LARGE).body(()).unwrap();
            respond.send_response(answer, true).unwrap();
            // h2 says NO_ERROR for the rest of a request whose body is dropped behind a whole answer (RFC 9113 §8.1).
            drop(request);
        }
    })
    .await;
    let (_node, mut client) = caller(address).await;
    let endless = futures_util::stream::pending::<Result<_, std::io::Error>>();
    let body = boxed(http_body_util::StreamBody::new(endless));
    let request = Request::post("http://peer/").header("content-type", "application/grpc").body(body).unwrap();
    let answer = tokio::time::timeout(PATIENCE, client.try_send(request)).await.expect("an answer").unwrap();
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
}

#[tokio::test]
async fn a_client_that_leaves_resets_the_stream_and_keeps_the_connection() {
    let (arrivals, mut arrived) = mpsc::channel(1);
    let (resets, mut seen) = mpsc::channel(1);
    let connections = Arc::new(AtomicU32::new(0));
    let counted = connections.clone();
    let (address, _server) = server(move |number, mut connection| {
        counted.store(number, Ordering::Relaxed);
        let (arrivals, resets) = (arrivals.clone(), resets.clone());
        async move {
            let mut calls = JoinSet::new();
            while let Some((request, mut respond)) = next(&mut connection).await {
                if request.uri().path() == "/leave" {
                    arrivals.send(()).await.unwrap();
                    let resets = resets.clone();
                    calls.spawn(async move {
                        let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await.unwrap();
                        resets.send(reason).await.unwrap();
                    });
                } else {
                    ok(&mut respond, "still here");
                }
            }
        }
    })
    .await;
    let (_node, mut client) = caller(address).await;
    assert_eq!(client.send(post("a")).await.body(), "still here");
    let endless = futures_util::stream::pending::<Result<_, std::io::Error>>();
    let body = boxed(http_body_util::StreamBody::new(endless));
    let request = Request::post("http://peer/leave").header("content-type", "application/grpc").body(body).unwrap();
    let mut leaving = Box::pin(client.try_send(request));
    tokio::select! {
        _ = &mut leaving => panic!("nobody answers"),
        _ = arrived.recv() => drop(leaving),
    }
    let reason = tokio::time::timeout(PATIENCE, seen.recv()).await.expect("the stream is reset");
    assert_eq!(reason, Some(Reason::CANCEL));
    assert_eq!(client.send(post("b")).await.body(), "still here");
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}
