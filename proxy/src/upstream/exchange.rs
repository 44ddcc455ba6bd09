//! One request on one connection.

use std::error::Error as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use policy::classify::Ending;
use runtime::http::BoxError;

use super::ending;
use super::http2::{self, Claim, Reception};
use super::pool::Place;
use crate::body::{self, Expectation, RequestBody};

/// A connection with one request's claim on it.
pub(crate) enum Connection {
    Http1 { sender: http1::SendRequest<RequestBody>, reused: bool, place: Place },
    Http2 { claim: Claim, reused: bool },
}

/// An answer's body as it comes from an endpoint.
pub(crate) enum UpstreamBody {
    /// The second, where the request's body was never asked for: then the connection ends with the answer.
    Http1(
        Incoming,
        #[expect(dead_code, reason = "held for its drop, which ends a connection that owes a body")]
        Option<Expectation>,
    ),
    Http2(Reception),
}

/// A request that got no answer.
pub(crate) struct SendFailure {
    /// Not a byte of it was sent, and it is where it was.
    pub(crate) unsent: bool,
    /// The server has proven that it did not process it: HTTP/2 REFUSED_STREAM, or a stream above GOAWAY's last.
    pub(crate) unprocessed: bool,
    /// The connection had carried requests before: the server may have closed it for idleness just now.
    pub(crate) reused: bool,
    /// How it ended.
    pub(crate) ending: Ending,
    /// What happened, for people.
    pub(crate) why: String,
}

impl Connection {
    /// Sends a request and waits for the head of its answer. Dropping the future cancels the request upstream.
    pub(crate) async fn send(
        &mut self,
        request: &mut Request<RequestBody>,
    ) -> Result<Response<UpstreamBody>, SendFailure> {
        match self {
            Self::Http1 { sender, reused, .. } => {
                let expectation = body::hold(request);
                match sender.try_send_request(body::taken(request)).await {
                    Ok(response) => {
                        expectation.iter().for_each(Expectation::answered);
                        Ok(response.map(|body| UpstreamBody::Http1(body, expectation)))
                    }
                    Err(mut error) => {
                        let message = error.take_message();
                        let unsent = message.is_some();
                        message.into_iter().for_each(|message| *request = message);
                        let (error, reused) = (error.error(), *reused);
                        let ending = ending::http1(error, reused);
                        Err(SendFailure { unsent, unprocessed: false, reused, ending, why: describe(error) })
                    }
                }
            }
            Self::Http2 { claim, reused } => match claim.send(request).await {
                Ok(response) => Ok(response.map(UpstreamBody::Http2)),
                Err(http2::StreamFailure { unsent, unprocessed, error }) => {
                    let ending = ending::http2(&error, *reused && claim.is_alone(), || claim.is_first_to_break());
                    Err(SendFailure { unsent, unprocessed, reused: *reused, ending, why: error.to_string() })
                }
            },
        }
    }
}

fn describe(error: &hyper::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Http1(body, _) => Pin::new(body).poll_frame(cx).map_err(BoxError::from),
            Self::Http2(body) => Pin::new(body).poll_frame(cx).map_err(BoxError::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body, _) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body, _) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}
