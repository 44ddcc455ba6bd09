//! HTTP/2 to an endpoint, on `h2` itself.
//!
//! hyper's client moves each request over a channel to its connection's task, and starts a task for the answer and one for the
//! body. Here the task that wants the answer does all of it; only a body that goes on after the answer's head gets a task of
//! its own, so that the two directions never wait for each other. `docs/benchmarks.md` says what that is worth.

mod reception;
mod sending;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Ping, PingPong};
use http::{Request, Response};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, oneshot};

use super::Pool;
use crate::body::{self, RequestBody};

pub(crate) use reception::Reception;
use sending::Sending;

/// Longest head of an answer: 64 KiB, and what a sidecar has put on.
const HEAD_BYTES_MAX: u32 = 72 << 10;
/// Requests at a time on one connection; the endpoint may take fewer (RFC 9113 §6.5.2 recommends no limit below 100).
pub(super) const STREAMS_MAX: u32 = 100;
/// Flow-control window of one stream: what waits here for one client that does not read.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// Flow-control window of one connection: all of its streams may be full, and none takes the room of another.
const CONNECTION_WINDOW_BYTES: u32 = STREAMS_MAX * STREAM_WINDOW_BYTES;
/// What small frames that wait to be read may cost beside their bytes, at 256 bytes each (what h2 needs to keep one); one more ends the
/// connection, for everybody. So all streams may be full of frames of 32 bytes, which is less than a gRPC message takes that says
/// anything.
const FRAMES_WAITING_BYTES_MAX: usize = 7 * CONNECTION_WINDOW_BYTES as usize;
/// Bytes of one stream that wait to be written.
const SEND_BUFFER_BYTES_MAX: usize = 1 << 20;
/// Streams that were reset here and are remembered for [`RESET_MEMORY`], since their frames may still be on the way. One that is
/// forgotten too soon makes each such frame an error, and each error a reset.
const RESETS_REMEMBERED_MAX: usize = 1_024;
const RESET_MEMORY: Duration = Duration::from_secs(5);

/// When a connection that carries requests is asked whether its peer still lives, and how long it may take to say so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pings {
    when: When,
    timeout: Duration,
}

#[derive(Debug, Clone, Copy)]
enum When {
    Every(Duration),
    /// When a request was given up that nothing came of, but never sooner than this after the ping before.
    InDoubt(Duration),
}

impl Pings {
    /// To another sidecar.
    pub(super) const MESH: Self = Self { when: When::Every(Duration::from_secs(10)), timeout: Duration::from_secs(5) };
    /// To an application, or to a service outside of the mesh. A gRPC server that follows gRFC A8 allows a ping in five minutes while
    /// calls are open, and answers the third that comes sooner with GOAWAY "too_many_pings". So the one ping is kept for when it may
    /// tell something.
    pub(super) const APPLICATION: Self =
        Self { when: When::InDoubt(Duration::from_secs(330)), timeout: Duration::from_secs(20) };
}

/// A connection that many requests share. Dropping it lets the connection end once its streams have.
pub(crate) struct Client {
    sender: SendRequest<Bytes>,
    standing: Arc<Standing>,
    _held: oneshot::Sender<Infallible>,
}

/// How a connection stands, for whoever looks for one.
struct Standing {
    streams: AtomicU32,
    /// As many as there may be: [`STREAMS_MAX`], or the endpoint's SETTINGS_MAX_CONCURRENT_STREAMS when that is less.
    streams_max: AtomicU32,
    closed: AtomicBool,
    /// A request was counted for its end: with a hundred requests on it, it still breaks once.
    counted: AtomicBool,
    /// A request was given up before anything came of it, and nothing has come of another since.
    doubt: AtomicBool,
    /// Told when there is doubt and a request.
    doubted: Notify,
    /// Who wants to know when there is room.
    pool: Weak<Pool>,
}

/// One request's claim on a connection.
pub(crate) struct Claim {
    sender: SendRequest<Bytes>,
    stream: Stream,
}

/// Counts as one stream until it is dropped.
pub(crate) struct Stream(Arc<Standing>);

/// A request that got no answer.
pub(crate) struct StreamFailure {
    /// Not a byte of it was sent, and it is where it was.
    pub(crate) unsent: bool,
    /// It is certain that the endpoint did not process it.
    pub(crate) unprocessed: bool,
    pub(crate) error: h2::Error,
}

