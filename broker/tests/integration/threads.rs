//! The broker as it runs: on the machine's own disk, with its committer and its readers on threads, and many who ask at the same time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::fixture::{Fixture, part};

/// Publishers, and messages of each.
const PUBLISHERS: u32 = 8;
const MESSAGES: u32 = 40;
/// Consumers that lease.
const CONSUMERS: u32 = 4;
/// What only a regression waits for.
const BOUND: Duration = Duration::from_secs(60);

async fn publish_all(fixture: &Arc<Fixture>, to: &'static str) -> BTreeSet<u64> {
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let fixture = fixture.clone();
        publishers.spawn(async move {
            let mut positions = Vec::new();
            for number in 0..MESSAGES {
                let (status, receipt) = fixture.publish(to, &format!("{publisher}-{number}"), "", "{}").await;
                assert_eq!(status, 201, "{receipt}");
                positions.push(receipt["position"].as_u64().unwrap());
            }
            assert!(positions.is_sorted(), "a publisher's own messages stand in its order");
            positions
        });
    }
    let all = tokio::time::timeout(BOUND, publishers.join_all()).await.unwrap();
    all.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_many_publish_and_many_lease_is_each_handed_out_once_and_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Arc::new(Fixture::on_threads(folder.path(), part()).await);
    let mut consumers = JoinSet::new();
    for _ in 0..CONSUMERS {
        let fixture = fixture.clone();
        consumers.spawn(async move {
            let mut got = Vec::new();
            // Half of them; the others wait over the restart.
            while got.len() < (PUBLISHERS * MESSAGES / CONSUMERS / 2) as usize {
                for lease in fixture.lease("wait=5s").await {
                    assert_eq!(fixture.end(&lease, "ack", "").await.0, 200);
                    got.push(lease["event"]["id"].as_str().unwrap().to_owned());
                }
            }
            got
        });
    }
    let positions = publish_all(&fixture, "queues/work").await;
    assert_eq!(positions.len(), (PUBLISHERS * MESSAGES) as usize, "each has a position of its own");
    let taken: Vec<String> =
        tokio::time::timeout(BOUND, consumers.join_all()).await.unwrap().into_iter().flatten().collect();
    let mut ids: BTreeSet<String> = taken.iter().cloned().collect();
    assert_eq!(ids.len(), taken.len(), "nobody gets what another has settled");
    Arc::into_inner(fixture).unwrap().stop().await;

    let fixture = Fixture::on_threads(folder.path(), part()).await;
    while ids.len() < (PUBLISHERS * MESSAGES) as usize {
        let leases = fixture.lease("max=100&wait=5s").await;
        assert!(!leases.is_empty(), "{} of {} came", ids.len(), PUBLISHERS * MESSAGES);
        for lease in leases {
            assert!(ids.insert(lease["event"]["id"].as_str().unwrap().to_owned()), "settled, and out again: {lease}");
            assert_eq!(fixture.end(&lease, "ack", "").await.0, 200);
        }
    }
    let (_, again) = fixture.publish("queues/work", "0-0", "", "{}").await;
    assert_eq!(again["duplicate"], true, "{again}");
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_many_publish_is_pushed_and_settled() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Arc::new(Fixture::on_threads(folder.path(), part()).await);
    publish_all(&fixture, "topics/events").await;
    let all = u64::from(PUBLISHERS * MESSAGES);
    fixture.until("settled", |status| status["topics"]["events"]["subscriptions"]["mailer"]["settled"] == all).await;
    Arc::into_inner(fixture).unwrap().stop().await;
}
