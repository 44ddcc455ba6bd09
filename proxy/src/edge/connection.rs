//! One connection: its identity, its HTTP version, and its requests one by one to [`crate::request::handle`].

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use model::identity::SpiffeId;
use runtime::http::BoxFuture;
use runtime::net::Stream;
use runtime::tls;
use tokio::io::{AsyncRead, AsyncWrite};

use super::accept::Door;
use super::control::{Control, Order};
use super::first_bytes::{Io, Version};
use super::http1;
use crate::plane::Plane;
use crate::refusal::Reason;

/// Longest TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests at a time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// Header list beyond which the HTTP/2 library answers 431 by itself, with nothing but the status. Twice
/// [`crate::request::HEAD_BYTES_MAX`], so that a list that is too long is refused with an explanation where it is read at all.
const HEADER_LIST_BYTES_MAX: u32 = 128 << 10;
/// Flow-control windows: what one client can make a lane hold for one stream, and for one connection. All streams of a connection may
/// be full, and none takes the room of another; a stream holds no more than an HTTP/1.1 connection would.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = STREAMS_MAX * STREAM_WINDOW_BYTES;
/// The same inside of the mesh. The streams' windows bound the bytes; h2 takes half of this as the bound for what small frames that
/// wait to be read cost beside them, and ends the connection beyond it. So all streams may be full of frames of 32 bytes.
const MESH_CONNECTION_WINDOW_BYTES: u32 = 14 * CONNECTION_WINDOW_BYTES;
/// Largest frame that a client may send. At the protocol's least, 16 KiB, a stream of messages costs a write for each of them on every hop.
const FRAME_BYTES_MAX: u32 = 64 << 10;
/// Streams that a client may have reset before they were served; one more closes the connection (CVE-2023-44487).
const RESETS_PENDING_MAX: usize = 20;
/// Streams that were reset for a client's protocol errors; one more closes the connection (CVE-2025-8671).
const RESETS_BY_ERROR_MAX: usize = 256;
/// The same two for another sidecar of the mesh, whose connection carries what many clients do: a moment in which all of them leave, or
/// in which the bodies of many refused requests are still on the way, is no attack.
const MESH_RESETS_PENDING_MAX: usize = STREAMS_MAX as usize;
const MESH_RESETS_BY_ERROR_MAX: usize = 1 << 20;
/// How often a silent HTTP/2 client is asked whether it still lives, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Which way a request goes through this data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the application beside it.
    Outbound,
    /// From the mesh to the application beside it.
    Inbound,
    /// From outside of the mesh.
    Gateway,
}

impl Direction {
    /// Its name in metrics and logs.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
            Self::Gateway => "gateway",
        }
    }
}

/// What all requests of one connection have in common.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) plane: Arc<Plane>,
    /// Which of the plane's lanes; its pools and loads are used.
    pub(crate) lane: usize,
    pub(crate) direction: Direction,
    /// Who the client has proven to be.
    pub(crate) peer: Option<SpiffeId>,
    /// The same, as the header that the application is given.
    pub(crate) peer_header: Option<HeaderValue>,
    /// The client's address, as the header that a gateway sends on.
    pub(crate) forwarded_for: Option<HeaderValue>,
    /// Inside of a CONNECT tunnel: where requests go that name no other host.
    pub(crate) tunnel: Option<String>,
    /// `None` for a call from inside of this process.
    pub(crate) control: Option<Arc<Control>>,
    /// The same: what goes on behind a request's answer is the door's to wait for.
    pub(crate) door: Option<Arc<Door>>,
}

impl Arrival {
    /// For requests from inside of this process.
    pub(crate) fn inside(plane: Arc<Plane>, lane: usize) -> Self {
        Self {
            plane,
            lane,
            direction: Direction::Outbound,
            peer: None,
            peer_header: None,
            forwarded_for: None,
            tunnel: None,
            control: None,
            door: None,
        }
    }

    /// For requests that come through a tunnel to `target` which was opened on this connection.
    pub(crate) fn inside_tunnel(&self, target: String, control: Arc<Control>) -> Self {
        Self {
            plane: self.plane.clone(),
            lane: self.lane,
            direction: self.direction,
            peer: self.peer.clone(),
            peer_header: self.peer_header.clone(),
            forwarded_for: self.forwarded_for.clone(),
            tunnel: Some(target),
            control: Some(control),
            door: self.door.clone(),
        }
    }

    /// A place among the door's connections for one that comes through a tunnel on this one: what it is told, and when it is
    /// idle, is its own.
    pub(crate) fn enter(&self) -> Option<Arc<Control>> {
        self.door.as_ref()?.enter(self.lane)
    }

    /// Runs what outlives a request.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        match &self.door {
            Some(door) => door.spawn(task),
            None => drop(tokio::spawn(task)),
        }
    }
}

