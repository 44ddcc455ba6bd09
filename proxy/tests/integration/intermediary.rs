//! What an intermediary must: the requirements of RFC 9110, 9112 and 9113 that no other file asks about. `docs/conformance.md`
//! has the whole list.

use http::{Request, Response};
use model::config::{External, GatewayBackend, Inbound, Protocol};
use runtime::http::{empty, full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::kit::{App, Client, Mesh, Node, Wire, called, external, header, http2, name, next, raw, soon};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";

async fn door(service: model::snapshot::ServicePart) -> (Node, std::net::SocketAddr) {
    let backend = GatewayBackend { service: name("shop"), matches: Vec::new(), hosts: Vec::new() };
    let node = Mesh::new(&["shop"]).gateway(backend, service, 1_000).await;
    let address = node.plane.gateway_address().unwrap();
    (node, address)
}

#[tokio::test]
async fn what_is_forwarded_is_a_message_of_our_own() {
    let app = Wire::saying(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=1\r\nX-Two: 1\r\nSet-Cookie: b=2\r\nX-Two: 2\r\n\r\nab",
    )
    .await;
    let (orders, _catalog) = called(app.address, Protocol::Http, Inbound::default()).await;
    for (request, contained, gone) in [
        // RFC 9112 §2.3: our own version; RFC 9110 §7.2: a Host.
        ("GET / HTTP/1.0\r\nHost: catalog\r\n\r\n", &["GET / HTTP/1.1\r\n", "\r\nhost: catalog\r\n"][..], &[][..]),
        // RFC 9112 §3.2.2: the target's host, and not the field's.
        (
            "GET http://catalog/x HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n",
            &["GET /x HTTP/1.1\r\n", "\r\nhost: catalog\r\n"],
            &["other"],
        ),
        // RFC 9112 §3.2.4.
        ("OPTIONS * HTTP/1.1\r\nHost: catalog\r\nConnection: close\r\n\r\n", &["OPTIONS * HTTP/1.1\r\n"], &[]),
        // RFC 9110 §5.1 and §5.3: unknown fields, and the order of lines.
        (
            "GET / HTTP/1.1\r\nHost: catalog\r\nX-Two: 1\r\nX-Odd: !\r\nX-Two: 2\r\nX-Two: 3\r\nConnection: close\r\n\r\n",
            &["\r\nx-odd: !\r\n", "\r\nx-two: 1\r\nx-two: 2\r\nx-two: 3\r\n"],
            &["connection"],
        ),
        // RFC 9110 §7.6.2: one hop less at each of the two sidecars; other methods are left alone.
        (
            "OPTIONS / HTTP/1.1\r\nHost: catalog\r\nMax-Forwards: 7\r\nConnection: close\r\n\r\n",
            &["\r\nmax-forwards: 5\r\n"],
            &[],
        ),
        (
            "TRACE / HTTP/1.1\r\nHost: catalog\r\nMax-Forwards: 2\r\nConnection: close\r\n\r\n",
            &["TRACE / ", "\r\nmax-forwards: 0\r\n"],
            &[],
        ),
        (
            "GET / HTTP/1.1\r\nHost: catalog\r\nMax-Forwards: 7\r\nConnection: close\r\n\r\n",
            &["\r\nmax-forwards: 7\r\n"],
            &[],
        ),
    ] {
        let answer = raw(orders.outbound(), request.as_bytes()).await;
        assert!(answer.contains(" 200 OK\r\n") && answer.ends_with("ab"), "{}: {answer}", request.escape_debug());
        let seen = app.last();
        let lower = seen.to_ascii_lowercase();
        for part in contained {
            assert!(seen.contains(part) || lower.contains(part), "{}: {seen}", request.escape_debug());
        }
        for part in gone {
            assert!(!lower.contains(part), "{}: {seen}", request.escape_debug());
        }
        // RFC 9110 §5.3 on the way back, and §6.6.1: a date, which the application did not give.
        assert!(
            answer.contains("set-cookie: a=1\r\nset-cookie: b=2\r\n") && answer.contains("x-two: 1\r\nx-two: 2\r\n"),
            "{answer}"
        );
        assert_eq!(answer.matches("\r\ndate: ").count(), 1, "{answer}");
    }
}

#[tokio::test]
async fn the_last_hop_that_may_be_answers_by_itself() {
    let app = Wire::saying(OK).await;
    let (orders, _catalog) = called(app.address, Protocol::Http, Inbound::default()).await;
    for hops in [0, 1] {
        for (method, status) in [("OPTIONS", 200), ("TRACE", 501)] {
            let request =
                format!("{method} / HTTP/1.1\r\nHost: catalog\r\nMax-Forwards: {hops}\r\nConnection: close\r\n\r\n");
            let answer = raw(orders.outbound(), request.as_bytes()).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
            // RFC 9110 §9.3.7: no content is said to be none.
            assert!(status != 200 || answer.contains("content-length: 0\r\n"), "{answer}");
        }
    }
    assert!(app.heads().is_empty(), "{:?}", app.heads());
}

#[tokio::test]
async fn an_http_1_0_client_keeps_no_connection_and_needs_no_host_where_there_is_one_answerer() {
    let app = Wire::saying(OK).await;
    let (_door, address) = door(external("shop", Protocol::Http, &[app.address])).await;
    // RFC 9112 §9.3: no persistent connection with it, whatever it says.
    let kept = "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
    assert_eq!(raw(address, kept.as_bytes()).await.matches(" 200 OK").count(), 1);
    // RFC 9110 §10.1.1: it is not told to go on, and what it expects is not passed on.
    let reading = App::start(|seen| Response::new(full(seen.body.clone()))).await;
    let (_reading_door, reading_address) = door(external("shop", Protocol::Http, &[reading.address])).await;
    let waits = b"POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab";
    let answer = raw(reading_address, waits).await;
    assert!(answer.ends_with("ab") && !answer.contains(" 100 "), "{answer}");
    assert_eq!(reading.last().header("expect"), None);
    let answer = raw(address, b"GET /x HTTP/1.0\r\n\r\n").await;
    assert!(answer.contains(" 200 OK\r\n"), "{answer}");
    assert!(
        app.last().starts_with("GET /x HTTP/1.1\r\n") && app.last().contains(&format!("host: {}\r\n", app.address)),
        "{}",
        app.last()
    );
    let (orders, _catalog) = called(app.address, Protocol::Http, Inbound::default()).await;
    for (request, status) in [
        ("GET /healthz HTTP/1.0\r\n\r\n", 200),
        ("GET /other HTTP/1.0\r\n\r\n", 400),
        // RFC 9112 §3.2: without a Host, whatever else says where it goes.
        ("GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        ("GET http://catalog/ HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
    ] {
        let answer = raw(orders.outbound(), request.as_bytes()).await;
        assert!(answer.contains(&format!(" {status} ")), "{request}: {answer}");
        assert!(status != 400 || answer.contains("names no host"), "{request}: {answer}");
    }
}

#[tokio::test]
async fn a_host_that_no_host_list_names_is_not_made_up() {
    let app = Wire::saying(OK).await;
    let backend = GatewayBackend { service: name("shop"), matches: Vec::new(), hosts: vec!["shop.example".to_owned()] };
    let node = Mesh::new(&["shop"]).gateway(backend, external("shop", Protocol::Http, &[app.address]), 1_000).await;
    let answer = raw(node.plane.gateway_address().unwrap(), b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.contains(" 400 ") && answer.contains("names no host"), "{answer}");
}

#[tokio::test]
async fn what_is_refused_before_there_was_a_request_has_a_date_too() {
    let app = Wire::saying(OK).await;
    let (_door, address) = door(external("shop", Protocol::Http, &[app.address])).await;
    let answer = raw(address, b"nonsense\r\n\r\n").await;
    let date = answer.lines().find_map(|line| line.strip_prefix("date: ")).unwrap_or_else(|| panic!("{answer}"));
    assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
    // RFC 9110 §15.5.6.
    let node = Mesh::new(&[]).fresh("orders").await;
    let mut node = node;
    node.apply();
    let answer = raw(node.outbound(), b"PUT /healthz HTTP/1.1\r\nHost: sidecar\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET, HEAD\r\n"), "{answer}");
}

fn external_part(app: &Wire) -> model::snapshot::ServicePart {
    external("pay", Protocol::Http, &[app.address])
}

#[tokio::test]
async fn each_address_is_asked_by_its_own_name() {
    // The other one is away: whichever is asked first, it is this one that answers.
    let (app, away) = (Wire::saying(OK).await, "127.0.0.1:1".to_owned());
    let named = format!("localhost:{}", app.address.port());
    for addresses in [vec![named.clone(), away.clone()], vec![away, named.clone()]] {
        let external = Some(External { addresses, tls: None });
        let pay = model::snapshot::ServicePart { external, ..external_part(&app) };
        let orders = Mesh::new(&["pay"]).caller("orders", vec![("pay", pay)]).await;
        let answer = raw(orders.outbound(), b"GET / HTTP/1.1\r\nHost: pay\r\nConnection: close\r\n\r\n").await;
        assert!(answer.ends_with("ab"), "{answer}");
        assert!(app.last().contains(&format!("\r\nhost: {named}\r\n")), "{}", app.last());
    }
}

#[tokio::test]
async fn what_is_not_grpc_does_not_go_to_a_grpc_service() {
    let app = App::saying("x").await;
    let (orders, _catalog) = called(app.address, Protocol::Grpc, Inbound::default()).await;
    let (_door, gateway) = door(external("shop", Protocol::Grpc, &[app.address])).await;
    for (address, host) in [(orders.outbound(), "catalog"), (gateway, "shop")] {
        for content_type in ["application/json", "application/grpc-web", ""] {
            let request = Request::post(format!("http://{host}/a/b")).header("content-type", content_type);
            let answer = Client::http2(address).await.send(request.body(full("{}")).unwrap()).await;
            assert_eq!(answer.status(), 415, "{host} {content_type}");
            assert!(header(&answer, "proxy-status").starts_with("meshwork; error=http_request_error;"), "{answer:?}");
            assert!(String::from_utf8_lossy(answer.body()).contains("speaks gRPC"), "{answer:?}");
        }
    }
    assert!(app.seen().is_empty());
    assert_eq!(orders.plane.status()["services"]["catalog"]["endpoints"][0]["connections"], 0);
}

#[tokio::test]
async fn grpc_metadata_may_have_underscores() {
    let app = App::start(|seen| {
        let got = seen.header("tenant_id").unwrap_or("").to_owned();
        Response::builder().header("x-got", got).header("grpc-status", "0").body(empty()).unwrap()
    })
    .await;
    for (protocol, content_type, status) in [
        (Protocol::Grpc, "application/grpc", 200),
        (Protocol::Http, "application/grpc", 400),
        (Protocol::Http, "text/plain", 400),
    ] {
        let (_door, address) = door(external("shop", protocol, &[app.address])).await;
        let request = Request::post("http://shop/a/b").header("content-type", content_type).header("tenant_id", "7");
        let answer = Client::http2(address).await.send(request.body(full("q")).unwrap()).await;
        let refused = answer.status() == 400 || header(&answer, "grpc-status") == "3";
        assert_eq!(refused, status == 400, "{protocol:?} {content_type}: {answer:?}");
        assert!(refused || header(&answer, "x-got") == "7", "{answer:?}");
    }
}

/// Requests of one connection whose first has a body that ends as no body may.
async fn after(address: std::net::SocketAddr, end: &str) -> String {
    let first =
        format!("POST /first HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n{end}");
    let next = |path: &str| format!("GET /{path} HTTP/1.1\r\nHost: shop\r\n\r\n");
    raw(address, format!("{first}{}{}", next("second"), next("third")).as_bytes()).await
}

#[tokio::test]
async fn a_body_that_ends_in_a_lone_line_feed_swallows_no_request_unheard() {
    let reading = App::start(|seen| Response::new(full(seen.uri.to_string()))).await;
    // It answers before it has read anything.
    let hasty = App::streaming(|request| {
        Box::pin(async move {
            let path = request.uri().to_string();
            tokio::spawn(http_body_util::BodyExt::collect(request.into_body()));
            Response::new(full(path))
        })
    })
    .await;
    for (app, hasty) in [(&reading, false), (&hasty, true)] {
        let (_door, address) = door(external("shop", Protocol::Http, &[app.address])).await;
        for end in ["\n", "X: 1\n\n", "X: 1\r\n\n", "\nX: 1\r\n"] {
            let answer = after(address, end).await;
            // Nothing may follow the first answer: what would is the answer to another request than the client thinks.
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{hasty} {end:?}: {answer}");
            assert!(answer.contains("connection: close\r\n"), "{hasty} {end:?}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_body_that_ends_as_it_must_keeps_its_connection() {
    let app = App::start(|seen| Response::new(full(seen.uri.to_string()))).await;
    let (_door, address) = door(external("shop", Protocol::Http, &[app.address])).await;
    let mut stream = runtime::net::connect(address).await.unwrap();
    for path in ["/first", "/second"] {
        let request =
            format!("POST {path} HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(path.as_bytes()) {
            assert_ne!(soon("an answer", stream.read_buf(&mut answer)).await.unwrap(), 0, "{path}: {answer:?}");
        }
        assert!(!String::from_utf8_lossy(&answer).contains("connection: close"), "{path}");
    }
}

/// A header block of HTTP/2 (RFC 7541 §6.2.2, literals without indexing) for `GET http://a/`, with one field more.
fn block(name: &[u8], value: &[u8]) -> Vec<u8> {
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
    // `:method: GET`, `:path: /`, `:scheme: http` and `:authority` stand in the static table.
    [&[0x82, 0x84, 0x86, 0x01, 1, b'a', 0x00, length(name)][..], name, &[length(value)], value].concat()
}

#[tokio::test]
async fn what_http_1_1_could_read_otherwise_does_not_come_out_of_http2() {
    let app = Wire::saying(OK).await;
    let (_door, address) = door(external("shop", Protocol::Http, &[app.address])).await;
    for (name, value) in [
        // As it should be: else all of the others could be refused for what is around the field.
        (&b"x-a"[..], &b"1"[..]),
        // RFC 9113 §8.2.1 and §10.3.
        (b"x-a", b"1\r\nx-b: 2"),
        (b"x-a", b"1\0"),
        (b"x-a\r\nx-b", b"1"),
        (b"x a", b"1"),
        (b"x:a", b"1"),
        (b"X-A", b"1"),
        // §8.2.2.
        (b"connection", b"x-a"),
        (b"transfer-encoding", b"chunked"),
        (b"keep-alive", b"5"),
        (b"upgrade", b"websocket"),
        (b"te", b"gzip"),
        // §8.3.
        (b":odd", b"1"),
        (b":status", b"200"),
    ] {
        let of = format!("{}: {}", name.escape_ascii(), value.escape_ascii());
        let block = block(name, value);
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        bytes.extend([0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 1]);
        bytes.extend(block);
        let mut stream = runtime::net::connect(address).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        // Until RST_STREAM or GOAWAY comes, or nothing any more; an answer would be HEADERS.
        let refused = async {
            loop {
                let mut head = [0; 9];
                if stream.read_exact(&mut head).await.is_err() {
                    return true;
                }
                let mut rest = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
                stream.read_exact(&mut rest).await.unwrap();
                match head[3] {
                    1 => return false,
                    3 | 7 => return true,
                    _ => {}
                }
            }
        };
        let is_good = of == "x-a: 1";
        assert_eq!(soon("an end", refused).await, !is_good, "{of}");
    }
    assert!(app.heads().len() == 1 && app.last().contains("\r\nx-a: 1\r\n"), "{:?}", app.heads());
}

#[tokio::test]
async fn what_is_http_1_1_s_own_does_not_go_into_http2() {
    let (seen, mut sees) = tokio::sync::mpsc::unbounded_channel();
    let (address, _server) = http2(move |_, mut connection| {
        let seen = seen.clone();
        async move {
            while let Some((request, mut respond)) = next(&mut connection).await {
                seen.send((request.uri().clone(), request.headers().clone())).unwrap();
                let answer = Response::builder().header("grpc-status", "0").body(()).unwrap();
                respond.send_response(answer, true).unwrap();
            }
        }
    })
    .await;
    let (orders, _catalog) = called(address, Protocol::Grpc, Inbound::default()).await;
    let request = "POST /a/b HTTP/1.1\r\nHost: catalog\r\nContent-Type: application/grpc\r\nConnection: close, x-hop, te\r\n\
                   X-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: close\r\nUpgrade: h2c\r\nTE: trailers, gzip\r\n\
                   Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    raw(orders.outbound(), request.as_bytes()).await;
    let (uri, headers) = soon("the request", sees.recv()).await.unwrap();
    // RFC 9113 §8.3.1: the authority of the request is the pseudo-header's.
    assert_eq!((uri.authority().map(http::uri::Authority::as_str), uri.path()), (Some("catalog"), "/a/b"));
    for gone in ["host", "connection", "x-hop", "keep-alive", "proxy-connection", "upgrade", "transfer-encoding"] {
        assert!(!headers.contains_key(gone), "{gone}: {headers:?}");
    }
    assert_eq!(headers["te"], "trailers");
}
