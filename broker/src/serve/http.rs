//! The HTTP API, resource by resource. What it means is left to [`crate::accept`] and [`crate::consume`].

mod dead_letters;
mod publish;
mod queues;
mod topics;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use http::request::Parts;
use model::identity::Subject;
use model::unit;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::core::Core;
use crate::refusal::Refusal;
use crate::status::Status;

/// Whoever calls, as an extractor.
struct Caller(Subject);

/// A JSON body. One that is left out is an empty object: everything in it has its default, where it has one.
struct Told<T>(T);

/// What a request is told that takes no body.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// All resources.
pub fn router(core: Arc<Core>) -> Router {
    let dead_letters = || get(dead_letters::list).delete(dead_letters::purge);
    Router::new()
        .merge(plain().route_layer(middleware::from_fn(without_query)))
        // Publishing looks by itself: what a layer costs would be paid for each message.
        .route("/v1/queues/{queue}/messages", post(publish::to_queue))
        .route("/v1/topics/{topic}/messages", get(topics::read).post(publish::to_topic))
        .route("/v1/queues/{queue}/leases", post(queues::lease))
        .route("/v1/queues/{queue}/dead-letters", dead_letters())
        .route("/v1/topics/{topic}/subscriptions/{name}/dead-letters", dead_letters())
        .fallback(no_such_resource)
        .method_not_allowed_fallback(no_such_method)
        .with_state(core)
}

/// The resources that have no query parameters.
fn plain() -> Router<Arc<Core>> {
    let redrives = || post(dead_letters::redrive).get(dead_letters::progress).delete(dead_letters::cancel);
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/queues/{queue}", get(queues::show))
        .route("/v1/queues/{queue}/leases/{lease}/ack", post(queues::ack))
        .route("/v1/queues/{queue}/leases/{lease}/nack", post(queues::nack))
        .route("/v1/queues/{queue}/leases/{lease}/extend", post(queues::extend))
        .route("/v1/queues/{queue}/redrives", redrives())
        .route("/v1/topics/{topic}/subscriptions/{name}", get(topics::show))
        .route("/v1/topics/{topic}/subscriptions/{name}/seek", post(topics::seek))
        .route("/v1/topics/{topic}/subscriptions/{name}/pause", post(topics::pause))
        .route("/v1/topics/{topic}/subscriptions/{name}/redrives", redrives())
}

async fn without_query(request: Request, next: Next) -> Result<Response, Problem> {
    takes_no_query(request.uri())?;
    Ok(next.run(request).await)
}

fn takes_no_query(uri: &http::Uri) -> Result<(), Problem> {
    match uri.query().filter(|query| !query.is_empty()) {
        None => Ok(()),
        Some(query) => {
            let text = format!("{:?} takes no query parameters; found {query:?}", uri.path());
            Err(Problem(Refusal::Invalid(text)))
        }
    }
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

impl<S: Sync + Send, T: DeserializeOwned> FromRequest<S> for Told<T> {
    type Rejection = Problem;

    /// Whatever its media type is said to be: a body that was sent and not read would be an option that is ignored.
    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let invalid = |why: &dyn std::fmt::Display| Problem(Refusal::Invalid(format!("the body: {why}")));
        let body = Bytes::from_request(request, state).await.map_err(|why| invalid(&why.body_text()))?;
        let body: &[u8] = if body.is_empty() { b"{}" } else { &body };
        serde_json::from_slice(body).map(Self).map_err(|why| invalid(&why))
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