impl StreamFailure {
    /// RFC 9113 §8.7: REFUSED_STREAM, and streams that GOAWAY does not cover, were not processed.
    fn unanswered(error: h2::Error) -> Self {
        let not_covered = error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
        let unprocessed = not_covered || error.reason() == Some(h2::Reason::REFUSED_STREAM);
        Self { unsent: false, unprocessed, error }
    }
}

/// Starts HTTP/2 on a connection, and waits for the endpoint's SETTINGS: before them nobody knows how many requests it takes, and those
/// beyond would be refused. The connection's driver runs as a task on the current runtime and ends with the connection.
///
/// # Errors
/// When the connection breaks before that.
pub(super) async fn start<S>(io: S, pings: Pings, pool: Weak<Pool>) -> Result<Client, h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = Builder::new()
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .data_frame_budget(FRAMES_WAITING_BYTES_MAX)
        // None before the endpoint's SETTINGS, which is how the driver sees them come.
        .initial_max_send_streams(0)
        .max_header_list_size(HEAD_BYTES_MAX)
        .max_send_buffer_size(SEND_BUFFER_BYTES_MAX)
        .max_concurrent_reset_streams(RESETS_REMEMBERED_MAX)
        .reset_stream_duration(RESET_MEMORY)
        // An endpoint that makes errors makes them in answers of its own: no number of them is a reason to end the others.
        .max_local_error_reset_streams(None)
        .handshake::<_, Bytes>(io)
        .await?;
    let (streams, streams_max) = (AtomicU32::new(0), AtomicU32::new(0));
    let (closed, doubt, doubted) = (AtomicBool::new(false), AtomicBool::new(false), Notify::new());
    let counted = AtomicBool::new(false);
    let standing = Arc::new(Standing { streams, streams_max, closed, counted, doubt, doubted, pool });
    let (held, released) = oneshot::channel();
    let (begun, begins) = oneshot::channel();
    let driver = Driver { connection, standing: standing.clone(), begun: Some(begun) };
    tokio::spawn(driver.run(pings, released));
    match begins.await {
        Ok(begun) => begun.map(|()| Client { sender, standing, _held: held }),
        // The driver never ends without a word.
        Err(_) => Err(h2::Reason::CANCEL.into()),
    }
}

impl Client {
    /// Requests on it now.
    pub(crate) fn streams(&self) -> u32 {
        self.standing.streams.load(Ordering::Relaxed)
    }

    /// Requests that may be on it.
    pub(crate) fn streams_max(&self) -> u32 {
        self.standing.streams_max.load(Ordering::Relaxed)
    }

    /// Whether it takes no more requests, as far as anybody has found out.
    pub(crate) fn is_closed(&self) -> bool {
        self.standing.closed.load(Ordering::Relaxed)
    }

    /// Whether it takes no more requests: it has ended, or its peer has said GOAWAY.
    pub(crate) fn goes_away(&mut self) -> bool {
        if let Poll::Ready(Err(_)) = self.sender.poll_ready(&mut Context::from_waker(Waker::noop())) {
            self.standing.closed.store(true, Ordering::Relaxed);
        }
        self.is_closed()
    }

    /// A place on it for one request.
    pub(crate) fn claim(&self) -> Claim {
        self.standing.streams.fetch_add(1, Ordering::Relaxed);
        if self.standing.doubt.load(Ordering::Relaxed) {
            self.standing.doubted.notify_one();
        }
        Claim { sender: self.sender.clone(), stream: Stream(self.standing.clone()) }
    }
}

impl Claim {
    /// Sends a request and waits for the head of its answer. Dropping the future cancels the request upstream.
    pub(crate) async fn send(
        &mut self,
        request: &mut Request<RequestBody>,
    ) -> Result<Response<Reception>, StreamFailure> {
        if let Err(error) = poll_fn(|cx| self.sender.poll_ready(cx)).await {
            // It is at its end, or was told to end (GOAWAY): nobody else need try it.
            self.stream.0.closed.store(true, Ordering::Relaxed);
            return Err(StreamFailure { unsent: true, unprocessed: true, error });
        }
        let (head, body) = body::taken(request).into_parts();
        let ends = body.is_end_stream();
        let sent = self.sender.send_request(Request::from_parts(head, ()), ends);
        let (mut answer, stream) = sent.map_err(|error| StreamFailure { unsent: false, unprocessed: true, error })?;
        let mut sending = (!ends).then(|| Sending::new(body, stream));
        let answered = poll_fn(|cx| {
            // A body that breaks resets the stream, which the answer below then tells.
            if sending.as_mut().is_some_and(|sending| sending.poll(cx).is_ready()) {
                sending = None;
            }
            std::pin::Pin::new(&mut answer).poll(cx)
        });
        let doubt = Doubt(Some(&self.stream.0));
        let response = answered.await;
        doubt.dispelled();
        let response = response.map_err(StreamFailure::unanswered)?;
        Ok(Reception::of(response, sending))
    }

