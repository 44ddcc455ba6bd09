//! A service that speaks gRPC, and what its clients do: `orders` watches a stream that lasts longer than any bound on a request, holds
//! streams open without reading them, and meanwhile makes small calls, which neither may disturb.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use runtime::http::{Body, BoxError};
use runtime::net;
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::history::{Event, History};
use crate::shop::OUTBOUND_PORT;

/// The service's name.
pub const SERVICE: &str = "levels";

/// How long a small call may take while nothing is wrong.
pub const CALL_BOUND: Duration = Duration::from_secs(2);
/// From one small call to the next, while streams are held and after that.
const CALL_PAUSE: Duration = Duration::from_millis(400);
const CALL_PAUSE_LATER: Duration = Duration::from_secs(5);
/// Before a stream that broke is opened again.
const STREAM_PAUSE: Duration = Duration::from_millis(500);
/// Streams that are open and not read, at a time.
const UNREAD_STREAMS: usize = 4;
/// How often they are opened: a run with a long stream is not full of them to its end.
const UNREAD_TIMES: u32 = 2;
/// How long each of them is held.
const UNREAD_FOR: Duration = Duration::from_secs(4);
/// Windows of a client that does not read: what it has not taken waits in the mesh.
const CLIENT_WINDOW_BYTES: u32 = 64 << 10;
/// A message of a stream that nobody reads, and how many there are: more than the mesh holds for one stream.
const BIG_MESSAGE_BYTES: usize = 64 << 10;
const BIG_MESSAGES: u32 = 36;

/// Where messages, and how many, are asked for.
const COUNT: &str = "x-count";
const EVERY_MS: &str = "x-every-ms";
const BYTES: &str = "x-bytes";

/// Answers as `levels`: so many messages, so often, then the trailers.
pub async fn levels(request: Request<Bytes>) -> Response<Body> {
    let number = |name: &str| {
        let value = request.headers().get(name).and_then(|value| value.to_str().ok());
        value.and_then(|text| text.parse::<u64>().ok()).unwrap_or_default()
    };
    let messages = Messages {
        left: u32::try_from(number(COUNT)).unwrap_or_default(),
        every: Duration::from_millis(number(EVERY_MS)),
        message: message(usize::try_from(number(BYTES)).unwrap_or_default()),
        next: Box::pin(sleep(Duration::ZERO)),
        has_ended: false,
    };
    let mut response = Response::new(messages.boxed_unsync());
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// A gRPC message behind its prefix.
fn message(bytes: usize) -> Bytes {
    let mut message = vec![b'm'; bytes + 5];
    message[0] = 0;
    message[1..5].copy_from_slice(&u32::try_from(bytes).unwrap_or_default().to_be_bytes());
    message.into()
}

struct Messages {
    left: u32,
    every: Duration,
    message: Bytes,
    next: Pin<Box<Sleep>>,
    has_ended: bool,
}

impl http_body::Body for Messages {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        std::task::ready!(self.next.as_mut().poll(cx));
        if self.left == 0 {
            self.has_ended = true;
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        self.left -= 1;
        let every = self.every;
        self.next.as_mut().reset(Instant::now() + every);
        Poll::Ready(Some(Ok(Frame::data(self.message.clone()))))
    }
}

/// How long the watched stream is, and how quiet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Stream {
    /// From one message to the next.
    pub every: Duration,
    /// How many messages it has.
    pub count: u32,
}

impl Stream {
    /// How long it lasts.
    #[must_use]
    pub fn lasts(&self) -> Duration {
        self.every * self.count
    }
}

/// Watches, holds and calls for as long as the host lives.
pub async fn use_levels(history: History, stream: Stream) {
    tokio::join!(watch(&history, stream), hold(), call(&history));
}

