//! Queues over HTTP: leases, attempts, dead letters, duplicates, pushes.

use std::time::Duration;

use http::Request;
use model::config::{Consumption, Source};
use runtime::http::full;
use serde_json::json;

use crate::fixture::{Fixture, name, part, status};

#[tokio::test(start_paused = true)]
async fn a_message_is_sent_leased_and_acknowledged() {
    let fixture = Fixture::start(part()).await;
    let (status, receipt) = fixture.publish("queues/work", "1", "", r#"{"n":1}"#).await;
    assert_eq!((status, &receipt["durability"], &receipt["duplicate"]), (201, &json!("sync"), &json!(false)));
    let leases = fixture.lease("max=10&wait=2s").await;
    assert_eq!(leases.len(), 1);
    let lease = &leases[0];
    assert_eq!((&lease["attempt"], &lease["position"]), (&json!(1), &receipt["position"]));
    let event = json!({"specversion": "1.0", "id": "1", "source": "/orders", "type": "order.placed",
        "datacontenttype": "application/json", "data": {"n": 1}});
    assert_eq!(lease["event"], event);
    assert!(fixture.lease("").await.is_empty());
    assert_eq!(fixture.end(lease, "ack", "").await.0, 200);
    assert_eq!(fixture.end(lease, "ack", "").await.0, 409);
    let (status, counts) = fixture.ask("orders", "GET", "/v1/queues/work", "").await;
    assert_eq!((status, &counts["ready"], &counts["settled"]), (200, &json!(0), &json!(1)));
    assert_eq!(counts["published"], json!({"service/orders": 1}));
    assert_eq!(counts["delivered"], json!({"worker": 1}));
}

#[tokio::test(start_paused = true)]
async fn a_lease_waits_for_its_message() {
    let fixture = Fixture::start(part()).await;
    let publish = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        fixture.publish("queues/work", "1", "", "1").await
    };
    let start = tokio::time::Instant::now();
    let lease = async { (fixture.lease("wait=2s").await.len(), start.elapsed()) };
    let ((leases, after), _) = tokio::join!(lease, publish);
    assert_eq!(leases, 1);
    assert!(
        after < Duration::from_millis(1_500),
        "it is told when its message comes, and not when it gives up: {after:?}"
    );
}

