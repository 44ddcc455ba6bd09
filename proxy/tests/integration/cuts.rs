//! Messages that break off in the middle: nobody takes them for whole ones, and a gRPC client hears the status that is meant.

use bytes::Bytes;
use h2::Reason;
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use model::config::{GatewayBackend, Inbound, Protocol};
use runtime::http::{boxed, empty, full};
use tokio::sync::mpsc;

use crate::kit::{App, Client, Mesh, Wire, called, external, http2, name, next, raw, soon};

const GRPC: &str = "application/grpc";

/// An HTTP/2 application that begins an answer and then resets the stream, or ends the whole connection.
async fn breaking(reason: Option<Reason>) -> (std::net::SocketAddr, tokio::task::JoinSet<()>) {
    http2(move |_, mut connection| async move {
        let (_request, mut respond) = next(&mut connection).await.unwrap();
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        stream.send_data(Bytes::from_static(b"ab"), false).unwrap();
        let flushed = std::future::poll_fn(|cx| {
            // Until there is room again for what was sent, which is once it has gone out.
            let _ = connection.poll_closed(cx);
            stream.reserve_capacity(1);
            stream.poll_capacity(cx)
        });
        soon("that the piece has gone out", flushed).await.unwrap().unwrap();
        match reason {
            Some(reason) => {
                stream.send_reset(reason);
                while next(&mut connection).await.is_some() {}
            }
            None => drop(connection),
        }
    })
    .await
}

#[tokio::test]
async fn a_grpc_stream_that_breaks_ends_with_the_status_that_is_meant() {
    for (reason, status) in [
        (None, "14"),
        (Some(Reason::REFUSED_STREAM), "14"),
        (Some(Reason::CANCEL), "1"),
        (Some(Reason::ENHANCE_YOUR_CALM), "8"),
        (Some(Reason::INADEQUATE_SECURITY), "7"),
        (Some(Reason::INTERNAL_ERROR), "13"),
        (Some(Reason::PROTOCOL_ERROR), "13"),
        (Some(Reason::NO_ERROR), "13"),
    ] {
        let (address, _server) = breaking(reason).await;
        let peer = external("peer", Protocol::Grpc, &[address]);
        let node = Mesh::new(&["peer"]).caller("orders", vec![("peer", peer)]).await;
        let request = Request::post("http://peer/a/b").header("content-type", GRPC).header("te", "trailers");
        let mut client = Client::http2(node.outbound()).await;
        let answer = soon("a head", client.try_send(request.body(full("q")).unwrap())).await.unwrap();
        let whole = soon("an end", answer.into_body().collect()).await.unwrap();
        assert_eq!(whole.trailers().unwrap()["grpc-status"], status, "{reason:?}");
        assert_eq!(whole.to_bytes(), "ab", "{reason:?}");
    }
}

