//! Whose fault it is: for each thing that can come of an attempt, what it says about the endpoint that the attempt went to.
//!
//! This file alone says so. Whoever makes an attempt names its [`Ending`]; the breaker and the balancer take the [`Outcome`]
//! that [`outcome`] gives for it. Whether there is another attempt is left to [`crate::retry`].
//!
//! An endpoint is blamed only for what it did itself. What the client did (it left, it was slow, it was in a hurry), what this
//! process lacks, and what lies behind the endpoint are not its fault: a breaker that counted them would take out an instance
//! that serves everybody else, and would do so at each hop anew.

use std::time::Duration;

/// How much of an attempt's time a client must have taken before an endpoint that gave up on it is excused. Servers wait for a
/// body for longer than this (Go, Node.js, nginx: 5 s to 5 min where they have a bound).
pub const CLIENT_SLOW_MIN: Duration = Duration::from_secs(1);
/// How long after a request was sent its connection may be closed for that to be the race of a kept connection, which is over
/// within a round trip.
pub const IDLE_RACE_MAX: Duration = Duration::from_secs(1);

/// What an attempt has shown about its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It answered as it should, also when the answer refuses the request: the fault is the caller's, or nobody's.
    Served,
    /// It is alive and cannot do this now (429, RESOURCE_EXHAUSTED, a full disk, a full bulkhead). No breaker may open on it
    /// (envoy#25487), yet so fast an answer must not make it look attractive to the balancer.
    Overloaded,
    /// It is alive, and what it needs is not: it answered as a gateway (502, 504). No breaker opens on it, since that would
    /// carry an outage on to whoever does not need the part that is away; another endpoint may be better off.
    Dependency,
    /// Its fault.
    Fault(Origin),
    /// It did not answer for as long as the client was ready to wait. Nobody can say whether it would have; its round trip is
    /// at least that long.
    Unanswered,
    /// Nothing: the attempt was cancelled, never came to the endpoint, or ended for a reason that is not the endpoint's.
    Unknown,
}

/// Where a fault was seen. They are told apart since they call for different repairs (Envoy `split_external_local_origin_errors`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// On our side: no connection, a reset, no answer in time.
    Local,
    /// In the endpoint's own answer: a 5xx, a gRPC status that blames the server.
    Upstream,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Local => "no connection, resets or timeouts",
            Self::Upstream => "answers that blame the server",
        })
    }
}

impl Outcome {
    /// No connection, a reset, no answer in time.
    pub const LOCAL_FAULT: Self = Self::Fault(Origin::Local);
    /// An answer that blames the server.
    pub const UPSTREAM_FAULT: Self = Self::Fault(Origin::Upstream);
}

/// Each way in which an attempt can end, as far as whoever made it can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// No connection: refused, no route, a name without an address.
    NotConnected,
    /// No connection in time.
    ConnectTimeout,
    /// The TLS handshake failed, the endpoint is not who was meant, or HTTP could not be started.
    Handshake,
    /// This process lacks what a connection needs: an identity, a file descriptor, a local port, memory.
    OwnMeans,
    /// Every connection to it carries what it takes at a time, or what this side gives it.
    Full,

    /// A connection that had carried requests before was closed as this one was sent: the race of every kept connection
    /// (istio#55138).
    IdleClosed,
    /// The endpoint ends its connections in good order (GOAWAY with NO_ERROR) and has not taken this request up.
    GoneAway,
    /// The connection broke before the answer's head.
    Broken,
    /// The connection broke, or could not be made, and another request that shared it has been counted for it: it is one break.
    BrokenWithOthers,
    /// The endpoint reset the stream with this code (RFC 9113 §7), before the answer's head or behind it.
    Reset(u32),
    /// The answer's body broke off, or was shorter than its framing says.
    CutShort,
    /// The answer cannot be read: it is no HTTP, or not framed in one way.
    Unreadable,
    /// The answer's head is longer, or has more fields, than the mesh takes: the mesh's own bound.
    HeadTooLong,
    /// The answer is in a form that the mesh does not pass on: a transfer coding that it does not know, a switch of protocols
    /// that nobody asked for.
    NotPassedOn,

    /// No answer within the time that the mesh file gives to an attempt or to a request.
    Timeout,
    /// No answer within what earlier attempts had left of the request's time.
    LeftoverTimeout,
    /// No answer within the client's own deadline.
    ClientDeadline,
    /// No answer in time, and it was the client's body that took the time.
    ClientSlow,
    /// The client's body broke off, or was longer than its bound.
    ClientBody,
    /// The client did not wait for the answer, or for its end.
    ClientLeft,

    /// An answer with this status.
    Status {
        /// It.
        status: u16,
        /// Whether the answer says when to come again (`Retry-After`).
        come_again: bool,
    },
    /// An answer with this gRPC status.
    Grpc {
        /// It.
        status: u8,
        /// Whether the answer says when to come again (`grpc-retry-pushback-ms`).
        come_again: bool,
    },
    /// A gRPC answer that ended without a status.
    NoGrpcStatus,
    /// What the endpoint's own sidecar said in its stead.
    Peer(Peer),
}

