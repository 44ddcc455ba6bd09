//! An HTTP/1.1 connection: its requests, one after the other, and what is said where there is no request that could be answered.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::connection::{Arrival, Direction};
use super::control::Order;
use super::first_bytes::Io;
use crate::refusal::{Reason, Refusal};
use crate::request::{HEAD_BYTES_MAX, MESH_FIELDS_MAX, OWN_BYTES_MAX, TARGET_BYTES_MAX};

/// What a client still sends after its last answer is read and thrown away, up to this many bytes and for so long: a connection
/// that is closed over unread bytes is reset, and the client may lose the answer (RFC 9112 §9.6). So it is more than was on its way when
/// the answer was written, which is up to what the buffers of both sockets hold: 10 MiB where Linux is left as it comes
/// (`tcp_rmem`, `tcp_wmem` in tcp(7)), and much more than a client sends until it has read the answer.
const LINGER_BYTES_MAX: usize = 64 << 20;
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
/// Read at a time meanwhile.
const LINGER_BUFFER_BYTES: usize = 4 << 10;

/// Serves a connection to its end, or until it becomes a tunnel.
pub(super) async fn drive<S>(io: Io<S>, arrival: Arc<Arrival>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(control) = arrival.control.clone() else { return };
    let served = arrival.clone();
    let service = service_fn(move |request: Request<Incoming>| crate::request::handle(served.clone(), request));
    // Head and body go out in one `send`: for bodies of some KiB a copy costs less than a vector of the two.
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX).writev(false);
    if arrival.direction == Direction::Inbound {
        builder.max_buf_size(HEAD_BYTES_MAX + OWN_BYTES_MAX).max_headers(MESH_FIELDS_MAX);
    }
    let mut connection = builder.serve_connection(TokioIo::new(io), service).with_upgrades();
    let (mut registered, mut draining) = (false, false);
    let ended = poll_fn(|cx| {
        // A wake-up uses the registration up, so whoever has been told something registers for the next word.
        if !registered || control.order() != Order::Run {
            control.register(cx.waker());
            registered = true;
        }
        match control.order() {
            Order::Drain if !draining && control.may_close() => {
                draining = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            Order::Run | Order::Drain => {}
            order => return Poll::Ready(Err(order)),
        }
        Pin::new(&mut connection).poll(cx).map(Ok)
    })
    .await;
    // An upgraded connection has no parts: its stream is the tunnel's.
    let Some(parts) = connection.into_parts().filter(|_| !matches!(ended, Err(Order::Kill))) else { return };
    let io = parts.io.into_inner();
    match ended {
        Err(_) if io.is_at_rest() => refuse(&arrival, io.into_stream(), Reason::HeadLate).await,
        // A client that does not read its last answer either.
        Err(_) => {}
        Ok(Err(error)) if io.has_withheld() => {
            refuse(&arrival, io.into_stream(), unreadable(&error, &parts.read_buf)).await;
        }
        // How it ended has been told to the request that was on it.
        Ok(_) => linger(io.into_stream()).await,
    }
}

/// Why the HTTP library has called no one.
fn unreadable(error: &hyper::Error, unread: &[u8]) -> Reason {
    match (error.is_parse_too_large(), unread.contains(&b'\n')) {
        (true, true) => Reason::HeadTooLong(HEAD_BYTES_MAX),
        // Not even the first line has ended; or the library's own bound on targets, which is longer than ours.
        (true, false) => Reason::TargetTooLong(TARGET_BYTES_MAX),
        (false, _) => Reason::Head(error.to_string()),
    }
}

/// Tells a client why its connection ends, where there is no request that could be answered.
pub(super) async fn refuse<S>(arrival: &Arrival, mut stream: S, reason: Reason)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    arrival.plane.meters.refused(arrival.direction, reason.name());
    tracing::debug!(%reason, "refused before there was a request");
    let words = Refusal::new(reason).words(&arrival.plane.subject);
    let said = tokio::time::timeout(LINGER_TIMEOUT, stream.write_all(&words)).await;
    if matches!(said, Ok(Ok(()))) {
        linger(stream).await;
    }
}

/// Ends a connection from this side, and waits a little for the client to end it from its own.
async fn linger<S>(mut stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let waiting = async {
        stream.shutdown().await?;
        let (mut buffer, mut left) = ([0; LINGER_BUFFER_BYTES], LINGER_BYTES_MAX);
        loop {
            let read = stream.read(&mut buffer).await?;
            left = left.saturating_sub(read);
            if read == 0 || left == 0 {
                return std::io::Result::Ok(());
            }
        }
    };
    // Boxed: the buffer is not carried along by a connection that lives.
    let _ = tokio::time::timeout(LINGER_TIMEOUT, Box::pin(waiting)).await;
}
