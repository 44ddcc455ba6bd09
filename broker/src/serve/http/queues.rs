//! Queues: leases and what ends them, counts.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use model::position::Position;
use policy::authorize;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Caller, Nothing, Problem, Told, duration};
use crate::cloudevents;
use crate::consume::{self, Leased};
use crate::core::Core;
use crate::ledger::lock;
use crate::refusal::Refusal;
use crate::status::QueueStatus;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LeaseQuery {
    #[serde(default = "one")]
    max: usize,
    wait: Option<String>,
    hold: Option<String>,
}

const fn one() -> usize {
    1
}

/// What is answered: events stand in it as they were published, so it is written as text, and never as a [`Value`].
#[derive(Serialize)]
struct Leases<'a> {
    leases: Vec<Lease<'a>>,
}

#[derive(Serialize)]
struct Lease<'a> {
    attempt: u32,
    event: cloudevents::json::Object<'a>,
    expires_ms: u64,
    lease: String,
    position: Position,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Nack {
    delay: Option<String>,
    reject: bool,
    reason: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Extend {
    hold: Option<String>,
}

pub(super) async fn show(
    State(core): State<Arc<Core>>,
    Path(name): Path<String>,
    Caller(caller): Caller,
) -> Result<Json<QueueStatus>, Problem> {
    let part = core.part()?;
    if let Err(refusal) = authorize::consume(&part, &caller, &name)
        && authorize::publish(&part, &caller, &name).is_err()
    {
        return Err(Problem(refusal.into()));
    }
    let books = lock(&core.ledger.books);
    let queue = books.queues.get(name.as_str()).filter(|queue| queue.config.is_some());
    let absent = || Problem(Refusal::Absent(format!("{name} is a topic: it is reached as /v1/topics/{name}")));
    Ok(Json(QueueStatus::of(queue.ok_or_else(absent)?)))
}

pub(super) async fn lease(
    State(core): State<Arc<Core>>,
    Path(name): Path<String>,
    Caller(caller): Caller,
    query: Result<Query<LeaseQuery>, QueryRejection>,
    Told(Nothing {}): Told<Nothing>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let wait = duration("wait", query.wait.as_deref())?.unwrap_or_default();
    let hold = duration("hold", query.hold.as_deref())?;
    let leases = consume::lease(&core, &caller, &name, query.max, (wait, hold)).await?;
    Ok(Json(Leases { leases: leases.iter().map(written).collect() }).into_response())
}

fn written(leased: &Leased) -> Lease<'_> {
    Lease {
        attempt: leased.attempt,
        event: cloudevents::json::Object(&leased.event),
        expires_ms: leased.expires_ms,
        lease: consume::lease_text(leased.lease),
        position: leased.lease.position,
    }
}

pub(super) async fn ack(
    State(core): State<Arc<Core>>,
    Path((name, lease)): Path<(String, String)>,
    Caller(caller): Caller,
    Told(Nothing {}): Told<Nothing>,
) -> Result<Json<Value>, Problem> {
    let lease = consume::read_lease(&lease)?;
    let done = consume::ack(&core, &caller, &name, vec![lease]).await?;
    Ok(Json(json!({ "position": done.position })))
}

pub(super) async fn nack(
    State(core): State<Arc<Core>>,
    Path((name, lease)): Path<(String, String)>,
    Caller(caller): Caller,
    Told(Nack { delay, reject, reason }): Told<Nack>,
) -> Result<Json<Value>, Problem> {
    let delay = duration("delay", delay.as_deref())?;
    let lease = consume::read_lease(&lease)?;
    let done = consume::nack(&core, &caller, &name, lease, (delay, reject, reason)).await?;
    Ok(Json(json!({ "position": done.position })))
}

pub(super) async fn extend(
    State(core): State<Arc<Core>>,
    Path((name, lease)): Path<(String, String)>,
    Caller(caller): Caller,
    Told(Extend { hold }): Told<Extend>,
) -> Result<Json<Value>, Problem> {
    let hold = duration("hold", hold.as_deref())?;
    let expires_ms = consume::extend(&core, &caller, &name, consume::read_lease(&lease)?, hold)?;
    Ok(Json(json!({ "expires_ms": expires_ms })))
}
