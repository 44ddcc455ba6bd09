//! CloudEvents 1.0 over HTTP: how the shop sends one (binary mode) and how it takes a delivery (binary or structured mode).
//!
//! What an event says is left to its sender and its receivers; when it is delivered again, to the broker.

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::problem::{self, Problem};
use crate::trace::Trace;

const STRUCTURED: &str = "application/cloudevents+json";
/// Which delivery of the event this is, from 1.
const ATTEMPT: &str = "meshwork-attempt";

/// An event that goes out.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// Unique together with `source`; made from the order's id, so that the same step gives the same id again.
    pub id: String,
    /// Who sends it, a URI-reference.
    pub source: &'static str,
    /// What has happened, or what is asked for.
    pub kind: &'static str,
    /// Events of one key stay in order.
    pub key: String,
    /// What it says.
    pub data: Value,
}

impl Outgoing {
    /// The event as a request to `uri`, with the trace both on the request and in the event.
    ///
    /// # Errors
    /// When an id or a key cannot stand in a header.
    pub fn into_request(self, uri: &str, trace: &Trace) -> http::Result<http::Request<Bytes>> {
        let mut request = http::Request::post(uri)
            .header("ce-specversion", "1.0")
            .header("ce-id", &self.id)
            .header("ce-source", self.source)
            .header("ce-type", self.kind)
            .header("ce-time", jiff::Timestamp::now().to_string())
            .header("ce-partitionkey", &self.key)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Bytes::from(self.data.to_string()))?;
        if let Some(parent) = trace.parent() {
            request.headers_mut().insert(HeaderName::from_static("ce-traceparent"), parent.clone());
        }
        Ok(request)
    }
}

/// An event that was delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// Unique together with `source`.
    pub id: String,
    /// Who sent it.
    pub source: String,
    /// What has happened, or what is asked for.
    pub kind: String,
    /// Which delivery this is, from 1; 1 where the deliverer does not say.
    pub attempt: u32,
    data: Bytes,
}

impl Delivered {
    /// What the event says.
    ///
    /// # Errors
    /// 400, which sends it to the dead letters: it will not be better next time.
    pub fn data<T: DeserializeOwned>(&self) -> problem::Result<T> {
        serde_json::from_slice(&self.data)
            .map_err(|error| Problem::malformed(format!("the data of {} ({}): {error}", self.id, self.kind)))
    }

    fn read(headers: &HeaderMap, body: Bytes) -> problem::Result<Self> {
        let attempt = headers.get(ATTEMPT).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(1);
        let content_type = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        if content_type.to_ascii_lowercase().starts_with(STRUCTURED.as_bytes()) {
            Self::read_structured(attempt, &body)
        } else {
            Self::read_binary(attempt, headers, body)
        }
    }

    /// Attributes stand percent-encoded in headers. They are compared and never shown here, so they are taken as they stand.
    fn read_binary(attempt: u32, headers: &HeaderMap, data: Bytes) -> problem::Result<Self> {
        let attribute = |name: &str| {
            let value = headers.get(name).and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty());
            value.map(str::to_owned).ok_or_else(|| Problem::malformed(format!("an event without `{name}`")))
        };
        let version = attribute("ce-specversion")?;
        let event = Self {
            id: attribute("ce-id")?,
            source: attribute("ce-source")?,
            kind: attribute("ce-type")?,
            attempt,
            data,
        };
        event.of_version(&version)
    }

    fn read_structured(attempt: u32, body: &[u8]) -> problem::Result<Self> {
        #[derive(Deserialize)]
        struct Document {
            specversion: String,
            id: String,
            source: String,
            #[serde(rename = "type")]
            kind: String,
            #[serde(default)]
            data: Value,
        }
        let Document { specversion, id, source, kind, data } = problem::read_json(body)?;
        Self { id, source, kind, attempt, data: data.to_string().into() }.of_version(&specversion)
    }

    fn of_version(self, version: &str) -> problem::Result<Self> {
        match version {
            "1.0" => Ok(self),
            _ => Err(Problem::malformed(format!("an event of specversion {version}; 1.0 is known"))),
        }
    }
}

impl<S: Send + Sync> FromRequest<S> for Delivered {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let headers = request.headers().clone();
        let body = Bytes::from_request(request, state).await;
        let body = body
            .map_err(|rejection| Problem::new(rejection.status(), "the body cannot be read", rejection.body_text()))?;
        Self::read(&headers, body)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn outgoing() -> Outgoing {
        Outgoing {
            id: "ord-1.placed".into(),
            source: "/shop/orders",
            kind: "order.placed",
            key: "ord-1".into(),
            data: json!({"order_id": "ord-1"}),
        }
    }

    #[test]
    fn what_is_sent_can_be_taken() {
        let trace = Trace::of(&HeaderMap::from_iter([(
            HeaderName::from_static("traceparent"),
            HeaderValue::from_static("00-1-2-01"),
        )]));
        let request = outgoing().into_request("http://broker/v1/topics/orders/messages", &trace).unwrap();
        assert_eq!(request.headers()["ce-traceparent"], "00-1-2-01");
        assert_eq!(request.headers()["ce-partitionkey"], "ord-1");
        let (parts, body) = request.into_parts();
        let event = Delivered::read(&parts.headers, body).unwrap();
        assert_eq!((event.id.as_str(), event.source.as_str()), ("ord-1.placed", "/shop/orders"));
        assert_eq!((event.kind.as_str(), event.attempt), ("order.placed", 1));
        assert_eq!(event.data::<Value>().unwrap(), json!({"order_id": "ord-1"}));
    }

    #[test]
    fn takes_the_structured_mode() {
        let headers = HeaderMap::from_iter([
            (header::CONTENT_TYPE, HeaderValue::from_static("application/cloudevents+json; charset=utf-8")),
            (HeaderName::from_static(ATTEMPT), HeaderValue::from_static("3")),
        ]);
        let body = json!({"specversion": "1.0", "id": "a", "source": "b", "type": "c", "data": {"n": 1}});
        let event = Delivered::read(&headers, body.to_string().into()).unwrap();
        assert_eq!((event.id.as_str(), event.attempt), ("a", 3));
        assert_eq!(event.data::<Value>().unwrap(), json!({"n": 1}));
    }

    #[test]
    fn refuses_what_is_no_event() {
        let trace = Trace::default();
        for missing in ["ce-id", "ce-source", "ce-type", "ce-specversion"] {
            let mut request = outgoing().into_request("/", &trace).unwrap();
            request.headers_mut().remove(missing);
            let problem = Delivered::read(request.headers(), Bytes::new()).unwrap_err();
            assert_eq!(problem.status, http::StatusCode::BAD_REQUEST);
            assert!(problem.detail.contains(missing), "{}", problem.detail);
        }
        let mut other = outgoing().into_request("/", &trace).unwrap();
        other.headers_mut().insert("ce-specversion", HeaderValue::from_static("0.3"));
        assert!(Delivered::read(other.headers(), Bytes::new()).is_err());
    }
}
