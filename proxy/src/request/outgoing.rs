//! A request's head on its way out: the target's form, the host, the trace and the deadline, for one attempt.

use std::time::Duration;

use http::header::{CONTENT_LENGTH, HOST, HeaderName, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use http_body::Body as _;
use model::config::Protocol;
use policy::deadline::GrpcTimeout;
use policy::traceparent::TraceParent;

use crate::body::Sent;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const ROOT: PathAndQuery = PathAndQuery::from_static("/");
/// How often a request was tried before (gRFC A6).
const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// The trace that a request belongs to; one that comes without begins a new one.
pub(super) fn trace(headers: &HeaderMap, mut random: impl FnMut() -> u64) -> TraceParent {
    let came = headers.get(&TRACEPARENT).and_then(|value| TraceParent::parse(value.as_bytes()));
    came.unwrap_or_else(|| {
        let trace = u128::from(random()) << 64 | u128::from(random());
        TraceParent::root(trace, random(), true)
    })
}

/// The time that a gRPC client gives.
pub(super) fn asked_timeout(headers: &HeaderMap) -> Option<Duration> {
    policy::deadline::parse_grpc_timeout(headers.get(&GRPC_TIMEOUT)?.as_bytes())
}

/// What differs from one attempt to the next.
pub(super) struct Stamp {
    /// This attempt's own span.
    pub(super) span: TraceParent,
    /// What is left of the time that the client has asked for. A bound of ours would be taken for the client's at the next hop,
    /// and hold for the whole answer there.
    pub(super) remaining: Option<Duration>,
    /// Attempts before this one.
    pub(super) before: u32,
    pub(super) is_grpc: bool,
}

/// Puts an attempt's own headers on. What no other attempt has stays out of HTTP/2's tables of recent headers, where it would
/// only push out what is asked for again.
pub(super) fn stamp(headers: &mut HeaderMap, stamp: &Stamp) {
    if let Ok(mut value) = HeaderValue::from_bytes(&stamp.span.format()) {
        value.set_sensitive(true);
        headers.insert(TRACEPARENT, value);
    }
    if !stamp.is_grpc {
        return;
    }
    if let Some(remaining) = stamp.remaining
        && let Ok(mut value) = HeaderValue::from_bytes(GrpcTimeout::new(remaining).as_bytes())
    {
        value.set_sensitive(true);
        headers.insert(GRPC_TIMEOUT, value);
    }
    if stamp.before > 0 {
        headers.insert(PREVIOUS_ATTEMPTS, HeaderValue::from(stamp.before));
    }
}

/// Gives the target the form that the endpoint's protocol wants, and the host its name.
pub(super) fn address(head: &mut Parts, protocol: Protocol, host: Option<&HeaderValue>) {
    match protocol {
        Protocol::Http => address_http1(head, host),
        Protocol::Grpc => address_http2(head, host),
    }
}

fn address_http1(head: &mut Parts, host: Option<&HeaderValue>) {
    head.version = Version::HTTP_11;
    let authority = head.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(host) = host.cloned().or(authority) {
        head.headers.insert(HOST, host);
    }
    if head.uri.authority().is_some() {
        let target = std::mem::take(&mut head.uri).into_parts().path_and_query;
        head.uri = Uri::from(target.unwrap_or(ROOT));
    }
}

fn address_http2(head: &mut Parts, host: Option<&HeaderValue>) {
    head.version = Version::HTTP_2;
    let own = head.headers.remove(HOST);
    if host.is_none() && head.uri.authority().is_some() && head.uri.scheme().is_some() {
        return;
    }
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    if let Some(authority) = host.or(own.as_ref()).and_then(|host| Authority::try_from(host.as_bytes()).ok()) {
        parts.authority = Some(authority);
    }
    let authority = parts.authority.unwrap_or_else(|| Authority::from_static("localhost"));
    parts.authority = Some(authority);
    parts.scheme.get_or_insert(Scheme::HTTP);
    parts.path_and_query.get_or_insert(ROOT);
    // All three parts are there, which is all that can be missing.
    head.uri = Uri::from_parts(parts).unwrap_or_default();
}

/// The request, its head moved out of where it stood.
pub(super) fn taken<B>(head: &mut Parts, body: B) -> Request<B> {
    let mut request = Request::new(body);
    std::mem::swap(request.method_mut(), &mut head.method);
    std::mem::swap(request.uri_mut(), &mut head.uri);
    std::mem::swap(request.headers_mut(), &mut head.headers);
    std::mem::swap(request.extensions_mut(), &mut head.extensions);
    *request.version_mut() = head.version;
    request
}

/// A head in as few pieces as it can be made anew from: a list costs a third of a clone of the map.
pub(super) struct Copy {
    method: Method,
    uri: Uri,
    version: Version,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Copy {
    pub(super) fn of(head: &Parts) -> Self {
        let headers = head.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Self { method: head.method.clone(), uri: head.uri.clone(), version: head.version, headers }
    }

    /// Puts the head back where it was taken from. Extensions are this process's own and are not sent.
    pub(super) fn restore(&self, head: &mut Parts) {
        head.method = self.method.clone();
        head.uri = self.uri.clone();
        head.version = self.version;
        head.headers.clear();
        for (name, value) in &self.headers {
            head.headers.append(name.clone(), value.clone());
        }
    }
}

/// A body of unknown length behind a method that mostly has none must say that it is there.
pub(super) fn frame(request: &mut Request<Sent>) {
    let odd = matches!(*request.method(), Method::GET | Method::HEAD | Method::DELETE);
    if odd
        && request.version() == Version::HTTP_11
        && !request.body().is_end_stream()
        && !request.headers().contains_key(CONTENT_LENGTH)
    {
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}
