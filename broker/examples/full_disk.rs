//! Fills a disk with small messages and works it off: `cargo run -p broker --example full_disk -- FOLDER [BYTES] [ORDER]`, where FOLDER is on a
//! small disk of its own (`mount -t tmpfs -o size=200m tmpfs FOLDER`) and BYTES is what a message's data has; ORDER `back` acknowledges
//! the newest messages first, so that no segment is done with early.
//!
//! Prints how many messages were accepted before the disk was full, and how many of them could be acknowledged. It ends with an error when one could not,
//! or when nothing can be published afterwards.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::{Broker, Options};
use futures_util::{StreamExt as _, stream};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use model::config::{Consumption, Delivery, Durability, Queue, Source};
use model::identity::{SpiffeId, Subject};
use model::name::Name;
use model::snapshot::BrokerPart;
use runtime::http::{Body, BoxFuture, Handler, Peer, SharedHandler, full};
use runtime::lanes::Place;
use runtime::metrics::Metrics;
use serde_json::Value;
use storage::disk::real::RealDisk;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How many requests wait for their answers at a time.
const CONCURRENCY: usize = 256;
/// How many messages are leased at a time.
const LEASES: usize = 1_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().map(PathBuf::from).ok_or("a folder on a small disk is needed")?;
    let bytes = arguments.next().map_or(Ok(30), |bytes| bytes.parse::<usize>())?;
    let is_back = arguments.next().is_some_and(|order| order == "back");
    let (signal, drain) = runtime::drain::channel();
    let broker = Broker::start(Options {
        mesh: Name::new("bench")?,
        disk: Arc::new(RealDisk),
        dir: folder.join("log"),
        place: Place::Thread,
        metrics: Metrics::default(),
        caller: Arc::new(Nobody),
        drain,
    })?;
    broker.apply(Arc::new(part()?))?;
    let client = Client(broker.handler());
    let start = Instant::now();
    let accepted = fill(&client, bytes).await?;
    println!("accepted       {accepted:>9} messages of {bytes} bytes in {:.0?}, then 507", start.elapsed());
    println!("engine         {}", engine(&broker));
    let start = Instant::now();
    let settled = work_off(&client, is_back).await?;
    println!("acknowledged   {settled:>9} in {:.0?}", start.elapsed());
    println!("engine         {}", engine(&broker));
    let mut again = StatusCode::INSUFFICIENT_STORAGE;
    for _ in 0..100 {
        again = client.publish(bytes).await?;
        if again.is_success() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("published then {again}");
    signal.drain(Duration::from_secs(5)).await?;
    if settled == accepted && again.is_success() { Ok(()) } else { Err("the disk was not worked off".into()) }
}

fn engine(broker: &Broker) -> String {
    let mut status = serde_json::to_value(broker.status()).unwrap_or_default();
    let mut engine = status["engine"].take();
    engine["segments"] = engine["segments"].as_array().map_or(0, Vec::len).into();
    engine.to_string()
}

/// Publishes until the disk is full.
async fn fill(client: &Client, bytes: usize) -> Result<u64, Failure> {
    let mut publishes = stream::iter(0u64..).map(|_| client.publish(bytes)).buffer_unordered(CONCURRENCY);
    let mut accepted = 0;
    while let Some(status) = publishes.next().await {
        match status? {
            StatusCode::CREATED => accepted += 1,
            StatusCode::INSUFFICIENT_STORAGE => break,
            other => return Err(format!("publishing was answered with {other}").into()),
        }
    }
    // Those that were under way.
    drop(publishes);
    let (_, queue) = client.ask("GET", "/v1/queues/work").await?;
    Ok(queue["ready"].as_u64().unwrap_or_default().max(accepted))
}

/// Acknowledges whatever is there, and answers how many it were.
async fn work_off(client: &Client, is_back: bool) -> Result<u64, Failure> {
    let (mut settled, mut printed, mut held) = (0, 0, Vec::new());
    loop {
        let (status, answer) = client.ask("POST", &format!("/v1/queues/work/leases?max={LEASES}")).await?;
        if !status.is_success() {
            return Err(format!("leasing was answered with {status}: {answer}").into());
        }
        let leases = answer["leases"].as_array().cloned().unwrap_or_default();
        // At most 10,000 messages are leased at a time.
        let is_over = leases.is_empty();
        held.extend(leases);
        if is_back && !is_over && held.len() < 9_000 {
            continue;
        }
        if held.is_empty() {
            return Ok(settled);
        }
        if is_back {
            held.reverse();
        }
        let acks = held.drain(..).map(|lease| async move {
            let path = format!("/v1/queues/work/leases/{}/ack", lease["lease"].as_str().unwrap_or_default());
            client.ask("POST", &path).await
        });
        let mut acks = stream::iter(acks).buffer_unordered(CONCURRENCY);
        while let Some(answer) = acks.next().await {
            let (status, answer) = answer?;
            if !status.is_success() {
                return Err(format!("after {settled}, acknowledging was answered with {status}: {answer}").into());
            }
            settled += 1;
        }
        if settled / 100_000 > printed {
            printed = settled / 100_000;
            println!("acknowledged   {settled:>9} so far");
        }
    }
}

/// `orders` publishes to the queue `work`, of which `worker` leases.
fn part() -> Result<BrokerPart, Failure> {
    let (work, worker) = (Name::new("work")?, Name::new("worker")?);
    let queue = Queue {
        delivery: Delivery::default(),
        dead_letter_keep: Duration::from_secs(60),
        messages_max: u64::MAX,
        durability: Durability::Sync,
    };
    let consumption = Consumption { source: Source::Queue(work.clone()), path: None, concurrency: 8 };
    Ok(BrokerPart {
        queues: [(work.clone(), queue)].into(),
        topics: [].into(),
        publishers: [(work, [Subject::Service(Name::new("orders")?)].into())].into(),
        consumers: [(worker, vec![consumption])].into(),
        message_bytes_max: 1 << 20,
    })
}

/// The broker's handler as a client's connection.
struct Client(SharedHandler);

impl Client {
    async fn publish(&self, bytes: usize) -> Result<StatusCode, Failure> {
        let id = format!("{:016x}", fastrand::u64(..));
        let request = Request::post("/v1/queues/work/messages")
            .header("ce-specversion", "1.0")
            .header("ce-id", id)
            .header("ce-source", "/orders")
            .header("ce-type", "order.placed")
            .header("content-type", "application/json")
            .body(full(format!("\"{}\"", "x".repeat(bytes.saturating_sub(2)))))?;
        Ok(self.call("orders", request).await?.0)
    }

    async fn ask(&self, method: &str, path: &str) -> Result<(StatusCode, Value), Failure> {
        self.call("worker", Request::builder().method(method).uri(path).body(runtime::http::empty())?).await
    }

    async fn call(&self, service: &str, mut request: Request<Body>) -> Result<(StatusCode, Value), Failure> {
        let subject = Subject::Service(Name::new(service)?);
        request.extensions_mut().insert(Peer(SpiffeId { mesh: Name::new("bench")?, subject }));
        let (head, body) = self.0.call(request).await.into_parts();
        let bytes = body.collect().await?.to_bytes();
        Ok((head.status, serde_json::from_slice(&bytes).unwrap_or_default()))
    }
}

/// There are no consumers to push to.
struct Nobody;

impl Handler for Nobody {
    fn call(&self, _: Request<Body>) -> BoxFuture<http::Response<Body>> {
        Box::pin(async { http::Response::new(runtime::http::empty()) })
    }
}
