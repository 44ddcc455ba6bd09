//! What a lease is worth once somebody else has got its message.

use serde_json::{Value, json};

use crate::fixture::{Fixture, part};

/// The old lease does not count any more, and the new one does.
async fn check_fenced(fixture: &Fixture, old: &Value, new: &Value, what: &str) {
    assert_eq!(old["position"], new["position"], "{what}: it is the same message");
    for (how, body) in [("ack", ""), ("nack", ""), ("nack", r#"{"reject":true}"#), ("extend", "")] {
        let (status, problem) = fixture.end(old, how, body).await;
        assert_eq!((status, &problem["title"]), (409, &"The lease is over".into()), "{what}: {how}: {problem}");
    }
    assert_eq!(fixture.end(new, "extend", "").await.0, 200, "{what}: and nothing has become of it");
    assert_eq!(fixture.end(new, "ack", "").await.0, 200, "{what}");
}

/// Its attempts begin at zero, and so did the fence.
#[tokio::test(start_paused = true)]
async fn a_lease_from_before_a_redrive_is_over() {
    let fixture = Fixture::start(part()).await;
    fixture.publish("queues/work", "1", "", "1").await;
    let old = fixture.lease("").await.remove(0);
    assert_eq!(fixture.end(&old, "nack", r#"{"reject":true}"#).await.0, 200);
    assert_eq!(fixture.ask("worker", "POST", "/v1/queues/work/redrives", "").await.0, 200);
    let new = fixture.lease("").await.remove(0);
    assert_eq!(new["attempt"], 1);
    check_fenced(&fixture, &old, &new, "redriven").await;
}

/// A message that is leased, and leased again after a crash.
async fn lease_over_a_crash(seed: u64) -> (Fixture, Value, Value) {
    let fixture = Fixture::start(part()).await;
    fixture.publish("queues/work", "1", "", "1").await;
    let old = fixture.lease("").await.remove(0);
    let fixture = fixture.crash(seed, part()).await;
    let new = fixture.lease("").await.remove(0);
    (fixture, old, new)
}

/// A lease is answered before its assignment is synced, so a crash may forget that there was one.
#[tokio::test(start_paused = true)]
async fn a_lease_that_a_crash_has_forgotten_is_not_somebody_elses() {
    let mut forgotten = 0;
    for seed in 0..20 {
        let (fixture, old, new) = lease_over_a_crash(seed).await;
        forgotten += u32::from(new["attempt"] == old["attempt"]);
        check_fenced(&fixture, &old, &new, &format!("seed {seed}")).await;
    }
    assert!(forgotten > 0, "no seed lets the crash forget the assignment");
}

/// What the log says of the second assignment must not make the first one good again.
#[tokio::test(start_paused = true)]
async fn a_lease_that_a_crash_has_forgotten_stays_over_after_another() {
    let mut forgotten = 0;
    for seed in 0..20 {
        let (fixture, old, new) = lease_over_a_crash(seed).await;
        forgotten += u32::from(new["attempt"] == old["attempt"]);
        // It syncs what is in front of it.
        fixture.publish("queues/work", "2", "", "1").await;
        let fixture = fixture.crash(seed, part()).await;
        assert_eq!(fixture.end(&old, "ack", "").await.0, 409, "seed {seed}");
        assert_eq!(fixture.end(&new, "ack", "").await.0, 200, "seed {seed}: who has done the work may say so");
    }
    assert!(forgotten > 0, "no seed lets the crash forget the assignment");
}

/// Leases the one message and falls over it.
async fn fall(fixture: &Fixture, attempt: u32) {
    let leases = fixture.lease("wait=60s&hold=1s").await;
    assert_eq!(leases[0]["attempt"], attempt);
    fixture.until("its lease has run out", |status| status["queues"]["work"]["leased"] == 0).await;
}

/// How often the broker is started again in between must not matter to a message that its consumers fall over.
#[tokio::test(start_paused = true)]
async fn a_poisonous_message_is_dead_after_its_attempts_whatever_is_started_again() {
    for restarts in [&[][..], &[1], &[2], &[1, 2]] {
        for seed in [None, Some(1), Some(2), Some(3)] {
            let what = format!("restarts behind {restarts:?}, crash {seed:?}");
            let mut fixture = Fixture::start(part()).await;
            fixture.publish("queues/work", "1", "", "1").await;
            for attempt in 1..=3 {
                fall(&fixture, attempt).await;
                if restarts.contains(&attempt) {
                    fixture = match seed {
                        None => fixture.restart(part()).await,
                        Some(seed) => {
                            // What has run out is written, and synced with the next that asks for it.
                            fixture.publish("topics/events", &format!("{attempt}"), "", "1").await;
                            fixture.crash(seed, part()).await
                        }
                    };
                }
            }
            fixture.until("a dead letter", |status| status["queues"]["work"]["dead"] == 1).await;
            let (_, dead) = fixture.ask("worker", "GET", "/v1/queues/work/dead-letters", "").await;
            let letter = &dead["dead_letters"][0];
            assert_eq!((&letter["attempts"], &letter["failed"]), (&json!(3), &json!(3)), "{what}");
            assert_eq!(letter["reason"], "3 of 3 attempts failed: its lease has run out", "{what}");
        }
    }
}
