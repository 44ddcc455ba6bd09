//! A response's body, as it goes downstream, and the record of its request that is closed with its last byte.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use runtime::http::BoxError;
use tokio::time::Sleep;

use crate::record::{End, Record};
use crate::refusal;
use crate::upstream::Received;

/// A response's body.
pub(crate) struct Answered {
    kind: Kind,
    record: Option<Record>,
    /// When a gRPC client's own deadline cuts the answer off, if it has set one.
    deadline: Option<Pin<Box<Sleep>>>,
}

enum Kind {
    Empty,
    Full(Bytes),
    Received(Received),
    /// Its first frame was looked at.
    Peeked(Option<Frame<Bytes>>, Received),
    Boxed(runtime::http::Body),
}

impl From<Kind> for Answered {
    fn from(kind: Kind) -> Self {
        Self { kind, record: None, deadline: None }
    }
}

impl Answered {
    pub(crate) fn empty() -> Self {
        Kind::Empty.into()
    }

    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        Kind::Full(bytes.into()).into()
    }

    pub(crate) fn received(body: Received) -> Self {
        Kind::Received(body).into()
    }

    pub(crate) fn peeked(first: Option<Frame<Bytes>>, rest: Received) -> Self {
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
    fn cut_off(&mut self) -> Frame<Bytes> {
        self.kind = Kind::Empty;
        self.deadline = None;
        let frame = Frame::trailers(refusal::deadline_trailers());
        if let Some(record) = &mut self.record {
            record.cut_off();
        }
        self.close(End::Cut);
        frame
    }

    fn close(&mut self, end: End) {
        if let Some(record) = self.record.take() {
            record.close(end);
        }
    }
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
            Self::Received(body) => Pin::new(body).poll_frame(cx),
            Self::Boxed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Received(body) => body.is_end_stream(),
            Self::Peeked(first, rest) => first.is_none() && rest.is_end_stream(),
            Self::Boxed(body) => body.is_end_stream(),
        }
    }
}

impl Body for Answered {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Some(deadline) = &mut this.deadline
            && !this.kind.is_end_stream()
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Ok(this.cut_off())));
        }
        let polled = this.kind.poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(record) = &mut this.record {
                    record.frame(frame);
                }
                if this.kind.is_end_stream() {
                    this.close(End::Whole);
                }
            }
            Poll::Ready(Some(Err(error))) => {
                if let Some(record) = &mut this.record {
                    record.broke(error);
                }
                this.close(End::Broken);
            }
            Poll::Ready(None) => this.close(End::Whole),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.kind.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Received(body) => body.size_hint(),
            // Bytes of the peeked frame are no longer in the rest's count.
            Kind::Peeked(..) => SizeHint::new(),
            Kind::Boxed(body) => body.size_hint(),
        }
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        if self.record.is_some() {
            let end = if self.kind.is_end_stream() { End::Whole } else { End::Cut };
            self.close(end);
        }
    }
}
