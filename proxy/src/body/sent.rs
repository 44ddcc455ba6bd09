//! A request's body, as it goes upstream.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use runtime::http::BoxError;
use tokio::time::Instant;

use super::{Held, Replay};
use crate::request::clean_trailers;

/// A request's body.
pub(crate) enum Sent {
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
    progress: Option<Progress>,
}

enum Kind {
    Http1(Incoming),
    Http2(Incoming),
    Boxed(runtime::http::Body),
}

/// How far a body has come, for the one who waits for the answer (the HTTP library keeps that to itself), and for how long the client
/// was waited for.
#[derive(Debug, Clone)]
pub(crate) struct Progress(Arc<ProgressFlags>);

#[derive(Debug)]
struct ProgressFlags {
    begun: AtomicBool,
    whole: AtomicBool,
    long: AtomicBool,
    downstream: AtomicBool,
    /// The origin of the times below, in nanoseconds.
    since: Instant,
    /// Since when the client is waited for; zero: it is not.
    waits_since: AtomicU64,
    /// How long it was waited for before that.
    waited: AtomicU64,
}

impl ProgressFlags {
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

impl Progress {
    fn new() -> Self {
        Self(Arc::new(ProgressFlags {
            begun: AtomicBool::new(false),
            whole: AtomicBool::new(false),
            long: AtomicBool::new(false),
            downstream: AtomicBool::new(false),
            since: Instant::now(),
            waits_since: AtomicU64::new(0),
            waited: AtomicU64::new(0),
        }))
    }

    /// Someone has asked for the body; only then is a client told to go on that waits for it.
    pub(crate) fn has_begun(&self) -> bool {
        self.0.begun.load(Ordering::Relaxed)
    }

    /// The body has come to its end, and there were no trailers.
    pub(crate) fn is_whole_without_trailers(&self) -> bool {
        self.0.whole.load(Ordering::Relaxed)
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

/// RFC 9113 §8.1 lets a server say NO_ERROR for the rest of a request that it does not need; a client that says it takes the request back.
const TAKEN_BACK: &str = "the stream was reset without an error";

/// Why a request's body cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the body is longer than its bound")]
    Long,
    #[error("the client broke off its body: {0}")]
    Downstream(BoxError),
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

    /// Lets the caller know later how far the body has come, and whether and how it broke.
    pub(crate) fn watch(&mut self) -> Progress {
        self.progress.get_or_insert_with(Progress::new).clone()
    }

    fn tell(&self, which: impl Fn(&ProgressFlags) -> &AtomicBool) {
        if let Some(progress) = &self.progress {
            which(&progress.0).store(true, Ordering::Relaxed);
        }
    }

    /// The library takes a reset with NO_ERROR for the body's end.
    fn is_taken_back(&self) -> bool {
        matches!(&self.kind, Kind::Http2(body) if !body.is_end_stream())
    }

    fn broken_off(&self, error: BoxError) -> Error {
        self.tell(|flags| &flags.downstream);
        Error::Downstream(error)
    }
}

impl Body for Source {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        this.tell(|flags| &flags.begun);
        let polled = match &mut this.kind {
            Kind::Http1(body) | Kind::Http2(body) => Pin::new(body).poll_frame(cx).map_err(BoxError::from),
            Kind::Boxed(body) => Pin::new(body).poll_frame(cx),
        };
        if let Some(progress) = &this.progress {
            progress.0.waits(polled.is_pending());
        }
        match polled {
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    this.has_trailers = true;
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
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(this.broken_off(error)))),
            Poll::Ready(None) if this.is_taken_back() => Poll::Ready(Some(Err(this.broken_off(TAKEN_BACK.into())))),
            Poll::Ready(None) => {
                if !this.has_trailers {
                    this.tell(|flags| &flags.whole);
                }
                Poll::Ready(None)
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

impl Body for Sent {
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
