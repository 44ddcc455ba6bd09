//! Measures what accepting a message costs inside of the broker, without a network: `cargo run --release -p broker --example publish -- FOLDER`.
//!
//! Publishers on one thread call the broker's handler with 1 KiB each and wait for the receipt, as the data plane would for them; the log is on the
//! folder's disk and synced. Processor time is that of the log's thread, and of all others, publishers included; it tells more than the rate on a
//! machine that is shared. It is a tool for looking (with `perf record`), not a test: nothing is asserted.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use api::broker::queues_client::QueuesClient;
use api::broker::topics_client::TopicsClient;
use api::broker::{Event, PublishRequest, SendRequest};
use broker::{Broker, Options};
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use model::config::{Delivery, Durability, Queue, Topic};
use model::identity::{SpiffeId, Subject};
use model::name::Name;
use model::snapshot::BrokerPart;
use runtime::http::{Body, BoxFuture, Handler, Peer, SharedHandler, boxed, full};
use runtime::lanes::Place;
use runtime::metrics::Metrics;
use storage::disk::Disk as _;
use storage::disk::real::RealDisk;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const PUBLISHERS: usize = 64;
const MESSAGE_BYTES: usize = 1 << 10;
const CASE: Duration = Duration::from_secs(3);
/// How many requests of a stream are without a receipt.
const WINDOW: usize = 64;

fn main() -> Result<(), Failure> {
    let folder = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from).join("publish");
    let chosen = std::env::args().nth(2);
    println!("{:<24} {:>12} {:>14} {:>14}", "case", "messages/s", "us, log", "us, all other");
    for case in ["queue, HTTP", "topic with key, HTTP", "queue, gRPC", "topic with key, gRPC", "queue, gRPC stream"] {
        if chosen.as_deref().is_none_or(|chosen| chosen == case) {
            // Each with a log of its own; what was there is of the case before.
            clear(&folder)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(run(case, &folder))?;
        }
    }
    clear(&folder)
}

fn clear(folder: &std::path::Path) -> Result<(), Failure> {
    RealDisk.create_dir_all(folder)?;
    RealDisk.list(folder)?.iter().try_for_each(|name| RealDisk.remove(&folder.join(name)))?;
    // What says that there was a log.
    let marker = folder.with_extension("made");
    if RealDisk.exists(&marker)? {
        RealDisk.remove(&marker)?;
    }
    Ok(())
}

async fn run(case: &'static str, folder: &std::path::Path) -> Result<(), Failure> {
    let (signal, drain) = runtime::drain::channel();
    let broker = Broker::start(Options {
        mesh: Name::new("bench")?,
        disk: Arc::new(RealDisk),
        dir: folder.to_owned(),
        place: Place::Thread,
        metrics: Metrics::default(),
        caller: Arc::new(Nobody),
        drain,
    })?;
    broker.apply(Arc::new(part()?))?;
    let subject = Subject::Service(Name::new("orders")?);
    let client = Client { handler: broker.handler(), peer: Peer(SpiffeId { mesh: Name::new("bench")?, subject }) };
    let accepted = Arc::new(AtomicU64::new(0));
    let (start, before) = (Instant::now(), processor()?);
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|_| {
            let (client, accepted) = (client.clone(), accepted.clone());
            tokio::spawn(async move {
                while start.elapsed() < CASE {
                    accepted.fetch_add(publish(case, &client).await?, Ordering::Relaxed);
                }
                Ok::<_, Failure>(())
            })
        })
        .collect();
    for publisher in publishers {
        publisher.await??;
    }
    let (count, took) = (accepted.load(Ordering::Relaxed) as f64, start.elapsed().as_secs_f64());
    let after = processor()?;
    let spent = |wanted: bool| {
        let threads = after.iter().filter(|(_, (is_log, _))| *is_log == wanted);
        let seconds =
            threads.map(|(thread, (_, seconds))| seconds - before.get(thread).map_or(0.0, |(_, begun)| *begun));
        seconds.sum::<f64>() * 1e6 / count
    };
    let (log, other) = (spent(true), spent(false));
    println!("{case:<24} {:>12.0} {log:>14.1} {other:>14.1}", count / took);
    signal.drain(Duration::from_secs(5)).await?;
    Ok(())
}

