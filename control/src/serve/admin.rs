//! The operator's door: what is in force, who lives, who has converged; and a new mesh file, checked whole before it counts.
//!
//! It is plain HTTP without a login: it listens on loopback only, and whoever reaches that is on the machine. A web page in a
//! browser on this machine reaches it too, under a name of its own that leads to loopback ("DNS rebinding"); so it answers only
//! where it is called by a name of this machine. What applications are given in their environment is often a password, and is
//! never shown.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use policy::host::Authority;
use runtime::drain::Drain;
use runtime::metrics::{self, Metrics};
use runtime::net::{Listener, Stream};
use serde_json::json;

use super::publish;
use crate::publisher::Publisher;
use crate::view;

/// Largest publication, in bytes: mesh files with the certificates that they name.
const PUBLICATION_BYTES_MAX: usize = 16 << 20;
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
        .route("/v1/mesh", get(mesh).post(publish::files))
        .route("/v1/revisions", get(revisions))
        .route("/v1/revisions/{number}", get(revision))
        .route("/v1/revisions/{number}/rollback", post(publish::rollback))
        .route("/v1/registry", get(registry))
        .route("/v1/sidecars", get(sidecars))
        .layer(DefaultBodyLimit::max(PUBLICATION_BYTES_MAX))
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

/// The revision in force. Who asks again and again names the one it has (RFC 9110 §13.1.2), and gets another one or 304.
async fn mesh(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let revision = admin.publisher.hub().revision();
    let tag = publish::tag(revision.number);
    if headers.get(header::IF_NONE_MATCH).is_some_and(|seen| seen.as_bytes() == tag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
    }
    let body = json!({ "revision": revision.number, "config": view::shown(&revision.config) });
    ([(header::ETAG, tag)], Json(body)).into_response()
}

async fn revision(State(admin): State<Admin>, Path(number): Path<u64>) -> Response {
    match admin.publisher.revision(number) {
        Ok(Some(mut kept)) => {
            kept.config = view::shown(&kept.config);
            Json(kept).into_response()
        }
        Ok(None) => publish::not_kept(number),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, "The revision cannot be read", &error.to_string()),
    }
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

/// RFC 9457 §3.
pub(super) const PROBLEM: &str = "application/problem+json";

pub(super) fn problem(status: StatusCode, title: &str, detail: &str) -> Response {
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
