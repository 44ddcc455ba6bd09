//! A response's body, as it goes downstream, and the record of its request that is closed with its last byte.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use runtime::http::BoxError;
use tokio::time::Sleep;

use crate::progress::Side;
use crate::record::{End, Record};
use crate::refusal::{self, Reason};
use crate::request::clean_trailers;
use crate::upstream::UpstreamBody;

/// A response's body.
pub(crate) struct ResponseBody {
    kind: Kind,
    record: Option<Record>,
    /// When a gRPC client's own deadline cuts the answer off, if it has set one.
    deadline: Option<Pin<Box<Sleep>>>,
}

enum Kind {
    Empty,
    Full(Bytes),
    Upstream(UpstreamBody),
    /// Its first frame was looked at.
    Peeked(Option<Frame<Bytes>>, UpstreamBody),
    Boxed(runtime::http::Body),
}

impl From<Kind> for ResponseBody {
    fn from(kind: Kind) -> Self {
        Self { kind, record: None, deadline: None }
    }
}

impl ResponseBody {
    pub(crate) fn empty() -> Self {
        Kind::Empty.into()
    }

    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        Kind::Full(bytes.into()).into()
    }

    pub(crate) fn received(body: UpstreamBody) -> Self {
        Kind::Upstream(body).into()
    }

    pub(crate) fn peeked(first: Option<Frame<Bytes>>, rest: UpstreamBody) -> Self {
        Kind::Peeked(first, rest).into()
    }

    pub(crate) fn boxed(body: runtime::http::Body) -> Self {
        Kind::Boxed(body).into()
    }

    /// The record is closed when the body ends, breaks, or is dropped.
    pub(crate) fn record(&mut self, record: Record) {
        self.record = Some(record);
    }

    /// A gRPC client's deadline holds for the whole answer, streams included (gRFC A31).
    pub(crate) fn within(mut self, left: Duration) -> Self {
        self.deadline = Some(Box::pin(tokio::time::sleep(left)));
        self
    }

    /// Ends the stream with its status; dropping the endpoint's body resets the stream behind it.
    fn cut_off(&mut self) -> Result<Frame<Bytes>, BoxError> {
        if let Some(record) = &mut self.record {
            record.cut_off();
        }
        let reason = Reason::Deadline;
        let end = self.end(reason.grpc_status(), &reason);
        self.close(End::Cut);
        end
    }

    /// The endpoint has broken its answer off. A gRPC client is told with which status (gRPC over HTTP2, "Errors"); for others the
    /// stream, or the connection, ends in such a way that the answer is not taken for a whole one.
    fn break_off(&mut self, error: BoxError) -> Result<Frame<Bytes>, BoxError> {
        if let Some(record) = &mut self.record {
            record.broke(&error);
        }
        let end = match refusal::grpc_status_of(&*error) {
            status if self.takes_status() => self.end(status, &BrokenOff(&error)),
            // Passed on, it would say that the answer is whole.
            _ if is_without_fault(&*error) => Err(BrokenOff(&error).to_string().into()),
            _ => Err(error),
        };
        self.close(End::Broken);
        end
    }

    /// The last frame for a gRPC client. One that speaks HTTP/1.1 gets no trailers, and so no end either.
    fn end(&mut self, status: u8, why: &dyn std::fmt::Display) -> Result<Frame<Bytes>, BoxError> {
        let takes_status = self.takes_status();
        self.kind = Kind::Empty;
        self.deadline = None;
        if let Some(record) = &mut self.record {
            record.grpc_status = Some(status);
        }
        if takes_status {
            Ok(Frame::trailers(refusal::grpc_trailers(status, why)))
        } else {
            Err(why.to_string().into())
        }
    }

    /// An answer that says how long it is (none of gRPC does) must not end in trailers before it is as long.
    fn takes_status(&self) -> bool {
        let tells_no_length = self.kind.size_hint().exact().is_none();
        tells_no_length && self.record.as_ref().is_some_and(|record| record.is_grpc && record.is_http2)
    }

    /// What is told to the HTTP library, which then breaks the answer off: a stream is reset, a connection closed.
    fn idle(&mut self, side: Side) -> BoxError {
        self.kind = Kind::Empty;
        self.close(End::Idle(side));
        "nothing of the answer's body has moved for too long".into()
    }

    fn close(&mut self, end: End) {
        if let Some(record) = self.record.take() {
            record.close(end);
        }
    }
}

/// What is said of an answer that ends early.
#[derive(Debug, thiserror::Error)]
#[error("the answer was broken off: {0}")]
struct BrokenOff<'a>(&'a BoxError);

/// Whether the HTTP library would reset the client's stream with NO_ERROR, the code of the endpoint.
fn is_without_fault(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<h2::Error>().is_some_and(|error| error.reason() == Some(h2::Reason::NO_ERROR))
}

impl Kind {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Peeked(first, rest) => match first.take() {
                Some(frame) => Poll::Ready(Some(Ok(frame))),
                None => Pin::new(rest).poll_frame(cx),
            },
            Self::Upstream(body) => Pin::new(body).poll_frame(cx),
            Self::Boxed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Upstream(body) => body.is_end_stream(),
            Self::Peeked(first, rest) => first.is_none() && rest.is_end_stream(),
            Self::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Upstream(body) => body.size_hint(),
            // Bytes of the peeked frame are no longer in the rest's count.
            Self::Peeked(..) => SizeHint::new(),
            Self::Boxed(body) => body.size_hint(),
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Some(deadline) = &mut this.deadline
            && !this.kind.is_end_stream()
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(this.cut_off()));
        }
        if let Some(record) = &this.record {
            // Its client has let it wait for too long, and to be asked for more now is no more than a wake-up's doing.
            if let Some(side) = record.progress.idle() {
                return Poll::Ready(Some(Err(this.idle(side))));
            }
            record.progress.answer_is_asked_for();
        }
        let mut polled = this.kind.poll_frame(cx);
        match &mut polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    clean_trailers(trailers);
                }
                if let Some(record) = &mut this.record {
                    record.frame(frame);
                }
                if this.kind.is_end_stream() {
                    this.close(End::Whole);
                }
            }
            Poll::Ready(Some(Err(_))) => {
                let Poll::Ready(Some(Err(error))) = polled else { return polled };
                return Poll::Ready(Some(this.break_off(error)));
            }
            Poll::Ready(None) => this.close(End::Whole),
            Poll::Pending => {
                if let Some(record) = &this.record
                    && let Poll::Ready(side) = record.progress.answer_lacks(cx)
                {
                    return Poll::Ready(Some(Err(this.idle(side))));
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.kind.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.kind.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if self.record.is_some() {
            let end = if self.kind.is_end_stream() { End::Whole } else { End::Cut };
            self.close(end);
        }
    }
}
