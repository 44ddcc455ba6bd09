//! Refusals as they stand in HTTP (problem documents, RFC 9457) and in gRPC: this file alone knows both.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use policy::authorize;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::refusal::Refusal;

/// A refusal on its way to an HTTP client.
#[derive(Debug)]
pub struct Problem(pub Refusal);

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, _, name, title) = wire(&self.0);
        let mut document = json!({
            "type": format!("urn:meshwork:problem:{name}"),
            "title": title,
            "status": status.as_u16(),
            "detail": self.0.to_string(),
            "subject": "broker",
        });
        if let Refusal::Unauthorized(authorize::Refusal::NoSuchDestination { near, .. }) = &self.0
            && let Value::Object(members) = &mut document
        {
            members.insert("near".to_owned(), json!(near));
        }
        let mut response = (status, document.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait) = self.0.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        response
    }
}

/// A refusal as a gRPC status.
#[must_use]
pub fn status(refusal: &Refusal) -> Status {
    Status::new(wire(refusal).1, refusal.to_string())
}

/// The table: HTTP status, gRPC code, the last part of the problem's type, its title.
const fn wire(refusal: &Refusal) -> (StatusCode, Code, &'static str, &'static str) {
    use StatusCode as S;
    match refusal {
        Refusal::Invalid(_) => (S::BAD_REQUEST, Code::InvalidArgument, "invalid-request", "Not a valid request"),
        Refusal::Method(_) => (S::METHOD_NOT_ALLOWED, Code::Unimplemented, "no-such-method", "Not a method of it"),
        Refusal::Anonymous => (S::FORBIDDEN, Code::Unauthenticated, "no-identity", "No identity"),
        Refusal::Unauthorized(refusal) if refusal.is_unknown_name() => {
            (S::NOT_FOUND, Code::NotFound, "undeclared-destination", "No such queue or topic")
        }
        Refusal::Unauthorized(_) => (S::FORBIDDEN, Code::PermissionDenied, "no-edge", "Not a declared edge"),
        Refusal::NotYours { .. } => {
            (S::FORBIDDEN, Code::PermissionDenied, "not-your-subscription", "Another service's subscription")
        }
        Refusal::Absent(_) => (S::NOT_FOUND, Code::NotFound, "not-found", "No such thing"),
        Refusal::Large { .. } => {
            (S::PAYLOAD_TOO_LARGE, Code::InvalidArgument, "message-too-large", "Message too large")
        }
        Refusal::Conflict => (S::CONFLICT, Code::AlreadyExists, "id-in-use", "Another message has this id"),
        Refusal::Depth { .. } => (S::TOO_MANY_REQUESTS, Code::ResourceExhausted, "queue-full", "The queue is full"),
        Refusal::LeaseOver => (S::CONFLICT, Code::FailedPrecondition, "lease-over", "The lease is over"),
        Refusal::NotConfigured => (S::SERVICE_UNAVAILABLE, Code::Unavailable, "not-ready", "Not ready"),
        Refusal::NoRoom(_) => (S::INSUFFICIENT_STORAGE, Code::Unavailable, "no-room", "The disk is full"),
        Refusal::Engine(_) => (S::SERVICE_UNAVAILABLE, Code::Unavailable, "engine-failed", "The engine has failed"),
        Refusal::Ending => (S::SERVICE_UNAVAILABLE, Code::Unavailable, "ending", "The broker is ending"),
    }
}
