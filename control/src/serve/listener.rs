//! The door for roles: accepts connections, shakes hands under the control plane's current certificate, and hands the streams
//! to the gRPC server. A handshake that is slow or fails holds up nobody else.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use runtime::drain::Drain;
use runtime::net::{Listener, Stream};
use runtime::tls::{self, Served};
use rustls::ServerConfig;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

/// Handshakes at a time; further connections wait in the kernel.
const HANDSHAKES_MAX: usize = 256;
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Wait after an accept that failed, most often for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// Streams that wait for the server to take them.
const READY_MAX: usize = 64;

/// The settings of the next handshake; replaced when the certificate is renewed.
pub(crate) type Settings = Arc<ArcSwap<ServerConfig>>;

/// Accepts until the drain.
pub(crate) fn accept(
    listener: Listener,
    settings: Settings,
    drain: &Drain,
) -> ReceiverStream<Result<Served, std::io::Error>> {
    let (ready, served) = mpsc::channel(READY_MAX);
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let ending = drain.clone();
    drain.spawn(async move {
        loop {
            // The semaphore is never closed.
            let Ok(permit) = handshakes.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = ending.requested() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let handshake = shake_hands(stream, settings.load_full(), ready.clone());
                    tokio::spawn(async move {
                        handshake.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    });
    ReceiverStream::new(served)
}

async fn shake_hands(stream: Stream, settings: Arc<ServerConfig>, ready: mpsc::Sender<Result<Served, std::io::Error>>) {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls::accept(stream, settings)).await {
        Ok(Ok((stream, peer))) => {
            // The server is gone when it is ending; the peer sees its connection close.
            let _ = ready.send(Ok(Served { stream, peer })).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a handshake failed"),
        Err(_) => tracing::debug!("a handshake took too long"),
    }
}
