//! The simulated shop: the client places orders through the gateway; `orders` asks `stock` and sends to the queue `fulfilment` and
//! the topic `orders`; `shipping` consumes the one, `notifications` the other. Each is a few lines over public protocols.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response};

use crate::app::{self, MARK, answer};
use crate::history::{Event, History};
use crate::plan::{KEYS, Plan};

/// Who consumes the queue.
pub const QUEUE_CONSUMER: &str = "shipping";
/// Who consumes the topic.
pub const TOPIC_CONSUMER: &str = "notifications";
/// Where each application listens.
pub const APPLICATION_PORT: u16 = 9_000;
/// Where each sidecar listens for its application.
pub const OUTBOUND_PORT: u16 = 15_001;

/// How long a client waits for one answer.
const CALL_BOUND: Duration = Duration::from_secs(4);
/// How often a client asks again for an order that was not accepted.
const TRIES_MAX: u32 = 60;
/// Before it asks again.
const TRY_PAUSE: Duration = Duration::from_millis(500);

/// The mesh file of every run.
pub const MESH: &str = "
mesh: sim
services:
  orders: {protocol: http, port: 9000, health: {path: /healthz}, calls: [stock], publishes: [fulfilment, orders]}
  stock: {protocol: http, port: 9000, health: {path: /healthz}, instances: 2}
  shipping: {protocol: http, port: 9000, health: {path: /healthz}, consumes: [{queue: fulfilment, path: /tasks, concurrency: 4}]}
  notifications: {protocol: http, port: 9000, health: {path: /healthz}, consumes: [{topic: orders, path: /events}]}
gateways:
  public: {listen: '0.0.0.0:8080', backends: [{service: orders}]}
routes:
  - service: stock
    timeouts: {request: 3s, attempt: 800ms}
    retry: {attempts: 3, on: [connect-failure, reset-before-processing, reset, 503]}
queues:
  fulfilment: {delivery: {attempts: 1000, backoff: {initial: 100ms, max: 2s}, ack_timeout: 3s}}
topics:
  orders: {delivery: {attempts: 1000, backoff: {initial: 100ms, max: 2s}, ack_timeout: 3s}}
";

/// Answers as `stock`.
pub async fn stock(request: Request<Bytes>) -> Response<Bytes> {
    match request.uri().path() {
        "/healthz" => answer(200, ""),
        path if path.starts_with("/stock/") => answer(200, "7"),
        _ => answer(404, ""),
    }
}

/// Answers as `orders`.
pub async fn orders(history: History, request: Request<Bytes>) -> Response<Bytes> {
    let path = request.uri().path().to_owned();
    let Some(order) = path.strip_prefix("/orders/") else {
        return answer(if path == "/healthz" { 200 } else { 404 }, "");
    };
    let key = request.uri().query().unwrap_or_default().to_owned();
    match accept(&history, order, &key).await {
        Ok(()) => answer(201, ""),
        Err(why) => answer(503, format!("{why:#}")),
    }
}

async fn accept(history: &History, order: &str, key: &str) -> anyhow::Result<()> {
    let stock = through_sidecar(Request::get(format!("http://stock/stock/{order}")).body(Bytes::new())?).await?;
    anyhow::ensure!(stock.status().is_success(), "stock answered {}", stock.status());
    publish(history, "queues/fulfilment", &format!("f-{order}"), "").await?;
    publish(history, "topics/orders", &format!("o-{order}"), key).await
}

async fn publish(history: &History, to: &str, message: &str, key: &str) -> anyhow::Result<()> {
    let mut request = Request::post(format!("http://broker/v1/{to}/messages"))
        .header("ce-specversion", "1.0")
        .header("ce-id", message)
        .header("ce-source", "orders")
        .header("ce-type", "order.placed")
        .header("content-type", "application/json");
    if !key.is_empty() {
        request = request.header("ce-partitionkey", key);
    }
    let response = through_sidecar(request.body(Bytes::from(format!("{{\"order\":\"{message}\"}}")))?).await?;
    let status = response.status();
    anyhow::ensure!(status == 201, "the broker answered {status}: {}", String::from_utf8_lossy(response.body()));
    let receipt: serde_json::Value = serde_json::from_slice(response.body())?;
    let position = receipt["position"].as_u64().context("a receipt has a position")?;
    history.record(Event::Published { message: message.to_owned(), key: key.to_owned(), position });
    Ok(())
}

/// Answers as a consumer; every delivery is taken.
pub async fn consumer(name: &'static str, history: History, request: Request<Bytes>) -> Response<Bytes> {
    if request.uri().path() == "/healthz" {
        return answer(200, "");
    }
    let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let (message, key) = (header("ce-id"), header("ce-partitionkey"));
    history.record(Event::Delivered { consumer: name, message: message.clone(), key: key.clone() });
    // Work takes a moment, in which faults may come.
    tokio::time::sleep(Duration::from_millis(20)).await;
    history.record(Event::Handled { consumer: name, message, key });
    answer(204, "")
}

async fn through_sidecar(request: Request<Bytes>) -> anyhow::Result<Response<Bytes>> {
    let sidecar = SocketAddr::from(([127, 0, 0, 1], OUTBOUND_PORT));
    tokio::time::timeout(CALL_BOUND, app::call(sidecar, request)).await.context("no answer in time")?
}

/// The world outside: places the plan's orders through the gateway, then waits until all that were accepted have ended.
///
/// # Errors
/// When the simulation itself fails; what goes wrong in the mesh is in the history.
pub async fn client(plan: Plan, gateway: SocketAddr, history: History, patience: Duration) -> turmoil::Result {
    let placing = (0..KEYS).map(|key| tokio::task::spawn_local(place(plan.clone(), key, gateway, history.clone())));
    for key in placing.collect::<Vec<_>>() {
        key.await?;
    }
    let deadline = tokio::time::Instant::now() + patience;
    while tokio::time::Instant::now() < deadline && !all_ended(&history) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn place(plan: Plan, key: u32, gateway: SocketAddr, history: History) {
    for number in 0.. {
        if turmoil::sim_elapsed().unwrap_or_default() > plan.placing_until {
            break;
        }
        let order = format!("{key}-{number}");
        for _ in 0..TRIES_MAX {
            if ask(&order, key, gateway, &history).await {
                break;
            }
            tokio::time::sleep(TRY_PAUSE).await;
        }
        tokio::time::sleep(plan.pause).await;
    }
}

async fn ask(order: &str, key: u32, gateway: SocketAddr, history: &History) -> bool {
    history.record(Event::Asked { order: order.to_owned() });
    let request = Request::post(format!("/orders/{order}?key-{key}")).header("host", "shop.example").body(Bytes::new());
    let Ok(request) = request else { return false };
    let Ok(Ok(response)) = tokio::time::timeout(CALL_BOUND, app::call(gateway, request)).await else { return false };
    let application = response.headers().contains_key(MARK);
    let explained = response.headers().contains_key("proxy-status");
    let status = response.status().as_u16();
    history.record(Event::Answered { order: order.to_owned(), status, application, explained });
    status == 201
}

fn all_ended(history: &History) -> bool {
    crate::check::violations(&history.entries()).is_empty()
}
