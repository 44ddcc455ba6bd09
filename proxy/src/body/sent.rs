//! A request's body, as it goes upstream.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use runtime::http::BoxError;
use tokio::time::Instant;

use super::Replay;
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
    broken: Option<Broken>,
}

enum Kind {
    Incoming(Incoming),
    Boxed(runtime::http::Body),
}

/// Tells the one who waits for the answer why the body ended early (the HTTP library keeps such errors to itself on HTTP/2), and
/// for how long the client was waited for.
#[derive(Debug, Clone)]
pub(crate) struct Broken(Arc<BrokenFlags>);

#[derive(Debug)]
struct BrokenFlags {
    long: AtomicBool,
    downstream: AtomicBool,
    /// The origin of the times below, in nanoseconds.
    since: Instant,
    /// Since when the client is waited for; zero: it is not.
    waits_since: AtomicU64,
    /// How long it was waited for before that.
    waited: AtomicU64,
}

impl BrokenFlags {
    fn now(&self) -> u64 {
        // Never zero, which means something else.
        u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    /// The clock is looked at only where the client begins, or ceases, to be waited for.
    fn waits(&self, for_client: bool) {
        let since = self.waits_since.load(Ordering::Relaxed);
        match (since, for_client) {
            (0, true) => self.waits_since.store(self.now(), Ordering::Relaxed),
            (0, false) | (_, true) => {}
            (since, false) => {
                self.waited.fetch_add(self.now().saturating_sub(since), Ordering::Relaxed);
                self.waits_since.store(0, Ordering::Relaxed);
            }
        }
    }
}

impl Broken {
    fn new() -> Self {
        Self(Arc::new(BrokenFlags {
            long: AtomicBool::new(false),
            downstream: AtomicBool::new(false),
            since: Instant::now(),
            waits_since: AtomicU64::new(0),
            waited: AtomicU64::new(0),
        }))
    }

    /// How long the client was waited for until now.
    pub(crate) fn waited_for_client(&self) -> Duration {
        let now = match self.0.waits_since.load(Ordering::Relaxed) {
            0 => 0,
            since => self.0.now().saturating_sub(since),
        };
        Duration::from_nanos(self.0.waited.load(Ordering::Relaxed) + now)
    }

    /// The body was longer than its bound.
    pub(crate) fn is_long(&self) -> bool {
        self.0.long.load(Ordering::Relaxed)
    }

    /// The client broke its own body off.
    pub(crate) fn is_downstream(&self) -> bool {
        self.0.downstream.load(Ordering::Relaxed)
    }
}

/// Why a request's body cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the body is longer than its bound")]
    Long,
    #[error("the client broke off its body: {0}")]
    Downstream(BoxError),
    #[error("another attempt has taken the body over")]
    Superseded,
}

/// A body from the network, without a bound yet.
impl From<Incoming> for Source {
    fn from(body: Incoming) -> Self {
        Self { kind: Kind::Incoming(body), left: u64::MAX, broken: None }
    }
}

/// A body from inside of this process, without a bound yet.
impl From<runtime::http::Body> for Source {
    fn from(body: runtime::http::Body) -> Self {
        Self { kind: Kind::Boxed(body), left: u64::MAX, broken: None }
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

    /// Lets the caller know later whether and how the body broke.
    pub(crate) fn watch(&mut self) -> Broken {
        self.broken.get_or_insert_with(Broken::new).clone()
    }

    fn tell(&self, which: impl Fn(&BrokenFlags) -> &AtomicBool) {
        if let Some(broken) = &self.broken {
            which(&broken.0).store(true, Ordering::Relaxed);
        }
    }
}

impl Body for Source {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let polled = match &mut this.kind {
            Kind::Incoming(body) => Pin::new(body).poll_frame(cx).map_err(BoxError::from),
            Kind::Boxed(body) => Pin::new(body).poll_frame(cx),
        };
        if let Some(broken) = &this.broken {
            broken.0.waits(polled.is_pending());
        }
        match polled {
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    clean_trailers(trailers);
                }
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                let Some(left) = this.left.checked_sub(length) else {
                    this.tell(|flags| &flags.long);
                    return Poll::Ready(Some(Err(Error::Long)));
                };
                this.left = left;
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.tell(|flags| &flags.downstream);
                Poll::Ready(Some(Err(Error::Downstream(error))))
            }
            Poll::Ready(None) => Poll::Ready(None),
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
