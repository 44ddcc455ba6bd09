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
async fn a_refusal_says_who_made_it() {
    let fixture = Fixture::start(part()).await;
    for (service, method, path, error) in [
        ("orders", "POST", "/v1/queues/wrk/messages", "destination_not_found"),
        ("worker", "POST", "/v1/queues/work/messages", "http_request_denied"),
        ("worker", "POST", "/v1/queues/work/leases?max=0", "http_request_error; status-code=400"),
        ("worker", "GET", "/v1/queues/work/redrives", "destination_not_found"),
        ("orders", "PUT", "/v1/status", "http_request_error; status-code=405"),
    ] {
        let request =
            Request::builder().method(method).uri(format!("http://broker{path}")).header("x-request-id", "r-7");
        let (status, headers, body) = fixture.call(service, request.body(full("")).unwrap()).await;
        let said = headers["proxy-status"].to_str().unwrap();
        assert!(said.starts_with(&format!("broker; error={error}; details=\"")), "{method} {path}: {said}");
        assert_eq!(headers["content-type"], "application/problem+json");
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&problem["instance"], &problem["status"]), (&json!("r-7"), &json!(status.as_u16())));
    }
}

#[tokio::test(start_paused = true)]
async fn what_would_be_ignored_is_refused() {
    let fixture = Fixture::start(part()).await;
    fixture.publish("queues/work", "1", "", "1").await;
    let lease = fixture.lease("").await.remove(0);
    let path = |how: &str| format!("/v1/queues/work/leases/{}/{how}", lease["lease"].as_str().unwrap());
    let long = format!(r#"{{"reason":"{}"}}"#, "x".repeat(1_025));
    for (path, body, detail) in [
        (path("ack?sync=no"), "", "sync=no"),
        (path("ack"), r#"{"durability":"os"}"#, "durability"),
        (path("nack"), r#"{"reject":true,"delay":"1s"}"#, "delay"),
        (path("nack"), r#"{"delay":"13h"}"#, "12h"),
        (path("nack"), &long, "1024 bytes"),
        (path("nack"), "reject", "body"),
        (path("extend"), r#"{"hold":"0s"}"#, "nothing"),
        ("/v1/queues/work/leases".to_owned(), r#"{"max":10}"#, "max"),
        ("/v1/queues/work/redrives?rate=1".to_owned(), "", "rate=1"),
        ("/v1/queues/work/redrives".to_owned(), r#"{"rate":0}"#, "rate"),
        ("/v1/queues/work/redrives".to_owned(), r#"{"rte":1}"#, "rte"),
    ] {
        let (status, problem) = fixture.ask("worker", "POST", &path, body).await;
        assert_eq!(status, 400, "{path} {body}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{path} {body}: {problem}");
    }
    // Nor does it depend on what the body is said to be.
    let request = Request::post(format!("http://broker{}", path("nack"))).body(full(r#"{"rejct":true}"#)).unwrap();
    assert_eq!(fixture.call("worker", request).await.0, 400);
    assert_eq!(fixture.end(&lease, "ack", "").await.0, 200, "and nothing has happened");
    for max in [0, 1_001] {
        let path = format!("/v1/queues/work/dead-letters?max={max}");
        assert_eq!(fixture.ask("worker", "GET", &path, "").await.0, 400);
    }
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
        .body(full(
            r#"[{"id":"a","data":1},{"id":"a","data":2},{"some_thing":"x"},{"specversion":"0.3"},7,{"id":"b"}]"#,
        ))
        .unwrap();
    let (status, _, body) = fixture.call("orders", batch).await;
    assert_eq!(status, 200);
    let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let results = answer["results"].as_array().unwrap();
    let refused: Vec<bool> = results.iter().map(|result| result.get("refused").is_some()).collect();
    assert_eq!(refused, [false, true, true, true, true, false], "one that is none does not hold back the others");
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
