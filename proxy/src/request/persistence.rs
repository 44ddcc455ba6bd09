//! Whether an HTTP/1 connection may carry another request behind the answer to this one.

use std::sync::Arc;

use http::header::{EXPECT, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use http_body::Body as _;

use crate::body::Source;
use crate::edge::Direction;
use crate::progress::Progress;

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// What is to be asked once there is an answer.
pub(super) enum Persistence {
    /// Nothing: it may.
    Stays,
    /// It may not.
    Ends,
    /// Not unless the client was told to send the body for which it waits: whether that comes nobody knows.
    Asked(Arc<Progress>),
    /// Not unless the chunked body has come to its end, and without trailers: hyper reads a trailer section in which a line ends in a
    /// lone line feed on into what follows it, which may be a request. Whoever is behind this connection must hear that it was not
    /// answered (RFC 9112 §9.3.2), and not get the answer to the next one.
    Whole(Arc<Progress>),
}

impl Persistence {
    pub(super) fn of(head: &Parts, body: &mut Option<Source>, direction: Direction, progress: &Arc<Progress>) -> Self {
        let ends = body.as_ref().is_none_or(|body| body.is_end_stream());
        let mut watched = || {
            body.iter_mut().for_each(|body| body.report_to(progress.clone()));
            progress.clone()
        };
        match head.version {
            Version::HTTP_2 => Self::Stays,
            // RFC 9112 §9.3: a proxy keeps no connection with such a client, which may be a proxy that does not know what it passes on.
            Version::HTTP_10 => Self::Ends,
            _ if ends => Self::Stays,
            // What sidecars send was written anew.
            _ if direction != Direction::Inbound && head.headers.contains_key(TRANSFER_ENCODING) => {
                Self::Whole(watched())
            }
            _ if head.headers.contains_key(EXPECT) => Self::Asked(watched()),
            _ => Self::Stays,
        }
    }

    /// Says in the answer that the connection ends, if it does.
    pub(super) fn say(&self, status: StatusCode, headers: &mut HeaderMap) {
        let stays = match self {
            Self::Stays => true,
            Self::Ends => false,
            Self::Asked(body) => body.has_begun(),
            Self::Whole(body) => body.is_whole_without_trailers(),
        };
        if !stays && status != StatusCode::SWITCHING_PROTOCOLS {
            headers.insert(header::CONNECTION, CLOSE);
        }
    }
}
