//! A request's body, as it goes upstream.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use runtime::http::BoxError;

use super::Replay;
use crate::progress::Progress;
use crate::request::clean_trailers;

/// A request's body.
pub(crate) enum Sent {
    /// None.
    Empty,
    /// As it comes in; it can be sent once.
    Stream(Source),
    /// As it comes in, remembered so that it can be sent again.
    Replay(Replay),
}

/// Where a request's body comes from, and how much of it may come.
pub(crate) struct Source {
    kind: Kind,
    left: u64,
    /// Who is told how the body gets on, and how it broke.
    progress: Option<Arc<Progress>>,
}

enum Kind {
    Incoming(Incoming),
    Boxed(runtime::http::Body),
}

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
}

/// A body from the network, without a bound yet.
impl From<Incoming> for Source {
    fn from(body: Incoming) -> Self {
        Self { kind: Kind::Incoming(body), left: u64::MAX, progress: None }
    }
}

/// A body from inside of this process, without a bound yet.
impl From<runtime::http::Body> for Source {
    fn from(body: runtime::http::Body) -> Self {
        Self { kind: Kind::Boxed(body), left: u64::MAX, progress: None }
    }
}

impl Source {
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
}

impl Body for Source {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if let Some(progress) = &this.progress {
            progress.asks();
        }
        let polled = match &mut this.kind {
            Kind::Incoming(body) => Pin::new(body).poll_frame(cx).map_err(BoxError::from),
            Kind::Boxed(body) => Pin::new(body).poll_frame(cx),
        };
        let ends = matches!(&polled, Poll::Ready(Some(Ok(_)))) && this.is_end_stream();
        match polled {
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    clean_trailers(trailers);
                }
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                let Some(left) = this.left.checked_sub(length) else {
                    this.progress.iter().for_each(|progress| progress.body_is_too_long());
                    return Poll::Ready(Some(Err(Error::Long)));
                };
                this.left = left;
                this.progress.iter().for_each(|progress| progress.gives(ends));
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.progress.iter().for_each(|progress| progress.body_breaks_off());
                Poll::Ready(Some(Err(Error::Downstream(error))))
            }
            Poll::Ready(None) => {
                this.progress.iter().for_each(|progress| progress.gives(true));
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
            Kind::Incoming(body) => body.is_end_stream(),
            Kind::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Incoming(body) => body.size_hint(),
            Kind::Boxed(body) => body.size_hint(),
        }
    }
}

impl Sent {
    /// Who is told how it gets on.
    pub(crate) fn progress(&self) -> Option<Arc<Progress>> {
        match self {
            Self::Empty => None,
            Self::Stream(source) => source.progress().cloned(),
            Self::Replay(replay) => replay.progress(),
        }
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Stream(body) => Pin::new(body).poll_frame(cx),
            Self::Replay(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream(body) => body.is_end_stream(),
            Self::Replay(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(body) => body.size_hint(),
            Self::Replay(body) => body.size_hint(),
        }
    }
}
