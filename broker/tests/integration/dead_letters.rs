//! Dead letters that are dropped, and what becomes of a group that has as many as it may.

use std::collections::BTreeSet;

use http::Request;
use runtime::http::full;
use serde_json::{Value, json};

use crate::fixture::{Fixture, part, status};

const DEAD_LETTERS: &str = "/v1/queues/work/dead-letters";
const SUBSCRIPTION: &str = "/v1/topics/events/subscriptions/mailer";

/// A broker with so many dead letters in the queue `work`, and their positions.
async fn dead(count: usize) -> (Fixture, Vec<u64>) {
    let fixture = Fixture::start(part()).await;
    for id in 0..count {
        fixture.publish("queues/work", &id.to_string(), "", "1").await;
    }
    for lease in fixture.lease(&format!("max={count}")).await {
        assert_eq!(fixture.end(&lease, "nack", r#"{"reject":true}"#).await.0, 200);
    }
    let positions = positions(&fixture).await;
    (fixture, positions)
}

async fn positions(fixture: &Fixture) -> Vec<u64> {
    let (_, page) = fixture.ask("worker", "GET", DEAD_LETTERS, "").await;
    page["dead_letters"].as_array().unwrap().iter().map(|letter| letter["position"].as_u64().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_was_dropped_is_gone_whatever_crashes_and_the_rest_is_there() {
    for seed in 0..10 {
        let (fixture, all) = dead(5).await;
        let chosen = format!("{DEAD_LETTERS}?position={}&position={}", all[1], all[3]);
        assert_eq!(fixture.ask("worker", "DELETE", &chosen, "").await, (200, json!({"dropped": 2})));
        let fixture = fixture.crash(seed, part()).await;
        assert_eq!(positions(&fixture).await, [all[0], all[2], all[4]], "seed {seed}");
        assert_eq!(fixture.ask("worker", "DELETE", DEAD_LETTERS, "").await, (200, json!({"dropped": 3})));
        let fixture = fixture.crash(seed, part()).await;
        let work = &fixture.status()["queues"]["work"];
        assert_eq!(
            (&work["dead"], &work["ready"]),
            (&json!(0), &json!(0)),
            "seed {seed}: nor do they come back as messages"
        );
        assert_eq!(fixture.ask("worker", "DELETE", DEAD_LETTERS, "").await, (200, json!({"dropped": 0})));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_meant_is_not_dropped() {
    let (fixture, all) = dead(2).await;
    let position = all[0];
    for (service, query, body, status, detail) in [
        ("worker", format!("?position={position}&position={}", all[1] + 1), "", 404, "no dead letter at position"),
        ("worker", "?position=".to_owned(), "", 400, "position="),
        ("worker", format!("?position={position},{}", all[1]), "", 400, "position="),
        ("worker", format!("?positions={position}"), "", 400, "positions"),
        ("worker", String::new(), r#"{"positions":[1]}"#, 400, "positions"),
        ("orders", String::new(), "", 403, "services.orders.consumes"),
    ] {
        let (found, problem) = fixture.ask(service, "DELETE", &format!("{DEAD_LETTERS}{query}"), body).await;
        assert_eq!(found, status, "{query} {body}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{query} {body}: {problem}");
    }
    let (found, _) = fixture.ask("worker", "DELETE", &format!("{SUBSCRIPTION}/dead-letters"), "").await;
    assert_eq!(found, 403, "another service's subscription");
    assert_eq!(positions(&fixture).await, all);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_drops_its_own() {
    let fixture = Fixture::start(part()).await;
    fixture.consume(|_| status(400));
    for id in 0..3 {
        fixture.publish("topics/events", &id.to_string(), "", "1").await;
    }
    let mailer = |status: &Value| status["topics"]["events"]["subscriptions"]["mailer"].clone();
    fixture.until("dead", |status| mailer(status)["dead"] == 3).await;
    let path = format!("{SUBSCRIPTION}/dead-letters");
    let (_, page) = fixture.ask("mailer", "GET", &path, "").await;
    let position = &page["dead_letters"][1]["position"];
    let chosen = format!("{path}?position={position}");
    assert_eq!(fixture.ask("mailer", "DELETE", &chosen, "").await, (200, json!({"dropped": 1})));
    let fixture = fixture.crash(1, part()).await;
    let (_, left) = fixture.ask("mailer", "GET", &path, "").await;
    let ids: BTreeSet<&str> =
        left["dead_letters"].as_array().unwrap().iter().map(|letter| letter["event"]["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["0", "2"].into());
    assert_eq!(mailer(&fixture.status())["lag"], 0, "it is not an event again");
}

/// A queue with as many dead letters as it may have, 100,000, and one message that has not expired.
async fn full_of_dead() -> Fixture {
    let fixture = Fixture::start(part()).await;
    for batch in 0..100 {
        let event = |id| json!({"id": format!("{batch}-{id}"), "expirytime": "2001-01-01T00:00:00Z"});
        let events: Vec<Value> = (0..1_000).map(event).collect();
        let request = Request::post("http://broker/v1/queues/work/messages")
            .header("content-type", "application/cloudevents-batch+json")
            .body(full(Value::from(events).to_string()))
            .unwrap();
        assert_eq!(fixture.call("orders", request).await.0, 200);
    }
    fixture.publish("queues/work", "good", "", "1").await;
    fixture
}

/// It was an empty answer, as if there were nothing to do, and the only way out was to wait or to meet all of them again.
#[tokio::test(start_paused = true)]
async fn a_queue_with_too_many_dead_letters_says_so_and_goes_on_when_some_are_dropped() {
    let fixture = full_of_dead().await;
    let lease = async |fixture: &Fixture| fixture.ask("worker", "POST", "/v1/queues/work/leases?wait=1s", "").await;
    for seed in 0..2 {
        let (status, problem) = lease(&fixture).await;
        assert_eq!((status, &problem["title"]), (409, &json!("Too many dead letters")), "seed {seed}: {problem}");
        for word in ["queue work", "100000", "GET …/dead-letters", "POST …/redrives", "DELETE …/dead-letters"] {
            assert!(problem["detail"].as_str().unwrap().contains(word), "{word} in {problem}");
        }
    }
    let work = fixture.status()["queues"]["work"].clone();
    assert_eq!(
        (&work["blocked_by_dead_letters"], &work["dead"], &work["ready"]),
        (&json!(true), &json!(100_000), &json!(1))
    );
    let metrics = fixture.metrics.encode();
    for line in [
        r#"meshwork_broker_dead_letters{destination="work"} 100000"#,
        r#"meshwork_broker_blocked_by_dead_letters{destination="work"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    let fixture = fixture.crash(1, part()).await;
    assert_eq!(lease(&fixture).await.0, 409, "a restart lets nothing through");
    let chosen = format!("{DEAD_LETTERS}?position={}", positions(&fixture).await[0]);
    assert_eq!(fixture.ask("worker", "DELETE", &chosen, "").await, (200, json!({"dropped": 1})));
    let (_, given) = lease(&fixture).await;
    assert_eq!(given["leases"][0]["event"]["id"], "good");
    assert_eq!(fixture.ask("worker", "DELETE", DEAD_LETTERS, "").await, (200, json!({"dropped": 99_999})));
    let fixture = fixture.crash(2, part()).await;
    let work = &fixture.status()["queues"]["work"];
    assert_eq!((&work["dead"], &work["ready"], &work["died"]), (&json!(0), &json!(1), &json!(100_000)));
}
