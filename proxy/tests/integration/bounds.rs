//! How much a head may hold: what came is counted, and not what the mesh puts on at each hop.

use std::fmt::Write as _;

use http::Request;
use model::config::{Inbound, Protocol};
use runtime::http::empty;

use crate::kit::{App, Client, Wire, called, header, raw};

/// So many fields, one of which is `Host`, or an answer's length.
fn fields(count: usize) -> String {
    (1..count).fold(String::new(), |mut text, number| {
        let _ = write!(text, "X-{number}: 1\r\n");
        text
    })
}

fn own(head: &str) -> usize {
    head.lines().filter(|line| line.to_ascii_lowercase().starts_with("x-") && line.ends_with(": 1")).count()
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";

#[tokio::test]
async fn as_many_fields_as_a_request_may_have_come_through_both_sidecars() {
    let app = Wire::saying(OK).await;
    let (orders, _catalog) = called(app.address, Protocol::Http, Inbound::default()).await;
    for (count, status) in [(95, 200), (96, 200), (100, 200), (101, 431)] {
        let request = format!("GET / HTTP/1.1\r\nHost: catalog\r\n{}\r\n", fields(count));
        // hyper closes the connection behind an answer to a head that it has not read.
        let request = request.replacen("X-1: 1", "Connection: close", 1);
        let answer = raw(orders.outbound(), request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{count}: {answer}");
        if status == 200 {
            assert_eq!(own(&app.last()), count - 2);
        }
        let request =
            (1..=count).fold(Request::get("http://catalog/"), |request, n| request.header(format!("x-{n}"), "1"));
        let answer = Client::http2(orders.outbound()).await.send(request.body(empty()).unwrap()).await;
        assert_eq!(answer.status(), status, "{count} over HTTP/2");
        assert!(status != 200 || own(&app.last()) == count, "{}", app.last());
    }
}

#[tokio::test]
async fn a_head_as_long_as_it_may_be_comes_through_both_sidecars() {
    let app = Wire::saying(OK).await;
    let (orders, _catalog) = called(app.address, Protocol::Http, Inbound::default()).await;
    let request = |long: usize| {
        let rest = "GET / HTTP/1.1\r\nHost: catalog\r\nConnection: close\r\nX-Long: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nHost: catalog\r\nConnection: close\r\nX-Long: {}\r\n\r\n", "x".repeat(long - rest))
    };
    for (long, status) in [((64 << 10) - 1, 200), ((64 << 10) + 1, 431)] {
        let answer = raw(orders.outbound(), request(long).as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{long}: {answer:.200}");
    }
}

#[tokio::test]
async fn as_many_fields_as_an_answer_may_have_come_back() {
    for (count, status) in [(98, 200), (99, 200), (100, 200), (101, 502)] {
        let app = Wire::saying(format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{}\r\nab", fields(count))).await;
        let (mut orders, _catalog) = called(app.address, Protocol::Http, Inbound::default()).await;
        orders.part("catalog").routes[0].retry.attempts = 0;
        orders.apply();
        let request = b"GET / HTTP/1.1\r\nHost: catalog\r\nConnection: close\r\n\r\n";
        let answer = raw(orders.outbound(), request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{count}: {answer}");
        assert!(status != 200 || own(&answer) == count - 1, "{count}: {answer}");
    }
}

#[tokio::test]
async fn cookies_of_http2_are_one_field_for_everyone_else() {
    let app = App::start(|seen| {
        let lines: Vec<_> = seen.headers.get_all("cookie").iter().map(|value| value.to_str().unwrap()).collect();
        http::Response::builder().header("x-got", lines.join("|")).body(empty()).unwrap()
    })
    .await;
    let (orders, _catalog) = called(app.address, Protocol::Http, Inbound::default()).await;
    let request =
        Request::get("http://catalog/").header("cookie", "a=1").header("cookie", "b=2").header("cookie", "c=3; d=4");
    let answer = Client::http2(orders.outbound()).await.send(request.body(empty()).unwrap()).await;
    assert_eq!(header(&answer, "x-got"), "a=1; b=2; c=3; d=4");
}
