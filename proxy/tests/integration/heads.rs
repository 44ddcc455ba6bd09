//! Heads of requests as raw bytes: what could be read in two ways gets no further, what gets further is written anew, and a
//! client is told why even where there is no request yet that could be answered.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use model::config::{GatewayBackend, Protocol};
use proxy::Target;
use runtime::http::{empty, full};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::kit::{App, Client, Mesh, Node, endpoint, external, get, header, in_mesh, name, raw};

/// Longest body that the gateway of these tests lets in.
const BODY_BYTES_MAX: u64 = 1_000;

async fn door(app: &App) -> (Node, SocketAddr) {
    let backend = GatewayBackend { service: name("shop"), matches: Vec::new(), hosts: Vec::new() };
    let mesh = Mesh::new(&["shop"]);
    let node = mesh.gateway(backend, external("shop", Protocol::Http, &[app.address]), BODY_BYTES_MAX).await;
    let address = node.plane.gateway_address().unwrap();
    (node, address)
}

/// Checks that an answer says who refused and why, and that it does so with this status.
fn check_explained(answer: &Response<Bytes>, status: u16, words: &str, of: &str) {
    let of = of.chars().take(80).collect::<String>().escape_debug().to_string();
    assert_eq!(answer.status(), status, "{of}: {}", String::from_utf8_lossy(answer.body()));
    let start = format!("meshwork; error=http_request_error; status-code={status}; details=\"");
    assert!(header(answer, "proxy-status").starts_with(&start), "{of}: {:?}", answer.headers());
    assert_eq!(header(answer, "content-type"), "application/problem+json", "{of}");
    let problem: Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(problem["status"], status, "{of}");
    assert_eq!(problem["subject"], "gateway/door", "{of}");
    assert!(problem["detail"].as_str().unwrap().contains(words), "{of}: {problem}");
}

/// Reads an answer of HTTP/1.1 with a length.
fn parse(answer: &str, of: &str) -> Response<Bytes> {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{of:.80}: no answer, but {answer:?}"));
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").unwrap().get(..3).unwrap();
    let mut response = Response::builder().status(status);
    for (name, value) in lines.map(|line| line.split_once(": ").unwrap()) {
        response = response.header(name, value);
    }
    let response = response.body(Bytes::copy_from_slice(body.as_bytes())).unwrap();
    assert_eq!(header(&response, "content-length"), body.len().to_string(), "{of:.80}");
    response
}

#[tokio::test]
async fn what_is_not_understood_is_refused_and_explained() {
    let app = App::saying("in").await;
    let (_door, address) = door(&app).await;
    let long = "x".repeat(70 << 10);
    let long_field = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {long}\r\n\r\n");
    let many_fields = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X-Many: 1\r\n".repeat(101));
    let endless_line = format!("GET /{long}");
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", &long[..20 << 10]);
    let long_query = format!("GET /?{} HTTP/1.1\r\nHost: a\r\n\r\n", &long[..20 << 10]);
    let long_body = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n{}", &long[..2_000]);
    let long_chunk = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n{}\r\n0\r\n\r\n",
        &long[..2_000]
    );
    let post = |lines: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\nab");
    let chunked = |body: &str| format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    for (request, status, words) in [
        // What the HTTP library does not read at all.
        ("nonsense\r\n\r\n".to_owned(), 400, "could not be read"),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n".to_owned(), 400, "could not be read"),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(), 400, "could not be read"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n".to_owned(), 400, "could not be read"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n".to_owned(), 400, "could not be read"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n".to_owned(), 400, "could not be read"),
        ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n".to_owned(), 400, "could not be read"),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n".to_owned(), 400, "could not be read"),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "could not be read"),
        (long_field, 431, "longer than 65536 bytes"),
        (many_fields, 431, "more than 100 fields"),
        (endless_line, 414, "target is longer than 16384 bytes"),
        // Framing.
        (post("Content-Length: 1\r\nContent-Length: 2"), 400, "content-length"),
        (post("Content-Length: 1, 2"), 400, "content-length"),
        (post("Content-Length: +2"), 400, "content-length"),
        (post("Content-Length: -2"), 400, "content-length"),
        (post("Content-Length: 0x2"), 400, "content-length"),
        (post("Content-Length: 99999999999999999999"), 400, "content-length"),
        (post("Transfer-Encoding: chunked, gzip"), 400, "transfer-encoding"),
        (post("Transfer-Encoding: xchunked"), 400, "transfer-encoding"),
        (post("Transfer-Encoding:"), 400, "transfer-encoding"),
        (post("Transfer-Encoding: gzip, chunked"), 501, "gzip, chunked"),
        (post("Transfer-Encoding: chunked, chunked"), 501, "chunked, chunked"),
        (post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), 501, "not understood"),
        (
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
            400,
            "transfer-encoding",
        ),
        (chunked("x\r\nab\r\n0\r\n\r\n"), 400, "broke its request off"),
        (chunked("-1\r\nab\r\n0\r\n\r\n"), 400, "broke its request off"),
        (chunked("2\r\nabc\r\n0\r\n\r\n"), 400, "broke its request off"),
        (chunked("10000000000000002\r\nab\r\n0\r\n\r\n"), 400, "broke its request off"),
        (chunked("2 x\r\nab\r\n0\r\n\r\n"), 400, "broke its request off"),
        (long_body, 413, "longer than 1000 bytes"),
        (long_chunk, 413, "longer than 1000 bytes"),
        // Host and target.
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400, "names no host"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), 400, "names two hosts"),
        ("GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".to_owned(), 400, "names two hosts"),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "user information"),
        ("GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "0x5c"),
        ("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "0x00"),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n".to_owned(), 501, "CONNECT leads from an application"),
        (long_target, 414, "target is longer than 16384 bytes"),
        (long_query, 414, "target is longer than 16384 bytes"),
        // Names that an application may read as another.
        ("GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 1.2.3.4\r\n\r\n".to_owned(), 400, "x_forwarded_for"),
    ] {
        let request = closing(&request);
        let answer = raw(address, request.as_bytes()).await;
        check_explained(&parse(&answer, &request), status, words, &request);
    }
    assert!(app.seen().is_empty(), "{:?}", app.seen());
}

