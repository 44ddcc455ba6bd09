//! The operator's door: what is in force, who lives, who has converged; and a new mesh file, checked whole before it counts.
//!
//! It is plain HTTP without a login: it listens on loopback only, and whoever reaches that is on the machine. A web page in a
//! browser on this machine reaches it too, under a name of its own that leads to loopback ("DNS rebinding"); so it answers only
//! where it is called by a name of this machine. What applications are given in their environment is often a password, and is
//! never shown.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use model::config::{Config, Place};
use policy::host::Authority;
use runtime::drain::Drain;
use runtime::metrics::{self, Metrics};
use runtime::net::{Listener, Stream};
use serde_json::json;

use crate::publisher::{self, Publisher};
use crate::view;

/// Largest mesh file, in bytes.
const MESH_FILE_BYTES_MAX: usize = 4 << 20;
/// Wait after an accept that failed.
const ACCEPT_RETRY: std::time::Duration = std::time::Duration::from_millis(50);

/// What the door needs.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) metrics: Metrics,
}

/// Serves until the drain.
pub(crate) async fn serve(listener: Listener, admin: Admin, drain: Drain) {
    let ending = async move { drain.requested().await };
    if let Err(error) = axum::serve(Door(listener), router(admin)).with_graceful_shutdown(ending).await {
        tracing::error!(%error, "the admin listener ended");
    }
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/metrics", get(metrics))
        .route("/v1/mesh", get(mesh).post(publish))
        .route("/v1/revisions", get(revisions))
        .route("/v1/registry", get(registry))
        .route("/v1/sidecars", get(sidecars))
        .layer(DefaultBodyLimit::max(MESH_FILE_BYTES_MAX))
        .layer(middleware::from_fn(called_as_this_machine))
        .with_state(admin)
}

/// Answers only where the caller means this machine (RFC 9110 §15.5.20).
async fn called_as_this_machine(request: Request, next: Next) -> Response {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (request.uri().authority(), hosts.next(), hosts.next()) {
        (Some(authority), _, None) => Some(authority.as_str()),
        (None, Some(host), None) => host.to_str().ok(),
        _ => None,
    };
    if host.and_then(|host| Authority::parse(host).ok()).is_some_and(|host| host.is_loopback()) {
        return next.run(request).await;
    }
    problem(
        StatusCode::MISDIRECTED_REQUEST,
        "Not under this name",
        "the admin API answers as localhost or a loopback address, and under no other name",
    )
}

async fn metrics(State(admin): State<Admin>) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], admin.metrics.encode()).into_response()
}

async fn mesh(State(admin): State<Admin>) -> Response {
    let revision = admin.publisher.hub().revision();
    Json(json!({ "revision": revision.number, "config": shown(&revision.config) })).into_response()
}

/// What stands in the place of a value that is not shown.
const HIDDEN: &str = "(hidden)";

/// The configuration without what may be a password.
fn shown(config: &Config) -> Config {
    let mut shown = config.clone();
    for service in shown.services.values_mut() {
        let Place::Mesh(workload) = &mut service.place else { continue };
        for value in workload.groups.iter_mut().flat_map(|group| group.env.values_mut()) {
            HIDDEN.clone_into(value);
        }
    }
    shown
}

async fn revisions(State(admin): State<Admin>) -> Response {
    match admin.publisher.kept() {
        Ok(kept) => {
            Json(json!({ "current": admin.publisher.hub().revision().number, "revisions": kept })).into_response()
        }
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, "The revisions cannot be read", &error.to_string()),
    }
}

async fn registry(State(admin): State<Admin>) -> Response {
    Json(json!({ "instances": view::registry(admin.publisher.hub()) })).into_response()
}

async fn sidecars(State(admin): State<Admin>) -> Response {
    Json(json!({ "sidecars": view::sidecars(admin.publisher.hub()) })).into_response()
}

/// A new mesh file: the body is its text. It counts whole or not at all.
async fn publish(State(admin): State<Admin>, headers: HeaderMap, text: String) -> Response {
    // A page in a browser on this machine reaches loopback too, and says where it is from.
    if headers.contains_key(header::ORIGIN) {
        return problem(
            StatusCode::FORBIDDEN,
            "Not from a page",
            "a mesh file is published by a program, not by a web page",
        );
    }
    match admin.publisher.publish_text(&text) {
        Ok(revision) => Json(json!({ "revision": revision })).into_response(),
        Err(publisher::Error::Mistakes(findings)) => {
            let body = json!({
                "title": "The mesh file has mistakes",
                "status": StatusCode::UNPROCESSABLE_ENTITY.as_u16(),
                "findings": findings,
            });
            (StatusCode::UNPROCESSABLE_ENTITY, [(header::CONTENT_TYPE, PROBLEM)], body.to_string()).into_response()
        }
        Err(error @ publisher::Error::OtherMesh { .. }) => {
            problem(StatusCode::CONFLICT, "The mesh file is of another mesh", &error.to_string())
        }
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, "The revision cannot be kept", &error.to_string()),
    }
}

/// RFC 9457 §3.
const PROBLEM: &str = "application/problem+json";

fn problem(status: StatusCode, title: &str, detail: &str) -> Response {
    let body = json!({ "title": title, "status": status.as_u16(), "detail": detail });
    (status, [(header::CONTENT_TYPE, PROBLEM)], body.to_string()).into_response()
}

/// The door's sockets for axum.
struct Door(Listener);

impl axum::serve::Listener for Door {
    type Io = Stream;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.0.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the admin listener could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}
