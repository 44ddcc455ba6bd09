//! A request's body, as it goes upstream.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use runtime::http::BoxError;

use super::{Held, Replay};
use crate::progress::Progress;
use crate::request::clean_trailers;

/// A request's body.
pub(crate) enum RequestBody {
    /// None.
    Empty,
    /// As it comes in; it can be sent once.
    Stream(Source),
    /// As it comes in, remembered so that it can be sent again.
    Replay(Replay),
    /// Not before the endpoint asks for it.
    Held(Held),
}

/// Where a request's body comes from, and how much of it may come.
pub(crate) struct Source {
    kind: Kind,
    left: u64,
    has_trailers: bool,
    /// Who is told how the body gets on, and how it broke.
    progress: Option<Arc<Progress>>,
}

enum Kind {
    Http1(Incoming),
    Http2(Incoming),
    Boxed(runtime::http::Body),
}

/// RFC 9113 §8.1 lets a server say NO_ERROR for the rest of a request that it does not need; a client that says it takes the request back.
const TAKEN_BACK: &str = "the stream was reset without an error";

/// Why a request's body cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the body is longer than its bound")]
    Long,
    #[error("the client broke off its body: {0}")]
    Downstream(BoxError),
    #[error("nothing of the body has moved for too long")]
    Idle,
    #[error("another attempt has taken the body over")]
    Superseded,
    #[error("the endpoint has answered without the body")]
    Unwanted,
}

/// A body from the network, without a bound yet.
impl From<(Incoming, Version)> for Source {
    fn from((body, version): (Incoming, Version)) -> Self {
        Self::of(if version == Version::HTTP_2 { Kind::Http2(body) } else { Kind::Http1(body) })
    }
}

/// A body from inside of this process, without a bound yet.
impl From<(runtime::http::Body, Version)> for Source {
    fn from((body, _): (runtime::http::Body, Version)) -> Self {
        Self::of(Kind::Boxed(body))
    }
}

impl Source {
    fn of(kind: Kind) -> Self {
        Self { kind, left: u64::MAX, has_trailers: false, progress: None }
    }

    /// At most `bytes_max` may come.
    pub(crate) fn bound(&mut self, bytes_max: u64) {
        self.left = bytes_max;
    }

    pub(crate) fn bytes_max(&self) -> u64 {
        self.left
    }

    /// Has `progress` told how the body gets on.
    pub(crate) fn report_to(&mut self, progress: Arc<Progress>) {
        self.progress = Some(progress);
    }

    pub(crate) fn progress(&self) -> Option<&Arc<Progress>> {
        self.progress.as_ref()
    }

    fn tell(&self, what: impl Fn(&Progress)) {
        self.progress.iter().for_each(|progress| what(progress));
    }

    /// The library takes a reset with NO_ERROR for the body's end.
    fn is_taken_back(&self) -> bool {
        matches!(&self.kind, Kind::Http2(body) if !body.is_end_stream())
    }

    fn broken_off(&self, error: BoxError) -> Error {
        self.tell(Progress::body_breaks_off);
        Error::Downstream(error)
    }
}

impl Body for Source {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        this.tell(Progress::asks);
        let polled = match &mut this.kind {
            Kind::Http1(body) | Kind::Http2(body) => Pin::new(body).poll_frame(cx).map_err(BoxError::from),
            Kind::Boxed(body) => Pin::new(body).poll_frame(cx),
        };
        let ends = matches!(&polled, Poll::Ready(Some(Ok(_)))) && this.is_end_stream();
        match polled {
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    this.has_trailers = true;
                    clean_trailers(trailers);
                }
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                let Some(left) = this.left.checked_sub(length) else {
                    this.tell(Progress::body_is_too_long);
                    return Poll::Ready(Some(Err(Error::Long)));
                };
                this.left = left;
                this.tell(|progress| progress.gives(ends));
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(this.broken_off(error)))),
            Poll::Ready(None) if this.is_taken_back() => Poll::Ready(Some(Err(this.broken_off(TAKEN_BACK.into())))),
            Poll::Ready(None) => {
                if !this.has_trailers {
                    this.tell(Progress::body_is_whole_without_trailers);
                }
                this.tell(|progress| progress.gives(true));
                Poll::Ready(None)
            }
            Poll::Pending if this.progress.as_ref().is_some_and(|progress| progress.lacks(cx).is_err()) => {
                Poll::Ready(Some(Err(Error::Idle)))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Http1(body) | Kind::Http2(body) => body.is_end_stream(),
            Kind::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Http1(body) | Kind::Http2(body) => body.size_hint(),
            Kind::Boxed(body) => body.size_hint(),
        }
    }
}

/// The request itself; what is left in its place is empty.
pub(crate) fn taken(request: &mut Request<RequestBody>) -> Request<RequestBody> {
    std::mem::replace(request, Request::new(RequestBody::Empty))
}

impl RequestBody {
    /// Who is told how it gets on.
    pub(crate) fn progress(&self) -> Option<Arc<Progress>> {
        match self {
            Self::Empty => None,
            Self::Stream(source) => source.progress().cloned(),
            Self::Replay(replay) => replay.progress(),
            Self::Held(held) => held.progress(),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Stream(body) => Pin::new(body).poll_frame(cx),
            Self::Replay(body) => Pin::new(body).poll_frame(cx),
            Self::Held(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream(body) => body.is_end_stream(),
            Self::Replay(body) => body.is_end_stream(),
            Self::Held(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(body) => body.size_hint(),
            Self::Replay(body) => body.size_hint(),
            Self::Held(body) => body.size_hint(),
        }
    }
}