/// A refusal by the sidecar of the endpoint, by the error type of its `Proxy-Status` (RFC 9209 §2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Its bulkhead is full.
    Busy,
    /// The application was not reached: it accepts no connection, or the sidecar is not ready itself.
    NotReached,
    /// The application broke off before it answered.
    Broken,
    /// The application did not answer, or did not take the request, in time.
    Late,
    /// The application's answer is beyond what the mesh takes or knows.
    NotPassedOn,
    /// It is the request that was refused: its form, its length, its right.
    Request,
}

/// The error type of a `Proxy-Status`, read.
#[must_use]
pub fn peer(error: &str) -> Peer {
    match error {
        "connection_limit_reached" => Peer::Busy,
        "connection_refused"
        | "connection_timeout"
        | "destination_unavailable"
        | "proxy_configuration_error"
        | "proxy_internal_error" => Peer::NotReached,
        "connection_terminated" | "http_response_incomplete" | "http_protocol_error" => Peer::Broken,
        "http_response_timeout" | "connection_read_timeout" | "connection_write_timeout" => Peer::Late,
        "http_response_header_section_size"
        | "http_response_header_size"
        | "http_response_transfer_coding"
        | "http_upgrade_failed" => Peer::NotPassedOn,
        _ => Peer::Request,
    }
}

/// The table: what an ending says about the endpoint.
#[must_use]
pub const fn outcome(ending: Ending) -> Outcome {
    match ending {
        Ending::NotConnected
        | Ending::ConnectTimeout
        | Ending::Handshake
        | Ending::Broken
        | Ending::CutShort
        | Ending::Timeout => Outcome::LOCAL_FAULT,
        Ending::Unreadable => Outcome::UPSTREAM_FAULT,
        // It answered. That the mesh does not take such answers holds for every endpoint of the service.
        Ending::HeadTooLong | Ending::NotPassedOn | Ending::NoGrpcStatus => Outcome::Served,
        Ending::Full => Outcome::Overloaded,
        Ending::LeftoverTimeout | Ending::ClientDeadline => Outcome::Unanswered,
        Ending::OwnMeans
        | Ending::IdleClosed
        | Ending::GoneAway
        | Ending::BrokenWithOthers
        | Ending::ClientSlow
        | Ending::ClientBody
        | Ending::ClientLeft => Outcome::Unknown,
        Ending::Reset(code) => reset(code),
        Ending::Status { status, come_again } => http(status, come_again),
        Ending::Grpc { status, come_again } => grpc(status, come_again),
        Ending::Peer(refusal) => match refusal {
            Peer::Busy => Outcome::Overloaded,
            Peer::NotReached | Peer::Broken | Peer::Late => Outcome::LOCAL_FAULT,
            Peer::NotPassedOn | Peer::Request => Outcome::Served,
        },
    }
}

/// What a reset of the stream says. The codes are those of RFC 9113 §7; gRPC over HTTP/2 ("Errors") reads them alike, but for
/// two: PROTOCOL_ERROR is what a malformed *request* is answered with (§8.1.1), and a CANCEL that comes from the endpoint is its
/// own, since a client that cancels is not there to see it.
const fn reset(code: u32) -> Outcome {
    const PROTOCOL_ERROR: u32 = 0x1;
    const REFUSED_STREAM: u32 = 0x7;
    const ENHANCE_YOUR_CALM: u32 = 0xb;
    const HTTP_1_1_REQUIRED: u32 = 0xd;
    match code {
        REFUSED_STREAM | ENHANCE_YOUR_CALM => Outcome::Overloaded,
        PROTOCOL_ERROR | HTTP_1_1_REQUIRED => Outcome::Unknown,
        _ => Outcome::LOCAL_FAULT,
    }
}

