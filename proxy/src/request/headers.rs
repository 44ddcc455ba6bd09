//! A request's head on its way in: what ends at this hop is taken off, what this hop vouches for is put on.

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, HeaderName, MAX_FORWARDS, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Version};
use http_body::Body as _;
use policy::host::Authority;

use super::{HEAD_BYTES_MAX, HEADERS_MAX, OWN_BYTES_MAX, OWN_FIELDS_MAX, TARGET_BYTES_MAX};
use crate::body::Source;
use crate::edge::{Arrival, Direction};
use crate::refusal::{Reason, Refusal};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Who called, as an application is told by its own sidecar and by nobody else.
const CALLER: HeaderName = HeaderName::from_static("x-meshwork-caller");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// What ends at a hop beside `Connection` and what that names, and [`CALLER`], which nobody else may say.
const HOP_BY_HOP: [HeaderName; 5] = [TRANSFER_ENCODING, UPGRADE, KEEP_ALIVE, PROXY_CONNECTION, CALLER];
const HTTP: HeaderValue = HeaderValue::from_static("http");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
/// The one member of `TE` that may pass (RFC 9110 §10.1.4).
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
/// Longest `x-request-id` that is taken over from a client.
const REQUEST_ID_LENGTH_MAX: usize = 128;

/// Whether a request is a gRPC call: `application/grpc`, `application/grpc+proto`, never `application/grpc-web`.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(rest) = headers.get(CONTENT_TYPE).and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
    else {
        return false;
    };
    matches!(rest.first(), None | Some(b'+' | b';'))
}

/// The request's id, made where it has none. No other request has it, so it is never put into the tables of recent headers that
/// HTTP/2 keeps at both ends (RFC 7541 §6.2.3).
pub(super) fn request_id(headers: &mut HeaderMap, mut random: impl FnMut() -> u64) -> HeaderValue {
    if let Some(id) = headers.get_mut(&REQUEST_ID).filter(|id| id.len() <= REQUEST_ID_LENGTH_MAX) {
        id.set_sensitive(true);
        return id.clone();
    }
    let mut text = [0; 32];
    for (half, number) in text.chunks_exact_mut(16).zip([random(), random()]) {
        hexadecimal(half, number);
    }
    let mut id = HeaderValue::from_bytes(&text).unwrap_or(HTTP);
    id.set_sensitive(true);
    headers.insert(REQUEST_ID, id.clone());
    id
}

fn hexadecimal(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 0xf) as usize];
        number >>= 4;
    }
}

/// Refuses a head that is longer than its bounds, or that one server reads in another way than the next.
pub(super) fn check(head: &Parts, arrival: &Arrival) -> Result<(), Box<Refusal>> {
    let headers = &head.headers;
    if head.uri.path().len() + head.uri.query().map_or(0, str::len) > TARGET_BYTES_MAX {
        return Err(Reason::TargetTooLong(TARGET_BYTES_MAX).into());
    }
    if head.version == Version::HTTP_2 {
        check_length(headers, arrival.direction)?;
    }
    // RFC 9112 §3.2: more than one line is to be answered with 400.
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if head.version != Version::HTTP_2 || !is_another_host(head, host) => {}
        (Some(_), _) => return Err(Reason::TwoHosts.into()),
        // The same of none, in HTTP/1.1. A call from inside of this process has come over no connection.
        (None, _) if head.version == Version::HTTP_11 && arrival.control.is_some() => return Err(Reason::NoHost.into()),
        (None, _) => {}
    }
    if let Some(coding) = strange_coding(headers) {
        return Err(Reason::Coding(coding).into());
    }
    Ok(())
}

/// CGI and its heirs write both as `_`, so that `x_forwarded_for` from outside would stand in for what this hop vouches for.
pub(super) fn check_names(headers: &HeaderMap) -> Result<(), Box<Refusal>> {
    match headers.keys().find(|name| name.as_str().contains('_')) {
        Some(name) => Err(Reason::Underscore(name.to_string()).into()),
        None => Ok(()),
    }
}

/// HTTP/2 lets a client send its cookies one by one; everywhere else they are one field (RFC 9113 §8.2.3).
pub(super) fn join_cookies(head: &mut Parts) {
    if head.version != Version::HTTP_2 || head.headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = head.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        head.headers.insert(COOKIE, cookie);
    }
}

/// Counts a hop of an OPTIONS or a TRACE that says how many there may be; whether this is the last one (RFC 9110 §7.6.2).
///
/// # Errors
/// When it is a TRACE that ends here: nobody here says a request's fields, which may be secret, back to whoever sent it.
pub(super) fn ends_here(head: &mut Parts) -> Result<bool, Box<Refusal>> {
    if !matches!(head.method, Method::OPTIONS | Method::TRACE) {
        return Ok(false);
    }
    let left = head.headers.get(MAX_FORWARDS).and_then(|left| left.to_str().ok()?.parse::<u32>().ok());
    match (left.map(|left| left.checked_sub(1)), &head.method) {
        (None, _) => Ok(false),
        (Some(Some(left)), _) => {
            head.headers.insert(MAX_FORWARDS, HeaderValue::from(left));
            Ok(false)
        }
        (Some(None), &Method::TRACE) => Err(Reason::Trace.into()),
        (Some(None), _) => Ok(true),
    }
}