/// The same request, with the wish that its connection be closed.
fn closing(request: &str) -> String {
    request.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1)
}

#[tokio::test]
async fn a_connection_that_was_good_before_is_told_too() {
    let app = App::saying("in").await;
    let (_door, address) = door(&app).await;
    let good = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for bad in ["nonsense\r\n\r\n", "GET / HTTP/1.1\r\nHost : a\r\n\r\n"] {
        let answer = raw(address, format!("{good}{good}{bad}").as_bytes()).await;
        let (before, last) = answer.rsplit_once("HTTP/1.1 ").unwrap();
        assert_eq!(before.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{answer}");
        check_explained(&parse(&format!("HTTP/1.1 {last}"), bad), 400, "could not be read", bad);
    }
}

#[tokio::test]
async fn over_http2_too_long_is_explained_as_well() {
    let app = App::saying("in").await;
    let (_door, address) = door(&app).await;
    let mut client = Client::http2(address).await;
    let get = || Request::get("http://a/");
    let long = "x".repeat(20 << 10);
    let long_head = (0..4).fold(get(), |request, number| request.header(format!("x-{number}"), &long));
    let many_fields = (0..101).fold(get(), |request, number| request.header(format!("x-{number}"), "1"));
    let long_target = Request::get(format!("http://a/{long}"));
    for (request, status, words) in [
        (long_head, 431, "longer than 65536 bytes"),
        (many_fields, 431, "more than 100 fields"),
        (long_target, 414, "target is longer than 16384 bytes"),
        (get().header("host", "b"), 400, "names two hosts"),
        (get().header("x_forwarded_for", "1.2.3.4"), 400, "x_forwarded_for"),
    ] {
        let answer = client.send(request.body(empty()).unwrap()).await;
        check_explained(&answer, status, words, words);
    }
    let long_body = Request::post("http://a/").body(full("x".repeat(2_000))).unwrap();
    check_explained(&client.send(long_body).await, 413, "longer than 1000 bytes", "body");
    assert!(app.seen().is_empty());
    let answer = client.send(get().header("host", "A:80").body(empty()).unwrap()).await;
    assert_eq!((answer.status(), app.last().header("x-forwarded-host")), (StatusCode::OK, Some("a")));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_in_time_is_408() {
    let app = App::saying("in").await;
    let (_door, address) = door(&app).await;
    // The second could still become the preface of HTTP/2.
    for begun in ["GET / HTTP/1.1\r\nHost: ", "PRI * H"] {
        let began = tokio::time::Instant::now();
        let answer = raw(address, begun.as_bytes()).await;
        check_explained(&parse(&answer, begun), 408, "did not come in time", begun);
        assert!((9..15).contains(&began.elapsed().as_secs()), "{begun}: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_client_that_is_still_sending_hears_why() {
    let app = App::saying("in").await;
    let (_door, address) = door(&app).await;
    // Of the first, nothing need be read for it to be sent whole; the second is more than was on its way when the answer was written.
    for bytes in [700 << 10, 8 << 20] {
        hears_why(address, bytes).await;
    }
}

async fn hears_why(address: SocketAddr, bytes: usize) {
    let body = vec![b'x'; bytes];
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    let answer = raw(address, &[head.as_bytes(), &body].concat()).await;
    check_explained(&parse(&answer, &head), 413, "longer than 1000 bytes", &head);
}

/// Sends bytes and gives what the application received of them.
async fn seen(app: &App, address: SocketAddr, request: &str) -> (String, HeaderMap, Bytes) {
    let before = app.seen().len();
    let answer = raw(address, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{}: {answer}", request.escape_debug());
    assert_eq!(app.seen().len(), before + 1, "{}", request.escape_debug());
    let seen = app.last();
    (seen.uri.to_string(), seen.headers, seen.body)
}

#[tokio::test]
async fn what_gets_through_is_written_anew() {
    let app = App::saying("in").await;
    let (_door, address) = door(&app).await;
    let post =
        |lines: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines}\r\n\r\n{body}");
    for (request, body) in [
        // Both framings: the length is dropped, and the connection with it (RFC 9112 §6.1).
        (
            post(
                "Content-Length: 4\r\nTransfer-Encoding: chunked",
                "3\r\nabc\r\n0\r\n\r\nGET /no HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            "abc",
        ),
        (post("Transfer-Encoding: chunked\r\nContent-Length: 4", "3\r\nabc\r\n0\r\n\r\n"), "abc"),
        (post("Transfer-Encoding: Chunked", "3;x=y\r\nabc\r\n0\r\n\r\n"), "abc"),
        (post("Content-Length: 3\r\nContent-Length: 3", "abc"), "abc"),
        // RFC 9112 §2.2 allows to take a lone line feed for an end of line; the application sees none.
        ("POST / HTTP/1.1\nHost: a\nConnection: close\nContent-Length: 3\n\nabc".to_owned(), "abc"),
        ("\r\nPOST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc".to_owned(), "abc"),
    ] {
        let (_, headers, got) = seen(&app, address, &request).await;
        assert_eq!(got, body, "{}", request.escape_debug());
        let framings = (headers.get_all("content-length").iter().count(), headers.contains_key("transfer-encoding"));
        assert!(matches!(framings, (1, false) | (0, true)), "{}: {headers:?}", request.escape_debug());
    }
    for (target, host, uri, asked) in [
        ("http://a/x/../y", "b", "/y", "a"),
        ("http://a", "a", "/", "a"),
        ("http://A:80/x", "b", "/x", "A:80"),
        ("/x//y?q=//", "a", "/x/y?q=//", "a"),
    ] {
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-Host: evil\r\nConnection: close\r\n\r\n");
        let (got, headers, _) = seen(&app, address, &request).await;
        assert_eq!((got.as_str(), headers["x-forwarded-host"].to_str().unwrap()), (uri, asked));
        assert_eq!(headers.get_all("host").iter().count(), 1);
    }
    let two_lines = "GET / HTTP/1.1\r\nHost: a\r\nConnection: x-one\r\nX-One: 1\r\nConnection: close, x-two\r\nX-Two: 2\r\n\
                     TE: trailers\r\nTE: deflate\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
    let (_, headers, _) = seen(&app, address, two_lines).await;
    assert_eq!(headers["connection"], "te");
    for gone in ["x-one", "x-two", "upgrade"] {
        assert!(!headers.contains_key(gone), "{gone}: {headers:?}");
    }
    assert_eq!(headers.get_all("te").iter().collect::<Vec<_>>(), ["trailers"]);
}

#[tokio::test]
async fn no_http2_is_smuggled_in_by_an_upgrade() {
    let app = App::saying("in").await;
    let (_door, address) = door(&app).await;
    for (method, upgrade) in [("GET", "h2c"), ("GET", "h2c, foo"), ("GET", "tls/1.0"), ("PUT", "websocket")] {
        let request = format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: {upgrade}\r\n\
             HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        );
        let (_, headers, _) = seen(&app, address, &request).await;
        assert!(!headers.contains_key("upgrade") && !headers.contains_key("http2-settings"), "{headers:?}");
    }
}

#[tokio::test]
async fn nobody_but_the_sidecar_says_who_called() {
    let app = App::saying("in").await;
    let mesh = Mesh::new(&["orders", "catalog"]);
    let catalog = mesh.callee("catalog", Protocol::Http, Target::Application(app.address), &["orders"]).await;
    let part = in_mesh("catalog", Protocol::Http, vec![endpoint("catalog-0", catalog.inbound())]);
    let orders = mesh.caller("orders", vec![("catalog", part)]).await;
    let request = "POST / HTTP/1.1\r\nHost: catalog\r\nX-Meshwork-Caller: boss\r\nX_Meshwork_Caller: boss\r\nx-meshwork_caller: boss\r\n\
                   Connection: close, x-meshwork-caller\r\nTrailer: x-meshwork-caller, x-sum\r\nTransfer-Encoding: chunked\r\n\r\n\
                   2\r\nab\r\n0\r\nx-meshwork-caller: boss\r\nx-sum: 7\r\n\r\n";
    let (_, headers, body) = seen(&app, orders.outbound(), request).await;
    assert_eq!(body, "ab");
    assert_eq!(headers.get_all("x-meshwork-caller").iter().collect::<Vec<_>>(), ["spiffe://test/service/orders"]);
    assert!(headers.keys().all(|name| !name.as_str().contains('_')), "{headers:?}");
}

#[tokio::test]
async fn an_application_that_switches_protocols_unasked_is_not_believed() {
    let listener = runtime::net::Listener::open(([127, 0, 0, 1], 0).into(), runtime::net::Share::Alone).await.unwrap();
    let app = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let said = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
            stream.write_all(said).await.unwrap();
        }
    });
    let mesh = Mesh::new(&["catalog"]);
    let orders = mesh.caller("orders", vec![("catalog", external("catalog", Protocol::Http, &[app]))]).await;
    let answer = get(orders.outbound(), "catalog", "/").await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert!(header(&answer, "proxy-status").starts_with("meshwork; error=http_upgrade_failed;"), "{answer:?}");
    serving.abort();
}
