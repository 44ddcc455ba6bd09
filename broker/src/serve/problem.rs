//! Refusals as they stand in HTTP and in gRPC: this file alone knows both. The form is [`runtime::refusal`]'s, which the data plane's
//! refusals have too.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use model::identity::Subject;
use policy::authorize;
use runtime::http::Body;
use runtime::refusal::{PROXY_STATUS, Story, Wire, proxy_status};
use serde_json::Value;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::refusal::Refusal;

/// The broker, where `Proxy-Status` says who refuses.
const BY: &str = "broker";

/// A refusal on its way to an HTTP client. It is written where the request's id is known, by [`http`].
#[derive(Debug)]
pub struct Problem(pub Refusal);

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = wire(&self.0).status.into_response();
        response.extensions_mut().insert(self.0);
        response
    }
}

/// A refusal as an HTTP answer.
pub fn http(refusal: &Refusal, request_id: Option<&HeaderValue>) -> http::Response<Body> {
    let mut response = story(refusal, request_id.and_then(|id| id.to_str().ok())).http().map(runtime::http::full);
    if let Some(wait) = refusal.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    }
    response
}

/// A refusal as a problem document, for one of several in one answer.
#[must_use]
pub fn document(refusal: &Refusal) -> Value {
    story(refusal, None).problem()
}

/// A refusal as a gRPC status, with the details that an HTTP client gets.
#[must_use]
pub fn status(refusal: &Refusal) -> Status {
    let story = story(refusal, None);
    let mut headers = HeaderMap::new();
    if let Some(value) = story.proxy_status() {
        headers.insert(PROXY_STATUS, value);
    }
    if let Some(wait) = refusal.retry_after() {
        // gRFC A6 "Pushback".
        headers.insert("grpc-retry-pushback-ms", HeaderValue::from(crate::moment::millis(wait)));
    }
    let (code, details) = (Code::from(i32::from(story.wire.grpc)), story.status_details());
    Status::with_details_and_metadata(code, story.detail, details.into(), MetadataMap::from_headers(headers))
}

/// The gRPC code of a refusal.
#[must_use]
pub fn code(refusal: &Refusal) -> i32 {
    i32::from(wire(refusal).grpc)
}

/// What the gRPC server refuses by itself, such as a method that is not there or a message that is not one, says who it was too.
pub fn sign(headers: &mut HeaderMap) {
    let refuses = headers.get("grpc-status").is_some_and(|status| status != "0");
    if refuses && !headers.contains_key(PROXY_STATUS) {
        let message = headers.get("grpc-message").and_then(|message| message.to_str().ok()).unwrap_or_default();
        if let Some(value) = proxy_status(BY, REQUEST, StatusCode::BAD_REQUEST, message) {
            headers.insert(PROXY_STATUS, value);
        }
    }
}

fn story<'a>(refusal: &'a Refusal, request_id: Option<&'a str>) -> Story<'a> {
    let near: &[String] = match refusal {
        Refusal::Unauthorized(authorize::Refusal::NoSuchDestination { near, .. }) => near,
        _ => &[],
    };
    let (subject, detail) = (Subject::Broker.to_string(), refusal.to_string());
    Story { by: BY, subject, wire: wire(refusal), detail, request_id, service: None, tried: &[], near }
}

// Error types of RFC 9209 §2.3.
const REQUEST: &str = "http_request_error";
const DENIED: &str = "http_request_denied";
const ABSENT: &str = "destination_not_found";
const AWAY: &str = "destination_unavailable";
const OWN_FAULT: &str = "proxy_internal_error";
const NOT_CONFIGURED: &str = "proxy_configuration_error";

/// The table: HTTP status, error type, gRPC code, the last part of the problem's type, its title.
const fn wire(refusal: &Refusal) -> Wire {
    use {Code as C, StatusCode as S};
    match refusal {
        Refusal::Invalid(_) => {
            row(S::BAD_REQUEST, REQUEST, C::InvalidArgument, "invalid-request", "Not a valid request")
        }
        Refusal::Method(_) => {
            row(S::METHOD_NOT_ALLOWED, REQUEST, C::Unimplemented, "no-such-method", "Not a method of it")
        }
        Refusal::Anonymous => row(S::FORBIDDEN, DENIED, C::Unauthenticated, "no-identity", "No identity"),
        Refusal::Unauthorized(refusal) if refusal.is_unknown_name() => {
            row(S::NOT_FOUND, ABSENT, C::NotFound, "undeclared-destination", "No such queue or topic")
        }
        Refusal::Unauthorized(_) => row(S::FORBIDDEN, DENIED, C::PermissionDenied, "no-edge", "Not a declared edge"),
        Refusal::NotYours { .. } => {
            row(S::FORBIDDEN, DENIED, C::PermissionDenied, "not-your-subscription", "Another service's subscription")
        }
        Refusal::Absent(_) => row(S::NOT_FOUND, ABSENT, C::NotFound, "not-found", "No such thing"),
        Refusal::Large { .. } | Refusal::Body { .. } => {
            row(S::PAYLOAD_TOO_LARGE, REQUEST, C::InvalidArgument, "message-too-large", "Message too large")
        }
        Refusal::Conflict => row(S::CONFLICT, REQUEST, C::AlreadyExists, "id-in-use", "Another message has this id"),
        Refusal::Depth { .. } => {
            row(S::TOO_MANY_REQUESTS, DENIED, C::ResourceExhausted, "queue-full", "The queue is full")
        }
        Refusal::LeaseOver => row(S::CONFLICT, REQUEST, C::FailedPrecondition, "lease-over", "The lease is over"),
        Refusal::DeadLetters { .. } => {
            row(S::CONFLICT, REQUEST, C::FailedPrecondition, "too-many-dead-letters", "Too many dead letters")
        }
        Refusal::Redriving(_) => {
            row(S::CONFLICT, REQUEST, C::FailedPrecondition, "redrive-running", "A redrive is running")
        }
        Refusal::NotConfigured => row(S::SERVICE_UNAVAILABLE, NOT_CONFIGURED, C::Unavailable, "not-ready", "Not ready"),
        Refusal::NoRoom(_) => {
            row(S::INSUFFICIENT_STORAGE, OWN_FAULT, C::ResourceExhausted, "no-room", "The disk is full")
        }
        Refusal::Engine(_) => {
            row(S::SERVICE_UNAVAILABLE, OWN_FAULT, C::Unavailable, "engine-failed", "The engine has failed")
        }
        Refusal::Ending => row(S::SERVICE_UNAVAILABLE, AWAY, C::Unavailable, "ending", "The broker is ending"),
    }
}

const fn row(status: StatusCode, error: &'static str, code: Code, name: &'static str, title: &'static str) -> Wire {
    Wire { status, error, grpc: code as u8, name, title }
}
