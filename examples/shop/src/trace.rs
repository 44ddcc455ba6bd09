//! The trace of a request, carried on: what came in with a request goes out with the calls and messages that it causes.
//!
//! The headers of W3C Trace Context and Baggage are copied as they are; new spans are left to the sidecars on both sides.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::metadata::MetadataMap;

/// The headers that are carried on.
const CARRIED: [HeaderName; 3] =
    [HeaderName::from_static(TRACEPARENT), HeaderName::from_static("tracestate"), HeaderName::from_static("baggage")];
const TRACEPARENT: &str = "traceparent";
/// Where a delivered message carries its trace when the delivery itself has none (CloudEvents extension "Distributed Tracing").
const EVENT_TRACEPARENT: &str = "ce-traceparent";

/// What a request brought of its trace.
#[derive(Debug, Clone, Default)]
pub struct Trace(HeaderMap);

impl Trace {
    /// Takes the trace from a request's headers.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut carried = HeaderMap::new();
        for name in CARRIED {
            for value in headers.get_all(&name) {
                carried.append(name.clone(), value.clone());
            }
        }
        if !carried.contains_key(TRACEPARENT)
            && let Some(value) = headers.get(EVENT_TRACEPARENT)
        {
            carried.insert(HeaderName::from_static(TRACEPARENT), value.clone());
        }
        Self(carried)
    }

    /// Puts the trace on an outgoing request.
    pub fn put_on(&self, headers: &mut HeaderMap) {
        headers.extend(self.0.iter().map(|(name, value)| (name.clone(), value.clone())));
    }

    /// A gRPC request with the trace on it.
    pub fn grpc<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        *request.metadata_mut() = MetadataMap::from_headers(self.0.clone());
        request
    }

    /// The trace's parent, for a message to keep.
    pub fn parent(&self) -> Option<&HeaderValue> {
        self.0.get(TRACEPARENT)
    }
}

impl<S: Sync> FromRequestParts<S> for Trace {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn carries_the_trace_and_nothing_else() {
        let trace = Trace::of(&headers(&[("traceparent", "00-a-b-01"), ("tracestate", "x=1"), ("cookie", "c")]));
        let mut out = HeaderMap::new();
        trace.put_on(&mut out);
        assert_eq!(out, headers(&[("traceparent", "00-a-b-01"), ("tracestate", "x=1")]));
        assert_eq!(trace.grpc(()).metadata().get("traceparent").unwrap(), "00-a-b-01");
    }

    #[test]
    fn a_delivery_without_a_trace_of_its_own_gives_the_messages() {
        let own = Trace::of(&headers(&[("traceparent", "own"), ("ce-traceparent", "messages")]));
        assert_eq!(own.parent().unwrap(), "own");
        let messages = Trace::of(&headers(&[("ce-traceparent", "messages")]));
        assert_eq!(messages.parent().unwrap(), "messages");
    }
}