/// What an HTTP status says. 5xx blames the endpoint (RFC 9110 §15.6), but not
/// - 502 and 504, by which a server that acts as a gateway says that another one failed (§15.6.3, §15.6.5);
/// - 503 that says when to come again (§15.6.4): the word of an application that is alive and waits for something itself;
/// - 507, no room for what this request would store (RFC 4918 §11.5), and 429 (RFC 6585 §4);
/// - 501, 505, 506, 508, 510, 511: about the request or the resource, and every endpoint of the service would answer alike.
///
/// One that is not known is read as 500 (§15). A refusal that a sidecar made in its application's stead is [`Ending::Peer`].
const fn http(status: u16, come_again: bool) -> Outcome {
    match status {
        429 | 507 => Outcome::Overloaded,
        503 if come_again => Outcome::Overloaded,
        502 | 504 => Outcome::Dependency,
        501 | 505 | 506 | 508 | 510 | 511 => Outcome::Served,
        500..=599 => Outcome::UPSTREAM_FAULT,
        _ => Outcome::Served,
    }
}

/// gRPC status codes (grpc/doc/statuscodes.md) by their numbers on the wire.
pub mod code {
    /// Fine.
    pub const OK: u8 = 0;
    /// The caller cancelled.
    pub const CANCELLED: u8 = 1;
    /// An error without a better word.
    pub const UNKNOWN: u8 = 2;
    /// The deadline passed.
    pub const DEADLINE_EXCEEDED: u8 = 4;
    /// No permission.
    pub const PERMISSION_DENIED: u8 = 7;
    /// A quota or a buffer is used up.
    pub const RESOURCE_EXHAUSTED: u8 = 8;
    /// No such method.
    pub const UNIMPLEMENTED: u8 = 12;
    /// A broken invariant.
    pub const INTERNAL: u8 = 13;
    /// Not there now.
    pub const UNAVAILABLE: u8 = 14;
    /// Data is lost or damaged.
    pub const DATA_LOSS: u8 = 15;
}

/// What a gRPC status says. The codes that Linkerd counts (DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS) blame the
/// endpoint, except PERMISSION_DENIED: where the default is to deny, it would let one caller without an edge open everyone's
/// breaker. CANCELLED says nothing, since the caller did it. DEADLINE_EXCEEDED is the endpoint's only where the deadline was not
/// the client's own ([`Ending::ClientDeadline`] otherwise). UNAVAILABLE that says when to come again is a 503 that does.
const fn grpc(status: u8, come_again: bool) -> Outcome {
    match status {
        code::UNAVAILABLE if come_again => Outcome::Overloaded,
        code::DEADLINE_EXCEEDED | code::INTERNAL | code::UNAVAILABLE | code::DATA_LOSS => Outcome::UPSTREAM_FAULT,
        code::RESOURCE_EXHAUSTED => Outcome::Overloaded,
        code::CANCELLED => Outcome::Unknown,
        _ => Outcome::Served,
    }
}

/// Whether a gRPC status says that the call failed on the server's side, whoever is to blame.
#[must_use]
pub const fn is_grpc_failure(status: u8) -> bool {
    matches!(grpc(status, false), Outcome::Fault(_))
}

/// What bounds an attempt's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bound {
    /// The mesh file, for an attempt or for a request that is in its first one.
    Route,
    /// What earlier attempts have left of the request's time.
    Leftover,
    /// The client's own deadline.
    Client,
}

/// How an attempt ended that took that long without an answer, `client` of it waiting for the client's body.
#[must_use]
pub fn late(bound: Bound, took: Duration, client: Duration) -> Ending {
    match bound {
        // Whoever took more of the time.
        _ if client > took / 2 => Ending::ClientSlow,
        Bound::Route => Ending::Timeout,
        Bound::Leftover => Ending::LeftoverTimeout,
        Bound::Client => Ending::ClientDeadline,
    }
}

/// How an attempt ended whose endpoint broke off in that way after it `took` that long, `client` of it waiting for the client's
/// body. Servers give up on a body that does not come; that is not theirs.
#[must_use]
pub fn broke_off(ending: Ending, took: Duration, client: Duration) -> Ending {
    let excused = client >= CLIENT_SLOW_MIN && client > took / 2;
    match ending {
        Ending::IdleClosed | Ending::Broken | Ending::Reset(_) | Ending::Peer(Peer::Broken) if excused => {
            Ending::ClientSlow
        }
        Ending::IdleClosed if took > IDLE_RACE_MAX => Ending::Broken,
        other => other,
    }
}

#[cfg(test)]
mod tests;