/// Its messages were leased to nobody until the hold was over, and that counted as a failure of each.
#[tokio::test(start_paused = true)]
async fn who_goes_away_while_messages_are_read_for_him_has_not_failed_on_them() {
    let fixture = Fixture::start(part()).await;
    for id in ["1", "2", "3"] {
        fixture.publish("queues/work", id, "", "1").await;
    }
    // Now they are read from the disk, which takes a while.
    let fixture = fixture.crash(1, part()).await;
    for _ in 0..5 {
        let mut asked = Box::pin(fixture.lease("max=3&hold=1h&wait=1s"));
        while fixture.status()["queues"]["work"]["leased"] == 0 {
            assert!(futures_util::poll!(&mut asked).is_pending());
        }
        drop(asked);
        let work = &fixture.status()["queues"]["work"];
        assert_eq!((&work["leased"], &work["ready"]), (&json!(0), &json!(3)), "at once");
    }
    let leases = fixture.lease("max=3").await;
    assert_eq!(leases.len(), 3, "more often than attempts may fail");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_acknowledged_in_time_comes_again_until_it_is_dead() {
    let fixture = Fixture::start(part()).await;
    fixture.publish("queues/work", "1", "", "1").await;
    let start = tokio::time::Instant::now();
    for attempt in 1..=3 {
        let leases = fixture.lease("wait=60s&hold=1s").await;
        assert_eq!(leases[0]["attempt"], attempt);
    }
    // Two holds and the waits behind them; a destination's own hold is half a minute.
    assert!((2..5).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    fixture.until("a dead letter", |status| status["queues"]["work"]["dead"] == 1).await;
    let (_, dead) = fixture.ask("worker", "GET", "/v1/queues/work/dead-letters", "").await;
    let letter = &dead["dead_letters"][0];
    assert_eq!((&letter["attempts"], &letter["failed"], &letter["event"]["id"]), (&json!(3), &json!(3), &json!("1")));
    assert_eq!(letter["origin"], "queue work");
    let (status, redriven) = fixture.ask("worker", "POST", "/v1/queues/work/redrives", "").await;
    assert_eq!((status, &redriven["redriven"], &redriven["state"]), (200, &json!(1), &json!("done")));
    assert_eq!(fixture.lease("").await[0]["attempt"], 1, "its attempts are at zero");
}

#[tokio::test(start_paused = true)]
async fn a_nack_says_when_and_a_reject_why() {
    let fixture = Fixture::start(part()).await;
    fixture.publish("queues/work", "1", "", "1").await;
    let lease = fixture.lease("").await.remove(0);
    assert_eq!(fixture.end(&lease, "nack", r#"{"delay":"90s"}"#).await.0, 200);
    assert!(fixture.lease("wait=60s").await.is_empty());
    let lease = fixture.lease("wait=60s").await.remove(0);
    let (status, _) = fixture.end(&lease, "nack", r#"{"reject":true,"reason":"no such order"}"#).await;
    assert_eq!(status, 200);
    let (_, dead) = fixture.ask("worker", "GET", "/v1/queues/work/dead-letters", "").await;
    assert_eq!(dead["dead_letters"][0]["reason"], "rejected by its consumer: no such order");
    let position = dead["dead_letters"][0]["position"].as_u64().unwrap();
    let chosen = format!(r#"{{"positions":[{}]}}"#, position + 1);
    assert_eq!(fixture.ask("worker", "POST", "/v1/queues/work/redrives", &chosen).await.0, 404);
    let chosen = format!(r#"{{"positions":[{position}]}}"#);
    assert_eq!(fixture.ask("worker", "POST", "/v1/queues/work/redrives", &chosen).await.0, 200);
    assert_eq!(fixture.lease("").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_extended() {
    let fixture = Fixture::start(part()).await;
    fixture.publish("queues/work", "1", "", "1").await;
    let lease = fixture.lease("hold=1s").await.remove(0);
    let extend = async |lease| assert_eq!(fixture.end(lease, "extend", r#"{"hold":"100s"}"#).await.0, 200);
    extend(&lease).await;
    assert!(fixture.lease("wait=50s").await.is_empty());
    assert_eq!(fixture.end(&lease, "extend", r#"{"hold":"13h"}"#).await.0, 400);
    assert_eq!(fixture.end(&lease, "ack", "").await.0, 200);
    // And by no more than was asked for.
    fixture.publish("queues/work", "2", "", "1").await;
    extend(&fixture.lease("hold=1s").await[0]).await;
    assert!(fixture.lease("wait=50s").await.is_empty());
    assert_eq!(fixture.lease("wait=55s").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_same_message_is_kept_once_and_another_is_not_taken_for_it() {
    let fixture = Fixture::start(part()).await;
    let (_, first) = fixture.publish("queues/work", "1", "", "1").await;
    let (status, again) = fixture.publish("queues/work", "1", "", "1").await;
    assert_eq!((status, &again["duplicate"], &again["position"]), (201, &json!(true), &first["position"]));
    assert_eq!(fixture.publish("queues/work", "1", "", "2").await.0, 409);
    assert_eq!(fixture.lease("max=10").await.len(), 1);
    let both = tokio::join!(fixture.publish("queues/work", "2", "", "x"), fixture.publish("queues/work", "2", "", "x"));
    assert_eq!(both.0.1["position"], both.1.1["position"]);
    assert_ne!(both.0.1["duplicate"], both.1.1["duplicate"]);
}

#[tokio::test(start_paused = true)]
async fn what_has_expired_is_a_dead_letter() {
    let fixture = Fixture::start(part()).await;
    let request = Request::post("http://broker/v1/queues/work/messages")
        .header("ce-expirytime", "2001-01-01T00:00:00Z")
        .body(full("x"))
        .unwrap();
    assert_eq!(fixture.call("orders", request).await.0, 201);
    assert!(fixture.lease("").await.is_empty());
    assert_eq!(fixture.status()["queues"]["work"]["dead"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_says_when_to_come_back() {
    let mut part = part();
    part.queues.get_mut(&name("work")).unwrap().messages_max = 2;
    let fixture = Fixture::start(part).await;
    for id in ["1", "2"] {
        assert_eq!(fixture.publish("queues/work", id, "", "1").await.0, 201);
    }
    let request = Request::post("http://broker/v1/queues/work/messages").body(full("x")).unwrap();
    let (status, headers, _) = fixture.call("orders", request).await;
    assert_eq!((status.as_u16(), headers["retry-after"].to_str().unwrap()), (429, "1"));
    assert_eq!(fixture.publish("queues/work", "1", "", "1").await.0, 201, "a duplicate takes no room");
    let lease = fixture.lease("").await.remove(0);
    assert_eq!(fixture.end(&lease, "ack", "").await.0, 200);
    assert_eq!(fixture.publish("queues/work", "3", "", "1").await.0, 201);
}

#[tokio::test(start_paused = true)]
async fn a_queue_is_pushed_with_no_more_at_a_time_than_it_may() {
    let mut part = part();
    let consumption =
        Consumption { source: Source::Queue(name("work")), path: Some("/work".to_owned()), concurrency: 2 };
    part.consumers.insert(name("worker"), vec![consumption]);
    let mut fixture = Fixture::start(part).await;
    fixture.consume(|_| Box::pin(std::future::pending()));
    for id in 0..5 {
        fixture.publish("queues/work", &id.to_string(), "", "1").await;
    }
    fixture.until("two in flight", |status| status["queues"]["work"]["leased"] == 2).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(fixture.status()["queues"]["work"]["ready"], 3);
    fixture.consume(|_| status(200));
    fixture.until("all settled", |status| status["queues"]["work"]["settled"] == 5).await;
    let pushed = fixture.next_pushed().await;
    assert_eq!(pushed.uri, "http://worker/work");
    assert_eq!(fixture.status()["queues"]["work"]["redelivered"], 2, "the two that were never answered");
}

/// What was published comes back with the digits and the order that it had, whichever way it went in and out.
#[tokio::test(start_paused = true)]
async fn data_passes_byte_for_byte() {
    const DATA: &str = r#"{"z":19.90,"big":12345678901234567890123,"a":{"y":1.0e2,"x":[ 1 ]}}"#;
    let fixture = Fixture::start(part()).await;
    fixture.publish("queues/work", "binary", "", DATA).await;
    for (id, media_type, text) in [
        ("structured", "application/cloudevents+json", format!(r#"{{"id":"structured","data":{DATA}}}"#)),
        ("batched", "application/cloudevents-batch+json", format!(r#"[{{"data":{DATA},"id":"batched"}}]"#)),
    ] {
        let request = http::Request::post("http://broker/v1/queues/work/messages").header("content-type", media_type);
        let (status, _, body) = fixture.call("orders", request.body(runtime::http::full(text)).unwrap()).await;
        assert!(status.is_success(), "{id}: {body:?}");
    }
    let lease = http::Request::post("http://broker/v1/queues/work/leases?max=3").body(runtime::http::full("")).unwrap();
    let (_, _, body) = fixture.call("worker", lease).await;
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert_eq!(text.matches(&format!(r#""data":{DATA}"#)).count(), 3, "{text}");
}

/// A word that is said twice counts once.
#[tokio::test(start_paused = true)]
async fn a_lease_is_given_back_once() {
    let fixture = Fixture::start(part()).await;
    fixture.publish("queues/work", "1", "", "1").await;
    let lease = fixture.lease("").await.remove(0);
    assert_eq!(fixture.end(&lease, "nack", r#"{"delay":"5s"}"#).await.0, 200);
    for how in ["nack", "extend"] {
        assert_eq!(fixture.end(&lease, how, "").await.0, 409, "{how}");
    }
    let again = fixture.lease("wait=10s").await.remove(0);
    assert_eq!(again["attempt"], 2);
    assert_eq!(fixture.end(&again, "nack", r#"{"reject":true}"#).await.0, 200);
    let (_, dead) = fixture.ask("worker", "GET", "/v1/queues/work/dead-letters", "").await;
    assert_eq!(dead["dead_letters"][0]["failed"], 2, "{dead}");
}
