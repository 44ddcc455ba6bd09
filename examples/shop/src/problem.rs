//! Refusals as problem documents (RFC 9457). What is refused, and why, is left to the services.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

/// The media type of a problem document.
pub const MEDIA_TYPE: &str = "application/problem+json";
/// When somebody who is told "not now" should ask again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The answer's status.
    pub status: StatusCode,
    /// What it is in general; the same words each time.
    pub title: &'static str,
    /// What it is this time.
    pub detail: String,
}

/// What a handler gives.
pub type Result<T> = std::result::Result<T, Problem>;

impl Problem {
    /// A problem of any kind.
    pub fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, title, detail: detail.into() }
    }

    /// The request itself is wrong: asking again does not help.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "the request cannot be read", detail)
    }

    /// There is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not found", detail)
    }

    /// Something that this service needs is away: asking again may help.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not available now", detail)
    }

    fn document(&self) -> Value {
        json!({"type": "about:blank", "title": self.title, "status": self.status.as_u16(), "detail": self.detail})
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            crate::log::say("refused", &[("status", &self.status.as_u16()), ("why", &self.detail)]);
        }
        let body = self.document().to_string();
        let mut response = (self.status, [(header::CONTENT_TYPE, MEDIA_TYPE)], body).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

impl From<crate::ledger::Error> for Problem {
    fn from(error: crate::ledger::Error) -> Self {
        Self::unavailable(format!("the ledger: {error}"))
    }
}

/// Reads a JSON body.
///
/// # Errors
/// 400 with the place of the mistake.
pub fn read_json<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| Problem::malformed(error.to_string()))
}