/// A transfer coding that is not plain chunked (RFC 9112 §6.1). What hyper takes for chunked ends in it; a coding before it would
/// be taken off with the header.
pub(super) fn strange_coding(headers: &HeaderMap) -> Option<String> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let coding = codings.next()?;
    let plain = codings.next().is_none() && coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    (!plain).then(|| String::from_utf8_lossy(coding.as_bytes()).into_owned())
}

/// What hyper's read buffer does for HTTP/1.1; counted as RFC 9113 §10.5.1 has it.
fn check_length(headers: &HeaderMap, direction: Direction) -> Result<(), Box<Refusal>> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    // What a sidecar has put on comes with 32 octets a field.
    let (own_bytes, own_fields) = match direction {
        Direction::Inbound => (OWN_BYTES_MAX + 32 * (HEADERS_MAX + OWN_FIELDS_MAX), OWN_FIELDS_MAX),
        // The request's id, which is made before anything else.
        Direction::Outbound | Direction::Gateway | Direction::Status => (0, 1),
    };
    if bytes > HEAD_BYTES_MAX + own_bytes || headers.len() > HEADERS_MAX + own_fields {
        return Err(Reason::HeadTooLong(HEAD_BYTES_MAX).into());
    }
    Ok(())
}

/// RFC 9113 §8.3.1: a `Host` that differs from `:authority` is malformed.
fn is_another_host(head: &Parts, host: &HeaderValue) -> bool {
    let Some(authority) = head.uri.authority() else { return false };
    let Ok(host) = host.to_str() else { return true };
    !host.eq_ignore_ascii_case(authority.as_str())
        && match (Authority::parse(host), Authority::parse(authority.as_str())) {
            (Ok(host), Ok(authority)) => {
                let default = if head.uri.scheme_str() == Some("https") { 443 } else { 80 };
                host.host != authority.host || host.port_or(default) != authority.port_or(default)
            }
            _ => true,
        }
}

/// Refuses a body that says it is too long, and bounds one that does not say.
pub(super) fn bound_body(head: &Parts, body: &mut Option<Source>, bytes_max: u64) -> Result<(), Box<Refusal>> {
    let Some(body) = body else { return Ok(()) };
    if let Some(length) = body.size_hint().exact() {
        if length > bytes_max {
            return Err(Reason::BodyTooLong(bytes_max).into());
        }
        // The HTTP library holds a body to the length that it gives.
        return Ok(());
    }
    if head.headers.contains_key(CONTENT_LENGTH) && head.headers.contains_key(TRANSFER_ENCODING) {
        return Err(Reason::Framing("Content-Length beside Transfer-Encoding").into());
    }
    body.bound(bytes_max);
    Ok(())
}

/// What a client asks of the connections behind this hop.
#[derive(Default)]
pub(super) struct Wishes {
    /// The protocol that it wants to upgrade to.
    pub(super) upgrade: Option<HeaderValue>,
    /// Whether it takes trailers.
    pub(super) trailers: bool,
}

/// Takes off what ends at this hop (RFC 9110 §7.6.1; of HTTP/1.0 also the expectation, §10.1.1) and puts on who called.
pub(super) fn arrive(head: &mut Parts, arrival: &Arrival, is_grpc: bool) -> Result<Wishes, Box<Refusal>> {
    // Before anything is taken off: a gateway says which host was asked for.
    let host = if arrival.direction == Direction::Gateway { asked_host(head) } else { None };
    if head.version == Version::HTTP_10 {
        head.headers.remove(EXPECT);
    }
    let wishes = if has_any(&head.headers, &[]) { take_off(head, is_grpc)? } else { Wishes::default() };
    vouch(&mut head.headers, arrival, host);
    Ok(wishes)
}

/// Takes off what ends at this hop, and says what of it was a wish.
fn take_off(head: &mut Parts, is_grpc: bool) -> Result<Wishes, Box<Refusal>> {
    let headers = &mut head.headers;
    let mut upgrade = None;
    if let Some(connection) = take_connection(headers) {
        let named = connection.to_str().map_err(|_| Reason::Framing("Connection is not readable"))?;
        // A WebSocket begins with a GET (RFC 6455 §4.1): behind another method a body could come first.
        let may = head.version == Version::HTTP_11 && head.method == Method::GET;
        let wants = may && names(named).any(|name| name.eq_ignore_ascii_case("upgrade"));
        upgrade = if wants { headers.remove(UPGRADE).filter(is_websocket).map(|_| WEBSOCKET) } else { None };
        for name in names(named) {
            remove_nominated(headers, name);
        }
    }
    remove_hop_by_hop(headers);
    Ok(Wishes { upgrade, trailers: take_te(headers, is_grpc) })
}