async fn watch(history: &History, stream: Stream) {
    loop {
        let began = turmoil::sim_elapsed().unwrap_or_default();
        match watch_once(stream).await {
            Ok(()) => history.record(Event::Streamed { began, broke: None }),
            Err(Broke::Refused) => {}
            Err(Broke::After(why)) => history.record(Event::Streamed { began, broke: Some(why) }),
        }
        sleep(STREAM_PAUSE).await;
    }
}

/// How a stream ended that did not come whole.
enum Broke {
    /// Before its first message.
    Refused,
    /// After it.
    After(String),
}

async fn watch_once(stream: Stream) -> Result<(), Broke> {
    let mut body = match open(u64::from(stream.count), stream.every, 64).await {
        Ok(response) => response.into_body(),
        Err(_) => return Err(Broke::Refused),
    };
    let (mut messages, mut status) = (0, None);
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(_)) => messages += 1,
            Ok(Err(frame)) => {
                status = frame.trailers_ref().and_then(|t| t.get("grpc-status")?.to_str().ok().map(str::to_owned));
            }
            Err(error) if messages > 0 => return Err(Broke::After(format!("{messages} messages, then {error:?}"))),
            Err(_) => return Err(Broke::Refused),
        }
    }
    match status.as_deref() {
        Some("0") if messages >= stream.count => Ok(()),
        _ if messages == 0 => Err(Broke::Refused),
        status => Err(Broke::After(format!("{messages} messages, then the status {status:?}"))),
    }
}

/// Opens streams, one after the other, and reads none of them.
async fn hold() {
    for _ in 0..UNREAD_TIMES {
        let mut held = Vec::new();
        for _ in 0..UNREAD_STREAMS {
            let opened = timeout(CALL_BOUND, open(BIG_MESSAGES.into(), Duration::ZERO, BIG_MESSAGE_BYTES)).await;
            held.extend(opened.ok().and_then(Result::ok));
        }
        sleep(UNREAD_FOR).await;
    }
}

async fn call(history: &History) {
    let mut has_worked = false;
    loop {
        let outcome = timeout(CALL_BOUND, call_once()).await;
        let failed = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(format!("{why:#}")),
            Err(_) => Some("no answer in time".to_owned()),
        };
        has_worked |= failed.is_none();
        if has_worked {
            history.record(Event::Called { failed });
        }
        let later = turmoil::sim_elapsed().unwrap_or_default() > UNREAD_FOR * (UNREAD_TIMES + 2);
        sleep(if later { CALL_PAUSE_LATER } else { CALL_PAUSE }).await;
    }
}

async fn call_once() -> anyhow::Result<()> {
    let collected = open(1, Duration::ZERO, 16).await?.into_body().collect().await?;
    let status = collected.trailers().and_then(|trailers| trailers.get("grpc-status"));
    anyhow::ensure!(status.is_some_and(|status| status == "0"), "the status {status:?}");
    Ok(())
}

/// A stream through the own sidecar, on a connection of its own.
async fn open(count: u64, every: Duration, bytes: usize) -> anyhow::Result<Response<Incoming>> {
    let sidecar = SocketAddr::from(([127, 0, 0, 1], OUTBOUND_PORT));
    let stream = net::connect(sidecar).await.context("no connection")?;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(CLIENT_WINDOW_BYTES)
        .initial_connection_window_size(CLIENT_WINDOW_BYTES);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    // It ends with the sender and the last stream.
    tokio::spawn(connection);
    let request = Request::post(format!("http://{SERVICE}/levels.Levels/Watch"))
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header("te", "trailers")
        .header(COUNT, count)
        .header(EVERY_MS, u64::try_from(every.as_millis())?)
        .header(BYTES, bytes)
        .body(Full::new(message(0)))?;
    let response = sender.send_request(request).await?;
    anyhow::ensure!(response.status() == 200, "answered {}", response.status());
    // A refusal has its status in the head.
    anyhow::ensure!(!response.headers().contains_key("grpc-status"), "refused: {:?}", response.headers());
    Ok(response)
}
