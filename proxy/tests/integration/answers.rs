//! Answers of applications as raw bytes: what is framed in two ways is not passed on so, and what has no body gets none.

use model::config::Protocol;

use crate::kit::{Mesh, Wire, external, raw};

/// What a client gets when the application says `said`: the head and what follows it.
async fn got(request: &str, said: &'static [u8]) -> (String, String) {
    let app = Wire::saying(said).await;
    let mesh = Mesh::new(&["catalog"]);
    let mut orders =
        mesh.caller("orders", vec![("catalog", external("catalog", Protocol::Http, &[app.address]))]).await;
    orders.part("catalog").routes[0].retry.attempts = 0;
    orders.apply();
    let answer = raw(orders.outbound(), request.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer, but {answer:?}"));
    (head.to_owned(), body.to_owned())
}

const GET: &str = "GET / HTTP/1.1\r\nHost: catalog\r\nConnection: close\r\n\r\n";
const HEAD: &str = "HEAD / HTTP/1.1\r\nHost: catalog\r\nConnection: close\r\n\r\n";
const GET_1_0: &str = "GET / HTTP/1.0\r\nHost: catalog\r\n\r\n";

#[tokio::test]
async fn each_answer_is_framed_anew() {
    for (request, said, status, body) in [
        (GET, &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"[..], "200", "ab"),
        (
            GET,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
            "200",
            "2\r\nab\r\n0\r\n\r\n",
        ),
        // RFC 9112 §6.3: the coding wins, and the length must not be passed on.
        (
            GET,
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
            "200",
            "2\r\nab\r\n0\r\n\r\n",
        ),
        (
            GET,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n2\r\nab\r\n0\r\n\r\n",
            "200",
            "2\r\nab\r\n0\r\n\r\n",
        ),
        // Ended by the connection's end.
        (GET, b"HTTP/1.1 200 OK\r\n\r\nab", "200", "2\r\nab\r\n0\r\n\r\n"),
        (GET_1_0, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", "200", "ab"),
        // Without a body, whatever their fields say (RFC 9110 §6.4.1).
        (HEAD, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "200", ""),
        (HEAD, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "200", ""),
        (GET, b"HTTP/1.1 204 No Content\r\n\r\n", "204", ""),
        (GET, b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", "204", ""),
        // RFC 9112 §5.1: a proxy takes the space before the colon off.
        (GET, b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length : 2\r\n\r\nab", "200", "ab"),
        // RFC 9110 §15: a status that is not known goes through.
        (GET, b"HTTP/1.1 299 Odd\r\nContent-Length: 2\r\n\r\nab", "299", "ab"),
        (GET, b"HTTP/1.1 599 Odd\r\nContent-Length: 2\r\n\r\nab", "599", "ab"),
        (GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", "304", ""),
        // What comes before the answer is not passed on: hyper's servers cannot say it.
        (
            GET,
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
            "200",
            "ab",
        ),
        // Not understood.
        (GET, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "502", "broken"),
        (GET, b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nab", "502", "broken"),
        (GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", "502", "coding"),
        (GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nab", "502", "coding"),
        (GET, b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n", "502", "broken"),
        (GET, b"nonsense\r\n\r\n", "502", "broken"),
        (GET, b"", "502", "broken"),
    ] {
        let of = format!("{}{}", request.escape_debug(), said.escape_ascii());
        let (head, got) = got(request, said).await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")) || head.starts_with(&format!("HTTP/1.0 {status} ")),
            "{of}: {head}"
        );
        if status == "502" {
            assert!(head.contains("\r\nproxy-status: meshwork; error=") && got.contains(body), "{of}: {head}\n{got}");
            continue;
        }
        assert_eq!(got, body, "{of}: {head}");
        let framings = (head.contains("content-length:"), head.contains("transfer-encoding:"));
        assert_ne!(framings, (true, true), "{of}: {head}");
    }
}