/// Serves a connection from its first byte to its last.
pub(crate) async fn serve(
    plane: Arc<Plane>,
    lane: usize,
    door: Arc<Door>,
    stream: Stream,
    from: SocketAddr,
    control: Arc<Control>,
) {
    let direction = door.direction;
    let mut arrival = Arrival::inside(plane, lane);
    (arrival.direction, arrival.control, arrival.door) = (direction, Some(control.clone()), Some(door));
    if direction == Direction::Inbound {
        return serve_mesh(arrival, stream, from, control).await;
    }
    if direction == Direction::Gateway {
        arrival.forwarded_for = HeaderValue::from_str(&from.ip().to_string()).ok();
    }
    look_and_drive(Io::new(stream, control), Arc::new(arrival)).await;
}

async fn serve_mesh(mut arrival: Arrival, stream: Stream, from: SocketAddr, control: Arc<Control>) {
    // An inbound door is only opened where there is an identity.
    let Some(identity) = arrival.plane.identity.as_ref().map(|identity| identity.current()) else { return };
    let accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls::accept(stream, identity.server())).await;
    let (stream, peer) = match accepted {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => return tracing::info!(%from, %error, "a caller did not get through the TLS handshake"),
        Err(_) => return tracing::info!(%from, "a caller did not finish the TLS handshake in time"),
    };
    arrival.peer_header = peer.as_ref().and_then(|id| HeaderValue::from_str(&id.to_string()).ok());
    arrival.peer = peer;
    let version = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Version::Http2,
        _ => Version::Http1,
    };
    drive(Io::new(stream, control), version, Arc::new(arrival)).await;
}

/// Serves what comes through a CONNECT tunnel. Boxed, since a request inside of it may open another.
pub(crate) fn serve_tunnel(upgraded: Upgraded, arrival: Arrival, control: Arc<Control>) -> BoxFuture<()> {
    Box::pin(look_and_drive(Io::new(TokioIo::new(upgraded), control), Arc::new(arrival)))
}

async fn look_and_drive<S>(mut io: Io<S>, arrival: Arc<Arrival>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let looked = tokio::select! {
        biased;
        looked = io.look() => looked,
        () = told(arrival.control.as_deref()) => None,
    };
    match looked {
        Some(version) => drive(io, version, arrival).await,
        None if arrival.control.as_ref().is_some_and(|control| control.order() == Order::Late) => {
            http1::refuse(&arrival, io.into_stream(), Reason::HeadLate).await;
        }
        None => {}
    }
}

/// Resolves when the connection is told to end in any way.
async fn told(control: Option<&Control>) {
    ordered(control, |order| order != Order::Run).await;
}

/// Resolves when the connection is told to end at once.
pub(crate) async fn killed(control: Option<&Control>) {
    ordered(control, |order| order == Order::Kill).await;
}

async fn ordered(control: Option<&Control>, which: impl Fn(Order) -> bool) {
    let Some(control) = control else { return std::future::pending().await };
    poll_fn(|cx| {
        control.register(cx.waker());
        if which(control.order()) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn drive<S>(io: Io<S>, version: Version, arrival: Arc<Arrival>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match version {
        Version::Http1 => http1::drive(io, arrival).await,
        Version::Http2 => drive_http2(io, arrival).await,
    }
}

async fn drive_http2<S>(io: Io<S>, arrival: Arc<Arrival>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(control) = arrival.control.clone() else { return };
    let (resets_pending_max, resets_by_error_max) = match arrival.direction {
        Direction::Inbound => (MESH_RESETS_PENDING_MAX, MESH_RESETS_BY_ERROR_MAX),
        Direction::Outbound | Direction::Gateway => (RESETS_PENDING_MAX, RESETS_BY_ERROR_MAX),
    };
    let connection_window_bytes = match arrival.direction {
        Direction::Inbound | Direction::Outbound => MESH_CONNECTION_WINDOW_BYTES,
        Direction::Gateway => CONNECTION_WINDOW_BYTES,
    };
    // Boxed: hyper would move the whole of it, more than 3 KiB, from hand to hand until it stands in a task of its own.
    let service =
        service_fn(move |request: Request<Incoming>| Box::pin(crate::request::handle(arrival.clone(), request)));
    control.becomes_http2();
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(connection_window_bytes)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_pending_accept_reset_streams(resets_pending_max)
        .max_local_error_reset_streams(resets_by_error_max)
        .enable_connect_protocol()
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let mut connection = builder.serve_connection(TokioIo::new(io), service);
    let (mut registered, mut draining) = (false, false);
    poll_fn(|cx| {
        // A wake-up uses the registration up, so whoever has been told something registers for the next word.
        if !registered || control.order() != Order::Run {
            control.register(cx.waker());
            registered = true;
        }
        match control.order() {
            // RFC 9113 §6.8: a GOAWAY with the highest stream first, the real one a round trip later; hyper does both.
            Order::Drain if !draining => {
                draining = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            Order::Run | Order::Drain | Order::Late => {}
            Order::Kill => return Poll::Ready(()),
        }
        Pin::new(&mut connection).poll(cx).map(|_| ())
    })
    .await;
}
