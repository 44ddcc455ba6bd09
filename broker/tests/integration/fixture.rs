//! A broker on a disk in memory, and its neighbours.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use broker::{Broker, Options};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use model::config::{Consumption, Delivery, Durability, Queue, Source, Topic};
use model::identity::{SpiffeId, Subject};
use model::name::Name;
use model::snapshot::BrokerPart;
use runtime::drain::{self, Signal};
use runtime::http::{Body, BoxFuture, Handler, Peer, full};
use runtime::lanes::Place;
use runtime::metrics::Metrics;
use serde_json::Value;
use storage::disk::Disk;
use storage::disk::memory::MemoryDisk;
use storage::disk::real::RealDisk;
use tokio::sync::mpsc;

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// What a consumer was pushed.
#[derive(Debug, Clone)]
pub struct Pushed {
    pub uri: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Pushed {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn id(&self) -> &str {
        self.header("ce-id")
    }
}

/// What a consumer answers: a status and headers, perhaps later.
pub type Answer = BoxFuture<(u16, Vec<(&'static str, &'static str)>, String)>;
type Consumer = Box<dyn Fn(Pushed) -> Answer + Send + Sync>;

/// All consumers.
struct Consumers {
    consumer: Mutex<Arc<Consumer>>,
    seen: mpsc::UnboundedSender<Pushed>,
}

impl Handler for Consumers {
    fn call(&self, request: Request<Body>) -> BoxFuture<Response<Body>> {
        let (seen, consumer) = (self.seen.clone(), self.consumer.lock().unwrap().clone());
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let pushed = Pushed { uri: head.uri.to_string(), headers: head.headers, body };
            let answer = consumer(pushed.clone());
            // A test that is over does not look any more.
            let _ = seen.send(pushed);
            let (status, headers, text) = answer.await;
            let mut response = Response::new(full(text));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            for (name, value) in headers {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            response
        })
    }
}

pub fn status(status: u16) -> Answer {
    Box::pin(async move { (status, Vec::new(), String::new()) })
}

/// A broker and its neighbours.
pub struct Fixture {
    pub disk: MemoryDisk,
    pub broker: Broker,
    pub metrics: Metrics,
    pub pushed: mpsc::UnboundedReceiver<Pushed>,
    consumers: Arc<Consumers>,
    signal: Signal,
}

impl Fixture {
    pub async fn start(part: BrokerPart) -> Self {
        Self::on(MemoryDisk::default(), part).await
    }

    pub async fn on(disk: MemoryDisk, part: BrokerPart) -> Self {
        Self::at(disk.clone(), Arc::new(disk), "/broker/log".into(), Place::Inline, part).await
    }

    /// As in production: on the machine's disk, with the committer and the reader on threads of their own.
    pub async fn on_threads(dir: &Path, part: BrokerPart) -> Self {
        Self::at(MemoryDisk::default(), Arc::new(RealDisk), dir.join("log"), Place::Thread, part).await
    }

    async fn at(memory: MemoryDisk, disk: Arc<dyn Disk>, dir: PathBuf, place: Place, part: BrokerPart) -> Self {
        let (seen, pushed) = mpsc::unbounded_channel();
        let consumer: Consumer = Box::new(|_| status(204));
        let consumers = Arc::new(Consumers { consumer: Mutex::new(Arc::new(consumer)), seen });
        let (signal, drain) = drain::channel();
        let metrics = Metrics::default();
        let start = || {
            Broker::start(Options {
                mesh: name("shop"),
                disk: disk.clone(),
                dir: dir.clone(),
                place,
                metrics: metrics.clone(),
                caller: consumers.clone(),
                drain: drain.clone(),
            })
        };
        // The broker before lets go of the log a few polls after its drop.
        let mut tries = 0;
        let broker = loop {
            match start() {
                Ok(broker) => break broker,
                Err(error) if tries < 100 && error.to_string().contains("in use") => {
                    tries += 1;
                    match place {
                        Place::Inline => tokio::task::yield_now().await,
                        Place::Thread => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
                    }
                }
                Err(error) => panic!("{error}"),
            }
        };
        broker.apply(Arc::new(part)).unwrap();
        Self { disk: memory, broker, metrics, pushed, consumers, signal }
    }

    /// From now on consumers answer so.
    pub fn consume(&self, consumer: impl Fn(Pushed) -> Answer + Send + Sync + 'static) {
        *self.consumers.consumer.lock().unwrap() = Arc::new(Box::new(consumer));
    }

    /// The machine stops and starts again.
    pub async fn crash(self, seed: u64, part: BrokerPart) -> Self {
        let disk = self.disk.clone();
        disk.crash(seed);
        drop(self.signal.drain(std::time::Duration::ZERO).await);
        drop(self.broker);
        Self::on(disk, part).await
    }

