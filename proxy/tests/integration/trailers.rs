//! Trailers: they pass where the next hop takes them, and say nothing there that no trailer may say.

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use model::config::{Inbound, Protocol};
use runtime::http::{Body, boxed, empty};

use crate::kit::{App, Client, Wire, called, header, raw, soon};

fn with_trailers(names: &[&'static str]) -> Body {
    let trailers = names.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("7")));
    let frames =
        vec![Ok::<_, std::io::Error>(Frame::data("ab".into())), Ok(Frame::trailers(HeaderMap::from_iter(trailers)))];
    boxed(StreamBody::new(futures_util::stream::iter(frames)))
}

const ANNOUNCED: &str = "HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-Sum: 7\r\nConnection: x\r\n\r\n";
const UNANNOUNCED: &str =
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-Sum: 7\r\nConnection: x\r\n\r\n";

#[tokio::test]
async fn an_answer_s_trailers_come_to_whoever_takes_them() {
    for (said, http2, te, comes) in [
        (ANNOUNCED, false, true, true),
        (ANNOUNCED, true, true, true),
        (UNANNOUNCED, true, true, true),
        // RFC 9110 §6.5.1: who has not said that it takes them gets none.
        (ANNOUNCED, false, false, false),
        // hyper's HTTP/1.1 servers write what was announced and nothing else.
        (UNANNOUNCED, false, true, false),
    ] {
        let of = format!("{said:?}, HTTP/2: {http2}, asked for: {te}");
        let app = Wire::saying(said).await;
        let (orders, _catalog) = called(app.address, Protocol::Http, Inbound::default()).await;
        let mut request = Request::get("http://catalog/").header("host", "catalog");
        if te {
            request = request.header("te", "trailers");
        }
        let mut client =
            if http2 { Client::http2(orders.outbound()).await } else { Client::http1(orders.outbound()).await };
        let answer = soon("an answer", client.try_send(request.body(empty()).unwrap())).await.unwrap();
        let whole =
            soon("an end", answer.into_body().collect()).await.unwrap_or_else(|error| panic!("{of}: {error:?}"));
        let trailers = whole.trailers().cloned().unwrap_or_default();
        assert_eq!(trailers.contains_key("x-sum"), comes, "{of}: {trailers:?}");
        assert!(!trailers.contains_key("connection"), "{of}: {trailers:?}");
        assert_eq!(whole.to_bytes(), "ab", "{of}");
        let asked = app.last().to_ascii_lowercase();
        // RFC 9110 §10.1.4: who sends TE says so in Connection.
        assert_eq!(
            (asked.contains("\r\nte: trailers\r\n"), asked.contains("\r\nconnection: te\r\n")),
            (te, te),
            "{asked}"
        );
    }
}

#[tokio::test]
async fn a_request_s_trailers_come_to_the_application() {
    let app = App::streaming(|request| {
        Box::pin(async move {
            let whole = request.into_body().collect().await.unwrap();
            let trailers = whole.trailers().cloned().unwrap_or_default();
            let got = trailers.get("x-sum").cloned().unwrap_or(HeaderValue::from_static("none"));
            Response::builder().header("x-got", got).header("x-all", trailers.len()).body(empty()).unwrap()
        })
    })
    .await;
    let (orders, _catalog) = called(app.address, Protocol::Http, Inbound::default()).await;
    for http2 in [false, true] {
        let request = Request::post("http://catalog/").header("host", "catalog").header("trailer", "x-sum");
        let mut client =
            if http2 { Client::http2(orders.outbound()).await } else { Client::http1(orders.outbound()).await };
        // A client of HTTP/2 that says more is cut off by the library.
        let names = if http2 { &["x-sum"][..] } else { &["x-sum", "connection", "content-length"] };
        let answer = client.send(request.body(with_trailers(names)).unwrap()).await;
        assert_eq!((header(&answer, "x-got"), header(&answer, "x-all")), ("7", "1"), "HTTP/2: {http2}");
    }
    let chunked = "POST / HTTP/1.1\r\nHost: catalog\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-Sum: 7\r\n\r\n";
    // The connection ends behind trailers: see `intermediary`.
    assert!(raw(orders.outbound(), chunked.as_bytes()).await.contains("\r\nx-got: 7\r\n"));
}
