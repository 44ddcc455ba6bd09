//! The counter's side of the storefront: levels, deliveries and stocktakes over HTTP, from and to inventory's gRPC streams.
//!
//! Streams stay streams: a level is passed on, as one line of JSON, when it comes.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use futures_util::{Stream, StreamExt as _, stream};
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::Shared;
use crate::inventory::{Counted, Item, Level, RestockSummary, WatchRequest};
use crate::problem::{self, Problem};
use crate::trace::Trace;

/// One JSON document a line.
const LINES: &str = "application/x-ndjson";
/// Lines of one request.
const LINES_MAX: usize = 10_000;

/// Which levels, and how many of them.
#[derive(Deserialize)]
pub struct Levels {
    /// Parted by commas.
    skus: String,
    /// 0: until the client goes away. Absent: each level once.
    updates: Option<u32>,
}

/// So many of a product.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Quantity {
    sku: String,
    quantity: u32,
}

/// `GET /stock?skus=A,B&updates=10`: the levels as they are, and as they change (server streaming).
pub async fn levels(
    State(storefront): Shared,
    trace: Trace,
    Query(levels): Query<Levels>,
) -> problem::Result<Response> {
    let skus: Vec<String> = levels.skus.split(',').map(|sku| sku.trim().to_owned()).collect();
    let limit = levels.updates.unwrap_or(skus.len().try_into().unwrap_or(u32::MAX));
    let watch = trace.grpc(WatchRequest { skus, limit });
    let levels = storefront.inventory.clone().watch(watch).await.map_err(|status| refusal(&status))?;
    let line = |Level { sku, free, reserved }| json!({"sku": sku, "free": free, "reserved": reserved});
    Ok(lines(levels.into_inner(), line))
}

/// `POST /stock/deliveries` with `[{"sku", "quantity"}]`: takes a delivery in (client streaming).
pub async fn deliver(State(storefront): Shared, trace: Trace, body: Bytes) -> problem::Result<Json<Value>> {
    let items = items(&body)?;
    let summary = storefront.inventory.clone().restock(trace.grpc(stream::iter(items))).await;
    let RestockSummary { lines, units, unknown_skus } = summary.map_err(|status| refusal(&status))?.into_inner();
    Ok(Json(json!({"lines": lines, "units": units, "unknown_skus": unknown_skus})))
}

/// `POST /stock/counts` with `[{"sku", "quantity"}]`: compares a count with the books, line by line (both streaming).
pub async fn count(State(storefront): Shared, trace: Trace, body: Bytes) -> problem::Result<Response> {
    let items = items(&body)?;
    let counts = storefront.inventory.clone().count(trace.grpc(stream::iter(items))).await;
    let line = |Counted { sku, expected, counted, difference }| json!({"sku": sku, "expected": expected, "counted": counted, "difference": difference});
    Ok(lines(counts.map_err(|status| refusal(&status))?.into_inner(), line))
}

fn items(body: &[u8]) -> problem::Result<Vec<Item>> {
    let quantities: Vec<Quantity> = problem::read_json(body)?;
    if quantities.is_empty() || quantities.len() > LINES_MAX {
        return Err(Problem::malformed(format!("from 1 to {LINES_MAX} lines")));
    }
    Ok(quantities.into_iter().map(|Quantity { sku, quantity }| Item { sku, quantity }).collect())
}

/// A stream that breaks ends with a line that says so: its status has gone out long before.
fn lines<T: 'static>(
    answers: impl Stream<Item = Result<T, Status>> + Send + 'static,
    line: impl Fn(T) -> Value + Send + 'static,
) -> Response {
    let lines = answers.map(move |answer| {
        let document = match answer {
            Ok(answer) => line(answer),
            Err(status) => json!({"error": refusal(&status).detail}),
        };
        Ok::<_, std::convert::Infallible>(Bytes::from(format!("{document}\n")))
    });
    ([(header::CONTENT_TYPE, LINES)], Body::from_stream(lines)).into_response()
}

fn refusal(status: &Status) -> Problem {
    let detail = format!("inventory answered {:?}: {}", status.code(), status.message());
    match status.code() {
        Code::InvalidArgument => Problem::malformed(detail),
        Code::NotFound => Problem::not_found(detail),
        Code::PermissionDenied => Problem::new(StatusCode::FORBIDDEN, "not allowed", detail),
        _ => Problem::unavailable(detail),
    }
}
