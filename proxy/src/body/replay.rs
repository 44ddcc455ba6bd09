//! A request's body that can be sent again: what has come in is kept, up to a bound, beside being sent.
//!
//! A body that outgrows the bound is never failed for it; it can only no longer be replayed, and so the request is committed
//! to the attempt that it is in (gRFC A6 "committed"; Linkerd's replay buffer does the same). Trailers are kept with the rest.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::Source;
use super::request::Error;
use crate::progress::Progress;

/// Most bytes of a body that are kept for another attempt.
pub(crate) const REPLAY_BYTES_MAX: usize = 64 << 10;
/// Most frames that are kept; a body of countless tiny frames outgrows its replay too.
const REPLAY_FRAMES_MAX: usize = 1_024;

/// One attempt's view of the body. The newest view reads; older ones end with an error.
pub(crate) struct Replay {
    // Shared between the view of the running attempt and the request that may start another; a lock, since the HTTP library
    // keeps an old view for a moment after its attempt was given up.
    shared: Arc<Mutex<Shared>>,
    view: u32,
    next: usize,
}

struct Shared {
    source: Source,
    /// The view that may read.
    view: u32,
    kept: Vec<BufferedFrame>,
    kept_bytes: usize,
    /// The source has ended.
    whole: bool,
    /// Something came that was not kept: no further view can be whole.
    committed: bool,
}

enum BufferedFrame {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl BufferedFrame {
    fn frame(&self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data.clone()),
            Self::Trailers(trailers) => Frame::trailers(trailers.clone()),
        }
    }
}

impl Replay {
    pub(crate) fn new(source: Source) -> Self {
        let shared = Shared { source, view: 0, kept: Vec::new(), kept_bytes: 0, whole: false, committed: false };
        Self { shared: Arc::new(Mutex::new(shared)), view: 0, next: 0 }
    }

    /// A view that begins at the body's beginning again; `None` when the request is committed.
    pub(crate) fn again(&self) -> Option<Self> {
        let mut shared = self.lock();
        if shared.committed {
            return None;
        }
        shared.view += 1;
        if let Some(progress) = shared.source.progress() {
            progress.again();
        }
        Some(Self { shared: self.shared.clone(), view: shared.view, next: 0 })
    }

    /// Whether there is no other view any more.
    pub(crate) fn is_committed(&self) -> bool {
        self.lock().committed
    }

    /// A second handle on the same view, for asking [`Replay::again`] later.
    pub(crate) fn handle(&self) -> Self {
        Self { shared: self.shared.clone(), view: self.view, next: self.next }
    }

    pub(super) fn progress(&self) -> Option<Arc<Progress>> {
        self.lock().source.progress().cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        if self.committed {
            return;
        }
        let kept = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => BufferedFrame::Data(data.clone()),
            (None, Some(trailers)) => BufferedFrame::Trailers(trailers.clone()),
            (None, None) => return,
        };
        self.kept_bytes += frame.data_ref().map_or(0, Bytes::len);
        if self.kept_bytes > REPLAY_BYTES_MAX || self.kept.len() == REPLAY_FRAMES_MAX {
            self.committed = true;
            self.kept = Vec::new();
        } else {
            self.kept.push(kept);
        }
    }
}

impl Body for Replay {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let mut shared = this.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.view != this.view {
            return Poll::Ready(Some(Err(Error::Superseded)));
        }
        if let Some(kept) = shared.kept.get(this.next) {
            this.next += 1;
            let last = this.next == shared.kept.len() && (shared.whole || shared.source.is_end_stream());
            if let Some(progress) = shared.source.progress() {
                progress.asks();
                progress.gives(last);
            }
            return Poll::Ready(Some(Ok(kept.frame())));
        }
        if shared.whole {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut shared.source).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                shared.keep(frame);
                this.next += 1;
            }
            Poll::Ready(None) => shared.whole = true,
            // What the client broke off cannot be sent again.
            Poll::Ready(Some(Err(_))) => shared.committed = true,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.lock();
        let sent_what_is_kept = shared.committed || self.next >= shared.kept.len();
        sent_what_is_kept && (shared.whole || shared.source.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let shared = self.lock();
        let rest = if shared.whole { SizeHint::with_exact(0) } else { shared.source.size_hint() };
        let ahead: u64 = if shared.committed {
            0
        } else {
            let unsent = shared.kept.iter().skip(self.next);
            unsent.map(|kept| if let BufferedFrame::Data(data) = kept { data.len() as u64 } else { 0 }).sum()
        };
        match rest.exact() {
            Some(exact) => SizeHint::with_exact(exact + ahead),
            None => SizeHint::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt as _, StreamBody};

    fn source(frames: Vec<Frame<Bytes>>) -> Source {
        let frames = futures_util::stream::iter(frames.into_iter().map(Ok::<_, std::io::Error>));
        Source::from((runtime::http::boxed(StreamBody::new(frames)), http::Version::HTTP_11))
    }

    #[tokio::test]
    async fn a_body_is_sent_again_with_its_trailers() {
        let trailers = HeaderMap::from_iter([(http::header::ETAG, http::HeaderValue::from_static("x"))]);
        let frames = vec![Frame::data("ab".into()), Frame::data("cd".into()), Frame::trailers(trailers.clone())];
        let mut first = Replay::new(source(frames));
        assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
        let second = first.again().unwrap();
        assert!(first.frame().await.unwrap().is_err(), "only the newest view reads");
        let whole = second.collect().await.unwrap();
        assert_eq!(whole.trailers(), Some(&trailers));
        assert_eq!(whole.to_bytes(), "abcd");
    }

    #[tokio::test]
    async fn a_long_body_commits_and_still_arrives() {
        let piece = Bytes::from(vec![7; REPLAY_BYTES_MAX / 2 + 1]);
        let body = Replay::new(source(vec![Frame::data(piece.clone()), Frame::data(piece.clone())]));
        let handle = body.handle();
        let whole = body.collect().await.unwrap().to_bytes();
        assert_eq!(whole.len(), 2 * piece.len());
        assert!(handle.again().is_none());
    }
}
