//! What is answered in an application's stead: who refused, why, and what was tried. This file alone maps a refusal to HTTP and to
//! gRPC; everything else speaks of [`Reason`]s. The form that it has there is [`runtime::refusal`]'s.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use model::identity::Subject;
use model::name::Name;
use model::unit::write_duration;
use policy::authorize;
pub(crate) use runtime::refusal::Tried;
use runtime::refusal::{Story, Wire};

use crate::body::ResponseBody;
use crate::request::HEADERS_MAX;
use crate::upstream::Full;

/// When a client that met a full house may come back.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Why a request is not passed on, or its answer not passed back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Reason {
    #[error("this data plane has no configuration yet")]
    NotReady,
    #[error("the request's head could not be read: {0}")]
    Head(String),
    #[error("the request's head did not come in time")]
    HeadLate,
    #[error("the request's head is longer than {0} bytes or has more than {HEADERS_MAX} fields")]
    HeadTooLong(usize),
    #[error("the request's target is longer than {0} bytes")]
    TargetTooLong(usize),
    #[error("the field name {0:?} holds an underscore, which applications cannot tell from a hyphen")]
    Underscore(String),
    #[error("the transfer coding {0:?} is not understood; chunked is")]
    Coding(String),
    #[error("CONNECT leads from an application into its own sidecar, and nowhere else")]
    Connect,
    #[error("the protocol {0:?} is not known here; websocket is")]
    Protocol(String),
    #[error("the sidecar itself answers GET, and nothing else")]
    OwnMethod,
    #[error("the sidecar itself answers at /healthz, /metrics and /v1/status, and nowhere else")]
    OwnPath,
    #[error(
        "this listener tells of this instance, as `sidecar`, localhost or a loopback address, and leads nowhere else"
    )]
    OwnHost,
    #[error("the request names no host")]
    NoHost,
    #[error("the request names two hosts")]
    TwoHosts,
    #[error("the request's host is not usable: {0}")]
    Host(policy::host::Error),
    #[error("the request's path is not usable: {0}")]
    Path(policy::path::Error),
    #[error("the request is framed in two ways or in one that is not known: {0}")]
    Framing(&'static str),
    #[error("the client broke its request off")]
    ClientGone,
    #[error("a TRACE ends here, and no part of the mesh answers one")]
    Trace,
    #[error("{0} speaks gRPC, and the request's content type is not application/grpc")]
    NotGrpc(Name),
    #[error("the mesh encrypts by itself: call http://{0} without TLS, through this proxy")]
    TlsInside(String),
    #[error("TLS is not spoken here: call by http://, and the mesh encrypts by itself")]
    Tls,
    #[error("nothing more of the request's body came within {}", write_duration(*.0))]
    BodyLate(Duration),
    /// By the caller's own sidecar or gateway.
    #[error(transparent)]
    MayNotCall(authorize::Refusal),
    #[error("nothing is let through to {host}{path}")]
    NotLetThrough { host: String, path: String },
    /// By the sidecar of the called one.
    #[error(transparent)]
    MayNotBeCalled(authorize::Refusal),
    #[error("the caller has shown no identity of this mesh")]
    Stranger,
    #[error("the request's body is longer than {0} bytes")]
    BodyTooLong(u64),
    #[error("{0} requests are in progress, which is the bound")]
    Busy(u32),
    #[error("{service} has no live instance{}", in_subset(.subset))]
    NoEndpoint { service: Name, subset: Option<Name> },
    #[error("every instance of {0} has failed too often just now and is left alone")]
    BreakersOpen(Name),
    #[error("no connection to {0} could be made")]
    Unreachable(Name),
    #[error("{service} has no connection to spare: {full}")]
    Full { service: Name, full: Full },
    #[error("the connection to {0} broke before it answered")]
    Broken(Name),
    #[error("{service} answered in the transfer coding {coding:?}, which is not understood; chunked is")]
    AnswerCoding { service: Name, coding: String },
    #[error("{0} answered with a head that is longer or has more fields than the mesh takes: 64 KiB, {HEADERS_MAX}")]
    AnswerTooLong(Name),
    #[error("{service} did not answer within {}", write_duration(*.after))]
    Timeout { service: Name, after: Duration },
    /// By an application, or by what answers in its place.
    #[error("nothing more of the request's body was taken within {}", write_duration(*.0))]
    Unread(Duration),
    #[error("the deadline that the caller set has passed")]
    Deadline,
    #[error("the tunnel could not be opened: {0}")]
    Tunnel(&'static str),
}

fn in_subset(subset: &Option<Name>) -> String {
    subset.as_ref().map_or_else(String::new, |name| format!(" in subset {name}"))
}

/// A refusal with its story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    /// The service that was meant, as far as it is known.
    pub(crate) service: Option<String>,
    pub(crate) tried: Vec<Tried>,
    /// Names that the client may have meant.
    pub(crate) near: Vec<String>,
}

impl Refusal {
    /// A refusal without a story; boxed, since results that carry one are all over the pipeline and hardly ever do.
    pub(crate) fn new(reason: Reason) -> Box<Self> {
        Box::new(Self { reason, service: None, tried: Vec::new(), near: Vec::new() })
    }
}