/// Publishes once, or one window of a stream; answers how many messages it were.
async fn publish(case: &str, client: &Client) -> Result<u64, Failure> {
    let queue = || SendRequest { queue: "work".to_owned(), event: Some(event()) };
    match case {
        "queue, HTTP" => client.post("/v1/queues/work/messages").await,
        "topic with key, HTTP" => client.post("/v1/topics/events/messages").await,
        "queue, gRPC" => Ok(QueuesClient::new(client.clone()).send(queue()).await.map(|_| 1)?),
        "topic with key, gRPC" => {
            let request = PublishRequest { topic: "events".to_owned(), event: Some(event()) };
            Ok(TopicsClient::new(client.clone()).publish(request).await.map(|_| 1)?)
        }
        _ => {
            let requests = tokio_stream::iter((0..WINDOW).map(|_| queue()).collect::<Vec<_>>());
            let mut receipts = QueuesClient::new(client.clone()).send_stream(requests).await?.into_inner();
            let mut count = 0;
            while receipts.message().await?.is_some() {
                count += 1;
            }
            Ok(count)
        }
    }
}

fn event() -> Event {
    Event {
        id: format!("{:016x}", fastrand::u64(..)),
        source: "/orders".to_owned(),
        r#type: "order.placed".to_owned(),
        data_content_type: Some("application/json".to_owned()),
        data: data(),
        ..Event::default()
    }
}

/// An object whose key stands in the middle, as long as a message is here.
fn data() -> Bytes {
    let fill = "x".repeat((MESSAGE_BYTES - 100) / 2);
    let text =
        format!(r#"{{"a":"{fill}","order":"o-{:08}","total":12,"lines":[1,2,3],"b":"{fill}"}}"#, fastrand::u32(..));
    text.into()
}

/// `orders` publishes to the queue `work` and the topic `events`.
fn part() -> Result<BrokerPart, Failure> {
    let (work, events) = (Name::new("work")?, Name::new("events")?);
    let queue = Queue {
        delivery: Delivery::default(),
        dead_letter_keep: Duration::from_secs(60),
        messages_max: u64::MAX,
        durability: Durability::Sync,
    };
    let topic = Topic {
        key: Some("order".to_owned()),
        keep: Duration::from_secs(3_600),
        delivery: Delivery::default(),
        durability: Durability::Sync,
    };
    let publisher = [Subject::Service(Name::new("orders")?)];
    Ok(BrokerPart {
        queues: [(work.clone(), queue)].into(),
        topics: [(events.clone(), topic)].into(),
        publishers: [(work, publisher.clone().into()), (events, publisher.into())].into(),
        consumers: BTreeMap::new(),
        message_bytes_max: 1 << 20,
    })
}

/// Each thread's processor time in seconds, and whether it is the log's.
fn processor() -> Result<BTreeMap<PathBuf, (bool, f64)>, Failure> {
    let mut threads = BTreeMap::new();
    for thread in std::fs::read_dir("/proc/self/task")? {
        let folder = thread?.path();
        let is_log = read(&folder.join("comm"))?.trim() == "broker-log";
        // The first number of `schedstat` is the time on a processor in nanoseconds.
        let stat = read(&folder.join("schedstat"))?;
        let seconds = stat.split_whitespace().next().unwrap_or_default().parse::<f64>()? / 1e9;
        threads.insert(folder, (is_log, seconds));
    }
    Ok(threads)
}

#[expect(clippy::disallowed_methods, reason = "it stands in files of the kernel's, not on a disk")]
fn read(path: &std::path::Path) -> std::io::Result<String> {
    std::fs::read_to_string(path)
}

/// The broker's handler as a client's connection.
#[derive(Clone)]
struct Client {
    handler: SharedHandler,
    peer: Peer,
}

impl Client {
    async fn post(&self, path: &str) -> Result<u64, Failure> {
        let mut request = Request::post(path)
            .header("ce-specversion", "1.0")
            .header("ce-id", format!("{:016x}", fastrand::u64(..)))
            .header("ce-source", "/orders")
            .header("ce-type", "order.placed")
            .header("content-type", "application/json")
            .body(full(data()))?;
        request.extensions_mut().insert(self.peer.clone());
        let response = self.handler.call(request).await;
        let status = response.status();
        response.into_body().collect().await?;
        if status.is_success() { Ok(1) } else { Err(format!("answered {status}").into()) }
    }
}

impl tower::Service<Request<tonic::body::Body>> for Client {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let mut request = request.map(boxed);
        request.extensions_mut().insert(self.peer.clone());
        let answer = Handler::call(&*self.handler, request);
        Box::pin(async move { Ok(answer.await) })
    }
}

/// There are no consumers.
struct Nobody;

impl Handler for Nobody {
    fn call(&self, _: Request<Body>) -> BoxFuture<http::Response<Body>> {
        Box::pin(async { http::Response::new(runtime::http::empty()) })
    }
}
