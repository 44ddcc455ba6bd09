//! Dead letters that are put back: how fast, how far, and what a crash leaves.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::fixture::{Fixture, part, status};

const REDRIVES: &str = "/v1/queues/work/redrives";
const SUBSCRIPTION: &str = "/v1/topics/events/subscriptions/mailer";

/// A broker with so many dead letters in the queue `work`.
async fn dead(count: usize) -> Fixture {
    let fixture = Fixture::start(part()).await;
    for id in 0..count {
        fixture.publish("queues/work", &id.to_string(), "", "1").await;
    }
    for lease in fixture.lease(&format!("max={count}")).await {
        assert_eq!(fixture.end(&lease, "nack", r#"{"reject":true}"#).await.0, 200);
    }
    fixture
}

fn counts(fixture: &Fixture) -> (u64, u64) {
    let work = &fixture.status()["queues"]["work"];
    (work["ready"].as_u64().unwrap(), work["dead"].as_u64().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_redrive_has_a_rate_tells_its_progress_and_can_be_cancelled() {
    let fixture = dead(30).await;
    assert_eq!(fixture.ask("worker", "GET", REDRIVES, "").await.0, 404, "there was none");
    let start = tokio::time::Instant::now();
    let (status, begun) = fixture.ask("worker", "POST", REDRIVES, r#"{"rate":10}"#).await;
    assert_eq!((status, &begun["state"], &begun["redriven"]), (202, &json!("running"), &json!(1)), "{begun}");
    assert_eq!((&begun["remaining"], &begun["rate"]), (&json!(29), &json!(10)));
    let (status, problem) = fixture.ask("worker", "POST", REDRIVES, "").await;
    assert_eq!((status, &problem["title"]), (409, &json!("A redrive is running")), "{problem}");
    fixture.until("ten", |status| status["queues"]["work"]["ready"].as_u64() >= Some(10)).await;
    // Nine more at ten a second; a redrive that does not wait, or waits twice as long, is another rate.
    assert!((900..1_500).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    let (status, cancelled) = fixture.ask("worker", "DELETE", REDRIVES, "").await;
    assert_eq!((status, &cancelled["state"]), (200, &json!("cancelled")));
    let (ready, dead) = counts(&fixture);
    assert_eq!((cancelled["redriven"].as_u64(), ready + dead), (Some(ready), 30));
    assert_eq!(fixture.ask("worker", "GET", REDRIVES, "").await.1, cancelled);
    let (_, rest) = fixture.ask("worker", "POST", REDRIVES, "").await;
    assert_eq!(
        (&rest["state"], rest["redriven"].as_u64()),
        (&json!("done"), Some(dead)),
        "the rest fits into one step"
    );
    let leases = fixture.lease("max=100").await;
    assert_eq!(leases.len(), 30);
    assert!(leases.iter().all(|lease| lease["attempt"] == 1), "attempts begin at zero");
}

#[tokio::test(start_paused = true)]
async fn what_dies_anew_meanwhile_stays_dead() {
    let fixture = Fixture::start(part()).await;
    fixture.consume(|_| status(400));
    for id in 0..20 {
        fixture.publish("topics/events", &id.to_string(), "", "1").await;
    }
    let dead =
        |count: u64| move |status: &Value| status["topics"]["events"]["subscriptions"]["mailer"]["died"] == count;
    fixture.until("dead", dead(20)).await;
    let redrives = format!("{SUBSCRIPTION}/redrives");
    assert_eq!(fixture.ask("mailer", "POST", &redrives, r#"{"rate":5}"#).await.0, 202);
    fixture.until("dead again", dead(40)).await;
    let (_, ended) = fixture.ask("mailer", "DELETE", &redrives, "").await;
    assert_eq!((&ended["state"], &ended["redriven"]), (&json!("done"), &json!(20)));
    assert_eq!(fixture.status()["topics"]["events"]["subscriptions"]["mailer"]["dead"], 20);
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_the_middle_loses_nothing_and_doubles_nothing() {
    for seed in 0..10 {
        let fixture = dead(40).await;
        fixture.ask("worker", "POST", REDRIVES, r#"{"rate":20}"#).await;
        fixture.until("some", |status| status["queues"]["work"]["ready"].as_u64() >= Some(2 + seed)).await;
        let fixture = fixture.crash(seed, part()).await;
        let (ready, dead) = counts(&fixture);
        assert!(ready >= 2 + seed && dead > 0 && ready + dead == 40, "seed {seed}: {ready} ready, {dead} dead");
        assert_eq!(fixture.ask("worker", "GET", REDRIVES, "").await.0, 404, "the task has ended with its broker");
        let (_, rest) = fixture.ask("worker", "POST", REDRIVES, "").await;
        assert_eq!((&rest["state"], rest["redriven"].as_u64()), (&json!("done"), Some(dead)));
        let leases = fixture.lease("max=100").await;
        let ids: BTreeSet<&str> = leases.iter().map(|lease| lease["event"]["id"].as_str().unwrap()).collect();
        assert_eq!((leases.len(), ids.len()), (40, 40), "seed {seed}");
    }
}
