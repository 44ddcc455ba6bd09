//! What is there again after a crash.

use std::io;
use std::path::Path;

use broker::{Broker, Options};
use serde_json::json;
use storage::disk::Disk as _;
use storage::disk::memory::{MemoryDisk, Operation};

use crate::fixture::{Fixture, name, part, status};

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_is_there_after_a_crash() {
    for seed in 0..20 {
        let fixture = Fixture::start(part()).await;
        fixture.consume(|pushed| status(if pushed.id() == "2" { 400 } else { 200 }));
        for id in 0..10 {
            assert_eq!(fixture.publish("queues/work", &id.to_string(), "", "1").await.0, 201);
        }
        for id in 0..4 {
            assert_eq!(fixture.publish("topics/events", &id.to_string(), "", "1").await.0, 201);
        }
        let leases = fixture.lease("max=5").await;
        for (lease, how, body) in [
            (&leases[0], "ack", ""),
            (&leases[1], "nack", r#"{"reject":true,"reason":"bad"}"#),
            (&leases[2], "nack", r#"{"delay":"1h"}"#),
        ] {
            assert_eq!(fixture.end(lease, how, body).await.0, 200);
        }
        fixture
            .until("pushed", |status| {
                let mailer = &status["topics"]["events"]["subscriptions"]["mailer"];
                mailer["settled"] == 3 && mailer["dead"] == 1
            })
            .await;
        let fixture = fixture.crash(seed, part()).await;
        let after = fixture.status();
        let (work, mailer) = (&after["queues"]["work"], &after["topics"]["events"]["subscriptions"]["mailer"]);
        let find = |word: &str| work[word].as_u64().unwrap();
        assert_eq!((find("ready"), find("delayed"), find("dead")), (7, 1, 1), "seed {seed}: {work}");
        assert_eq!((&mailer["lag"], &mailer["dead"], &mailer["settled"]), (&json!(0), &json!(1), &json!(3)));
        // Who has done the work before the crash may say so after it.
        assert_eq!(fixture.end(&leases[3], "ack", "").await.0, 200);
        let again = fixture.lease("max=10").await;
        let tried = again.iter().find(|lease| lease["position"] == leases[4]["position"]).unwrap();
        assert_eq!(tried["attempt"], 2, "attempts are counted across the crash");
        let (_, known) = fixture.publish("queues/work", "3", "", "1").await;
        assert_eq!(known["duplicate"], true, "and so are identities");
        let (_, dead) = fixture.ask("worker", "GET", "/v1/queues/work/dead-letters", "").await;
        assert_eq!(dead["dead_letters"][0]["reason"], "rejected by its consumer: bad");
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_vanished_keeps_its_messages() {
    let fixture = Fixture::start(part()).await;
    fixture.publish("queues/work", "1", "", "1").await;
    let mut without = part();
    without.queues.remove(&name("work"));
    fixture.broker.apply(std::sync::Arc::new(without.clone())).unwrap();
    assert_eq!(fixture.publish("queues/work", "2", "", "1").await.0, 404);
    let fixture = fixture.crash(1, without).await;
    assert_eq!(fixture.status()["queues"]["work"]["declared"], false);
    fixture.broker.apply(std::sync::Arc::new(part())).unwrap();
    assert_eq!(fixture.lease("").await[0]["event"]["id"], "1");
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_is_the_end_and_is_said() {
    let fixture = Fixture::start(part()).await;
    fixture.publish("queues/work", "1", "", "1").await;
    fixture.disk.fail(Operation::Sync, 0, io::ErrorKind::Other, true);
    let (status, problem) = fixture.publish("queues/work", "2", "", "1").await;
    assert_eq!((status, &problem["title"]), (503, &json!("The engine has failed")));
    fixture.disk.heal();
    assert_eq!(fixture.publish("queues/work", "3", "", "1").await.0, 503, "it stays so");
    assert_eq!(fixture.status()["engine"]["healthy"], false);
    assert!(fixture.broker.failure().is_some());
    assert!(fixture.lease("").await.is_empty(), "what cannot be settled is not given out");
    let fixture = fixture.crash(3, part()).await;
    assert_eq!(fixture.lease("").await[0]["event"]["id"], "1");
}

/// Why a broker does not start on a disk.
async fn start_error(disk: &MemoryDisk) -> broker::Error {
    let (_signal, drain) = runtime::drain::channel();
    let fixture = Fixture::start(part()).await;
    let started = Broker::start(Options {
        mesh: name("shop"),
        disk: std::sync::Arc::new(disk.clone()),
        dir: "/broker/log".into(),
        place: runtime::lanes::Place::Inline,
        metrics: runtime::metrics::Metrics::default(),
        caller: fixture.broker.handler(),
        drain,
    });
    started.err().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_damaged_log_stops_the_start_and_is_named() {
    let fixture = Fixture::start(part()).await;
    for id in 0..10 {
        fixture.publish("queues/work", &id.to_string(), "", "some data").await;
    }
    let Fixture { disk, broker, .. } = fixture;
    drop(broker);
    disk.crash(0);
    let folder = Path::new("/broker/log");
    let files = disk.list(folder).unwrap();
    let segment = files.iter().find(|file| file.contains("00001")).unwrap();
    disk.flip_bit(&folder.join(segment), 200, 3);
    let error = start_error(&disk).await;
    let text = error.to_string();
    for word in [segment.as_str(), "at byte ", "mv /broker/log /broker/log.damaged"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    assert!(std::error::Error::source(&error).is_none(), "whoever prints the sources too prints it once");
}

#[tokio::test(start_paused = true)]
async fn the_log_does_not_grow_for_ever_and_keeps_what_is_of_use() {
    for seed in 0..5 {
        let fixture = Fixture::start(part()).await;
        let data = format!("\"{}\"", "x".repeat(60_000));
        fixture.publish("queues/work", "rejected", "", &data).await;
        let lease = fixture.lease("").await.remove(0);
        fixture.end(&lease, "nack", r#"{"reject":true}"#).await;
        fixture.publish("queues/work", "waits", "", &data).await;
        let waits = fixture.lease("").await.remove(0);
        fixture.end(&waits, "nack", r#"{"delay":"3m"}"#).await;
        // Half a segment of events that stay, and 20 segments of messages that go.
        for id in 0..8 {
            fixture.publish("topics/events", &id.to_string(), "k", &data).await;
        }
        for id in 0..340 {
            fixture.publish("queues/work", &id.to_string(), "", &data).await;
            let lease = fixture.lease("").await.remove(0);
            assert_eq!(fixture.end(&lease, "ack", "").await.0, 200);
        }
        let bytes = fixture.status()["engine"]["bytes"].as_u64().unwrap();
        assert!(bytes < 6 << 20, "{bytes}");
        assert!(fixture.status()["engine"]["segments"].as_array().unwrap().len() < 8);
        let before = fixture.status();
        let fixture = fixture.crash(seed, part()).await;
        for name in ["queues", "topics"] {
            assert_eq!(fixture.status()[name], before[name], "seed {seed}");
        }
        let (_, page) = fixture.ask("mailer", "GET", "/v1/topics/events/messages", "").await;
        assert_eq!(page["events"].as_array().unwrap().len(), 8);
        let (_, dead) = fixture.ask("worker", "GET", "/v1/queues/work/dead-letters", "").await;
        assert_eq!(dead["dead_letters"][0]["event"]["id"], "rejected");
        let (_, known) = fixture.publish("queues/work", "0", "", &data).await;
        assert_eq!(known["duplicate"], true, "the window is older than the log");
        tokio::time::sleep(std::time::Duration::from_secs(240)).await;
        let lease = fixture.lease("wait=1s").await.remove(0);
        assert_eq!((&lease["event"]["id"], &lease["position"]), (&json!("waits"), &waits["position"]));
    }
}

/// A batch that is larger than may wait for one commit is written in pieces; a later one without room took the earlier ones with it: they
/// were refused, and were there after a restart.
#[tokio::test(start_paused = true)]
async fn what_was_written_before_the_disk_was_full_is_accepted() {
    let fixture = Fixture::start(part()).await;
    // For one piece of 8 MiB and no other.
    fixture.disk.bound(10 << 20);
    let data = format!("\"{}\"", "x".repeat(1_000_000));
    let ids: Vec<String> = (0..14).map(|id| id.to_string()).collect();
    let published = ids.iter().map(|id| fixture.publish("queues/work", id, "", &data));
    let answers = futures_util::future::join_all(published).await;
    let accepted = answers.iter().filter(|(status, _)| *status == 201).count();
    let refused = answers.iter().filter(|(status, _)| *status == 507).count();
    assert!(accepted + refused == ids.len() && accepted >= 8 && refused > 0, "{accepted} {refused}");
    let fixture = fixture.crash(1, part()).await;
    assert_eq!(fixture.status()["queues"]["work"]["ready"], accepted);
}

/// Messages of 30 bytes: their acknowledgements, and a checkpoint of what is left, took more than was held for them, and a disk that was full so
/// stayed full for good. Whatever they do with it, consumers work it off.
#[tokio::test(start_paused = true)]
async fn a_disk_full_of_small_messages_is_worked_off_to_the_last() {
    for (how, body) in
        [("ack", ""), ("nack", r#"{"delay":"1ms"}"#), ("nack", r#"{"reject":true,"reason":"cannot be read"}"#)]
    {
        let fixture = Fixture::start(part()).await;
        fixture.disk.bound(3 << 20);
        let mut accepted = 0;
        while fixture.publish("queues/work", &accepted.to_string(), "", r#""about thirty bytes of data..""#).await.0
            == 201
        {
            accepted += 1;
        }
        assert!(accepted > 6_000, "{accepted}");
        // What is not acknowledged at once stays in the way: every second one, so that no segment is free of messages early.
        let (mut done, mut kept) = (0, Vec::new());
        loop {
            let leases = fixture.lease("max=100").await;
            if leases.is_empty() {
                break;
            }
            for (number, lease) in leases.into_iter().enumerate() {
                if number % 2 == 0 && kept.len() < 4_000 {
                    kept.push(lease);
                } else {
                    // A message that comes again is acknowledged, after one more attempt for each.
                    let (how, body) = if lease["attempt"] == 1 { (how, body) } else { ("ack", "") };
                    assert_eq!(fixture.end(&lease, how, body).await.0, 200, "after {done} of {accepted}");
                    done += 1;
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        for lease in &kept {
            assert_eq!(fixture.end(lease, "ack", "").await.0, 200, "after {done} of {accepted}");
            done += 1;
        }
        let fixture = fixture.crash(1, part()).await;
        let work = &fixture.status()["queues"]["work"];
        let left = work["dead"].as_u64().unwrap();
        assert_eq!((&work["ready"], &work["leased"], &work["delayed"]), (&json!(0), &json!(0), &json!(0)), "{work}");
        assert_eq!(work["settled"].as_u64().unwrap() + left, accepted, "{work}");
        assert_eq!(left > 0, body.contains("reject"));
        if left > 0 {
            let (status, forgotten) = fixture.ask("worker", "DELETE", "/v1/queues/work/dead-letters", "").await;
            assert_eq!(status, 200, "{forgotten}");
        }
        fixture.until("room again", |status| status["engine"]["bytes_left"].is_null()).await;
        assert_eq!(fixture.publish("queues/work", "again", "", "1").await.0, 201);
    }
}

/// 24 MiB of events in front of it kept a log of 817 MiB from ever becoming smaller.
#[tokio::test(start_paused = true)]
async fn what_stays_in_front_holds_nothing_fast() {
    let fixture = Fixture::start(part()).await;
    let data = format!("\"{}\"", "x".repeat(1_000_000));
    for id in 0..24 {
        assert_eq!(fixture.publish("topics/events", &id.to_string(), "k", &data).await.0, 201);
    }
    for id in 0..60 {
        fixture.publish("queues/work", &id.to_string(), "", &data).await;
        let lease = fixture.lease("").await.remove(0);
        assert_eq!(fixture.end(&lease, "ack", "").await.0, 200);
    }
    let bytes = fixture.status()["engine"]["bytes"].as_u64().unwrap();
    assert!(bytes < 30 << 20, "{bytes}");
    let fixture = fixture.crash(1, part()).await;
    let (_, page) = fixture.ask("mailer", "GET", "/v1/topics/events/messages?max=100", "").await;
    assert_eq!(page["events"][0]["event"]["id"], "0", "{}", page.to_string().len());
}

/// The folder of the log, emptied, was taken for that of a new broker.
#[tokio::test(start_paused = true)]
async fn a_log_that_is_gone_stops_the_start_and_the_way_on_is_named() {
    let fixture = Fixture::start(part()).await;
    fixture.publish("queues/work", "1", "", "1").await;
    let Fixture { disk, broker, .. } = fixture;
    disk.kill();
    drop(broker);
    let folder = Path::new("/broker/log");
    for name in disk.list(folder).unwrap() {
        disk.remove(&folder.join(name)).unwrap();
    }
    let text = start_error(&disk).await.to_string();
    for word in ["the log in /broker/log is gone", "rm /broker/log.made"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    disk.remove(Path::new("/broker/log.made")).unwrap();
    let fixture = Fixture::on(disk, part()).await;
    assert_eq!(fixture.publish("queues/work", "1", "", "1").await.1["duplicate"], false, "it begins anew");
}

/// Compaction was tried once for each last segment, and a full disk gives no other: all was acknowledged and nothing ever went.
#[tokio::test(start_paused = true)]
async fn a_disk_that_stays_full_is_worked_off() {
    let fixture = Fixture::start(part()).await;
    // Room for two segments and no third.
    fixture.disk.bound(5 << 19);
    let data = format!("\"{}\"", "x".repeat(30_000));
    let mut id = 0;
    for round in 0..3 {
        let before = id;
        while fixture.publish("queues/work", &id.to_string(), "", &data).await.0 == 201 {
            id += 1;
        }
        assert!(id - before > 20, "round {round}: {} were accepted", id - before);
        for lease in fixture.lease("max=1000").await {
            assert_eq!(fixture.end(&lease, "ack", "").await.0, 200);
        }
        fixture.until("room again", |status| status["engine"]["bytes_left"].is_null()).await;
    }
    let fixture = fixture.crash(1, part()).await;
    let work = &fixture.status()["queues"]["work"];
    assert_eq!((&work["ready"], &work["settled"]), (&json!(0), &json!(id)));
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_what_is_new_and_lets_go_of_what_is_done() {
    let fixture = Fixture::start(part()).await;
    fixture.disk.fail(Operation::Allocate, 0, io::ErrorKind::StorageFull, true);
    let data = format!("\"{}\"", "x".repeat(30_000));
    let mut accepted = 0;
    let problem = loop {
        let (status, answer) = fixture.publish("queues/work", &accepted.to_string(), "", &data).await;
        if status != 201 {
            assert_eq!(status, 507, "{answer}");
            break answer;
        }
        accepted += 1;
    };
    assert_eq!(problem["title"], "The disk is full");
    assert!(accepted > 20, "{accepted}");
    let leases = fixture.lease("max=1000").await;
    assert_eq!(leases.len(), accepted);
    for lease in &leases {
        assert_eq!(fixture.end(lease, "ack", "").await.0, 200);
    }
    fixture.disk.heal();
    let mut tries = 0;
    while fixture.publish("queues/work", "later", "", &data).await.0 != 201 {
        tries += 1;
        assert!(tries < 100, "room that comes back is used without a restart");
    }
    let fixture = fixture.crash(1, part()).await;
    let work = &fixture.status()["queues"]["work"];
    assert_eq!((&work["ready"], &work["settled"]), (&json!(1), &json!(accepted)));
}
