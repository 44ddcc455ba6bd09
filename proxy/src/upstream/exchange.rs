//! One request on one connection.

use std::error::Error as _;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};

use super::pool::Stream;
use crate::body::Sent;

/// A connection with one request's claim on it.
pub(crate) enum Connection {
    Http1 { sender: http1::SendRequest<Sent>, reused: bool },
    Http2 { sender: http2::SendRequest<Sent>, stream: Stream, reused: bool },
}

/// A request that got no answer.
pub(crate) struct Broke {
    /// The request itself, when not a byte of it was sent.
    pub(crate) unsent: Option<Box<Request<Sent>>>,
    /// The server has proven that it did not process it: HTTP/2 REFUSED_STREAM, or a stream above GOAWAY's last.
    pub(crate) unprocessed: bool,
    /// The connection had carried requests before: the server may have closed it for idleness just now.
    pub(crate) reused: bool,
    /// What happened, for people.
    pub(crate) why: String,
}

impl Connection {
    /// Sends a request and waits for the head of its answer. Dropping the future cancels the request upstream.
    pub(crate) async fn send(&mut self, request: Request<Sent>) -> Result<Response<Incoming>, Broke> {
        let (result, reused) = match self {
            Self::Http1 { sender, reused } => (sender.try_send_request(request).await, *reused),
            Self::Http2 { sender, reused, .. } => (sender.try_send_request(request).await, *reused),
        };
        result.map_err(|mut error| {
            let unsent = error.take_message().map(Box::new);
            let error = error.into_error();
            Broke { unsent, unprocessed: is_unprocessed(&error), reused, why: describe(&error) }
        })
    }
}

fn is_unprocessed(error: &hyper::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(h2) = error.downcast_ref::<h2::Error>() {
            // RFC 9113 §8.7: REFUSED_STREAM, and streams that GOAWAY does not cover, were not processed.
            return h2.reason() == Some(h2::Reason::REFUSED_STREAM)
                || (h2.is_go_away() && h2.is_remote() && h2.reason() == Some(h2::Reason::NO_ERROR));
        }
        source = error.source();
    }
    false
}

fn describe(error: &hyper::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
