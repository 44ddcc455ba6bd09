//! `POST …/messages`: one event in binary or structured mode, several as a batch, or plain data that becomes one.

use std::sync::Arc;

use api::broker::Event;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use model::position::Position;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Caller, Problem};
use crate::accept::{Kind, Publisher, accept};
use crate::cloudevents;
use crate::core::{Core, durability_word};
use crate::refusal::Refusal;
use crate::serve::problem;
use crate::verdict::Receipt;

/// How the media types of structured events begin.
const STRUCTURED: &str = "application/cloudevents";
/// How many events one batch holds at most.
const BATCH_MAX: usize = 1_000;
/// How much longer than the largest message a structured body may be, since data in base64 is longer than itself.
const STRUCTURED_FACTOR: u64 = 2;
/// How long a batch may be at least, in bytes, however small `broker.message_max` is.
const BATCH_BYTES_MIN: u64 = 8 << 20;

pub(super) async fn to_queue(
    State(core): State<Arc<Core>>,
    Path(name): Path<String>,
    Caller(caller): Caller,
    request: Request,
) -> Result<Response, Problem> {
    publish(&core, &caller, Kind::Queue, &name, request).await
}

pub(super) async fn to_topic(
    State(core): State<Arc<Core>>,
    Path(name): Path<String>,
    Caller(caller): Caller,
    request: Request,
) -> Result<Response, Problem> {
    publish(&core, &caller, Kind::Topic, &name, request).await
}

async fn publish(
    core: &Core,
    caller: &model::identity::Subject,
    kind: Kind,
    to: &str,
    request: Request,
) -> Result<Response, Problem> {
    super::takes_no_query(request.uri())?;
    let (head, body) = request.into_parts();
    let part = core.part()?;
    // Before the body is read: who may not publish sends nothing.
    policy::authorize::publish(&part, caller, to).map_err(Refusal::Unauthorized)?;
    let media_type = essence(&head.headers);
    let is = |wanted: &str| media_type.eq_ignore_ascii_case(wanted);
    let structured = media_type.get(..STRUCTURED.len()).is_some_and(|start| start.eq_ignore_ascii_case(STRUCTURED));
    let is_batch = is(cloudevents::json::BATCH_CONTENT_TYPE);
    let in_json = part.message_bytes_max.saturating_mul(STRUCTURED_FACTOR);
    let (what, bytes_max) = match (is_batch, structured) {
        (true, _) => ("a batch may take", in_json.max(BATCH_BYTES_MIN)),
        (false, true) => ("a message in JSON may take (twice `broker.message_max`)", in_json),
        (false, false) => ("a message may take (`broker.message_max`)", part.message_bytes_max),
    };
    let body = collect(body, bytes_max).await?.ok_or(Refusal::Body { what, bytes_max })?;
    if is_batch {
        return batch(core, caller, (kind, to), &body).await;
    }
    let mut event = if is(cloudevents::json::CONTENT_TYPE) {
        cloudevents::json::read(&body)
    } else if structured {
        Err(cloudevents::Error(format!("the broker does not read {media_type}")))
    } else {
        cloudevents::http::read(&head.headers).map(|event| Event { data: body, ..event })
    }
    .map_err(invalid)?;
    trace(&mut event, &head.headers);
    let message = accept(core, &Publisher::new(caller.clone()), kind, to, event)?;
    let receipts = core.publish(vec![message]).await;
    let receipt = receipts.into_iter().next().unwrap_or(Err(Refusal::Ending))?;
    Ok((StatusCode::CREATED, Json(written(receipt))).into_response())
}

/// Several events: each has its own receipt or refusal, in order; one that is refused does not hold back the others.
async fn batch(
    core: &Core,
    caller: &model::identity::Subject,
    (kind, to): (Kind, &str),
    body: &[u8],
) -> Result<Response, Problem> {
    let events = cloudevents::json::read_batch(body).map_err(invalid)?;
    if events.len() > BATCH_MAX {
        return Err(Problem(Refusal::Invalid(format!("a batch has at most {BATCH_MAX} events"))));
    }
    let publisher = Publisher::new(caller.clone());
    let accepted: Vec<Result<_, Refusal>> =
        events.into_iter().map(|event| accept(core, &publisher, kind, to, event.map_err(invalid)?)).collect();
    let refused: Vec<Option<Refusal>> = accepted.iter().map(|one| one.as_ref().err().cloned()).collect();
    let mut receipts = core.publish(accepted.into_iter().flatten().collect()).await.into_iter();
    let results: Vec<Value> = refused
        .into_iter()
        .map(|refusal| match refusal.map_or_else(|| receipts.next().unwrap_or(Err(Refusal::Ending)), Err) {
            Ok(receipt) => json!(written(receipt)),
            Err(refusal) => json!({"refused": problem::document(&refusal)}),
        })
        .collect();
    Ok((StatusCode::OK, Json(json!({ "results": results }))).into_response())
}

fn invalid(error: cloudevents::Error) -> Refusal {
    Refusal::Invalid(error.to_string())
}

/// A receipt as it stands in an answer.
#[derive(Serialize)]
struct Written {
    duplicate: bool,
    durability: &'static str,
    position: Position,
}

fn written(receipt: Receipt) -> Written {
    let Receipt { position, durability, duplicate } = receipt;
    Written { duplicate, durability: durability_word(durability), position }
}

/// The body, or `None` when it is longer than so many bytes.
async fn collect(body: Body, bytes_max: u64) -> Result<Option<Bytes>, Refusal> {
    let limit = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(Some(collected.to_bytes())),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => Ok(None),
        Err(error) => Err(Refusal::Invalid(format!("the body broke off: {error}"))),
    }
}

fn essence(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// An event that carries no trace of its own gets the request's, so that its deliveries belong to it (CloudEvents extension
/// "distributed tracing").
fn trace(event: &mut Event, headers: &HeaderMap) {
    for name in ["traceparent", "tracestate"] {
        if let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) {
            event.extensions.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
}