    /// The broker ends in order.
    pub async fn stop(self) {
        drop(self.signal.drain(std::time::Duration::from_secs(10)).await);
        drop(self.broker);
    }

    /// The process ends and is started again; the machine goes on.
    pub async fn restart(self, part: BrokerPart) -> Self {
        drop(self.signal.drain(std::time::Duration::ZERO).await);
        drop(self.broker);
        Self::on(self.disk, part).await
    }

    /// What a service gets for a request.
    pub async fn call(&self, service: &str, request: Request<Body>) -> (StatusCode, HeaderMap, Bytes) {
        let mut request = request;
        let subject = Subject::Service(name(service));
        request.extensions_mut().insert(Peer(SpiffeId { mesh: name("shop"), subject }));
        let (head, body) = self.broker.handler().call(request).await.into_parts();
        (head.status, head.headers, body.collect().await.unwrap().to_bytes())
    }

    /// The same, with JSON both ways.
    pub async fn ask(&self, service: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
        let builder = Request::builder().method(method).uri(format!("http://broker{path}"));
        let builder = if body.is_empty() { builder } else { builder.header("content-type", "application/json") };
        let (status, _, bytes) = self.call(service, builder.body(full(body.to_owned())).unwrap()).await;
        (status.as_u16(), serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// Publishes a CloudEvent; `key` may be empty.
    pub async fn publish(&self, to: &str, id: &str, key: &str, data: &str) -> (u16, Value) {
        let mut builder = Request::post(format!("http://broker/v1/{to}/messages"))
            .header("ce-specversion", "1.0")
            .header("ce-id", id)
            .header("ce-source", "/orders")
            .header("ce-type", "order.placed")
            .header("content-type", "application/json");
        if !key.is_empty() {
            builder = builder.header("ce-partitionkey", key);
        }
        let (status, _, bytes) = self.call("orders", builder.body(full(data.to_owned())).unwrap()).await;
        (status.as_u16(), serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    pub async fn lease(&self, query: &str) -> Vec<Value> {
        let (status, answer) = self.ask("worker", "POST", &format!("/v1/queues/work/leases?{query}"), "").await;
        assert_eq!(status, 200, "{answer}");
        answer["leases"].as_array().unwrap().clone()
    }

    pub async fn end(&self, lease: &Value, how: &str, body: &str) -> (u16, Value) {
        let path = format!("/v1/queues/work/leases/{}/{how}", lease["lease"].as_str().unwrap());
        self.ask("worker", "POST", &path, body).await
    }

    pub fn status(&self) -> Value {
        serde_json::to_value(self.broker.status()).unwrap()
    }

    /// What a consumer is pushed next.
    pub async fn next_pushed(&mut self) -> Pushed {
        // Time that is paused flies: no delivery takes as long.
        let day = std::time::Duration::from_secs(86_400);
        tokio::time::timeout(day, self.pushed.recv()).await.expect("a delivery").unwrap()
    }

    /// Lets time pass until the status says so.
    pub async fn until(&self, what: &str, condition: impl Fn(&Value) -> bool) {
        let mut pause = std::time::Duration::from_millis(1);
        for _ in 0..1_000 {
            if condition(&self.status()) {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(std::time::Duration::from_secs(1));
        }
        panic!("{what} did not come to be: {}", self.status());
    }
}

/// `orders` publishes to the queue `work` and the topic `events`; `worker` leases from the one, `mailer` is pushed the other.
pub fn part() -> BrokerPart {
    let delivery = Delivery { attempts: 3, ..Delivery::default() };
    let queue = Queue {
        delivery: delivery.clone(),
        dead_letter_keep: std::time::Duration::from_secs(86_400),
        messages_max: 1_000_000,
        durability: Durability::Sync,
    };
    let topic = Topic {
        key: Some("order".to_owned()),
        keep: std::time::Duration::from_secs(7 * 86_400),
        delivery,
        durability: Durability::Sync,
    };
    let publisher = [Subject::Service(name("orders"))];
    let consumption =
        |source, path: Option<&str>| Consumption { source, path: path.map(str::to_owned), concurrency: 8 };
    BrokerPart {
        queues: [(name("work"), queue)].into(),
        topics: [(name("events"), topic)].into(),
        publishers: [(name("work"), publisher.clone().into()), (name("events"), publisher.into())].into(),
        consumers: [
            (name("worker"), vec![consumption(Source::Queue(name("work")), None)]),
            (name("mailer"), vec![consumption(Source::Topic(name("events")), Some("/events"))]),
        ]
        .into(),
        message_bytes_max: 1 << 20,
    }
}
