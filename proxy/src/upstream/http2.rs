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
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Ping, PingPong};
use http::{Request, Response};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use crate::body::Sent;

pub(crate) use reception::Reception;
use sending::Sending;

/// Longest head of an answer.
const HEAD_BYTES_MAX: u32 = 64 << 10;
/// Flow-control window of one stream.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Flow-control window of one connection.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes of one stream that wait to be written.
const SEND_BUFFER_BYTES_MAX: usize = 1 << 20;
/// Streams before the endpoint has said how many it takes (RFC 9113 §6.5.2 recommends no limit below 100).
const STREAMS_BEFORE_SETTINGS: usize = 100;
/// Streams that were reset for an endpoint's protocol errors; one more closes the connection (CVE-2025-8671).
const RESETS_BY_ERROR_MAX: usize = 256;
/// How often a connection in use is asked whether its peer still lives, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that many requests share. Dropping it lets the connection end once its streams have.
pub(crate) struct Client {
    sender: SendRequest<Bytes>,
    standing: Arc<Standing>,
    _held: oneshot::Sender<Infallible>,
}

/// How a connection stands, for whoever looks for one.
#[derive(Debug, Default)]
struct Standing {
    streams: AtomicU32,
    closed: AtomicBool,
    /// A request was counted for its end: with a hundred requests on it, it still breaks once.
    counted: AtomicBool,
}

/// One request's claim on a connection.
pub(crate) struct Claim {
    sender: SendRequest<Bytes>,
    stream: Stream,
}

/// Counts as one stream until it is dropped.
pub(crate) struct Stream(Arc<Standing>);

/// A request that got no answer.
pub(crate) struct Broke {
    /// The request itself, when not a byte of it was sent.
    pub(crate) unsent: Option<Request<Sent>>,
    /// It is certain that the endpoint did not process it.
    pub(crate) unprocessed: bool,
    pub(crate) error: h2::Error,
}

impl Broke {
    /// RFC 9113 §8.7: REFUSED_STREAM, and streams that GOAWAY does not cover, were not processed.
    fn unanswered(error: h2::Error) -> Self {
        let not_covered = error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
        let unprocessed = not_covered || error.reason() == Some(h2::Reason::REFUSED_STREAM);
        Self { unsent: None, unprocessed, error }
    }
}

/// Starts HTTP/2 on a connection. Its driver runs as a task on the current runtime and ends with the connection.
///
/// # Errors
/// When the connection breaks while the preface is sent.
pub(crate) async fn start<S>(io: S) -> Result<Client, h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, mut connection) = Builder::new()
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_max_send_streams(STREAMS_BEFORE_SETTINGS)
        .max_header_list_size(HEAD_BYTES_MAX)
        .max_send_buffer_size(SEND_BUFFER_BYTES_MAX)
        .max_local_error_reset_streams(Some(RESETS_BY_ERROR_MAX))
        .handshake::<_, Bytes>(io)
        .await?;
    let standing = Arc::new(Standing::default());
    let (held, released) = oneshot::channel();
    let pings = connection.ping_pong();
    tokio::spawn(drive(connection, pings, standing.clone(), released));
    Ok(Client { sender, standing, _held: held })
}

impl Client {
    /// Requests on it now.
    pub(crate) fn streams(&self) -> u32 {
        self.standing.streams.load(Ordering::Relaxed)
    }

    /// Whether it takes no more requests.
    pub(crate) fn is_closed(&self) -> bool {
        self.standing.closed.load(Ordering::Relaxed)
    }

    /// A place on it for one request.
    pub(crate) fn claim(&self) -> Claim {
        self.standing.streams.fetch_add(1, Ordering::Relaxed);
        Claim { sender: self.sender.clone(), stream: Stream(self.standing.clone()) }
    }
}

impl Claim {
    /// Sends a request and waits for the head of its answer. Dropping the future cancels the request upstream.
    pub(crate) async fn send(&mut self, request: Request<Sent>) -> Result<Response<Reception>, Broke> {
        if let Err(error) = poll_fn(|cx| self.sender.poll_ready(cx)).await {
            // It is at its end, or was told to end (GOAWAY): nobody else need try it.
            self.stream.0.closed.store(true, Ordering::Relaxed);
            return Err(Broke { unsent: Some(request), unprocessed: true, error });
        }
        let (head, body) = request.into_parts();
        let ends = body.is_end_stream();
        let sent = self.sender.send_request(Request::from_parts(head, ()), ends);
        let (mut answer, stream) = sent.map_err(|error| Broke { unsent: None, unprocessed: true, error })?;
        let mut sending = (!ends).then(|| Sending::new(body, stream));
        let answered = poll_fn(|cx| {
            // A body that breaks resets the stream, which the answer below then tells.
            if sending.as_mut().is_some_and(|sending| sending.poll(cx).is_ready()) {
                sending = None;
            }
            std::pin::Pin::new(&mut answer).poll(cx)
        });
        let response = answered.await.map_err(Broke::unanswered)?;
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
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs a connection to its end.
async fn drive<S>(
    connection: h2::client::Connection<S, Bytes>,
    pings: Option<PingPong>,
    standing: Arc<Standing>,
    mut released: oneshot::Receiver<Infallible>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut connection, mut silent, mut held) = (pin!(connection), pin!(silent(pings, standing.clone())), true);
    poll_fn(|cx| {
        // How it ended reaches the requests that are on it; without one, it is nobody's news.
        if connection.as_mut().poll(cx).is_ready() || silent.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if held && std::pin::Pin::new(&mut released).poll(cx).is_ready() {
            held = false;
            // h2 looks for the last handle's end when it is polled, and nothing else would have it polled.
            return connection.as_mut().poll(cx).map(drop);
        }
        Poll::Pending
    })
    .await;
    standing.closed.store(true, Ordering::Relaxed);
}

/// Resolves when the peer leaves a ping unanswered while requests wait for it.
async fn silent(pings: Option<PingPong>, standing: Arc<Standing>) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        tokio::time::sleep(PING_INTERVAL).await;
        if standing.streams.load(Ordering::Relaxed) == 0 {
            continue;
        }
        let pong = tokio::time::timeout(PING_TIMEOUT, pings.ping(Ping::opaque())).await;
        if !matches!(pong, Ok(Ok(_))) {
            return;
        }
    }
}