/// Leaves of `TE` what may pass, and says whether that is there.
fn take_te(headers: &mut HeaderMap, is_grpc: bool) -> bool {
    let mut lines = headers.get_all(TE).iter();
    let Some(te) = lines.next() else { return false };
    if *te == TRAILERS && lines.next().is_none() {
        return true;
    }
    let trailers = te.to_str().is_ok_and(|te| names(te).any(|name| name.eq_ignore_ascii_case("trailers")));
    if is_grpc || trailers {
        headers.insert(TE, TRAILERS);
    } else {
        headers.remove(TE);
    }
    is_grpc || trailers
}

/// The host that decides where a request goes.
fn asked_host(head: &Parts) -> Option<HeaderValue> {
    match head.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => head.headers.get(HOST).cloned(),
    }
}

/// All lines of `Connection` as one.
fn take_connection(headers: &mut HeaderMap) -> Option<HeaderValue> {
    if headers.get_all(CONNECTION).iter().nth(1).is_none() {
        return headers.remove(CONNECTION);
    }
    let lines: Vec<&[u8]> = headers.get_all(CONNECTION).iter().map(HeaderValue::as_bytes).collect();
    let joined = HeaderValue::from_bytes(&lines.join(&b", "[..]));
    headers.remove(CONNECTION);
    joined.ok()
}

/// The one protocol that passes. An upgrade to `h2c` would open a tunnel behind every rule that is asked request by request.
fn is_websocket(upgrade: &HeaderValue) -> bool {
    upgrade.to_str().is_ok_and(|upgrade| names(upgrade).any(|name| name.eq_ignore_ascii_case("websocket")))
}

/// What is known of the client is put on, in the place of what it could pretend.
fn vouch(headers: &mut HeaderMap, arrival: &Arrival, host: Option<HeaderValue>) {
    match arrival.direction {
        Direction::Inbound => {
            if let Some(caller) = &arrival.peer_header {
                headers.insert(CALLER, caller.clone());
            }
        }
        Direction::Gateway => {
            headers.remove(&FORWARDED);
            put(headers, FORWARDED_HOST, host);
            put(headers, FORWARDED_FOR, arrival.forwarded_for.clone());
            headers.insert(FORWARDED_PROTO, HTTP);
        }
        Direction::Outbound | Direction::Status => {}
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => headers.insert(name, value),
        None => headers.remove(name),
    };
}

fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty())
}

/// A header that `Connection` nominates is for this hop; but no client takes off what requests are framed and routed by.
fn remove_nominated(headers: &mut HeaderMap, name: &str) {
    let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { return };
    if ![HOST, CONTENT_LENGTH, CONTENT_TYPE, TRAILER, TE, REQUEST_ID, CALLER].contains(&name) {
        headers.remove(name);
    }
}

/// Takes off what ends at this hop on the way back. A 101 keeps what it says of its upgrade and does not come here.
pub(super) fn depart(headers: &mut HeaderMap) {
    if !has_any(headers, &[]) {
        return;
    }
    if let Some(connection) = take_connection(headers) {
        for name in connection.to_str().iter().flat_map(|named| names(named)) {
            remove_nominated(headers, name);
        }
    }
    remove_hop_by_hop(headers);
}

/// Whether any of these is there, or anything that ends at a hop. Most messages have none of them, which one look over the names
/// tells for less than looking each of them up.
fn has_any(headers: &HeaderMap, others: &[HeaderName]) -> bool {
    let any = |name: &HeaderName| {
        HOP_BY_HOP.contains(name)
            || [CONNECTION, TE].contains(name)
            || is_caller_in_disguise(name)
            || others.contains(name)
    };
    headers.keys().any(any)
}

/// Takes off [`HOP_BY_HOP`].
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // RFC 9112 §6.3: the coding wins, and hyper would cut what it writes to the length.
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    while let Some(name) = headers.keys().find(|name| is_caller_in_disguise(name)).cloned() {
        headers.remove(name);
    }
}

/// [`CALLER`] as an application that was told its headers by CGI's rules would read it, whatever hyphens are written as.
fn is_caller_in_disguise(name: &HeaderName) -> bool {
    let hyphened = |byte: u8| if byte == b'_' { b'-' } else { byte };
    let name = name.as_str();
    name.len() == CALLER.as_str().len() && name.contains('_') && name.bytes().map(hyphened).eq(CALLER.as_str().bytes())
}

/// Takes off what no trailer may say (RFC 9110 §6.5.1): how a message is framed and routed, and who called.
pub(crate) fn clean_trailers(trailers: &mut HeaderMap) {
    const FRAMING: [HeaderName; 4] = [HOST, CONTENT_LENGTH, CONTENT_TYPE, TRAILER];
    if !has_any(trailers, &FRAMING) {
        return;
    }
    for name in FRAMING.iter().chain(&[CONNECTION, TE]) {
        trailers.remove(name);
    }
    remove_hop_by_hop(trailers);
}
