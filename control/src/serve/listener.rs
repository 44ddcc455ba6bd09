//! The listener for roles: accepts connections, shakes hands under the control plane's current certificate, and hands the streams
//! to the gRPC server.
//!
//! Anybody who reaches it can connect and say nothing, or shake hands without a certificate and ask for nothing. Connections of
//! peers that have proven nothing yet are bounded in number and in time, and where there are too many the oldest is ended: whoever
//! wants to enrol is through within milliseconds, so those that stay are not the ones that are wanted.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use runtime::clock;
use runtime::drain::Drain;
use runtime::net::{Listener, Stream};
use runtime::tls::{self, Caller, Served};
use rustls::ServerConfig;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

/// Wait after an accept that failed, most often for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// Streams that wait for the server to take them.
const READY_MAX: usize = 64;

/// The settings of the next handshake; replaced when the certificate is renewed.
pub(crate) type Settings = Arc<ArcSwap<ServerConfig>>;

/// What holds for connections whose peer has no certificate that holds: silent ones, those in a handshake, and those of roles that
/// have yet to enrol or to renew.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// At a time. Half of the 1,024 files that a process may have open where nobody allows it more.
    pub(crate) unproven_max: usize,
    /// From the connection to the end of its handshake.
    pub(crate) handshake: Duration,
    /// From the connection to its end.
    pub(crate) unproven: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { unproven_max: 512, handshake: Duration::from_secs(5), unproven: Duration::from_secs(10) }
    }
}

/// Accepts until the drain.
pub(crate) fn accept(
    listener: Listener,
    settings: Settings,
    bounds: Bounds,
    drain: &Drain,
) -> ReceiverStream<Result<Served, std::io::Error>> {
    let (ready, served) = mpsc::channel(READY_MAX);
    let unproven = Arc::new(Unproven { max: bounds.unproven_max, places: Mutex::default() });
    let ending = drain.clone();
    drain.spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = ending.requested() => return,
            };
            match accepted {
                Ok((stream, from)) => {
                    let place = Unproven::enter(&unproven);
                    tokio::spawn(shake_hands(stream, from, settings.load_full(), bounds, place, ready.clone()));
                    // One that was ended for this one closes its socket in a turn of its own.
                    tokio::task::yield_now().await;
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

async fn shake_hands(
    stream: Stream,
    from: SocketAddr,
    settings: Arc<ServerConfig>,
    bounds: Bounds,
    mut place: Place,
    ready: mpsc::Sender<Result<Served, std::io::Error>>,
) {
    let began = Instant::now();
    let accepted = tokio::select! {
        accepted = tokio::time::timeout_at(began + bounds.handshake, tls::accept_ended(stream, settings)) => accepted,
        () = place.taken() => return tracing::debug!(%from, "a connection was ended for newer ones"),
    };
    let (stream, peer) = match accepted {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => return tracing::debug!(%from, %error, "a handshake failed"),
        Err(_) => return tracing::debug!(%from, "a handshake took too long"),
    };
    let proven = peer.as_ref().is_some_and(|peer| peer.ended_for_s(clock::wall_s()) == 0);
    let end = (!proven).then(|| {
        let end = async move {
            tokio::select! {
                () = tokio::time::sleep_until(began + bounds.unproven) => {}
                () = place.taken() => {}
            }
        };
        Box::pin(end) as _
    });
    // The server is gone when it is ending; the peer sees its connection close.
    let _ = ready.send(Ok(Served { stream, caller: Caller { peer, from }, end })).await;
}

/// The connections whose peer has proven nothing yet, in the order in which they came.
#[derive(Debug)]
struct Unproven {
    max: usize,
    // A lock for the moment in which a connection comes or goes.
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    next: u64,
    /// Dropping a sender ends the connection.
    taken: BTreeMap<u64, oneshot::Sender<()>>,
}

/// A connection's place among them, until it is dropped.
#[derive(Debug)]
struct Place {
    number: u64,
    ended: oneshot::Receiver<()>,
    of: Arc<Unproven>,
}

impl Unproven {
    /// Gives a place to a connection; where there is none left the oldest loses its own.
    fn enter(this: &Arc<Self>) -> Place {
        let (ends, ended) = oneshot::channel();
        let mut places = this.lock();
        if places.taken.len() >= this.max {
            places.taken.pop_first();
        }
        let number = places.next;
        places.next += 1;
        places.taken.insert(number, ends);
        drop(places);
        Place { number, ended, of: this.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Resolves when a newer connection has the place.
    async fn taken(&mut self) {
        // Nothing is ever sent.
        let _ = (&mut self.ended).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.lock().taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests;