#[tokio::test]
async fn a_client_that_gets_no_trailers_gets_no_end_either() {
    for reason in [None, Some(Reason::NO_ERROR), Some(Reason::CANCEL)] {
        let (address, _server) = breaking(reason).await;
        let peer = external("peer", Protocol::Grpc, &[address]);
        let node = Mesh::new(&["peer"]).caller("orders", vec![("peer", peer)]).await;
        let request =
            "POST /a/b HTTP/1.1\r\nHost: peer\r\nContent-Type: application/grpc\r\nContent-Length: 1\r\n\r\nq";
        let answer = raw(node.outbound(), request.as_bytes()).await;
        // hyper may leave before it has written the head: that is no whole answer either. A refusal would be one.
        let is_begun = answer.starts_with("HTTP/1.1 200 ") && answer.contains("\r\ntransfer-encoding: chunked\r\n");
        assert!(answer.is_empty() || is_begun, "{reason:?}: {answer}");
        assert!(!answer.ends_with("0\r\n\r\n"), "{reason:?}: {answer}");
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_is_cut_for_the_client_too() {
    for said in [
        &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab",
    ] {
        let app = Wire::saying(said).await;
        let (orders, _catalog) = called(app.address, Protocol::Http, Inbound::default()).await;
        let of = said.escape_ascii();
        // Whether the two bytes still come is the network's to say; that the end does not, is ours.
        let answer = raw(orders.outbound(), b"GET / HTTP/1.1\r\nHost: catalog\r\nConnection: close\r\n\r\n").await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 200 "), "a whole refusal to {of}: {answer}");
        assert!(!answer.ends_with("0\r\n\r\n") && !answer.contains("content-length: 2\r\n"), "{of}: {answer}");
        let mut client = Client::http2(orders.outbound()).await;
        let request = Request::get("http://catalog/").body(empty()).unwrap();
        let whole =
            async { Ok::<_, hyper::Error>(client.try_send(request).await?.into_body().collect().await?.to_bytes()) };
        let got = soon("an end", whole).await;
        assert!(got.is_err(), "{of}: {got:?}");
    }
}

#[tokio::test]
async fn a_request_that_is_taken_back_is_no_whole_request() {
    let (collected, mut ends) = mpsc::unbounded_channel();
    let app = App::streaming(move |request| {
        let collected = collected.clone();
        Box::pin(async move {
            let late = request.uri().path() == "/late";
            collected.send(None).unwrap();
            // In a task of its own: a request that is taken back takes its service along.
            let reading = tokio::spawn(async move {
                let whole = request.into_body().collect().await.map(|body| body.to_bytes());
                collected.send(Some(whole)).unwrap();
            });
            if late {
                let _ = reading.await;
            }
            Response::new(boxed(StreamBody::new(futures_util::stream::pending::<Result<_, std::io::Error>>())))
        })
    })
    .await;
    let backend = GatewayBackend { service: name("shop"), matches: Vec::new(), hosts: Vec::new() };
    let shop = external("shop", Protocol::Http, &[app.address]);
    let door = Mesh::new(&["shop"]).gateway(backend, shop, 1_000).await;
    let stream = runtime::net::connect(door.plane.gateway_address().unwrap()).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let _driver = tokio::spawn(connection);
    for (reason, path) in [Reason::NO_ERROR, Reason::CANCEL].into_iter().flat_map(|one| [(one, "late"), (one, "early")])
    {
        let request = Request::post(format!("http://a/{path}")).body(()).unwrap();
        let (answer, mut stream) = sender.send_request(request, false).unwrap();
        stream.send_data(Bytes::from_static(b"ab"), false).unwrap();
        assert!(soon("the request", ends.recv()).await.unwrap().is_none());
        let _answer = if path == "early" { Some(soon("an answer", answer).await.unwrap()) } else { None };
        stream.send_reset(reason);
        let end = soon("its end", ends.recv()).await.unwrap().unwrap();
        assert!(end.is_err(), "{reason:?} {path}: {end:?}");
        sender = soon("room for another", sender.ready()).await.unwrap();
    }
}

#[tokio::test]
async fn an_answer_of_another_length_than_it_says_is_not_whole() {
    let (address, _server) = http2(|_, mut connection| async move {
        while let Some((_, mut respond)) = next(&mut connection).await {
            let head = Response::builder().header("content-length", "5").body(()).unwrap();
            let mut stream = respond.send_response(head, false).unwrap();
            stream.send_data(Bytes::from_static(b"ab"), true).unwrap();
        }
    })
    .await;
    let peer = external("peer", Protocol::Grpc, &[address]);
    let node = Mesh::new(&["peer"]).caller("orders", vec![("peer", peer)]).await;
    let request = Request::post("http://peer/").header("content-type", GRPC).body(full("q")).unwrap();
    let mut client = Client::http2(node.outbound()).await;
    // A length that is not met leaves no place for trailers. Where it shows before the head has gone on, it is a refusal.
    let end = soon("an end", async {
        let answer = client.try_send(request).await?;
        let status = answer.headers().get("grpc-status").cloned();
        answer.into_body().collect().await.map(|_| status)
    })
    .await;
    assert!(end.as_ref().map_or(true, |status| status.as_ref().is_some_and(|status| status != "0")), "{end:?}");
}
