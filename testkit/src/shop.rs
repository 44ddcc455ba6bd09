//! The simulated shop: the client places orders through the gateway; `orders` asks `stock`, reserves there, and sends to the queue
//! `fulfilment`, the topic `orders` and the queue `packing`; `shipping` and `notifications` are pushed the first two, `packing` pulls
//! the third. Each is a few lines over public protocols.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response};
use model::config::Config;
use serde_json::Value;

use crate::app::{self, MARK, answer};
use crate::history::{Event, History};
use crate::plan::{KEYS, Plan};

/// Who consumes the queue.
pub const QUEUE_CONSUMER: &str = "shipping";
/// Who consumes the topic.
pub const TOPIC_CONSUMER: &str = "notifications";
/// Who pulls from the other queue.
pub const PULL_CONSUMER: &str = "packing";
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

/// How long `stock` works on a reservation, at most.
const WORK_MS_MAX: u64 = 150;

/// The mesh file of every run. `rates` and `taxes` have no instances: routes send both to the same subset of `stock`, and which one it is
/// tells by which revision a call was routed.
const MESH: &str = "
mesh: sim
services:
  orders: {protocol: http, port: 9000, health: {path: /healthz}, calls: [stock, rates, taxes, levels], publishes: [fulfilment, orders, packing]}
  stock: {protocol: http, port: 9000, health: {path: /healthz}, subsets: {one: {}, two: {}}}
  levels: {protocol: grpc, port: 9000}
  rates: {protocol: http, port: 9000}
  taxes: {protocol: http, port: 9000}
  shipping: {protocol: http, port: 9000, health: {path: /healthz}, consumes: [{queue: fulfilment, path: /tasks, concurrency: 4}]}
  notifications: {protocol: http, port: 9000, health: {path: /healthz}, consumes: [{topic: orders, path: /events}]}
  packing: {protocol: http, port: 9000, health: {path: /healthz}, consumes: [{queue: packing}]}
gateways:
  public: {listen: '0.0.0.0:8080', backends: [{service: orders}]}
routes:
  - service: stock
    timeouts: {request: 3s, attempt: 800ms}
    retry: {attempts: 3, on: [connect-failure, reset-before-processing, reset, 503]}
  - {service: rates, backends: [{service: stock, subset: SUBSET}], timeouts: {request: 500ms}}
  - {service: taxes, backends: [{service: stock, subset: SUBSET}], timeouts: {request: 500ms}}
queues:
  fulfilment: {delivery: {attempts: 1000, backoff: {initial: 100ms, max: 2s}, ack_timeout: 3s}}
  packing: {delivery: {attempts: 1000, backoff: {initial: 100ms, max: 2s}, ack_timeout: 3s}}
topics:
  orders: {delivery: {attempts: 1000, backoff: {initial: 100ms, max: 2s}, ack_timeout: 3s}}
";

/// The mesh's first or second revision.
///
/// # Errors
/// When the mesh file is not good.
pub fn revision(number: u32) -> anyhow::Result<Config> {
    let checked = model::config::check::check("sim.yaml", &mesh_file(number));
    Ok(checked.map_err(|findings| anyhow::anyhow!("the simulation's own mesh file: {findings:?}"))?.config)
}

/// The text of it.
#[must_use]
pub fn mesh_file(number: u32) -> String {
    MESH.replace("SUBSET", if number == 1 { "one" } else { "two" })
}

/// The subset that a host's instance belongs to.
#[must_use]
pub fn subset(host: &str) -> Option<&'static str> {
    match host {
        "stock-0" => Some("one"),
        "stock-1" => Some("two"),
        _ => None,
    }
}

/// Answers as `stock` on this host.
pub async fn stock(host: &'static str, history: History, request: Request<Bytes>) -> Response<Bytes> {
    match request.uri().path() {
        "/healthz" => answer(200, ""),
        "/revision" => answer(200, subset(host).unwrap_or_default()),
        path if path.starts_with("/stock/") => answer(200, "7"),
        path if path.starts_with("/reservations/") => {
            history.record(Event::Executed { request: path.to_owned() });
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..WORK_MS_MAX))).await;
            answer(201, "")
        }
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
    let stock = format!("http://stock/stock/{order}");
    let stock = through_sidecar(history, Request::get(stock).body(Bytes::new())?).await?;
    anyhow::ensure!(stock.status().is_success(), "stock answered {}", stock.status());
    // Each asking is a request of its own: only the mesh could make two of one.
    let asking = turmoil::sim_elapsed().unwrap_or_default().as_millis();
    let reserve = Request::post(format!("http://stock/reservations/{order}/{asking}")).body(Bytes::new())?;
    let reserved = through_sidecar(history, reserve).await?;
    anyhow::ensure!(reserved.status().is_success(), "stock answered {}", reserved.status());
    probe(history).await;
    publish(history, "queues/fulfilment", &format!("f-{order}"), "").await?;
    publish(history, "queues/packing", &format!("p-{order}"), "").await?;
    publish(history, "topics/orders", &format!("o-{order}"), key).await
}

/// Asks by which revision its sidecar routes. Where an answer is missing there is nothing to compare.
async fn probe(history: &History) {
    let mut revisions = [String::new(), String::new(), String::new()];
    for (service, revision) in ["rates", "taxes", "rates"].into_iter().zip(&mut revisions) {
        let request = Request::get(format!("http://{service}/revision")).body(Bytes::new());
        let Ok(request) = request else { return };
        match through_sidecar(history, request).await {
            Ok(response) if response.status() == 200 => {
                *revision = String::from_utf8_lossy(response.body()).into_owned();
            }
            _ => return,
        }
    }
    history.record(Event::Probed { revisions });
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
    let request = request.body(Bytes::from(format!("{{\"order\":\"{message}\"}}")))?;
    let response = through_sidecar(history, request).await?;
    let status = response.status();
    anyhow::ensure!(status == 201, "the broker answered {status}: {}", String::from_utf8_lossy(response.body()));
    let receipt: Value = serde_json::from_slice(response.body())?;
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

/// Sends a request through the own sidecar.
///
/// # Errors
/// When no answer comes in time.
pub async fn through_sidecar(history: &History, request: Request<Bytes>) -> anyhow::Result<Response<Bytes>> {
    let sidecar = SocketAddr::from(([127, 0, 0, 1], OUTBOUND_PORT));
    let what = request.uri().to_string();
    let response =
        tokio::time::timeout(CALL_BOUND, app::call(sidecar, request)).await.context("no answer in time")??;
    let status = response.status();
    if !status.is_success() && !response.headers().contains_key(MARK) {
        let explained = is_explained(&response);
        history.record(Event::Refused { what, status: status.as_u16(), explained });
    }
    Ok(response)
}

/// A data plane says why in `Proxy-Status` (RFC 9209); the broker, which is asked itself, in a problem document (RFC 9457) of its own.
fn is_explained(response: &Response<Bytes>) -> bool {
    let is_problem = response.headers().get(CONTENT_TYPE).is_some_and(|value| value == "application/problem+json");
    let by_broker =
        || serde_json::from_slice(response.body()).is_ok_and(|problem: Value| problem["subject"] == "broker");
    response.headers().contains_key("proxy-status") || is_problem && by_broker()
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
    tokio::time::sleep(plan.lasts_until.saturating_sub(turmoil::sim_elapsed().unwrap_or_default())).await;
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
    crate::check::unfinished(&history.entries()).is_empty()
}
