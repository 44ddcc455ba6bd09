//! A request's body that waits until the endpoint asks for it (`Expect: 100-continue`, RFC 9110 §10.1.1).
//!
//! While it waits nobody asks the client for it either, so that the client is told to go on by whoever is to take the body: the
//! word 100 travels from the application to the client, and a final answer that comes first travels without it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::{Request, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::RequestBody;
use super::request::Error;
use crate::progress::Progress;

/// How long a body waits for an endpoint that says nothing: it may not know the word (RFC 9110 §10.1.1; curl waits as long).
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// The endpoint may still ask.
const WAITS: u8 = 0;
/// The body is sent.
const GOES: u8 = 1;
/// The answer came first: the body is let go, but the answer may still be read from the connection.
const ANSWERED: u8 = 2;
/// Nobody reads the answer any more: the connection, which owes a body, ends.
const ENDED: u8 = 3;

#[derive(Debug, Default)]
struct State {
    value: AtomicU8,
    waker: AtomicWaker,
}

impl State {
    fn change(&self, from: u8, to: u8) {
        if self.value.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.waker.wake();
        }
    }
}

/// The body.
pub(crate) struct Held {
    state: Arc<State>,
    /// `None` once it is known that nobody wants it.
    body: Option<Box<RequestBody>>,
    timeout: Pin<Box<Sleep>>,
}

/// Kept by whoever waits for the answer, and reads it. Dropping it ends a body that nobody has asked for, and the connection with it.
#[derive(Debug)]
pub(crate) struct Expectation(Arc<State>);

/// Holds the body of a request that says that its client waits.
pub(crate) fn hold(request: &mut Request<RequestBody>) -> Option<Expectation> {
    if request.body().is_end_stream() {
        return None;
    }
    let expects = request.headers().get(header::EXPECT)?;
    if !expects.as_bytes().eq_ignore_ascii_case(b"100-continue") {
        return None;
    }
    let state = Arc::new(State::default());
    let timeout = Box::pin(tokio::time::sleep(ASK_TIMEOUT));
    let body = match std::mem::replace(request.body_mut(), RequestBody::Empty) {
        // A connection that had closed gives its request back as it was: the body is held anew.
        RequestBody::Held(Held { body, .. }) => body,
        body => Some(Box::new(body)),
    };
    *request.body_mut() = RequestBody::Held(Held { state: state.clone(), body, timeout });
    let asked = state.clone();
    hyper::ext::on_informational(request, move |response| {
        if response.status() == StatusCode::CONTINUE {
            asked.change(WAITS, GOES);
        }
    });
    Some(Expectation(state))
}

impl Expectation {
    /// The answer is there.
    pub(crate) fn answered(&self) {
        self.0.change(WAITS, ANSWERED);
    }
}

impl Drop for Expectation {
    fn drop(&mut self) {
        self.0.change(WAITS, ENDED);
        self.0.change(ANSWERED, ENDED);
    }
}

impl Held {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.state.value.load(Ordering::Acquire) != GOES {
            self.state.waker.register(cx.waker());
            if self.state.value.load(Ordering::Acquire) == WAITS && self.timeout.as_mut().poll(cx).is_ready() {
                self.state.change(WAITS, GOES);
            }
        }
        match self.state.value.load(Ordering::Acquire) {
            GOES => match &mut self.body {
                Some(body) => Pin::new(&mut **body).poll_frame(cx),
                None => Poll::Ready(Some(Err(Error::Unwanted))),
            },
            WAITS => Poll::Pending,
            ANSWERED => {
                self.body = None;
                Poll::Pending
            }
            _ => Poll::Ready(Some(Err(Error::Unwanted))),
        }
    }

    pub(super) fn progress(&self) -> Option<Arc<Progress>> {
        self.body.as_ref()?.progress()
    }

    /// The body itself, of which nothing was asked for; `None`: nobody wants it any more.
    pub(crate) fn into_body(self) -> Option<RequestBody> {
        self.body.map(|body| *body)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_some_and(|body| body.is_end_stream())
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, |body| body.size_hint())
    }
}