impl From<Reason> for Box<Refusal> {
    fn from(reason: Reason) -> Self {
        Refusal::new(reason)
    }
}

const fn wire(status: StatusCode, error: &'static str, grpc: u8, name: &'static str, title: &'static str) -> Wire {
    Wire { status, error, grpc, name, title }
}

impl Reason {
    /// The table.
    fn wire(&self) -> Wire {
        use StatusCode as S;
        const REQUEST: &str = "http_request_error";
        const AWAY: &str = "destination_unavailable";
        match self {
            Self::NotReady => wire(S::SERVICE_UNAVAILABLE, "proxy_configuration_error", 14, "not-ready", "Not ready"),
            Self::Head(_) => wire(S::BAD_REQUEST, REQUEST, 3, "bad-head", "Bad head"),
            Self::HeadLate => wire(S::REQUEST_TIMEOUT, REQUEST, 4, "head-late", "Head not in time"),
            Self::HeadTooLong(_) => {
                wire(S::REQUEST_HEADER_FIELDS_TOO_LARGE, REQUEST, 8, "head-too-long", "Head too long")
            }
            Self::TargetTooLong(_) => wire(S::URI_TOO_LONG, REQUEST, 3, "target-too-long", "Target too long"),
            Self::Underscore(_) => wire(S::BAD_REQUEST, REQUEST, 3, "underscore", "Ambiguous field name"),
            Self::Coding(_) => wire(S::NOT_IMPLEMENTED, REQUEST, 12, "unknown-coding", "Unknown transfer coding"),
            Self::Connect => wire(S::NOT_IMPLEMENTED, REQUEST, 12, "no-connect", "No CONNECT here"),
            Self::Trace => wire(S::NOT_IMPLEMENTED, REQUEST, 12, "no-trace", "No TRACE here"),
            Self::TlsInside(_) | Self::Tls => wire(S::NOT_IMPLEMENTED, REQUEST, 12, "no-tls", "No TLS here"),
            Self::NotGrpc(_) => wire(S::UNSUPPORTED_MEDIA_TYPE, REQUEST, 12, "not-grpc", "Not gRPC"),
            Self::Protocol(_) => wire(S::NOT_IMPLEMENTED, REQUEST, 12, "unknown-protocol", "Unknown protocol"),
            Self::NoHost | Self::TwoHosts | Self::Host(_) => wire(S::BAD_REQUEST, REQUEST, 3, "bad-host", "Bad host"),
            Self::OwnMethod => wire(S::METHOD_NOT_ALLOWED, REQUEST, 12, "own-method", "Only GET here"),
            Self::OwnHost => wire(S::MISDIRECTED_REQUEST, REQUEST, 7, "own-host", "Not under this name"),
            Self::OwnPath => wire(S::NOT_FOUND, REQUEST, 12, "own-path", "Nothing here"),
            Self::Path(_) => wire(S::BAD_REQUEST, REQUEST, 3, "bad-path", "Bad path"),
            Self::Framing(_) => wire(S::BAD_REQUEST, REQUEST, 3, "bad-framing", "Bad framing"),
            Self::BodyLate(_) => wire(S::REQUEST_TIMEOUT, REQUEST, 4, "body-late", "Body not in time"),
            Self::ClientGone => wire(S::BAD_REQUEST, REQUEST, 1, "client-gone", "Request broken off"),
            Self::MayNotCall(why) if why.is_unknown_name() => {
                wire(S::NOT_FOUND, "destination_not_found", 5, "undeclared-service", "No such service")
            }
            Self::NotLetThrough { .. } => {
                wire(S::NOT_FOUND, "destination_not_found", 5, "not-let-through", "Nothing here")
            }
            Self::MayNotCall(_) => wire(S::FORBIDDEN, "http_request_denied", 7, "no-edge", "Not a declared call"),
            Self::MayNotBeCalled(_) | Self::Stranger => {
                wire(S::FORBIDDEN, "http_request_denied", 7, "caller-refused", "Not a declared caller")
            }
            Self::BodyTooLong(_) => wire(S::PAYLOAD_TOO_LARGE, REQUEST, 8, "body-too-long", "Body too long"),
            Self::Busy(_) => wire(S::SERVICE_UNAVAILABLE, "connection_limit_reached", 14, "busy", "Busy"),
            Self::Full { .. } => wire(S::SERVICE_UNAVAILABLE, "connection_limit_reached", 14, "full", "Full"),
            Self::NoEndpoint { .. } => wire(S::SERVICE_UNAVAILABLE, AWAY, 14, "no-endpoint", "No live instance"),
            Self::BreakersOpen(_) => wire(S::SERVICE_UNAVAILABLE, AWAY, 14, "breakers-open", "All instances failing"),
            Self::Unreachable(_) => wire(S::BAD_GATEWAY, "connection_refused", 14, "unreachable", "Not reachable"),
            Self::Broken(_) => wire(S::BAD_GATEWAY, "connection_terminated", 14, "broken", "Connection broken"),
            Self::AnswerCoding { .. } => {
                wire(S::BAD_GATEWAY, "http_response_transfer_coding", 13, "answer-coding", "Unknown transfer coding")
            }
            Self::AnswerTooLong(_) => wire(
                S::BAD_GATEWAY,
                "http_response_header_section_size",
                13,
                "answer-too-long",
                "Answer's head too long",
            ),
            Self::Timeout { .. } => {
                wire(S::GATEWAY_TIMEOUT, "http_response_timeout", 4, "timeout", "No answer in time")
            }
            Self::Unread(_) => {
                wire(S::GATEWAY_TIMEOUT, "connection_write_timeout", 4, "unread", "Body not taken in time")
            }
            Self::Deadline => wire(S::GATEWAY_TIMEOUT, "http_response_timeout", 4, "deadline", "Deadline passed"),
            Self::Tunnel(_) => wire(S::BAD_GATEWAY, "http_upgrade_failed", 14, "tunnel", "No tunnel"),
        }
    }

