//! A request's head on its way in: what ends at this hop is taken off, what this hop vouches for is put on.

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Version};
use http_body::Body as _;

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
const HTTP: HeaderValue = HeaderValue::from_static("http");
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

/// Takes off what ends at this hop (RFC 9110 §7.6.1) and puts on who called. Answers the protocol that the client wants to
/// upgrade to, if it does.
pub(super) fn arrive(head: &mut Parts, arrival: &Arrival, is_grpc: bool) -> Result<Option<HeaderValue>, Box<Refusal>> {
    let headers = &mut head.headers;
    let mut upgrade = None;
    if let Some(connection) = headers.remove(CONNECTION) {
        let named = connection.to_str().map_err(|_| Reason::Framing("Connection is not readable"))?;
        let wants = head.version == Version::HTTP_11 && names(named).any(|name| name.eq_ignore_ascii_case("upgrade"));
        upgrade = if wants { headers.remove(UPGRADE) } else { None };
        for name in names(named) {
            remove_nominated(headers, name);
        }
    }
    remove_hop_by_hop(headers);
    if let Some(te) = headers.get(TE)
        && *te != TRAILERS
    {
        let trailers = te.to_str().is_ok_and(|te| names(te).any(|name| name.eq_ignore_ascii_case("trailers")));
        if is_grpc || trailers {
            headers.insert(TE, TRAILERS);
        } else {
            headers.remove(TE);
        }
    }
    vouch(headers, arrival);
    Ok(upgrade)
}

/// What is known of the client is put on, in the place of what it could pretend.
fn vouch(headers: &mut HeaderMap, arrival: &Arrival) {
    match arrival.direction {
        Direction::Inbound => {
            if let Some(caller) = &arrival.peer_header {
                headers.insert(CALLER, caller.clone());
            }
        }
        Direction::Gateway => {
            headers.remove(&FORWARDED);
            if let Some(host) = headers.get(HOST).cloned() {
                headers.insert(FORWARDED_HOST, host);
            }
            if let Some(client) = &arrival.forwarded_for {
                headers.insert(FORWARDED_FOR, client.clone());
            }
            headers.insert(FORWARDED_PROTO, HTTP);
        }
        Direction::Outbound => {}
    }
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

/// The same on the way back. `keep_upgrade`: the answer is 101.
pub(super) fn depart(headers: &mut HeaderMap, keep_upgrade: bool) {
    if keep_upgrade {
        return;
    }
    if let Some(connection) = headers.remove(CONNECTION) {
        for name in connection.to_str().iter().flat_map(|named| names(named)) {
            remove_nominated(headers, name);
        }
    }
    remove_hop_by_hop(headers);
}

/// What ends at this hop, and [`CALLER`], which nobody else may say. Most messages have none of these, which one look over the names tells for less than looking each of them up.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    const ALL: [HeaderName; 5] = [TRANSFER_ENCODING, UPGRADE, KEEP_ALIVE, PROXY_CONNECTION, CALLER];
    if headers.keys().any(|name| ALL.contains(name)) {
        for name in ALL {
            headers.remove(name);
        }
    }
}
