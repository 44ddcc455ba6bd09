//! What a broker whose disk has failed says of itself.

use std::io;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use model::config::{Delivery, Durability, Queue};
use model::identity::{SpiffeId, Subject};
use model::name::Name;
use model::snapshot::BrokerPart;
use runtime::http::{Peer, full};
use runtime::lanes::Place;
use storage::disk::memory::{MemoryDisk, Operation};

use super::*;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// `orders` publishes to the queue `work`.
fn part() -> BrokerPart {
    let queue = Queue {
        delivery: Delivery::default(),
        dead_letter_keep: Duration::from_secs(60),
        messages_max: 10,
        durability: Durability::Sync,
    };
    BrokerPart {
        queues: [(name("work"), queue)].into(),
        topics: [].into(),
        publishers: [(name("work"), [Subject::Service(name("orders"))].into())].into(),
        consumers: [].into(),
        message_bytes_max: 1 << 20,
    }
}

async fn publish(broker: &broker::Broker) -> StatusCode {
    let mut request = Request::new(full("x"));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = "http://broker/v1/queues/work/messages".parse().unwrap();
    let subject = Subject::Service(name("orders"));
    request.extensions_mut().insert(Peer(SpiffeId { mesh: name("shop"), subject }));
    broker.handler().call(request).await.status()
}

#[tokio::test(start_paused = true)]
async fn a_failed_log_is_told_to_the_registry_and_to_who_asks() {
    let (disk, (ending, drain)) = (MemoryDisk::default(), drain::channel());
    let broker = broker::Broker::start(broker::Options {
        mesh: name("shop"),
        disk: Arc::new(disk.clone()),
        dir: "/log".into(),
        place: Place::Inline,
        metrics: Metrics::default(),
        caller: Arc::new(Entry::default()),
        drain: drain.clone(),
    });
    let broker = Arc::new(broker.unwrap());
    broker.apply(Arc::new(part())).unwrap();
    let (well, mut health) = watch::channel(Health { healthy: true, draining: false });
    drain.spawn(tell_failure(broker.clone(), well, drain.clone()));
    assert_eq!(publish(&broker).await, StatusCode::CREATED);
    assert!(health.borrow().healthy);
    assert_eq!(broker.handler().failure(), None);

    disk.fail(Operation::Sync, 0, io::ErrorKind::Other, true);
    assert_eq!(publish(&broker).await, StatusCode::SERVICE_UNAVAILABLE);
    let told = health.wait_for(|health| !health.healthy);
    drop(tokio::time::timeout(Duration::from_secs(60), told).await.expect("the registry is told").unwrap());
    let why = broker.handler().failure().unwrap();
    assert!(why.contains("/log/"), "{why}");
    ending.drain(Duration::from_secs(1)).await.unwrap();
}