    /// Whether no other request is on the connection.
    pub(crate) fn is_alone(&self) -> bool {
        self.stream.0.streams.load(Ordering::Relaxed) == 1
    }

    /// Whether this is the first of the connection's requests to tell of its end.
    pub(crate) fn is_first_to_break(&self) -> bool {
        self.stream.is_first_to_break()
    }

    /// What is left of the claim once the request has gone out.
    pub(crate) fn into_stream(self) -> Stream {
        self.stream
    }
}

impl Stream {
    /// Whether this is the first of the connection's requests to tell of its end.
    pub(crate) fn is_first_to_break(&self) -> bool {
        !self.0.counted.swap(true, Ordering::Relaxed)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::SeqCst);
        self.0.freed();
    }
}

impl Standing {
    fn freed(&self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.freed();
        }
    }
}

/// What runs a connection to its end.
struct Driver<S> {
    connection: h2::client::Connection<S, Bytes>,
    standing: Arc<Standing>,
    /// Told once the endpoint has said how many requests it takes, or that the connection ended before.
    begun: Option<oneshot::Sender<Result<(), h2::Error>>>,
}

impl<S> Driver<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    async fn run(mut self, pings: Pings, mut released: oneshot::Receiver<Infallible>) {
        let ping_pong = self.connection.ping_pong();
        let (mut silent, mut held) = (pin!(silent(ping_pong, pings, self.standing.clone())), true);
        poll_fn(|cx| {
            if self.poll(cx).is_ready() || silent.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if held && std::pin::Pin::new(&mut released).poll(cx).is_ready() {
                held = false;
                // h2 looks for the last handle's end when it is polled, and nothing else would have it polled.
                return self.poll(cx);
            }
            Poll::Pending
        })
        .await;
        self.standing.closed.store(true, Ordering::Relaxed);
        let standing = self.standing.clone();
        drop(self);
        standing.freed();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let polled = std::pin::Pin::new(&mut self.connection).poll(cx);
        if let Poll::Ready(ended) = polled {
            // How it ended reaches the requests that are on it; without one, it is nobody's news.
            if let Some(begun) = self.begun.take() {
                let _gone = begun.send(ended.and(Err(h2::Reason::NO_ERROR.into())));
            }
            return Poll::Ready(());
        }
        let theirs = u32::try_from(self.connection.max_concurrent_send_streams()).unwrap_or(u32::MAX);
        let streams_max = theirs.min(STREAMS_MAX);
        let before = self.standing.streams_max.swap(streams_max, Ordering::Relaxed);
        if streams_max > before {
            match self.begun.take() {
                Some(begun) => drop(begun.send(Ok(()))),
                None => self.standing.freed(),
            }
        }
        Poll::Pending
    }
}

/// Stands for a request that waits for its answer: dropping it means that it was given up.
struct Doubt<'a>(Option<&'a Standing>);

impl Doubt<'_> {
    /// The peer has said something.
    fn dispelled(mut self) {
        if let Some(standing) = self.0.take()
            && standing.doubt.load(Ordering::Relaxed)
        {
            standing.doubt.store(false, Ordering::Relaxed);
        }
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if let Some(standing) = self.0.take() {
            standing.doubt.store(true, Ordering::Relaxed);
            standing.doubted.notify_one();
        }
    }
}

/// Resolves when the peer leaves a ping unanswered while requests wait for it.
async fn silent(ping_pong: Option<PingPong>, pings: Pings, standing: Arc<Standing>) {
    let Some(mut ping_pong) = ping_pong else { return std::future::pending().await };
    let idle = || standing.streams.load(Ordering::Relaxed) == 0;
    loop {
        match pings.when {
            When::Every(interval) => {
                tokio::time::sleep(interval).await;
                if idle() {
                    continue;
                }
            }
            When::InDoubt(_) => {
                while idle() || !standing.doubt.load(Ordering::Relaxed) {
                    standing.doubted.notified().await;
                }
            }
        }
        let pong = tokio::time::timeout(pings.timeout, ping_pong.ping(Ping::opaque())).await;
        if !matches!(pong, Ok(Ok(_))) {
            return;
        }
        standing.doubt.store(false, Ordering::Relaxed);
        if let When::InDoubt(gap) = pings.when {
            tokio::time::sleep(gap).await;
        }
    }
}

#[cfg(test)]
mod tests;
