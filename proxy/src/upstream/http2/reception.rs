//! An answer's body as it comes out of a stream.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, Response, header};
use http_body::{Body, Frame, SizeHint};
use tokio::task::AbortHandle;

use super::Sending;

/// See the module. Dropping it before its end resets the stream.
pub(crate) struct Reception {
    stream: RecvStream,
    /// The data is at its end; trailers may follow.
    data_ended: bool,
    /// What `content-length` leaves to come. h2 holds the endpoint to it.
    left: Option<u64>,
    /// The request's body, when it goes on behind the answer's head.
    sending: Option<AbortHandle>,
}

impl Reception {
    /// An answer as the pipeline takes it. What is still to be sent goes on by itself from here on.
    pub(super) fn of(response: Response<RecvStream>, sending: Option<Sending>) -> Response<Self> {
        let sending = sending.map(|mut sending| {
            let rest = async move { poll_fn(|cx| sending.poll(cx)).await };
            tokio::spawn(rest).abort_handle()
        });
        let left = length(response.headers());
        response.map(|stream| Self { stream, data_ended: false, left, sending })
    }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl Body for Reception {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = self.get_mut();
        if !this.data_ended {
            match ready!(this.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // What was read is on its way: the window is the client's again. It fails only for more than was taken.
                    let _ = this.stream.flow_control().release_capacity(data.len());
                    this.left = this.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                // Also with NO_ERROR: where the answer was whole before (RFC 9113 §8.1), h2 gives its end.
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => this.data_ended = true,
            }
        }
        let trailers = ready!(this.stream.poll_trailers(cx)).transpose();
        Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Reception {
    fn drop(&mut self) {
        // A whole answer leaves the request to go on to its own end; one that nobody waits for takes the request with it.
        if let Some(sending) = self.sending.take()
            && !self.stream.is_end_stream()
        {
            sending.abort();
        }
    }
}
