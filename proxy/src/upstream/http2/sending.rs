//! A request's body on its way into a stream, within what the endpoint is ready to take.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body as _;

use crate::body::RequestBody;
use crate::progress::Progress;

/// See the module. Dropping it before its end resets the stream.
pub(super) struct Sending {
    body: RequestBody,
    stream: SendStream<Bytes>,
    progress: Option<Arc<Progress>>,
    /// A piece that waits for the stream's window, and whether it is the last.
    waiting: Option<(Bytes, bool)>,
}

/// There is nothing more to send: all of it was, or nobody takes the rest.
struct Over;

impl Sending {
    pub(super) fn new(body: RequestBody, stream: SendStream<Bytes>) -> Self {
        Self { progress: body.progress(), body, stream, waiting: None }
    }

    /// Sends what can be sent; ready when there is nothing more to send.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.step(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(Over)) => return Poll::Ready(()),
                // Nobody takes it, or nobody gives it.
                Poll::Pending if self.progress.as_ref().is_some_and(|progress| progress.is_over(cx).is_err()) => {
                    self.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(());
                }
                // An endpoint may have heard enough (RFC 9113 §8.1); then nobody waits for more of the body.
                Poll::Pending => return self.stream.poll_reset(cx).map(drop),
            }
        }
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Over>> {
        if let Some((data, ends)) = self.waiting.take() {
            return self.send(cx, data, ends);
        }
        let frame = match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            None => return self.put(Bytes::new(), true),
            Some(Ok(frame)) => frame,
            Some(Err(_)) => {
                self.stream.send_reset(Reason::CANCEL);
                return Poll::Ready(Err(Over));
            }
        };
        match frame.into_data() {
            Ok(data) => {
                let ends = self.body.is_end_stream();
                if data.is_empty() {
                    return self.put(data, ends);
                }
                // One byte is claimed of the connection's window and not the piece's length: a stream that waits must not
                // hold what another could use. h2 claims the rest itself once the piece is sent.
                self.stream.reserve_capacity(1);
                self.send(cx, data, ends)
            }
            Err(frame) => match frame.into_trailers() {
                // Whether it still goes out is the stream's matter: the answer says how it ended.
                Ok(trailers) => {
                    let _ = self.stream.send_trailers(trailers);
                    Poll::Ready(Err(Over))
                }
                // A kind of frame that HTTP/2 does not know.
                Err(_) => Poll::Ready(Ok(())),
            },
        }
    }

    /// Sends a piece once the stream has room for any of it; h2 keeps the rest within its own bound.
    fn send(&mut self, cx: &mut Context<'_>, data: Bytes, ends: bool) -> Poll<Result<(), Over>> {
        while self.stream.capacity() == 0 {
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Err(Over)),
                Poll::Pending => {
                    self.waiting = Some((data, ends));
                    return Poll::Pending;
                }
            }
        }
        self.put(data, ends)
    }

    fn put(&mut self, data: Bytes, ends: bool) -> Poll<Result<(), Over>> {
        let sent = self.stream.send_data(data, ends);
        Poll::Ready(if ends || sent.is_err() { Err(Over) } else { Ok(()) })
    }
}
