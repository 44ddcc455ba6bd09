//! The HTTP API, resource by resource. What it means is left to [`crate::accept`] and [`crate::consume`].

mod publish;
mod queues;
mod topics;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::request::Parts;
use model::identity::Subject;
use model::unit;
use serde_json::{Value, json};

use super::problem::Problem;
use crate::consume::DeadLetter;
use crate::core::Core;
use crate::refusal::Refusal;
use crate::status::Status;

/// Whoever calls, as an extractor.
struct Caller(Subject);

/// All resources.
pub fn router(core: Arc<Core>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/queues/{queue}", get(queues::show))
        .route("/v1/queues/{queue}/messages", post(publish::to_queue))
        .route("/v1/queues/{queue}/leases", post(queues::lease))
        .route("/v1/queues/{queue}/leases/{lease}/ack", post(queues::ack))
        .route("/v1/queues/{queue}/leases/{lease}/nack", post(queues::nack))
        .route("/v1/queues/{queue}/leases/{lease}/extend", post(queues::extend))
        .route("/v1/queues/{queue}/dead-letters", get(queues::dead_letters))
        .route("/v1/queues/{queue}/redrives", post(queues::redrive))
        .route("/v1/topics/{topic}/messages", get(topics::read).post(publish::to_topic))
        .route("/v1/topics/{topic}/subscriptions/{name}", get(topics::show))
        .route("/v1/topics/{topic}/subscriptions/{name}/seek", post(topics::seek))
        .route("/v1/topics/{topic}/subscriptions/{name}/pause", post(topics::pause))
        .route("/v1/topics/{topic}/subscriptions/{name}/dead-letters", get(topics::dead_letters))
        .route("/v1/topics/{topic}/subscriptions/{name}/redrives", post(topics::redrive))
        .fallback(no_such_resource)
        .method_not_allowed_fallback(no_such_method)
        .with_state(core)
}

async fn status(State(core): State<Arc<Core>>, _: Caller) -> Json<Status> {
    Json(Status::of(&core.ledger))
}

async fn no_such_resource(uri: http::Uri) -> Problem {
    Problem(Refusal::Absent(format!("the broker has no resource {:?}; docs/broker-api.md lists them", uri.path())))
}

async fn no_such_method(method: http::Method, uri: http::Uri) -> Problem {
    Problem(Refusal::Method(format!("{:?} does not take {method}", uri.path())))
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(super::caller(&parts.extensions).cloned().map(Self)?)
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self(Refusal::Invalid(rejection.body_text()))
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        Self(Refusal::Invalid(rejection.body_text()))
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self(Refusal::Invalid(rejection.body_text()))
    }
}

/// A duration with its unit.
fn duration(name: &str, text: Option<&str>) -> Result<Option<Duration>, Refusal> {
    let read = |text| unit::duration(text).map_err(|why| Refusal::Invalid(format!("{name}: {why}")));
    text.map(read).transpose()
}

fn dead_letter(letter: &DeadLetter) -> Value {
    json!({
        "position": letter.position,
        "reason": letter.reason,
        "attempts": letter.assigned,
        "failed": letter.failed,
        "published_ms": letter.published_ms,
        "died_ms": letter.died_ms,
        "event": crate::cloudevents::json::write(&letter.event),
    })
}
