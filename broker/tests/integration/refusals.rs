//! What bad input gets.

use broker::{Broker, Options};
use http::Request;
use runtime::http::full;
use serde_json::json;

use crate::fixture::{Fixture, part};

#[tokio::test(start_paused = true)]
async fn a_refusal_says_what_is_wrong() {
    let fixture = Fixture::start(part()).await;
    for (service, method, path, body, status, detail) in [
        ("orders", "POST", "/v1/queues/wrk/messages", "x", 404, "did you mean work?"),
        ("worker", "POST", "/v1/queues/work/messages", "x", 403, "add \"work\" to services.worker.publishes"),
        ("orders", "POST", "/v1/queues/work/leases", "", 403, "add {queue: work} to services.orders.consumes"),
        ("orders", "POST", "/v1/topics/work/messages", "x", 404, "work is a queue"),
        ("orders", "POST", "/v1/queues/work/messages?priority=1", "x", 400, "priority"),
        ("worker", "POST", "/v1/queues/work/leases?maximum=1", "", 400, "maximum"),
        ("worker", "POST", "/v1/queues/work/leases?wait=2", "", 400, "unit"),
        ("worker", "POST", "/v1/queues/work/leases?max=0", "", 400, "max"),
        ("worker", "POST", "/v1/queues/work/leases/x/ack", "", 400, "lease"),
        ("worker", "POST", "/v1/queues/work/leases/1-1/ack", "", 409, "over"),
        ("worker", "POST", "/v1/queues/work/leases/1-1/nack", r#"{"dely":"1s"}"#, 400, "dely"),
        ("worker", "GET", "/v1/topics/events/subscriptions/mailer", "", 403, "events"),
        ("mailer", "GET", "/v1/topics/events/subscriptions/other", "", 403, "other"),
        ("mailer", "POST", "/v1/topics/events/subscriptions/mailer/seek", r#"{"to":"now"}"#, 400, "now"),
        ("orders", "GET", "/v1/quues", "", 404, "resource"),
        ("orders", "DELETE", "/v1/status", "", 405, "DELETE"),
    ] {
        let (found, problem) = fixture.ask(service, method, path, body).await;
        assert_eq!(found, status, "{method} {path}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{method} {path}: {problem}");
        assert_eq!(problem["status"], status);
    }
    let (_, problem) = fixture.ask("orders", "POST", "/v1/queues/wrk/messages", "x").await;
    assert_eq!(problem["near"], json!(["work"]));
    assert_eq!(fixture.status()["queues"]["work"]["published"], json!({}), "nothing was stored");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_event_or_too_large_is_not_taken() {
    let fixture = Fixture::start(part()).await;
    let post = || Request::post("http://broker/v1/queues/work/messages");
    for (request, status) in [
        (post().body(full(vec![0; (1 << 20) + 1])), 413),
        (post().header("ce-some_thing", "x").body(full("x")), 400),
        (post().header("ce-specversion", "0.3").body(full("x")), 400),
        (post().header("ce-expirytime", "tomorrow").body(full("x")), 400),
        (post().header("content-type", "application/cloudevents+json").body(full("x")), 400),
        (post().header("content-type", "application/cloudevents+avro").body(full("x")), 400),
        (post().header("content-type", "application/cloudevents+json").body(full(r#"{"id":"s"}"#)), 201),
    ] {
        let (found, headers, body) = fixture.call("orders", request.unwrap()).await;
        assert_eq!(found.as_u16(), status, "{body:?}");
        if status != 201 {
            assert_eq!(headers["content-type"], "application/problem+json");
        }
    }
    let batch = post()
        .header("content-type", "application/cloudevents-batch+json")
        .body(full(r#"[{"id":"a","data":1},{"id":"a","data":2},{"some_thing":"x"},{"id":"b"}]"#))
        .unwrap();
    let (status, _, body) = fixture.call("orders", batch).await;
    assert_eq!(status, 200);
    let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let results = answer["results"].as_array().unwrap();
    let refused: Vec<bool> = results.iter().map(|result| result.get("refused").is_some()).collect();
    assert_eq!(refused, [false, true, true, false]);
}

#[tokio::test(start_paused = true)]
async fn who_has_no_identity_or_comes_too_early_is_told() {
    let fixture = Fixture::start(part()).await;
    let request = Request::post("http://broker/v1/queues/work/messages").body(full("x")).unwrap();
    assert_eq!(fixture.broker.handler().call(request).await.status(), 403);

    let (_signal, drain) = runtime::drain::channel();
    let broker = Broker::start(Options {
        mesh: crate::fixture::name("shop"),
        disk: std::sync::Arc::new(storage::disk::memory::MemoryDisk::default()),
        dir: "/log".into(),
        place: runtime::lanes::Place::Inline,
        metrics: runtime::metrics::Metrics::default(),
        caller: fixture.broker.handler(),
        drain,
    })
    .unwrap();
    let mut request = Request::post("http://broker/v1/queues/work/messages").body(full("x")).unwrap();
    let peer = runtime::http::Peer("spiffe://shop/service/orders".parse().unwrap());
    request.extensions_mut().insert(peer);
    let response = broker.handler().call(request).await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
}