    /// The reason's name in metrics and logs.
    pub(crate) fn name(&self) -> &'static str {
        self.wire().name
    }

    /// The status that a gRPC client gets.
    pub(crate) fn grpc_status(&self) -> u8 {
        self.wire().grpc
    }
}

/// The trailers that end a gRPC stream in an endpoint's stead.
pub(crate) fn grpc_trailers(status: u8, why: &dyn std::fmt::Display) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert("grpc-status", HeaderValue::from(u16::from(status)));
    if let Ok(message) = HeaderValue::from_str(&runtime::refusal::percent_encode(&why.to_string())) {
        trailers.insert("grpc-message", message);
    }
    trailers
}

/// What a stream that an endpoint broke off means to a gRPC client (gRPC over HTTP2, "Errors"). A connection that ended, with a
/// GOAWAY or without a word, is UNAVAILABLE.
pub(crate) fn grpc_status_of(error: &(dyn std::error::Error + 'static)) -> u8 {
    let error = error.downcast_ref::<h2::Error>().filter(|error| error.is_reset());
    match error.and_then(h2::Error::reason) {
        None | Some(h2::Reason::REFUSED_STREAM) => 14,
        Some(h2::Reason::CANCEL) => 1,
        Some(h2::Reason::ENHANCE_YOUR_CALM) => 8,
        Some(h2::Reason::INADEQUATE_SECURITY) => 7,
        Some(_) => 13,
    }
}

/// Who refuses, and which request.
pub(crate) struct Context<'a> {
    pub(crate) subject: &'a Subject,
    pub(crate) request_id: Option<&'a HeaderValue>,
    pub(crate) is_grpc: bool,
}

impl Refusal {
    /// The answer to the client.
    pub(crate) fn answer(&self, context: &Context<'_>) -> Response<ResponseBody> {
        let story = self.story(context);
        let mut response = if context.is_grpc {
            story.grpc().map(|()| ResponseBody::empty())
        } else {
            story.http().map(ResponseBody::full)
        };
        self.describe(response.headers_mut());
        response
    }

    /// The same as bytes of HTTP/1.1, for a connection on which there is no request that could be answered; it ends with them.
    pub(crate) fn words(&self, subject: &Subject) -> Vec<u8> {
        let (mut head, body) = self.story(&Context { subject, request_id: None, is_grpc: false }).http().into_parts();
        self.describe(&mut head.headers);
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        if let Ok(date) = HeaderValue::from_str(&runtime::clock::http_date(runtime::clock::wall_s())) {
            head.headers.insert(header::DATE, date);
        }
        let mut words = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
        for (name, value) in &head.headers {
            words.extend_from_slice(name.as_str().as_bytes());
            words.extend_from_slice(b": ");
            words.extend_from_slice(value.as_bytes());
            words.extend_from_slice(b"\r\n");
        }
        words.extend_from_slice(b"\r\n");
        words.extend_from_slice(body.as_bytes());
        words
    }

    fn story<'a>(&'a self, context: &Context<'a>) -> Story<'a> {
        Story {
            by: "meshwork",
            subject: context.subject.to_string(),
            wire: self.reason.wire(),
            detail: self.reason.to_string(),
            request_id: context.request_id.and_then(|id| id.to_str().ok()),
            service: self.service.as_deref(),
            tried: &self.tried,
            near: &self.near,
        }
    }

    fn describe(&self, headers: &mut HeaderMap) {
        match self.reason {
            Reason::Busy(_) | Reason::Full { .. } | Reason::NotReady | Reason::BreakersOpen(_) => {
                headers.insert(header::RETRY_AFTER, RETRY_AFTER);
            }
            Reason::OwnMethod => {
                headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            Reason::NotGrpc(_) => {
                headers.insert(header::ACCEPT, HeaderValue::from_static("application/grpc"));
            }
            // Where a request ends in the middle of its body, nothing after it on the connection can be told apart.
            Reason::Framing(_)
            | Reason::Coding(_)
            | Reason::BodyTooLong(_)
            | Reason::ClientGone
            | Reason::BodyLate(_)
            | Reason::Unread(_) => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
    }
}
