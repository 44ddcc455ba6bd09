//! Topics: push delivery, order per key, what answers mean, replay.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use crate::fixture::{Fixture, part, status};

const SUBSCRIPTION: &str = "/v1/topics/events/subscriptions/mailer";

#[tokio::test(start_paused = true)]
async fn an_event_is_pushed_as_a_cloud_event() {
    let mut fixture = Fixture::start(part()).await;
    let (status, receipt) = fixture.publish("topics/events", "1", "", r#"{"order":"o-7"}"#).await;
    assert_eq!(status, 201);
    let pushed = fixture.next_pushed().await;
    assert_eq!(pushed.uri, "http://mailer/events");
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/orders"),
        ("ce-type", "order.placed"),
        ("ce-partitionkey", "o-7"),
        ("content-type", "application/json"),
        ("content-length", "15"),
        ("meshwork-attempt", "1"),
    ] {
        assert_eq!(pushed.header(name), value, "{name}");
    }
    assert_eq!(pushed.header("traceparent").len(), 55);
    assert_eq!(pushed.body, r#"{"order":"o-7"}"#);
    fixture.until("settled", |status| status["topics"]["events"]["subscriptions"]["mailer"]["lag"] == 0).await;
    let (_, subscription) = fixture.ask("mailer", "GET", SUBSCRIPTION, "").await;
    assert_eq!(subscription["position"].as_u64(), receipt["position"].as_u64().map(|position| position + 1));
}

#[tokio::test(start_paused = true)]
async fn of_a_key_one_is_in_flight_and_the_next_comes_when_it_is_settled() {
    let fixture = Fixture::start(part()).await;
    let in_flight: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
    let most = Arc::new(AtomicU32::new(0));
    let tries = Arc::new(AtomicU32::new(0));
    let (keys, most_at_once) = (in_flight.clone(), most.clone());
    fixture.consume(move |pushed| {
        let (keys, most_at_once, tries) = (keys.clone(), most_at_once.clone(), tries.clone());
        Box::pin(async move {
            let key = pushed.header("ce-partitionkey").to_owned();
            {
                let mut keys = keys.lock().unwrap();
                *keys.entry(key.clone()).or_default() += 1;
                assert_eq!(keys[&key], 1, "two of key {key} at a time");
                most_at_once.fetch_max(keys.values().sum(), Ordering::Relaxed);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            *keys.lock().unwrap().get_mut(&key).unwrap() -= 1;
            // Every fourth attempt fails.
            let fails = tries.fetch_add(1, Ordering::Relaxed) % 4 == 3;
            (if fails { 500 } else { 200 }, Vec::new(), String::new())
        })
    });
    for id in 0..40 {
        let (status, _) = fixture.publish("topics/events", &format!("{id:02}"), &format!("key-{}", id % 4), "1").await;
        assert_eq!(status, 201);
    }
    let mut fixture = fixture;
    fixture.until("lag 0", |status| status["topics"]["events"]["subscriptions"]["mailer"]["lag"] == 0).await;
    assert_eq!(most.load(Ordering::Relaxed), 4, "keys are delivered beside each other");
    let mut last: BTreeMap<String, String> = BTreeMap::new();
    while let Ok(pushed) = fixture.pushed.try_recv() {
        let (key, id) = (pushed.header("ce-partitionkey").to_owned(), pushed.id().to_owned());
        let before = last.insert(key, id.clone());
        assert!(before.is_none_or(|before| before <= id), "a key's events come in order");
    }
}

#[tokio::test(start_paused = true)]
async fn the_answer_decides_what_becomes_of_an_event() {
    let answers: [(u16, &'static str, u32, &str); 4] = [
        (400, "", 1, "rejected by its consumer: answered 400 Bad Request: no such order"),
        (422, "", 1, "rejected by its consumer: answered 422 Unprocessable Entity: no such order"),
        (500, "", 3, "3 of 3 attempts failed: answered 500 Internal Server Error: no such order"),
        (404, "", 3, "3 of 3 attempts failed: answered 404 Not Found: no such order"),
    ];
    for (status, _, attempts, reason) in answers {
        let fixture = Fixture::start(part()).await;
        fixture.consume(move |_| Box::pin(async move { (status, Vec::new(), "no such order".to_owned()) }));
        fixture.publish("topics/events", "1", "k", "1").await;
        fixture.publish("topics/events", "2", "k", "2").await;
        fixture.until("dead", |status| status["topics"]["events"]["subscriptions"]["mailer"]["dead"] == 2).await;
        let (_, dead) = fixture.ask("mailer", "GET", &format!("{SUBSCRIPTION}/dead-letters"), "").await;
        let letter = &dead["dead_letters"][0];
        assert_eq!((&letter["attempts"], &letter["reason"]), (&json!(attempts), &json!(reason)));
        fixture.consume(|_| crate::fixture::status(200));
        let (_, redriven) = fixture.ask("mailer", "POST", &format!("{SUBSCRIPTION}/redrives"), "").await;
        assert_eq!(redriven["redriven"], 2);
        fixture.until("settled", |status| status["topics"]["events"]["subscriptions"]["mailer"]["settled"] == 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn later_is_not_a_failure_and_is_as_late_as_was_asked() {
    for (code, header, seconds) in [
        (503, ("retry-after", "100"), 400..402),
        (429, ("retry-after", "100"), 400..402),
        // By the destination's own backoff: 200 ms, and twice as much each time.
        (403, ("proxy-status", "meshwork; error=http_request_denied"), 1..4),
    ] {
        let mut fixture = Fixture::start(part()).await;
        fixture.consume(move |_| Box::pin(async move { (code, vec![header], String::new()) }));
        fixture.publish("topics/events", "1", "", "1").await;
        let start = tokio::time::Instant::now();
        // More often than attempts may fail.
        for attempt in 1..=5 {
            assert_eq!(fixture.next_pushed().await.header("meshwork-attempt"), attempt.to_string());
        }
        assert!(seconds.contains(&start.elapsed().as_secs()), "{code}: {:?}", start.elapsed());
        fixture.consume(|_| status(204));
        fixture.until("settled", |status| status["topics"]["events"]["subscriptions"]["mailer"]["settled"] == 1).await;
    }
}

/// What the consumer's sidecar will never pass on came again up to 10,000 times.
#[tokio::test(start_paused = true)]
async fn what_the_mesh_will_never_pass_on_is_a_failure() {
    for code in [400, 413, 431] {
        let fixture = Fixture::start(part()).await;
        let story = ("proxy-status", "meshwork-mailer; error=http_request_error");
        fixture.consume(move |_| Box::pin(async move { (code, vec![story], "too long".to_owned()) }));
        fixture.publish("topics/events", "1", "", "1").await;
        fixture.until("dead", |status| status["topics"]["events"]["subscriptions"]["mailer"]["dead"] == 1).await;
        let (_, dead) = fixture.ask("mailer", "GET", &format!("{SUBSCRIPTION}/dead-letters"), "").await;
        let reason = dead["dead_letters"][0]["reason"].as_str().unwrap();
        assert!(reason.starts_with(&format!("3 of 3 attempts failed: answered {code}")), "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_answer_is_a_failure() {
    let fixture = Fixture::start(part()).await;
    fixture.consume(|_| Box::pin(std::future::pending()));
    let start = tokio::time::Instant::now();
    fixture.publish("topics/events", "1", "", "1").await;
    fixture.until("dead", |status| status["topics"]["events"]["subscriptions"]["mailer"]["dead"] == 1).await;
    let (_, dead) = fixture.ask("mailer", "GET", &format!("{SUBSCRIPTION}/dead-letters"), "").await;
    assert_eq!(dead["dead_letters"][0]["reason"], "3 of 3 attempts failed: no answer within 30s");
    assert!((90..95).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_subscription_is_paused_and_replayed() {
    let mut fixture = Fixture::start(part()).await;
    let (_, paused) = fixture.ask("mailer", "POST", &format!("{SUBSCRIPTION}/pause"), r#"{"paused":true}"#).await;
    assert_eq!(paused["paused"], true);
    let mut positions = Vec::new();
    for id in ["1", "2", "3"] {
        positions.push(fixture.publish("topics/events", id, "", id).await.1["position"].as_u64().unwrap());
    }
    // Time in which they would come.
    let moment = Duration::from_secs(10);
    tokio::time::sleep(moment).await;
    assert_eq!(fixture.status()["topics"]["events"]["subscriptions"]["mailer"]["lag"], 3);
    assert!(fixture.pushed.try_recv().is_err());
    fixture.ask("mailer", "POST", &format!("{SUBSCRIPTION}/pause"), r#"{"paused":false}"#).await;
    let settled = |count: u64| {
        move |status: &serde_json::Value| status["topics"]["events"]["subscriptions"]["mailer"]["settled"] == count
    };
    fixture.until("settled", settled(3)).await;
    for (body, replayed) in [
        (r#"{"to":"earliest"}"#.to_owned(), vec!["1", "2", "3"]),
        (format!(r#"{{"position":{}}}"#, positions[1]), vec!["2", "3"]),
        (r#"{"time_ms":0}"#.to_owned(), vec!["1", "2", "3"]),
        (r#"{"to":"latest"}"#.to_owned(), vec![]),
    ] {
        while fixture.pushed.try_recv().is_ok() {}
        let before = fixture.status()["topics"]["events"]["subscriptions"]["mailer"]["settled"].as_u64().unwrap();
        let (status, answer) = fixture.ask("mailer", "POST", &format!("{SUBSCRIPTION}/seek"), &body).await;
        assert_eq!(status, 200, "{answer}");
        fixture.until("settled", settled(before + replayed.len() as u64)).await;
        tokio::time::sleep(moment).await;
        let mut ids = Vec::new();
        while let Ok(pushed) = fixture.pushed.try_recv() {
            ids.push(pushed.id().to_owned());
        }
        ids.sort();
        assert_eq!(ids, replayed, "{body}");
    }
    let (_, page) = fixture.ask("mailer", "GET", "/v1/topics/events/messages?max=2", "").await;
    assert_eq!((page["events"].as_array().unwrap().len(), page["events"][1]["event"]["id"].as_str()), (2, Some("2")));
    let path = format!("/v1/topics/events/messages?from={}", page["next"]);
    let (_, page) = fixture.ask("mailer", "GET", &path, "").await;
    assert_eq!(page["events"][0]["event"]["data"], 3);
}

/// 'latest' of a topic whose events had expired was position 0, and a start read expired events into it and pushed them.
#[tokio::test(start_paused = true)]
async fn what_has_expired_does_not_come_again_after_a_restart() {
    let mut short = part();
    short.topics.get_mut(&crate::fixture::name("events")).unwrap().keep = Duration::from_millis(1);
    for (is_sought, after) in [(true, part()), (false, short.clone())] {
        let fixture = Fixture::start(short.clone()).await;
        fixture.ask("mailer", "POST", &format!("{SUBSCRIPTION}/pause"), r#"{"paused":true}"#).await;
        let position = fixture.publish("topics/events", "1", "", "1").await.1["position"].as_u64().unwrap();
        fixture.until("expired", |status| status["topics"]["events"]["events"] == 0).await;
        assert_eq!(fixture.status()["topics"]["events"]["end"], position + 1, "where it ends is not forgotten");
        if is_sought {
            let seek = format!("{SUBSCRIPTION}/seek");
            assert_eq!(fixture.ask("mailer", "POST", &seek, r#"{"to":"latest"}"#).await.0, 200);
        }
        fixture.ask("mailer", "POST", &format!("{SUBSCRIPTION}/pause"), r#"{"paused":false}"#).await;
        let mut fixture = fixture.crash(1, after).await;
        fixture.publish("topics/events", "2", "", "2").await;
        assert_eq!(fixture.next_pushed().await.id(), "2", "sought: {is_sought}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_counted_can_be_read() {
    let fixture = Fixture::start(part()).await;
    fixture.publish("topics/events", "1", "", "1").await;
    fixture.until("settled", |status| status["topics"]["events"]["subscriptions"]["mailer"]["settled"] == 1).await;
    let text = fixture.metrics.encode();
    for line in [
        r#"meshwork_broker_published_messages_total{destination="events"} 1"#,
        r#"meshwork_broker_settled_messages_total{destination="events",subscription="mailer"} 1"#,
        r#"meshwork_broker_lag_messages{destination="events",subscription="mailer"} 0"#,
        "meshwork_broker_commit_seconds_count",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

/// Whatever its `Retry-After` says, a consumer that is out of order is not asked thousands of times a second.
#[tokio::test(start_paused = true)]
async fn later_has_a_floor() {
    for header in ["0", "Thu, 01 Jan 1970 00:00:05 GMT"] {
        let mut fixture = Fixture::start(part()).await;
        fixture.consume(move |_| Box::pin(async move { (503, vec![("retry-after", header)], String::new()) }));
        let began = tokio::time::Instant::now();
        fixture.publish("topics/events", "1", "", "{}").await;
        let mut deliveries = 0;
        while let Ok(Some(_)) = tokio::time::timeout_at(began + Duration::from_secs(10), fixture.pushed.recv()).await {
            deliveries += 1;
        }
        assert!((9..20).contains(&deliveries), "{header}: {deliveries} within 10 s");
    }
}
