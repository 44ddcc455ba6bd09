//! A request's head on its way out: the target's form, the host, the trace and the deadline, for one attempt.

use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use http_body::Body as _;
use model::config::Protocol;
use model::name::Name;
use policy::deadline::GrpcTimeout;
use policy::traceparent::TraceParent;

use crate::body::RequestBody;

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
pub(super) struct Stamp<'a> {
    /// This attempt's own span.
    pub(super) span: TraceParent,
    /// What is left of the time that the client has asked for. A bound of ours would be taken for the client's at the next hop,
    /// and hold for the whole answer there.
    pub(super) remaining: Option<Duration>,
    /// The endpoint's own name, where it is not asked by the service's.
    pub(super) host: Option<&'a HeaderValue>,
    /// Attempts before this one.
    pub(super) before: u32,
    pub(super) is_grpc: bool,
}

/// Puts an attempt's own headers on. What no other attempt has stays out of HTTP/2's tables of recent headers, where it would
/// only push out what is asked for again.
pub(super) fn stamp(head: &mut Parts, stamp: &Stamp<'_>) {
    if let Some(host) = stamp.host {
        name(head, host);
    }
    let headers = &mut head.headers;
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

/// Gives the target the form that the endpoint's protocol wants. `service` is the host of a request that names none (HTTP/1.0).
/// `trailers`: its client takes them.
pub(super) fn address(head: &mut Parts, protocol: Protocol, service: &Name, trailers: bool) {
    match protocol {
        Protocol::Http => address_http1(head, service, trailers),
        Protocol::Grpc => address_http2(head, service),
    }
}

fn address_http1(head: &mut Parts, service: &Name, trailers: bool) {
    head.version = Version::HTTP_11;
    // RFC 9112 §3.2.2, RFC 9113 §8.3.1: the target's authority takes the field's place.
    if let Some(authority) = head.uri.authority() {
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            head.headers.insert(HOST, host);
        }
        let target = std::mem::take(&mut head.uri).into_parts().path_and_query;
        head.uri = Uri::from(target.unwrap_or(ROOT));
    } else if !head.headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(service.as_str())
    {
        head.headers.insert(HOST, host);
    }
    // RFC 9110 §10.1.4: it is for one hop, and says so.
    if trailers {
        head.headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
}

fn address_http2(head: &mut Parts, service: &Name) {
    head.version = Version::HTTP_2;
    let own = head.headers.remove(HOST);
    if head.uri.authority().is_some() && head.uri.scheme().is_some() {
        return;
    }
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    if parts.authority.is_none() {
        let own = own.as_ref().and_then(|host| Authority::try_from(host.as_bytes()).ok());
        parts.authority = own.or_else(|| Authority::try_from(service.as_str()).ok());
    }
    parts.authority.get_or_insert_with(|| Authority::from_static("localhost"));
    parts.scheme.get_or_insert(Scheme::HTTP);
    parts.path_and_query.get_or_insert(ROOT);
    // All three parts are there, which is all that can be missing.
    head.uri = Uri::from_parts(parts).unwrap_or_default();
}

/// Puts the endpoint's own name in the place of the service's.
fn name(head: &mut Parts, host: &HeaderValue) {
    if head.version != Version::HTTP_2 {
        head.headers.insert(HOST, host.clone());
        return;
    }
    let Ok(authority) = Authority::try_from(host.as_bytes()) else { return };
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    parts.authority = Some(authority);
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
pub(super) fn frame(request: &mut Request<RequestBody>) {
    let odd = matches!(*request.method(), Method::GET | Method::HEAD | Method::DELETE);
    if odd
        && request.version() == Version::HTTP_11
        && !request.body().is_end_stream()
        && !request.headers().contains_key(CONTENT_LENGTH)
    {
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}
